"""How much memory the notebooks and the reading of data take: peaks as a quota counts them, in MB of 10^6 bytes.

On every change: images as many and as large as the real ones are read here, and `test_notebooks` looks at the peaks of
its notebooks in the profile `smoke`. With the real images, each notebook in the profile `laptop`, half an hour in all::

    pytest tests/notebooks/test_memory.py -m slow -k real_images

They are in the cache, or at the path in `COURSE_REAL_DATA`. Trainings are cut to one epoch.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import tifffile

from workshop.run.course import run_notebooks

SOLUTIONS = sorted((Path(__file__).resolve().parents[2] / "solutions").glob("[0-9][0-9]_*.ipynb"))
MAX_LAPTOP_MB = 2000  # the larger of the usual quotas of hubs, 1 and 2 GB
# Nearly the sizes of the real images, and how many of each there are.
SIZES = {(256, 256): 334, (256, 320): 110, (520, 696): 92, (360, 360): 90, (1024, 1024): 16}
MAX_OVERHEAD = 0.15  # of the arrays; a second copy of all masks as 16 bits would be 0.4
ONE_EPOCH = """
from dataclasses import replace
from course_utils import profiles
names = [name for name in vars(profiles._PROFILES["laptop"]) if name.endswith("_epochs")]
profiles._PROFILES["laptop"] = replace(profiles._PROFILES["laptop"], **dict.fromkeys(names, 1))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("source", SOLUTIONS, ids=[path.stem for path in SOLUTIONS])
def test_a_notebook_with_the_real_images_fits_into_two_gigabytes(source, real_data_zip, tmp_path):
    notebook = nbformat.read(source, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(ONE_EPOCH))
    nbformat.write(notebook, shorter := tmp_path / source.name)
    parameters = {"data_source": str(real_data_zip), "profile": "laptop", "seed": 0, "output": str(tmp_path / "output")}
    [result] = run_notebooks([shorter], tmp_path / "run", parameters, cell_timeout=3000)
    print(f"{result.notebook}: {result.memory_mb} MB", result.error)  # a claim about scores may fail after one epoch
    executed = nbformat.read(tmp_path / "run" / source.name, as_version=4)
    last = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()][-1]
    assert last.execution_count is not None, f"stopped before the last cell: {result.error}"
    assert result.memory_mb <= MAX_LAPTOP_MB


def test_reading_takes_little_more_memory_than_the_arrays(tmp_path):
    """In its own process: no copy of all masks in another type, nor all files at once."""
    rng = np.random.default_rng(0)
    for folder in (tmp_path / split / kind for split in ("train", "test") for kind in ("images", "masks")):
        folder.mkdir(parents=True)
    for (height, width), count in SIZES.items():
        row, column = np.arange(height), np.arange(width)
        inside = np.logical_and.outer(row % 32 < 20, column % 32 < 20)
        mask = np.where(inside, np.add.outer(row // 32 * (width // 32 + 1), column // 32) + 1, 0).astype(np.uint16)
        image = (rng.integers(0, 60, mask.shape) + 100 * inside).astype(np.uint8)
        for number in range(count):
            folder, name = tmp_path / ("test" if number % 10 == 0 else "train"), f"{height}_{width}_{number}.tif"
            tifffile.imwrite(folder / "images" / name, np.roll(image, number))
            tifffile.imwrite(folder / "masks" / name, np.roll(mask, number))
    program = """
import sys, psutil
from workshop.run.kernel import PeakMemory
from course_utils.data import load_data
load_data("embedded")  # what is imported with the first image
memory = PeakMemory(psutil.Process().pid)
memory.look()
before = memory.megabytes
data = load_data(sys.argv[1])
memory.look()
print(before, memory.megabytes, sum(one.image.nbytes + one.mask.nbytes for one in [*data.train, *data.test]) / 1e6)
"""
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    before, peak, arrays = map(float, result.stdout.split())
    print(f"{peak - before:.0f} MB for arrays of {arrays:.0f} MB")
    assert arrays > 250 and peak - before < (1 + MAX_OVERHEAD) * arrays
