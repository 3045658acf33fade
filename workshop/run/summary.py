"""The results of a run: summary.json, and the table for people."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from course_utils.results import replacing
from workshop.run.machine import now, versions


@dataclass
class NotebookResult:
    """The result of one notebook. `error` is a text for people, empty if the notebook passed.

    `memory_mb` is the peak of `workshop.run.kernel.PeakMemory`, None if it was not measured.
    """

    notebook: str
    status: str
    seconds: float
    scores: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    date: str = ""
    memory_mb: int | None = None


def write_summary(folder: Path, results: list[NotebookResult], facts: dict[str, Any]) -> None:
    """Write summary.json, and the table as summary.md (for example, for the page of a workflow).

    Notebooks of an earlier run into the same folder stay in it, each with its own date.
    """
    path = folder / "summary.json"
    earlier = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        earlier = json.loads(path.read_text(encoding="utf-8"))["notebooks"]
    entries = {entry["notebook"]: entry for entry in earlier} | {one.notebook: asdict(one) for one in results}
    summary = {"date": now(), **facts, "versions": versions(), "notebooks": [entries[key] for key in sorted(entries)]}
    with replacing(path) as file:
        file.write((json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())
    table = format_table([NotebookResult(**entry) for entry in summary["notebooks"]])
    about = [f"* {name}: {value}" for name, value in facts.items() if not isinstance(value, dict)]
    text = "\n".join(["## Executed notebooks", "", *about, "", "```", *table, "```", ""])
    path.with_suffix(".md").write_text(text, encoding="utf-8")


def format_table(results: list[NotebookResult]) -> list[str]:
    """The lines of a table for people: notebook, result, seconds and peak of the memory, then each notebook's scores.

    Scores that are numbers take one line each; groups of scores (one for each method) stand side by side.
    """
    width = max([len("notebook"), *(len(result.notebook) for result in results)])
    lines = [f"{'notebook':{width}}  result   seconds  memory MB", f"{'-' * width}  ------  --------  ---------"]
    for result in results:
        memory = "-" if result.memory_mb is None else f"{result.memory_mb:,}"
        lines.append(f"{result.notebook:{width}}  {result.status}  {result.seconds:8.1f}  {memory:>9}")
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
    """A column for each group, a row for each score, nested ones as in "mean_f1, 0.5"."""
    import pandas as pd

    if not groups:
        return []
    table = pd.json_normalize(list(groups.values()), sep=", ").astype(object).map(_number).set_axis(list(groups)).T
    return [f"  {line}" for line in table.to_string(max_cols=None, line_width=None).splitlines()]


def _number(value: Any) -> str:
    if value != value:  # not a number: a score that this group does not have
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
