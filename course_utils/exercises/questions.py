"""The questions to be answered in words: what a student has written, and the model answer after that.

The model answers stand in the sources of the notebooks, `solutions/NN_topic.py`. The students' zip and the stand-alone
notebooks have none.
"""

from __future__ import annotations

import html
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from course_utils.display import framed, in_notebook, show_box
from course_utils.exercises.feedback import LOOKS

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions"
# What stands around an answer, and in its place as long as there is none.
FRAME = re.compile(
    r"</?details[^<>]{0,200}>|<summary>.{0,200}?</summary>|\*Double-click here, and write in place of this line\.\*",
    re.IGNORECASE,
)
# The ids that the build gives to cells of the course, besides those that its marks name.
_COURSE_ID = re.compile(r"(markdown|code)-[0-9a-f]{12}(-\d+)?")


@dataclass(frozen=True)
class Question:
    """A question of the course, as Markdown, with its model answer."""

    id: str
    asked: str
    answer: str


def read_questions(folder: Path) -> dict[str, Question]:
    """The questions in the sources of the notebooks, by id; empty where there are no sources."""
    found: dict[str, Question] = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.py")):
        asked = ""
        for part in re.split(r"(?m)^# %%", path.read_text(encoding="utf-8"))[1:]:
            marker, _, lines = part.partition("\n")
            body = re.sub(r"(?m)^# ?", "", lines).strip()
            if mark := re.search(r'(question|answer)="(.+?)"', marker):
                found[mark[2]] = Question(mark[2], asked or body, body)
                asked = body if mark[1] == "question" else ""
    return found


def model_answer(question: str, answer: str = "") -> None:
    """Show the model answer to a question, once the student has answered it.

    Args:
        question: as in "1a".
        answer: the student's own words. Without them, what the saved notebook has below the question counts.
    """
    known = read_questions(SOLUTIONS)
    if known and question not in known:
        _show(question, "failed", "unknown", f"There is no question {question!r}; there are {', '.join(known)}.")
        return
    written, file = (str(answer).strip(), "") if answer else _saved_answer(question)
    if not written:
        found = f"Nothing is written below the question in {file}, as it was last saved. Double-click 'Your answer', "
        found += "write, save the notebook (Ctrl+S), run this cell again. Or give your answer here:"
        if not file:
            found = "No saved notebook with this question was found. Give your answer here, too:"
        _show(question, "todo", "no answer yet", f'{found} model_answer("{question}", """...""")')
        return
    kept = f"Your answer is kept in {file}." if file else "Write it into the cell above, too: there it is kept."
    if known:
        _show(question, "passed", "answered", f"{kept} Compare it with the model answer.")
        _show_text(f"**Model answer**\n\n{known[question].answer}")
    else:
        lack = "This copy of the course has no model answers; your instructor has them."
        _show(question, "passed", "answered", f"{kept} {lack}")


def _show(question: str, status: str, words: str, message: str) -> None:
    symbol, _, colour = LOOKS[status]
    title = f"{symbol} Question {question}: {words}"
    content = f"<strong>{html.escape(title)}</strong><div>{html.escape(message)}</div>"
    show_box(framed(content, colour), f"{title}\n  {message}")


def _show_text(markdown: str) -> None:
    if not in_notebook():
        print(markdown)
        return
    from IPython.display import display

    display({"text/markdown": markdown, "text/plain": markdown}, raw=True)


# What is written in the notebook


def _saved_answer(question: str) -> tuple[str, str]:
    """The answer in the file of this notebook and the file's name; both empty if there is no such file."""
    found = ("", "")
    for file in _files():
        try:
            cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
            written = _written(cells, question)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # gone, or half written
        if written:
            return written, file.name
        found = found if written is None or found[1] else ("", file.name)
    return found


def _files() -> list[Path]:
    """The file that Jupyter or VS Code names; if it is gone (renamed), those where it was and here, newest first."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    named = [os.environ.get("JPY_SESSION_NAME"), getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__")]
    files = [Path(name) for name in named if name]
    if there := [file for file in files if file.is_file()]:
        return there
    try:
        beside = {file for folder in [Path.cwd(), *(file.parent for file in files)] for file in folder.glob("*.ipynb")}
        return sorted(beside, key=lambda file: file.stat().st_mtime, reverse=True)
    except OSError:
        return []


def _written(cells: list[dict], question: str) -> str | None:
    """What a student wrote into the cell for the answer and into own cells around it; None without such a cell."""
    texts, below, found = [], False, False
    for cell in cells:
        id_, marks = str(cell.get("id", "")), cell.get("metadata", {}).get("course", {})
        answers = marks.get("answer") == question or id_ == f"answer-{question}"
        if marks.get("question") == question or id_ == f"question-{question}":
            below = True
        elif not answers and marks.get("model") != question and (marks or _COURSE_ID.fullmatch(id_)):
            below = False
        elif answers or (below and cell["cell_type"] != "code"):
            found = found or answers
            texts.append(FRAME.sub("", "".join(cell["source"])).strip())
    return "\n\n".join(filter(None, texts)) if found or any(texts) else None
