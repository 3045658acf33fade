"""Outputs, which only a run can give, are made in a separate step and kept while their cell is the same."""

from __future__ import annotations

import nbformat
import pytest
from tiny_course import make_course, read_notebook

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
    make_course(tmp_path, SOURCE)
    return tmp_path


def outputs(root, folder="solutions") -> list:
    return [cell.outputs for cell in read_notebook(root, folder).cells if cell.cell_type == "code"]


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
    counts = [cell.execution_count for cell in read_notebook(root, "solutions").cells if cell.cell_type == "code"]
    assert counts == [None, None, 3, 4]  # to nbval an output without a number is a mistake
    assert outputs(root, "notebooks") == [[], [], [], []]
    assert build(root=root, check=True) == []

    content = (root / "solutions" / "02_unet.ipynb").read_bytes()
    for again in (False, True):
        build(root=root, outputs=again)
        assert (root / "solutions" / "02_unet.ipynb").read_bytes() == content

    # A changed cell loses its output, the other keeps it.
    make_course(root, SOURCE.replace('print("second")', 'print("third")'))
    build(root=root)
    assert [len(found) for found in outputs(root)] == [0, 0, 2, 0]
    with pytest.raises(BuildError, match="no output in cell"):
        build(root=root, check=True)


def test_an_output_that_was_put_into_another_cell_or_version_does_not_pass_the_check(root):
    build(root=root, outputs=True)
    for folder, number in (("solutions", 2), ("notebooks", 3)):
        path = root / folder / "02_unet.ipynb"
        content = path.read_bytes()
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[number].outputs = [nbformat.v4.new_output("stream", text="planted")]
        path.write_bytes(workshop.build.to_bytes(notebook))
        with pytest.raises(BuildError, match=f"{folder}/.*differs from what its source gives"):
            build(root=root, check=True)
        path.write_bytes(content)


def test_a_notebook_that_fails_leaves_no_outputs_and_is_named(root):
    make_course(root, SOURCE.replace('print("second")', "1 / 0"))
    with pytest.raises(ValueError, match="(?s)02_unet.*ZeroDivisionError"):
        build(root=root, outputs=True)
    assert outputs(root) == [[], [], [], []]


def test_notebooks_without_tagged_cells_are_not_run(root, monkeypatch):
    from workshop.run import course

    monkeypatch.setattr(course, "run_notebooks", lambda *arguments: pytest.fail("was run"))
    make_course(root, SOURCE.replace('# %% tags=["nbval-check-output"]', "# %%"))
    build(root=root, outputs=True)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1, 2]", b'{"nbformat": 4, "cells": 3}'])
def test_a_damaged_notebook_is_replaced(root, content):
    path = root / "solutions" / "02_unet.ipynb"
    path.write_bytes(content)
    build(root=root)
    assert outputs(root) == [[], [], [], []]
