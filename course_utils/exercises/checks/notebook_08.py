"""The checks of notebook 08."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from skimage.measure import label
from skimage.segmentation import clear_border

from course_utils.exercises.feedback import (
    CheckFailed,
    check_part,
    diagnosis,
    expect_callable,
    expect_error,
    expect_float,
    expect_type,
    fail,
    shown,
    untouched,
)
from course_utils.exercises.pictures import Panel, Panels


def _nuclei() -> np.ndarray:
    """Six nuclei with gaps in their ids: two touch, four touch the border, each another side of the image."""
    labels = np.zeros((18, 25), dtype=np.int32)
    labels[0:3, 9:13] = 40  # above
    labels[5:9, 0:2] = 3  # left
    labels[5:11, 5:10], labels[6:10, 10:17] = 250, 7
    labels[7, 12:16] = 0  # a hollow
    labels[12:15, 22:25] = 12  # right
    labels[15:18, 4:9] = 5  # below
    return labels


def _large() -> np.ndarray:
    labels = np.zeros((30, 21), dtype=np.int32)
    labels[2:20, 1:16], labels[24:27, 4:9], labels[22:28, 13:17] = 65537, 1, 1_000_000
    labels[21, 10] = 256
    return labels


def _apart() -> np.ndarray:
    """Two nuclei in several parts each: one below another one, one at the border."""
    labels = np.zeros((12, 14), dtype=np.int64)
    labels[2:4, 2:6] = labels[6:10, 3:5] = 9
    labels[2:9, 8:10] = labels[5:7, 13:14] = 4
    labels[4:6, 3:6] = 2
    return labels


def _many() -> np.ndarray:
    labels = np.zeros((40, 39), dtype=np.int32)
    labels[::2, ::2] = np.arange(400, 0, -1).reshape(20, 20)
    labels[:-1:2, 1::2] = labels[:-1:2, :-1:2] * (labels[:-1:2, :-1:2] % 3 == 0)
    return labels


def _all_nuclei() -> np.ndarray:
    return np.repeat([[6, 6, 6, 2]], 5, axis=0).astype(np.uint8)


def _image(labels: np.ndarray, dtype: Any = np.uint8, low: float = 0, high: float = 256) -> np.ndarray:
    """Noise, whose mean in an instance is neither its median nor that of other pixels; a few pixels are 0."""
    rng = np.random.default_rng(0)
    image = low + (high - low - 1) * rng.random(labels.shape) ** 2
    image[rng.random(labels.shape) < 0.1] = 0
    return image.astype(dtype)


def _ids(labels: np.ndarray) -> list[int]:
    return np.unique(labels[labels > 0]).tolist()


# 8.1 median_diameter


def check_median_diameter(median_diameter) -> None:
    expect_callable(median_diameter, "median_diameter")
    nuclei, large = _nuclei(), _large()
    every_id = "Each id but 0 is one nucleus: its area is the number of its pixels."
    cases = [
        ("five nuclei, the ids with gaps", np.where(nuclei == 7, 0, nuclei), every_id),
        ("six nuclei", nuclei.astype(np.uint16), "With an even number the median is the mean of the middle two."),
        ("two nuclei that touch", np.where(np.isin(nuclei, [7, 250]), nuclei, 0).astype(np.uint8),
         "They have two ids, so they are two nuclei."),
        ("an image without background", _all_nuclei(), "Leave out the id 0, not the first id: here there is no 0."),
        ("nuclei of several parts", _apart(), "All pixels of an id together are one nucleus."),
        ("ids up to 1000000", large, "Keep the type of the ids: a smaller one has no room for these."),
        ("a single nucleus of one pixel", (large == 256).astype(np.int64), every_id),
        ("400 nuclei", _many(), every_id),
    ]  # fmt: skip
    found, error = [], None
    for _, labels, _ in cases:
        try:
            with untouched(labels=labels):
                found.append(median_diameter(labels))
            expect_float("the result", found[-1])
        except Exception as problem:  # first what is wrong before it
            found, error = found[: len(found) - isinstance(problem, CheckFailed)], problem
            break
    _expect_medians(cases[: len(found)], found)
    if error is not None:
        raise error
    _expect_nan(median_diameter)


def _diameters(labels: np.ndarray) -> np.ndarray:
    return np.array([2 * np.sqrt(np.sum(labels == id_) / np.pi) for id_ in _ids(labels)])


@check_part()
def _expect_medians(cases: list[tuple], found: list[float]) -> None:
    expected = [float(np.median(_diameters(labels))) for _, labels, _ in cases]
    named = diagnosis(found, expected, WRONG_MEDIANS, cases=[(labels, _diameters(labels)) for _, labels, _ in cases])
    for (name, labels, look), value, right in zip(cases, found, expected, strict=True):
        if not np.isclose(value, right, rtol=1e-5):
            fail(f"Value of the median diameter ({name})", round(float(value), 4), round(right, 4), named or look,
                 partial(_medians_picture, name, labels, value, right))  # fmt: skip


def _medians_picture(name: str, labels: np.ndarray, value: float, right: float) -> Panels:
    """The label image; the nuclei in the middle, of which the median is made, are outlined."""
    diameters = _diameters(labels)
    order = np.argsort(diameters)[(len(diameters) - 1) // 2 : len(diameters) // 2 + 1]
    middle = np.isin(labels, np.array(_ids(labels))[order])
    some = ", ".join(f"{id_}: {d:.2f}" for id_, d in [*zip(_ids(labels), diameters, strict=True)][:8])
    few = len(diameters) <= 8
    return Panels(
        (Panel(f"{name}: the median is of the outlined", labels, "labels", middle.astype(int) if few else None),),
        f"The label image ({name}). Diameter of each id: {some}{'' if few else ', ...'}. "
        f"Median: found {value:.4f}, expected {right:.4f}.",
    )


# What each mistake makes of a label image x and the diameters d of its nuclei.
WRONG_MEDIANS: dict[str, Callable] = {
    "This is the mean, not the median.": lambda x, d: d.mean(),
    "This is the radius: the diameter is twice as long.": lambda x, d: np.median(d) / 2,
    "This is the diameter of the median area. With an even number of nuclei it is another number: compute each "
    "diameter first, then their median.": lambda x, d: np.sqrt(np.median(d**2)),
    "This is the diameter of the mean area: compute each diameter first, then their median.":
        lambda x, d: np.sqrt(np.mean(d**2)),
    "The background is not a nucleus: leave out the id 0.": lambda x, d: np.median([*d, *_zero(x)]),
    "The median includes a diameter of 0 for ids that are not there.":
        lambda x, d: np.median(np.pad(d, (0, max(_ids(x)) - len(d)))),
    "This is the median of the areas, not of the diameters.": lambda x, d: np.median(d**2) * np.pi / 4,
    "This is the side of the square of equal area: for the circle, area = pi / 4 * diameter ** 2.":
        lambda x, d: np.median(d) * np.sqrt(np.pi / 4),
    "This is the square of the diameter: take the root.": lambda x, d: np.median(d**2),
    "The root is missing: diameter = 2 * sqrt(area / pi).": lambda x, d: np.median(d**2) / 2,
    "This is the largest diameter.": lambda x, d: d.max(),
    "This is the smallest diameter.": lambda x, d: d.min(),
    "With an even number the median is the mean of the middle two; this is the lower one.":
        lambda x, d: np.sort(d)[(len(d) - 1) // 2],
    "With an even number the median is the mean of the middle two; this is the upper one.":
        lambda x, d: np.sort(d)[len(d) // 2],
    "The connected components of labels > 0 are not the nuclei: each id is one.":
        lambda x, d: np.median(_diameters(label(x > 0))),
    "An id is one nucleus, even if its pixels are apart.": lambda x, d: np.median(_diameters(label(x))),
    "This is the diameter of all nuclei together.": lambda x, d: np.sqrt(np.sum(d**2)),
    "Nuclei at the border count, too.": lambda x, d: np.median(_diameters(clear_border(x))),
    "This is the longer side of the bounding box, not the diameter of the circle of equal area.":
        lambda x, d: np.median([max(np.ptp(np.argwhere(x == id_), axis=0) + 1) for id_ in _ids(x)]),
    "Do not round the diameter.": lambda x, d: np.round(np.median(d)),
    "Do not round the diameter. ": lambda x, d: np.round(np.median(d), 1),
}  # fmt: skip


def _zero(labels: np.ndarray) -> np.ndarray:
    """The diameter of the background, if there is one."""
    return 2 * np.sqrt(np.array([np.sum(labels == 0)])[: 0 in labels] / np.pi)


@check_part()
def _expect_nan(median_diameter) -> None:
    look = "Without nuclei there is no diameter. 0 would be one; float('nan') says that there is none."
    try:
        found = median_diameter(np.zeros((5, 7), dtype=np.uint16))
    except NotImplementedError:
        raise
    except Exception as error:
        fail("Result without instances", f"{type(error).__name__}: {error}"[:160].rstrip("."), "nan", look)
    expect_float("the result without instances", found, "float (nan)")
    if not np.isnan(found):
        fail("Result without instances", found, "nan", look)


# 8.2 measure_instances


def check_measure_instances(measure_instances) -> None:
    expect_callable(measure_instances, "measure_instances")
    nuclei, large, apart = _nuclei(), _large(), _apart()
    by_id = "Use the pixels of this id, and all of them."
    cases = [
        ("six nuclei", nuclei, _image(nuclei), (), by_id),
        ("pixel_size=0.4", nuclei.astype(np.uint8), _image(nuclei), (0.4,),
         "pixel_size is a length: lengths grow with it, areas with its square, positions stay in pixels."),
        ("pixel_size=3 and a float image", nuclei.astype(np.uint16), _image(nuclei, np.float32, -1, 3), (3,), by_id),
        ("an image without background", _all_nuclei(), _image(_all_nuclei()), (),
         "Leave out the id 0, not the first id: here there is no 0."),
        ("nuclei of several parts", apart, _image(apart), (), "All pixels of an id together are one nucleus."),
        ("ids up to 1000000, 16-bit image", large, _image(large, np.uint16, 30000, 65536), (),
         "Keep the types: small ones have no room for such ids and sums."),
        ("400 nuclei", _many(), _image(_many()), (), by_id),
    ]  # fmt: skip
    tables, error = [], None
    for name, labels, image, size, _ in cases:
        try:
            with untouched(labels=labels, image=image):
                table = measure_instances(labels, image, *size)
            expect_type("the result", table, pd.DataFrame, "pd.DataFrame({name: values, ...}) makes a table.")
            _expect_columns(table, name)
            tables.append({column: _values(table, column) for column in COLUMNS})
        except Exception as problem:  # first what is wrong before it
            error = problem
            break
    cases = [(name, labels, _Instances(labels, image, *(size or (1.0,))), look)
             for name, labels, image, size, look in cases[: len(tables)]]  # fmt: skip
    _expect_ids(cases, [table["id"] for table in tables])
    for column in COLUMNS[1:]:
        _expect_column(column, cases, [table[column] for table in tables])
    if error is not None:
        raise error
    _expect_empty_table(measure_instances)
    for shapes in [((4, 6), (6, 4)), ((4, 6), (4, 5)), ((4, 6), (1, 6))]:
        with check_part():
            labels, image = np.ones(shapes[0], dtype=np.int32), np.ones(shapes[1])
            what = f"Result for labels {shapes[0]} and an image {shapes[1]}"
            expect_error(what, partial(measure_instances, labels, image), look="Compare the shapes first.")


COLUMNS = ("id", "area", "diameter", "mean_intensity", "centroid_y", "centroid_x", "touches_border")


def _expect_columns(table: pd.DataFrame, name: str) -> None:
    """All columns are there, in any order and once; others may be there, too."""
    names = list(table.columns)
    missing = [column for column in COLUMNS if names.count(column) != 1]
    if missing:
        look = "Each column of the task once, under its name."
        if missing[0] in table.index.names:
            look = f"{missing[0]} is the index of your table: reset_index() makes it a column."
        elif set(COLUMNS) <= set(table.index):
            look = "Rows and columns are exchanged: a row for each id."
        fail(f"Columns of the table ({name})", names, f"one column {missing[0]!r}", look)


def _values(table: pd.DataFrame, column: str) -> np.ndarray:
    values = table[column].to_numpy()
    return np.array(values.tolist()) if values.dtype.kind == "O" and len(values) else values


class _Instances:
    """An image's nuclei: id, mask, rows and columns of each pixel, and its intensities."""

    def __init__(self, labels: np.ndarray, image: np.ndarray, pixel_size: float):
        self.labels, self.image, self.size = labels, image.astype(np.float64), pixel_size
        self.ids, self.shape = _ids(labels), labels.shape
        self.masks = [labels == id_ for id_ in self.ids]
        self.places = [np.argwhere(mask) for mask in self.masks]  # (y, x)
        self.intensities = [self.image[mask] for mask in self.masks]
        self.pixels = np.array([len(place) for place in self.places], dtype=float)
        self.first, self.last = (np.array([one(place, axis=0) for place in self.places]) for one in (np.min, np.max))
        self.first_border, self.last_border = self.first == 0, self.last == np.array(self.shape) - 1

    @property
    def expected(self) -> dict[str, np.ndarray]:
        centroids = np.array([place.mean(axis=0) for place in self.places])
        return {
            "area": self.pixels * self.size**2,
            "diameter": 2 * np.sqrt(self.pixels / np.pi) * self.size,
            "mean_intensity": np.array([values.mean() for values in self.intensities]),
            "centroid_y": centroids[:, 0],
            "centroid_x": centroids[:, 1],
            "touches_border": (self.first_border | self.last_border).any(axis=1),
        }


@check_part()
def _expect_ids(cases: list[tuple], found: list[np.ndarray]) -> None:
    for (name, labels, instances, look), ids in zip(cases, found, strict=True):
        right, number = instances.ids, len(instances.ids)
        by_place = labels[labels > 0][np.sort(np.unique(labels[labels > 0], return_index=True)[1])].tolist()
        listed = ids.tolist()
        if listed == right and ids.dtype.kind in "iu":
            continue
        look = {
            "background": "The background is no instance: leave out the id 0.",
            "numbers": "Keep the ids of the label image, which tell where each row comes from; these are new ones.",
            "order": "Sort the rows by id, in ascending order.",
            "parts": "Each id is one instance, even if its pixels are apart.",
            "shifted": "Keep the ids of the label image as they are, without adding or subtracting 1.",
            "missing": "Each id but 0 has a row, also where an instance is small or touches the border.",
        }.get(
            "background" if 0 in listed else
            "numbers" if listed in (list(range(number)), list(range(1, number + 1))) else
            "order" if sorted(listed) == right or listed == by_place else
            "parts" if len(listed) > len({*listed}) else
            "shifted" if listed in ([id_ - 1 for id_ in right], [id_ + 1 for id_ in right]) else
            "missing" if {*listed} < {*right} and name == cases[0][0] else "", look,
        )  # fmt: skip
        if listed == right:  # as floats
            fail(f"dtype of the column id ({name})", str(ids.dtype), "an integer type",
                 "A column gets one type: do not put ids and floats into one array.")  # fmt: skip
        fail(f"Value of the column id ({name})", shown(listed), shown(right), look,
             partial(_table_picture, name, instances, None, shown(listed), shown(right)))  # fmt: skip


def _expect_column(column: str, cases: list[tuple], found: list[np.ndarray]) -> None:
    with check_part():
        rights = [instances.expected[column] for _, _, instances, _ in cases]
        pairs = [pair for pair in zip(cases, found, rights, strict=True) if len(pair[1]) == len(pair[2])]
        kinds, of = ("b", "True and False") if column == "touches_border" else ("iuf", "numbers")
        for (name, *_), values, _ in pairs:
            if values.dtype.kind not in kinds:
                fail(f"dtype of the column {column} ({name})", str(values.dtype), of)
        found, rights = [pair[1] for pair in pairs], [pair[2] for pair in pairs]
        named = diagnosis(found, rights, WRONG_COLUMNS[column], cases=[(pair[0][2],) for pair in pairs])
        for (name, _, instances, look), values, right in pairs:
            wrong = np.flatnonzero(~np.isclose(values.astype(float), right.astype(float), rtol=1e-5, atol=1e-5))
            if len(wrong):
                id_, value, wanted = instances.ids[wrong[0]], values[wrong[0]].item(), right[wrong[0]].item()
                value, wanted = (one if type(one) is bool else round(one, 4) for one in (value, wanted))
                fail(f"Value of {column} for the id {id_} ({name})", value, wanted, named or look,
                     partial(_table_picture, name, instances, id_, f"{column} {value}", f"{wanted}"))  # fmt: skip


def _table_picture(name: str, instances: _Instances, id_: int | None, found: str, right: str) -> Panels | None:
    """Label image and image, with the outline of the instance that was measured."""
    if len(instances.ids) > 12:
        return None
    outline = None if id_ is None else (instances.labels == id_).astype(int)
    titles = ("labels", "image") if id_ is None else (f"labels, id {id_} outlined", "image")
    place = "" if id_ is None else f" The id {id_} is outlined, rows {{}} to {{}}, columns {{}} to {{}}.".format(
        *(int(one) for axis in (0, 1) for one in (instances.first[instances.ids.index(id_), axis],
                                                  instances.last[instances.ids.index(id_), axis])))  # fmt: skip
    return Panels(
        (Panel(titles[0], instances.labels, "labels", outline), Panel(titles[1], instances.image, "image", outline)),
        f"Label image and image ({name}) of {instances.shape[0]} x {instances.shape[1]} pixels.{place} "
        f"{'Ids' if id_ is None else 'Table'}: found {found}, expected {right}.",
    )


def _each(function: Callable) -> Callable:
    """`function` of the pixels of each instance: their places (y, x) and intensities."""
    return lambda one: np.array([function(*pair) for pair in zip(one.places, one.intensities, strict=True)])


def _swapped(axis: int) -> dict[str, Callable]:
    other = 1 - axis
    return {
        "centroid_y is the mean row, centroid_x the mean column: they are exchanged.":
            _each(lambda places, _: places[:, other].mean()),
        "Positions stay in pixels, whatever the pixel_size.":
            lambda one: _each(lambda places, _: places[:, axis].mean())(one) * one.size,
        "Positions start at 0, as array indices do; these start at 1.": _each(lambda p, _: p[:, axis].mean() + 1),
        "0 is the middle of the first pixel: do not add 0.5.": _each(lambda p, _: p[:, axis].mean() + 0.5),
        "That is the middle of the bounding box, not the mean position of the pixels.":
            lambda one: (one.first + one.last)[:, axis] / 2,
        "Bright pixels do not count more: take the plain mean of the positions.":
            _each(lambda places, v: places[:, axis] @ v / (v.sum() or 1)),
        "Do not round positions.": _each(lambda places, _: np.round(places[:, axis].mean())),
        "Do not cut off the fraction of positions.": _each(lambda places, _: int(places[:, axis].mean())),
    }  # fmt: skip


# What each mistake makes of the instances of an image.
WRONG_COLUMNS: dict[str, dict[str, Callable]] = {
    "area": {
        "An area grows with the square of pixel_size: here it grows with pixel_size.":
            lambda one: one.pixels * one.size,
        "This is the area in pixels: each pixel has the area pixel_size ** 2.": lambda one: one.pixels,
        "Multiply by pixel_size ** 2, don't divide.": lambda one: one.pixels / one.size**2,
        "This is the area of the bounding box.": lambda one: np.prod(one.last - one.first + 1, axis=1) * one.size**2,
    },
    "diameter": {
        "This is the radius: the diameter is twice as long.": lambda one: one.expected["diameter"] / 2,
        "This is the diameter in pixels: multiply by pixel_size.": lambda one: one.expected["diameter"] / one.size,
        "A diameter is a length: multiply by pixel_size once, not by its square.":
            lambda one: one.expected["diameter"] * one.size,
        "This is the side of the square of equal area: for the circle, area = pi / 4 * diameter ** 2.":
            lambda one: one.pixels**0.5 * one.size,
        "This is the longer side of the bounding box, not the diameter of the circle of equal area.":
            lambda one: np.max(one.last - one.first + 1, axis=1) * one.size,
    },
    "mean_intensity": {
        "These are the ids: measure the intensities in image, not in labels.": lambda one: np.array(one.ids),
        "This is the sum of the intensities: divide by the number of pixels.": _each(lambda _, v: v.sum()),
        "Divide by the number of pixels, not by the area in units.":
            lambda one: _each(lambda _, v: v.mean())(one) / one.size**2,
        "This is the median of the intensities, not the mean.": _each(lambda _, v: np.median(v)),
        "This is the largest intensity, not the mean.": _each(lambda _, v: v.max()),
        "Dark pixels count, too: these are the means without the pixels that are 0.":
            _each(lambda _, v: v.sum() / (np.count_nonzero(v) or 1)),
        "Divide by the number of pixels of the instance, not of the image.":
            lambda one: _each(lambda _, v: v.sum())(one) / one.image.size,
        "Measure the image as it is, not normalised.":
            lambda one: _each(lambda _, v: v.mean())(one) / one.image.max(),
        "This is the mean of the whole image.": lambda one: np.full(len(one.ids), one.image.mean()),
        "Do not round the mean.": _each(lambda _, v: np.round(v.mean())),
        "Do not cut off the fraction of the mean.": _each(lambda _, v: int(v.mean())),
    },
    "centroid_y": _swapped(0),
    "centroid_x": _swapped(1),
    "touches_border": {
        "The last row is labels.shape[0] - 1, the last column labels.shape[1] - 1: what touches them is at the border, "
        "too. (The end of a bounding box is exclusive.)": lambda one: one.first_border.any(axis=1),
        "The first row and the first column are border, too.": lambda one: one.last_border.any(axis=1),
        "The left and the right side are border, too.": lambda one: (one.first_border | one.last_border)[:, 0],
        "The upper and the lower side are border, too.": lambda one: (one.first_border | one.last_border)[:, 1],
        "True is for instances at the border: here it is the other way round.":
            lambda one: ~one.expected["touches_border"],
        **{f"What touches the {side} side of the image touches the border, too.":
               lambda one, n=n: np.delete(np.hstack([one.first_border, one.last_border]), n, axis=1).any(axis=1)
           for n, side in enumerate(("upper", "left", "lower", "right"))},
        "The first and the last row or column are the border, not the ones beside them, too.":
            lambda one: ((one.first <= 1) | (one.last >= np.array(one.shape) - 2)).any(axis=1),
        "Height and width are exchanged: the last row is shape[0] - 1, the last column shape[1] - 1.":
            lambda one: (one.first_border | (one.last == np.array(one.shape[::-1]) - 1)).any(axis=1),
        "No instance seems to touch the border.": lambda one: np.zeros(len(one.ids), dtype=bool),
    },
}  # fmt: skip


@check_part()
def _expect_empty_table(measure_instances) -> None:
    labels = np.zeros((6, 9), dtype=np.int32)
    look = "The table keeps its columns, so that tables of many images can be put together."
    try:
        found = measure_instances(labels, np.ones((6, 9), dtype=np.uint8))
    except NotImplementedError:
        raise
    except Exception as error:
        fail("Result without instances", f"{type(error).__name__}: {error}"[:160].rstrip("."), "an empty table", look)
    expect_type("the result without instances", found, pd.DataFrame, look)
    if missing := [column for column in COLUMNS if column not in found.columns]:
        fail("Columns without instances", [*found.columns], f"the column {missing[0]!r} and the others", look)
    if len(found):
        fail("Rows without instances", len(found), 0, "The background is no instance: leave out the id 0.")
