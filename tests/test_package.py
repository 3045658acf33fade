"""The house: doors that go one way, quick imports, exercises under their names, examples that run."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import course_utils
from course_utils.exercises import get_exercise, list_exercises

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("course_utils", "workshop", "benchmarks")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def name_of(path: Path) -> str:
    """The name under which a file is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


# doors


def imported_modules(source: str) -> set[str]:
    """The modules of this house that a source imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports in this house are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            # what is imported from a package stands in one of its modules, or is a module of it
            defined = {course_utils.modules_by_name().get(name.split(".")[-1], "") for name in names}
            found |= names & set(MODULES) or {node.module}
            found |= defined if node.module == "course_utils" else set()
    return found & set(MODULES)


IMPORTS = {name: imported_modules(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def room(module: str) -> str:
    """The part of the house that a module is in."""
    return "exercises" if module.startswith("course_utils.exercises") else module.split(".")[0]


@pytest.mark.parametrize(
    ("behind", "allowed"),
    [
        ("course_utils", {"course_utils"}),
        ("exercises", {"course_utils", "exercises"}),
        ("workshop", {"course_utils", "exercises", "workshop"}),
        ("benchmarks", {"course_utils", "exercises", "workshop", "benchmarks"}),
    ],
)
def test_the_doors_go_one_way(behind, allowed):
    """The subject knows nothing of the exercises, neither of them anything of the workshop, nobody of benchmarks."""
    arrows = [(name, other) for name, others in IMPORTS.items() if room(name) == behind for other in others]
    assert arrows, "the scan sees imports"
    assert [(name, other) for name, other in arrows if room(other) not in allowed] == []


def test_no_module_imports_itself_in_a_circle():
    def reachable(name, seen):
        for other in IMPORTS[name] - seen:
            seen |= {other} | reachable(other, seen | {other})
        return seen

    assert [name for name in MODULES if name in reachable(name, set())] == []


def test_the_scan_sees_every_kind_of_import():
    source = """
import workshop.cluster
from workshop import paths
from course_utils import f1_score
def later():
    from course_utils.exercises.registry import list_exercises
"""
    assert imported_modules(source) == {
        "workshop.cluster", "workshop.paths", "course_utils", "course_utils.metrics", "course_utils.exercises.registry",
    }  # fmt: skip


def test_there_is_no_drawer_for_everything():
    assert not {"utils", "helpers", "misc", "common"} & {name.split(".")[-1] for name in MODULES}


# importing


def in_a_fresh_process(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_importing_the_package_takes_less_than_three_tenths_of_a_second():
    program = "import time; start = time.perf_counter(); import course_utils; print(time.perf_counter() - start)"
    assert min(float(in_a_fresh_process(program)) for _ in range(3)) < 0.3


def test_importing_the_package_loads_no_library():
    libraries = ("torch", "matplotlib", "numpy", "skimage", "pandas", "IPython")
    loaded = f"[name for name in {libraries} if name in sys.modules]"
    assert in_a_fresh_process(f"import sys, course_utils; print({loaded})") == "[]"


def test_looking_at_the_arrays_does_not_load_torch():
    used = "count_shapes, standardize, f1_score, iou_matrix, load_data, get_profile"
    program = f"import sys; from course_utils import {used}; get_profile('smoke'); print('torch' in sys.modules)"
    assert in_a_fresh_process(program) == "False"


def test_every_public_name_can_be_had_and_is_defined_once():
    defined = [name for path in (ROOT / "course_utils").glob("*.py") for name in public_names(path)]
    assert len(defined) == len(set(defined))
    for name in defined:
        assert getattr(course_utils, name).__name__ == name
        assert name in dir(course_utils)


def public_names(path: Path) -> list[str]:
    """The public functions and classes at the top level of a file."""
    definitions = (ast.FunctionDef, ast.ClassDef)
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = [node.name for node in body if isinstance(node, definitions)]
    return [name for name in names if not name.startswith("_") and path.name != "__init__.py"]


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


# examples in docstrings, and the linter


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) != "benchmarks" and "__main__" not in name])
def test_the_examples_in_the_docstrings_run(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_most_public_objects_of_the_exercises_have_an_example():
    with_example = [exercise.name for exercise in list_exercises() if ">>>" in exercise.reference.__doc__]
    assert len(with_example) > 0.7 * len(list_exercises())


def test_the_linter_finds_nothing():
    """In the code, the benchmarks, the tests and the generated notebooks."""
    command = [sys.executable, "-m", "ruff", "check", "."]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
