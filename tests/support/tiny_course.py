"""A course of one small notebook with everything a source can hold: its exercise is 2.4 of the real course."""

from __future__ import annotations

from pathlib import Path

import nbformat

from course_utils.exercises import list_exercises

EXERCISES = [exercise for exercise in list_exercises() if exercise.id in ("1.1", "2.4")]

SOURCE = """# %% [markdown]
# # Tiny notebook, größer als nichts
#
# See [the end](#The-end), [this notebook](02_unet.ipynb#top) and ![a dot](../pictures/dot.png "Dot").

# %%
import torch
from torch import nn

from course_utils.exercises import check

print(torch.__version__)

# %% tags=["parameters"]
data_source = "embedded"
profile = "auto"  # or smoke, laptop, full
seed = 0
output = "output"

# %% [markdown]
# Some text.
#
# ### Exercise 2.4: Count the parameters
#
# {{difficulty}}
#
# Write `count_parameters(model)`.

# %% [markdown] expected="2.4"
# Expected: a layer of 10 inputs and 2 outputs has a weight for each pair, and 2 biases.
#
# ```python expected
# count_parameters(torch.nn.Linear(10, 2))
# ```
#
# <details><summary>Hint 1</summary>
#
# Every parameter knows its size.
#
# </details>
# <details>
# <summary>Hint 2</summary>
#
# And whether it is trained.
#
# </details>

# %% exercise="2.4"
from course_utils import count_parameters

# %% check="2.4"

# %% [markdown] question="2a"
# Why?

# %% [markdown] answer="2a"
# Because.

# %% [markdown]
# ## The end

# %% tags=["optional", "nbval-skip"]
print(seed)

# %%
value = count_parameters(nn.Linear(2, 1))
print(value, seed)
"""


def make_course(root: Path, source: str = SOURCE, name: str = "02_unet") -> Path:
    """Write the source and what it links to below `root`; returns the path of the source."""
    source_path, picture = root / "solutions" / f"{name}.py", root / "pictures" / "dot.png"
    source_path.parent.mkdir(parents=True, exist_ok=True)
    source_path.write_bytes(source.encode())
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(b"dot")
    return source_path


def read_notebook(root: Path, folder: str, name: str = "02_unet") -> nbformat.NotebookNode:
    return nbformat.read(root / folder / f"{name}.ipynb", as_version=4)
