"""The oldest releases that pyproject.toml admits: the units pass with them. Slow, because it downloads gigabytes.

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
# The subject: what students' notebooks import. The workshop around it runs in the environment that course.py makes.
UNITS = ("data", "dataset", "device", "download", "exploration", "losses", "metrics", "plotting", "profiles", "reading",
         "recipes", "segmentation", "synthetic", "targets", "training", "unet", "widgets", "checking")  # fmt: skip
TOOLS = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.112", "nbformat>=5.10")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]


def oldest(text: str) -> str:
    """The requirement "name>=1.2" as "name==1.2.*": the first releases that it admits, with their corrections."""
    requirement = Requirement(text)
    [bound] = requirement.specifier
    assert bound.operator == ">=", text
    return f"{requirement.name}=={bound.version}.*"


@pytest.fixture(scope="module")
def python() -> Path:
    """An environment with the oldest releases of what the course itself needs."""
    path = ENVIRONMENT / "bin" / "python"
    if not path.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    wanted = [oldest(text) for text in PROJECT["dependencies"]]
    command = [str(path), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted, *TOOLS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return path


def test_the_units_pass_with_the_oldest_releases(python):
    files = [f"tests/test_{name}.py" for name in UNITS] + ["tests/checks"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
