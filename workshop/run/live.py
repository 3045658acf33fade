"""Live lines for what runs, drawn anew on a terminal: one for each notebook, or one for an image."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Collection
from typing import TextIO


def can_redraw(stream: TextIO) -> bool:
    """Whether lines on this stream can be drawn again: it is a terminal that knows how to move the cursor."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    if os.name == "nt":
        os.system("")  # switches the control sequences of a Windows console on
    return True


class LiveLines:
    """Takes the lines of a run. That a notebook starts or runs a cell replaces what it said before; all else stays."""

    def __init__(self, names: Collection[str], stream: TextIO | None = None):
        self.names = names
        self.stream = stream or sys.stdout
        self.running: dict[str, str] = {}  # name -> its line, in the order in which they are drawn

    def __call__(self, line: str) -> None:
        name, _, rest = line.partition("  ")
        text = f"\x1b[{len(self.running)}A\x1b[J" if self.running else ""  # up, and erase from there
        if name in self.names and rest.startswith(("starts", "cell ")):
            self.running[name] = line
        else:
            self.running.pop(name, None)
            text += f"{line}\n"
        width = shutil.get_terminal_size().columns - 1  # a line that wraps would be two
        self.stream.write(text + "".join(f"{one[:width]}\n" for one in self.running.values()))
        self.stream.flush()


class Progress:
    """A line for each image with the time left; on a terminal also while it is segmented."""

    def __init__(self, sizes: list[int], stream: TextIO | None = None):
        self.sizes, self.stream = sizes, stream or sys.stdout
        self.finished, self.start = 0, time.monotonic()
        self.redraw = can_redraw(self.stream)

    def tile(self, name: str) -> Callable[[int, int], None]:
        """For `segment_image`: called with the number of finished tiles and of all."""

        def show(done: int, of: int) -> None:
            if self.redraw:
                width = shutil.get_terminal_size().columns - 1
                line = f"[{self.finished + 1} of {len(self.sizes)}] {name}: tile {done} of {of}{self.left(done / of)}"
                self.stream.write(f"\r\x1b[K{line[:width]}")
                self.stream.flush()

        return show

    def done(self, text: str) -> None:
        """An image is finished."""
        self.finished += 1
        line = f"[{self.finished} of {len(self.sizes)}] {text}{self.left()}"
        self.stream.write(f"\r\x1b[K{line}\n" if self.redraw else f"{line}\n")
        self.stream.flush()

    def left(self, part: float = 0.0) -> str:
        """The time left, by the sizes of the images."""
        done = sum(self.sizes[: self.finished]) + part * sum(self.sizes[self.finished : self.finished + 1])
        if not done or self.finished == len(self.sizes):
            return ""
        seconds = (time.monotonic() - self.start) * (sum(self.sizes) / done - 1)
        return f"; {seconds:.0f} s left" if seconds < 100 else f"; {seconds / 60:.0f} min left"
