"""What solutions of notebooks 06 to 08 do with inputs that nobody knows before: see `observations`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from course_utils.exercises.checks.notebook_08 import COLUMNS
from workshop.grade.judge import inputs as draw
from workshop.grade.judge.observing import raised, use

Rng = np.random.Generator


# Notebook 08


def _label_images(rng: Rng) -> list[np.ndarray]:
    """Those of `label_pairs`, with ids below 10^6: scikit-image takes memory for each number up to the largest."""
    return [(one.astype(np.int64) % 999_983).astype(one.dtype) for pair in draw.label_pairs(rng) for one in pair]


def observe_median_diameter(median_diameter: Callable, rng: Rng) -> list:
    return [use(median_diameter, labels) for labels in _label_images(rng)]


def observe_measure_instances(measure_instances: Callable, rng: Rng) -> list:
    """The columns of each table, numbers as float64 except the ids, and the arguments, which must not change."""
    found, types = [], [(np.uint8, 256), (np.uint16, 65536), (np.float32, 1)]
    for number, labels in enumerate(_label_images(rng)):
        dtype, top = types[number % 3]
        image, sizes = (top * rng.random(labels.shape)).astype(dtype), rng.uniform(0.1, 4, int(number % 4 > 0)).tolist()
        table = measure_instances(labels, image, *sizes)
        columns = [table[column].to_numpy() for column in COLUMNS]
        columns[1:-1] = [values.astype(np.float64) for values in columns[1:-1]]
        columns[0] = columns[0].astype(np.int64) if columns[0].dtype.kind in "iu" else columns[0]
        found.append([len(table), columns if len(table) else [], labels, image])
    shapes = [((4, 6), (6, 4)), ((4, 6), (4, 5)), ((4, 6), (1, 6))]
    calls = (partial(measure_instances, np.ones(a, np.int32), np.ones(b)) for a, b in shapes)
    return [*found, [raised(call) for call in calls]]
