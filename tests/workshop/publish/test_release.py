"""The zip for students: what is in it, what is refused, and that the course starts from it; the instructors' page."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from course_utils.exercises import list_exercises
from workshop.build import build
from workshop.command_line import main
from workshop.grade.box.sandbox import SandboxError, find_sandbox
from workshop.grade.report.points import read_points
from workshop.grade.report.questions import course_questions
from workshop.parser import make_parser
from workshop.publish import release as release_module
from workshop.publish.release import ReleaseError, release, release_for_nbgrader

CHECKOUT = Path(__file__).resolve().parents[3]
PAGE = "\n".join((CHECKOUT / "docs" / name).read_text(encoding="utf-8") for name in ("instructors.md", "grading.md"))
NOTEBOOKS = sorted({exercise.notebook for exercise in list_exercises()})


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the course, with things beside it that are not for students. Tests put back what they change."""
    root = tmp_path_factory.mktemp("course")
    for folder in ("course_utils", "workshop", "data", "docs", "tests", "solutions", "notebooks"):
        shutil.copytree(CHECKOUT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in CHECKOUT.iterdir():
        if file.is_file() and file.name != ".git":
            shutil.copy(file, root)
    build(root=root)
    with (root / "docs" / "students.md").open("a", encoding="utf-8") as page:
        page.write("\n![a figure](../docs/figure.png)\n")
    (root / "docs" / "figure.png").write_bytes(b"a picture")
    for junk in (
        "notebooks/mine.ipynb", "notebooks/output/scores.json", "course_utils/__pycache__/data.pyc",
        "course_utils/notes.txt", "data/.DS_Store", "docs/private.png", "benchmarks/x.py", "grades.csv",
    ):  # fmt: skip
        (root / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / junk).write_text("not for students")
    return root


@pytest.fixture(scope="module")
def unpacked(course, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    release(folder / "student.zip", course)
    with zipfile.ZipFile(folder / "student.zip") as archive:
        archive.extractall(folder / "course")
    return folder / "course"


def test_it_holds_what_students_need_and_nothing_else(unpacked):
    files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}

    def below(folder, place=unpacked, pattern="*"):
        found = [path for path in (place / folder).rglob(pattern) if path.is_file() and path.suffix != ".pyc"]
        return {path.relative_to(place).as_posix() for path in found}

    top = {name.split("/")[0] for name in files}
    assert top == {"LICENSE", "README.md", "course.py", "environment.yml", "pyproject.toml", "requirements.lock",
                   "notebooks", "kaggle", "course_utils", "workshop", "data", "docs"}  # fmt: skip
    for folder in ("kaggle", "notebooks"):
        assert below(folder) == {f"{folder}/{notebook}.ipynb" for notebook in NOTEBOOKS}
    assert "docs/figure.png" in files and "docs/private.png" not in files and "docs/instructors.md" not in files
    assert below("course_utils") == below("course_utils", CHECKOUT, "*.py")
    parts = {f"workshop/{name}.py" for name in ("__init__", "command_line", "doctor", "parser", "paths")}
    parts |= {f"workshop/{name}" for name in ("segment.py", "segment_page.py", "segment.html.j2")}
    assert below("workshop") == parts | below("workshop/run", CHECKOUT, "*.*")  # with what makes its pages
    assert below("data", CHECKOUT, "*.tif") and below("data", CHECKOUT, "*.tif") <= files


def test_the_notebooks_hold_no_solution(unpacked):
    for notebook in NOTEBOOKS:
        cells = json.loads((unpacked / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
        exercises = [cell for cell in cells if "exercise" in cell["metadata"].get("course", {})]
        assert exercises and all("raise NotImplementedError" in "".join(cell["source"]) for cell in exercises)


@pytest.fixture
def start(unpacked, tmp_path):
    """Run this Python in another folder, with nothing of the course on its path but what students get."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COURSE_", "PYTHON"))}
    variables = kept | {"PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}

    def start(*command):
        return subprocess.run(
            [sys.executable, "-P", *command], cwd=tmp_path, env=variables, text=True, capture_output=True, timeout=300
        )

    return start


def test_what_students_use_works_from_it(unpacked, start, tmp_path):
    help_ = start("-S", "-E", str(unpacked / "course.py"), "--help")  # without any installed package
    assert help_.returncode == 0 and "doctor" in help_.stdout
    where = start("-c", "import course_utils, workshop; print(course_utils.__file__, workshop.__file__)")
    assert where.stdout.count(str(unpacked)) == 2, where.stderr
    data = start("-c", "from course_utils import load_data; print(len(load_data().train))")
    assert int(data.stdout) >= 60, data.stderr
    command = ("-m", "workshop.command_line")
    assert "ServerApp" in start(*command, "lab", "--help-all").stdout
    doctor = start(*command, "doctor")
    assert doctor.returncode == 0 and str(unpacked / "notebooks") in doctor.stdout, doctor.stdout + doctor.stderr
    run = start(*command, "run", "--only", "01", "--out", str(tmp_path))
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "embedded-smoke" / "01_data_exploration.html").is_file()


NOT_FOR_STUDENTS = ("test", "build", "grade x", "release x.zip", "site", "bench", "install", "run --workers 2")


@pytest.mark.parametrize("arguments", NOT_FOR_STUDENTS)
def test_what_students_do_not_have_says_so(start, arguments):
    done = start("-m", "workshop.command_line", *arguments.split())
    assert done.returncode == 1
    assert "which the students' version of the course does not have" in done.stderr and done.stderr.count("\n") == 1


def test_the_readme_of_students_is_their_page(unpacked):
    text = (unpacked / "README.md").read_text(encoding="utf-8")
    assert "for students" in text.splitlines()[0] and "<!--" not in text and "](data/README.md)" in text


def test_no_link_in_the_zip_leads_nowhere(unpacked):
    pages = [page for ending in ("md", "ipynb") for page in unpacked.rglob(f"*.{ending}")]
    assert len(pages) >= 13
    for page in pages:
        texts = [page.read_text(encoding="utf-8")]
        if page.suffix == ".ipynb":
            cells = json.loads(texts[0])["cells"]
            texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        targets = [unquote(target) for text in texts for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)]
        local = [target for target in targets if not re.match(r"[a-z]+:", target)]
        assert [target for target in local if not (page.parent / target).exists()] == [], page


def test_the_same_course_gives_the_same_bytes(course, tmp_path):
    release(tmp_path / "first.zip", course)
    for path in course.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
    (course / "course_utils" / "dataset.py").chmod(0o600)
    release(tmp_path / "second.zip", course)
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(archive.namelist())
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    assert modes["course.py"] == 0o100755 and modes["README.md"] == 0o100644


@pytest.fixture
def changed(course):
    """A function that replaces the text of a file; afterwards the file is as it was."""
    before = {}

    def change(name, function):
        before.setdefault(name, (course / name).read_bytes())
        text = function((course / name).read_text(encoding="utf-8"))
        if text is None:
            (course / name).unlink()
        else:
            (course / name).write_text(text, encoding="utf-8", newline="\n")

    yield change
    for name, content in before.items():
        (course / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("notebooks/03_binary_training.ipynb", lambda text: None, "03_binary_training.ipynb is missing: run .* build"),
        ("notebooks/01_data_exploration.ipynb", lambda text: text[:-9], "cannot be read .* run .* build"),
        ("notebooks/01_data_exploration.ipynb", lambda text: text.replace("raise NotImplementedError", "return", 1),
         "01_data_exploration.ipynb: differs from what its source gives"),
        ("LICENSE", lambda text: None, "LICENSE is missing"),
        ("docs/students.md", lambda text: None, "docs/students.md is missing"),
        ("docs/students.md", lambda text: text + "\n![x](../docs/nowhere.png)\n", "docs/nowhere.png"),
        ("docs/students.md", lambda text: text + "\n![x](../../outside.png)\n", "outside.png"),
        ("docs/students.md", lambda text: text + "\n[x](https://github.com/your-name/x)\n", "students.md has a link"),
        ("docs/students.md", lambda text: text + '\n<img alt="x" src="tests/x.png">\n', "tests/x.png"),
    ],
)  # fmt: skip
def test_what_is_not_for_students_is_refused(course, changed, tmp_path, name, change, message):
    changed(name, change)
    with pytest.raises(ReleaseError, match=message):
        release(tmp_path / "student.zip", course)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(course, tmp_path):
    (tmp_path / "folder.zip").mkdir()
    for place, why in (("nowhere/student.zip", "cannot be written"), ("folder.zip", "is a folder: name the zip in it")):
        with pytest.raises(ReleaseError, match=why):
            release(tmp_path / place, course)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.zip"]


def test_no_file_holds_a_model_answer(unpacked):
    def letters(text: str) -> str:
        return re.sub(r"\\n|[^a-z]", "", text.lower())

    answers = {letters(one.answer)[:60] for one in course_questions().values()}
    assert min(map(len, answers)) > 50
    for path in (path for path in unpacked.rglob("*") if path.suffix in (".ipynb", ".py", ".md")):
        text = letters(path.read_text(encoding="utf-8"))
        assert [answer for answer in answers if answer in text] == [], path


def test_assignments_for_nbgrader_have_points_for_every_check_and_answer(course, tmp_path):
    """Its own commands were tried with them by hand (0.9.6: generate_assignment, autograde, generate_feedback)."""
    points = read_points(questions=course_questions()).out_of
    found = {}
    for path in release_for_nbgrader(tmp_path, course):
        assert path == tmp_path / "source" / path.stem / f"{path.stem}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        plain = nbformat.read(course / "notebooks" / path.name, as_version=4)
        assert [cell.source for cell in notebook.cells] == [cell.source for cell in plain.cells]
        for cell in notebook.cells:
            if marks := cell.metadata.pop("nbgrader", None):
                found[cell.metadata.course.get("check") or cell.metadata.course.answer] = marks["points"]
                by_hand = cell.cell_type == "markdown"
                assert (marks["solution"], marks["locked"], marks["grade_id"]) == (by_hand, not by_hand, cell.id)
        assert notebook == plain
    assert found == points


def test_what_is_not_current_or_cannot_be_written_is_no_assignment_for_nbgrader(course, changed, tmp_path):
    (tmp_path / "source").write_text("a file")
    with pytest.raises(ReleaseError, match="01_data_exploration.ipynb cannot be written"):
        release_for_nbgrader(tmp_path, course)
    changed("notebooks/01_data_exploration.ipynb", lambda text: text.replace("raise NotImplementedError", "return", 1))
    with pytest.raises(ReleaseError, match="differs from what its source gives"):
        release_for_nbgrader(tmp_path / "other", course)
    assert not (tmp_path / "other").exists()


def commands():
    """The arguments of each command line on the two pages for instructors."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert lines and all(line.startswith("python3 course.py ") for line in lines)
    return [shlex.split(line)[2:] for line in lines]


def test_commands_and_options_of_the_page_exist(capsys):
    assert {command[0] for command in commands()} == {"build", "test", "release", "grade"}
    for command in commands():
        options, further = make_parser()[0].parse_known_args(command)
        assert not further or options.passes_on
    for command in ("build", "grade", "release"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    of_others = {"--no-network", "--timeout"}
    known = set(re.findall(r"--\w+", capsys.readouterr().out))
    assert set(re.findall(r"`(--[\w-]+)", PAGE)) - of_others <= known


@pytest.mark.slow
def test_grade_and_release_as_on_the_page(monkeypatch, tmp_path, course):
    """Run the commands of the pages in an empty folder, with an untouched notebook handed in."""
    (tmp_path / "submissions" / "kim").mkdir(parents=True)
    shutil.copy(course / "notebooks" / "03_binary_training.ipynb", tmp_path / "submissions" / "kim")
    monkeypatch.chdir(tmp_path)
    Path("roster.csv").write_text("name,email\nKim,kim@example.org\n")
    monkeypatch.setattr(release_module, "release", lambda file: release(file, course))
    monkeypatch.setattr(release_module, "release_for_nbgrader", lambda folder: release_for_nbgrader(folder, course))
    try:
        find_sandbox()
        unsafe = []
    except SandboxError:
        unsafe = ["--unsafe"]
    for command in commands():
        if command[0] in ("grade", "release"):
            assert main([*command, *(unsafe if command[0] == "grade" else ())]) == 0
    with open("grades.csv", encoding="utf-8", newline="") as file:
        rows = [(row["student"], row["exercise"], row["status"]) for row in csv.DictReader(file)]
    ids = [exercise.id for exercise in list_exercises() if exercise.notebook == "03_binary_training"]
    assert rows == [("Kim", exercise, "todo") for exercise in ids]
    assert zipfile.is_zipfile("student.zip")
    table = PAGE[PAGE.index("| file | what is in it |") :].partition("\n\n")[0]
    promised = re.findall(r"`([\w./-]+(?:\.\w+|/))`", table)
    assert "grades.xlsx" in promised and len(promised) >= 7
    assert [name for name in promised if "questions" not in name and not Path(name).exists()] == []
    names = [f"nbgrader-course/source/{name}/{name}.ipynb" for name in NOTEBOOKS]
    assert all(Path(name).is_file() for name in names)


def test_files_that_the_page_names_exist():
    named = re.findall(r"`((?:course_utils|workshop|solutions|tests|notebooks|docs)/[\w./]*)`", PAGE)
    assert len(named) > 5
    for name in named:
        example = name.replace("NN_topic", "03_binary_training").replace("NN", "03").replace("X.py", "metrics.py")
        assert (CHECKOUT / example).exists(), name
