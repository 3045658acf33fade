"""The notebook generator: what it reads, what it writes, and that the same source always gives the same bytes.

What it refuses is tested in test_authoring_rules.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workshop.build
from course_utils.exercises import list_exercises
from course_utils.exercises.registry import Exercise
from workshop.build import BuildError, Cell, build, read_cells, solved, to_bytes, to_notebook, validate

REPOSITORY = Path(__file__).resolve().parents[3]

# Exercise 9.1 of a notebook that does not exist: its solution is the class Exercise itself.
EXERCISES = [Exercise("9.1", "Exercise", "exercises", "09_tiny", "A small class", 1, 5)]

SOURCE = '''# ---
# jupyter:
#   jupytext:
#     cell_markers: region,endregion
#   kernelspec:
#     name: julia-1.9
# ---

# %% [markdown]
# # Tiny notebook, größer als nichts
#
# Text.

# %%
import importlib
from dataclasses import dataclass
from typing import Any

# %% tags=["parameters"]
data_source = "embedded"
profile = "auto"
seed = 0
output = "output"

# %% [markdown]
"""
Triple-quoted text.
"""

# %% exercise="9.1"

# %% [markdown] question="9a"
# Why?

# %% [markdown] answer="9a"
# Because.

# %% tags=["optional", "nbval-skip"]
print(seed)

# %%
print(seed)
'''


def make_root(folder: Path, source: str = SOURCE, name: str = "09_tiny") -> Path:
    (folder / "solutions").mkdir(parents=True, exist_ok=True)
    (folder / "solutions" / f"{name}.py").write_bytes(source.encode("utf-8"))
    return folder


@pytest.fixture(autouse=True)
def drafts_are_allowed(monkeypatch, request):
    """The small notebook here has no check; blocks are tested in test_authoring_blocks.py."""
    if "of_the_course" not in request.node.name:
        monkeypatch.setattr(workshop.build.rules, "REQUIRE_BLOCKS", False)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(workshop.build, "list_exercises", lambda: EXERCISES)
    return make_root(tmp_path / "course")


def test_cells_have_type_text_markers_tags_and_lines(root):
    cells = read_cells(root / "solutions" / "09_tiny.py")
    lines = SOURCE.splitlines()
    assert [cell.kind for cell in cells] == [
        "markdown",
        "code",
        "code",
        "markdown",
        "code",
        *["markdown"] * 2,
        *["code"] * 2,
    ]
    assert cells[0].source == "# Tiny notebook, größer als nichts\n\nText."
    assert cells[3].source == "Triple-quoted text."
    assert [cell.markers for cell in cells if cell.markers] == [
        {"exercise": "9.1"},
        {"question": "9a"},
        {"answer": "9a"},
    ]
    assert cells[2].tags == ("parameters",) and cells[7].tags == ("optional", "nbval-skip")
    assert [lines[cell.line - 1] for cell in cells] == [line for line in lines if line.startswith("# %%")]
    assert lines[cells[3].line_of(0) - 1] == "Triple-quoted text."
    assert lines[cells[2].line_of(2) - 1] == "seed = 0"


def test_a_file_with_byte_order_mark_and_windows_line_ends_gives_the_same_cells(tmp_path):
    unix, windows = tmp_path / "unix.py", tmp_path / "windows.py"
    unix.write_bytes(SOURCE.encode())
    windows.write_bytes(b"\xef\xbb\xbf" + SOURCE.replace("\n", "\r\n").encode())
    assert read_cells(unix) == read_cells(windows)


def test_the_generated_notebook(root):
    [path] = build(root=root)
    assert path == root / "solutions" / "09_tiny.ipynb"
    content = path.read_bytes()
    assert content.endswith(b"}\n") and b"\r" not in content and "größer" in content.decode("utf-8")
    notebook = json.loads(content)
    assert list(notebook) == sorted(notebook)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        assert list(cell) == sorted(cell)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    metadata = {cell["id"]: cell["metadata"] for cell in notebook["cells"]}
    assert metadata["exercise-9-1"] == {"course": {"exercise": "9.1"}}
    assert metadata["question-9a"] == {"course": {"question": "9a"}}
    assert metadata["answer-9a"] == {"course": {"answer": "9a"}}
    assert [m for m in metadata.values() if "tags" in m] == [
        {"tags": ["parameters"]},
        {"tags": ["optional", "nbval-skip"]},
    ]
    nbformat.validate(nbformat.read(path, as_version=4))


def test_an_exercise_cell_holds_the_object_of_the_package_and_runs(root):
    notebook = nbformat.read(build(root=root)[0], as_version=4)
    source = next(cell.source for cell in notebook.cells if cell.id == "exercise-9-1")
    module = (REPOSITORY / "course_utils" / "exercises.py").read_text(encoding="utf-8")
    assert source.startswith("@dataclass(frozen=True)\nclass Exercise:")
    assert source + "\n\n" in module
    names: dict = {"__name__": "__main__"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    assert names["Exercise"](*vars(EXERCISES[0]).values()).reference is Exercise


def test_solved_fills_exercises_and_leaves_every_other_cell_alone(root):
    cells = read_cells(root / "solutions" / "09_tiny.py")
    filled = solved(cells, EXERCISES)
    assert [cell for cell in filled if "exercise" not in cell.markers] == [
        c for c in cells if "exercise" not in c.markers
    ]
    [exercise] = [cell for cell in filled if "exercise" in cell.markers]
    assert exercise.line_of(0) == exercise.line_of(9) == exercise.line


BUILD = """
import sys
from course_utils import authoring
from course_utils.exercises import Exercise
workshop.build.list_exercises = lambda: [Exercise("9.1", "Exercise", "exercises", "09_tiny", "A small class", 1, 5)]
workshop.build.rules.REQUIRE_BLOCKS = False
workshop.build.build(root=sys.argv[1])
"""


def test_two_processes_with_other_hash_seed_folder_and_locale_write_the_same_bytes(tmp_path):
    contents = []
    for number, settings_ in enumerate(
        [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"}]
    ):
        root = make_root(tmp_path / f"copy {number}")
        environment = os.environ | settings_ | {"PYTHONHASHSEED": str(number * 4711), "PYTHONPATH": str(REPOSITORY)}
        folder = tmp_path if number else REPOSITORY
        subprocess.run([sys.executable, "-c", BUILD, str(root)], cwd=folder, env=environment, check=True, timeout=120)
        contents.append((root / "solutions" / "09_tiny.ipynb").read_bytes())
    assert contents[0] == contents[1]
    assert str(tmp_path).encode() not in contents[0]


def test_building_again_changes_nothing(root):
    [path] = build(root=root)
    content = path.read_bytes()
    build(root=root)
    assert path.read_bytes() == content
    assert build(check=True, root=root) == []


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
plain_cells = st.builds(
    Cell, st.sampled_from(["code", "markdown"]), st.sampled_from(["a", "b", ""]) | texts, st.just(1)
)


@given(st.lists(plain_cells, max_size=12))
def test_ids_are_valid_and_unique_and_the_same_every_time(cells):
    notebook = to_notebook(cells)
    validate(notebook)
    assert to_bytes(notebook) == to_bytes(to_notebook(cells))
    assert nbformat.reads(to_bytes(notebook).decode(), as_version=4).cells == notebook.cells


@given(st.lists(plain_cells, max_size=8), st.lists(plain_cells, min_size=1, max_size=3), st.integers(0, 8))
def test_cells_keep_their_ids_when_others_are_inserted(cells, others, position):
    others = [cell for cell in others if (cell.kind, cell.source) not in {(c.kind, c.source) for c in cells}]
    before = [cell.id for cell in to_notebook(cells).cells]
    after = [cell.id for cell in to_notebook([*cells[:position], *others, *cells[position:]]).cells]
    start = min(position, len(cells))
    del after[start : start + len(others)]
    assert after == before


@pytest.mark.parametrize("ids", [["a", "a"], ["a", None], ["a", "not valid"], ["a", "x" * 65], ["a", ""]])
def test_missing_repeated_and_invalid_ids_are_errors(ids):
    notebook = to_notebook([Cell("code", "1", 1), Cell("code", "2", 2)])
    for cell, cell_id in zip(notebook.cells, ids, strict=True):
        del cell["id"]
        if cell_id is not None:
            cell["id"] = cell_id
    with pytest.raises(ValueError, match="id"):
        to_bytes(notebook)


def test_a_notebook_with_other_faults_is_an_error_too():
    notebook = to_notebook([Cell("code", "1", 1)])
    del notebook.cells[0]["outputs"]
    with pytest.raises(ValueError, match="outputs"):
        to_bytes(notebook)


code_lines = st.sampled_from(
    ["x = 1", "", "    y = 2", '"""', "s = '''%%'''", "# a comment", "# plain %% text", 'it\'s "odd"']
)
text_lines = st.sampled_from(["# a", "#", "# ## Title", "#no space", "# ```", "# `code` it's", ""])
blocks = st.lists(
    st.tuples(st.just("# %%"), st.lists(code_lines, max_size=5))
    | st.tuples(
        st.sampled_from(["# %% [markdown]", '# %% [markdown] question="9a"']), st.lists(text_lines, max_size=5)
    ),
    min_size=1,
    max_size=6,
)


@given(blocks, st.booleans())
@settings(max_examples=300)
def test_cells_and_lines_agree_with_jupytext(tmp_path_factory, blocks, with_header):
    lines = ["# ---", "# jupyter:", "#   jupytext: {}", "# ---", ""] if with_header else []
    for marker, body in blocks:
        lines += [marker, *body]
    path = tmp_path_factory.mktemp("source", numbered=True) / "09_any.py"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    expected = jupytext.reads("\n".join(lines) + "\n", fmt="py:percent").cells
    starts = [n for n, line in enumerate(lines, 1) if line.startswith("# %%")]
    if len(expected) != len(starts):  # a string that was opened and not closed swallows the next cell
        with pytest.raises(BuildError, match="inside a string"):
            read_cells(path)
        return
    cells = read_cells(path)
    assert [(cell.kind, cell.source.strip()) for cell in cells] == [(c.cell_type, c.source.strip()) for c in expected]
    assert [cell.line for cell in cells] == starts
    for cell in cells:
        for row, text in enumerate(cell.source.split("\n") if cell.source else []):
            assert lines[cell.line_of(row) - 1].rstrip().endswith(text.rstrip())


def test_only_builds_the_chosen_notebooks(root):
    other = SOURCE.replace('# %% exercise="9.1"\n\n', "").replace("9a", "8a")
    make_root(root, other, "08_other")
    for only, stems in [
        ("09", ["09_tiny"]),
        ("9", ["09_tiny"]),
        ("08_other", ["08_other"]),
        (["8", "9"], ["08_other", "09_tiny"]),
    ]:
        written = build(only=only, root=root)
        assert sorted({path.stem for path in written if path.suffix == ".ipynb"}) == stems
    with pytest.raises(BuildError, match="there is no notebook '07'; known: 08_other, 09_tiny"):
        build(only="07", root=root)


def test_check_writes_nothing_and_names_stale_missing_and_orphaned_notebooks(root):
    def found() -> list[tuple[str, str]]:
        before = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        with pytest.raises(BuildError, match=r"Run: python3 course\.py build") as error:
            build(check=True, root=root)
        assert before == {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        return [(problem.path.name, problem.reason.split()[0]) for problem in error.value.problems]

    assert found() == [("09_tiny.ipynb", "missing.")]
    [path] = build(root=root)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert found() == [("09_tiny.ipynb", "differs")]
    build(root=root)
    source = root / "solutions" / "09_tiny.py"
    source.write_text(SOURCE.replace("Because.", "Because of this."), encoding="utf-8")
    assert found() == [("09_tiny.ipynb", "differs")]
    build(root=root)
    (root / "solutions" / "10_gone.ipynb").write_text("{}")
    assert found() == [("10_gone.ipynb", "has")]
    assert build(check=True, only="09", root=root) == []


def test_nothing_is_written_while_one_source_has_a_problem(root):
    make_root(root, SOURCE + "\n# %%\nundefined\n", "10_broken")
    with pytest.raises(BuildError, match="Nothing was written"):
        build(root=root)
    assert not list(root.rglob("*.ipynb"))


def test_no_sources_and_misnamed_sources(tmp_path):
    with pytest.raises(BuildError, match="no sources NN_topic.py here"):
        build(root=tmp_path)
    make_root(tmp_path, name="tiny")
    with pytest.raises(BuildError, match=r"solutions/tiny\.py: a source must be called NN_topic\.py"):
        build(root=tmp_path)


def test_every_source_of_the_course_builds_and_the_committed_notebooks_are_current():
    assert build(check=True) == []


def test_the_course_has_a_source_for_every_notebook_with_exercises():
    sources = {path.stem for path in (REPOSITORY / "solutions").glob("*.py")}
    assert {exercise.notebook for exercise in list_exercises()} <= sources
