'''What an exercise is expected to give, computed by the build with the course's own solutions.

In a text cell an author writes a snippet instead of its result:

    ```python expected
    count_shapes([np.zeros((2, 3)), np.zeros((4, 4)), np.zeros((2, 3))])
    ```

The notebook shows the snippet, and below it what it prints and the value of its last expression. `hidden` leaves the
snippet out. If the last value is a matplotlib figure, it becomes a picture, which needs an alternative text:

    ```python expected hidden alt="Five crops of one image, with the same crops of its mask below."
    figure, axes = plotting.grid(2, 5, width=2)
    ...
    figure
    ```

A snippet knows `np`, `torch`, `plt`, `plotting` and every public name of `course_utils`; it may import more. Random
numbers start from the same seed every time.
'''

from __future__ import annotations

import ast
import base64
import contextlib
import functools
import io
import random
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_PICTURE_BYTES = 150_000
DPI = 80

_SNIPPET = re.compile(r"^```python expected(?P<options>[^\n]*)\n(?P<code>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_OPTIONS = re.compile(r'(?P<hidden> hidden)?( alt="(?P<alt>[^"]+)")?')


class ExpectedError(ValueError):
    """A snippet has a fault, or does not give anything. `row` is the row of the text it was found in, from 0."""

    def __init__(self, row: int, reason: str):
        self.row = row
        super().__init__(reason)


@dataclass(frozen=True)
class Snippet:
    """One snippet of a text, with the row (from 0) of its first line of code."""

    code: str
    hidden: bool
    alt: str | None
    row: int
    start: int
    end: int


def find_snippets(text: str) -> Iterator[Snippet]:
    """The snippets of a text. Raises `ExpectedError` for options that are unknown."""
    for match in _SNIPPET.finditer(text):
        row = text.count("\n", 0, match.start())
        options = _OPTIONS.fullmatch(match["options"].rstrip())
        if options is None:
            raise ExpectedError(row, f"{match['options']!r} cannot be read; after expected stand: hidden alt=\"...\"")
        yield Snippet(match["code"], options["hidden"] is not None, options["alt"], row + 1, *match.span())


def fill_in(text: str, place: Callable[[bytes, str], str]) -> str:
    """The text with every snippet replaced by what is shown for it.

    Args:
        text: Markdown of a cell.
        place: takes a picture (PNG) and its alternative text, and returns the Markdown that shows it.

    Raises:
        ExpectedError: a snippet fails, gives nothing, or a picture lacks its alternative text or is too large.
    """
    parts, done = [], 0
    for snippet in find_snippets(text):
        try:
            printed, picture = _run(snippet.code)
        except Exception as error:
            reason = f"the expected result cannot be computed: {type(error).__name__}: {error}"
            raise ExpectedError(snippet.row + max(_row_of(error) - 1, 0), reason) from error
        shown = [] if snippet.hidden else [f"```python\n{snippet.code.rstrip()}\n```"]
        shown += [f"```text\n{printed}\n```"] if printed else []
        if picture is not None:
            if not snippet.alt:
                raise ExpectedError(snippet.row - 1, 'a picture without alt text; add alt="..." after expected.')
            if len(picture) > MAX_PICTURE_BYTES:
                size = f"{len(picture) // 1000} kB, {MAX_PICTURE_BYTES // 1000} kB are allowed"
                raise ExpectedError(snippet.row - 1, f"an expected picture of {size}; make it smaller.")
            shown.append(place(picture, snippet.alt))
        elif snippet.alt:
            raise ExpectedError(snippet.row - 1, "alt text, but the snippet does not end with a figure.")
        elif not printed:
            raise ExpectedError(snippet.row - 1, "the expected result is empty: print it or end with an expression.")
        parts += [text[done : snippet.start], "\n\n".join(shown)]
        done = snippet.end
    return "".join([*parts, text[done:]])


def as_data_address(picture: bytes, alt: str) -> str:
    """Markdown that holds the picture itself, for places that show no attachments (Colab)."""
    return f"![{alt}](data:image/png;base64,{base64.b64encode(picture).decode()})"


@functools.cache
def _run(code: str) -> tuple[str, bytes | None]:
    """What a snippet prints and evaluates to: (text, PNG or None)."""
    import matplotlib
    import matplotlib.pyplot as plt
    import numpy as np
    import torch
    from matplotlib.figure import Figure

    import course_utils
    from course_utils import plotting
    from course_utils.exercises.sandbox import preserved_state

    tree = ast.parse(code)
    last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    names = {name: getattr(course_utils, name) for name in sorted(used & set(course_utils.modules_by_name()))}
    names |= {"np": np, "torch": torch, "plt": plt, "plotting": plotting, "__name__": "expected"}
    plt.switch_backend("agg")
    printed = io.StringIO()
    with preserved_state(), matplotlib.rc_context(), contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        plotting.use_course_style()
        torch.manual_seed(0)
        random.seed(0)
        torch.set_num_threads(1)  # the order of additions, and with it the last digits, depends on the threads
        exec(compile(tree, "expected", "exec"), names)
        value = eval(compile(last, "expected", "eval"), names) if last is not None else None
        picture = None
        if isinstance(value, Figure):
            buffer = io.BytesIO()
            value.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
            picture = buffer.getvalue()
        elif value is not None:
            print(repr(value))
        plt.close("all")
    return printed.getvalue().rstrip(), picture


def _row_of(error: BaseException) -> int:
    """The line of the snippet in which an error came up, from 1; 0 if it is not known."""
    if isinstance(error, SyntaxError):
        return error.lineno or 0
    rows, traceback = [0], error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "expected":
            rows.append(traceback.tb_lineno)
        traceback = traceback.tb_next
    return rows[-1]
