"""What tests/test_browser.py drives: the course as students get it, its JupyterLab, and a browser that takes notes."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import site
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
import psutil
import pytest
from playwright.sync_api import BrowserContext, Error, Locator, Page, sync_playwright

from workshop.publish.release import release

# --- the browser ------------------------------------------------------------------------------------------------------

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "install one (on Debian: apt install chromium), or set COURSE_CHROMIUM to the program file of one"
BROWSER_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server",
    # No other computer is ever found: a request to the outside goes nowhere. That it was made is noted all the same.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]  # fmt: skip
PATIENCE = 900  # seconds for what takes half a minute: a busy machine is no failure


def find_chromium() -> str:
    """The program file of a Chromium. Without one the test is skipped, or fails with COURSE_BROWSER=required."""
    named = os.environ.get("COURSE_CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found:
        return found
    lack = f"COURSE_CHROMIUM names {named}, which is not a program" if named else "there is no Chromium"
    stop = pytest.fail if os.environ.get("COURSE_BROWSER") == "required" else pytest.skip
    stop(f"The course is tested in a real browser, and {lack}: {INSTALL}.")


@contextlib.contextmanager
def browser_window() -> Iterator[BrowserContext]:
    """A new Chromium without a memory of earlier ones."""
    program = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=BROWSER_OPTIONS)
        try:
            window = browser.new_context(viewport={"width": 1400, "height": 1000}, service_workers="block")
            window.set_default_timeout(PATIENCE * 1000)
            yield window
        finally:
            browser.close()


class Notes:
    """What a page asks for from outside this computer, and the errors on its console.

    JupyterLab draws the pictures that lie in a notebook itself (`attachment:`), in two steps: in the first the browser
    meets an address that means nothing to it, and says so on the console. That is left out; whether the pictures
    are drawn in the end is tested. JupyterLab's own menus and lists (React) also lose a race with its panels (Lumino)
    now and then, on a busy machine: one of them takes a node away that the other has just taken away, or cells of a
    notebook that has just been closed are drawn in an idle moment. Those two are left out where every line of the
    error's stack lies in JupyterLab's own files; widgets lie elsewhere (`/lab/extensions/`). The manager of the widgets
    asks for the kernel of a notebook that was closed while its kernel started; that is left out where every line lies
    in its file.
    """

    RACES = {
        "'removeChild' on 'Node'": "/static/lab/", "._runOnIdleTime ": "/static/lab/",
        "of null (reading 'kernel')": "/lab/extensions/@jupyter-widgets/jupyterlab-manager/",
    }  # fmt: skip

    def __init__(self, page: Page):
        self.outside: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self._note_address(request.url))
        page.on("websocket", lambda socket: self._note_address(socket.url))
        page.on("console", self._note_message)
        page.on("pageerror", self._note_error)

    def _note_address(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.hostname != "127.0.0.1" and parts.scheme not in ("data", "blob", "about", "attachment"):
            self.outside.append(address)

    def _note_error(self, error) -> None:
        files = re.findall(r"\w+://[^/\s]+(/[^\s:?)]*)", error.stack or "")
        text = f"{error.message}\n{error.stack}"
        lost = [place for race, place in self.RACES.items() if race in text]
        if not (files and any(all(file.startswith(place) for file in files) for place in lost)):
            self.errors.append(text)

    def _note_message(self, message) -> None:
        address = message.location.get("url", "")
        expected = message.text.endswith("net::ERR_UNKNOWN_URL_SCHEME") and address.startswith("attachment:expected-")
        if message.type == "error" and not expected:
            self.errors.append(f"{message.text} ({address})")


# --- JupyterLab -------------------------------------------------------------------------------------------------------

# Runs in every Python of the course's environment, in the server and in the kernels: what they want from outside this
# computer, names of other computers included, is noted and refused.
GUARD = '''
import os, sys

def guard(event, arguments):
    if event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host or "localhost"
    if host not in ("localhost", "0.0.0.0", "::1") and not host.startswith("127."):
        with open(os.environ["OUTSIDE_REQUESTS"], "a") as file:
            print(event, host, file=file)
        raise OSError(f"{host} is outside this computer")

sys.addaudithook(guard)
'''
# Settings of a student who once said yes to JupyterLab's news and to its list of extensions.
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "true"}',
    "extensionmanager-extension/plugin": '{"disclaimed": true}',
    # tests save themselves: on a busy machine two savings at once make JupyterLab ask whose file it is
    "docmanager-extension/plugin": '{"autosave": false}',
}


def unpack_course(folder: Path) -> Path:
    """The course as students get it: what `course.py release` packs, unpacked."""
    release(folder / "student.zip")
    with zipfile.ZipFile(folder / "student.zip") as archive:
        archive.extractall(folder / "course")
    return folder / "course"


def make_environment(folder: Path, course: Path) -> Path:
    """An environment with which the course.py of a copy starts at once, as after an installation.

    It borrows the packages of the Python that runs the tests, and finds `course_utils` in the copy.
    """
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    (packages / "outside_guard.py").write_text(GUARD)
    # These lines add folders only; the link to the checkout that lies in one of them is not followed.
    (packages / "course.pth").write_text("\n".join([str(course), *site.getsitepackages(), "import outside_guard\n"]))
    for part in ("share", "etc"):  # JupyterLab's pages, its extensions and the description of the kernel
        (folder / part).mkdir(exist_ok=True)
        (folder / part / "jupyter").symlink_to(Path(sys.prefix) / part / "jupyter")
    description = importlib.util.spec_from_file_location("course_of_the_copy", course / "course.py")
    course_py = importlib.util.module_from_spec(description)
    description.loader.exec_module(course_py)
    extras = course_py.needed_extras(["test"])
    course_py.write_stamp(folder, extras)
    assert course_py.is_ready(folder, extras)
    return folder


class Lab:
    """The JupyterLab that `course.py lab` starts in a copy of the course, with settings of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.course = unpack_course(folder)
        self.environment = make_environment(folder / "environment", self.course)
        for name, text in SETTINGS.items():
            file = folder / "jupyterlab_settings_dir" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True)
            file.write_text(text)
        self.token = secrets.token_hex(16)
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        with (folder / "lab.txt").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(self.course / "course.py"), "lab", "--no-browser", f"--ServerApp.port={self.port}",
                 "--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True"],
                cwd=folder, env=self._variables(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def _variables(self) -> dict[str, str]:
        left_out = ("JUPYTER", "PYTHONPATH", "COURSE_STRICT")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        own = {name: str(self.folder / name.lower()) for name in (
            "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR", "COURSE_PROGRESS", "OUTSIDE_REQUESTS",
        )}  # fmt: skip
        chosen = {"COURSE_VENV": str(self.environment), "COURSE_PROFILE": "smoke", "JUPYTER_TOKEN": self.token}
        return inherited | own | chosen

    def given(self, name: str) -> nbformat.NotebookNode:
        """A notebook as students get it; the one in the folder may have been saved since."""
        with zipfile.ZipFile(self.folder / "student.zip") as archive:
            return nbformat.reads(archive.read(f"notebooks/{name}.ipynb").decode(), as_version=4)

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()[-3000:]
            time.sleep(0.2)

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError), opener.open(self.address("api/status"), timeout=10) as answer:
            return answer.status == 200
        return False

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}?token={self.token}"

    def log(self) -> str:
        return (self.folder / "lab.txt").read_text(errors="replace")

    def outside_requests(self) -> list[str]:
        """What the server and the kernels wanted from outside this computer."""
        file = self.folder / "outside_requests"
        return file.read_text().splitlines() if file.exists() else []

    def processes(self) -> list[psutil.Process]:
        """course.py, the server and the kernels; they are known by their variables, also where a parent has ended."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile, or is somebody else's
                if process.environ().get("OUTSIDE_REQUESTS") == str(self.folder / "outside_requests"):
                    found.append(process)
        return found

    def stop(self) -> list[psutil.Process]:
        """End it as the end of a session would; what has not ended a minute later is killed, and returned."""
        self.process.terminate()
        psutil.wait_procs(self.processes(), timeout=60)
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        return left


# --- a notebook in JupyterLab -----------------------------------------------------------------------------------------

IS_READY = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    return panel?.context?.isReady && panel.sessionContext?.session?.kernel?.status === "idle";
}"""
RUN_ALL = """() => {
    window.finished = false;
    jupyterapp.commands.execute("notebook:run-all-cells").finally(() => { window.finished = true; });
}"""
HAS_RUN = """() => window.finished
    && jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === "idle" """
CELLS = """() => jupyterapp.shell.currentWidget.content.widgets.map(({ model }) => ({
    id: model.id, type: model.type, source: model.sharedModel.source, count: model.executionCount ?? null,
    outputs: (model.outputs?.toJSON() ?? []).map(({ data, output_type, ename, evalue }) => ({
        types: Object.keys(data ?? {}), pictures: (data?.["text/html"] ?? "").split("<img").length - 1,
        error: output_type === "error" ? `${ename}: ${evalue}` : null,
    })),
}))"""
NODE = "jupyterapp.shell.currentWidget.content.widgets.find(({ model }) => model.id === id).node"

THEME_IS = """theme => {
    const [red] = getComputedStyle(document.querySelector(".jp-Notebook")).backgroundColor.match(/\\d+/);
    return (red > 127) === (theme === "Light");
}"""

# Of each picture in a cell: its alternative text, whether it is a sign (SVG) or a figure, how wide it is drawn, how far
# it sticks out of the cell, how many colours it has, and whether it is opaque everywhere. What the editor of a text
# puts around a line that is too long for it (a picture's data) is none.
PICTURES = f"""async id => Promise.all([...{NODE}.querySelectorAll("img:not(.cm-widgetBuffer)")].map(async picture => {{
    await picture.decode();
    const canvas = new OffscreenCanvas(picture.naturalWidth, picture.naturalHeight).getContext("2d");
    canvas.drawImage(picture, 0, 0);
    const pixels = new Uint32Array(
        canvas.getImageData(0, 0, canvas.canvas.width, canvas.canvas.height).data.buffer);
    const drawn = picture.getBoundingClientRect();
    return {{
        text: picture.alt, sign: picture.src.includes(".svg"), width: drawn.width,
        beyond: drawn.right - {NODE}.getBoundingClientRect().right,
        colours: new Set(pixels).size, opaque: pixels.every(pixel => pixel >>> 24 === 255),
    }};
}}))"""

# Of each piece of text in a cell's text or outputs, and of each coloured bar and handle: its contrast with what lies
# behind it, as the Web Content Accessibility Guidelines define it. Colours are read back from a canvas, whatever their
# notation. The colours of code are JupyterLab's own, and the same as in every notebook.
CONTRASTS = f"""id => {{
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", {{ willReadFrequently: true }});
    const colour = text => {{
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = text;
        canvas.fillRect(0, 0, 1, 1);
        const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
        return [red, green, blue, alpha / 255];
    }};
    const over = (front, back) => [0, 1, 2].map(i => front[3] * front[i] + (1 - front[3]) * back[i]);
    const behind = element => {{
        const layers = [];
        for (; element; element = element.parentElement) layers.push(colour(getComputedStyle(element).backgroundColor));
        return layers.reduceRight((back, layer) => over(layer, back), [255, 255, 255]);
    }};
    const luminance = colour => {{
        const [red, green, blue] = colour.map(value => value / 255)
            .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    }};
    const contrast = (front, element) => {{
        const back = behind(element);
        const [dark, light] = [luminance(over(colour(front), back)), luminance(back)].sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    }};
    const found = [];
    for (const root of {NODE}.querySelectorAll(".jp-MarkdownOutput, .jp-OutputArea-output")) {{
        const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {{
            const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
            if (text && element.checkVisibility() && !element.closest("style, pre code span"))
                found.push({{ kind: "text", what: text.slice(0, 60), contrast: contrast(
                    getComputedStyle(element)[element instanceof SVGElement ? "fill" : "color"], element) }});
        }}
        const note = (element, property) => found.push({{
            kind: "shape", what: `${{property}} ${{element.textContent.slice(0, 60)}}`,
            contrast: contrast(getComputedStyle(element)[property], element.parentElement),
        }});
        for (const bar of root.querySelectorAll("[style*=border-left]")) note(bar, "borderLeftColor");
        for (const handle of root.querySelectorAll("[role=slider]")) note(handle, "backgroundColor");
    }}
    return found;
}}"""


class Notebook:
    """A notebook in a page of its own; `folder` is where it lies in the course."""

    def __init__(self, window: BrowserContext, lab: Lab, name: str, folder: str = "notebooks"):
        self.name = name
        self.lab = lab
        self.page = window.new_page()
        self.notes = Notes(self.page)
        self.page.goto(lab.address(f"lab/tree/{folder}/{name}.ipynb") + "&reset")
        self.page.wait_for_function(IS_READY, polling=200)

    def given(self) -> nbformat.NotebookNode:
        """As students get it."""
        return self.lab.given(self.name)

    def close(self) -> None:
        """End the kernel, too."""
        with contextlib.suppress(Error):  # the server may have ended before, and its kernels with it
            self.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.page.close()

    def run_all(self) -> None:
        """Until everything has run, or a cell has failed."""
        self.page.evaluate(RUN_ALL)
        self.page.wait_for_function(HAS_RUN, polling=200)

    def cells(self) -> list[dict[str, Any]]:
        """Of each cell: id, type, source, count (number of execution); of its outputs types, pictures and errors."""
        return self.page.evaluate(CELLS)

    def cell(self, id: str) -> dict[str, Any]:
        return next(cell for cell in self.cells() if cell["id"] == id)

    def errors(self) -> list[str]:
        """The errors among the outputs of all cells."""
        return [output["error"] for cell in self.cells() for output in cell["outputs"] if output["error"]]

    def drawn(self, id: str) -> Locator:
        """What is seen of a cell."""
        number = [cell["id"] for cell in self.cells()].index(id)
        return self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{number}"]')

    def measured(self, script: str) -> list[dict[str, Any]]:
        """What PICTURES or CONTRASTS finds in each cell."""
        return [one for cell in self.cells() for one in self.page.evaluate(script, cell["id"])]

    def type_last_lines(self, id: str, lines: list[str]) -> None:
        """Replace the last line of a cell by what a person types there, and run the cell and the one below it."""
        below = [cell["id"] for cell in self.cells()]
        below = below[below.index(id) + 1]
        count = self.cell(below)["count"]
        self.drawn(id).locator(".cm-content").click()
        keys = self.page.keyboard
        keys.press("ControlOrMeta+End")
        keys.press("Shift+Home")  # as far as the indentation
        for number, line in enumerate(lines):
            if number:
                keys.press("Enter")  # the editor indents the new line
            keys.press("Shift+Home")  # the indentation, too: the text brings its own
            keys.type(line)
        keys.press("Shift+Enter")
        keys.press("Shift+Enter")
        self.wait_until(lambda: self.cell(below)["count"] not in (None, count))
        self.page.wait_for_function(HAS_RUN, polling=200)

    def run_cell(self, id: str) -> None:
        """Save the notebook and run one cell."""
        self.page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
        number = [cell["id"] for cell in self.cells()].index(id)
        self.page.evaluate("number => { jupyterapp.shell.currentWidget.content.activeCellIndex = number; }", number)
        self.page.evaluate("() => jupyterapp.commands.execute('notebook:run-cell')")
        self.page.wait_for_function(HAS_RUN, polling=200)

    def type_text(self, id: str, text: str) -> None:
        """Replace a text cell by what a person types there, and render it."""
        cell = self.drawn(id)
        cell.locator(".jp-MarkdownOutput").dblclick(position={"x": 5, "y": 5})
        cell.locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.type(text)
        self.page.keyboard.press("Shift+Enter")

    def wait_until(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, "waited in vain"
            self.page.wait_for_timeout(100)

    def set_theme(self, theme: str) -> None:
        """Light or Dark."""
        self.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', { theme })",
                           f"JupyterLab {theme}")  # fmt: skip
        self.page.wait_for_function(THEME_IS, arg=theme)

    def photograph(self, what: str, place: Locator) -> None:
        """Save a picture of the window around a place, in the folder that COURSE_SCREENSHOTS names, if any."""
        folder = os.environ.get("COURSE_SCREENSHOTS")
        if folder:
            for _ in range(2):  # cells that come into view for the first time may push the place away
                place.scroll_into_view_if_needed()
                self.page.wait_for_timeout(300)
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{self.name[:2]}-{what}.png")
