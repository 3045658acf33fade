"""One live line for each notebook that runs, drawn anew on a terminal while it runs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection
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
