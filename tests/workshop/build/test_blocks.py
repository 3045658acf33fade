"""Exercise blocks: what the build makes of them, and every fault in them by file, line and reason."""

# ruff: noqa: E501  (one line for each fault)

from __future__ import annotations

import base64
import dataclasses
import os
import random
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

import workshop.build
from course_utils.exercises import list_exercises
from course_utils.exercises.registry import get_exercise
from workshop.build import BuildError, build, find_problems, read_cells
from workshop.build.expected import ExpectedError, fill_in
from workshop.build.versions import solved, student

REPOSITORY = Path(__file__).resolve().parents[3]

# A notebook with one exercise of the course, under another name; the check of 2.4 judges it.
SOURCE = """# %% [markdown]
# # Tiny notebook

# %%
import torch
from torch import nn

from course_utils import plotting
from course_utils.training import record_scores

print(plotting, record_scores)

# %% tags=["parameters"]
data_source = "embedded"
profile = "auto"
seed = 0
output = "output"

# %% [markdown]
# Some text.
#
# ### Exercise 2.4: Count the parameters
#
# {{difficulty}}
#
# Write `count_parameters(model)`.

# %% [markdown] expected="2.4"
# Expected: a layer of 10 inputs and 2 outputs has a weight for each pair, and 2 biases.
#
# ```python expected
# count_parameters(torch.nn.Linear(10, 2))
# ```
#
# <details><summary>Hint 1</summary>
#
# Every parameter knows its size.
#
# </details>
# <details>
# <summary>Hint 2</summary>
#
# And whether it is trained.
#
# </details>

# %% exercise="2.4"

# %% check="2.4"

# %%
print(count_parameters(nn.Linear(2, 1)))

# %% [markdown] question="2a"
# Why?

# %% [markdown] answer="2a"
# Because parameters are what the optimizer changes.

# %% [markdown]
# The end.
"""
EXERCISES = [exercise for exercise in list_exercises() if exercise.id in ("1.1", "2.4")]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(workshop.build, "list_exercises", lambda: EXERCISES)
    monkeypatch.setattr(workshop.build.rules, "REQUIRE_BLOCKS", True)
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "02_unet.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def read(root: Path, folder: str) -> nbformat.NotebookNode:
    return nbformat.read(root / folder / "02_unet.ipynb", as_version=4)


def by_id(notebook) -> dict[str, str]:
    return {cell.id: cell.source for cell in notebook.cells}


def test_both_versions_are_built_and_without_outputs(root):
    built = [path.relative_to(root).as_posix() for path in build(root=root)]
    assert built == [
        "solutions/02_unet.ipynb",
        "notebooks/02_unet.ipynb",
        "build/kaggle/02_unet/02_unet.ipynb",
        "build/kaggle/02_unet/kernel-metadata.json",
    ]
    for folder in ("solutions", "notebooks"):
        for cell in read(root, folder).cells:
            assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)
    assert build(check=True, root=root) == []


def test_solution_and_stub(root):
    build(root=root)
    stub, solution = by_id(read(root, "notebooks")), by_id(read(root, "solutions"))
    assert solution["exercise-2-4"].endswith("if parameter.requires_grad)")
    assert stub["exercise-2-4"].endswith('raise NotImplementedError("Exercise 2.4: Count the parameters")')
    assert stub["answer-2a"].startswith("<details><summary>Your answer</summary>\n\n")
    assert solution["answer-2a"].startswith("Because parameters")
    same = stub.keys() - {"exercise-2-4", "answer-2a"}
    assert {key: stub[key] for key in same} == {key: solution[key] for key in same}


@pytest.mark.parametrize("folder", ["solutions", "notebooks"])
def test_check_import_difficulty_and_progress_are_filled_in(root, folder):
    build(root=root)
    notebook = read(root, folder)
    ids = [cell.id for cell in notebook.cells]
    assert ids[ids.index("exercise-2-4") + 1] == "check-2-4"
    assert by_id(notebook)["check-2-4"] == 'count_parameters = check("2.4", count_parameters)'
    whole = "\n".join(by_id(notebook).values())
    assert whole.count("import check") == 1
    assert "plotting\nfrom course_utils.exercises import check\nfrom course_utils.training" in notebook.cells[1].source
    assert "*Difficulty 1 of 5, about 5 minutes.*" in whole and "{{" not in whole
    last = notebook.cells[-1]
    assert last.metadata == {"course": {"progress": "02_unet"}}
    assert last.source.endswith('show_overview("02_unet")')  # only the first notebook also shows the whole course


def test_difficulty_and_minutes_come_from_the_registry(root):
    cells = read_cells(root / "solutions" / "02_unet.py")
    harder = [dataclasses.replace(get_exercise("2.4"), difficulty=5, minutes=77)]
    assert any("*Difficulty 5 of 5, about 77 minutes.*" in cell.source for cell in student(cells, harder))


def test_the_import_goes_into_the_first_check_where_it_does_not_fit_above(root):
    long = "".join(f"a{number} = {number}\n" for number in range(18))
    source = SOURCE.replace("print(plotting", long + "print(plotting")
    assert source.index("# %% tags") - source.index("import torch") > 0
    path = root / "solutions" / "02_unet.py"
    path.write_text(source, encoding="utf-8")
    cells = student(read_cells(path), EXERCISES)
    [check] = [cell for cell in cells if "check" in cell.markers]
    assert check.source.startswith("from course_utils.exercises import check\n\ncount_parameters = ")
    assert sum("import check" in cell.source for cell in cells) == 1


def test_an_import_by_the_author_is_not_repeated(root):
    path = root / "solutions" / "02_unet.py"
    path.write_text(SOURCE.replace("import plotting\n", "import plotting\nfrom course_utils.exercises import check\n"))
    assert sum(cell.source.count("import check") for cell in solved(read_cells(path), EXERCISES)) == 1


def test_a_source_without_all_checks_has_no_student_version_yet(root, monkeypatch):
    monkeypatch.setattr(workshop.build.rules, "REQUIRE_BLOCKS", False)
    path = root / "solutions" / "02_unet.py"
    path.write_text(SOURCE.replace('# %% check="2.4"\n\n', ""), encoding="utf-8")
    assert build(root=root) == [root / "solutions" / "02_unet.ipynb"]


def test_check_finds_an_edited_student_version(root):
    build(root=root)
    path = root / "notebooks" / "02_unet.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("Some text", "Some other text"), encoding="utf-8")
    with pytest.raises(BuildError, match=r"notebooks/02_unet\.ipynb: differs from what its source gives"):
        build(check=True, root=root)
    build(root=root)
    (root / "notebooks" / "03_gone.ipynb").write_text("{}")
    with pytest.raises(BuildError, match=r"notebooks/03_gone\.ipynb: has no source"):
        build(check=True, root=root)


# Expected results


def shown(text: str) -> str:
    return fill_in(text, lambda picture, alt: f"![{alt}]({len(picture) > 100})")


def fence(code: str, options: str = "") -> str:
    return f"Before.\n\n```python expected{options}\n{code}\n```\n\nAfter."


def test_the_code_is_shown_with_what_it_prints_and_gives():
    assert shown(fence("a = 2\nprint('sum')\na + 2")) == (
        "Before.\n\n```python\na = 2\nprint('sum')\na + 2\n```\n\n```text\nsum\n4\n```\n\nAfter."
    )
    assert shown(fence("count_shapes([np.ones((2, 3))])", " hidden")) == "Before.\n\n```text\n{(2, 3): 1}\n```\n\nAfter."


def test_other_fences_are_left_alone():
    text = "```python\nprint(1)\n```\n\n```text\n2\n```"
    assert shown(text) == text


def test_the_value_is_that_of_the_course(monkeypatch):
    import course_utils

    monkeypatch.setattr(course_utils, "count_parameters", lambda model: "planted", raising=False)
    assert "planted" in shown(fence("count_parameters(torch.nn.Linear(3, 1)), 'not cached before'"))


def test_a_figure_becomes_a_picture_with_its_alternative_text():
    assert shown(fence("plt.figure()", ' hidden alt="Nothing."')) == "Before.\n\n![Nothing.](True)\n\nAfter."


EXPECTED_FAULTS = {
    (" loud", "1"): (2, "cannot be read"),
    (' alt=""', "plt.figure()"): (2, "cannot be read"),
    ("", "a = 1\nb = missing"): (4, "NameError: name 'missing'"),
    ("", "a = 1\nb = = 2"): (4, "SyntaxError"),
    ("", "def f():\n    return 1 / 0\n\nf()"): (4, "ZeroDivisionError"),
    ("", "a = 1"): (2, "the expected result is empty"),
    ("", "plt.figure()"): (2, "a picture without alt text"),
    (' alt="A."', "1"): (2, "does not end with a figure"),
    (' alt="A."', "f, a = plt.subplots(figsize=(9, 9))\na.imshow(np.random.rand(700, 700))\nf"): (2, "make it smaller"),
}


@pytest.mark.parametrize("options, code", EXPECTED_FAULTS)
def test_faults_of_a_snippet_have_their_row(options, code):
    row, reason = EXPECTED_FAULTS[options, code]
    with pytest.raises(ExpectedError, match=reason) as error:
        shown(fence(code, options))
    assert error.value.row == row


def test_random_numbers_are_the_same_every_time_and_the_callers_are_left_alone():
    torch.manual_seed(7)
    random.seed(7)
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    first = shown(fence("float(torch.rand(1)), 'first'")).split("(")[-1].split(",")[0]
    assert first in shown(fence("float(torch.rand(1)), 'second'"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), torch.get_num_threads())


WITH_PICTURE = SOURCE.replace(
    "# <details><summary>Hint 1",
    """# ```python expected hidden alt="A line from (0, 0) to (1, 2)."
# figure, axes = plt.subplots(figsize=(3, 2))
# axes.plot([0, 1], [0, 2])
# axes.set_title("a title")
# figure
# ```
#
# <details><summary>Hint 1""",
)


def picture_of(root: Path, folder: str = "notebooks") -> bytes:
    [cell] = [cell for cell in read(root, folder).cells if "attachments" in cell]
    [(name, data)] = cell.attachments.items()
    assert f"![A line from (0, 0) to (1, 2).](attachment:{name})" in cell.source
    return base64.b64decode(data["image/png"])


def test_pictures_are_attached_and_hold_no_trace_of_when_and_where(root):
    (root / "solutions" / "02_unet.py").write_text(WITH_PICTURE, encoding="utf-8")
    build(root=root)
    picture = picture_of(root)
    assert picture == picture_of(root, "solutions") and picture.startswith(b"\x89PNG")
    assert not any(name in picture for name in (b"tEXt", b"iTXt", b"tIME", b"Software", b"Matplotlib"))


TWO = """
import sys
from course_utils import authoring
from course_utils.exercises import get_exercise
workshop.build.list_exercises = lambda: [get_exercise("2.4")]
workshop.build.build(root=sys.argv[1])
"""


def test_two_processes_give_the_same_bytes_of_every_version(tmp_path):
    contents = []
    for number, more in enumerate([{"OMP_NUM_THREADS": "1", "MPLBACKEND": "svg"}, {"TZ": "Asia/Tokyo", "LC_ALL": "C"}]):
        root = tmp_path / f"copy {number}"
        (root / "solutions").mkdir(parents=True)
        (root / "solutions" / "02_unet.py").write_text(WITH_PICTURE, encoding="utf-8")
        environment = os.environ | more | {"PYTHONHASHSEED": str(number * 4711), "PYTHONPATH": str(REPOSITORY)}
        subprocess.run([sys.executable, "-c", TWO, str(root)], cwd=root, env=environment, check=True, timeout=300)
        contents.append({p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 5
    assert not any(str(tmp_path).encode() in content for content in contents[0].values())


def test_a_picture_that_shows_the_same_is_kept_and_another_one_is_replaced(root):

    path = root / "solutions" / "02_unet.py"
    path.write_text(WITH_PICTURE, encoding="utf-8")
    build(root=root)
    picture = picture_of(root)
    path.write_text(WITH_PICTURE.replace('set_title("a title")', 'set_title("a title", alpha=0.9)'), encoding="utf-8")
    build(root=root)
    assert picture_of(root) == picture
    path.write_text(WITH_PICTURE.replace("[0, 2])", "[2, 0])"), encoding="utf-8")
    build(root=root)
    assert picture_of(root) != picture
    for other in ("", "not base64", base64.b64encode(b"no picture").decode()):
        assert not workshop.build.outputs._same_picture(other, base64.b64encode(picture).decode())


# Faults

FAULTS = {
    "no check": ('# %% check="2.4"\n\n', "", 'exercise="2.4"', "exercise 2.4 has no check; the next cell must be"),
    "check not directly after": ('# %% check="2.4"', '# %%\nhalf = 1\n\n# %% check="2.4"', 'check="2.4"', "check 2.4 does not stand right after"),
    "check of another exercise": ('check="2.4"', 'check="2.5"', "check=", "check 2.5 does not stand right after exercise 2.5"),
    "check twice": ('# %% check="2.4"\n', '# %% check="2.4"\n\n# %% check="2.4"\n', 2, "check 2.4 does not stand right after"),
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
    "unknown placeholder": ("# Some text.", "# {{difficult}}", "{{difficult}}", "unknown placeholder '{{difficult}}'; known: {{difficulty}}"),
    "no expected cell": (' expected="2.4"', "", 'exercise="2.4"', "exercise 2.4 has no expected result"),
    "snippet in an unmarked cell": (' expected="2.4"', "", "# %% [markdown]\n# Expected", "that is not marked expected="),
    "expected of an unknown exercise": ('expected="2.4"', 'expected="2.9"', 'expected="2.9"', "there is no exercise '2.9'"),
    "expected of another exercise": ('expected="2.4"', 'expected="1.1"', 'expected="1.1"', "does not stand between its heading and exercise 1.1"),
    "expected elsewhere": ("# The end.", '# The end.\n# %% [markdown] expected="2.4"\n# Expected: 1', 'expected="2.4"\n# Expected: 1', "does not stand between"),
    "no word Expected": ("# Expected: a", "# A", 'expected="2.4"', 'does not contain the word "Expected:"'),
    "snippet that fails": ("nn.Linear(10, 2))", "nn.Lineal(10, 2))", "count_parameters(torch.nn", "AttributeError"),
    "no hints": ("Hint", "Tip", 'exercise="2.4"', "needs 2 hints or more: Hint 1, Hint 2, ...; found: none"),
    "one hint": ("<summary>Hint 2", "<summary>More", 'exercise="2.4"', "found: 1."),
    "hints out of order": ("Hint 2", "Hint 3", 'exercise="2.4"', "found: 1, 3."),
    "hint not closed": ("# </details>\n# <details>\n", "# <details>\n", "<details><summary>Hint 1", "<details> without </details>"),
    "hint closed twice": ("# </details>\n\n# %% exercise", "# </details>\n# </details>\n\n# %% exercise", "</details>\n\n# %% exercise", "</details> without"),
    "hint without blank line": ("Hint 2</summary>\n#\n", "Hint 2</summary>\n", "<summary>Hint 2", "no blank line after </summary>"),
    "solution in a hint": ("# And whether it is trained.", "# `sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)`", "# %% [markdown] exp", "for students, cell expected-2-4 holds a line of the solution of exercise 2.4"),
    "answer in a text": ("# The end.", "# The end: parameters are what the\n# optimizer changes. Because parameters are what the optimizer changes.", "# %% [markdown]\n# The end", "a line of the model answer 2a"),
    "name only in the stub's notebook": ("from torch import nn\n", "", 'exercise="2.4"', "nn is used but not defined before (in the solution"),
    "long cell for students": ("print(count_", "".join(f"a{n} = {n}\n" for n in range(25)) + "print(count_", "# %%\na0", "a code cell of 26 lines"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_a_block_is_named_with_its_line(root, name):
    old, new, at, reason = FAULTS[name]
    assert old in SOURCE
    source = SOURCE.replace(old, new) if name == "no hints" else SOURCE.replace(old, new, 1)
    path = root / "solutions" / "02_unet.py"
    path.write_text(source, encoding="utf-8")
    if isinstance(at, int):
        line = [n for n, text in enumerate(source.splitlines(), 1) if text == '# %% check="2.4"'][at - 1]
    else:
        line = source[: source.index(at)].count("\n") + 1
    found = [(problem.line, problem.reason) for problem in find_problems(path, EXERCISES[1:] + EXERCISES[:1])]
    assert any(line == found_line and reason in text for found_line, text in found), (line, found)
    with pytest.raises(BuildError, match="Nothing was written"):
        build(root=root)
    assert not list(root.rglob("*.ipynb"))


def test_the_source_of_these_faults_has_none(root):
    assert find_problems(root / "solutions" / "02_unet.py", EXERCISES) == []


def test_a_stub_that_cannot_be_made_is_named(root, monkeypatch):
    def impossible(exercise):
        raise ValueError("the stub does not parse: invalid syntax in 'def'.")

    monkeypatch.setattr(workshop.build.rules, "stub_of", impossible)
    [problem] = find_problems(root / "solutions" / "02_unet.py", EXERCISES)
    assert "exercise 2.4 has no stub: in course_utils.unet.count_parameters the stub does not parse" in problem.reason
    assert problem.line == SOURCE[: SOURCE.index('exercise="2.4"')].count("\n") + 1


def test_several_exercises_may_follow_one_another(root):
    second = SOURCE[SOURCE.index("# %% [markdown]\n# Some text") : SOURCE.index("# %%\nprint(count_")]
    second = second.replace("2.4", "1.1").replace("Count the parameters", "Count the image sizes")
    second = second.replace("count_parameters(torch.nn.Linear(10, 2))", "count_shapes([np.ones((1, 2))])")
    source = SOURCE.replace("# %%\nprint(count_", second + "# %%\nprint(count_", 1)
    source = source.replace("import torch\n", "from collections import Counter\nfrom collections.abc import Sequence\n\nimport numpy as np\nimport torch\n")  # fmt: skip
    path = root / "solutions" / "02_unet.py"
    path.write_text(source, encoding="utf-8")
    here = [dataclasses.replace(exercise, notebook="02_unet") for exercise in EXERCISES]
    assert find_problems(path, here) == []
    checks = [cell.markers["check"] for cell in student(read_cells(path), here) if "check" in cell.markers]
    assert checks == ["2.4", "1.1"]
