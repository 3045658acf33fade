"""The parts of a page that need no kernel, in a real browser: the disc that is dragged, the frames that are played."""

from __future__ import annotations

import base64
import io

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from lab_in_browser import Notes, browser_window
from pages_in_browser import AXE
from PIL import Image
from playwright.sync_api import expect

from course_utils import display
from course_utils.widgets import explore_iou


@pytest.fixture(scope="module")
def window():
    with browser_window() as window:
        window.set_default_timeout(60_000)
        yield window


@pytest.fixture
def opened(window):
    """A page with such a part, which keeps its keys to itself, has no serious fault, and leaves the console empty."""
    page = window.new_page()
    notes = Notes(page)

    def open_part(content: str):
        page.set_content(f"<html lang=en><title>A part</title><main><h1>A part</h1>{content}</main>")
        page.evaluate("() => { document.onkeydown = event => { window.heard = event.key; }; }")
        page.evaluate(AXE_SCRIPT)
        assert page.evaluate(AXE) == []
        return page

    yield open_part
    assert page.evaluate("window.heard") is None
    assert notes.errors == [] and notes.outside == []
    page.close()


def drag_with_mouse(page, x, y, by):
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by / 2, y)
    page.mouse.move(x + by, y)
    page.mouse.up()
    page.mouse.move(x, y)  # the disc stays where it was left


def drag_with_finger(page, x, y, by):
    touch = page.context.new_cdp_session(page)
    for kind, place in [("Start", x), ("Move", x + by), ("End", None)]:
        points = [] if place is None else [{"x": place, "y": y}]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})


@pytest.mark.parametrize("drag", [drag_with_mouse, drag_with_finger])
def test_the_disc_is_dragged_and_the_match_flips(opened, drag):
    page = opened(explore_iou(0.5).data)
    disc, text = page.locator("circle").nth(1), page.locator("div[data-place] > div")
    expect(text).to_contain_text("a match, one TP")
    box, (solid, _) = disc.bounding_box(), [one.bounding_box() for one in page.locator("circle").all()]
    x, y, width = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"]
    drag(page, x, y, 0.5 * width)
    expect(text).to_contain_text("no match, one FP and one FN")
    moved = disc.bounding_box()["x"] - solid["x"]
    assert moved == pytest.approx(box["x"] - solid["x"] + 0.5 * width, abs=2)
    assert page.locator("svg").get_attribute("aria-label").endswith(text.text_content())
    drag(page, x + 0.5 * width, y, -0.6 * width)
    expect(text).to_contain_text("a match, one TP")


def test_the_disc_is_moved_by_keys(opened):
    page = opened(explore_iou(0.5).data)
    slider, text = page.get_by_label("distance of the centres"), page.locator("div[data-place] > div")
    slider.focus()
    page.keyboard.press("End")
    expect(text).to_contain_text("0 % of each disc is shared. IoU 0.00")
    page.keyboard.press("Home")
    expect(text).to_contain_text("100 % of each disc is shared. IoU 1.00")
    assert slider.get_attribute("aria-valuetext") == text.text_content()


def player(colours: list[str]) -> str:
    frames = []
    for colour in colours:
        Image.new("RGB", (60, 40), colour).save(file := io.BytesIO(), "png")
        frames.append(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}")
    return display.script_as_html(display.FRAMES_SCRIPT, {"frames": frames, "labels": colours, "caption": "Colours."})


def test_frames_are_played_to_the_last_one_and_chosen_by_keys(opened):
    page = opened(player(["red", "green", "blue"]))
    button, picture, slider = page.locator("button"), page.locator("img"), page.get_by_label("Frame. Colours.")
    assert picture.get_attribute("alt") == "1 of 3: red"
    first = picture.get_attribute("src")
    button.click()
    expect(button).to_have_text("⏸ Pause")
    expect(page.locator("span")).to_have_text("3 of 3: blue")
    expect(button).to_have_text("▶ Play")  # it stops there
    assert picture.get_attribute("src") != first and slider.input_value() == "2"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert picture.get_attribute("alt") == slider.get_attribute("aria-valuetext") == "2 of 3: green"


def test_for_those_who_want_no_motion_frames_are_shown_one_at_a_time(opened, window):
    window.pages[-1].emulate_media(reduced_motion="reduce")
    page = opened(player(["red", "green"]))
    button, text = page.locator("button"), page.locator("span")
    for expected in ("2 of 2: green", "1 of 2: red"):
        assert button.text_content() == "Next"
        button.click()
        assert text.text_content() == expected
