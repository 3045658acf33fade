"""Notebooks whose verdicts depend on how "Run all" executes them, and what a kernel says about each.

`NOTEBOOKS` has the text of each by its name. Its first line holds the verdicts: the status of each exercise after its
last check, an exercise without one is not listed. Then come the cells, as in solutions/*.py, behind a first one with
imports (`HEAD`). A line `@check 1.1` stands for the call that a check cell holds, `@right 1.1` for a right answer and
`@stub 1.1` for the one that students start from; behind `# %% 1.1` stands the cell of that exercise, behind `# %% file`
a file beside the notebook. "Whole" notebooks are made from those of the course, see `whole_notebooks`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_utils.exercises import get_exercise, list_exercises
from workshop.build import make_versions, to_bytes, to_notebook
from workshop.build.stubs import source_of, stub_of

CHECKOUT = Path(__file__).resolve().parents[2]
HEAD = """from collections import Counter
from collections.abc import Iterable, Sequence
import numpy as np
from course_utils.exercises import check"""
RIGHT = {
    "1.1": "def count_shapes(images):\n    return dict(Counter(image.shape for image in images))",
    "1.2": """def intensity_statistics(images):
    n = sum(image.size for image in images)
    mean = sum(float(image.sum(dtype=float)) for image in images) / n
    return mean, (sum(float(((image - mean) ** 2).sum(dtype=float)) for image in images) / n) ** 0.5""",
    "1.3": "def standardize(image, mean, std):\n    return ((np.float64(image) - mean) / std).astype('float32')",
    "1.4": """def split_train_val(samples, every=20):
    samples = list(samples)
    return [s for i, s in enumerate(samples, 1) if i % every], samples[every - 1 :: every]""",
    "1.5": """def random_crop(image, mask, size, rng):
    if min(image.shape) < size:
        raise ValueError(f"The image {image.shape} is smaller than {size}.")
    y, x = (int(rng.integers(side - size + 1)) for side in image.shape)
    return image[y : y + size, x : x + size], mask[y : y + size, x : x + size]""",
    "1.6": """def binary_target(mask):
    import torch
    return torch.from_numpy((mask > 0).astype('float32'))[None]""",
    "2.4": """def count_parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)""",
    "4.2": """def connected_components(probability, threshold=0.5):
    from skimage.measure import label
    return label(probability > threshold)""",
}  # of others that of the course


@dataclass(frozen=True)
class OddNotebook:
    """A notebook as JSON, the files beside it, and the verdicts of the exercises that are checked."""

    name: str
    content: dict[str, Any]
    verdicts: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)
    file_name: str = "notebook.ipynb"

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        path = folder / self.file_name
        path.write_text(json.dumps(self.content), encoding="utf-8")
        return path


def small_notebooks() -> list[OddNotebook]:
    """Some cells each, of all kinds."""
    return [_parse(text) for text in re.split(r"(?m)^=== ", NOTEBOOKS)[1:]]


def other_notebooks() -> list[OddNotebook]:
    """Those whose grade is not what a kernel says, on purpose; with the status of each exercise of the notebook."""
    return [_parse(text) for text in re.split(r"(?m)^=== ", OTHERS)[1:]]


def _parse(text: str) -> OddNotebook:
    first, _, body = text.partition("\n")
    name, _, verdicts = first.rpartition(": ")
    cells, files = [_cell(HEAD)], {}
    for part in re.split(r"(?m)^# %%", body)[1:]:
        kind, _, source = part.partition("\n")
        source = _expanded(source)
        match kind.split():
            case ["file", file]:
                files[file] = source
            case [exercise]:
                cells.append(_cell(source, exercise))
            case _:
                cells.append(_cell(source))
    statuses = dict(verdict.split() for verdict in verdicts.split(", ")) if verdicts != "none" else {}
    return OddNotebook(name, _notebook(cells), statuses, files)


def _expand(line: re.Match) -> str:
    indent, word, exercise = line.groups()
    name = get_exercise(exercise).name
    match word:
        case "check":
            text = f'{name} = check("{exercise}", {name})'
        case "right":
            text = RIGHT.get(exercise) or source_of(get_exercise(exercise))
        case "stub":
            text = stub_of(get_exercise(exercise))
    return re.sub("(?m)^(?=.)", indent, text)


def _cell(source: str, exercise: str | None = None, tags: list[str] | None = None) -> dict[str, Any]:
    metadata = {"course": {"exercise": exercise}} if exercise else {}
    metadata |= {"tags": tags} if tags else {}
    return {"cell_type": "code", "metadata": metadata, "execution_count": None, "outputs": [], "source": source}


def _notebook(cells: list[dict[str, Any]]) -> dict[str, Any]:
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 4}


def whole_notebooks() -> list[OddNotebook]:
    """Those of the course: as they are, solved, for Kaggle, and with what students do to them."""
    stems = [path.stem for path in sorted((CHECKOUT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
    exercises = list_exercises()
    made = []
    for stem in stems:
        versions = make_versions(CHECKOUT / "solutions" / f"{stem}.py", exercises)
        own = [exercise.id for exercise in exercises if exercise.notebook == stem]
        for version, status in {"notebooks": "todo", "solutions": "passed", "stand-alone": "todo"}.items():
            content = json.loads(to_bytes(to_notebook(versions[version])))
            name = f"{stem}, {version}"
            if version != "stand-alone" or stem.startswith("01"):
                made.append(OddNotebook(name, content, dict.fromkeys(own, status), file_name=f"{stem}.ipynb"))
            for title, changes, verdicts in CHANGED.get(name, ()):
                statuses = {**dict.fromkeys(own, status), **verdicts}
                statuses = {exercise: verdict for exercise, verdict in statuses.items() if verdict}
                changed = {**content, "cells": [*_changed(content["cells"], changes)]}
                made.append(OddNotebook(f"{name}, {title}", changed, statuses, file_name=f"{stem}.ipynb"))
    return made


def _changed(cells: list[dict[str, Any]], changes: dict[str, str | None]) -> Iterator[dict[str, Any]]:
    """Cells with other sources by id, or where it is None without them; "*" stands for all others with code, "+ID" for
    a new cell above another one."""
    for cell in cells:
        if f"+{cell['id']}" in changes:
            yield _cell(_expanded(changes[f"+{cell['id']}"]))
        change = changes.get(cell["id"], changes.get("*", ...) if cell["cell_type"] == "code" else ...)
        if change is not None:
            yield cell if change is ... else cell | {"source": _expanded(change)}


def _expanded(source: str) -> str:
    return re.sub(r"(?m)^( *)@(\w+) (\d\.\d)$", _expand, source.strip("\n"))


# What is changed in a whole notebook: name, changes by cell id (see `_changed`), verdicts that are others then. None:
# its check gets nothing to check.
IMPORTS_01, PARAMETERS = "code-34c1166886e6", "code-4db8805683d3"
CHANGED: dict[str, list[tuple[str, dict[str, str | None], dict[str, str | None]]]] = {
    "01_data_exploration, notebooks": [
        ("solved in part", {"exercise-1-1": "@right 1.1", "exercise-1-4": "def split_train_val(*a):\n    return a"},
         {"1.1": "passed", "1.4": "failed"}),
        ("with a helper and numbers of the course's own cells",
         {"exercise-1-3": "kinds = {len(data.train) > 0: np.float32}\n"
                          "def standardize(image, mean, std):\n"
                          "    return ((np.float64(image) - mean) / std).astype(kinds[smallest > 0])",
          "exercise-1-6": "def binary_target(mask):\n"
                          "    return torch.from_numpy(np.isin(mask, ids_of(mask)).astype('float32'))[None]"},
         {"1.3": "passed", "1.6": "passed"}),
        ("with a data source that is not there",
         {PARAMETERS: "data_source = '/no/such/folder'\nprofile = 'full'\nseed = 0\noutput = '/nowhere'",
          "exercise-1-6": "n = len(data.train)\n@right 1.6"}, {"1.6": "passed"}),
        ("with a cell of the course that binds sum", {"code-83b73d1571cb": "sum = 0", "exercise-1-2": "@right 1.2"},
         {"1.2": "failed"}),
        ("with a new cell that binds sum", {"+exercise-1-2": "sum = 0", "exercise-1-2": "@right 1.2"},
         {"1.2": "failed"}),
        ("with nothing but two exercises",
         {"*": None, IMPORTS_01: "import numpy as np\nfrom collections import Counter\n"
                                 "from course_utils.exercises import check",
          "exercise-1-1": "@right 1.1", "check-1-1": "@check 1.1", "exercise-1-5": "@right 1.5",
          "check-1-5": "@check 1.5"},
         {"1.1": "passed", "1.2": None, "1.3": None, "1.4": None, "1.5": "passed", "1.6": None, "1.7": None}),
        ("without its imports", {IMPORTS_01: None, "exercise-1-4": "@right 1.4"},
         dict.fromkeys(["1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7"])),
        ("with an import that fails at the top", {IMPORTS_01: "import no_such_package\nimport numpy as np"},
         dict.fromkeys(["1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7"])),
        ("with a random state of the course", {"exercise-1-5": "def random_crop(image, mask, size, rng_=None):\n"
            "    y, x = (int(rng.integers(side - size + 1)) for side in image.shape)\n"
            "    return image[y : y + size, x : x + size], mask[y : y + size, x : x + size]"}, {"1.5": "failed"}),
        ("with an answer in a cell above the imports",
         {f"+{IMPORTS_01}": "def split_train_val(samples, every=20):\n"
            "    samples, s = as_list(samples=samples), range(len(samples))\n"
            "    return [samples[i] for i in s if (i + 1) % every], [samples[i] for i in s if (i + 1) % every == 0]",
            "exercise-1-4": ""}, {"1.4": "passed"}),
        ("with a helper whose name the course takes",
         {"+exercise-1-2": "def mean(array):\n    return float(np.mean(array))",
          "exercise-1-2": "def intensity_statistics(images):\n"
                          "    pixels = np.concatenate([image.ravel() for image in images]).astype(float)\n"
                          "    return mean(pixels), float(pixels.std())",
          "exercise-1-4": "def split_train_val(samples, every=20):\n    assert mean([1, 1]) == 1\n"
                          "    return [s for i, s in enumerate(samples, 1) if i % every], samples[every - 1 :: every]"},
         {"1.2": "passed", "1.4": "failed"}),
        ("with a loop variable of the course in an answer",
         {"exercise-1-4": "def split_train_val(samples, every=20):\n    assert isinstance(name, str) and share == 0.5\n"
                          "    return [s for i, s in enumerate(samples, 1) if i % every], samples[every - 1 :: every]"},
         {"1.4": "passed"}),
        ("with data of its own", {"code-ce8ba82d0bbb": "data = None", "exercise-1-6": "@right 1.6\nsize = areas.size"},
         {"1.6": "passed"}),
        ("with a constant that fails because of data of its own",
         {"code-ce8ba82d0bbb": "data = None", "exercise-1-6": "size = areas.size\n@right 1.6"}, {"1.6": None}),
        ("with what an earlier answer computes in a cell of the course",
         {"exercise-1-2": "def intensity_statistics(images):\n    return 7.0, 7.0",
          "exercise-1-3": "def standardize(image, m=None, s=None, **given):\n    assert mean != 7.0\n"
                          "    return ((np.float64(image) - given['mean']) / given['std']).astype('float32')",
          "exercise-1-4": "def split_train_val(samples, every=20):\n    assert mean != 7.0\n"
                          "    return [s for i, s in enumerate(samples, 1) if i % every], samples[every - 1 :: every]"},
         {"1.2": "failed", "1.3": "failed", "1.4": "passed"}),
    ],
    "01_data_exploration, stand-alone": [
        ("solved in part", {"exercise-1-1": "@right 1.1", "exercise-1-3": "def standardize(image, mean, std):\n"
                            "    return image"}, {"1.1": "passed", "1.3": "failed"}),
    ],
    "02_unet, notebooks": [
        ("solved in part", {"exercise-2-1": "@right 2.1", "exercise-2-4": "@right 2.4",
                            "exercise-2-5": "def pad_to_multiple(image, multiple=16):\n    return image, image.shape"},
         {"2.1": "passed", "2.4": "passed", "2.5": "failed"}),
        ("with a list of what the course's cells make",
         {"exercise-2-1": "made = []\n"
                          "class ConvBlock(nn.Module):\n"
                          "    def __init__(self, in_channels, out_channels, batch_norm=False):\n"
                          "        super().__init__()\n"
                          "        made.append((in_channels, out_channels))\n"
                          "        norm = nn.BatchNorm2d if batch_norm else lambda _: nn.Identity()\n"
                          "        pairs = [(in_channels, out_channels), (out_channels, out_channels)]\n"
                          "        layers = [[nn.Conv2d(i, o, 3, padding=1), norm(o), nn.ReLU()] for i, o in pairs]\n"
                          "        self.layers = nn.Sequential(*layers[0], *layers[1])\n"
                          "    def forward(self, x):\n        return self.layers(x)",
          "exercise-2-4": "assert made[-1] == (1, 8)\n@right 2.4"},
         {"2.1": "passed", "2.4": "passed"}),
        ("with the output of a course's cell", {"exercise-2-5": "assert 'multiplications' in _\n@right 2.5"},
         {"2.5": "passed"}),
    ],
    "03_binary_training, notebooks": [
        ("with the course's textbook formula", {"exercise-3-1": "binary_cross_entropy = textbook_cross_entropy",
                                                "exercise-3-2": "@right 3.2"}, {"3.1": "failed", "3.2": "passed"}),
    ],
    "04_instance_evaluation, notebooks": [
        ("solved from the middle on", {"exercise-4-2": "@right 4.2", "exercise-4-4": "@right 4.4",
                                       "exercise-4-5": "@right 4.5"},
         {"4.2": "passed", "4.4": "passed", "4.5": "passed"}),
    ],
    "05_boundary_watershed, notebooks": [
        ("with an example of the course as a default",
         {"exercise-5-1": "def boundary_target(mask, mode='inner', example=pair.copy()):\n"
                          "    target = (mask > 0).astype(np.int64 if example.any() else None)\n"
                          "    target[find_boundaries(mask, mode=mode)] = 2\n    return torch.from_numpy(target)",
          "exercise-5-2": "@right 5.2"}, {"5.1": "passed", "5.2": "passed"}),
    ],
}  # fmt: skip
NOTEBOOKS = r'''
=== sum of numpy instead of the builtin: 1.2 failed
# %%
from numpy import sum
# %% 1.2
def intensity_statistics(images):
    n = sum(image.size for image in images)
    pixels = [float(x) for image in images for x in image.ravel()]
    mean = sum(pixels) / n
    return mean, (sum([(x - mean) ** 2 for x in pixels]) / n) ** 0.5
# %%
@check 1.2

=== sum of numpy, used as it is meant: 1.2 passed
# %%
from numpy import sum, sqrt
# %% 1.2
def intensity_statistics(images):
    n = sum([image.size for image in images])
    mean = sum([sum(image, dtype=float) for image in images]) / n
    return float(mean), float(sqrt(sum([sum((image - mean) ** 2) for image in images]) / n))
# %%
@check 1.2

=== sum is 0 in an earlier cell: 1.2 failed
# %%
sum = 0
for value in range(5):
    sum += value
# %% 1.2
@right 1.2
# %%
@check 1.2

=== sum is 0, and deleted again: 1.2 passed
# %%
sum = 0
# %%
del sum
# %% 1.2
@right 1.2
# %%
@check 1.2

=== sum is 0 only below the check: 1.2 passed
# %% 1.2
@right 1.2
# %%
@check 1.2
# %%
sum = 0

=== an own helper named like a builtin: 1.2 passed
# %%
def sum(values):
    total = 0
    for value in values:
        total += value
    return total
# %% 1.2
@right 1.2
# %%
@check 1.2

=== a wrong helper named like a builtin, defined between cell and check: 1.1 failed
# %% 1.1
@right 1.1
# %%
def dict(pairs):
    return list(pairs)
# %%
@check 1.1

=== list is a variable of an earlier cell: 1.4 failed
# %%
list = [1, 2, 3]
# %% 1.4
@right 1.4
# %%
@check 1.4

=== max and min patched in builtins by a star import: 1.5 failed
# %%
from numpy import *
min = lambda *_: 0
# %% 1.5
@right 1.5
# %%
@check 1.5

=== a list filled after its definition: 1.4 passed
# %%
steps = []
# %%
steps.append(lambda samples, n: [s for i, s in enumerate(samples, 1) if i % n])
steps.append(lambda samples, n: [s for i, s in enumerate(samples, 1) if i % n == 0])
# %% 1.4
def split_train_val(samples, every=20):
    return tuple(step(samples, every) for step in steps)
# %%
@check 1.4

=== a dict filled in a loop of another cell: 1.3 passed
# %%
operations = {}
# %%
for name, function in [("minus", np.subtract), ("over", np.divide)]:
    operations[name] = function
# %% 1.3
def standardize(image, mean, std):
    return operations["over"](operations["minus"](np.float64(image), mean), std).astype(np.float32)
# %%
@check 1.3

=== a table updated below its use, above the check: 1.3 passed
# %%
settings = {"dtype": "float64"}
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(settings["dtype"])
# %%
settings.update(dtype="float32")
# %%
@check 1.3

=== the same update below the check comes too late: 1.3 failed
# %%
settings = {"dtype": "float64"}
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(settings["dtype"])
# %%
@check 1.3
# %%
settings.update(dtype="float32")

=== defaultdict and setdefault between cells: 1.1 passed
# %%
from collections import defaultdict
calls = defaultdict(list)
calls["shape"].append(np.shape)
# %% 1.1
def count_shapes(images):
    found = {}
    for image in images:
        shape = calls["shape"][-1](image)
        found[shape] = found.setdefault(shape, 0) + 1
    return found
# %%
@check 1.1

=== a decorator of an own cell: 1.3 passed
# %%
import functools
def as_float32(function):
    @functools.wraps(function)
    def inner(*arguments, **options):
        return np.asarray(function(*arguments, **options), dtype=np.float32)
    return inner
# %% 1.3
@as_float32
def standardize(image, mean, std):
    return (np.float64(image) - mean) / std
# %%
@check 1.3

=== a decorator that returns nothing: 1.3 failed
# %%
def noted(function):
    print(function.__name__)
# %% 1.3
@noted
@right 1.3
# %%
@check 1.3

=== a registry that hands out the answer: 1.1 passed
# %%
registry = {}
def register(function):
    registry[function.__name__] = function
    return function
# %%
@register
@right 1.1
# %%
del count_shapes
# %%
count_shapes = registry["count_shapes"]
@check 1.1

=== a registry whose last entry counts: 1.1 failed
# %%
registry = {}
register = lambda function: registry.setdefault("last", {}).update(f=function) or function
# %% 1.1
@register
@right 1.1
# %%
@register
def other(images):
    return len(images)
# %%
count_shapes = registry["last"]["f"]
@check 1.1

=== lru_cache on what takes no hashable arguments: 1.1 failed
# %%
from functools import lru_cache
# %% 1.1
@lru_cache
@right 1.1
# %%
@check 1.1

=== cache on a helper: 1.1 passed
# %%
from functools import cache
@cache
def as_key(height, width):
    return height, width
# %% 1.1
def count_shapes(images):
    return dict(Counter(as_key(*image.shape) for image in images))
# %%
@check 1.1

=== singledispatch, registered in a later cell, called with keywords: 1.3 failed
# %%
from functools import singledispatch
@singledispatch
def standardize(image, mean, std):
    raise TypeError(type(image))
# %%
@standardize.register
def _(image: np.ndarray, mean, std):
    return ((np.float64(image) - mean) / std).astype(np.float32)
# %%
@check 1.3

=== partial of a general function: 4.2 passed
# %%
from functools import partial
from skimage.measure import label
def components(connectivity, probability, threshold=0.5):
    return label(probability > threshold, connectivity=connectivity)
# %% 4.2
connected_components = partial(components, 2)
# %%
@check 4.2

=== setattr on an own class: 1.1 passed
# %%
class Tools:
    pass
# %%
setattr(Tools, "shapes", staticmethod(lambda images: [image.shape for image in images]))
# %% 1.1
def count_shapes(images):
    return dict(Counter(Tools.shapes(images)))
# %%
@check 1.1

=== add_to_class as in d2l: 2.1 passed
# %%
import torch
from torch import nn
def add_to_class(Class):
    def wrapper(obj):
        setattr(Class, obj.__name__, obj)
    return wrapper
# %% 2.1
class ConvBlock(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
# %%
@add_to_class(ConvBlock)
def forward(self, x):
    return torch.relu(self.second(torch.relu(self.first(x))))
# %%
@check 2.1

=== a method added after the check: 2.1 failed
# %%
import torch
from torch import nn
# %% 2.1
class ConvBlock(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
# %%
@check 2.1
# %%
ConvBlock.forward = lambda self, x: torch.relu(self.first(x))

=== patch as in fastai: 1.7 passed
# %%
import torch
from torch.utils.data import Dataset
def patch(function):
    import typing
    cls = typing.get_type_hints(function)["self"]
    setattr(cls, function.__name__, function)
    return function
# %% 1.7
class NucleiDataset(Dataset):
    def __init__(self, images, masks, target_transform, crop_size=256, augment=False, seed=0):
        self.images, self.masks, self.transform = images, masks, target_transform
        self.size, self.augment, self.seed = crop_size, augment, seed
    def __len__(self):
        return len(self.images)
# %%
@patch
def __getitem__(self: NucleiDataset, index):
    rng = np.random.default_rng([self.seed, int(torch.randint(2**62, ()))])
    image, mask = self.images[index], self.masks[index]
    y, x = (int(rng.integers(side - self.size + 1)) for side in image.shape)
    image, mask = (a[y : y + self.size, x : x + self.size] for a in (image, mask))
    if self.augment:
        k, flip = int(rng.integers(4)), rng.random() < 0.5
        image, mask = (np.rot90(a, k)[:, :: -1 if flip else 1].copy() for a in (image, mask))
    return torch.from_numpy(np.array(image, dtype=np.float32))[None], self.transform(mask.copy())
# %%
@check 1.7

=== global in a function of another cell: 1.3 passed
# %%
def choose():
    global kind
    kind = np.float32
# %%
choose()
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== global never assigned because the function is not called: 1.3 failed
# %%
def choose():
    global kind
    kind = np.float32
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== globals() makes the names: 1.1 passed
# %%
globals()["shape" + "_of"] = lambda image: image.shape
for key in ("first", "second"):
    globals()[f"{key}_helper"] = dict
# %% 1.1
def count_shapes(images):
    return second_helper(Counter(shape_of(image) for image in images))
# %%
@check 1.1

=== the answer itself through globals(): 1.1 passed
# %%
def answer(images):
    return dict(Counter(image.shape for image in images))
globals().update(count_shapes=answer)
# %%
@check 1.1

=== vars() and exec: 1.1 passed
# %%
exec("def shape_of(image):\n    return tuple(image.shape)")
vars()["count"] = Counter
# %% 1.1
def count_shapes(images):
    return dict(count(map(shape_of, images)))
# %%
@check 1.1

=== exec of the whole answer: 1.4 passed
# %% 1.4
exec("""
def split_train_val(samples, every=20):
    samples = [*samples]
    val = samples[every - 1 :: every]
    return [s for i, s in enumerate(samples) if (i + 1) % every], val
""")
# %%
@check 1.4

=== a module written by a cell: 1.1 passed
# %%
%%writefile shapes_module.py
from collections import Counter

def count_shapes(images):
    return dict(Counter(image.shape for image in images))
# %% 1.1
from shapes_module import count_shapes
# %%
@check 1.1

=== a module written, imported, written again and reloaded: 1.1 passed
# %%
%%writefile shapes_module.py
def count_shapes(images):
    return {}
# %%
import importlib, os, time
import shapes_module
# %%
%%writefile shapes_module.py
def count_shapes(images):
    shapes = [image.shape for image in images]
    return {shape: shapes.count(shape) for shape in shapes}
# %%
importlib.reload(shapes_module)
count_shapes = shapes_module.count_shapes
# %%
@check 1.1

=== written again but not reloaded: 1.1 failed
# %%
%%writefile shapes_module.py
def count_shapes(images):
    return {}
# %%
import shapes_module
# %%
%%writefile shapes_module.py
def count_shapes(images):
    shapes = [image.shape for image in images]
    return {shape: shapes.count(shape) for shape in shapes}
# %%
from shapes_module import count_shapes
# %%
@check 1.1

=== %run of a script beside the notebook: 1.1 passed
# %% file answers.py
from collections import Counter
def count_shapes(images):
    return dict(Counter(image.shape for image in images))
# %%
%run answers.py
# %%
@check 1.1

=== %run of a script that is not there: 1.1 todo
# %% 1.1
@stub 1.1
# %%
%run not_there.py
# %%
@check 1.1

=== a module beside the notebook: 1.1 passed, 1.3 passed
# %% file my_own.py
from collections import Counter
from numpy import float32, float64

def shapes(images):
    return Counter(image.shape for image in images)

class Scaler:
    def __call__(self, image, mean, std):
        return float32((float64(image) - mean) / std)
# %%
import my_own
from my_own import *
# %% 1.1
def count_shapes(images):
    return dict(shapes(images))
# %%
@check 1.1
# %%
standardize = my_own.Scaler()
# %%
@check 1.3

=== data beside the notebook, by a relative path: 1.3 passed
# %% file kind.json
{"dtype": "float32"}
# %%
import json
from pathlib import Path
kind = json.loads(Path("kind.json").read_text())["dtype"]
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== a file written in one cell and read in the answer: 1.3 passed
# %%
with open("kind.txt", "w") as file:
    file.write("float32")
# %% 1.3
def standardize(image, mean, std):
    with open("kind.txt") as file:
        return ((np.float64(image) - mean) / std).astype(file.read())
# %%
@check 1.3

=== magics in the cells: 1.1 passed, 1.3 passed
# %%
%matplotlib inline
%load_ext autoreload
%autoreload 2
%time total = 1
# %% 1.1
%%time
@right 1.1
# %%
%%capture
@check 1.1
# %%
%%capture printed
print("lost")
kind = np.float32
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
%time _ = check("1.3", standardize)

=== an unknown cell magic defines nothing: 1.1 todo
# %%
@stub 1.1
# %%
%%no_such_magic
@right 1.1
# %%
@check 1.1

=== an unknown line magic ends nothing else: 1.1 passed
# %%
%no_such_magic 1
shape = 3
# %% 1.1
@right 1.1
# %%
@check 1.1

=== names behind an unknown line magic in the same cell are not bound: 1.3 failed
# %%
%no_such_magic
kind = "float32"
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== a cell of bash and a line of shell: 1.1 passed
# %%
%%bash
echo "def twice(x): return 2 * x" > from_bash.py
# %%
listed = !ls from_bash.py
from from_bash import twice
!echo {listed}
# %% 1.1
def count_shapes(images):
    assert listed == ["from_bash.py"] and twice(2) == 4
    return dict(Counter(image.shape for image in images))
# %%
@check 1.1

=== a cell of bash that fails ends only itself: 1.1 passed
# %%
%%bash
exit 3
# %% 1.1
@right 1.1
# %%
@check 1.1

=== timeit keeps its names to itself: 1.3 failed
# %%
%%timeit -n 1 -r 1
kind = "float32"
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== a check under %%timeit still counts: 1.1 passed
# %% 1.1
@right 1.1
# %%
%%timeit -n 1 -r 1
check("1.1", count_shapes)

=== magics of a notebook that looks at itself: 1.1 passed
# %%
%who
%pwd
count_shapes?
%config InlineBackend.figure_format = "retina"
np.sum??
# %% 1.1
@right 1.1
# %%
@check 1.1

=== top-level await: 1.3 passed
# %%
import asyncio
async def load():
    await asyncio.sleep(0.01)
    return np.float32
kind = await load()
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== async for and async with at the top: 1.4 passed
# %%
import asyncio, contextlib
@contextlib.asynccontextmanager
async def opened():
    yield 1
async def numbers():
    for number in range(3):
        yield number
async with opened() as one:
    total = [number + one async for number in numbers()]
# %% 1.4
def split_train_val(samples, every=20):
    assert total == [1, 2, 3]
    return [s for i, s in enumerate(samples, 1) if i % every], samples[every - 1 :: every]
# %%
@check 1.4

=== asyncio.run fails in a kernel: 1.3 failed
# %%
import asyncio
async def load():
    return np.float32
kind = None
kind = asyncio.run(load())
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind.__name__)
# %%
@check 1.3

=== asyncio.run in the answer itself: 1.3 failed
# %%
import asyncio
# %% 1.3
def standardize(image, mean, std):
    async def inner():
        return ((np.float64(image) - mean) / std).astype(np.float32)
    return asyncio.run(inner())
# %%
@check 1.3

=== asyncio.run in an answer that is checked in the box: 2.4 failed
# %%
import asyncio
# %% 2.4
def count_parameters(model):
    async def inner():
        return sum(p.numel() for p in model.parameters() if p.requires_grad)
    return asyncio.run(inner())
# %%
@check 2.4

=== a task that a later cell waits for: 1.3 passed
# %%
import asyncio
async def work():
    await asyncio.sleep(0.05)
    return "float32"
task = asyncio.get_running_loop().create_task(work())
# %%
kind = await task
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== an async answer returns a coroutine: 1.1 failed
# %% 1.1
async def count_shapes(images):
    return dict(Counter(image.shape for image in images))
# %%
@check 1.1

=== names bound by with, for, walrus, match, star and import as: 1.1 passed
# %%
import contextlib, functools as ft
with contextlib.nullcontext(Counter) as count:
    pass
for index in range(3):
    pass
if (wanted := 2) and index == wanted:
    first, *rest = "shape", 1, 2
match {"kind": dict}:
    case {"kind": kind}:
        pass
[last := value for value in (1, 2, 3)]
# %% 1.1
def count_shapes(images):
    assert (index, wanted, rest, last) == (2, 2, [1, 2], 3)
    return kind(ft.reduce(lambda found, image: found + count([getattr(image, first)]), images, count()))
# %%
@check 1.1

=== the name of an except clause is gone afterwards: 1.3 failed
# %%
error = "float32"
try:
    1 / 0
except ZeroDivisionError as error:
    pass
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(error)
# %%
@check 1.3

=== names of a comprehension stay inside: 1.3 failed
# %%
kinds = [kind for kind in ("float64", "float32")]
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== the last value of a loop is used: 1.3 passed
# %%
for kind in ("float64", "float32"):
    pass
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== a conditional definition: 1.1 passed
# %%
try:
    from no_such_package import count
except ImportError:
    def count(images):
        return Counter(image.shape for image in images)
# %% 1.1
if hasattr(Counter, "total"):
    def count_shapes(images):
        return dict(count(images))
else:
    count_shapes = None
# %%
@check 1.1

=== a class built over cells: 1.1 passed
# %%
class Counting:
    def __init__(self):
        self.found = {}
# %%
class Counting(Counting):
    def add(self, image):
        self.found[image.shape] = self.found.get(image.shape, 0) + 1
# %%
class Counting(Counting):
    def result(self):
        return self.found
# %% 1.1
def count_shapes(images):
    counting = Counting()
    for image in images:
        counting.add(image)
    return counting.result()
# %%
@check 1.1

=== a chain of super(): 2.1 passed
# %%
import torch
from torch import nn
class Base(nn.Module):
    def __init__(self, *channels):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(channels, channels[1:]))
class Middle(Base):
    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return x
# %% 2.1
class ConvBlock(Middle):
    def __init__(self, in_channels, out_channels):
        super(ConvBlock, self).__init__(in_channels, out_channels, out_channels)
# %%
@check 2.1

=== super() of a class that was redefined below the object: 2.1 failed
# %%
from torch import nn
# %% 2.1
class ConvBlock(nn.Module):
    def __init__(self, in_channels, out_channels):
        super(ConvBlock, self).__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
    def forward(self, x):
        return self.second(self.first(x).relu()).relu()
mine = ConvBlock
# %%
ConvBlock = None
# %%
check("2.1", mine)

=== magics of matplotlib and of a kernel: 1.1 passed, 1.2 passed, 1.3 failed, 1.4 passed, 1.6 passed
# %%
%matplotlib widget
a = 1
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std / a).astype("float32")
# %%
@check 1.3
# %%
%matplotlib notebook
%matplotlib qt
b = 1
# %% 1.2
def intensity_statistics(images):
    pixels = np.concatenate([image.ravel() for image in images]).astype(float) / b
    return float(pixels.mean()), float(pixels.std())
# %%
@check 1.2
# %%
%autosave 60
%clear
c = 1
# %% 1.1
def count_shapes(images):
    return dict(Counter(image.shape for image in images[::c]))
# %%
@check 1.1
# %%
%load_ext autoreload
%autoreload 2
%config InlineBackend.figure_format = "retina"
d = 1
# %% 1.4
def split_train_val(samples, every=20):
    samples = list(samples)[::d]
    return [s for i, s in enumerate(samples, 1) if i % every], samples[every - 1 :: every]
# %%
@check 1.4
# %%
%pylab inline
e = 1
# %% 1.6
def binary_target(mask):
    import torch
    return torch.from_numpy(array(mask > 0).astype("float32"))[None] * e
# %%
@check 1.6

=== figures end with their cell, and warnings are errors: 1.1 passed, 1.2 passed, 1.3 passed, 1.4 passed
# %%
import warnings
warnings.simplefilter("error")
import matplotlib.pyplot as plt
plt.plot([1, 2])
# %%
assert not plt.get_fignums()
plt.plot([3])
plt.show()
n_lines = len(plt.gca().lines)
# %% 1.3
def standardize(image, mean, std):
    assert n_lines == 0
    return ((np.float64(image) - mean) / std).astype("float32")
plt.hist([1, 2, 3])
plt.show()
# %%
@check 1.3
# %% 1.1
def count_shapes(images):
    plt.plot([1])
    plt.show()
    assert not plt.get_fignums() and "inline" in plt.get_backend()
    return dict(Counter(image.shape for image in images))
# %%
@check 1.1
# %%
for _ in range(15):
    plt.figure(figsize=(1, 1))
# %%
for _ in range(15):
    plt.figure(figsize=(1, 1))
every_nth = 20
# %% 1.4
def split_train_val(samples, every=every_nth):
    samples = list(samples)
    return [s for i, s in enumerate(samples, 1) if i % every], samples[every - 1 :: every]
# %%
@check 1.4
# %%
ran = []
get_ipython().events.register("post_run_cell", lambda result: ran.append(result))
# %% 1.2
@right 1.2
assert ran
# %%
@check 1.2

=== exercises of three notebooks in one: 1.1 passed, 1.3 passed, 2.4 passed, 4.2 passed, 4.4 failed
# %% 1.1
@right 1.1
# %%
@check 1.1
# %% 1.3
@right 1.3
# %%
@check 1.3
# %% 4.2
@right 4.2
# %%
@check 4.2
# %% 4.4
def count_matches(iou, iou_threshold=0.5):
    return int((iou >= iou_threshold).sum())
# %%
@check 4.4
# %% 2.4
@right 2.4
# %%
@check 2.4
@check 1.1

=== overlaps computed anew for each threshold: 4.6 failed
# %%
from course_utils.metrics import count_matches
# %% 4.6
def average_precision(prediction, truth, iou_thresholds):
    scores = []
    for threshold in iou_thresholds:
        (p, i), (t, j) = (np.unique(labels, return_inverse=True) for labels in (prediction, truth))
        both = np.bincount(i.ravel() * len(t) + j.ravel(), minlength=len(p) * len(t)).reshape(len(p), len(t))
        iou = (both / (both.sum(1, keepdims=True) + both.sum(0) - both))[p != 0][:, t != 0]
        n, matched = sum(iou.shape), count_matches(iou, threshold)
        scores.append(matched / (n - matched) if n else 1.0)
    return scores
# %%
@check 4.6

=== a loss for torch's compiler: 3.1 passed
# %%
import torch
# %% 3.1
@torch.compile
def binary_cross_entropy(logits, target):
    if logits.shape != target.shape:
        raise ValueError("The shapes differ.")
    return (torch.nn.functional.softplus(logits) - target * logits).mean()
# %%
@check 3.1

=== a cell that computes for a quarter of a minute: 1.1 passed
# %%
import time
end = time.thread_time() + 15
while time.thread_time() < end:
    pass
done = True
# %% 1.1
def count_shapes(images):
    return dict(Counter(image.shape for image in images)) if done else {}
# %%
@check 1.1

=== a dataclass, an enum and a NamedTuple: 1.1 passed
# %%
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
class Kind(enum.Enum):
    SHAPE = "shape"
class Size(NamedTuple):
    height: int
    width: int
@dataclass
class Table:
    rows: dict = field(default_factory=dict)
    def add(self, key: Size):
        self.rows[key] = self.rows.get(key, 0) + 1
# %% 1.1
def count_shapes(images):
    table = Table()
    for image in images:
        table.add(Size(*getattr(image, Kind.SHAPE.value)))
    return {tuple(key): value for key, value in table.rows.items()}
# %%
@check 1.1

=== a metaclass and __init_subclass__ collect: 1.1 passed
# %%
class Meta(type):
    def __call__(cls, *arguments):
        return super().__call__(*arguments).run()
class Collecting:
    known = []
    def __init_subclass__(cls, **options):
        Collecting.known.append(cls)
# %%
class Shapes(Collecting, metaclass=Meta):
    def __init__(self, images):
        self.images = images
    def run(self):
        return dict(Counter(image.shape for image in self.images))
# %%
count_shapes = Collecting.known[-1]
@check 1.1

=== closures over the variable of a loop: 1.3 failed
# %%
makers = {}
for kind in ("float32", "float64"):
    makers[kind] = lambda array: array.astype(kind)
# %% 1.3
def standardize(image, mean, std):
    return makers["float32"]((np.float64(image) - mean) / std)
# %%
@check 1.3

=== a closure with a default evaluated early: 1.3 passed
# %%
makers = {}
for kind in ("float32", "float64"):
    makers[kind] = lambda array, kind=kind: array.astype(kind)
# %% 1.3
def standardize(image, mean, std):
    return makers["float32"]((np.float64(image) - mean) / std)
# %%
@check 1.3

=== a default evaluated before the name changes: 1.3 failed
# %%
kind = "float64"
# %% 1.3
def standardize(image, mean, std, kind=kind):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
kind = "float32"
# %%
@check 1.3

=== a mutable default that grows: 1.1 failed
# %% 1.1
def count_shapes(images, found={}):
    for image in images:
        found[image.shape] = found.get(image.shape, 0) + 1
    return found
# %%
@check 1.1

=== nonlocal, generators and context managers: 1.1 passed
# %%
from contextlib import contextmanager
@contextmanager
def counting():
    found = {}
    def add(shape):
        nonlocal found
        found = found | {shape: found.get(shape, 0) + 1}
    yield add, lambda: found
# %% 1.1
def count_shapes(images):
    def shapes():
        for image in images:
            yield image.shape
    with counting() as (add, result):
        for shape in shapes():
            add(shape)
    return result()
# %%
@check 1.1

=== a generator used up by an earlier cell: 1.3 failed
# %%
kinds = (kind for kind in ["float32"])
list(kinds)
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(next(kinds))
# %%
@check 1.3

=== an answer that is a generator: 1.4 failed
# %% 1.4
def split_train_val(samples, every=20):
    yield [s for i, s in enumerate(samples, 1) if i % every]
    yield [s for i, s in enumerate(samples, 1) if not i % every]
# %%
@check 1.4

=== redefined in a later cell above the check: 1.1 passed
# %% 1.1
def count_shapes(images):
    return {}
# %%
@right 1.1
# %%
@check 1.1

=== redefined wrongly in a scratch cell above the check: 1.1 failed
# %% 1.1
@right 1.1
# %%
def count_shapes(image):
    return image.shape
# %%
@check 1.1

=== a name of the answer deleted before the check: 1.1 failed
# %%
def shape_of(image):
    return image.shape
# %% 1.1
def count_shapes(images):
    return dict(Counter(map(shape_of, images)))
# %%
del shape_of
# %%
@check 1.1

=== the answer deleted before the check: none
# %% 1.1
@right 1.1
# %%
del count_shapes
# %%
@check 1.1

=== recursion by its own name: 1.4 passed
# %% 1.4
def split_train_val(samples, every=20):
    if len(samples) < every:
        return list(samples), []
    train, val = split_train_val(samples[every:], every)
    return [*samples[: every - 1], *train], [samples[every - 1], *val]
# %%
@check 1.4

=== recursion without an end: 1.1 failed
# %% 1.1
def count_shapes(images):
    return count_shapes(images)
# %%
@check 1.1

=== an answer under another name: 1.1 passed
# %%
def my_shapes(images):
    return dict(Counter(image.shape for image in images))
# %%
count_shapes = check("1.1", my_shapes)

=== an answer under another name, and a wrong one under the right name: 1.1 passed
# %% 1.1
def count_shapes(images):
    return {}
# %%
def my_shapes(images):
    return dict(Counter(image.shape for image in images))
# %%
check("1.1", my_shapes)

=== a lambda in the call of check: 1.3 passed
# %%
check("1.3", lambda image, mean, std: np.float32((np.float64(image) - mean) / std))

=== check by another name and with a name for the id: 1.1 passed
# %%
import course_utils.exercises as exercises
which = "1.1"
# %% 1.1
@right 1.1
# %%
exercises.check(exercise_id=which, submission=count_shapes)

=== an instance with __call__: 1.3 passed
# %%
class Standardize:
    def __init__(self, dtype):
        self.dtype = dtype
    def __call__(self, image, mean, std):
        return ((np.float64(image) - mean) / std).astype(self.dtype)
# %% 1.3
standardize = Standardize("float32")
# %%
@check 1.3

=== bound methods and static methods: 1.1 passed, 1.3 passed
# %%
class Answers:
    kind = "float32"
    @staticmethod
    def shapes(images):
        return dict(Counter(image.shape for image in images))
    def scale(self, image, mean, std):
        return ((np.float64(image) - mean) / std).astype(self.kind)
# %% 1.1
count_shapes = Answers.shapes
# %%
@check 1.1
# %% 1.3
standardize = Answers().scale
# %%
@check 1.3

=== check called twice, first wrong, then right: 1.1 passed
# %% 1.1
def count_shapes(images):
    return {}
# %%
@check 1.1
# %%
@right 1.1
# %%
@check 1.1

=== check called twice, first right, then wrong: 1.1 failed
# %% 1.1
@right 1.1
# %%
@check 1.1
# %%
def count_shapes(images):
    return {}
# %%
@check 1.1

=== check called again after a failure, with the reference bound: 1.1 failed
# %% 1.1
def count_shapes(images):
    return {}
# %%
@check 1.1
# %%
@check 1.1

=== what a failed check kept is mended: 1.1 passed
# %% 1.1
def count_shapes(images):
    return {}
# %%
@check 1.1
# %%
def your_count_shapes(images):
    return dict(Counter(image.shape for image in images))
# %%
@check 1.1

=== check in a loop over several exercises: 1.1 passed, 1.3 failed, 1.4 passed
# %%
@right 1.1
def standardize(image, mean, std):
    return image
@right 1.4
# %%
for exercise, answer in {"1.1": count_shapes, "1.3": standardize, "1.4": split_train_val}.items():
    check(exercise, answer)

=== check in a function: 1.1 passed
# %%
def finish(**answers):
    return [check(f"1.{number}", answers[name]) for number, name in enumerate(answers, 1)]
# %% 1.1
@right 1.1
# %%
finish(count_shapes=count_shapes)

=== the check cell moved above the answer, and below as well: 1.1 passed
# %%
try:
    check("1.1", count_shapes)
except NameError as error:
    print(error)
# %% 1.1
@right 1.1
# %%
@check 1.1

=== a check cell with more in it: 1.1 passed
# %% 1.1
@right 1.1
# %%
example = [np.zeros((2, 3))]
print(count_shapes(example))
count_shapes = check("1.1", count_shapes); assert count_shapes(example) == {(2, 3): 1}

=== the check behind an error in its own cell: none
# %% 1.1
@right 1.1
# %%
print(count_shapes(None))
@check 1.1

=== an error before the definition in the same cell: none
# %% 1.1
values = [1, 2][5]
@right 1.1
# %%
@check 1.1

=== an error behind the definition in the same cell: 1.1 passed
# %% 1.1
@right 1.1
count_shapes(5)
# %%
@check 1.1

=== a failed assert between keeps the old definition: 1.1 failed
# %% 1.1
def count_shapes(images):
    return {}
# %%
assert count_shapes([np.zeros((1, 1))]) == {(1, 1): 1}
@right 1.1
# %%
@check 1.1

=== a syntax error in the answer's cell: none
# %% 1.1
def count_shapes(images)
    return {}
# %%
@check 1.1

=== a syntax error below the stub leaves the stub: 1.1 todo
# %% 1.1
@stub 1.1
# %%
def count_shapes(images):
    return dict(Counter(image.shape for image in images)
# %%
@check 1.1

=== unfinished in many ways: 1.1 failed, 1.2 failed, 1.3 failed, 1.4 todo, 1.5 failed, 1.6 todo
# %% 1.1
def count_shapes(images):
    pass
# %%
@check 1.1
# %% 1.2
def intensity_statistics(images):
    ...
# %%
@check 1.2
# %% 1.3
def standardize(image, mean, std):
    return None
# %%
@check 1.3
# %% 1.4
def split_train_val(samples, every=20):
    train = [sample for index, sample in enumerate(samples) if (index + 1) % every]
    raise NotImplementedError
# %%
@check 1.4
# %% 1.5
def random_crop(image, mask, size, rng):
    raise
# %%
@check 1.5
# %% 1.6
def binary_target(mask):
    helper = lambda: (_ for _ in ()).throw(NotImplementedError("later"))
    raise NotImplementedError("later") from None
# %%
@check 1.6

=== names of a star import of the course's helpers: 1.2 passed
# %%
from math import *
from statistics import *
# %% 1.2
def intensity_statistics(images):
    pixels = np.concatenate([image.ravel() for image in images]).astype(float).tolist()
    middle = fsum(pixels) / len(pixels)
    return middle, sqrt(fsum((pixel - middle) ** 2 for pixel in pixels) / len(pixels))
# %%
@check 1.2

=== annotations are evaluated where the cell runs: 1.1 todo
# %%
@stub 1.1
# %% 1.1
def count_shapes(images: Iterabel[np.ndarray]) -> dict:
    return dict(Counter(image.shape for image in images))
# %%
@check 1.1

=== annotations of the future are not: 1.1 passed
# %%
from __future__ import annotations
# %% 1.1
def count_shapes(images: Iterabel[np.ndarray]) -> dict:
    return dict(Counter(image.shape for image in images))
# %%
@check 1.1

=== under the name of a script: 1.1 passed
# %% 1.1
def count_shapes(images):
    raise NotImplementedError
# %%
if __name__ == "__main__":
    def count_shapes(images):
        return dict(Counter(image.shape for image in images))
# %%
@check 1.1

=== __file__ is missing in a kernel: 1.3 failed
# %%
kind = "float64"
here = __file__
# %%
try:
    print(__file__)
    kind = "float32"
except NameError:
    pass
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== In, Out, the underscore and display: 1.3 passed
# %%
"float32"
# %%
kind = _
display(kind, {"text/plain": kind}, raw=True)
# %%
count = len(In), sorted(Out)
# %% 1.3
def standardize(image, mean, std):
    assert count[1] and "kind = _" in In[3]
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== input() has nobody to ask: 1.3 failed
# %%
kind = "float64"
try:
    kind = input("float32?") or "float32"
except EOFError:
    kind = "float32"
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind)
# %%
@check 1.3

=== get_ipython is there: 1.3 passed
# %%
shell = get_ipython()
shell.run_line_magic("matplotlib", "inline")
shell.user_ns["kind"] = "float32"
shell.run_cell("more = 1")
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kind if more else None)
# %%
@check 1.3

=== Unicode names are normalised: 1.3 passed
# %%
ﬁrst = "float32"
größe = 1
# %% 1.3
def standardize(image, mean, std):
    μ, σ = mean, std
    return ((np.float64(image) - μ) / σ / größe).astype(first)
# %%
@check 1.3

=== tabs and semicolons: 1.1 passed
# %% 1.1
def count_shapes(images):
	found = {}; shapes = [image.shape for image in images]
	for shape in shapes: found[shape] = found.get(shape, 0) + 1
	return found;
# %%
count_shapes = check("1.1", count_shapes);

=== tabs and blanks mixed: none
# %% 1.1
def count_shapes(images):
	found = {}
        return found
# %%
@check 1.1

=== lines pasted from a prompt: 1.1 passed
# %% 1.1
>>> def count_shapes(images):
...     return dict(Counter(image.shape for image in images))
# %%
@check 1.1

=== the precision of torch changed in another cell: 1.6 failed
# %%
import torch
torch.set_default_dtype(torch.float64)
# %% 1.6
def binary_target(mask):
    return torch.tensor((mask > 0).tolist(), dtype=torch.get_default_dtype())[None]
# %%
@check 1.6

=== gradients switched off in another cell: 3.1 failed
# %%
import torch
torch.set_grad_enabled(False)
# %% 3.1
def binary_cross_entropy(logits, target):
    if logits.shape != target.shape:
        raise ValueError(f"{logits.shape} is not {target.shape}")
    return (logits.clamp(min=0) - logits * target + torch.log1p(torch.exp(-logits.abs()))).mean()
# %%
@check 3.1

=== the same with gradients: 3.1 passed
# %%
import torch
torch.manual_seed(3)
torch.set_printoptions(precision=2)
# %% 3.1
def binary_cross_entropy(logits, target):
    if logits.shape != target.shape:
        raise ValueError(f"{logits.shape} is not {target.shape}")
    return (logits.clamp(min=0) - logits * target + torch.nn.functional.softplus(-logits.abs())).mean()
# %%
@check 3.1

=== numpy raises on errors, warnings are errors: 1.3 passed
# %%
import warnings
warnings.simplefilter("error")
np.seterr(all="raise")
np.set_printoptions(precision=1)
np.random.seed(1)
# %% 1.3
@right 1.3
# %%
@check 1.3

=== random state that an answer draws from: 1.5 failed
# %%
np.random.seed(0)
# %% 1.5
def random_crop(image, mask, size, rng):
    y, x = (np.random.randint(side - size + 1) for side in image.shape)
    return image[y : y + size, x : x + size], mask[y : y + size, x : x + size]
# %%
@check 1.5

=== an honest patch of a library: 1.3 passed
# %%
np.float = float
np.int = int
# %% 1.3
def standardize(image, mean, std):
    return ((image.astype(np.float) - mean) / np.float(std)).astype(np.float32)
# %%
@check 1.3

=== a figure is open and styled: 1.1 passed
# %%
import matplotlib.pyplot as plt
plt.rcParams["figure.dpi"] = 40
figure, axes = plt.subplots()
axes.plot([1, 2, 3])
plt.show()
# %% 1.1
@right 1.1
# %%
@check 1.1

=== threads: 1.1 passed
# %%
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, Thread
lock, seen = Lock(), []
thread = Thread(target=lambda: seen.append(1))
thread.start(); thread.join()
# %% 1.1
def count_shapes(images):
    with lock, ThreadPoolExecutor(2) as pool:
        return dict(Counter(pool.map(np.shape, images)) if seen else ())
# %%
@check 1.1

=== processes that fork: 1.3 passed
# %%
import multiprocessing
def kind_of(number):
    return ["float64", "float32"][number]
with multiprocessing.get_context("fork").Pool(1) as pool:
    kinds = pool.map(kind_of, [0, 1])
# %% 1.3
def standardize(image, mean, std):
    return ((np.float64(image) - mean) / std).astype(kinds[1])
# %%
@check 1.3

=== another folder, another environment, another path: 1.1 passed
# %%
import os, sys
os.makedirs("below", exist_ok=True)
os.chdir("below")
with open("deep_module.py", "w") as file:
    file.write("def shape(image): return image.shape")
sys.path.append(os.getcwd())
os.environ["MY_KIND"] = "dict"
import deep_module
# %% 1.1
def count_shapes(images):
    return {"dict": dict}[os.environ["MY_KIND"]](Counter(map(deep_module.shape, images)))
# %%
@check 1.1

=== pickled and copied objects: 1.1 passed
# %%
import copy, pickle
class Counting:
    def __call__(self, images):
        return dict(Counter(image.shape for image in images))
again = pickle.loads(pickle.dumps(Counting()))
# %% 1.1
count_shapes = copy.deepcopy(again)
# %%
@check 1.1

=== an exercise that builds on one that passed: 4.3 passed, 4.4 passed, 4.5 passed
# %%
from scipy.optimize import linear_sum_assignment
from course_utils.arguments import check_arguments
# %% 4.3
@right 4.3
# %%
@check 4.3
# %% 4.4
@right 4.4
# %%
@check 4.4
# %% 4.5
@right 4.5
# %%
@check 4.5

=== an exercise that builds on ones that failed goes on with the reference: 4.3 failed, 4.4 todo, 4.5 passed
# %%
from scipy.optimize import linear_sum_assignment
from course_utils.arguments import check_arguments
# %% 4.3
def iou_matrix(prediction, truth):
    return np.zeros((2, 2))
# %%
@check 4.3
# %% 4.4
@stub 4.4
# %%
@check 4.4
# %% 4.5
@right 4.5
# %%
@check 4.5

=== an exercise that keeps the wrong object of an earlier one: 4.3 failed, 4.5 failed
# %%
from course_utils.metrics import count_matches
from course_utils.arguments import check_arguments
# %% 4.3
def iou_matrix(prediction, truth):
    return np.zeros((2, 2))
mine = iou_matrix
# %%
@check 4.3
# %% 4.5
def f1_score(prediction, truth, iou_threshold=0.5):
    iou = mine(prediction, truth)
    return 2 * count_matches(iou, iou_threshold) / max(1, sum(iou.shape))
# %%
@check 4.5

=== the blocks of a network over several cells: 2.1 passed, 2.2 passed, 2.3 passed, 2.4 passed
# %%
import torch
from torch import nn
from course_utils.arguments import check_arguments
# %% 2.1
@right 2.1
# %%
@check 2.1
# %% 2.2
@right 2.2
# %%
@check 2.2
# %% 2.3
@right 2.3
# %%
@check 2.3
# %% 2.4
@right 2.4
# %%
@check 2.4

=== a network of own parts: 2.1 failed, 2.2 passed, 2.5 passed
# %%
import torch
from torch import nn
def double(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU())
# %% 2.1
class ConvBlock(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv = nn.Conv2d(a, b, 3)
    def forward(self, x):
        return self.conv(x)
# %%
@check 2.1
# %% 2.2
class UpBlock(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.convs = double(2 * out_channels, out_channels)
    def forward(self, x, skip):
        return self.convs(torch.cat([skip, self.up(x)], dim=1))
# %%
@check 2.2
# %% 2.5
def pad_to_multiple(image, multiple=16):
    height, width = image.shape
    return np.pad(image, [(0, -height % multiple), (0, -width % multiple)], mode="reflect"), (height, width)
# %%
@check 2.5

=== training with helpers of other cells: 3.2 passed, 3.3 passed, 3.4 failed
# %%
import torch
def each(loader, device):
    for images, targets in loader:
        yield images.to(device), targets.to(device)
# %% 3.2
def dice_score(logits, target):
    if logits.shape != target.shape:
        raise ValueError("shapes differ")
    p, t = torch.sigmoid(logits.float()).flatten(2), target.float().flatten(2)
    total = p.sum(-1) + t.sum(-1)
    return torch.where(total == 0, 1.0, 2 * (p * t).sum(-1) / total.clamp(min=1e-9)).mean()
# %%
@check 3.2
# %% 3.3
def train_epoch(model, loader, loss_fn, optimizer, metric=None):
    device = next(model.parameters()).device
    model.train()
    loss_sum = metric_sum = n = 0
    for images, targets in each(loader, device):
        optimizer.zero_grad()
        logits = model(images)
        loss = loss_fn(logits, targets)
        if metric is not None:
            with torch.no_grad():
                metric_sum += float(metric(logits.detach(), targets)) * len(images)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(images)
        n += len(images)
    return loss_sum / n, None if metric is None else metric_sum / n
# %%
@check 3.3
# %% 3.4
def validate(model, loader, loss_fn, metric=None):
    losses = [loss_fn(model(images), targets).item() for images, targets in each(loader, "cpu")]
    return sum(losses) / len(losses), None
# %%
@check 3.4

=== instances with a helper found through a dict: 5.1 passed, 5.2 passed
# %%
import torch
from skimage.measure import label
from skimage.segmentation import find_boundaries, watershed
tools = dict(edges=find_boundaries)
tools["grow"] = watershed
# %% 5.1
def boundary_target(mask, mode="inner"):
    target = (mask > 0).astype("int64")
    target[tools["edges"](mask, mode=mode)] = 2
    return torch.from_numpy(target)
# %%
@check 5.1
# %% 5.2
def watershed_instances(foreground, boundary, threshold=0.5):
    foreground, boundary = foreground.astype(float), boundary.astype(float)
    mask = foreground + boundary > 0.5
    return tools["grow"](boundary, markers=label((foreground - boundary > threshold) & mask), mask=mask)
# %%
@check 5.2

=== a patched function of the notebook's own module below an import: 4.2 passed
# %%
import skimage.measure
from functools import wraps
calls = []
original = skimage.measure.label
@wraps(original)
def counted(*arguments, **options):
    calls.append(1)
    return original(*arguments, **options)
# %% 4.2
def connected_components(probability, threshold=0.5):
    return counted(probability > threshold)
# %%
@check 4.2

=== a predict that counts its calls in a global: 4.1 passed
# %%
import torch
n_calls = 0
# %% 4.1
def predict(model, image):
    global n_calls
    n_calls += 1
    was_training, (height, width) = model.training, image.shape
    model.eval()
    try:
        divisor = getattr(model, "divisor", 1)
        padded = np.pad(image, [(0, -side % 16) for side in image.shape], mode="reflect")
        with torch.no_grad():
            device = next(model.parameters()).device
            logits = model(torch.from_numpy(np.float32(padded))[None, None].to(device))[0, :, :height, :width]
    finally:
        model.train(was_training)
    p = torch.sigmoid(logits) if len(logits) == 1 else torch.softmax(logits, 0)
    return p.cpu().numpy()
# %%
@check 4.1

=== an answer that keeps state between its calls: 1.1 failed
# %%
seen = []
# %% 1.1
def count_shapes(images):
    seen.extend(image.shape for image in images)
    return dict(Counter(seen))
# %%
@check 1.1

=== an answer that changes its argument: 1.3 failed
# %% 1.3
def standardize(image, mean, std):
    if image.dtype.kind == "f":
        image -= mean
        mean = 0
    return ((np.float64(image) - mean) / std).astype("float32")
# %%
@check 1.3

=== SystemExit raised by a cell: 1.1 passed
# %%
raise SystemExit
# %% 1.1
@right 1.1
# %%
@check 1.1

=== an exception class of one's own, raised by a cell: 1.1 passed
# %%
class Sorry(BaseException):
    pass
raise Sorry("really")
# %% 1.1
@right 1.1
# %%
@check 1.1

=== KeyboardInterrupt raised by a cell: 1.1 passed
# %%
raise KeyboardInterrupt
# %% 1.1
@right 1.1
# %%
@check 1.1

=== the class of an answer, made by type(): 1.7 todo, 2.4 passed
# %%
import types
def forward(self, index):
    raise NotImplementedError("later")
NucleiDataset = type("NucleiDataset", (), {"__init__": lambda self, *a, **k: None, "__getitem__": forward,
                                           "__len__": lambda self: 3})
# %%
@check 1.7
# %% 2.4
@right 2.4
# %%
@check 2.4

=== printing in an answer: 1.1 passed
# %% 1.1
def count_shapes(images):
    images = list(images)
    print("counting", len(images))
    import sys
    print("oh", file=sys.stderr)
    sys.stdout.write("x")
    sys.stdout.flush()
    return dict(Counter(image.shape for image in images))
# %%
@check 1.1

=== contextlib.redirect_stdout around cells: 1.1 passed
# %%
import contextlib, io, sys
buffer = io.StringIO()
with contextlib.redirect_stdout(buffer):
    print("caught")
sys.stdout.write(buffer.getvalue())
sys.stderr.write("oh")
# %% 1.1
@right 1.1
# %%
@check 1.1
'''
OTHERS = r'''
=== a crash in an answer costs only its exercise: 4.1 todo, 4.2 failed, 4.3 todo, 4.4 passed, 4.5 todo, 4.6 todo
# %%
from course_utils.arguments import check_arguments
from scipy.optimize import linear_sum_assignment
# %% 4.2
def connected_components(probability, threshold=0.5):
    import os
    os.abort()
# %%
@check 4.2
# %% 4.4
@right 4.4
# %%
@check 4.4

=== a crash in a cell costs only this cell: 5.1 todo, 5.2 passed, 5.3 todo
# %%
import os
os._exit(3)
# %%
from skimage.measure import label
from skimage.segmentation import watershed
from course_utils.arguments import check_arguments
# %% 5.2
@right 5.2
# %%
@check 5.2

=== without a check cell: 2.1 todo, 2.2 todo, 2.3 todo, 2.4 passed, 2.5 failed
# %% 2.4
@right 2.4
# %% 2.5
def pad_to_multiple(image, multiple=16):
    return image
# %%
print("the end")

=== without a check cell, what the name means at the end: 5.1 todo, 5.2 todo, 5.3 failed
# %% 5.3
from course_utils.exploration import split_train_val
def find_best_threshold(*arguments):
    return find(*arguments)
# %%
def find(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5):
    return 0.5, {}

=== defined only below its check: 2.1 todo, 2.2 todo, 2.3 todo, 2.4 todo, 2.5 todo
# %%
@check 2.4
# %% 2.4
@right 2.4

=== the check with the id of no exercise: 2.1 todo, 2.2 todo, 2.3 todo, 2.4 passed, 2.5 todo
# %% 2.4
@right 2.4
# %%
count_parameters = check("2.12", count_parameters)

=== check means something else: 2.1 todo, 2.2 todo, 2.3 todo, 2.4 failed, 2.5 todo
# %% 2.4
def check(exercise, answer):
    print("passed")
    return answer
def count_parameters(model):
    return 0
# %%
@check 2.4
'''
