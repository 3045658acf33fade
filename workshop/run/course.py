"""Execute notebooks from start to end, and keep what came out: executed notebook, web page, scores, summary.

Each notebook runs in a kernel of its own, with papermill. Beyond what papermill notices, these are failures too: a
parameter the notebook does not have, a `sys.exit` in a cell, a cell that was never executed.

One after another, or by several workers at the same time (`course_utils.cluster`), except that a notebook which uses
what another one leaves behind waits for it (`NEEDS`).

The web pages need no network: formulas become MathML, images are embedded, nothing is loaded from elsewhere.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import logging
import os
import platform
import queue
import re
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jinja2 import pass_context
from latex2mathml.converter import convert as latex_to_mathml
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from course_utils.cluster import Cluster, Here, Lost, Stop, workplace

VERSIONS_OF = ("course-utils", "torch", "torchvision", "numpy", "scikit-image", "scipy", "matplotlib", "papermill")
# One cell may train a network: minutes in the small profile, an hour or more in the others.
CELL_TIMEOUT = {"smoke": 600, "laptop": 3 * 3600, "full": 6 * 3600}
# A cell that trains says nothing here until it has ended; so often a line says that it still runs.
SECONDS_BETWEEN_SIGNS = 60.0
# Notebook 04 scores the network that 03 leaves in the output folder (`recipes.foreground_model`).
NEEDS = {"04_instance_evaluation": ["03_binary_training"]}


class RunError(ValueError):
    """The run cannot start; the message says what was found, what was expected and what to do."""


class InterruptedRun(Exception):
    """The run was interrupted while a worker executed a notebook."""


@dataclass
class NotebookResult:
    """What became of one notebook. `error` is a text for people, empty if all went well."""

    notebook: str
    status: str
    seconds: float
    scores: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    date: str = ""


# --- the whole course -------------------------------------------------------------------------------------------------


def run_course(
    data: str = "embedded",
    profile: str = "smoke",
    only: list[str] | None = None,
    seed: int = 0,
    out: Path | None = None,
    cell_timeout: int | None = None,
    workers: int = 1,
    dask: str | None = None,
) -> list[NotebookResult]:
    """Execute the solved notebooks of this checkout.

    A run of all notebooks starts afresh: networks that an earlier run left are removed. With `only` they are used.

    Args:
        data: a source that `course_utils.data.load_data` knows; a relative path counts from the current folder.
        profile: "smoke", "laptop", "full" or "auto".
        only: numbers or names of notebooks, as in ["03", "05"]; None for all.
        seed: passed to the notebooks.
        out: results go to the folder `<out>/<data>-<profile>`, default `build` in the checkout.
        cell_timeout: seconds one cell may take; by default what the profile needs.
        workers: notebooks at the same time.
        dask: address of the scheduler of a running cluster that executes them instead.

    Returns:
        One result a notebook, in order. A failed notebook does not stop the others.

    Raises:
        RunError: no such notebook, profile, or a folder that cannot be written to.
        ClusterError: see `cluster.workplace`.
        DataError: the data source cannot be read.
    """
    from course_utils.data import load_data
    from course_utils.device import choose_device, describe_device
    from course_utils.profiles import get_profile
    from course_utils.recipes import model_path

    sources = select_notebooks(checkout() / "solutions", only)
    try:
        profile = get_profile(profile).name
    except ValueError as error:
        raise RunError(str(error)) from None
    data = resolve_data_source(data)
    note = load_data(data).note  # a source that cannot be read should fail here, not in five notebooks
    print(f"Data: {note}\nProfile: {profile}\nDevice: {describe_device(choose_device())}", flush=True)

    name = f"{data_label(data)}-{profile}" + (f"-seed{seed}" if seed else "")
    folder = (checkout() / "build" if out is None else Path(out).absolute()) / name
    parameters = {"data_source": data, "profile": profile, "seed": seed, "output": str(folder / "output")}
    facts = {"data": {"source": data, "note": note}, "profile": profile, "seed": seed,
             "machine": {**_machine(), "device": describe_device(choose_device())}}  # fmt: skip
    with workplace(min(workers, len(sources)), dask) as place:
        if place.description:
            print(f"Workers: {place.description}", flush=True)
        if only is None:
            shutil.rmtree(model_path(folder / "output", "any").parent, ignore_errors=True)
        timeout = cell_timeout or CELL_TIMEOUT.get(profile, 6 * 3600)
        return run_notebooks(sources, folder, parameters, facts, timeout, place=place)


def checkout() -> Path:
    """The folder of the course: the one that holds solutions/ and the package."""
    return Path(__file__).resolve().parents[1]


def select_notebooks(folder: Path, only: list[str] | None = None) -> list[Path]:
    """The notebooks `NN_topic.ipynb` of a folder in order, or those whose number or name is asked for.

    Raises `RunError` if there are none, or if one that is asked for is not there.
    """
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        raise RunError(f"{folder} holds no notebooks. Generate them first: python3 course.py build")
    if only is None:
        return notebooks
    chosen = set()
    for wanted in only:
        matches = [path for path in notebooks if wanted in (path.stem, path.stem[:2], path.stem[:2].lstrip("0"))]
        if not matches:
            names = ", ".join(path.stem for path in notebooks)
            raise RunError(f"There is no notebook {wanted!r}. Choose by number or name from: {names}.")
        chosen.update(matches)
    return [path for path in notebooks if path in chosen]


def resolve_data_source(source: str) -> str:
    """A source for the notebooks, which run in another folder: paths become absolute, names stay.

    >>> resolve_data_source("embedded")
    'embedded'
    """
    from course_utils.data import available_sources

    path = Path(source).expanduser()
    looks_like_path = path.exists() or path.suffix or len(path.parts) > 1
    return str(path.absolute()) if looks_like_path and source not in ("auto", *available_sources()) else source


def data_label(data: str) -> str:
    """A data source as part of a folder's name.

    >>> data_label("../data/dsb2018.zip")
    'dsb2018'
    """
    return re.sub(r"[^A-Za-z0-9]+", "_", Path(data).stem).strip("_") or "data"


# --- a list of notebooks ----------------------------------------------------------------------------------------------


def run_notebooks(
    sources: list[Path],
    folder: Path,
    parameters: dict[str, Any],
    facts: dict[str, Any] | None = None,
    cell_timeout: int = 600,
    kernel_name: str = "python3",
    say: Callable[[str], None] | None = None,
    place: Here | Cluster | None = None,
) -> list[NotebookResult]:
    """Execute notebooks and write everything into `folder`.

    It gets `NN_topic.ipynb` (executed), `NN_topic.html`, `summary.json`, `summary.md`, and `output/`, in which the
    notebooks run. A notebook's scores are read from `output/scores/NN_topic.json`; what stood there before is removed.

    Args:
        sources: the notebooks.
        folder: made if it is not there.
        parameters: values for the parameters cell; the notebook must have a parameter of each name.
        facts: further entries for the summary.
        cell_timeout: seconds one cell may take.
        kernel_name: for tests; "python3" is the Python that runs this.
        say: takes one line of progress; default: print.
        place: where they are executed, from `cluster.workplace`; by default here, one after another.

    Returns:
        One result a notebook, in the order of `sources`.

    Raises:
        RunError: the folder cannot be written to.
        ClusterError: a worker does not see the folder, or the connection to the cluster was lost.
    """
    place = place or Here()
    say = say or (lambda line: print(line, flush=True))
    output = folder / "output"
    try:
        (output / "scores").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise RunError(
            f"Results cannot be written to {folder} ({error.strerror}). Name another folder with --out."
        ) from error

    sources, folder = [source.absolute() for source in sources], folder.absolute()
    finished = folder / f".finished-{uuid.uuid4().hex}"  # what a worker has finished, in case it dies then
    finished.mkdir()
    run_one = partial(
        _run_once, folder=folder, parameters=parameters, cell_timeout=cell_timeout, kernel_name=kernel_name,
        finished=finished,
    )  # fmt: skip
    needs = {one: [other for other in sources if other.stem in NEEDS.get(one.stem, ())] for one in sources}
    results: dict[Path, NotebookResult] = {}
    facts = (facts or {}) | ({"workers": place.description} if place.description else {})
    try:
        place.must_see([*sources, finished])
        for source, result in place.work(run_one, sources, needs, say):
            if isinstance(result, Lost):
                error = f"{source.stem} FAILED: {result.reason}"
                result = NotebookResult(source.stem, "failed", 0.0, error=error, date=_now())
            results[source] = result
            if result.error:
                say(result.error)
            _write_summary(folder, list(results.values()), facts)
    finally:
        shutil.rmtree(finished, ignore_errors=True)
    in_order = [results[source] for source in sources]
    say("")
    for line in format_table(in_order):
        say(line)
    say(f"\nExecuted notebooks, web pages and summary.json: {folder}")
    return in_order


# While a notebook runs, variables of its whole process are set: a worker with several threads takes one at a time.
_one_at_a_time = threading.Lock()


def _run_once(
    source: Path, say: Callable[[str], None], stop: Stop, folder: Path, finished: Path, **options: Any
) -> NotebookResult:
    """Execute one notebook of a run, unless a worker that died afterwards has finished it already."""
    kept = finished / f"{source.stem}.json"
    with contextlib.suppress(OSError, ValueError):
        return NotebookResult(**json.loads(kept.read_text(encoding="utf-8")))
    with _one_at_a_time, _private_jupyter():
        result = run_notebook(source, folder, say=say, stop=stop, **options)
    unfinished = kept.with_suffix(".part")
    unfinished.write_text(json.dumps(asdict(result)), encoding="utf-8")
    unfinished.replace(kept)
    return result


def run_notebook(
    source: Path,
    folder: Path,
    parameters: dict[str, Any],
    cell_timeout: int,
    kernel_name: str,
    say: Callable[[str], None],
    stop: Stop,
) -> NotebookResult:
    """Execute one notebook; see `run_notebooks`. Never raises for what happens inside the notebook."""
    name = source.stem
    executed, page, scores_file = folder / f"{name}.ipynb", folder / f"{name}.html", _scores_file(folder, name)
    for stale in (executed, page, scores_file):
        stale.unlink(missing_ok=True)
    say(f"{name}  starts")
    started = time.perf_counter()
    progress = _Progress(name, say, stop)
    failure, scores = _unknown_parameters(source, parameters), {}
    if not failure:
        try:
            failure = _execute(source, executed, folder / "output", parameters, cell_timeout, kernel_name, progress)
        finally:
            progress.stop()
    if not failure and scores_file.exists():
        try:
            scores = json.loads(scores_file.read_text(encoding="utf-8"))
        except ValueError as error:
            failure = f"its scores in {scores_file} are no JSON: {error}"
    seconds = round(time.perf_counter() - started, 1)
    if executed.exists() and not stop.is_set():
        write_html(executed, page, images_from=source.parent)
    error = f"{name} FAILED: {failure}" if failure else ""
    status = "failed" if failure else "passed"
    say(f"{name}  {status} after {seconds:.1f} s")
    return NotebookResult(name, status, seconds, scores, error, _now())


def _scores_file(folder: Path, name: str) -> Path:
    return folder / "output" / "scores" / f"{name}.json"


def _unknown_parameters(source: Path, parameters: dict[str, Any]) -> str:
    """Empty if the notebook has all these parameters. papermill itself would only log a warning and go on."""
    try:
        with _quiet("papermill"):
            known = papermill.inspect_notebook(str(source))
    except Exception as error:  # no JSON, no notebook, no kernel named in it: papermill has no common base for these
        return f"it cannot be read as a notebook ({type(error).__name__}: {error})."
    unknown = [name for name in parameters if name not in known]
    if not unknown:
        return ""
    return (
        f"it has no parameter {', '.join(map(repr, unknown))} (it has: {', '.join(known) or 'none'}). "
        "Give its parameters cell, tagged 'parameters', these names."
    )


def _execute(
    source: Path,
    executed: Path,
    work_folder: Path,
    parameters: dict[str, Any],
    cell_timeout: int,
    kernel_name: str,
    progress: _Progress,
) -> str:
    """Execute a notebook; returns an empty text, or what went wrong with the cell's number and source."""
    try:
        with _quiet("papermill"):
            papermill.execute_notebook(
                source, executed, parameters, engine_name="course", kernel_name=kernel_name, language="python",
                progress_bar=False, cwd=work_folder, start_timeout=120, execution_timeout=cell_timeout,
                progress=progress,
            )  # fmt: skip
        trouble = ""
    except papermill.PapermillExecutionError:
        trouble = ""  # an exception in a cell: it stands in the executed notebook
    except Exception as error:  # a dead kernel, a timeout, no kernel: whatever it is, the other notebooks still run
        trouble = f"{type(error).__name__}: {error}".strip()
    if not executed.exists():
        return trouble
    return find_failure(nbformat.read(executed, as_version=4), trouble, progress.current)


def find_failure(notebook: NotebookNode, trouble: str = "", running: int | None = None) -> str:
    """What is wrong with an executed notebook, or an empty text.

    Args:
        notebook: the executed notebook.
        trouble: an error that came from outside the cells (kernel died, timeout).
        running: number of the code cell that was running then, from 1.
    """
    cells = _code_cells(notebook)
    for number, cell in enumerate(cells, start=1):
        if trouble and number == running:
            return _describe(cell, number, len(cells), trouble)
        for output in cell.outputs:
            if output.output_type == "error":
                # papermill takes the SystemExit of sys.exit(0) for a normal end; nothing after it is executed
                traceback = _without_colours("\n".join(output.traceback)).splitlines()[-25:]
                if not any(line.startswith(output.ename) for line in traceback[-3:]):
                    traceback.append(f"{output.ename}: {output.evalue}")
                return _describe(cell, number, len(cells), "\n".join(traceback))
        if not trouble and cell.execution_count is None:
            return _describe(cell, number, len(cells), "The cell was never executed.")
    return trouble


def _describe(cell: NotebookNode, number: int, total: int, message: str) -> str:
    source = "\n".join(f"    {line}" for line in cell.source.splitlines())
    return f"code cell {number} of {total}:\n\n{source}\n\n{message}\n"


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that an execution must reach."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def _without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# --- progress ---------------------------------------------------------------------------------------------------------


class _Progress:
    """Prints one line for each code cell and, while one runs long, a line now and then; knows which one is running."""

    def __init__(self, name: str, say: Callable[[str], None], interrupted: Stop):
        self.name = name
        self.say = say
        self.interrupted = interrupted
        self.current: int | None = None
        self.started = 0.0
        self._ended = threading.Event()

    def cell_start(self, notebook: NotebookNode, cell: NotebookNode) -> None:
        cells = _code_cells(notebook)
        positions = [number for number, one in enumerate(cells, start=1) if one is cell]
        self.current = positions[0] if positions else None
        self.started = time.perf_counter()
        if self.current is not None:
            self.stop()
            self._ended = threading.Event()
            label = f"{self.name}  cell {self.current:2d}/{len(cells)}"
            threading.Thread(target=self._say_alive, args=(label, self._ended), daemon=True).start()

    def stop(self) -> None:
        """No more lines about the cell that was running: it has ended, or its kernel has."""
        self._ended.set()

    def _say_alive(self, label: str, ended: threading.Event) -> None:
        started = time.perf_counter()
        while not ended.wait(SECONDS_BETWEEN_SIGNS):
            self.say(f"{label}  still running, {time.perf_counter() - started:.0f} s")

    def cell_complete(self, notebook: NotebookNode, cell: NotebookNode) -> None:
        if cell.cell_type != "code" or not cell.source.strip():
            return
        self.stop()
        seconds = time.perf_counter() - self.started
        total = len(_code_cells(notebook))
        self.say(f"{self.name}  cell {self.current:2d}/{total}  {seconds:6.1f} s  {first_words(cell.source)}")


def first_words(source: str, width: int = 60) -> str:
    """The first line of a cell that says something, shortened.

    >>> first_words("\\n# Load the data\\ndata = load_data()")
    'Load the data'
    """
    for line in source.splitlines():
        words = line.strip().lstrip("#% ").strip()
        if words:
            return words if len(words) <= width else words[: width - 3] + "..."
    return ""


class _PatientClient(PapermillNotebookClient):
    """Asks the kernel's channels for messages often.

    When a widget captures output, nbclient answers the kernel on the channel on which it waits for the reply. That can
    swallow the signal that the reply has come: 1 in 30 such cells then lasted until the timeout. The reply is there,
    and looking again finds it.
    """

    interrupted: Stop | None = None

    def start_new_kernel_client(self, **kwargs):
        client = super().start_new_kernel_client(**kwargs)
        for channel in (client.shell_channel, client.iopub_channel):
            channel.get_msg = ask_often(channel.get_msg, interrupted=self.interrupted)
        return client


def ask_often(get_message: Callable, every: float = 0.5, interrupted: Stop | None = None) -> Callable:
    """A `get_msg` of a channel that waits in short pieces; same result, same `queue.Empty` after the timeout.

    It raises `InterruptedRun` once the run was interrupted: then the kernel is ended, and the notebook with it.
    """

    async def get_msg(timeout: float | None = None):
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if interrupted is not None and interrupted.is_set():
                raise InterruptedRun
            left = every if deadline is None else deadline - time.monotonic()
            try:
                return await get_message(timeout=max(0.0, min(every, left)))
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    raise

    return get_msg


class _ProgressEngine(NBClientEngine):
    """papermill's own engine, which also tells a `_Progress` about each cell."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, progress, execution_timeout, start_timeout, **_):
        start, complete = nb_man.cell_start, nb_man.cell_complete

        def cell_start(cell, cell_index=None, **options):
            progress.cell_start(nb_man.nb, cell)
            start(cell, cell_index, **options)

        def cell_complete(cell, cell_index=None, **options):
            complete(cell, cell_index, **options)
            progress.cell_complete(nb_man.nb, cell)

        nb_man.cell_start, nb_man.cell_complete = cell_start, cell_complete
        client = _PatientClient(
            nb_man, kernel_name=kernel_name, timeout=execution_timeout, startup_timeout=start_timeout,
            iopub_timeout=60,  # figures can arrive late on a busy machine; the library waits 4 s
            log=logging.getLogger("papermill"),
        )  # fmt: skip
        client.interrupted = progress.interrupted
        return client.execute()


papermill_engines.register("course", _ProgressEngine)


# --- the surroundings of a kernel -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _private_jupyter() -> Iterator[None]:
    """Let kernels be this very Python, whatever the user's own Jupyter set-up says, and leave that set-up untouched."""
    with tempfile.TemporaryDirectory(prefix="course-jupyter-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        specification = {
            # without the kernel's own log: what fails in it arrives here, and its warnings are for servers
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=50"],
            "display_name": "Python 3",
            "language": "python",
            # figures belong into the notebook, also where the shell asks for another backend
            "env": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        }
        kernel = folder / "path" / "kernels" / "python3"
        kernel.mkdir(parents=True)
        (kernel / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")
        changes = {
            "JUPYTER_PATH": str(folder / "path"),  # searched first, so a user's own "python3" kernel does not count
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "IPYTHONDIR": str(folder / "ipython"),
            "COURSE_PROGRESS": str(folder / "progress.json"),  # a run solves nothing for the one who starts it
            "JUPYTER_PLATFORM_DIRS": "1",  # jupyter_core warns without it
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # so does the debugger that ipykernel loads
        }
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextlib.contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Keep a library's log lines out of the progress lines; its errors arrive as exceptions."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


# --- web pages --------------------------------------------------------------------------------------------------------


def write_html(notebook: Path, page: Path, images_from: Path | None = None) -> None:
    """Render an executed notebook as one self-contained web page.

    Args:
        notebook: the .ipynb file.
        page: the .html file to write.
        images_from: folder to which image paths in the text cells are relative; default: the notebook's own.
    """
    exporter = _OfflineExporter(embed_images=True)
    exporter.register_preprocessor(_WithoutWidgets, enabled=True)
    exporter.log.setLevel(logging.ERROR)
    resources = {"metadata": {"name": notebook.stem, "path": str(images_from or notebook.parent)}}
    html, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4), resources=resources)
    page.write_text(html, encoding="utf-8")


class _MathRenderer(IPythonRenderer):
    """Formulas become MathML, which every current browser draws without a script."""

    def _html_embed_images(self, html: str) -> str:
        """Embed the images of raw HTML. The method it replaces would also close a <details> that goes on below."""
        return re.sub(r"""(?<=\ssrc=["'])[^"']+""", lambda found: self._src_to_base64(found[0]) or found[0], html)

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


def mathml(formula: str, display: str) -> str:
    """A formula in TeX as MathML; `display` is "inline" or "block"."""
    try:
        return latex_to_mathml(formula.strip(), display=display)
    except Exception:  # its errors have no common base; a formula in TeX is better than no page
        return f"<code>{IPythonRenderer().escape_html(formula)}</code>"


class _OfflineExporter(HTMLExporter):
    """nbconvert's page without the scripts it fetches from elsewhere, and with the figures' alternative texts."""

    raw_template = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block data_png scoped -%}
{%- set alt = output | get_metadata('alt', 'image/png') -%}
{{ super() | replace('<img ', '<img alt="' ~ (alt | escape_html) ~ '" ', 1) if alt else super() }}
{%- endblock -%}
"""

    @pass_context
    def markdown2html(self, context, source):
        """Markdown to HTML, with this module's formulas."""
        renderer = _MathRenderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=self.embed_images,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            anchor_link_text=self.anchor_link_text,
        )
        return MarkdownWithMath(renderer=renderer).render(source)


def without_widgets(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook for a page, where no widget works."""
    return _WithoutWidgets().preprocess(notebook, {})[0]


class _WithoutWidgets(Preprocessor):
    """Widgets need a running kernel: a page says so in their place. Finished progress bars are left out."""

    NOTE = "<p><em>An interactive part stands here; it works when you run this cell in JupyterLab.</em></p>"
    VIEW = "application/vnd.jupyter.widget-view+json"

    def preprocess(self, nb, resources):
        nb.metadata.pop("widgets", None)
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs = [output for output in map(self._replace, cell.outputs) if output is not None]
        return nb, resources

    def _replace(self, output: NotebookNode) -> NotebookNode | None:
        if self.VIEW not in output.get("data", {}):
            return output
        if re.search(r"\d+%\|", output.data.get("text/plain", "")):
            return None
        output.data = NotebookNode({"text/html": self.NOTE})
        return output


# --- the summary ------------------------------------------------------------------------------------------------------


def _write_summary(folder: Path, results: list[NotebookResult], facts: dict[str, Any]) -> None:
    """Write summary.json, and the table as summary.md, for the page of a workflow, say.

    Notebooks of an earlier run into the same folder stay in it, each with its own date.
    """
    path = folder / "summary.json"
    earlier = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        earlier = json.loads(path.read_text(encoding="utf-8"))["notebooks"]
    entries = {entry["notebook"]: entry for entry in earlier} | {one.notebook: asdict(one) for one in results}
    summary = {"date": _now(), **facts, "versions": versions(), "notebooks": [entries[key] for key in sorted(entries)]}
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)
    table = format_table([NotebookResult(**entry) for entry in summary["notebooks"]])
    about = [f"* {name}: {value}" for name, value in facts.items() if not isinstance(value, dict)]
    text = "\n".join(["## Executed notebooks", "", *about, "", "```", *table, "```", ""])
    path.with_suffix(".md").write_text(text, encoding="utf-8")


def format_table(results: list[NotebookResult]) -> list[str]:
    """The lines of a table for people: notebook, result and seconds, then each notebook's scores.

    Scores that are numbers stand one a line; groups of scores (one for each method) stand side by side.
    """
    width = max([len("notebook"), *(len(result.notebook) for result in results)])
    lines = [f"{'notebook':{width}}  result   seconds", f"{'-' * width}  ------  --------"]
    lines += [f"{result.notebook:{width}}  {result.status}  {result.seconds:8.1f}" for result in results]
    for result in results:
        groups = {name: value for name, value in result.scores.items() if isinstance(value, dict)}
        if result.scores:
            lines += ["", result.notebook]
        lines += [f"  {name}: {_number(value)}" for name, value in result.scores.items() if name not in groups]
        lines += _side_by_side(groups)
    failed = [result.notebook for result in results if result.error]
    if failed:
        lines += ["", f"{len(failed)} of {len(results)} notebooks failed: {', '.join(failed)} (see above)"]
    return lines


def _side_by_side(groups: dict[str, dict[str, Any]]) -> list[str]:
    """A column for each group, a row for each score that any of them has."""
    rows = list(dict.fromkeys(name for group in groups.values() for name in group))
    if not rows:
        return []
    widths = {name: max(len(name), 6) for name in groups}
    first = max(len(row) for row in rows)
    lines = ["  " + " " * first + "".join(f"  {name:>{widths[name]}}" for name in groups)]
    for row in rows:
        cells = (f"  {_number(group.get(row, '')):>{widths[name]}}" for name, group in groups.items())
        lines.append(f"  {row:{first}}" + "".join(cells))
    return lines


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what comes out."""
    found = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _machine() -> dict[str, Any]:
    return {"system": platform.platform(), "processor": processor_name(), "cores": os.cpu_count()}


def processor_name() -> str:
    """What the system calls its processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
