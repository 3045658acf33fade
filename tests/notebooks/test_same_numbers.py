"""Every notebook, three times with the same seed, in the profile `smoke`, with no network that the course brings.

    python3 course.py test -m slow tests/notebooks/test_same_numbers.py    # half an hour

`tests/course_utils/test_determinism.py` does the same with `fit` on every change.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from notebook_runs import NOTEBOOKS, run_notebook


def trained(folder: Path) -> dict[str, str]:
    """Digests of the networks that a run has left."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "output" / "models").glob("*.pt")
    }


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_gives_the_same_numbers_three_times(name, tmp_path):
    folders = [tmp_path / str(number) for number in range(3)]
    runs = [run_notebook(name, folder, "embedded", short=False, pretrained=False) for folder in folders]
    assert [run.failure for run in runs] == [""] * 3
    assert runs[0].scores and runs[0].scores == runs[1].scores == runs[2].scores
    networks = [trained(folder) for folder in folders]
    assert networks[0] == networks[1] == networks[2]
    assert bool(networks[0]) == (name[:2] in {"03", "04", "05", "06", "07", "08"}), networks[0]
