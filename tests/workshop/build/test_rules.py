"""Every fault in the source of a notebook stops the build with its file, its line and the reason."""

# ruff: noqa: E501  (one line for each fault)

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import workshop.build
from course_utils.exercises.registry import Exercise
from workshop.build import BuildError, Cell, build, find_problems
from workshop.build.rules import check_names

REPOSITORY = Path(__file__).resolve().parents[3]

# The solution of 9.1 is the class Exercise, that of 8.1 belongs into another notebook.
EXERCISES = [
    Exercise("8.1", "list_exercises", "exercises", "08_other", "Of another notebook", 1, 5),
    Exercise("9.1", "Exercise", "exercises", "09_tiny", "A small class", 1, 5),
]

SOURCE = """# %% [markdown]
# # Tiny notebook
#
# See [the end](#The-end), [the other](08_other.ipynb#top) and ![a dot](../pictures/dot.png "Dot").
#
# <details><summary>Hint</summary>
#
# Look again.
#
# </details>

# %%
import importlib
from dataclasses import dataclass
from typing import Any

print("ready")

# %% tags=["parameters"]
data_source = "embedded"
profile = "auto"  # or smoke, laptop, full
seed = 0
output = "output"

# %% [markdown]
# ## The end

# %% exercise="9.1"

# %% [markdown] question="9a"
# Why?

# %% [markdown] answer="9a"
# Because.

# %%
value = 1
print(value, seed)
"""


@pytest.fixture(autouse=True)
def drafts_are_allowed(monkeypatch):
    """The small notebook here has no check; blocks are tested in test_authoring_blocks.py."""
    monkeypatch.setattr(workshop.build.rules, "REQUIRE_BLOCKS", False)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "solutions").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "dot.png").write_bytes(b"dot")
    (tmp_path / "solutions" / "08_other.py").write_text("# %%\n")
    return tmp_path


def problems_of(root: Path, source: str) -> list[tuple[int, str]]:
    path = root / "solutions" / "09_tiny.py"
    path.write_text(source, encoding="utf-8")
    return [(problem.line, problem.reason) for problem in find_problems(path, EXERCISES)]


def test_a_right_source_has_no_problems(root):
    assert problems_of(root, SOURCE) == []


LAST = "value = 1\n"
TEXT = "# Because.\n"
PARAMETERS = SOURCE[SOURCE.index("# %% tags") : SOURCE.index("# %% [markdown]\n# ## The end")]
QUESTION = SOURCE[SOURCE.index("# %% [markdown] question") : SOURCE.index(TEXT)]
LONG = "".join(f"a{n} = {n}\n" for n in range(26))

# What is replaced and by what; the line that must be named, by its text, as n-th cell from the end, or None for the whole
# file; part of the reason.
FAULTS = {
    # cells, markers and tags
    "unknown marker": ('exercise="9.1"', 'exercice="9.1"', "exercice", "unknown marker 'exercice'; known: tags, exercise"),
    "title on a marker": (LAST, "# %% markdown\nvalue = 1\n", "# %% markdown", "'# %% markdown' cannot be read; write '# %%' or"),
    "unquoted marker": ('exercise="9.1"', "exercise=9.1", "exercise=9.1", "cannot be read"),
    "marker without value": ('exercise="9.1"', "exercise", "# %% exercise", "cannot be read"),
    "unreadable marker": ('answer="9a"', "answer=9a", "answer=9a", "cannot be read"),
    "unknown tag": ('["parameters"]', '["parameters", "paramaters"]', "paramaters", "unknown tag 'paramaters'; known: hide-input"),
    "tags not a list": ('["parameters"]', '"parameters"', "tags=", "cannot be read"),
    "tags not of texts": ('["parameters"]', "[3]", "tags=", "cannot be read"),
    "marker of jupytext": (' tags=["parameters"]', ' active="py"', "active", "unknown marker 'active'"),
    "tags on text": ('answer="9a"', 'answer="9a" tags=["optional"]', "optional", "tags ['optional'] on a text cell"),
    "exercise on text": ('# %% exercise="9.1"', '# %% [markdown] exercise="9.1"\n# x', "exercise=", "exercise marks a code cell"),
    "question on code": (LAST, '# %% question="9b"\nvalue = 1\n', "9b", "question marks a markdown cell, but this one is code"),
    "two marks": ('answer="9a"', 'answer="9a" question="9a"', "answer=", "one cell cannot be question and answer"),
    "raw cell": (LAST, "# %% [raw]\n# x\n# %%\nvalue = 1\n", "[raw]", "cannot be read"),
    "indented marker": (LAST, "def f():\n    # %% part\n    return 1\nvalue = 1\n", "%% part", "looks like the start of a cell"),
    "marker without space": (LAST, "#%%\nvalue = 1\n", "#%%", "looks like the start of a cell"),
    "marker of a cell magic": (LAST, "# %%time\nvalue = 1\n", "%%time", "looks like the start of a cell"),
    "other marker": (LAST, "# In[3]:\nvalue = 1\n", "In[3]", "looks like the start of a cell"),
    "marker in a string": (LAST, 'value = """\n# %% tags=["optional"]\n"""\n', "optional", "inside a string"),
    "text before the first cell": ("# %% [markdown]\n# # Tiny", "# hello\n# %% [markdown]\n# # Tiny", "# hello", "text before the first"),
    "no cells": (SOURCE, "x = 1\n", "x = 1", "no cells"),
    "text line without a hash": (TEXT, "# Because\nof this.\n", "of this", "a line of text without '# ' in front"),
    "empty code cell": (LAST, "# %%\nvalue = 1\n", "# %%\n# %%\nvalue", "an empty code cell"),
    "empty text cell": (TEXT, "#\n", 'answer="9a"', "an empty text cell"),
    # exercises
    "unknown exercise": (LAST, '# %% exercise="9.7"\n# %%\nvalue = 1\n', "9.7", "no exercise '9.7' in course_utils.exercises; known: 8.1, 9.1"),
    "exercise twice": (LAST, '# %% exercise="9.1"\n# %%\nvalue = 1\n', -2, "exercise 9.1 is used twice; first in line 28"),
    "exercise of another notebook": (LAST, '# %% exercise="8.1"\n# %%\nvalue = 1\n', "8.1", "belongs into 08_other, not into 09_tiny"),
    "exercise missing": ('# %% exercise="9.1"\n', "", None, "exercise 9.1 (Exercise) is missing"),
    "exercise with a body": ('"9.1"\n', '"9.1"\npass\n', "pass", "exercise 9.1 has a body"),
    # questions and answers
    "question without answer": ('# %% [markdown] answer="9a"', "# %% [markdown]", "question=", "question 9a has no answer"),
    "answer of another question": ('answer="9a"', 'answer="9b"', "answer=", "answer 9b does not stand right after question 9b"),
    "answer without question": (' question="9a"', "", "answer=", "answer 9a does not stand right after question 9a"),
    "answer not directly after": ("# Why?\n", "# Why?\n# %%\nhalf = 1\n", "question=", "question 9a has no answer"),
    "question of another notebook": (QUESTION, QUESTION.replace("9a", "3a"), "question=", "question '3a' in notebook 9; call it 9a, 9b"),
    "question twice": (LAST, '# %% [markdown] question="9a"\n# x\n# %% [markdown] answer="9a"\n# x\n# %%\nvalue = 1\n', -3, "9a is used twice"),
    # code
    "syntax error": (LAST, "value = = 1\n", "value = = 1", "the code does not parse: invalid syntax"),
    "syntax error in a later line": (LAST, "value = 1\n\n\nif value\n    print()\n", "if value", "the code does not parse"),
    "return outside a function": (LAST, "value = 1\nreturn value\n", "return", "'return' outside function"),
    "magic": (LAST, "value = 1\n%matplotlib inline\n", "%matplotlib", "magics and shell lines are not allowed"),
    "shell line": (LAST, "!pip install x\nvalue = 1\n", "!pip", "magics and shell lines are not allowed"),
    "magic in a comment": (LAST, "# %matplotlib inline\nvalue = 1\n", "%matplotlib", "looks like a magic"),
    "star import": (LAST, "value = 1\nfrom math import *\n", "import *", "'from math import *' hides the names"),
    "plt.show": (LAST, "value = 1\nplt.show()\n", "plt.show", "plt.show() shows a figure without alt text"),
    "figure without caption": (LAST, "display.show(figure)\n", "plotting.show", "a figure without alt text"),
    "figure with empty caption": (LAST, 'display.show(figure, " ")\n', "plotting.show", "a figure without alt text"),
    "long code cell": (LAST, LONG + "# %%\nvalue = 1\n", "# %%\na0 = 0", "a code cell of 26 lines, 25 are allowed"),
    # parameters
    "no parameters cell": (' tags=["parameters"]', "", None, "no parameters cell"),
    "two parameters cells": (LAST, '# %% tags=["parameters"]\nvalue = 1\n', -1, "a second parameters cell"),
    "a parameter missing": ("seed = 0\n", "", 'tags=["parameters"]', "must set data_source, profile, seed, output, but sets data_source"),
    "a parameter too many": ("seed = 0\n", "seed = 0\nsize = 1\n", 'tags=["parameters"]', "but sets data_source, profile, seed, size"),
    "a parameter twice": ("seed = 0\n", "seed = 0\nseed = 1\n", 'tags=["parameters"]', "profile, seed, seed, output"),
    "a parameter computed": ("seed = 0\n", "seed = len([])\n", "seed = len", "a parameter must be a plain text or number"),
    "something else among the parameters": ("seed = 0\n", "seed = 0\nprint()\n", 'tags=["parameters"]', "something else"),
    "parameters late": ("# %%\nimport", "# %%\nearly = 1\n\n# %%\nimport", 'tags=["parameters"]', "must be the first code cell"),
    "parameters after an exercise": (PARAMETERS, f'# %% exercise="9.1"\n\n{PARAMETERS}', 'tags=["param', "must be the first code cell"),
    # text
    "details not closed": ("# </details>\n", "", "<details>", "<details> without </details>"),
    "details not opened": (TEXT, "# Because.\n# </details>\n", "</details>\n\n# %%\nvalue", "</details> without <details>"),
    "summary without blank line": ("</summary>\n#\n", "</summary>\n", "</summary>", "no blank line after </summary>"),
    "summary with text in its line": ("</summary>\n", "</summary> Look.\n", "</summary>", "no blank line after </summary>"),
    "link to a missing file": (TEXT, "# Because\n# [of](missing.md).\n", "missing.md", "a link to 'missing.md', but the repository"),
    "link out of the repository": (TEXT, "# [of](../../../etc/passwd).\n", "passwd", "the repository has no such file"),
    "link to a missing notebook": ("08_other.ipynb", "07_other.ipynb", "07_other", "a link to '07_other.ipynb#top'"),
    "link by reference": (TEXT, "# [of][1]\n#\n# [1]: missing.md\n", "[1]: missing", "a link to 'missing.md'"),
    "link in HTML": (TEXT, "# <a\n# href='missing.md'>of</a>\n", "# <a", "a link to 'missing.md'"),
    "link to a missing heading": ("#The-end", "#The-start", "#The-start", "no heading of this notebook is called so"),
    "missing picture": ("dot.png", "dash.png", "dash.png", "a link to '../pictures/dash.png'"),
    "missing picture in HTML": (TEXT, '# <img alt="a" src="no.png">\n', "<img", "a link to 'no.png'"),
    "attached picture": (TEXT, "# ![a](attachment:a.png)\n", "attachment", "a link to 'attachment:a.png'"),
    "picture without alt text": ("![a dot]", "![ ]", "![ ]", "an image without alt text"),
    "picture in HTML without alt text": (TEXT, '# <img src="../pictures/dot.png">\n', "<img", "an image without alt text"),
    "picture in HTML with empty alt text": (TEXT, '# <img alt="" src="../pictures/dot.png">\n', "<img", "an image without alt text"),
    # names
    "name never defined": (LAST, "value = missing\n", "missing", "missing is used but not defined before"),
    "name defined below": (LAST, "value = late\n# %%\nlate = 1\n", "value = late", "late is used but not defined before"),
    "name of a later import": ("from typing import Any\n", "", 'exercise="9.1"', "Any is used but not defined before (in the solution of exercise 9.1)"),
    "name in the body of a solution": ("import importlib\n", "import importlib as i\n", 'exercise="9.1"', "importlib is used but never defined (in"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_named_with_its_line(root, name):
    old, new, at, reason = FAULTS[name]
    assert old in SOURCE
    source = SOURCE.replace(old, new, 1)
    if at is None:
        line = 0
    elif isinstance(at, int):
        line = [number for number, text in enumerate(source.splitlines(), 1) if text.startswith("# %%")][at]
    else:
        line = source[: source.index(at)].count("\n") + 1
    found = problems_of(root, source)
    assert any(line == found_line and reason in text for found_line, text in found), (line, found)


def test_the_message_of_the_build_has_file_line_and_reason_of_all_problems(root, monkeypatch):
    monkeypatch.setattr(workshop.build, "list_exercises", lambda: EXERCISES)
    source = SOURCE.replace(LAST, "value = = 1\n").replace("![a dot]", "![]")
    (root / "solutions" / "09_tiny.py").write_text(source, encoding="utf-8")
    with pytest.raises(BuildError) as error:
        build(only="09", root=root)
    assert str(error.value).splitlines() == [
        "solutions/09_tiny.py:4: an image without alt text; say in it what the picture shows.",
        "solutions/09_tiny.py:37: the code does not parse: invalid syntax.",
        "Nothing was written.",
    ]


def test_a_file_that_is_not_utf_8_is_named(root):
    path = root / "solutions" / "09_tiny.py"
    path.write_bytes(SOURCE.replace("Because", "Größe").encode("latin-1"))
    assert [str(problem).split("(")[0] for problem in find_problems(path, [])] == ["solutions/09_tiny.py: not UTF-8 "]


@pytest.mark.parametrize(
    "module, name", [("no_such_module", "f"), ("exercises", "no_such_name"), ("exercises", "__doc__")]
)
def test_an_exercise_without_source_is_named(root, module, name):
    path = root / "solutions" / "09_tiny.py"
    path.write_text(SOURCE, encoding="utf-8")
    [problem] = find_problems(path, [Exercise("9.1", name, module, "09_tiny", "Broken", 1, 5)])
    assert problem.line == 28 and f"course_utils.{module}.{name} cannot be read" in problem.reason


@pytest.mark.parametrize(
    "text",
    [
        "Code: `[a](b)`, `<details>` and ``![](x)``.",
        "Formulas: $f[i](x)$, $$\ng[i](y)\n$$ and [a link](https://example.org/a_(b)).",
        "```python\nx[0](y)\n# <details>\n```",
        "~~~\n![](x)\n~~~\nand `x`",
        '<details open>\n<summary>A</summary>\n\n<details>\n<summary>B</summary>\n\nb\n\n</details>\n</details>',
        "[mail](mailto:a@example.org) <https://example.org> [data](data:text/plain,x)",
        '<img src="../pictures/dot.png"\n  width="3" alt="A dot.">',
        "[![A dot](../pictures/dot.png)](<../pictures/dot.png>)",
        "### The `end` of *it*\n\n[there](#The-end-of-it)",
        "a < b, c > d and a list [1](../pictures/)",
    ],
)  # fmt: skip
def test_text_that_only_looks_faulty_is_accepted(root, text):
    comment = "".join(f"# {line}".rstrip() + "\n" for line in text.split("\n"))
    assert problems_of(root, SOURCE.replace(TEXT, comment)) == []


def test_25_lines_of_code_are_allowed_and_solutions_may_be_longer(root):
    assert problems_of(root, SOURCE.replace(LAST, LONG[LONG.index("\n") + 1 :] + "\n# %%\n" + LAST)) == []
    long = Exercise("9.1", "build", "authoring", "09_tiny", "A long function", 1, 5)
    path = root / "solutions" / "09_tiny.py"
    assert all("used but" in problem.reason for problem in find_problems(path, [long]))


# Cells of a notebook -> the undefined names in it. Where ruff says otherwise, it is said why.
SNIPPETS = {
    ("x = 1", "print(x)"): [],
    ("print(x)", "x = 1"): ["x"],
    ("x = x + 1",): ["x"],
    ("total += 1",): ["total"],
    ("x: int = y",): ["y"],
    ("x: int", "print(x)"): ["x"],
    ("def f():\n    return later", "later = 1"): [],
    ("def f():\n    return never",): ["never"],
    ("def f(a=early):\n    return a", "early = 1"): ["early"],
    ("@early\ndef f():\n    pass", "early = 1"): ["early"],
    ("def f(a: Array) -> Image:\n    return a",): ["Array", "Image"],
    ("f = lambda a: a + b", "b = 1"): [],
    ("[a * b for a in range(3) if c]",): ["b", "c"],
    ("print(a for a in range(3))\nprint(a)",): ["a"],
    ("if any((m := p) > 1 for p in [1, 2]):\n    print(m)",): [],
    ("x = (y := 2) + y",): [],
    ("class A:\n    size = 3\n    def f(self):\n        return size",): ["size"],
    ("class A(Base):\n    b = a\n    def f(self):\n        return __class__, super().x, self.y",): ["Base", "a"],
    ("class A:\n    name = __qualname__\n    double = name * 2",): [],
    ("def f():\n    global g\n    g = 1", "f()\nprint(g)"): [],
    ("def f():\n    n = 0\n    def inner():\n        nonlocal n\n        n += 1\n    return inner",): [],
    ("import a.b as c, d.e", "print(c, d)\nprint(a, e)"): ["a", "e"],
    ("try:\n    pass\nexcept (OSError, Wrong) as error:\n    print(error)",): ["Wrong"],
    ("with open('x') as file, other as (p, q):\n    print(p, q)",): ["other"],
    ("for n, (a, *b) in []:\n    print(n, a, b)\nelse:\n    print(c)",): ["c"],
    ("match 1:\n    case {'a': first, **rest}:\n        print(first, rest, second)",): ["second"],
    ("print(f'{a!r:>{width}} {1}')",): ["a", "width"],
    ("display(get_ipython(), __name__)",): [],
    ("a = 1; b = a; print(c)",): ["c"],
    ("async def f():\n    async with x as y:\n        return [z async for z in y]",): ["x"],
    ("def top(which, many=2):\n    return which, many",): [],
    ("def f(*args, key, **rest):\n    return args, key, rest, self",): ["self"],
    ("'''doc with name'''\n# comment with name",): [],
    ("x = 1\nx.y = z\nx[k] = 2",): ["k", "z"],
}


def undefined(sources: tuple[str, ...]) -> list[str]:
    cells = [Cell("code", source, line=1, first_line=1) for source in sources]
    return sorted(reason.split()[0] for _, reason in check_names(cells))


@pytest.mark.parametrize("sources", SNIPPETS)
def test_undefined_names(sources):
    assert undefined(sources) == SNIPPETS[sources]


def test_ruff_finds_the_same_undefined_names(tmp_path):
    for number, sources in enumerate(SNIPPETS):
        cells = [Cell("code", source, 1) for source in sources]
        (tmp_path / f"{number:02}.ipynb").write_bytes(workshop.build.to_bytes(workshop.build.to_notebook(cells)))
    arguments = ["check", "--isolated", "--select", "F821", "--output-format", "json", "--target-version", "py311"]
    command = [sys.executable, "-m", "ruff", *arguments, str(tmp_path)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    found: dict[int, set[str]] = {number: set() for number in range(len(SNIPPETS))}
    for report in json.loads(output):
        found[int(Path(report["filename"]).stem)].add(report["message"].split("`")[1])
    assert found == {number: set(names) for number, names in enumerate(SNIPPETS.values())}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "course_utils").glob("*.py")), ids=lambda path: path.stem)
def test_no_name_of_a_working_module_is_called_undefined(path):
    source = path.read_text(encoding="utf-8").replace("__file__", "__name__")
    # Annotations may name what comes later in the file, where the module says so; a notebook evaluates them.
    own = {node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    assert set(undefined((source,))) <= own


def test_the_line_is_the_one_where_the_name_stands():
    source = "def f():\n    a = 1\n    return a\n\n\n@f\ndef g(\n    x,\n    y=missing,\n):\n    return x + gone\n"
    [now, later] = check_names([Cell("code", source, line=10, first_line=11)])
    assert now[0] == 19 and "missing" in now[1]
    assert later[0] == 21 and "gone" in later[1]
