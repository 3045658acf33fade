"""A page about the whole class: what fails most, which messages are common, who needs help."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from course_utils.exercises import list_exercises
from workshop.grade.report.page import look_of, text, write_page
from workshop.grade.report.points import Total
from workshop.grade.report.table import SYMBOLS, Row, best_rows
from workshop.grade.spreadsheets import cell

MAX_SHOWN = 15  # lines of the most common messages, and of who may need help before the others are folded
HELP_BELOW = 50  # percent of the points
STYLE = """
main { max-width: 96rem; }
.class th, .class td { padding: 0 .3rem; border: 0; text-align: center; line-height: 1.35; }
.class td { color: #fff; min-width: 1rem; }
.class th:first-child { text-align: left; max-width: 14rem; overflow: hidden; text-overflow: ellipsis; }
.class th, .class td.number { white-space: nowrap; font-weight: normal; }
.class td.number { color: inherit; }
.many { font-size: .7rem; }
.bar { display: flex; height: 1.2rem; min-width: 12rem; }
.c-passed { background: #00664A; } .c-failed { background: #D55E00; } .c-todo { background: #56B4E9; }
.class td.c-failed, .class td.c-todo, .class td.c-broken { color: #000; }
.c-broken { background: #CC79A7; } .c- { background: var(--soft); }
"""


def write_overview(
    path: Path, rows: Sequence[Row], totals: Mapping[str, Total], late: Collection[str] = (),
    missing: Collection[str] = (),
) -> None:  # fmt: skip
    """Write the page of the class.

    Args:
        path: the page.
        rows: with points.
        totals: of each student.
        late: files that were handed in late.
        missing: students on the roster who handed in nothing.
    """
    best = best_rows(rows)
    ids = [exercise.id for exercise in list_exercises() if any(exercise.id == id_ for _, id_ in best)]
    students = sorted(totals, key=lambda student: (-totals[student].points, student))
    graded = [student for student in students if any((student, id_) in best for id_ in ids)]
    mean = sum(totals[student].percent for student in graded) / len(graded) if graded else 0
    parts = [
        f"<p>{len(graded)} of {len(students)} students have a graded notebook; on average they have {mean:.0f} % of "
        f"the points. {_legend()}</p>",
        _exercises(ids, best, len(graded)),
        _messages(best),
        _help(graded, totals, best, ids),
        _lists(rows, late, missing),
        _picture(graded, ids, best, totals),
    ]
    write_page(path, "The class", "\n".join(parts), STYLE)


def _legend() -> str:
    states = (f'<span class="c-{status}" style="padding: 0 .5em"></span> {look_of(status)[0]} {look_of(status)[1]}'
              for status in SYMBOLS)  # fmt: skip
    return "Colours: " + ", ".join(states) + "; empty: not handed in."


def _exercises(ids: Sequence[str], best: Mapping[tuple[str, str], Row], n_students: int) -> str:
    """The exercises, that which fails most often first."""
    counts = {id_: Counter(row.status for (_, exercise), row in best.items() if exercise == id_) for id_ in ids}
    names = {exercise.id: exercise.title for exercise in list_exercises()}
    order = sorted(ids, key=lambda id_: (-(counts[id_]["failed"] + counts[id_]["broken"]), ids.index(id_)))
    lines = []
    for id_ in order:
        shares = [(status, counts[id_][status]) for status in SYMBOLS if counts[id_][status]]
        bar = "".join(f'<span class="c-{status}" style="flex: {n}"></span>' for status, n in shares)
        left = n_students - counts[id_].total()
        bar += f'<span class="c-" style="flex: {left}"></span>' if left > 0 else ""
        numbers = "".join(f'<td class="number">{counts[id_][status]}</td>' for status in SYMBOLS)
        lines.append(
            f'<tr><th scope="row">{id_} {text(names[id_])}</th>{numbers}<td><div class="bar">{bar}</div></td></tr>'
        )
    head = "".join(f'<th scope="col">{look_of(status)[1]}</th>' for status in SYMBOLS)
    return _table("What fails most", f'<th scope="col">exercise</th>{head}<th scope="col">class</th>', lines)


def _table(title: str, head: str, lines: Sequence[str], kind: str = "") -> str:
    body = "\n".join(lines)
    scrolls = f'<div class="wide" tabindex="0" role="group" aria-label="{title or "More"}">'  # also from the keyboard
    return (
        f'{title and f"<h2>{title}</h2>"}{scrolls}<table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def folded(message: str) -> str:
    """A message without what differs from student to student: numbers, quoted text, places.

    >>> folded("Value of the mean: found 3.25, expected -1e-05. Look at 'x'.")
    "Value of the mean: found #, expected #. Look at '...'."
    """
    message = re.sub(r"'[^']*'|\"[^\"]*\"", lambda quoted: quoted[0][0] + "..." + quoted[0][-1], message)
    message = re.sub(r"(?<![\w.])[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", message)
    return re.sub(r"([\[(])#(, ?#)*,?([\])])", r"\1#\3", message)


def _messages(best: Mapping[tuple[str, str], Row]) -> str:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in best.values():
        if row.status in ("failed", "broken") and row.message:
            groups.setdefault((row.exercise, folded(row.message)), []).append(row)
    order = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:MAX_SHOWN]
    lines = [
        f'<tr><td class="number">{len(some)}</td><th scope="row">{id_}</th><td>{text(some[0].message[:300])}</td></tr>'
        for (id_, _), some in order
    ]
    head = '<th scope="col">students</th><th scope="col">exercise</th><th scope="col">message (of one of them)</th>'
    return _table("The most common messages", head, lines) if lines else ""


def _help(
    graded: Sequence[str], totals: Mapping[str, Total], best: Mapping[tuple[str, str], Row], ids: Sequence[str]
) -> str:
    """Who has few points, or fails what most of the class passes."""
    passed = Counter(exercise for (_, exercise), row in best.items() if row.status == "passed")
    easy = [id_ for id_ in ids if passed[id_] > 0.75 * len(graded)]
    lines = []
    for student in reversed(graded):
        failed = [id_ for id_ in easy if (row := best.get((student, id_))) and row.status != "passed"]
        if totals[student].percent < HELP_BELOW or len(failed) > 2:
            lines.append(
                f'<tr><th scope="row">{text(student)}</th><td class="number">{totals[student].percent:.0f} %</td>'
                f"<td>{', '.join(failed)}</td></tr>"
            )
    head = '<th scope="col">student</th><th scope="col">points</th><th scope="col">not right, but right for most</th>'
    more = f"<details><summary>{len(lines) - MAX_SHOWN} more</summary>{_table('', head, lines[MAX_SHOWN:])}</details>"
    return (_table("Who may need help", head, lines[:MAX_SHOWN]) + more * (len(lines) > MAX_SHOWN)) * bool(lines)


def _lists(rows: Sequence[Row], late: Collection[str], missing: Collection[str]) -> str:
    """Who handed in nothing, what is late, what could not be graded, and where a person should look."""
    found = ""
    for title, lines in (
        ("Handed in nothing", [text(student) for student in sorted(missing)]),
        ("Late", sorted({f"{text(row.student)}: {text(row.file)}" for row in rows if row.file in late})),
        ("To look at", [f"{text(row.student)}, {row.exercise}: {text(row.look)}" for row in rows if row.look]),
        ("Not graded", [f"{text(row.student)}, {text(row.file)}: {text(row.message[:300])}" for row in rows
                        if not row.exercise and row.student not in missing]),
    ):  # fmt: skip
        if lines:
            items = "".join(f"<li>{line}</li>" for line in lines)
            found += f"<details><summary><strong>{title}: {len(lines)}</strong></summary><ul>{items}</ul></details>"
    return found and f"<h2>Lists</h2>{found}"


def _picture(
    graded: Sequence[str], ids: Sequence[str], best: Mapping[tuple[str, str], Row], totals: Mapping[str, Total]
) -> str:
    """Students by exercises, those with most points first."""
    lines = []
    for student in graded:
        cells = []
        for id_ in ids:
            status = best[student, id_].status if (student, id_) in best else ""
            cells.append(f'<td class="c-{status}">{look_of(status)[0] if status else ""}</td>')
        total = f'<td class="number">{cell(totals[student].points)}</td>'
        lines.append(f'<tr><th scope="row">{text(student)}</th>{"".join(cells)}{total}</tr>')
    head = "".join(f'<th scope="col">{id_}</th>' for id_ in ids)
    most = f" of {cell(totals[graded[0]].out_of)}" if graded else ""
    head = f'<th scope="col">student</th>{head}<th scope="col">points{most}</th>'
    return _table("Progress", head, lines, "class many" if len(graded) > 40 else "class")
