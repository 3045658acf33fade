"""The course in a real browser: JupyterLab as `course.py lab` starts it, and what students see and do there.

Five notebooks are opened on every change. The other three, which train longest and have no other kind of content:

    python3 course.py test -m slow tests/notebooks/test_browser.py
"""

from __future__ import annotations

import http.server
import os
import re
import shutil
import threading
from functools import cache
from pathlib import Path

import nbformat
import psutil
import pytest
from lab_in_browser import CONTRASTS, PICTURES, Lab, Notebook, Notes, browser_window, find_chromium
from quick import mostly_slow

from course_utils.exercises import evaluate, list_exercises
from course_utils.exercises.registry import Exercise
from workshop.build.stubs import source_of, stub_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
OPENED = mostly_slow(NAMES, quick=["01", "02", "04", "05", "08"])
# How many sliders students find in a notebook, besides those for guesses.
SLIDERS = {"01_data_exploration": 1, "04_instance_evaluation": 2, "05_boundary_watershed": 2, "06_losses_and_tuning": 1,
           "07_denoising": 1, "08_own_images": 1}  # fmt: skip

pytestmark = [
    pytest.mark.timeout(3600),  # what takes seconds here may take minutes on a busy machine
    pytest.mark.skipif(os.name == "nt", reason="the copy of the course borrows its environment through links"),
]


@pytest.fixture(scope="module")
def window():
    with browser_window() as window:
        yield window


@pytest.fixture(scope="module")
def lab(window, tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.wait()
        yield lab
    finally:
        lab.stop()


@pytest.fixture(scope="module", params=OPENED)
def notebook(request, window, lab):
    """A student notebook in which everything was run."""
    notebook = Notebook(window, lab, request.param)
    try:
        notebook.run_all()
        yield notebook
    finally:
        notebook.close()


def count_in_text(pattern: str, notebook: Notebook) -> int:
    texts = [cell.source for cell in notebook.given().cells if cell.cell_type == "markdown"]
    return sum(len(re.findall(pattern, text)) for text in texts)


def exercises_of(name: str) -> list[Exercise]:
    return [exercise for exercise in list_exercises() if exercise.notebook == name]


# --- every notebook, run as a student runs it -------------------------------------------------------------------------


def test_run_all_reaches_the_end(notebook):
    assert notebook.errors() == []
    expected = [cell.id for cell in notebook.given().cells if cell.cell_type == "code"]
    executed = {cell["id"]: cell["count"] for cell in notebook.cells() if cell["type"] == "code"}
    assert executed == {id: number for number, id in enumerate(expected, 1)}


def test_every_check_says_that_its_exercise_is_to_do(notebook):
    for exercise in exercises_of(notebook.name):
        assert verdict(notebook, exercise)[0] == f"○ Exercise {exercise.id}, {exercise.name}: to do"


def test_formulas_are_drawn(notebook):
    sizes = notebook.page.locator(".jp-Notebook mjx-container").evaluate_all(
        "formulas => formulas.map(one => Math.min(one.offsetWidth, one.offsetHeight))"
    )
    assert len(sizes) == count_in_text(r"(\${1,2})[^$]+\1", notebook)
    assert all(size > 5 for size in sizes)
    assert notebook.page.locator(".jp-MarkdownOutput", has_text="$").count() == 0


def test_pictures_are_drawn(notebook):
    outputs = [output for cell in notebook.cells() for output in cell["outputs"]]
    figures = sum("image/png" in output["types"] for output in outputs)
    with_text = count_in_text(r"!\[", notebook) + (notebook.name in SLIDERS)
    with_text += sum(output["pictures"] for output in outputs)
    pictures = notebook.measured(PICTURES)
    assert len(pictures) == figures + with_text > 0
    for picture in pictures:
        assert picture["width"] > 50 and picture["beyond"] <= 0 and picture["colours"] > 2, picture
        assert picture["sign"] or (picture["opaque"] and picture["colours"] > 10), picture  # also seen on a dark page
    # JupyterLab shows no alternative text of a figure; the caption below it says the same.
    assert sum(len(picture["text"]) > 5 for picture in pictures) == with_text


def test_controls_are_drawn(notebook):
    cells = [cell for cell in notebook.cells() if any(is_widget(output) for output in cell["outputs"])]
    optional = [cell.id for cell in notebook.given().cells if "optional" in cell.metadata.get("tags", [])]
    guesses = [cell.id for cell in notebook.given().cells if re.search(r"^ask\(", cell.source, re.MULTILINE)]
    assert {cell["id"] for cell in cells} == {*optional, *guesses}
    for id in [*optional, *guesses]:
        box = notebook.drawn(id).locator(".jupyter-widgets").first.bounding_box()
        assert box["width"] > 100 and box["height"] > (100 if id in optional else 30)


def is_widget(output: dict) -> bool:
    return "application/vnd.jupyter.widget-view+json" in output["types"]


def test_sliders_moved_by_keys_draw_another_figure(notebook):
    figures = notebook.page.locator(".jp-OutputArea-output", has=notebook.page.locator("img"))
    sliders = figures.locator("[role=slider]")
    assert sliders.count() == SLIDERS.get(notebook.name, 0)
    for number in range(sliders.count()):
        figure = figures.filter(has=notebook.page.locator("[role=slider]")).locator("img")
        before, value = figure.get_attribute("src"), sliders.nth(number).get_attribute("aria-valuenow")
        sliders.nth(number).focus()
        notebook.page.keyboard.press("End")
        notebook.wait_until(lambda: figure.get_attribute("src") != before)  # noqa: B023 (called at once)
        assert sliders.nth(number).get_attribute("aria-valuenow") != value


def test_hints_are_folded_and_open_when_clicked(notebook):
    hints = notebook.page.locator(".jp-MarkdownOutput details")
    assert hints.count() == count_in_text("<details>", notebook) >= 2 * len(exercises_of(notebook.name))
    for hint in hints.all():
        text = hint.locator(":scope > :not(summary)").first
        assert not text.is_visible()
        hint.locator("summary").click()
        assert text.is_visible()


# --- an exercise, solved by typing ------------------------------------------------------------------------------------


def check_box(notebook: Notebook, exercise: Exercise):
    return notebook.drawn(f"check-{exercise.id.replace('.', '-')}").get_by_role("status")


def verdict(notebook: Notebook, exercise: Exercise) -> list[str]:
    """The lines of the box that a check has drawn."""
    box = check_box(notebook, exercise)
    assert box.is_visible()
    return box.locator("strong, div").all_text_contents()


def type_answer(notebook: Notebook, exercise: Exercise, lines: list[str]) -> None:
    notebook.type_last_lines(f"exercise-{exercise.id.replace('.', '-')}", lines)


def what_is_left_to_write(exercise: Exercise) -> list[str] | None:
    """The lines of the solution that stand where the stub has its last line; None if it is not as simple as that."""
    solution, stub = source_of(exercise).split("\n"), stub_of(exercise).split("\n")
    given = len(stub) - 1
    return solution[given:] if solution[:given] == stub[:given] else None


@cache
def two_short_exercises(name: str) -> list[Exercise]:
    simple = [exercise for exercise in exercises_of(name) if what_is_left_to_write(exercise)]
    return sorted(simple, key=lambda exercise: len("".join(what_is_left_to_write(exercise))))[:2]


@pytest.fixture(scope="module")
def said(notebook) -> dict[str, list[str]]:
    """What the check of one exercise said as one answer after another was typed; a second one is left wrong."""
    one, other = two_short_exercises(notebook.name)
    said = {"untouched": verdict(notebook, one)}
    type_answer(notebook, one, ["    return None"])
    said["wrong"] = verdict(notebook, one)
    type_answer(notebook, one, what_is_left_to_write(one))
    said["right"] = verdict(notebook, one)
    type_answer(notebook, other, ["    return None"])
    return said


def test_a_wrong_answer_is_told_what_is_wrong_with_it(notebook, said):
    exercise = two_short_exercises(notebook.name)[0]
    assert said["untouched"][0].endswith("to do")
    title, message, advice = said["wrong"]
    assert title == f"✘ Exercise {exercise.id}, {exercise.name}: not right yet"
    said_elsewhere = evaluate(exercise.id, lambda *arguments, **more: None).messages[0]
    assert message == said_elsewhere.replace("`", "")  # what stands between is drawn as code
    assert f"reference {exercise.name}" in advice
    assert notebook.errors() == []


def test_a_right_answer_passes(notebook, said):
    exercise = two_short_exercises(notebook.name)[0]
    assert said["right"] == [f"✔ Exercise {exercise.id}, {exercise.name}: passed"]
    typed = notebook.cell(f"exercise-{exercise.id.replace('.', '-')}")["source"]
    assert typed == source_of(exercise)


def test_the_list_of_progress_shows_it_when_run_again_and_the_whole_course_when_unfolded(notebook, said):
    notebook.run_cell(f"progress-{notebook.name}")
    lists = notebook.drawn(f"progress-{notebook.name}").locator(".jp-OutputArea-output details")
    assert lists.count() == len(NAMES)
    own = lists.nth(NAMES.index(notebook.name))
    assert f"1 of {len(exercises_of(notebook.name))} exercises solved" in own.text_content()
    assert own.locator("table").is_visible() and lists.locator("table >> visible=true").count() == 1
    other = lists.nth((NAMES.index(notebook.name) + 1) % len(NAMES))
    other.locator("summary").click()
    assert other.locator("table").is_visible()


def test_an_answer_in_words_is_kept_and_followed_by_the_model_answer_if_the_copy_has_it(notebook):
    model = notebook.drawn(f"model-{int(notebook.name[:2])}a")
    assert "no answer yet" in model.locator(".jp-OutputArea-output").text_content()
    notebook.type_text(f"answer-{int(notebook.name[:2])}a", "Because of *this*.")
    notebook.run_cell(f"model-{int(notebook.name[:2])}a")
    said = model.locator(".jp-OutputArea-output").text_content()
    assert "answered" in said and f"kept in {notebook.name}.ipynb" in said and "your instructor has them" in said


# --- looks ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["Light", "Dark"])
def theme(request, notebook, said):
    """Of a notebook with an exercise in each state."""
    notebook.set_theme(request.param)
    notebook.page.mouse.move(0, 0)  # the line of a table that lies below the mouse has another colour
    return request.param


def test_texts_and_shapes_stand_out_from_their_ground_in_both_themes(notebook, theme):
    states = [verdict(notebook, exercise)[0][0] for exercise in exercises_of(notebook.name)]
    assert set(states) == {*"✔✘○"[: len(states)]}  # one is solved, one is wrong, and the others, if any, are to do
    found = notebook.measured(CONTRASTS)
    assert sum(one["kind"] == "text" for one in found) > 100 and sum(one["kind"] == "shape" for one in found) > 5
    least = {"text": 4.5, "shape": 3}
    faint = [one for one in found if one["contrast"] < least[one["kind"]]]
    assert faint == [], faint


def test_every_kind_of_content_is_there_to_be_photographed(notebook, theme):
    one, other = two_short_exercises(notebook.name)
    page = notebook.page
    places = {
        "top": page.locator("h1").first, "passed": check_box(notebook, one), "failed": check_box(notebook, other),
        "figure": page.locator(".jp-OutputArea-output img").first,
        "table": page.locator(".jp-Notebook table >> visible=true").first, "hint": page.locator("details").first,
        "progress": page.locator(".jp-Notebook table >> visible=true").last,
    }  # fmt: skip
    if todo := [exercise for exercise in exercises_of(notebook.name) if exercise not in (one, other)]:
        places["todo"] = check_box(notebook, todo[0])
    if notebook.name in SLIDERS:
        places["slider"] = page.locator("[role=slider]").first
    for what, place in places.items():
        assert place.is_visible(), what
        notebook.photograph(f"{what}-{theme.lower()}", place)


# --- from one notebook to the next, and versions that are not run here ------------------------------------------------


def test_a_link_below_the_title_and_one_at_the_end_open_the_next_notebook(notebook):
    number = NAMES.index(notebook.name)
    links = notebook.page.locator(".jp-MarkdownOutput a", has_text=re.compile(r"^0\d "))
    beside = [*NAMES[max(number - 1, 0) : number], *NAMES[number + 1 : number + 2]]
    neighbours = links.and_(notebook.page.locator(", ".join(f'a[href*="{name}"]' for name in beside)))
    assert neighbours.count() >= 2 * len(beside)
    neighbours.last.click()
    path = "() => jupyterapp.shell.currentWidget.context.path"
    notebook.page.wait_for_function(f"name => ({path})() === name", arg=f"notebooks/{beside[-1]}.ipynb")
    # the kernel of the other notebook has put its version into it: it is not to be saved
    close = "() => { const one = jupyterapp.shell.currentWidget; one.context.model.dirty = false; one.close(); }"
    notebook.page.evaluate(close)
    notebook.page.wait_for_function(f"name => ({path})() === name", arg=f"notebooks/{notebook.name}.ipynb")


@pytest.fixture(scope="module")
def solved(lab):
    """A folder of the copy with the solved notebooks."""
    shutil.copytree(ROOT / "solutions", lab.course / "solved")
    return "solved"


@pytest.mark.parametrize("folder", ["solved", "kaggle"])
@pytest.mark.parametrize("name", OPENED)
def test_solved_and_stand_alone_notebooks_show_every_picture(window, lab, solved, name, folder):
    notebook = Notebook(window, lab, name, folder)
    try:
        pictures = notebook.measured(PICTURES)
        content = nbformat.read(lab.course / folder / f"{name}.ipynb", as_version=4)
        texts = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
        assert len(pictures) >= texts.count("![") and all(picture["colours"] > 2 for picture in pictures)
    finally:
        notebook.close()


# --- and nothing else happened ----------------------------------------------------------------------------------------


def test_nothing_outside_this_computer_was_asked_and_the_console_has_no_error(notebook, lab):
    assert notebook.notes.outside == []
    assert notebook.notes.errors == []
    assert lab.outside_requests() == []


def test_server_and_kernel_listen_on_this_computer_only(notebook, lab):
    connections = [one for process in lab.processes() for one in process.net_connections(kind="inet")]
    listening = {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


# --- faults are noticed -----------------------------------------------------------------------------------------------


@pytest.fixture
def faulty_page():
    """The address of a page on this computer that wants something from elsewhere, complains and breaks."""
    content = b"""<!DOCTYPE html><title>Faulty</title><img src="http://outside.example/name.png">
        <img src="http://192.0.2.1/address.png"><script>
        new WebSocket("ws://outside.example/socket"); console.error("a complaint"); console.log("no complaint");
        throw new Error("broken");</script>"""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_requests_to_the_outside_and_errors_of_a_page_are_noted(window, faulty_page):
    page = window.new_page()
    notes = Notes(page)
    page.goto(faulty_page)
    page.wait_for_load_state("networkidle")
    page.close()
    assert sorted(notes.outside) == [
        "http://192.0.2.1/address.png", "http://outside.example/name.png", "ws://outside.example/socket",
    ]  # fmt: skip
    for error in ("a complaint", "broken", "ERR_NAME_NOT_RESOLVED (http://192.0.2.1/address.png)"):
        assert any(error in one for one in notes.errors), error
    assert not any("no complaint" in one for one in notes.errors)


FAULTS = """\
import os, time, urllib.request
from IPython.display import HTML, Javascript, display
os.environ["OUTSIDE_REQUESTS"] = "requests.txt"
try:
    urllib.request.urlopen("http://outside.example/")
except OSError as error:
    print(error)
display(HTML('<img src="http://outside.example/picture.png">'), Javascript('console.error("a complaint")'))
time.sleep(2)  # a kernel drops only those cells that already wait when one fails
1 / 0"""


def test_faults_of_a_notebook_are_noted(window, lab):
    cells = [nbformat.v4.new_code_cell(source) for source in (FAULTS, "'never reached'")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    file = lab.course / "notebooks" / "faulty.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), file)
    notebook = Notebook(window, lab, "faulty")
    try:
        notebook.run_all()
        assert notebook.errors() == ["ZeroDivisionError: division by zero"]
        assert [cell["count"] for cell in notebook.cells()] == [1, None]
        notebook.wait_until(lambda: len(notebook.notes.errors) >= 2)
        assert set(notebook.notes.outside) == {"http://outside.example/picture.png"}
        assert any("a complaint" in error for error in notebook.notes.errors)
        asked = (lab.course / "notebooks" / "requests.txt").read_text()
        assert asked == "socket.getaddrinfo outside.example\n"
    finally:
        notebook.close()


# --- the end, and no beginning ----------------------------------------------------------------------------------------


def test_ended_it_leaves_no_process(lab):
    assert len(lab.processes()) >= 2
    assert lab.stop() == []
    assert lab.processes() == []


@pytest.fixture
def no_chromium(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("COURSE_CHROMIUM", "COURSE_BROWSER"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_a_chromium_the_tests_are_skipped_and_say_what_to_do(no_chromium):
    with pytest.raises(pytest.skip.Exception, match="there is no Chromium: install one .* or set COURSE_CHROMIUM"):
        find_chromium()


def test_a_chromium_that_is_named_but_not_there_is_told(no_chromium):
    no_chromium.setenv("COURSE_CHROMIUM", "/nowhere/chromium")
    with pytest.raises(pytest.skip.Exception, match="COURSE_CHROMIUM names /nowhere/chromium, which is not a program"):
        find_chromium()


def test_where_the_browser_is_required_its_lack_is_a_failure(no_chromium):
    no_chromium.setenv("COURSE_BROWSER", "required")
    with pytest.raises(pytest.fail.Exception, match="there is no Chromium: install one"):
        find_chromium()


def test_the_chromium_that_is_named_is_taken(no_chromium, tmp_path):
    program = tmp_path / "my-browser"
    program.touch(mode=0o755)
    no_chromium.setenv("COURSE_CHROMIUM", str(program))
    assert find_chromium() == str(program)
