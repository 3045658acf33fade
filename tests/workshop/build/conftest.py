from __future__ import annotations

from pathlib import Path

import pytest
from tiny_course import EXERCISES, make_course

import workshop.build


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder with the tiny course in it; the build knows no other exercises."""
    monkeypatch.setattr(workshop.build, "list_exercises", lambda: EXERCISES)
    make_course(tmp_path / "course")
    return tmp_path / "course"
