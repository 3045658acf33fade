"""The commands: what they pass on, what they refuse, and how quickly they answer."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from quick import mostly_slow

import course_utils
import workshop.build
from workshop import command_line
from workshop.command_line import main
from workshop.grade.box.sandbox import KINDS
from workshop.parser import SANDBOXES, make_parser
from workshop.paths import select_notebooks
from workshop.run import course, machine
from workshop.run.summary import NotebookResult

CHECKOUT = Path(__file__).resolve().parents[2]


def exit_code(*arguments):
    """The exit code also where argparse ends the program."""
    try:
        return main(list(arguments))
    except SystemExit as end:
        return end.code


@pytest.fixture
def course_runs(monkeypatch):
    """Catches what would be executed."""
    calls = []

    def run_course(*arguments):
        calls.append(arguments)
        return [NotebookResult("01_tiny", "passed", 1.0)]

    monkeypatch.setattr(course, "run_course", run_course)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    return calls


def raises(error):
    """A run_course that raises an error."""

    def run_course(*_):
        raise error

    return run_course


@pytest.mark.parametrize(("arguments", "extras"), [("", "notebooks"), ("--workers 2", "cluster,notebooks")])
def test_a_missing_package_is_named_with_the_extras_of_the_command(monkeypatch, capsys, course_runs, arguments, extras):
    """Outside the environment of course.py: conda, Binder."""
    monkeypatch.setattr(course, "run_course", raises(ModuleNotFoundError(name="a_package")))
    assert exit_code("run", *arguments.split()) == 1
    said = capsys.readouterr().err
    assert "a_package is not installed; " in said and f"[{extras}]" in said and said.count("\n") == 1


def test_install_looks_at_the_packages_of_all_extras(monkeypatch, capsys):
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ['no-such-thing>=1; extra == "bench"', "numpy>=2"])
    assert main(["install"]) == 1
    assert "no-such-thing is missing" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["lab", "doctor", "run", "test", "build", "grade", "release", "site", "install"])
def test_every_command_is_listed_and_explains_itself_with_an_example(command, capsys):
    assert exit_code() == 0
    assert f"\n    {command} " in capsys.readouterr().out
    assert exit_code(command, "--help") == 0
    assert f"example:\n  python3 course.py {command}" in capsys.readouterr().out


def test_help_is_quick_and_loads_nothing_large():
    code = "import sys; from workshop.command_line import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'numpy', 'papermill', 'pytest', 'nbconvert') if name in sys.modules])"
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, text=True, capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert done.stdout.splitlines()[-1] == "[]"
    assert min(seconds) < 0.5


@pytest.mark.parametrize("arguments", [["fly"], ["run", "--prfile", "smoke"], ["run", "--only", ","],
                                       ["run", "--seed", "x"], ["run", "--seed", "-1"],
                                       ["run", "--seed", "4294967296"], ["run", "--timeout", "0"],
                                       ["build", "03"]])  # fmt: skip
def test_nonsense_is_refused(arguments, capsys, course_runs):
    assert exit_code(*arguments) == 2
    assert "usage" in capsys.readouterr().err
    assert not course_runs


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("", ("embedded", "smoke", None, 0, None, None, 1, None, False)),
     ("--data x.zip --profile laptop --only 03,05 --seed 7 --out /x --timeout 60",
      ("x.zip", "laptop", ["03", "05"], 7, Path("/x"), 60, 1, None, False)),
     ("-v", ("embedded", "smoke", None, 0, None, None, 1, None, True)),
     ("--workers 3", ("embedded", "smoke", None, 0, None, None, 3, None, False)),
     ("--dask tcp://a:1", ("embedded", "smoke", None, 0, None, None, 1, "tcp://a:1", False))],
)  # fmt: skip
def test_run_passes_its_options_on_and_a_termination_reaches_what_it_starts(course_runs, arguments, expected):
    previous = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["run", *arguments.split()]) == 0
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert course_runs == [expected]


def test_a_failed_notebook_is_a_failed_command(monkeypatch, course_runs):
    failed = NotebookResult("01_tiny", "failed", 1.0, error="it broke")
    monkeypatch.setattr(course, "run_course", lambda *_: [failed])
    assert main(["run"]) == 1


MISTYPED = (
    [("rnu", 2, "run"), ("grad x", 2, "grade"), ("run --prfile smoke", 2, "--profile"), ("run --onyl=03", 2, "--only"),
     ("doctor -gpu", 2, "--gpu"), ("grade x --sandbox dockr", 2, "docker"), ("run --profile lapto", 1, "laptop"),
     ("run --data embeded", 1, "embedded"), ("run --only 03_binary_trainin", 1, "03_binary_training"),
     ("build --only unet", 1, "02_unet"), ("lab 3_unet.ipynb", 1, "02_unet"), ("grade x --format exel", 1, ""),
     ("grade x --format modle", 1, "moodle"), ("bench --quik", 2, "--quick"), ("run --fly", 2, ""), ("swim", 2, ""),
     ("bench --only evalution", 1, "evaluation"), ("RUN", 2, "run"), ("--verison", 2, "--version"), ("-V", 2, ""),
     ("run --data DSB-2018", 1, "dsb2018"), ("site --profile Smok --data embedded", 1, "smoke")]
)  # fmt: skip


@pytest.mark.parametrize("mistake", mostly_slow([one[0] for one in MISTYPED], quick=["rnu", "run --prf", "grad "]))
def test_a_mistake_in_typing_is_answered_with_the_most_similar_word_and_nothing_before_it(mistake):
    [(arguments, code, meant)] = [one for one in MISTYPED if one[0] == mistake]
    variables = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "COLUMNS")}
    command = [sys.executable, "-m", "workshop.command_line", *arguments.split()]
    done = subprocess.run(command, cwd=CHECKOUT, env=variables, text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (code, "")
    assert re.findall(r"Did you mean (\S+)\?", done.stderr) == ([meant] if meant else [])
    assert "here is no " in done.stderr.splitlines()[-1] and done.stderr.startswith(("course.py", "usage: ")[code - 1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["run", "03"], "'03' is one argument too many. Did you mean --only 03?"), (["doctor", "03"], "too many. See"),
     (["run", "--data", ""], "--data: its value is empty"), (["grade", ""], "FOLDER: its value is empty"),
     ([""], "there is no command ''"), (["--"], "there is no option '--'"), (["run", "--out", " "], "value is empty"),
     (["run", "--data", "~nobody/images"], "no data source")],
)  # fmt: skip
def test_what_does_not_belong_there_is_named(arguments, said, capsys):
    assert exit_code(*arguments) in (1, 2)
    assert said in capsys.readouterr().err


def test_a_notebook_is_named_by_its_number_its_name_or_its_path():
    for name in ("2", "02", "02_unet", "02_unet.ipynb", "notebooks/02_unet.ipynb", "solutions/02_unet.py"):
        assert [path.stem for path in select_notebooks(CHECKOUT / "solutions", [name])] == ["02_unet"]


def test_every_sandbox_can_be_named():
    assert SANDBOXES == KINDS


def test_the_version_is_that_of_the_package(capsys):
    assert exit_code("--version") == 0
    assert capsys.readouterr().out.startswith(f"course.py {course_utils.__version__} in {CHECKOUT}")


@pytest.mark.parametrize("columns", ["", "50", "80", "300"])
@pytest.mark.parametrize("command", ["", *make_parser()[1]])
def test_help_fits_into_80_columns_and_into_less(monkeypatch, capfd, command, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert exit_code(*command.split(), "--help") == 0
    text = capfd.readouterr().out
    assert f"usage: course.py {command}".strip() in text
    whole = [line for line in text.splitlines() if not line.startswith("  python3")]  # an example is one line
    assert max(map(len, whole)) <= min(80, int(columns or 80)) and max(map(len, text.splitlines())) <= 80


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise on Windows")
@pytest.mark.parametrize(("arguments", "code"), [("--help", 0), ("grade --help", 0), ("--version", 0), ("install", 1)])
def test_a_reader_that_has_gone_gets_no_traceback(arguments, code):
    program = "import sys; from workshop import command_line\n"
    program += "command_line.install_command = lambda *_: print('a line') or 0\n"
    program += f"sys.exit(command_line.main({arguments.split()}))"
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.stderr == "" and done.returncode in (code, 1)  # argparse passes over it in some versions of Python


def test_lab_opens_a_notebook_by_its_number_or_name():
    unet = str(command_line.first_notebook().parent / "02_unet.ipynb")
    assert [command_line.named_notebook(one) for one in ("02", "02_unet", "02_unet.ipynb")] == [unet] * 3
    for other in ("--port=8889", "8889", "solutions/02_unet.ipynb", "--ip", "README.md"):
        assert command_line.named_notebook(other) == other


@pytest.mark.parametrize(
    ("arguments", "said"), [("run --only 99", "'99'"), ("run --data /nowhere/x.zip", "/nowhere/x.zip"),
                            ("build --check --only 99", "99")],
)  # fmt: skip
def test_errors_are_one_sentence(capsys, arguments, said):
    assert main(arguments.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"course.py {arguments.split()[0]}: ") and said in error and error.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("a fault"), ModuleNotFoundError("a fault", name="workshop.not_there")])
def test_faults_of_the_program_are_not_hidden(monkeypatch, course_runs, error):
    monkeypatch.setattr(course, "run_course", raises(error))
    with pytest.raises(type(error), match="a fault"):
        main(["run"])


def test_interrupt(monkeypatch, course_runs, capsys):
    monkeypatch.setattr(course, "run_course", raises(KeyboardInterrupt))
    assert main(["run"]) == 130
    assert "Interrupted" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="this system does not tell its load")
@pytest.mark.parametrize(
    ("load", "workers", "threads"),
    [(0.2, 1, None), (1.1, 1, "3"), (3.9, 1, "1"), (40.0, 1, "1"), (0.2, 2, "2"), (1.1, 2, "1"), (0.2, 8, "1")],
)
def test_a_busy_machine_gets_fewer_threads_and_workers_share_them(monkeypatch, load, workers, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0, 0))
    # set first, so that they are put back at the end whatever calm_threads does to them
    for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    said = machine.calm_threads(workers)
    assert os.environ.get("OMP_NUM_THREADS") == threads
    assert os.environ["GOMP_SPINCOUNT"] == machine.SPIN_COUNT
    assert said.startswith("This machine is busy") == (load > 1)


def test_the_users_number_of_threads_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("GOMP_SPINCOUNT", "9")
    assert machine.calm_threads() == ""
    assert (os.environ["OMP_NUM_THREADS"], os.environ["GOMP_SPINCOUNT"]) == ("7", "9")


@pytest.mark.parametrize(
    ("arguments", "slow_left_out", "parallel"),
    [([], True, True), (["-k", "x"], True, True), (["-m", "slow"], False, True), (["-mslow"], False, True),
     (["-n0"], True, False), (["--pdb"], True, False)],
)  # fmt: skip
def test_arguments_of_test(monkeypatch, arguments, slow_left_out, parallel):
    calls = []
    monkeypatch.setattr(pytest, "main", lambda given: calls.append(given) or 5)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(CHECKOUT.parent)
    assert main(["test", *arguments]) == 5
    (given,) = calls
    assert given[len(given) - len(arguments) :] == arguments
    assert ("not slow" in given) == slow_left_out
    assert ("loadfile" in given) == parallel
    assert Path.cwd() == CHECKOUT


def test_bench_passes_its_arguments_on_to_benchmarks_from_any_folder(tmp_path, monkeypatch, capfd):
    (tmp_path / "benchmarks.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--help"]) == 0
    assert "--quick" in capfd.readouterr().out
    assert main(["bench", "--only", "speed"]) == 1
    assert "There is no benchmark 'speed'" in capfd.readouterr().err


def test_first_notebook(monkeypatch, tmp_path):
    monkeypatch.setattr(command_line, "CHECKOUT", tmp_path)
    assert command_line.first_notebook() == tmp_path / "solutions" / "01_data_exploration.ipynb"
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_data_exploration.ipynb").write_text("{}")
    assert command_line.first_notebook() == tmp_path / "notebooks" / "01_data_exploration.ipynb"


def test_free_port_skips_one_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert command_line.free_port(port) != port


def test_lab_asks_nothing_of_other_computers_unless_it_is_told_to(monkeypatch):
    started = []
    monkeypatch.setattr("jupyterlab.labapp.main", started.append)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    assert main(["lab", "--no-browser"]) == main(["lab", "--LabApp.extension_manager=pypi"]) == 0
    kept, told = started
    assert {"--LabApp.news_url=None", "--LabApp.extension_manager=readonly"} <= set(kept)
    assert "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate" in kept
    # JupyterLab refuses an option that is given twice.
    assert [one for one in told if "extension_manager" in one] == ["--LabApp.extension_manager=pypi"]


@pytest.mark.skipif(os.name == "nt", reason="ends JupyterLab by a signal")
def test_lab_says_an_address_that_answers_on_this_computer_only(tmp_path):
    variables = {**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
                 "JUPYTER_DATA_DIR": str(tmp_path / "data"), "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
                 "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces")}  # fmt: skip
    variables.pop("JUPYTER_TOKEN", None)
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-u", "-m", "workshop.command_line", "lab", "--no-browser"],
            cwd=CHECKOUT, env=variables, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            pattern = r"JupyterLab: (http://127\.0\.0\.1:(\d+)/lab/tree/\S+)"
            address = wait_for(lambda: re.search(pattern, log.read_text()))
            page = wait_for(lambda: answer(address[1]))
        finally:
            server.terminate()
            server.wait(timeout=30)
    assert b"jupyter-config-data" in page
    assert "01_data_exploration.ipynb?token=" in address[1]
    assert f"http://127.0.0.1:{address[2]}/lab" in log.read_text()
    assert "0.0.0.0" not in log.read_text()


def answer(address):
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=5) as response:
            return response.read()
    except OSError:
        return None


def wait_for(something, seconds=90):
    deadline = time.monotonic() + seconds
    while not (result := something()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return result


@pytest.mark.parametrize(
    ("arguments", "expected"), [("--only 03,05", (["03", "05"], False, False)), ("--check", (None, True, False)),
                                ("--outputs", (None, False, True))],
)  # fmt: skip
def test_build_passes_its_options_on(monkeypatch, capsys, arguments, expected):
    def build(only, check, outputs):
        assert (only, check, outputs) == expected
        return [Path("solutions/03_x.ipynb")]

    monkeypatch.setattr(workshop.build, "build", build)
    assert main(["build", *arguments.split()]) == 0
    assert "03_x.ipynb" in capsys.readouterr().out
