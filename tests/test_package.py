"""The package as a whole: quick to import, exercises under their names, subject apart from workshop, live examples."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import course_utils
from course_utils.exercises import list_exercises
from course_utils.exercises.registry import get_exercise

PACKAGE = Path(course_utils.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))
# What notebooks teach and use. Everything else is the workshop in which notebooks are made, checked and executed.
SUBJECT = {
    "checkpoints", "data", "data_parallel", "dataset", "denoising", "device", "download", "exploration", "losses",
    "metrics", "plotting", "profiles", "reading", "recipes", "segmentation", "synthetic", "targets", "training", "unet",
    "widgets",
}  # fmt: skip


def in_a_fresh_process(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return result.stdout.strip()


# importing


def test_importing_the_package_takes_less_than_three_tenths_of_a_second():
    program = "import time; start = time.perf_counter(); import course_utils; print(time.perf_counter() - start)"
    assert min(float(in_a_fresh_process(program)) for _ in range(3)) < 0.3


@pytest.mark.parametrize("name", ["torch", "matplotlib", "numpy", "skimage", "pandas", "IPython"])
def test_importing_the_package_does_not_load(name):
    assert in_a_fresh_process(f"import sys, course_utils; print({name!r} in sys.modules)") == "False"


def test_looking_at_the_arrays_does_not_load_torch():
    used = "count_shapes, standardize, f1_score, iou_matrix, load_data, get_profile"
    program = f"import sys; from course_utils import {used}; get_profile('smoke'); print('torch' in sys.modules)"
    assert in_a_fresh_process(program) == "False"


def test_every_public_name_can_be_had_and_is_listed():
    assert {"__version__", *course_utils._MODULE_OF} == set(course_utils.__all__)
    for name in course_utils.__all__:
        assert getattr(course_utils, name) is not None
        assert name in dir(course_utils)


def test_an_unknown_name_is_the_usual_error():
    with pytest.raises(AttributeError, match="module 'course_utils' has no attribute 'unet_plus_plus'"):
        course_utils.unet_plus_plus  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing_like_it'"):
        exec("from course_utils import nothing_like_it")


# exercises


@pytest.mark.parametrize("exercise", list_exercises(), ids=lambda exercise: exercise.id)
def test_the_object_of_every_exercise_is_in_the_package_under_its_name(exercise):
    reference = getattr(course_utils, exercise.name)
    assert reference is exercise.reference
    assert reference.__name__ == exercise.name and callable(reference)
    assert reference.__doc__, "what the exercise asks for stands in its docstring"
    assert get_exercise(exercise.id) is exercise


def test_the_exercises_of_the_five_core_notebooks_are_those_of_the_curriculum():
    ids = [exercise.id for exercise in list_exercises()]
    core = {"1": 7, "2": 5, "3": 4, "4": 5, "5": 3}
    expected = [f"{notebook}.{number}" for notebook, count in core.items() for number in range(1, count + 1)]
    assert ids[: len(expected)] == expected
    assert all(1 <= exercise.difficulty <= 5 and exercise.minutes > 0 for exercise in list_exercises())


def test_an_unknown_exercise_is_an_error_that_lists_the_known_ones():
    with pytest.raises(KeyError, match="no exercise '9.9'. Known: 1.1, 1.2, "):
        get_exercise("9.9")


# subject and workshop


def imported_modules(source: str) -> set[str]:
    """The modules of this package that a source imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports in this package are absolute"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in found]
    return {name[1] for name in parts if name[0] == "course_utils" and len(name) > 1 and name[1] in MODULES}


@pytest.mark.parametrize("module", sorted(SUBJECT & set(MODULES)))
def test_the_subject_knows_nothing_of_the_workshop(module):
    assert imported_modules((PACKAGE / f"{module}.py").read_text(encoding="utf-8")) <= SUBJECT


def test_the_scan_sees_every_kind_of_import():
    source = """
import workshop.run.course
from course_utils import authoring, f1_score
def later():
    from course_utils.exercises import list_exercises
"""
    assert imported_modules(source) == {"running", "authoring", "exercises"}


def test_there_is_no_drawer_for_everything():
    assert not {"utils", "helpers", "misc", "common"} & set(MODULES)


# examples in docstrings


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__main__"])
def test_the_examples_in_the_docstrings_run(module):
    name = "course_utils" if module == "__init__" else f"course_utils.{module}"
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_most_public_objects_of_the_exercises_have_an_example():
    with_example = [exercise.name for exercise in list_exercises() if ">>>" in exercise.reference.__doc__]
    assert len(with_example) > 0.7 * len(list_exercises())


def test_the_linter_finds_nothing():
    """In the code, the benchmarks, the tests and the generated notebooks."""
    command = [sys.executable, "-m", "ruff", "check", "."]
    run = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
