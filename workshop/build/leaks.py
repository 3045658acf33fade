"""Whether a notebook for students gives solutions or model answers away.

The rule, exactly. A line of a solution is *hidden* if it is not in the stub; a line of a model answer always is. White
space, the signs `# * > |` and backticks are left out of everything that is compared, and so are comments at the end of
a line: indenting, quoting, commenting on a line or commenting it out does not hide it. Then

* a leak is a run of neighbouring hidden lines, as few as have `MIN_CHARACTERS` together: a telling line counts alone,
  short ones such as `return x` or `else:` only together with their neighbours;
* if all hidden lines of a function together are shorter, they count as a whole from `MIN_BODY` characters on;
* what a line returns or assigns counts without `return` or the name, too, from `MIN_VALUE` characters on;
* a comment of a solution counts like a line, by itself.

Such a run may be in no text of the notebook: cells, outputs, metadata. Pictures, which are encoded, are not read.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from course_utils.exercises.registry import Exercise
from workshop.build.source import Cell
from workshop.build.stubs import source_of, stub_of

MIN_CHARACTERS = 24
MIN_BODY = 12
MIN_VALUE = 40  # the call `iou_matrix(prediction, truth)` gives nothing away

_VALUE = re.compile(r"\s*(return\b|[\w.,\s\[\]]+ [-+*/|&]?= )")
_LEFT_OUT = re.compile(r"[\s#*`>|]+")


def reduced(text: str) -> str:
    """The text without what quoting, indenting or commenting out would add.

    >>> reduced("    # return *x*")
    'returnx'
    """
    return _LEFT_OUT.sub("", text)


def find_leaks(notebook: Any, secrets: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """What of the secrets is in the notebook, one sentence each.

    Args:
        notebook: dicts, lists and strings, such as an nbformat notebook; keys called "attachments" are left out.
        secrets: (what it is, its telling runs), as from `secrets_of`.
    """
    texts = [(where, reduced(one)) for where, text in _strings(notebook) for one in (text, _uncommented(text))]
    found = [
        f"{where} holds {what}: {run[:60]!r}"
        for what, runs in secrets
        for run in runs
        for where, text in texts
        if run in text
    ]
    return list(dict.fromkeys(found))


def secrets_of(cells: Sequence[Cell], exercises: Iterable[Exercise]) -> list[tuple[str, list[str]]]:
    """The telling runs of all solutions and model answers that a source uses."""
    registry = {exercise.id: exercise for exercise in exercises}
    found = []
    for cell in cells:
        if "exercise" in cell.markers:
            exercise = registry[cell.markers["exercise"]]
            what = f"a line of the solution of exercise {exercise.id}"
            found.append((what, telling_runs(hidden_lines(source_of(exercise), stub_of(exercise)))))
        elif "answer" in cell.markers:
            what = f"a line of the model answer {cell.markers['answer']}"
            found.append((what, telling_runs([cell.source.split("\n")])))
    return found


def hidden_lines(solution: str, stub: str) -> list[list[str]]:
    """The lines of the solution that are not in the stub, in groups of neighbours; values and comments alone."""
    kept = {reduced(line) for line in stub.split("\n")}
    code, comments = _split_comments(solution)
    groups: list[list[str]] = [[]]
    for line in code.split("\n"):
        if not reduced(line):
            continue
        if reduced(line) in kept:
            groups.append([])
        else:
            groups[-1].append(line)
    values = [_VALUE.sub("", line) for group in groups for line in group if _VALUE.match(line)]
    groups += [[value] for value in values if len(reduced(value)) >= MIN_VALUE and reduced(value) not in kept]
    groups += [[comment] for comment in comments if comment not in stub]
    return [group for group in groups if group]


def telling_runs(groups: Iterable[Sequence[str]]) -> list[str]:
    """The shortest runs of neighbouring lines that count as a leak, reduced.

    >>> telling_runs([["total = 0", "for image in images:", "return total"], ["return 1"]])
    ['total=0forimageinimages:', 'forimageinimages:returntotal']
    """
    runs = []
    for group in groups:
        lines = [reduced(line) for line in group]
        for start in range(len(lines)):
            run = ""
            for line in lines[start:]:
                run += line
                if len(run) >= MIN_CHARACTERS:
                    runs.append(run)
                    break
            else:
                if start == 0 and len(run) >= MIN_BODY:
                    runs.append(run)
    return runs


def _uncommented(text: str) -> str:
    """A text whose lines are no comments, without the comments at their ends."""
    return re.sub(r"^([\s#*>|]*)([^#\n]*).*$", r"\2", text, flags=re.MULTILINE)


def _split_comments(source: str) -> tuple[str, list[str]]:
    """The source without its comments, and these."""
    rows, comments = source.split("\n"), []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            rows[row - 1] = rows[row - 1][:column]
            comments.append(token.string)
    return "\n".join(rows), comments


def _strings(node: Any, where: str = "the notebook") -> Iterator[tuple[str, str]]:
    """Every text below a node, with the id of the cell it is in."""
    if isinstance(node, str):
        yield where, node
    elif isinstance(node, dict):
        where = f"cell {node['id']}" if "cell_type" in node else where
        for key, value in node.items():
            yield from _strings(value, where) if key != "attachments" else ()
    elif isinstance(node, list):
        if node and all(isinstance(one, str) for one in node):  # a text as a list of lines
            yield where, "".join(node)
        else:
            for one in node:
                yield from _strings(one, where)
