"""The house: doors that go one way, small rooms, fast imports, exercises under their names, examples that run."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import course_utils
from course_utils.exercises import get_exercise, list_exercises

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("course_utils", "workshop", "benchmarks", "solutions")


def name_of(path: Path) -> str:
    """The name under which a file is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def room(module: str) -> str:
    """The part of the house that a module is in."""
    return "exercises" if module.startswith("course_utils.exercises") else module.split(".")[0]


# doors


def imported_modules(source: str) -> set[str]:
    """The modules of this house that a source imports anywhere: in functions, by importlib, or as `python -m`."""
    found, nodes = set(), list(ast.walk(ast.parse(source)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports in this house are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & set(MODULES) or {node.module}
            if node.module == "course_utils":  # the package finds its public names in their modules
                found |= {course_utils.modules_by_name().get(alias.name) for alias in node.names}
        elif isinstance(node, ast.Constant) and "." in str(node.value) and id(node) not in docstrings:
            found |= {node.value, *re.findall(r"-m ([\w.]+)", str(node.value))}
    return found & set(MODULES)


IMPORTS = {name: imported_modules(path.read_text(encoding="utf-8")) - {name} for name, path in MODULES.items()}


@pytest.mark.parametrize(
    ("behind", "allowed"),
    [
        ("course_utils", {"course_utils"}),
        ("exercises", {"course_utils", "exercises"}),
        ("solutions", {"course_utils", "exercises"}),
        ("workshop", {"course_utils", "exercises", "workshop"}),
        ("benchmarks", {"course_utils", "exercises", "workshop", "benchmarks"}),
    ],
)
def test_the_doors_go_one_way(behind, allowed):
    """The subject imports no exercises, what notebooks import nothing of the workshop, nobody a benchmark."""
    arrows = [(name, other) for name, others in IMPORTS.items() if room(name) == behind for other in others]
    assert arrows, "the scan sees imports"
    assert [(name, other) for name, other in arrows if room(other) not in allowed] == []


def test_no_module_imports_itself_in_a_circle():
    def reachable(name, seen):
        for other in IMPORTS[name] - seen:
            seen |= {other} | reachable(other, seen | {other})
        return seen

    assert [name for name in MODULES if name in reachable(name, set())] == []


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import workshop.cluster", {"workshop.cluster"}),
        ("from workshop import paths", {"workshop.paths"}),
        ("from course_utils import f1_score", {"course_utils", "course_utils.metrics"}),
        ("def later():\n from course_utils.exercises import registry", {"course_utils.exercises.registry"}),
        ("importlib.import_module('workshop.doctor')", {"workshop.doctor"}),
        ("subprocess.run([python, '-m', 'workshop.command_line'])", {"workshop.command_line"}),
        ("os.system('python -m benchmarks.page')", {"benchmarks.page"}),
    ],
)
def test_the_scan_sees_every_kind_of_import(source, modules):
    assert imported_modules(source) == modules


# size


def test_there_is_no_drawer_for_everything():
    assert not {"utils", "helpers", "misc", "common"} & {name.split(".")[-1] for name in MODULES}


LINES = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}


def test_no_module_has_more_than_400_lines():
    """Except checks, one for each notebook, whose cases are long."""
    packages = ("course_utils", "workshop")
    long = {name: n for name, n in LINES.items() if n > 400 and name.startswith(packages) and ".checks." not in name}
    assert long == {}


# Own images, of any size and kind, with reasons for doubt, took 450 of course_utils and 600 of the workshop.
# Reading other people's data without silent mistakes took 700 lines of course_utils (decoding, arguments). Messages for
# each common mistake took 1,300 of the exercises, pictures of wrong answers 1,000; guesses, code side by side and model
# answers 400. Grading what strangers hand in is larger than the rest of the workshop: a box (1,500 lines), a judge
# outside (2,700), archives and names of seven platforms (1,300), files for those (1,300). Notebooks 06 to 08 brought
# 1,000 lines to course_utils (losses, denoising, measurements, images of any kind and size, networks for them), 1,430
# of checks (180 for each exercise; 140 in 01 to 05), 600 to the workshop (`segment`: folders, files to write, its page)
# and 200 to what is observed of their exercises in grading. Files that are damaged or made to do harm, and interrupted
# trainings, took 1,600 of course_utils (saving, resuming, headers, reading, zips). Nuclei of all sizes in training,
# images normalised one by one, and instances that the network is unsure of took 80.
MAX_LINES = [("course_utils", 7840), ("exercises", 7450), ("workshop", 4665), ("grading", 7460)]


@pytest.mark.parametrize(("name", "lines"), MAX_LINES)
def test_each_room_stays_small(name, lines):
    grading = [module for module in MODULES if module.startswith("workshop.grade")]
    modules = grading if name == "grading" else [one for one in MODULES if room(one) == name and one not in grading]
    assert sum(LINES[module] for module in modules) <= lines
    assert name != "course_utils" or len(modules) <= 33


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


def test_every_public_name_is_found_and_defined_once():
    defined = [name for module in MODULES if room(module) == "course_utils" for name in public_names(module)]
    assert len(defined) == len(set(defined))
    for name in defined:
        assert getattr(course_utils, name).__name__ == name
        assert name in dir(course_utils)


def public_names(module: str) -> list[str]:
    """The public functions and classes at the top level of a module."""
    body = ast.parse(MODULES[module].read_text(encoding="utf-8")).body
    names = [node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return [name for name in names if not name.startswith("_") and name != "modules_by_name"]


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
    assert reference.__doc__, "the docstring says what the exercise asks for"
    assert get_exercise(exercise.id) is exercise


def test_every_exercise_has_the_number_of_its_notebook_and_they_stand_in_order():
    """Gaps are allowed: an exercise that is taken out does not change the numbers of the others."""
    numbers = [tuple(map(int, exercise.id.split("."))) for exercise in list_exercises()]
    assert numbers == sorted(set(numbers))
    assert [int(exercise.notebook[:2]) for exercise in list_exercises()] == [notebook for notebook, _ in numbers]
    assert all(1 <= exercise.difficulty <= 5 and exercise.minutes > 0 for exercise in list_exercises())


def test_an_unknown_exercise_is_an_error_that_lists_the_known_ones():
    with pytest.raises(KeyError, match="no exercise '9.9'. Known: 1.1, 1.2, "):
        get_exercise("9.9")


# examples in docstrings, and the linter


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(("course_utils", "workshop"))])
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
