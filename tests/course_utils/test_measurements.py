"""Exercises 8.1 and 8.2: what is measured of every instance."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_utils.measurements import measure_instances, median_diameter

COLUMNS = ["id", "area", "diameter", "mean_intensity", "centroid_y", "centroid_x", "touches_border"]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
LABELS = hnp.arrays(np.int64, SHAPES, elements=st.sampled_from([0, 0, 3, 4, 70000, 2**40]))


def image_for(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, labels.shape).astype(np.uint16)


def by_hand(labels: np.ndarray, image: np.ndarray, pixel_size: float) -> list[list]:
    """The rows, pixel by pixel."""
    pixels = {}
    for (y, x), id_ in np.ndenumerate(labels):
        if id_:
            pixels.setdefault(int(id_), []).append((y, x))
    rows, (height, width) = [], labels.shape
    for id_, places in sorted(pixels.items()):
        ys, xs = zip(*places, strict=True)
        area = len(places) * pixel_size**2
        mean = sum(int(image[place]) for place in places) / len(places)
        border = min(ys) == 0 or min(xs) == 0 or max(ys) == height - 1 or max(xs) == width - 1
        centroid = sum(ys) / len(ys), sum(xs) / len(xs)
        rows.append([id_, area, 2 * math.sqrt(area / math.pi), mean, *centroid, border])
    return rows


# 8.1 median_diameter


@given(LABELS)
def test_median_diameter_is_the_median_of_the_column(labels):
    before = labels.copy()
    found = median_diameter(labels)
    assert type(found) is float
    diameters = [row[2] for row in by_hand(labels, labels, 1.0)]
    assert found == pytest.approx(np.median(diameters) if diameters else math.nan, nan_ok=True)
    assert np.array_equal(labels, before)


@given(labels=LABELS, factor=st.integers(1, 4))
def test_the_diameter_grows_with_the_image(labels, factor):
    large = labels.repeat(factor, axis=0).repeat(factor, axis=1)
    assert median_diameter(large) == pytest.approx(factor * median_diameter(labels), nan_ok=True)


def test_without_instances_the_diameter_is_nan_without_a_warning():
    assert math.isnan(median_diameter(np.zeros((3, 4), np.uint8)))


# 8.2 measure_instances


@given(labels=LABELS, pixel_size=st.sampled_from([1.0, 0.25, 3]))
def test_every_column_is_what_a_loop_over_the_pixels_gives(labels, pixel_size):
    image = image_for(labels)
    before = labels.copy(), image.copy()
    table = measure_instances(labels, image, pixel_size)
    assert list(table.columns) == COLUMNS
    rows = by_hand(labels, image, pixel_size)
    assert table["id"].tolist() == [row[0] for row in rows]
    assert table["touches_border"].tolist() == [row[-1] for row in rows]
    np.testing.assert_allclose(table[COLUMNS[1:-1]].to_numpy(float).reshape(-1, 5), [r[1:-1] for r in rows] or
                               np.empty((0, 5)))  # fmt: skip
    assert np.array_equal(labels, before[0]) and np.array_equal(image, before[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.uint64])
def test_any_integer_dtype_gives_the_same_types_of_columns_with_and_without_instances(dtype):
    labels = np.zeros((6, 7), dtype)
    image = image_for(labels)
    empty = measure_instances(labels, image)
    labels[1:3, 1:4], labels[4:, 5:] = 9, 200
    full = measure_instances(labels[:, ::-1], image)
    for table, n in ((empty, 0), (full, 2)):
        assert [kind.kind for kind in table.dtypes[1:]] == [*"fffffb"]
        assert table.dtypes.iloc[0].kind in "iu"
        assert table.index.tolist() == list(range(n))
    assert pd.concat([empty, full]).dtypes.equals(full.dtypes)
    assert full["touches_border"].tolist() == [False, True]


def test_a_nucleus_that_is_the_whole_image_is_one_row():
    table = measure_instances(np.full((3, 5), 2**31 - 1), np.ones((3, 5)))
    assert table[["id", "area", "touches_border"]].values.tolist() == [[2**31 - 1, 15, True]]


def test_pixels_apart_with_one_id_are_one_instance():
    labels = np.array([[0, 0, 0, 0, 0], [0, 5, 0, 5, 0], [0, 0, 0, 0, 0]])
    assert measure_instances(labels, labels)[["area", "centroid_x"]].values.tolist() == [[2, 2]]
    assert median_diameter(labels) == pytest.approx(math.sqrt(8 / math.pi))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros((3, 4), int), np.zeros((4, 3))), r"same shape, but have \(3, 4\) and \(4, 3\)"),
        ((np.zeros((3, 4), int), np.zeros((3, 4, 3))), "2-dimensional"),
        ((np.zeros((3, 4)), np.zeros((3, 4))), "label it first"),
        ((np.full((3, 4), -1), np.zeros((3, 4))), "from -1 to -1"),
        ((np.zeros((3, 4), int), np.zeros((3, 4)), 0), "pixel_size must be a number above 0 and at most .*, but is 0"),
        ((np.zeros((3, 4), int), np.zeros((3, 4)), "0.5 um"), "pixel_size .* but is '0.5 um'"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_it(arguments, words):
    with pytest.raises(ValueError, match=words):
        measure_instances(*arguments)


def test_pandas_is_loaded_by_the_table_only():
    source = Path(sys.modules[measure_instances.__module__].__file__).read_text(encoding="utf-8")
    assert "\nimport pandas" not in source
