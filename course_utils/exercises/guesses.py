"""Predict, then run: a guess is made and kept before the cell that computes the number, which is then compared with it.

A guess is kept in the record of `progress` and outlives the kernel. Where nobody can answer ("Run all" without a front
end, a page without a kernel) the question stands as text, and the measurement can be unfolded.
"""

from __future__ import annotations

import html
import math
import numbers
from collections.abc import Sequence
from typing import Any

from course_utils import display
from course_utils.exercises import progress

BLUE, ORANGE = "#0072B2", "#E69F00"

_asked: dict[str, dict] = {}  # the questions of this kernel
_shown: dict[str, tuple] = {}  # its comparisons, to be updated in place
_unwritten: dict[str, Any] = {}  # guesses that the record could not take


def ask(
    name: str, question: str, low: float | None = None, high: float | None = None, step: float | None = None,
    options: Sequence[str] = (), unit: str = "",
) -> None:  # fmt: skip
    """Ask for a guess: with a slider from `low` to `high`, or with a choice of `options`.

    Args:
        name: of the guess in the record, such as "01 exact target". `compare` gets the same one.
        question: as text.
        step: of the slider, whose numbers are whole if `low`, `high` and `step` are; without it 1, or a hundredth.
        unit: as in "pixels".

    Raises:
        ValueError: neither a range nor at least two options.
    """
    if len(options) < 2 and (low is None or high is None or not low < high):
        raise ValueError(f"A guess needs low < high or at least two options; found low {low}, high {high}, {options=}.")
    _asked[name] = {"low": low, "high": high, "options": list(options), "unit": unit}
    choices = ", ".join(options) or f"{_text(low)} to {_text(high, unit)}"
    box = display.framed(f"<strong>Predict:</strong> {html.escape(question)}", BLUE)
    display.show_box(box, f"Predict: {question} ({choices})")
    if display.in_notebook():
        from IPython.display import display as show

        show(_controls(name, step))


def _controls(name: str, step: float | None) -> Any:
    """The slider or the choice, and the button that keeps the guess."""
    from ipywidgets import HTML, Button, FloatSlider, HBox, IntSlider, RadioButtons, VBox

    low, high, options, unit = _asked[name].values()
    guess = _guess(name)
    if options:
        control = RadioButtons(options=options, value=guess, layout={"width": "auto"})
    else:
        whole = all(isinstance(value, numbers.Integral) for value in (low, high, step or 1))
        control = (IntSlider if whole else FloatSlider)(
            (low + high) // 2 if whole else (low + high) / 2, min=low, max=high, description=unit or "guess",
            step=step or (1 if whole else (high - low) / 100), layout={"width": "min(32em, 95%)"},
            style={"handle_color": BLUE},  # by default white, and invisible on a white page
        )  # fmt: skip
        control.value = control.value if guess is None else guess
    button, said = Button(description="This is my guess", button_style="primary"), HTML()

    def keep(*_):
        if control.value is None:
            said.value = "Choose one first."
            return
        _unwritten.pop(name, None)
        if progress.note_guess(name, control.value):
            tell()
        else:
            _unwritten[name] = control.value
            tell(f" Kept until the kernel stops: {progress.record_file()} cannot be written.")
        if name in _shown:
            handle, *comparison = _shown[name]
            handle.update(_comparison(name, *comparison), raw=True)

    def tell(more=""):
        said.value = html.escape(f"✔ Your guess: {_text(_guess(name), unit)}.{more}")

    button.on_click(keep)
    if guess is not None:
        tell()
    return VBox([control, HBox([button, said], layout={"flex_flow": "row wrap"})])


def compare(name: str, measured: Any, note: str = "", table: Any = None) -> None:
    """Show the measurement beside the guess; it is folded until there is a guess.

    Args:
        name: as in `ask`.
        measured: the number, or the option that is right.
        note: a sentence that is shown with the measurement.
        table: the `style` of a data frame, which is shown and folded with it, since it tells the answer.
    """
    content = _comparison(name, measured, note, table)
    if not display.in_notebook():
        print(content["text/plain"])
        return
    from IPython.display import display as show

    _shown[name] = show(content, raw=True, display_id=True), measured, note, table


def _guess(name: str) -> Any:
    """The guess; None if there is none, or none that fits the question as it is asked now."""
    guess, asked = _unwritten.get(name, progress.guesses().get(name)), _asked.get(name)
    if asked is None:
        return guess if isinstance(guess, str) or _is_number(guess) else None
    fits = guess in asked["options"] or (_is_number(guess) and not asked["options"])
    return guess if fits and (asked["options"] or asked["low"] <= guess <= asked["high"]) else None


def _comparison(name: str, measured: Any, note: str, table: Any) -> dict[str, str]:
    """Guess and measurement as HTML and as plain text."""
    guess, asked = _guess(name), _asked.get(name, {})
    unit = asked.get("unit", "")
    found = f"Measured: {_text(measured, unit)}. {note}".strip()
    rows, text = (f"<div>{table.to_html()}</div>", f"\n{table.data.round(3)}") if table is not None else ("", "")
    if guess is None or _is_number(guess) != _is_number(measured):
        summary = "<summary>Guess first, then unfold: the measurement</summary>"
        box = display.framed(f"<details>{summary}<div>{html.escape(found)}</div>{rows}</details>", BLUE)
        return {"text/html": box, "text/plain": found + text}
    verdict, line = "Your guess is right.", ""
    if _is_number(measured) and _text(guess) != _text(measured):
        verdict = f"Your guess is {_text(abs(guess - measured), unit)} too {'high' if guess > measured else 'low'}."
    elif guess != measured and not _is_number(measured):
        verdict = "Your guess is wrong."
    if _is_number(measured):
        line = _number_line(guess, measured, [asked.get("low", guess), asked.get("high", guess), guess, measured])
    sentence = f"You guessed {_text(guess, unit)}. {verdict} {found}"
    box = display.framed(f"<div>{html.escape(sentence)}</div>{line}{rows}", BLUE)
    return {"text/html": box, "text/plain": sentence + text}


def _number_line(guess: float, measured: float, shown: list[float]) -> str:
    """A line with the guess above it and the measurement below; the sentence beside it says the same."""
    low, high = min(shown), max(shown)
    if not all(map(math.isfinite, shown)) or low == high:
        return ""

    def place(value):
        return round(10 + 380 * (value - low) / (high - low))

    def text(value, y, word=""):
        anchor = "start" if place(value) < 60 else "end" if place(value) > 340 else "middle"
        return f'<text x="{place(value)}" y="{y}" text-anchor="{anchor}">{word}{_text(value)}</text>'

    return (
        '<svg viewBox="0 0 400 78" style="width: 100%; max-width: 36em; font-size: 13px;" fill="currentColor" '
        'stroke-width="0.8" aria-hidden="true"><path d="M10 27v10M10 32h380M390 27v10" stroke="currentColor"></path>'
        f'<path d="M{place(guess)} 29l-7 -12h14z" fill="{ORANGE}" stroke="currentColor"></path>'
        f'<circle cx="{place(measured)}" cy="32" r="6" fill="{BLUE}" stroke="currentColor"></circle>'
        f"{text(guess, 12, 'you: ')}{text(measured, 54, 'measured: ')}{text(low, 74)}{text(high, 74)}</svg>"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _text(value: Any, unit: str = "") -> str:
    """With a number in few digits: 0.901, 140 pixels, 31,030,593."""
    if not _is_number(value):
        return str(value)
    few = f"{value:,}" if isinstance(value, numbers.Integral) else f"{value:,.0f}" if value > 999 else f"{value:.3g}"
    return f"{few} {unit}".strip()
