"""What an exercise is expected to give, computed by the build with the course's own solutions.

In a text cell an author writes a snippet instead of its result:

    ```python expected
    count_shapes([np.zeros((2, 3)), np.zeros((4, 4)), np.zeros((2, 3))])
    ```

The notebook shows the snippet, and below it what it prints and the value of its last expression; a matplotlib figure
becomes a picture. After the word `expected`, ` hidden` leaves the snippet out, and ` alt="Five crops of one image."` is
the alternative text of the picture.

A snippet knows `np`, `torch`, `plt`, `plotting` and every public name of `course_utils`; it may import more. Random
numbers start from the same seed every time.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import io
import random
import re
import traceback
import warnings

MAX_PICTURE_BYTES = 150_000
DPI = 80

SNIPPET = re.compile(r"^```python expected(?P<options>[^\n]*)\n(?P<code>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_OPTIONS = re.compile(r'(?P<hidden> hidden)?( alt="(?P<alt>[^"]+)")?')


class ExpectedError(ValueError):
    """A snippet has a fault, or does not give anything. `row` is the row of the text it was found in, from 0."""

    def __init__(self, row: int, reason: str):
        self.row = row
        super().__init__(reason)


def fill_in(text: str) -> tuple[str, dict[str, bytes]]:
    """The text of a cell with every snippet replaced by its result, and the pictures (PNG) to attach, by name.

    The name of a picture is a hash of its snippet. Raises `ExpectedError` for a snippet that has unknown options, fails
    or gives nothing, and for a picture that has no alternative text or is too large.
    """
    pictures: dict[str, bytes] = {}

    def result(match: re.Match) -> str:
        row = text.count("\n", 0, match.start())
        options = _OPTIONS.fullmatch(match["options"].rstrip())
        if options is None:
            raise ExpectedError(row, f'{match["options"]!r} cannot be read; write: expected hidden alt="..."')
        try:
            printed, picture = _run(match["code"])
        except Exception as error:
            reason = f"the expected result cannot be computed: {type(error).__name__}: {error}"
            raise ExpectedError(row + max(_row_of(error), 1), reason) from error
        shown = [] if options["hidden"] else [f"```python\n{match['code'].rstrip()}\n```"]
        shown += [f"```text\n{printed}\n```"] if printed else []
        if picture is not None:
            if not options["alt"]:
                raise ExpectedError(row, 'a picture without alt text; add alt="..." after expected.')
            if len(picture) > MAX_PICTURE_BYTES:
                raise ExpectedError(row, f"a picture of more than {MAX_PICTURE_BYTES // 1000} kB; make it smaller.")
            name = f"expected-{hashlib.sha256(match[0].encode()).hexdigest()[:8]}.png"
            pictures[name] = picture
            shown.append(f"![{options['alt']}](attachment:{name})")
        elif options["alt"]:
            raise ExpectedError(row, "alt text, but the snippet does not end with a figure.")
        elif not printed:
            raise ExpectedError(row, "the expected result is empty: print it or end with an expression.")
        return "\n\n".join(shown)

    return SNIPPET.sub(result, text), pictures


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
    """The line of the snippet that raised an error, from 1; 0 if it is not known."""
    if isinstance(error, SyntaxError):
        return error.lineno or 0
    rows = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "expected"]
    return rows[-1] if rows else 0
