"""course.py makes its environment once, installs what a command needs, repairs it, explains errors, and hands over.

The tests run the real course.py, the real venv and the real pip, but in a small copy of the course whose package has no
dependencies and builds itself, so that an installation takes seconds and no network.
"""

import ast
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
POSIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="signals and permissions work otherwise on Windows")

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "course-utils"
version = "0.1"
"""

# The smallest build backend that can install a package as a link to its sources (PEP 660).
BACKEND = '''\
import os
import zipfile

METADATA = """Metadata-Version: 2.1
Name: course-utils
Version: 0.1
Provides-Extra: notebooks
Provides-Extra: authoring
Provides-Extra: cluster
Provides-Extra: site
Provides-Extra: test
"""
WHEEL = """Wheel-Version: 1.0
Root-Is-Purelib: true
Tag: py3-none-any
"""


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "course_utils-0.1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("course_utils.pth", os.getcwd())
        wheel.writestr("course_utils-0.1.dist-info/METADATA", METADATA + open("requirements.txt").read())
        wheel.writestr("course_utils-0.1.dist-info/WHEEL", WHEEL)
        wheel.writestr("course_utils-0.1.dist-info/RECORD", "")
    return name


build_wheel = build_editable
'''

COMMAND_LINE = """\
import json, os, signal, sys, time

arguments = sys.argv[1:]
if arguments[:1] == ["exit"]:
    sys.exit(int(arguments[1]))
if arguments[:1] == ["kill-me"]:
    os.kill(os.getpid(), signal.SIGKILL)
if arguments[:1] == ["wait"]:
    try:
        print("waiting", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("ended cleanly", flush=True)
        sys.exit(130)
print(json.dumps({"arguments": arguments, "prefix": sys.prefix, "folder": os.getcwd()}))
"""


def plant(folder):
    """Write a copy of course.py with a package that is installed in seconds."""
    (folder / "workshop").mkdir(parents=True)
    (folder / "solutions").mkdir()
    shutil.copy(CHECKOUT / "course.py", folder)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "requirements.txt").write_text("")
    (folder / "workshop" / "__init__.py").write_text("")
    (folder / "workshop" / "command_line.py").write_text(COMMAND_LINE)
    return folder


@pytest.fixture
def tree(tmp_path):
    """A copy that was never started. The space in its name is on purpose."""
    return plant(tmp_path / "my course")


@pytest.fixture(scope="module")
def first_use(tmp_path_factory):
    """A copy that was started once, and what that start said."""
    folder = plant(tmp_path_factory.mktemp("first use") / "course")
    return folder, start(folder, "run", "--only", "03", cwd=folder.parent)


@pytest.fixture(scope="module")
def installed_tree(first_use):
    """An installed copy, for the tests that change nothing."""
    folder, done = first_use
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def own_tree(installed_tree, tmp_path):
    """An installed copy in another place, for the tests that change it: to course.py, a checkout that was moved."""
    return shutil.copytree(installed_tree, tmp_path / "my course", symlinks=True)


@pytest.fixture
def course(tree):
    """course.py of a copy as a module."""
    return as_module(tree)


def as_module(folder):
    specification = importlib.util.spec_from_file_location("course_under_test", folder / "course.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def variables(**changes):
    """This process's environment variables without what would leak in from the outer run."""
    leaking = ("COURSE_", "PYTEST_", "COV_", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(leaking)}
    return {"COURSE_DISK_GB": "0", **kept, **changes}


def start(folder, *arguments, python=sys.executable, cwd=None, **changes):
    """Run course.py of a tree and wait for it."""
    return subprocess.run(
        [python, str(folder / "course.py"), *arguments], cwd=cwd, env=variables(**changes), text=True,
        capture_output=True, timeout=300, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def says(done, code, *parts):
    """The command ended with this code and one understandable sentence, not with a traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


def result_of(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_first_use_installs(first_use):
    folder, done = first_use
    result = result_of(done)
    assert "First use" in done.stdout
    assert result["arguments"] == ["run", "--only", "03"]
    assert Path(result["prefix"]).resolve() == (folder / ".venv").resolve()
    assert Path(result["folder"]).resolve() == folder.parent.resolve()  # paths on the command line stay right


def test_later_uses_start_in_under_a_second_and_print_nothing_themselves(installed_tree):
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = start(installed_tree, "again", COURSE_DISK_GB="1000000")  # the disk is not checked any more
        seconds.append(time.perf_counter() - started)
        assert len(done.stdout.splitlines()) == 1 and result_of(done)["arguments"] == ["again"]
    assert min(seconds) < 1


def test_modules_in_the_current_folder_are_not_taken(installed_tree, tmp_path):
    (tmp_path / "json.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / "workshop").mkdir()
    assert result_of(start(installed_tree, "x", cwd=tmp_path))


def test_two_first_uses_at_once_and_an_environment_elsewhere(tree, tmp_path):
    both = [background(tree, "x", COURSE_VENV=str(tmp_path / "else where")) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum("First use" in output for output, _ in outputs) == 1
    assert sum("Another course.py is setting up" in output for output, _ in outputs) == 1
    for output, _ in outputs:
        assert Path(json.loads(output.splitlines()[-1])["prefix"]).resolve() == (tmp_path / "else where").resolve()
    assert not (tree / ".venv").exists()


def test_moved_checkout_and_changed_pyproject_are_installed_again(own_tree):
    for change in ("moved", "changed"):
        again = start(own_tree, "x")
        assert "Installing" in again.stdout and "First use" not in again.stdout
        assert Path(result_of(again)["prefix"]).resolve() == (own_tree / ".venv").resolve()
        assert "Installing" not in start(own_tree, "x").stdout
        (own_tree / "pyproject.toml").write_text(PYPROJECT + f"# {change}\n")


def test_exact_versions_are_installed_when_asked_for(own_tree):
    start(own_tree, "x")
    says(start(own_tree, "x", COURSE_LOCKED="yes"), 1, "has no requirements.lock", "complete copy")
    versions = own_tree / "requirements.lock"
    versions.write_text("# none yet\n")
    locked = start(own_tree, "x", COURSE_LOCKED="yes")
    assert "Installing" in locked.stdout and result_of(locked)
    assert "Installing" not in start(own_tree, "x", COURSE_LOCKED="yes").stdout
    assert "Installing" not in start(own_tree, "x").stdout, "exact versions do for everybody"
    versions.write_text("# changed\n")
    assert "Installing" in start(own_tree, "x", COURSE_LOCKED="yes").stdout
    (own_tree / "requirements.txt").write_text("Requires-Dist: a-package-from-nowhere\n")
    versions.write_text("# lacks it\n")
    says(start(own_tree, "x", COURSE_LOCKED="yes"), 1, "a-package-from-nowhere", "pip could not install the course")


def test_files_that_are_not_those_of_the_list_are_refused(own_tree, tmp_path):
    """Also where the right version is installed already, from a start that checked nothing."""
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(tmp_path / name, "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    right = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    versions, pip = own_tree / "requirements.lock", {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    pip |= {"PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "", "PIP_NO_CACHE_DIR": "1", "COURSE_LOCKED": "yes"}
    python = own_tree / ".venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-index", str(tmp_path / name)], check=True)
    versions.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    says(start(own_tree, "x", **pip), 1, "Expected sha256", "do not install it")
    versions.write_text("tiny==1.0\n")
    says(start(own_tree, "x", **pip), 1, "requirements.lock lacks a package or a hash")
    versions.write_text(f"tiny>=1.0 --hash=sha256:{right}\n")
    says(start(own_tree, "x", **pip), 1, "requirements.lock lacks a package or a hash")
    versions.write_text(f"tiny==1.0 --hash=sha256:{right}\n")
    assert result_of(start(own_tree, "x", **pip))


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "aarch64"), ("win32", "AMD64")])
def test_exact_versions_are_refused_where_there_are_none(course, monkeypatch, tmp_path, system, machine):
    monkeypatch.setenv("COURSE_LOCKED", "yes")
    monkeypatch.setattr(course.sys, "platform", system)
    monkeypatch.setattr(course.platform, "machine", lambda: machine)
    with pytest.raises(course.SetupError, match=f"Linux on x86_64 .* on {machine} .* unset COURSE_LOCKED"):
        course.set_up(tmp_path / "environment", {"notebooks"})


@pytest.mark.parametrize(
    ("arguments", "further"),
    [("", ""), ("lab", ""), ("doctor --gpu", ""), ("run --only 03", ""), ("grade submissions", ""),
     ("build --check", "authoring"), ("release a.zip", "authoring"), ("site", "site"), ("bench --quick", "bench"),
     ("run --workers 2", "cluster"), ("grade x --dask=tcp://a:1", "cluster"), ("site --help", ""),
     ("test -k x", "authoring cluster segment site test"),
     ("install", "authoring bench cluster segment site test"), ("segment images --out results", "segment"),
     ("segment --help", "")],
)  # fmt: skip
def test_extras_of_a_command(course, arguments, further):
    assert course.needed_extras(arguments.split()) == {"notebooks", *further.split()}
    shutil.rmtree(course.CHECKOUT / "solutions")
    of_students = {"notebooks", *further.split()} if arguments.startswith("segment") else {"notebooks"}
    assert course.needed_extras(arguments.split()) == of_students, "students need nothing else"


def test_a_command_installs_what_it_needs_when_it_is_first_used(own_tree):
    def installed_by(*arguments):
        done = start(own_tree, *arguments)
        assert result_of(done)["arguments"] == list(arguments) and "First use" not in done.stdout
        return re.findall("Installing the packages for (.*);", done.stdout)

    assert installed_by("lab") == ["notebooks"]  # a copy that was moved
    assert installed_by("run", "--workers", "2") == ["cluster,notebooks"]
    assert installed_by("run", "--workers", "2") == installed_by("lab") == installed_by("test", "--help") == []
    assert installed_by("test") == ["authoring,cluster,notebooks,segment,site,test"]
    assert installed_by("build") == installed_by("site") == []
    (own_tree / "pyproject.toml").write_text(PYPROJECT + "# changed\n")
    assert installed_by("lab") == ["authoring,cluster,notebooks,segment,site,test"], "what is there is kept up to date"
    assert installed_by("test") == []


# A closed port of this machine. pip says that it got no connection only when it tries again.
OFFLINE = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "1", "NO_PROXY": "127.0.0.1"}


@pytest.mark.parametrize(("pip", "said"), [(OFFLINE, "to be offline"), ({"PIP_NO_INDEX": "1"}, "try another")])
def test_further_packages_that_cannot_be_had_leave_the_environment_as_it_is(own_tree, pip, said):
    pip |= {"PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_NO_CACHE_DIR": "1"}
    start(own_tree, "lab")
    (own_tree / "requirements.txt").write_text('Requires-Dist: a-package-from-nowhere; extra == "site"\n')
    says(start(own_tree, "site", **pip), 1, "a-package-from-nowhere", said)
    lab = start(own_tree, "lab", **pip)
    assert result_of(lab) and len(lab.stdout.splitlines()) == 1


def test_failed_installation_is_repeated(own_tree):
    (own_tree / "backend.py").write_text("raise RuntimeError('the build stops on purpose')")
    for _ in range(2):
        says(start(own_tree, "x"), 1, "the build stops on purpose", "pip could not install the course")
    (own_tree / "backend.py").write_text(BACKEND)
    assert result_of(start(own_tree, "x"))


@POSIX_ONLY
def test_interrupted_installation_is_repeated(own_tree):
    (own_tree / "backend.py").write_text("import time\nopen('building', 'w').close()\ntime.sleep(60)\n")
    process = background(own_tree, "x")
    while not (own_tree / "building").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == "course.py: interrupted; the next start repeats the installation."
    (own_tree / "backend.py").write_text(BACKEND)
    again = start(own_tree, "x")
    assert "Installing" in again.stdout and result_of(again)


def test_there_is_no_stamp_when_pip_changes_packages(own_tree):
    """An environment that pip has left half changed, however it ended, must not count as ready."""
    course, environment = as_module(own_tree), own_tree / ".venv"
    course.write_stamp(environment, {"notebooks"})
    assert course.is_ready(environment, {"notebooks"})
    course.install(environment, {"notebooks"})
    assert not course.is_ready(environment, set())


@POSIX_ONLY
def test_environment_without_its_python_is_rebuilt(own_tree):
    for link in (own_tree / ".venv" / "bin").glob("python*"):
        link.unlink()
    (own_tree / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    (own_tree / ".venv" / "kept.txt").write_text("a file that venv did not put there")
    again = start(own_tree, "x")
    assert result_of(again) and "First use" in again.stdout
    assert (own_tree / ".venv" / "kept.txt").exists()


def test_kinds_of_broken_environments_are_noticed(course):
    environment = course.CHECKOUT / ".venv"
    assert not course.is_ready(environment, set()) and not course.works(environment)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    assert not course.is_ready(environment, set()), "no stamp"
    course.write_stamp(environment, set())
    assert course.is_ready(environment, set())
    assert not course.works(environment), "no pip, so the installation could not be repeated"

    settings = environment / "pyvenv.cfg"
    before = settings.read_text()
    settings.write_text(before.replace(sys._base_executable.rsplit(os.sep, 1)[0], "/nowhere"))
    assert settings.read_text() != before and not course.is_ready(environment, set()), "its base is gone"
    settings.unlink()
    assert not course.is_ready(environment, set()), "no pyvenv.cfg"
    settings.write_text(before)

    stamp = (environment / course.STAMP).read_text()
    (environment / course.STAMP).write_text(stamp.replace("python ", "python /other"))
    assert not course.is_ready(environment, set()), "made for another Python"
    course.write_stamp(environment, set())
    shutil.rmtree(environment / ("Scripts" if os.name == "nt" else "bin"))
    assert not course.is_ready(environment, set()), "no interpreter"


def test_a_foreign_folder_is_left_alone(tree, tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "letter.txt").write_text("dear")
    says(start(tree, "x", COURSE_VENV=str(tmp_path / "documents")), 1, "not a Python environment", "COURSE_VENV")
    assert [path.name for path in (tmp_path / "documents").iterdir()] == ["letter.txt"]


def test_missing_ensurepip(tree, tmp_path):
    (tmp_path / "ensurepip.py").write_text("raise ImportError('as on plain Debian')")
    says(start(tree, "x", PYTHONPATH=str(tmp_path)), 1, "sudo apt install python3-venv")


def test_too_little_disk_and_a_setting_that_is_not_a_number(tree):
    says(start(tree, "x", COURSE_DISK_GB="1000000"), 1, "needs about 1000000 GB", "free some space")
    says(start(tree, "x", COURSE_DISK_GB="much"), 1, "'much'", "must be a number")


def test_what_an_interrupted_installation_left_counts_as_room(course, monkeypatch):
    environment = course.CHECKOUT / ".venv"
    environment.mkdir()
    (environment / "large").write_bytes(bytes(3_000_000))
    monkeypatch.setenv("COURSE_DISK_GB", "0.005")
    monkeypatch.setattr(course.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, 2_100_000))
    course.check_disk(environment)
    (environment / "large").write_bytes(bytes(1_000_000))
    with pytest.raises(course.SetupError, match="free some space"):
        course.check_disk(environment)


@POSIX_ONLY
def test_read_only_folder(tree):
    command = [sys.executable, str(tree / "course.py"), "x"]
    if os.geteuid() == 0:  # root may write anywhere, unless it gives that right up
        if not shutil.which("setpriv"):
            pytest.skip("runs as root, and setpriv (util-linux) is not there to take root's rights away")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner", *command]
    tree.chmod(0o555)
    try:
        done = subprocess.run(command, env=variables(), text=True, capture_output=True, timeout=60)
    finally:
        tree.chmod(0o755)
    says(done, 1, "cannot be written", "Permission denied", "COURSE_VENV")


def test_incomplete_copy_and_an_environment_below_a_file(tree, tmp_path):
    (tmp_path / "file").write_text("")
    says(start(tree, "x", COURSE_VENV=str(tmp_path / "file" / "venv")), 1, "cannot be written", "COURSE_VENV")
    (tree / "pyproject.toml").unlink()
    says(start(tree, "x"), 1, "pyproject.toml", "complete copy")


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_does_not_install(tree, arguments):
    done = start(tree, *arguments)
    assert done.returncode == 0
    for command in ("run", "test", "lab", "doctor", "build"):
        assert f"    {command} " in done.stdout
    assert not (tree / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [("rnu", 2, "Did you mean run?"), ("run --prfile x", 2, "Did you mean --profile?"), ("run --help", 0, "--profile"),
     ("help grade", 0, "--roster"), ("--version", 0, "course.py 0."), ("run --seed x", 2, "not a whole number")],
)  # fmt: skip
def test_help_version_and_mistakes_in_typing_need_no_installation(tree, arguments, code, said):
    (tree / "course_utils").mkdir()
    for name in ("course_utils/__init__.py", "workshop/__init__.py", "workshop/paths.py", "workshop/parser.py"):
        shutil.copy(CHECKOUT / name, tree / name)
    done = start(tree, *arguments.split(), cwd=tree.parent)
    assert done.returncode == code and said in done.stdout + done.stderr, done.stderr
    assert not (tree / ".venv").exists() and "First use" not in done.stdout
    assert max(map(len, done.stdout.splitlines()), default=0) <= 80 or arguments == "--version"


def test_parses_on_old_pythons():
    ast.parse((CHECKOUT / "course.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_old_python_gets_one_sentence(tree):
    found = [shutil.which(f"python3.{minor}") for minor in range(6, 11)]
    found += (Path.home() / ".pyenv" / "versions").glob("3.[6-9].*/bin/python")
    works = [str(one) for one in found if one and subprocess.run([one, "-V"], capture_output=True).returncode == 0]
    if not works:
        pytest.skip("no Python from 3.6 to 3.10 on this machine; its syntax is checked by test_parses_on_old_pythons")
    for python in works:
        done = start(tree, "run", python=python)
        says(done, 1, "needs Python 3.11 or newer", python)
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (tree / ".venv").exists()


@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("course.py", {"workshop.parser"}),
        ("workshop/parser.py", {"course_utils", "workshop.paths"}),
        ("workshop/paths.py", {"course_utils", "course_utils.data"}),
        ("course_utils/__init__.py", set()),
    ],
)
def test_before_the_installation_the_standard_library_is_enough(file, own):
    tree = ast.parse((CHECKOUT / file).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in names if name.split(".")[0] not in sys.stdlib_module_names} <= own


@pytest.mark.parametrize("code", [0, 3, 130])
def test_exit_code_is_handed_back(installed_tree, code):
    assert start(installed_tree, "exit", str(code)).returncode == code


@POSIX_ONLY
def test_killed_command_is_a_failure(installed_tree):
    assert start(installed_tree, "kill-me").returncode == 128 + signal.SIGKILL


def test_arguments_arrive_unchanged(installed_tree):
    arguments = ["run", "--data", "a b/ü.zip", "--", "$HOME", '"']
    assert result_of(start(installed_tree, *arguments))["arguments"] == arguments


@POSIX_ONLY
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_interruption_and_termination_end_the_command(installed_tree, sent, code):
    process = background(installed_tree, "wait")
    assert process.stdout.readline().strip() == "waiting"
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as the terminal does: to both processes
    else:
        process.send_signal(sent)  # reaches course.py alone
    output, errors = process.communicate(timeout=20)  # returns only when the command has closed its output, too
    assert process.returncode == code
    assert sent != signal.SIGINT or (output.strip(), errors) == ("ended cleanly", ""), "it ends in its own way"


def background(folder, *arguments, **changes):
    """Start course.py of a tree as the leader of its own group of processes."""
    return subprocess.Popen(
        [sys.executable, str(folder / "course.py"), *arguments], env=variables(**changes), start_new_session=True,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
