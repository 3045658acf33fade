"""The build as a whole: what it writes and compares, and that the same source always gives the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_course import EXERCISES, SOURCE, make_course, read_notebook

from course_utils.exercises import list_exercises
from workshop.build import BuildError, Cell, build, stand_alone_notebooks, to_bytes, to_notebook
from workshop.build.module_map import modules_behind
from workshop.paths import RunError

REPOSITORY = Path(__file__).resolve().parents[3]
OTHER = SOURCE[: SOURCE.index("# %% [markdown]\n# Some text")] + "# %% [markdown]\n# ## The end\n"
WRITTEN = [
    "solutions/02_unet.ipynb",
    "notebooks/02_unet.ipynb",
    "build/kaggle/02_unet/02_unet.ipynb",
    "build/kaggle/02_unet/kernel-metadata.json",
]
WITH_PICTURE = SOURCE.replace(
    "# <details><summary>Hint 1",
    """# ```python expected hidden alt="A line."
# figure, axes = plt.subplots(figsize=(3, 2))
# axes.set_title("a title")
# figure
# ```
#
# <details><summary>Hint 1""",
)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def differences(root: Path) -> list[tuple[str, str]]:
    """(file, first word of the reason) of all that `build --check` finds; it must write nothing."""
    before = contents(root)
    with pytest.raises(BuildError, match=r"Run: python3 course\.py build") as error:
        build(check=True, root=root)
    assert contents(root) == before
    found = [(problem.path.relative_to(root).as_posix(), problem.reason.split()[0]) for problem in error.value.problems]
    return sorted(found)


def test_the_files_of_a_notebook(root, monkeypatch):
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    assert [path.relative_to(root).as_posix() for path in build(root=root)] == WRITTEN
    for folder in ("solutions", "notebooks"):
        content = (root / folder / "02_unet.ipynb").read_bytes()
        assert content.endswith(b"}\n") and b"\r" not in content and "größer".encode() in content
        notebook = json.loads(content)
        assert list(notebook) == sorted(notebook)
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        assert notebook["metadata"] == {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        for cell in notebook["cells"]:
            assert list(cell) == sorted(cell)
            assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)
        metadata = {cell["id"]: cell["metadata"] for cell in notebook["cells"]}
        assert metadata["exercise-2-4"] == {"course": {"exercise": "2.4"}}
        assert metadata["question-2a"] == {"course": {"question": "2a"}}
        tags = [one["tags"] for one in metadata.values() if "tags" in one]
        assert tags == [["parameters"], ["optional", "nbval-skip"]]
    assert stand_alone_notebooks(root) == {"02_unet.ipynb": (root / WRITTEN[2]).read_bytes()}


@pytest.mark.parametrize("written", [WRITTEN[0], WRITTEN[1], WRITTEN[2]])
def test_a_cell_that_only_plots_is_folded_in_every_version_and_its_code_is_still_there(root, written):
    make_course(root, SOURCE.replace('"optional", "nbval-skip"', '"fold"'))
    build(root=root)
    cells = read_notebook((root / written).parent, ".").cells
    *_, cell = (cell for cell in cells if "fold" in cell.metadata.get("tags", []))
    assert cell.source == "print(seed)"
    hidden = {"jupyter": {"source_hidden": True}, "_kg_hide-input": True, "cellView": "form"}
    assert cell.metadata == hidden | {"tags": ["fold"]}


def test_building_again_changes_nothing(root):
    build(root=root)
    before = contents(root)
    build(root=root)
    assert contents(root) == before
    assert build(check=True, root=root) == []


BUILD = """
import sys
import workshop.build
from course_utils.exercises import get_exercise
workshop.build.list_exercises = lambda: [get_exercise("2.4")]
workshop.build.build(root=sys.argv[1])
"""


def test_two_processes_with_other_hash_seed_folder_locale_and_backend_write_the_same_bytes(tmp_path):
    found = []
    for number, settings in enumerate(
        [
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "MPLBACKEND": "svg", "OMP_NUM_THREADS": "1"},
            {"LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "2"},
        ]
    ):
        root = tmp_path / f"copy {number}"
        make_course(root, WITH_PICTURE)
        environment = os.environ | settings | {"PYTHONHASHSEED": str(number * 4711), "PYTHONPATH": str(REPOSITORY)}
        environment["KAGGLE_USERNAME"] = "ada"
        folder = tmp_path if number else REPOSITORY
        subprocess.run([sys.executable, "-c", BUILD, str(root)], cwd=folder, env=environment, check=True, timeout=300)
        found.append(contents(root))
    assert found[0] == found[1]
    assert set(WRITTEN) <= set(found[0])
    assert not any(str(tmp_path).encode() in content for content in found[0].values())


def test_only_builds_the_chosen_notebooks(root):
    make_course(root, OTHER, "08_other")
    for only, stems in [
        ("02", ["02_unet"]),
        ("2", ["02_unet"]),
        ("08_other", ["08_other"]),
        (["8", "2"], ["02_unet", "08_other"]),
    ]:
        assert sorted({path.stem for path in build(only=only, root=root) if path.suffix == ".ipynb"}) == stems
    with pytest.raises(RunError, match="no notebook '07'.*: 02_unet, 08_other"):
        build(only="07", root=root)


def test_check_names_stale_edited_missing_and_orphaned_notebooks(root):
    solved, student = WRITTEN[:2]
    assert differences(root) == [(student, "missing."), (solved, "missing.")]
    build(root=root)
    (root / solved).write_bytes((root / solved).read_bytes().replace(b"\n", b"\r\n"))
    assert differences(root) == [(solved, "differs")]
    build(root=root)
    (root / student).write_bytes((root / student).read_bytes().replace(b"Some text", b"Some other text"))
    assert differences(root) == [(student, "differs")]
    build(root=root)
    make_course(root, SOURCE.replace("Because.", "Because of this."))
    assert differences(root) == [(solved, "differs")]  # students do not get the answer
    build(root=root)
    for folder in ("solutions", "notebooks"):
        (root / folder / "10_gone.ipynb").write_text("{}")
    assert differences(root) == [("notebooks/10_gone.ipynb", "has"), ("solutions/10_gone.ipynb", "has")]
    assert build(check=True, only="02", root=root) == []


def test_nothing_is_written_while_one_source_has_a_problem(root):
    make_course(root, OTHER + "\n# %%\n", "10_broken")
    with pytest.raises(BuildError, match="Nothing was written"):
        build(root=root)
    assert not list(root.rglob("*.ipynb"))


def test_no_sources_and_misnamed_sources(tmp_path):
    with pytest.raises(RunError, match=r"has no notebooks NN_topic\.py"):
        build(root=tmp_path)
    make_course(tmp_path, name="tiny")
    with pytest.raises(BuildError, match=r"solutions/tiny\.py: a source must be called NN_topic\.py"):
        build(root=tmp_path)


def test_every_source_of_the_course_builds_and_the_committed_notebooks_are_current():
    assert build(check=True) == []


# The notebook file

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
plain_cells = st.builds(
    Cell, st.sampled_from(["code", "markdown"]), st.sampled_from(["a", "b", ""]) | texts, st.just(1)
)


@given(st.lists(plain_cells, max_size=12))
def test_ids_are_valid_and_unique_and_the_same_every_time(cells):
    notebook = to_notebook(cells)
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


@pytest.mark.parametrize("id_", ["a", None, "not valid", "x" * 65, ""])
def test_missing_repeated_and_invalid_ids_are_errors(id_):
    notebook = to_notebook([Cell("code", "1", 1), Cell("code", "2", 2)])
    notebook.cells[0]["id"] = "a"
    del notebook.cells[1]["id"]
    if id_ is not None:
        notebook.cells[1]["id"] = id_
    with pytest.raises((nbformat.ValidationError, Warning), match="id"):
        to_bytes(notebook)


# The map of notebooks and modules


def test_modules_stand_with_the_notebook_that_teaches_or_first_uses_them():
    imports = "from course_utils import load_data, f1_score, plotting\nimport course_utils.data.synthetic"
    notebooks = {
        "02_unet": [Cell("code", "from course_utils.unet import UNet\nimport course_utils.device", 1)],
        "01_data_exploration": [Cell("code", imports, 1), Cell("markdown", "from course_utils import fit", 2)],
    }
    assert modules_behind(notebooks, EXERCISES) == {
        "01_data_exploration": ["exploration", "data", "metrics"],
        "02_unet": ["unet", "device"],
    }


def test_the_map_is_written_into_the_readme_and_the_package_and_compared(root):
    readme, package = root / "README.md", root / "course_utils" / "__init__.py"
    package.parent.mkdir()
    readme.write_bytes("| [02 größer](notebooks/02_unet.ipynb) | a; b | `x` |\r\nText `x`\r\n".encode())
    package.write_text('"""Map.\n\n    02_unet: x\n"""\n')
    build(root=root, only="02")
    assert b"| `x` |" in readme.read_bytes()  # the other notebooks are not known then
    build(root=root)
    assert build(root=root, check=True) == []
    assert readme.read_bytes() == "| [02 größer](notebooks/02_unet.ipynb) | a; b | `unet` |\r\nText `x`\r\n".encode()
    assert package.read_text() == '"""Map.\n\n    02_unet: unet\n"""\n'
    package.write_text('"""Map.\n\n    02_unet: metrics\n"""\n')
    assert differences(root) == [("course_utils/__init__.py", "differs")]
    package.write_text('"""No map."""\n')
    with pytest.raises(BuildError, match="0 rows for 02_unet"):
        build(root=root)


def test_the_course_has_a_source_for_every_notebook_with_exercises():
    sources = {path.stem for path in (REPOSITORY / "solutions").glob("*.py")}
    assert {exercise.notebook for exercise in list_exercises()} <= sources
