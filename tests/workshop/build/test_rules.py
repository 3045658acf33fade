"""Every fault in the source of a notebook stops the build with its file, its line and the reason."""

# ruff: noqa: E501  (one line for each fault)

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_course import EXERCISES, SOURCE, make_course

import workshop.build
from workshop.build import BuildError, Cell, build, make_versions


def problems_of(root: Path, source: str, exercises=EXERCISES) -> list[tuple[int, str]]:
    try:
        make_versions(make_course(root, source), exercises)
    except BuildError as error:
        return [(problem.line, problem.reason) for problem in error.problems]
    return []


LAST = "value = count_parameters(nn.Linear(2, 1))\n"
END = "# ## The end\n"
TEXT = "# Because.\n"
PARAMETERS = SOURCE[SOURCE.index("# %% tags") : SOURCE.index("# %% [markdown]\n# Some text")]
EXERCISE = '# %% exercise="2.4"\nfrom course_utils import count_parameters\n'
LONG = "".join(f"a{n} = {n}\n" for n in range(26))

# What is replaced and by what; the line that must be named, by its text, as n-th cell from the end, or None for the whole
# file; part of the reason.
FAULTS = {
    # cells, markers and tags
    "unknown marker": ('exercise="2.4"', 'exercice="2.4"', "exercice", "unknown marker 'exercice'; known: tags, exercise"),
    "title on a marker": (LAST, "# %% markdown\nvalue = 1\n", "# %% markdown", "'# %% markdown' cannot be read; write '# %%' or"),
    "unquoted marker": ('exercise="2.4"', "exercise=2.4", "exercise=2.4", "cannot be read"),
    "marker without value": ('exercise="2.4"', "exercise", "# %% exercise", "cannot be read"),
    "unreadable marker": ('answer="2a"', "answer=2a", "answer=2a", "cannot be read"),
    "unknown tag": ('["parameters"]', '["parameters", "paramaters"]', "paramaters", "unknown tag 'paramaters'; known: fold"),
    "folded check": ('check="2.4"', 'check="2.4" tags=["fold"]', "check=", "a folded cell that students should read or edit"),
    "folded parameters": ('["parameters"]', '["parameters", "fold"]', "fold", "a folded cell that students should read or edit"),
    "tags not a list": ('["parameters"]', '"parameters"', "tags=", "cannot be read"),
    "tags not of texts": ('["parameters"]', "[3]", "tags=", "cannot be read"),
    "marker of jupytext": (' tags=["parameters"]', ' active="py"', "active", "unknown marker 'active'"),
    "tags on text": ('answer="2a"', 'answer="2a" tags=["optional"]', "optional", "tags ['optional'] on a text cell"),
    "exercise on text": (EXERCISE, '# %% [markdown] exercise="2.4"\n# x\n', "exercise=", "exercise marks a code cell"),
    "question on code": (LAST, '# %% question="2b"\nvalue = 1\n', "2b", "question marks a markdown cell, but this one is code"),
    "two marks": ('answer="2a"', 'answer="2a" question="2a"', "answer=", "one cell cannot be question and answer"),
    "raw cell": (LAST, "# %% [raw]\n# x\n# %%\nvalue = 1\n", "[raw]", "cannot be read"),
    "indented marker": (LAST, "def f():\n    # %% part\n    return 1\nvalue = 1\n", "%% part", "looks like the start of a cell"),
    "marker without space": (LAST, "#%%\nvalue = 1\n", "#%%", "looks like the start of a cell"),
    "marker of a cell magic": (LAST, "# %%time\nvalue = 1\n", "%%time", "looks like the start of a cell"),
    "other marker": (LAST, "# In[3]:\nvalue = 1\n", "In[3]", "looks like the start of a cell"),
    "marker in a string": (LAST, 'value = """\n# %% tags=["fold"]\n"""\n', "fold", "inside a string"),
    "text before the first cell": ("# %% [markdown]\n# # Tiny", "# hello\n# %% [markdown]\n# # Tiny", "# hello", "text before the first"),
    "no cells": (SOURCE, "x = 1\n", "x = 1", "no cells"),
    "text line without a hash": (TEXT, "# Because\nof this.\n", "of this", "a line of text without '# ' in front"),
    "empty code cell": (LAST, "# %%\nvalue = 1\n", "# %%\n# %%\nvalue", "an empty code cell"),
    "empty text cell": (TEXT, "#\n", 'answer="2a"', "an empty text cell"),
    # exercises
    "unknown exercise": (LAST, '# %% exercise="9.7"\n# %%\nvalue = 1\n', "9.7", "exercise 9.7 is used twice, or is not one of this notebook; those are: 2.4"),
    "exercise twice": (LAST, '# %% exercise="2.4"\n# %%\nvalue = 1\n', -2, "exercise 2.4 is used twice"),
    "exercise of another notebook": (LAST, '# %% exercise="1.1"\n# %%\nvalue = 1\n', "1.1", "exercise 1.1 is used twice, or is not one of this notebook"),
    "exercise missing": ('# %% exercise="2.4"\n', "# %%\n", None, "exercise 2.4 (count_parameters) is missing"),
    "exercise with a body": (EXERCISE, EXERCISE + "pass\n", EXERCISE.splitlines()[1], "exercise 2.4 must hold the line 'from course_utils import count_parameters' and nothing else"),
    "exercise without its import": (EXERCISE, EXERCISE.splitlines()[0] + "\n", 'exercise="2.4"', "exercise 2.4 must hold the line"),
    "import of another object": ("import count_parameters", "import count_shapes", "import count_shapes", "exercise 2.4 must hold the line"),
    # questions and answers
    "question without answer": ('# %% [markdown] answer="2a"', "# %% [markdown]", "question=", "question 2a has no answer"),
    "answer of another question": ('answer="2a"', 'answer="2b"', "answer=", "answer 2b is not right after question 2b"),
    "answer without question": (' question="2a"', "", "answer=", "answer 2a is not right after question 2a"),
    "answer not directly after": ("# Why?\n", "# Why?\n# %%\nhalf = 1\n", "question=", "question 2a has no answer"),
    "question of another notebook": ('question="2a"', 'question="3a"', "question=", "question '3a' in notebook 2; call it 2a, 2b"),
    "question twice": (LAST, '# %% [markdown] question="2a"\n# x\n# %% [markdown] answer="2a"\n# x\n# %%\nvalue = 1\n', -3, "2a is used twice"),
    # code
    "syntax error": (LAST, "value = = 1\n", "value = = 1", "the code does not parse: invalid syntax"),
    "syntax error in a later line": (LAST, "value = 1\n\n\nif value\n    print()\n", "if value", "the code does not parse"),
    "return outside a function": (LAST, "value = 1\nreturn value\n", "return", "'return' outside function"),
    "magic": (LAST, "value = 1\n%matplotlib inline\n", "%matplotlib", "magics and shell lines are not allowed"),
    "shell line": (LAST, "!pip install x\nvalue = 1\n", "!pip", "magics and shell lines are not allowed"),
    "magic in a comment": (LAST, "# %matplotlib inline\nvalue = 1\n", "%matplotlib", "looks like a magic"),
    "star import": (LAST, "value = 1\nfrom math import *\n", "import *", "'from math import *' hides the names"),
    "plt.show": (LAST, "value = 1\nplt.show()\n", "plt.show", "plt.show() shows a figure without alt text"),
    "figure without caption": (LAST, "show(figure)\n", "show(figure", "a figure without alt text"),
    "figure with empty caption": (LAST, 'show(figure, " ")\n', "show(figure", "a figure without alt text"),
    "figure with empty caption by name": (LAST, 'show(figure, caption="")\n', "show(figure", "a figure without alt text"),
    # parameters
    "no parameters cell": (' tags=["parameters"]', "", None, "0 parameters cells; one"),
    "two parameters cells": (LAST, '# %% tags=["parameters"]\nvalue = 1\n', -1, "2 parameters cells; one"),
    "a parameter missing": ("seed = 0\n", "", 'tags=["parameters"]', "must set data_source, profile, seed, output, but sets data_source"),
    "a parameter too many": ("seed = 0\n", "seed = 0\nsize = 1\n", 'tags=["parameters"]', "but sets data_source, profile, seed, size"),
    "a parameter twice": ("seed = 0\n", "seed = 0\nseed = 1\n", 'tags=["parameters"]', "profile, seed, seed, output"),
    "a parameter computed": ("seed = 0\n", "seed = len([])\n", "seed = len", "a parameter must be set to a plain text or number"),
    "something else among the parameters": ("seed = 0\n", "seed = 0\nprint()\n", "print()", "a parameter must be set to a plain text or number"),
    "parameters late": ("# %%\nimport", "# %%\nearly = 1\n\n# %%\nimport", 'tags=["parameters"]', "must be the first code cell"),
    "parameters after an exercise": (PARAMETERS, EXERCISE + PARAMETERS, 'tags=["param', "must be the first code cell"),
    # text
    "details not closed": ("# </details>\n", "", "<details>", "<details> without </details>"),
    "details not opened": (TEXT, "# Because.\n# </details>\n", "</details>\n\n# %% [markdown]\n# ## The end", "</details> without <details>"),
    "summary without blank line": ("</summary>\n#\n", "</summary>\n", "</summary>", "no blank line after </summary>"),
    "summary with text in its line": ("</summary>\n", "</summary> Look.\n", "</summary>", "no blank line after </summary>"),
    "link to a missing file": (TEXT, "# Because\n# [of](missing.md).\n", "missing.md", "a link to 'missing.md', but the repository"),
    "link to the placeholder": (TEXT, "# Because\n# [of](https://github.com/your-name/x).\n", "your-name", "the placeholder"),
    "link out of the repository": (TEXT, "# [of](../../../etc/passwd).\n", "passwd", "the repository has no such file"),
    "link to a missing notebook": ("02_unet.ipynb", "07_other.ipynb", "07_other", "a link to '07_other.ipynb#top'"),
    "link by reference": (TEXT, "# [of][1]\n#\n# [1]: missing.md\n", "[1]: missing", "a link to 'missing.md'"),
    "link in HTML": (TEXT, "# <a\n# href='missing.md'>of</a>\n", "# <a", "a link to 'missing.md'"),
    "link to a missing heading": ("#The-end", "#The-start", "#The-start", "this notebook has no such heading"),
    "missing picture": ("dot.png", "dash.png", "dash.png", "a link to '../pictures/dash.png'"),
    "missing picture in HTML": (TEXT, '# <img alt="a" src="no.png">\n', "<img", "a link to 'no.png'"),
    "attached picture": (TEXT, "# ![a](attachment:a.png)\n", "attachment", "a link to 'attachment:a.png'"),
    "picture without alt text": ("![a dot]", "![ ]", "![ ]", "an image without alt text"),
    "picture in HTML without alt text": (TEXT, '# <img src="../pictures/dot.png">\n', "<img", "an image without alt text"),
    "picture in HTML with empty alt text": (TEXT, '# <img alt="" src="../pictures/dot.png">\n', "<img", "an image without alt text"),
    # blocks
    "no check": ('# %% check="2.4"\n\n', "", 'exercise="2.4"', "exercise 2.4 has no check; the next cell must be"),
    "check not directly after": ('# %% check="2.4"', '# %%\nhalf = 1\n\n# %% check="2.4"', 'check="2.4"', "check 2.4 is not right after"),
    "check of another exercise": ('check="2.4"', 'check="2.5"', "check=", "check 2.5 is not right after exercise 2.5"),
    "check twice": ('# %% check="2.4"\n', '# %% check="2.4"\n\n# %% check="2.4"\n', '# %% check="2.4"\n\n# %% [m', "check 2.4 is not right after"),
    "check with a body": ('check="2.4"\n', 'check="2.4"\npass\n', "pass", "check 2.4 has a body"),
    "check on text": ('# %% check="2.4"', '# %% [markdown] check="2.4"\n# x', "check=", "check marks a code cell"),
    "expected on code": ('# %% [markdown] expected="2.4"', '# %% expected="2.4"', "expected=", "expected marks a markdown cell"),
    "no heading": ("### Exercise 2.4: Count", "### Exercise: Count", 'exercise="2.4"', "exercise 2.4 has no heading '### Exercise 2.4: Count"),
    "other title": ("Exercise 2.4: Count", "Exercise 2.4: Number", 'exercise="2.4"', "exercise 2.4 is called 'Number the parameters'"),
    "heading of another exercise": ("### Exercise 2.4", "### Exercise 1.1", 'exercise="2.4"', "exercise 2.4 has no heading"),
    "code between heading and stub": ("# %% [markdown] expected", "# %%\nhalf = 1\n\n# %% [markdown] expected", 'exercise="2.4"', "no heading"),
    "no difficulty": ("# {{difficulty}}\n", "", 'exercise="2.4"', "needs one line {{difficulty}}"),
    "difficulty by hand": ("{{difficulty}}", "*Difficulty 3 of 5.*", 'exercise="2.4"', "needs one line {{difficulty}}"),
    "difficulty twice": ("# {{difficulty}}\n", "# {{difficulty}}\n#\n# {{difficulty}}\n", 'exercise="2.4"', "needs one line"),
    "difficulty above the heading": ("# Some text.", "# {{difficulty}}", "{{difficulty}}", "without the heading of a known exercise"),
    "unknown placeholder": ("# Some text.", "# {{difficult}}", "{{difficult}}", "unknown placeholder '{{difficult}}'; known: {{difficulty}}, {{minutes}}"),
    "time in figures": ("# Some text.", "# **Time** about 90 minutes.", "90 minutes", "the time '90' in figures; write {{minutes}}"),
    "no expected cell": (' expected="2.4"', "", 'exercise="2.4"', "exercise 2.4 has no expected result"),
    "snippet in an unmarked cell": (' expected="2.4"', "", "# %% [markdown]\n# Expected", "that is not marked expected="),
    "expected of an unknown exercise": ('expected="2.4"', 'expected="2.9"', 'expected="2.9"', "the expected result of 2.9 is not between"),
    "expected of another exercise": ('expected="2.4"', 'expected="1.1"', 'expected="1.1"', "is not between its heading and exercise 1.1"),
    "expected elsewhere": (END, END + '# %% [markdown] expected="2.4"\n# Expected: 1\n', 'expected="2.4"\n# Expected: 1', "is not between"),
    "no word Expected": ("# Expected: a", "# A", 'expected="2.4"', 'does not contain the word "Expected:"'),
    "snippet that fails": ("nn.Linear(10, 2))", "nn.Lineal(10, 2))", "count_parameters(torch.nn", "AttributeError"),
    "no hints": ("Hint", "Tip", 'exercise="2.4"', "needs 2 hints or more: Hint 1, Hint 2, ...; found: none"),
    "one hint": ("<summary>Hint 2", "<summary>More", 'exercise="2.4"', "found: 1."),
    "hints out of order": ("Hint 2", "Hint 3", 'exercise="2.4"', "found: 1, 3."),
    "hint not closed": ("# </details>\n# <details>\n", "# <details>\n", "<details><summary>Hint 1", "<details> without </details>"),
    "hint closed twice": ("# </details>\n\n# %% exercise", "# </details>\n# </details>\n\n# %% exercise", "</details>\n\n# %% exercise", "</details> without"),
    "hint without blank line": ("Hint 2</summary>\n#\n", "Hint 2</summary>\n", "<summary>Hint 2", "no blank line after </summary>"),
    "long cell for students": (LAST, LONG + LAST, "# %%\na0", "for students a code cell of 28 lines, 25 are allowed"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_named_with_its_line(tmp_path, name):
    old, new, at, reason = FAULTS[name]
    assert old in SOURCE
    source = SOURCE.replace(old, new, -1 if name == "no hints" else 1)
    if at is None:
        line = 0
    elif isinstance(at, int):
        line = [number for number, text in enumerate(source.splitlines(), 1) if text.startswith("# %%")][at]
    else:
        line = source[: source.index(at)].count("\n") + 1
    found = problems_of(tmp_path, source)
    assert any(line == found_line and reason in text for found_line, text in found), (line, found)


def test_a_right_source_has_no_problems(tmp_path):
    assert problems_of(tmp_path, SOURCE) == []


def test_the_message_of_the_build_has_file_line_and_reason_of_all_problems(root):
    source = SOURCE.replace(LAST, "value = = 1\n").replace("![a dot]", "![]")
    make_course(root, source)
    with pytest.raises(BuildError) as error:
        build(only="02", root=root)
    assert str(error.value).splitlines() == [
        "solutions/02_unet.py:4: an image without alt text; say in it what the picture shows.",
        f"solutions/02_unet.py:{source[: source.index('= =')].count(chr(10)) + 1}: the code does not parse: invalid syntax.",
        "Nothing was written.",
    ]


@pytest.mark.parametrize(
    "change",
    [{"module": "no_such_module"}, {"name": "no_such_name"}, {"name": "__doc__"}, {"module": "device", "name": "torch"}],
    ids=str,
)
def test_an_exercise_without_a_source_or_stub_is_named(tmp_path, change):
    exercise = dataclasses.replace(EXERCISES[1], **change)
    source = SOURCE.replace("import count_parameters", f"import {exercise.name}")
    [(line, reason)] = problems_of(tmp_path, source, [exercise])
    assert line == SOURCE[: SOURCE.index(EXERCISE)].count("\n") + 1
    assert f"exercise 2.4 has no source or no stub: course_utils.{exercise.module}.{exercise.name}: " in reason


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
def test_text_that_only_looks_faulty_is_accepted(tmp_path, text):
    comment = "".join(f"# {line}".rstrip() + "\n" for line in text.split("\n"))
    assert problems_of(tmp_path, SOURCE.replace(TEXT, comment)) == []


def test_25_lines_of_code_are_allowed_and_solutions_may_be_longer(tmp_path):
    assert problems_of(tmp_path, SOURCE.replace(LAST, LONG[LONG.index("\n") + 1 :] + "\n# %%\n" + LAST)) == []
    unet = dataclasses.replace(EXERCISES[1], name="UNet")
    assert len(unet.reference.__doc__.splitlines()) > 10
    assert problems_of(tmp_path, SOURCE.replace(EXERCISE, EXERCISE.replace("count_parameters", "UNet")), [unet]) == []


def test_several_exercises_may_follow_one_another(tmp_path):
    second = SOURCE[SOURCE.index("# %% [markdown]\n# Some text") : SOURCE.index("# %% [markdown] question")]
    for old, new in [("2.4", "1.1"), ("Count the parameters", "Count the image sizes"), ("count_parameters", "count_shapes")]:
        second = second.replace(old, new)
    second = second.replace("torch.nn.Linear(10, 2)", "[np.ones((1, 2))]")
    here = [dataclasses.replace(exercise, notebook="02_unet") for exercise in EXERCISES]
    assert problems_of(tmp_path, SOURCE.replace("# %% [markdown] question", second + "# %% [markdown] question"), here) == []


# Cells of a notebook -> the undefined names in it
UNDEFINED = {
    ("x = 1", "print(x)"): [],
    ("print(x)", "x = 1"): ["x"],
    ("def f():\n    return later", "later = 1"): [],
    ("def f():\n    return never",): ["never"],
    ("def f(a: Array) -> Image:\n    return a",): ["Array", "Image"],
    ("display(get_ipython(), __name__)",): [],
}


@pytest.mark.parametrize("sources", UNDEFINED)
def test_ruff_finds_names_that_no_cell_or_only_a_later_one_defines(tmp_path, sources):
    """This is why the rules do not look for undefined names."""
    notebook = workshop.build.to_notebook([Cell("code", source, 1) for source in sources])
    (tmp_path / "one.ipynb").write_bytes(workshop.build.to_bytes(notebook))
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "concise"]
    run = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False)
    assert [line.split("`")[1] for line in run.stdout.splitlines() if "F821" in line] == UNDEFINED[sources]
