"""Notebooks are executed from start to end, every kind of failure is noticed, and the web pages hold their pictures.

Tiny notebooks, real kernels. The solved notebooks of the course are executed in tests of their own.
"""

import asyncio
import base64
import contextlib
import io
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time

import nbformat
import psutil
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course_utils.exercises.progress import statuses
from workshop import paths
from workshop.cluster import ClusterError, executor
from workshop.paths import RunError, select_notebooks
from workshop.run import course, summary
from workshop.run import kernel as kernel_module
from workshop.run.course import run_notebooks
from workshop.run.kernel import first_words
from workshop.run.live import LiveLines
from workshop.run.pages import page_notebook

PARAMETERS = 'data_source = "embedded"\nprofile = "auto"\nseed = 0\noutput = "output"'
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
ONE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def write_notebook(folder, name, *cells):
    """A notebook with the course's parameters cell; a cell is code, or text if it starts with 'text:'."""
    nodes = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    for cell in cells:
        text = cell.removeprefix("text:")
        nodes.append(new_markdown_cell(text) if text != cell else new_code_cell(cell))
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=nodes, metadata=KERNEL), path)
    return path


class Run:
    """Executes notebooks of a test and keeps the lines that were said."""

    def __init__(self, folder):
        self.sources = folder / "solutions"
        self.folder = folder / "build"
        self.lines = []

    def __call__(self, *notebooks, parameters=None, **options):
        values = {"data_source": "embedded", "profile": "smoke", "seed": 3, "output": str(self.folder / "output")}
        values |= parameters or {}
        return run_notebooks(list(notebooks), self.folder, values, say=self.lines.append, **options)

    def one(self, *cells, **options):
        (result,) = self(write_notebook(self.sources, "01_tiny", *cells), **options)
        return result

    def summary(self):
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def text(self):
        return "\n".join(self.lines)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def page_of(run, name="01_tiny"):
    return (run.folder / f"{name}.html").read_text(encoding="utf-8")


# --- what goes well ---------------------------------------------------------------------------------------------------


def test_a_notebook_that_passes(run):
    earlier = run.folder / "output" / "scores" / "01_tiny.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text('{"dice": 1.0}')
    assert run.one("x = 1").scores == {}, "scores of an earlier run do not count"
    result = run.one(
        "text:# Title",
        "# Say hello\nprint('hello', seed, profile)",
        "from course_utils import record_scores\nrecord_scores(output, '01_tiny', {'dice': 0.5, 'f1': {'0.5': 0.25}})",
        "import pathlib\nprint(pathlib.Path.cwd())",
        facts={"profile": "smoke", "data": {"note": "made"}},
    )
    assert (result.status, result.error) == ("passed", "")
    assert result.scores == {"dice": 0.5, "f1": {"0.5": 0.25}}
    assert 0 < result.seconds < 120

    executed = nbformat.read(run.folder / "01_tiny.ipynb", as_version=4)
    printed = "".join(output.get("text", "") for cell in executed.cells for output in cell.get("outputs", []))
    assert "hello 3 smoke" in printed, "the parameters arrived"
    assert str(run.folder / "output") in printed, "notebooks run in the output folder"
    assert "hello 3 smoke" in page_of(run)

    assert re.search(r"01_tiny  cell  3/5 +\d+\.\d s  Say hello", run.text)
    assert re.search(r"01_tiny +passed +\d+\.\d +\d+\n", run.text)
    assert re.search(r"\n01_tiny\n  dice: 0\.500\n +f1\n  0\.5 +0\.250\n", run.text)
    summary = run.summary()
    assert summary["notebooks"][0]["scores"] == result.scores
    assert (summary["profile"], summary["data"]["note"]) == ("smoke", "made")
    page = (run.folder / "summary.md").read_text(encoding="utf-8")
    assert page.startswith("## Executed notebooks\n") and page.count("```") == 2 and "  dice: 0.500\n" in page
    assert summary["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "numpy" in summary["versions"] and "date" in summary


def test_a_cell_that_runs_long_says_now_and_then_that_it_still_runs(run, monkeypatch):
    monkeypatch.setattr(kernel_module, "SECONDS_BETWEEN_SIGNS", 0.4)
    run.one("pass", "import time\ntime.sleep(2)", "pass")
    signs = [number for number, line in enumerate(run.lines) if "still running" in line]
    assert re.fullmatch(r"01_tiny  cell +\d+/\d+  still running, \d+ s", run.lines[signs[-1]])
    assert max(signs) < next(number for number, line in enumerate(run.lines) if "import time" in line)


def screen(text):
    """What a terminal shows after this text: its lines, of which the sequences "up" and "erase" change the last."""
    lines = []
    for up, line in re.findall(r"((?:\x1b\[\d+A\x1b\[J)?)([^\n]*)\n", text):
        lines = lines[: len(lines) - int(up[2 : up.index("A")])] if up else lines
        lines.append(line)
    return lines


def test_on_a_terminal_each_notebook_that_runs_has_one_line_and_what_ends_stays(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = io.StringIO()
    say = LiveLines(["01_a", "02_b"], stream)
    say("01_a  starts")
    say("01_a  cell  1/9  x")
    say("02_b  cell  1/3  " + "long " * 20)
    assert screen(stream.getvalue()) == ["01_a  cell  1/9  x", ("02_b  cell  1/3  " + "long " * 20)[:39]]
    say("01_a  cell  2/9  y")
    say("02_b  failed after 2.0 s")
    say("02_b FAILED: code cell 1 of 3:\n\n    1 / 0\n")
    shown = ["02_b  failed after 2.0 s", "02_b FAILED: code cell 1 of 3:", "", "    1 / 0", "", "01_a  cell  2/9  y"]
    assert screen(stream.getvalue()) == shown
    for line in ("01_a  passed after 3.0 s", "", "01_a  passed  3.0", "01_a", "  f1: 0.5"):
        say(line)
    assert screen(stream.getvalue())[5:] == ["01_a  passed after 3.0 s", "", "01_a  passed  3.0", "01_a", "  f1: 0.5"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "term", "verbose", "live"), [
    (Terminal, "xterm", False, True), (Terminal, "xterm", True, False), (Terminal, "dumb", False, False),
    (io.StringIO, "xterm", False, False),
])  # fmt: skip
def test_a_log_a_simple_terminal_and_verbose_get_a_line_for_each_cell(run, monkeypatch, stream, term, verbose, live):
    out = stream()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", term)
    source = write_notebook(run.sources, "01_tiny", "# Look at it\nx = 1")
    values = {"data_source": "embedded", "profile": "smoke", "seed": 3, "output": str(run.folder / "output")}
    run_notebooks([source], run.folder, values, verbose=verbose)
    text = out.getvalue()
    assert ("\x1b[1A\x1b[J" in text) == live and "Look at it" in text
    lines = screen(text)
    assert sum("  cell " in line for line in lines) == (0 if live else 3)
    assert any(re.fullmatch(r"01_tiny  passed after \d+\.\d s", line) for line in lines)


def test_summary_keeps_the_notebooks_of_an_earlier_run_into_the_same_folder(run):
    def entry(name):
        return summary.NotebookResult(name, "passed", 1.0)

    run.folder.mkdir()
    for name, expected in (("02_b", ["02_b"]), ("01_a", ["01_a", "02_b"])):
        summary.write_summary(run.folder, [entry(name)], {})
        assert [one["notebook"] for one in run.summary()["notebooks"]] == expected
    (run.folder / "summary.json").write_text("{ broken")
    summary.write_summary(run.folder, [entry("01_a")], {})
    assert [one["notebook"] for one in run.summary()["notebooks"]] == ["01_a"]


def test_figures_land_in_the_notebook_and_the_users_own_set_up_does_not_matter(run, tmp_path, monkeypatch):
    """A user's kernel "python3" that would break, a shell that asks for another backend, a start-up file of IPython."""
    home = tmp_path / "home"
    kernel = home / "data" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["/nowhere/python"], "display_name": "x", "language": "python"}')
    startup = home / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("raise SystemExit('the start-up file of the user ran')")
    folders = {"JUPYTER_PATH": "data", "JUPYTER_DATA_DIR": "data", "JUPYTER_CONFIG_DIR": "config"}
    for name, folder in (folders | {"JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}).items():
        monkeypatch.setenv(name, str(home / folder))
    monkeypatch.setenv("MPLBACKEND", "agg")
    before = dict(os.environ)
    result = run.one(
        "import sys; print(sys.executable)",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
    )
    assert result.error == ""
    assert dict(os.environ) == before
    assert not (home / "runtime").exists() and not (home / "config").exists()
    executed = nbformat.read(run.folder / "01_tiny.ipynb", as_version=4)
    assert executed.cells[2].outputs[0].text.strip() == sys.executable
    assert any("image/png" in output.get("data", {}) for output in executed.cells[3].outputs)


def test_methods_stand_side_by_side_in_the_table():
    otsu, unet = {"f1": {"0.5": 0.7}, "recall": 1.0, "nuclei": 12}, {"f1": {"0.5": 0.85}, "nuclei": 12}
    scores = {"threshold": 0.5, "Otsu": otsu, "U-Net": unet}
    assert summary.format_table([summary.NotebookResult("01_tiny", "passed", 2.0, scores)])[3:] == [
        "",
        "01_tiny",
        "  threshold: 0.500",
        "            Otsu  U-Net",
        "  recall   1.000       ",
        "  nuclei      12     12",
        "  f1, 0.5  0.700  0.850",
    ]


# --- failures ---------------------------------------------------------------------------------------------------------


FAILURES = {  # cells, and what the error says beside the number and the source of the last cell that is executed
    "an error": (["first = 1", "text:between", "second = 2\nfirst / 0"], "ZeroDivisionError: division by zero"),
    "sys.exit": (["import sys", "sys.exit()"], "SystemExit"),
    "sys.exit(0)": (["import sys", "sys.exit(0)"], "SystemExit"),
    "sys.exit(1)": (["import sys", "sys.exit(1)"], "SystemExit"),
    "a kernel that ends": (["import os", "os._exit(0)"], "DeadKernelError"),
    "a kernel that is killed": (["import os", "os.kill(os.getpid(), 9)"], "DeadKernelError"),
    "an endless cell": (["x = 1", "while True:\n    pass"], "CellTimeoutError"),
}


@pytest.mark.parametrize(("cells", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_failing_cell_is_shown_and_the_other_notebooks_still_run(run, cells, reason):
    bad = write_notebook(run.sources, "01_bad", *cells, "print('never')")
    good = write_notebook(run.sources, "02_good", "print('reached')")
    started = time.monotonic()
    failed, passed = run(bad, good, cell_timeout=3)
    assert time.monotonic() - started < 60
    assert (failed.status, passed.status) == ("failed", "passed")
    # the papermill cell with the values counts: parameters, values, first, second
    assert "01_bad FAILED: code cell 4 of 5" in failed.error
    assert "".join(f"    {line}\n" for line in cells[-1].splitlines()) in failed.error
    assert failed.error.count(reason) == 1 and "\x1b" not in failed.error
    assert failed.error in run.text and "1 of 2 notebooks failed: 01_bad" in run.text
    assert cells[-1].splitlines()[-1] in BeautifulSoup(page_of(run, "01_bad"), "html.parser").get_text()
    assert "reached" in page_of(run, "02_good")
    assert [entry["status"] for entry in run.summary()["notebooks"]] == ["failed", "passed"]


def test_the_peak_of_the_memory_is_that_of_the_kernel_and_its_children(run):
    """What a cell frees at once counts, and so does a process that lives for three seconds."""
    child = "import time; x = bytearray(200_000_000); time.sleep(3)"
    in_child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    bare, freed, with_child = run(
        write_notebook(run.sources, "01_bare", "x = 1"),
        write_notebook(run.sources, "02_freed", "x = bytearray(300_000_000)\ndel x"),
        write_notebook(run.sources, "03_child", in_child),
    )
    assert 10 < bare.memory_mb < 200
    assert 0 <= freed.memory_mb - bare.memory_mb - 300 < 30
    assert 200 <= with_child.memory_mb - bare.memory_mb < 250
    assert run.summary()["notebooks"][1]["memory_mb"] == freed.memory_mb
    assert re.search(rf"02_freed +passed +[\d.]+ +{freed.memory_mb}$", run.text, re.MULTILINE)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is mapped from files")
def test_what_is_mapped_from_files_and_can_be_dropped_does_not_count_but_shared_memory_does(tmp_path):
    (tmp_path / "file").write_bytes(bytes(100_000_000))
    program = """
import mmap, sys
from workshop.run.kernel import PeakMemory
import psutil
def seen():
    memory = PeakMemory(psutil.Process().pid)
    memory.look()
    return memory.megabytes
before = seen()
opened = open(sys.argv[1])
file = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
sum(file[::4096])
of_file = seen() - before
shared = mmap.mmap(-1, 100_000_000)
shared.write(bytes(100_000_000))
print(of_file, seen() - before)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "file")]
    of_file, with_shared = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert of_file < 20 and 90 < with_shared < 250


def test_without_a_measurement_the_table_says_so():
    assert kernel_module.PeakMemory(None).megabytes is None
    gone = kernel_module.PeakMemory(2**22 + 1)  # beyond the highest number of a process
    gone.look()
    assert gone.megabytes is None
    assert summary.format_table([summary.NotebookResult("01_tiny", "passed", 2.0)])[-1].split() == [
        "01_tiny", "passed", "2.0", "-"
    ]  # fmt: skip


def test_sys_exit_in_the_last_cell_is_a_failure(run):
    assert "SystemExit" in run.one("import sys\nsys.exit(0)").error


def test_exit_that_ends_the_kernel_is_a_failure(run):
    result = run.one("exit()", "import time\ntime.sleep(1)")
    assert result.status == "failed" and result.error


def test_cells_that_were_never_executed_are_a_failure():
    cells = [new_code_cell("x = 1", execution_count=1), new_code_cell("y = 2"), new_code_cell("")]
    notebook = new_notebook(cells=cells)
    assert "code cell 2 of 2" in kernel_module.find_failure(notebook)
    assert "never executed" in kernel_module.find_failure(notebook)
    notebook.cells[1].execution_count = 2
    assert kernel_module.find_failure(notebook) == ""


def test_a_misspelt_parameter_is_a_failure_and_removes_earlier_results(run):
    assert run.one("x = 1").status == "passed"
    result = run.one("print('not executed')", parameters={"prfile": "smoke"})
    assert "no parameter 'prfile'" in result.error and "data_source, profile, seed, output" in result.error
    assert not (run.folder / "01_tiny.ipynb").exists() and not (run.folder / "01_tiny.html").exists()


WITHOUT_PARAMETERS = nbformat.writes(new_notebook(cells=[new_code_cell("x = 1")], metadata=KERNEL))


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "cannot be read as a notebook"), ("{ broken", "cannot be read as a notebook"),
     (WITHOUT_PARAMETERS, "no parameter 'data_source', 'profile', 'seed', 'output' (it has: none)")],
)  # fmt: skip
def test_a_file_that_is_not_a_notebook_with_parameters_is_a_failure(run, content, reason):
    run.sources.mkdir()
    (run.sources / "01_tiny.ipynb").write_text(content)
    [result] = run(run.sources / "01_tiny.ipynb")
    assert reason in result.error


def test_a_missing_kernel_is_a_failure(run):
    result = run.one("x = 1", kernel_name="no-such-kernel")
    assert result.status == "failed" and "no-such-kernel" in result.error


def test_scores_that_cannot_be_read_are_a_failure(run):
    result = run.one("import pathlib", "(pathlib.Path(output) / 'scores' / '01_tiny.json').write_text('nonsense')")
    assert result.status == "failed" and "01_tiny.json" in result.error


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"\(.*[Nn]ot a directory.*--out"):
        run_notebooks([], tmp_path / "file" / "build", {})


@pytest.mark.skipif(os.name == "nt", reason="signals work otherwise on Windows")
def test_interrupt_ends_the_kernel_too(tmp_path):
    cells = ["import os, time\nopen('kernel', 'w').write(str(os.getpid()))", "time.sleep(120)"]
    source = write_notebook(tmp_path / "solutions", "01_tiny", *cells)
    script = (
        "import sys\nfrom pathlib import Path\nfrom workshop.run.course import run_notebooks\n"
        f"run_notebooks([Path({str(source)!r})], Path({str(tmp_path / 'build')!r}), {{}})"
    )
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stderr=subprocess.PIPE)
    note = tmp_path / "build" / "output" / "kernel"
    wait_until(lambda: note.exists() and note.read_text())
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    kernel = int(note.read_text())
    wait_until(lambda: not is_running(kernel))


def is_running(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize(("timeout", "answers"), [(None, True), (60, True), (0.3, False)])
def test_a_reply_whose_signal_was_lost_is_found_and_none_ends_at_the_timeout(timeout, answers):
    """A channel that has the message, but does not wake up for it: only asking again finds it."""
    asked = []

    async def get_message(timeout):
        asked.append(timeout)
        if answers and len(asked) == 3:
            return "reply"
        await asyncio.sleep(timeout)
        raise queue.Empty

    started = time.monotonic()
    with contextlib.nullcontext() if answers else pytest.raises(queue.Empty):
        assert asyncio.run(kernel_module.ask_often(get_message, lambda: None, every=0.05)(timeout=timeout)) == "reply"
    seconds = time.monotonic() - started
    assert (seconds < 10 and len(asked) == 3) if answers else 0.3 <= seconds < 5


def test_widgets_that_capture_output_do_not_block(run):
    """Without `ask_often`, 1 in 30 of these cells lasted until the timeout."""
    run.one(*["import ipywidgets\nipywidgets.interact(lambda a: print(a), a=(0, 3));"] * 60, cell_timeout=30)
    seconds = [float(found) for found in re.findall(r"cell +\d+/\d+ +([\d.]+) s", run.text)]
    assert len(seconds) == 62 and max(seconds) < 25


# --- web pages --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rich_page(tmp_path_factory):
    """The page of a notebook with everything that a course notebook has."""
    run = Run(tmp_path_factory.mktemp("rich"))
    run.sources.mkdir()
    (run.sources / "dot.png").write_bytes(base64.b64decode(ONE_PIXEL))
    result = run.one(
        "text:![a dot](dot.png), $a < b$ and [a link](https://example.org/paper)",
        "text:<details>\n<summary>Hint</summary>\n\nFolded $x^2$\n\n</details>",
        "import ipywidgets\nfrom IPython.display import display\n"
        "ipywidgets.interact(lambda threshold: print('shown', threshold), threshold=(0.0, 1.0));",
        "from tqdm.notebook import tqdm\nfor _ in tqdm(range(3)):\n    pass",
        "import matplotlib.pyplot as plt\nfrom course_utils import show\n"
        "figure = plt.figure()\nshow(figure, 'A \"figure\" with words')",
        "import pandas\npandas.DataFrame({'F1': [0.5]})",
    )
    assert result.error == ""
    return BeautifulSoup(page_of(run), "html.parser")


def test_pages_fetch_nothing_and_draw_their_formulas(rich_page):
    tags = rich_page.find_all(["script", "img", "iframe"], src=True) + rich_page.find_all("link")
    assert [tag for tag in tags if not (tag.get("src") or tag["href"]).startswith("data:")] == []
    code = "\n".join(tag.get_text() for tag in rich_page.find_all(["script", "style"]))
    assert not re.findall(r"url\(\s*['\"]?(?!data:)[^)'\"]+|@import|import\s.*from|['\"]https?://(?!www.w3.org)", code)
    assert len(rich_page.find_all("math")) == 2 and rich_page.find("details").find("msup")


def test_pages_hold_images_tables_links_and_words_for_widgets(rich_page):
    assert rich_page.find("img", alt="a dot")["src"] == f"data:image/png;base64,{ONE_PIXEL}"
    [figure] = [image for image in rich_page.find_all("img") if image["alt"] != "a dot"]
    assert figure["src"].startswith("data:image/png;base64,") and 'A "figure" with words' in figure["alt"]
    assert rich_page.find("a", href="https://example.org/paper")
    assert rich_page.get_text().count("It works when you run the cell in JupyterLab") == 1, "not for a progress bar"
    assert rich_page.find("table")
    assert rich_page.title.get_text() == "01_tiny"


def test_pictures_of_a_page_keep_their_words():
    words = {"image/png": {"alt": 'a "b" <c>'}}
    picture = nbformat.v4.new_output("display_data", {"image/png": "QUJD\nRA=="}, metadata=words)
    cell = new_code_cell("show()", outputs=[picture])
    text = new_markdown_cell("![cells](attachment:a.png)", attachments={"a.png": {"image/png": "QUJD"}})
    page = page_notebook(new_notebook(cells=[cell, text]))
    [shown] = (output.data["text/html"] for output in page.cells[0].outputs)
    assert shown == '<img alt="a &quot;b&quot; &lt;c&gt;" src="data:image/png;base64,QUJDRA==">'
    assert page.cells[1].source == "![cells](data:image/png;base64,QUJD)" and "attachments" not in page.cells[1]


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_notebooks_are_chosen_by_number_or_name(tmp_path):
    for name in ("03_c", "01_a", "02_b"):
        write_notebook(tmp_path, name)
    (tmp_path / "notes.ipynb").write_text("{}")

    def names(only):
        return [path.stem for path in select_notebooks(tmp_path, only)]

    assert names(None) == ["01_a", "02_b", "03_c"]
    assert names(["03", "01"]) == ["01_a", "03_c"]
    assert names(["2"]) == ["02_b"]
    assert names(["02_b", "02"]) == ["02_b"]
    with pytest.raises(RunError, match=r"'09'.*01_a, 02_b, 03_c"):
        names(["01", "09"])
    with pytest.raises(RunError, match="course.py build"):
        select_notebooks(tmp_path / "empty")


def test_paths_count_from_the_callers_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded").mkdir()
    (tmp_path / "images").mkdir()
    for name in ("embedded", "dsb2018", "auto"):
        assert paths.resolve_data_source(name) == name
    assert paths.resolve_data_source("images") == str(tmp_path / "images")
    assert paths.resolve_data_source("../data.zip") == str(tmp_path / ".." / "data.zip")


def test_first_words():
    sources = ["", "\n\n# A comment\nx = 1", "x = 1", "y" * 100]
    assert [first_words(source) for source in sources] == ["", "A comment", "x = 1", "y" * 57 + "..."]


def test_an_unknown_profile_or_source_fails_before_anything_runs(tmp_path, monkeypatch):
    write_notebook(tmp_path / "solutions", "01_tiny", "x = 1")
    monkeypatch.setattr(course, "checkout", lambda: tmp_path)
    with pytest.raises(RunError, match="huge"):
        course.run_course(profile="huge", out=tmp_path / "build")
    with pytest.raises(ValueError, match="nowhere"):
        course.run_course(data=str(tmp_path / "nowhere.zip"), out=tmp_path / "build")
    assert not (tmp_path / "build").exists()


def test_the_whole_way_with_a_folder_of_images(tmp_path, monkeypatch, make_stardist_folder):
    """run_course loads the data, names the folder after data and profile, and hands everything to the notebook."""
    make_stardist_folder(tmp_path / "cells")
    write_notebook(
        tmp_path / "notebooks", "01_tiny",
        "from course_utils.data import load_data\nfrom course_utils.results import record_scores",
        "from course_utils.exercises import check\ncheck('1.1', lambda images: {})",
        "images = len(load_data(data_source).train)",
        "record_scores(output, '01_tiny', {'images': images, 'profile': profile, 'seed': seed})",
    )  # fmt: skip
    monkeypatch.setattr(course, "checkout", lambda: tmp_path)  # without solutions/, as in the students' copy
    monkeypatch.chdir(tmp_path)
    (result,) = course.run_course(data="cells", seed=5)
    assert result.error == ""
    assert result.scores == {"images": 16, "profile": "smoke", "seed": 5}
    summary = json.loads((tmp_path / "build" / "cells-smoke-seed5" / "summary.json").read_text())
    assert summary["data"]["source"] == str(tmp_path / "cells") and summary["data"]["note"]
    assert summary["machine"]["cores"] == os.cpu_count() and summary["machine"]["device"]
    assert statuses() == {}, "a run notes nothing in the progress of whoever starts it"


# --- several workers --------------------------------------------------------------------------------------------------


def noting(folder, *cells):
    """Cells that leave a line in `notes` when they begin, with the worker's process, and one when they end."""
    note = "import os\ndef note(*words):\n    with open('notes', 'a') as file:\n        print(*words, file=file)"
    return (note, f"note('begin', {folder!r}, os.getppid())", *cells, f"note('end', {folder!r})")


@pytest.mark.skipif(os.name != "posix", reason="signals as on Linux and macOS")
def test_workers_share_the_notebooks_and_one_that_is_killed_loses_nothing(run):
    """Five notebooks on two workers; 04 uses a file that 03 leaves; the worker that executes 02 is killed."""
    names = ["01_a", "02_b", "03_binary_training", "04_instance_evaluation", "05_fails"]
    slow = "import time\ntime.sleep(4)"
    cells = {
        "02_b": ["print('in the web page')", slow],
        "03_binary_training": [slow, "open('network', 'w').write('trained')"],
        "04_instance_evaluation": ["print(open('network').read())"],
        "05_fails": ["1 / 0"],
    }
    notebooks = [write_notebook(run.sources, name, *noting(name, *cells.get(name, ["pass"]))) for name in names]
    path = run.folder / "output" / "notes"

    def notes(word, name=""):
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [line[1:] for line in lines if line[0] == word and name in line[1]]

    def kill():
        wait_until(lambda: notes("begin", "02_b"))
        time.sleep(1)
        os.kill(int(notes("begin", "02_b")[0][1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with executor(2) as pool:
        results = run(*notebooks, pool=pool)
    killer.join()
    assert [result.notebook for result in results] == names
    assert [result.status for result in results] == ["passed"] * 4 + ["failed"]
    assert sorted(name for [name] in notes("end")) == names[:4], "each was executed to its end once"
    begun = [name for name, _ in notes("begin")]
    assert sorted(begun) == sorted([*names, "02_b"]), "only the one that was killed was begun again"
    assert len({worker for _, worker in notes("begin")}) >= 2
    assert run.lines.index("03_binary_training  starts") < run.lines.index("04_instance_evaluation  starts")

    assert "in the web page" in page_of(run, "02_b") and "trained" in page_of(run, "04_instance_evaluation")
    assert any(re.match(r"01_a  cell  3/\d +\d+\.\d s  ", line) for line in run.lines), "progress of the workers"
    assert run.lines.count("02_b  starts") == 2
    assert "ZeroDivisionError: division by zero" in run.text and "1 of 5 notebooks failed: 05_fails" in run.text
    table = re.findall(r"^(\d\d_\w+) +(?:passed|failed) +\d+\.\d +(?:\d+|-)$", run.text, re.MULTILINE)
    assert table == names
    summary = run.summary()
    assert [entry["notebook"] for entry in summary["notebooks"]] == names and summary["workers"] == "2 processes"
    expected = {*(f"{name}.{kind}" for name in names for kind in ("ipynb", "html")), "output"}
    expected |= {"summary.json", "summary.md"}
    assert {path.name for path in run.folder.iterdir()} == expected


def test_a_notebook_that_was_finished_before_its_worker_died_is_not_executed_again(run):
    source = write_notebook(run.sources, "01_tiny", *noting("01_tiny"))
    (run.folder / "output").mkdir(parents=True)
    values = {"data_source": "x", "profile": "x", "seed": 0, "output": "x"}
    results = [
        course._run_once(
            source, run.lines.append, threading.Event(), folder=run.folder, finished=run.folder, parameters=values,
            cell_timeout=60, kernel_name="python3",
        )
        for _ in range(2)
    ]  # fmt: skip
    assert results[0] == results[1] and results[0].status == "passed"
    assert (run.folder / "output" / "notes").read_text().count("end") == 1


def test_a_notebook_of_an_interrupted_run_ends_with_its_kernel(run):
    class AfterAWhile:
        def is_set(self):
            return kernel.exists()

    kernel = run.folder / "output" / "kernel"
    kernel.parent.mkdir(parents=True)
    cells = ["import os, time", "open('kernel', 'w').write(str(os.getpid()))\ntime.sleep(300)"]
    source = write_notebook(run.sources, "01_tiny", *cells)
    values = {"data_source": "x", "profile": "x", "seed": 0, "output": "x"}
    started = time.monotonic()
    course.run_notebook(source, run.folder, values, 600, "python3", run.lines.append, AfterAWhile())
    assert time.monotonic() - started < 120
    wait_until(lambda: not is_running(int(kernel.read_text())))


def test_what_a_notebook_needs_is_executed_before_it():
    """Every solved notebook that takes the network of another one from the output folder stands in `NEEDS`."""
    folder = paths.checkout() / "solutions"
    uses = {path.stem for path in folder.glob("*.py") if re.search(r"\b(foreground|binary)_model\(", path.read_text())}
    leaves = {path.stem for path in folder.glob("*.py") if 'model_path(output, "binary")' in path.read_text()}
    assert uses - leaves == set(course.NEEDS)
    assert all(set(needed) == leaves for needed in course.NEEDS.values())


def test_a_cluster_that_cannot_be_reached_costs_no_earlier_result(tmp_path, monkeypatch):
    write_notebook(tmp_path / "solutions", "01_tiny", "x = 1")
    monkeypatch.setattr(course, "checkout", lambda: tmp_path)
    network = tmp_path / "build" / "embedded-smoke" / "output" / "models" / "binary.pt"
    network.parent.mkdir(parents=True)
    network.write_text("trained for hours")
    with monkeypatch.context() as students_copy, pytest.raises(ModuleNotFoundError, match="cluster"):
        students_copy.setitem(sys.modules, "workshop.cluster", None)
        course.run_course(dask="nowhere")
    with pytest.raises(ClusterError, match="No dask scheduler"):
        course.run_course(dask="nowhere")
    assert network.exists()
