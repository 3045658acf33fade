"""The tests of course_utils pass with the oldest releases that pyproject.toml allows. Slow: it downloads gigabytes.

    python3 course.py test -m slow tests/test_oldest.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENT = ROOT / "build" / "oldest"
# What students' notebooks import. The workshop runs in the environment that course.py makes, and so does StarDist.
TESTS = ("tests/course_utils", "--ignore=tests/course_utils/test_metrics_stardist.py")
TOOLS = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.112", "nbformat>=5.10")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]


def oldest(text: str) -> str:
    """The requirement "name>=1.2" as "name==1.2.*": the first releases that it allows, with their bug fixes."""
    requirement = Requirement(text)
    [bound] = requirement.specifier
    assert bound.operator == ">=", text
    return f"{requirement.name}=={bound.version}.*"


@pytest.fixture(scope="module")
def python() -> Path:
    """An environment with the oldest releases of the packages that course_utils needs."""
    path = ENVIRONMENT / "bin" / "python"
    if not path.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    wanted = [oldest(text) for text in PROJECT["dependencies"]]
    command = [str(path), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted, *TOOLS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return path


def test_course_utils_works_with_the_oldest_releases(python):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
