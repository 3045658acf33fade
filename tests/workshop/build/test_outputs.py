"""Outputs that only a run can give: made in a step of their own, kept while their cell is the same."""

from __future__ import annotations

import nbformat
import pytest

import workshop.build
from workshop.build import BuildError, build

SOURCE = """# %% [markdown]
# # Tiny notebook

# %% tags=["parameters"]
data_source = "embedded"
profile = "auto"
seed = 0
output = "output"

# %%
import os

print("untagged", os.environ["COURSE_PROGRESS"])

# %% tags=["nbval-check-output"]
print("profile", profile, "in", os.getcwd().split(os.sep)[-1])
6 * 7

# %% tags=["nbval-check-output"]
print("second")
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(workshop.build, "list_exercises", lambda: [])
    monkeypatch.setattr(workshop.build.kept, "REQUIRE_OUTPUTS", True)
    write(tmp_path, SOURCE)
    return tmp_path


def write(root, source):
    (root / "solutions").mkdir(exist_ok=True)
    (root / "solutions" / "09_tiny.py").write_text(source, encoding="utf-8")


def outputs(root, folder="solutions") -> list:
    notebook = nbformat.read(root / folder / "09_tiny.ipynb", as_version=4)
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def test_outputs_stand_in_tagged_cells_of_the_solved_version_only(root):
    build(root=root)
    assert outputs(root) == [[], [], [], []]
    with pytest.raises(BuildError, match=r"no output in cell code-\w+, code-\w+; run: python3 course\.py build --out"):
        build(root=root, check=True)

    build(root=root, outputs=True)
    parameters, untagged, first, second = outputs(root)
    assert parameters == untagged == []
    assert [output["output_type"] for output in first] == ["stream", "execute_result"]
    assert first[0]["text"] == "profile smoke in output\n"
    assert first[1]["data"]["text/plain"] == "42" and first[1]["execution_count"] is None
    assert second[0]["text"] == "second\n"
    notebook = nbformat.read(root / "solutions" / "09_tiny.ipynb", as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == [None, None, 3, 4]  # nbval takes an output without a number for a mistake
    assert outputs(root, "notebooks") == [[], [], [], []]
    assert build(root=root, check=True) == []

    content = (root / "solutions" / "09_tiny.ipynb").read_bytes()
    build(root=root)
    assert (root / "solutions" / "09_tiny.ipynb").read_bytes() == content
    build(root=root, outputs=True)
    assert (root / "solutions" / "09_tiny.ipynb").read_bytes() == content

    # A changed cell loses its output, the other keeps it.
    write(root, SOURCE.replace('print("second")', 'print("third")'))
    build(root=root)
    assert [len(found) for found in outputs(root)] == [0, 0, 2, 0]
    with pytest.raises(BuildError, match="no output in cell"):
        build(root=root, check=True)


def test_an_output_in_a_cell_without_the_tag_does_not_pass_the_check(root):
    build(root=root, outputs=True)
    path = root / "solutions" / "09_tiny.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="planted")]
    path.write_bytes(workshop.build.to_bytes(notebook))
    with pytest.raises(BuildError, match="differs from what its source gives"):
        build(root=root, check=True)


@pytest.mark.parametrize("edit", [{"text": "profile full in output\n"}, {"name": "stderr"}])
def test_an_output_edited_by_hand_does_not_pass_the_check(root, edit):
    build(root=root, outputs=True)
    path = root / "solutions" / "09_tiny.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[3].outputs[0].update(edit)
    path.write_bytes(workshop.build.to_bytes(notebook))
    with pytest.raises(BuildError, match=r"outputs edited by hand in cell code-\w+; run: .* --outputs"):
        build(root=root, check=True)


def test_a_notebook_that_fails_leaves_no_outputs_and_is_named(root):
    write(root, SOURCE.replace('print("second")', "1 / 0"))
    with pytest.raises(ValueError, match="(?s)09_tiny.*ZeroDivisionError"):
        build(root=root, outputs=True)
    assert outputs(root) == [[], [], [], []]


def test_notebooks_without_tagged_cells_are_not_run(root, monkeypatch):
    from workshop.run import course

    monkeypatch.setattr(course, "run_notebooks", lambda *arguments: pytest.fail("was run"))
    write(root, SOURCE.replace('# %% tags=["nbval-check-output"]', "# %%"))
    build(root=root, outputs=True)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1, 2]", b'{"nbformat": 4, "cells": 3}'])
def test_a_damaged_notebook_is_simply_replaced(root, content):
    path = root / "solutions" / "09_tiny.ipynb"
    path.write_bytes(content)
    build(root=root)
    assert outputs(root) == [[], [], [], []]
