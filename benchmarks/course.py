"""How long does the course compute? All solved notebooks in the profile `smoke`, with the synthetic images."""

from __future__ import annotations

import tempfile
from pathlib import Path

from course_utils.data import CourseData
from workshop.run.course import run_course


def measure(data: CourseData, quick: bool) -> dict:
    """Seconds of each notebook, each in its own process as in `course.py run`; `data` is not used.

    Raises:
        RuntimeError: a notebook failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = run_course("embedded", "smoke", only=["02"] if quick else None, out=Path(folder))
    if failed := [result.notebook for result in results if result.status != "passed"]:
        raise RuntimeError(f"{', '.join(failed)} failed; `python3 course.py run` says why.")
    rows = [{"notebook": result.notebook, "seconds": result.seconds} for result in results]
    rows.append({"notebook": "all", "seconds": sum(result.seconds for result in results)})
    return {"title": "The course in the profile smoke, synthetic images", "rows": rows}
