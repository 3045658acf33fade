"""The checks of notebook 08 accept every right solution, and name the mistake of every wrong one."""

from __future__ import annotations

import math
import statistics
from collections import Counter

import numpy as np
import pandas as pd
import torch
from runner import CheckTests
from scipy import ndimage
from skimage.measure import label, regionprops, regionprops_table
from skimage.segmentation import clear_border

from course_utils.measurements import measure_instances, median_diameter

# 8.1 median_diameter


def by_regionprops(labels):
    diameters = [region.equivalent_diameter_area for region in regionprops(labels)]
    return float(np.median(diameters)) if diameters else float("nan")


def by_counting(labels):
    counts = Counter(labels.ravel().tolist())
    counts.pop(0, None)
    if not counts:
        return math.nan
    return statistics.median(2 * math.sqrt(area / math.pi) for area in counts.values())


def by_bincount(labels):
    areas = np.bincount(labels.astype(np.int64).ravel())[1:]
    return np.median(2 * np.sqrt(areas[areas > 0] / np.pi))  # np.float64, and nan with a warning


def by_pandas_series(labels):
    areas = pd.Series(labels[labels != 0].astype(np.int64)).value_counts()
    return areas.div(np.pi).pow(0.5).mul(2).median()


def by_torch_unique(labels):
    ids, areas = torch.unique(torch.from_numpy(labels.astype(np.int64)), return_counts=True)
    areas = areas[ids > 0].double()
    return torch.quantile((4 * areas / torch.pi).sqrt(), 0.5).item() if len(areas) else float("nan")


def areas_of(labels):
    return np.unique(labels[labels > 0], return_counts=True)[1]


def diameter(
    areas=areas_of, of=lambda areas: np.sqrt(4 * areas / np.pi), middle=np.median, finish=float, empty=float("nan")
):
    """`median_diameter`, with one step exchanged."""

    def solution(labels):
        found = areas(labels)
        return finish(middle(of(found))) if len(found) else empty

    return solution


def clears_its_argument(labels):
    found = median_diameter(labels)
    labels[0] = 0
    return found


def fails_when_empty(labels):
    return statistics.median(np.sqrt(4 * areas_of(labels) / np.pi).tolist())


def boxes(labels):
    return np.array([max(np.ptp(np.argwhere(labels == i), axis=0) + 1) for i in np.unique(labels[labels > 0])])


WRONG_DIAMETER = {
    "mean": (diameter(middle=np.mean), r"^Value .*the mean, not the median"),
    "radius": (diameter(of=lambda areas: np.sqrt(areas / np.pi)), r"^Value .*the radius"),
    "median area": (diameter(of=lambda areas: areas, middle=np.median, finish=lambda area: math.sqrt(4 * area / np.pi)),
                    r"^Value .*six nuclei.*diameter of the median area"),
    "mean area": (diameter(of=lambda areas: areas, middle=np.mean, finish=lambda area: math.sqrt(4 * area / np.pi)),
                  r"^Value .*diameter of the mean area"),
    "background": (diameter(lambda labels: np.unique(labels, return_counts=True)[1]), r"^Value .*leave out the id 0"),
    "without the first id": (diameter(lambda labels: np.unique(labels, return_counts=True)[1][1:]),
                             r"^Value .*without background.*not the first id"),
    "areas": (diameter(of=lambda areas: areas), r"^Value .*median of the areas"),
    "side of a square": (diameter(of=np.sqrt), r"^Value .*side of the square"),
    "no root": (diameter(of=lambda areas: 4 * areas / np.pi), r"^Value .*take the root"),
    "no root, another formula": (diameter(of=lambda areas: 2 * areas / np.pi), r"^Value .*root is missing"),
    "largest": (diameter(middle=np.max), r"^Value .*largest"),
    "smallest": (diameter(middle=np.min), r"^Value .*smallest"),
    "lower of two": (diameter(of=lambda areas: np.sqrt(4 * areas / np.pi).tolist(), middle=statistics.median_low),
                     r"^Value .*the lower one"),
    "upper of two": (diameter(middle=lambda found: np.sort(found)[len(found) // 2]), r"^Value .*the upper one"),
    "components": (diameter(lambda labels: areas_of(label(labels > 0))), r"^Value .*each id is one"),
    "components of ids": (diameter(lambda labels: areas_of(label(labels))), r"^Value .*All pixels of an id together"),
    "all together": (diameter(middle=lambda found: np.sqrt(np.sum(found**2))), r"^Value .*all nuclei together"),
    "inside only": (diameter(lambda labels: areas_of(clear_border(labels)), empty=0.0), r"^Value "),
    "bounding box": (diameter(boxes, of=lambda sides: sides), r"^Value .*bounding box"),
    "rounded": (diameter(finish=round), r"^Type of the result: found int"),
    "rounded float": (diameter(finish=lambda found: float(round(found))), r"^Value .*round"),
    "one digit": (diameter(finish=lambda found: round(float(found), 1)), r"^Value .*round"),
    "gaps are nuclei": (diameter(lambda labels: np.bincount(labels.ravel().astype(np.int64))[1:]), 
                        r"^Value .*not there"),
    "ids in a byte": (diameter(lambda labels: areas_of(labels.astype(np.uint8))), r"^Value .*ids up to 1000000.*type"),
    "ids in 16 bits": (diameter(lambda labels: areas_of(labels.astype(np.uint16))), r"^Value .*ids up to 1000000"),
    "0 without instances": (diameter(empty=0.0), r"^Result without instances: found 0.0, expected nan"),
    "None without instances": (diameter(empty=None), r"^Type of the result without instances: found None"),
    "an error without instances": (fails_when_empty, r"^Result without instances: found StatisticsError.*expected nan"),
    "float32": (diameter(finish=np.float32), r"^Type of the result: found float32.*NumPy's float32"),
    "all diameters": (diameter(middle=lambda found: found, finish=lambda found: found), r"^Type of .*ndarray"),
    "a tensor": (diameter(finish=torch.tensor), r"^Type of the result: found Tensor"),
    "changes its argument": (clears_its_argument, r"^Mutation: your code changed its argument labels"),
}  # fmt: skip


# 8.2 measure_instances

COLUMNS = ["id", "area", "diameter", "mean_intensity", "centroid_y", "centroid_x", "touches_border"]


def by_regionprops_table(labels, image, pixel_size=1.0):
    table = pd.DataFrame(regionprops_table(
        labels, image, properties=("label", "area", "equivalent_diameter_area", "intensity_mean", "centroid", "bbox")))
    table.columns = ["id", "area", "diameter", "mean_intensity", "centroid_y", "centroid_x", *"abcd"]
    table["area"] *= pixel_size * pixel_size
    table["diameter"] *= pixel_size
    inside = (table["a"] > 0) & (table["b"] > 0) & (table["c"] < labels.shape[0]) & (table["d"] < labels.shape[1])
    table["touches_border"] = ~inside
    return table.drop(columns=[*"abcd"])


def by_rows(labels, image, pixel_size=1.0):
    """A list of dicts; columns in another order, and an object type for each without rows."""
    if labels.shape != image.shape:
        raise ValueError(f"{labels.shape} and {image.shape}")
    rows, (height, width) = [], labels.shape
    for id_ in sorted({*labels.ravel().tolist()} - {0}):
        y, x = np.where(labels == id_)
        rows.append({
            "touches_border": min(y.min(), x.min(), height - 1 - y.max(), width - 1 - x.max()) == 0,
            "centroid_x": x.mean(), "centroid_y": y.mean(), "mean_intensity": image[y, x].mean(dtype=float), "id": id_,
            "area": len(y) * pixel_size**2, "diameter": 2 * (len(y) / math.pi) ** 0.5 * pixel_size,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS[::-1])


def by_ndimage(labels, image, pixel_size=1.0):
    if labels.shape != image.shape:
        raise ValueError("shapes differ")
    ids = np.setdiff1d(labels, [0])
    area = ndimage.sum_labels(np.ones(labels.shape), labels, ids)
    centroids = np.array(ndimage.center_of_mass(np.ones(labels.shape), labels, ids)).reshape(-1, 2)
    border = np.ones(labels.shape, bool)
    border[1:-1, 1:-1] = False
    return pd.DataFrame({
        "id": ids, "area": area * pixel_size**2, "diameter": np.sqrt(4 * area / np.pi) * pixel_size,
        "mean_intensity": np.asarray(ndimage.mean(image, labels, ids), dtype=float), "centroid_y": centroids[:, 0],
        "centroid_x": centroids[:, 1], "touches_border": np.isin(ids, labels[border]), "eccentricity": 0.0,
    }, index=ids)  # fmt: skip


def by_groups(labels, image, pixel_size=1.0):
    if labels.shape != image.shape:
        raise ValueError("shapes differ")
    y, x = np.nonzero(labels)
    pixels = pd.DataFrame({"id": labels[y, x], "v": image[y, x].astype(float), "y": y, "x": x})
    pixels["edge"] = (y == 0) | (x == 0) | (y == labels.shape[0] - 1) | (x == labels.shape[1] - 1)
    groups = pixels.groupby("id")
    table = groups.agg(area=("v", "size"), mean_intensity=("v", "mean"), centroid_y=("y", "mean"),
                       centroid_x=("x", "mean"), touches_border=("edge", "any")).reset_index()  # fmt: skip
    table["diameter"] = np.sqrt(4 * table["area"] / np.pi) * pixel_size
    table["area"] = table["area"] * pixel_size**2
    return table.convert_dtypes() if len(table) else table


def changed(**columns):
    """`measure_instances`, with some columns computed in another way from table, labels, image and pixel_size."""

    def solution(labels, image, pixel_size=1.0):
        table = measure_instances(labels, image, pixel_size)
        return table.assign(**{name: make(table, labels, image, pixel_size) for name, make in columns.items()})

    return solution


def finished(finish):
    """`finish` of the table of `measure_instances`."""
    return lambda labels, image, pixel_size=1.0: finish(measure_instances(labels, image, pixel_size))


def each(function):
    return lambda table, labels, image, pixel_size: [function(labels == id_, image, pixel_size) for id_ in table["id"]]


def border_of(*sides):
    lines = {"top": np.s_[0], "bottom": np.s_[-1], "left": np.s_[:, 0], "right": np.s_[:, -1]}
    return each(lambda mask, image, size: any(mask[lines[side]].any() for side in sides))


def with_background(labels, image, pixel_size=1.0):
    return measure_instances(labels.astype(np.int64) + 1, image, pixel_size).assign(id=lambda table: table["id"] - 1)


def of_components(labels, image, pixel_size=1.0):
    return measure_instances(label(labels), image, pixel_size)


def narrow(dtype):
    return lambda labels, image, pixel_size=1.0: measure_instances(labels.astype(dtype), image, pixel_size)


def normalizes_its_argument(labels, image, pixel_size=1.0):
    table = measure_instances(labels, image, pixel_size)
    image -= image.min()
    return table


def without_columns_when_empty(labels, image, pixel_size=1.0):
    return pd.DataFrame(measure_instances(labels, image, pixel_size).to_dict("records"))


def broken_when_empty(labels, image, pixel_size=1.0):
    return measure_instances(labels, image, pixel_size) if labels.max() > 0 else pd.DataFrame()["id"]


def accepts_every_shape(labels, image, pixel_size=1.0):
    if labels.shape != image.shape:
        image = np.resize(image, labels.shape)
    return measure_instances(labels, image, pixel_size)


def broadcasts(labels, image, pixel_size=1.0):
    return measure_instances(labels, np.broadcast_to(image, labels.shape), pixel_size)


def asserts(labels, image, pixel_size=1.0):
    assert labels.shape == image.shape
    return measure_instances(labels, image, pixel_size)


PIXELS = {"pixels": lambda t, labels, image, size: t["area"] / size**2}
WRONG_TABLE = {
    "a dict": (finished(lambda table: table.to_dict("list")), r"^Type of the result: found dict.*DataFrame"),
    "a list": (finished(lambda table: table.to_dict("records")), r"^Type of the result: found list"),
    "an array": (finished(lambda table: table.to_numpy()), r"^Type of the result: found ndarray"),
    "id as index": (finished(lambda table: table.set_index("id")), r"^Columns .*'id'. .*reset_index"),
    "transposed": (finished(lambda table: table.T), r"^Columns .*exchanged"),
    "another name": (finished(lambda table: table.rename(columns={"id": "label"})), r"^Columns .*column 'id'"),
    "capitals": (finished(lambda table: table.rename(columns=str.title)), r"^Columns .*column 'id'"),
    "no intensity": (finished(lambda table: table.drop(columns="mean_intensity")), r"^Columns .*'mean_intensity'"),
    "column twice": (finished(lambda table: pd.concat([table, table["area"]], axis=1)), r"^Columns .*'area'"),
    "renumbered": (finished(lambda table: table.assign(id=range(1, len(table) + 1))), r"^Value of the column id.*Keep"),
    "numbered from 0": (finished(lambda table: table.assign(id=range(len(table)))), r"^Value of the column id.*"),
    "descending": (finished(lambda table: table[::-1]), r"^Value of the column id.*ascending"),
    "by area": (finished(lambda table: table.sort_values("area")), r"^Value of the column id.*ascending"),
    "background": (with_background, r"^Value of the column id.*leave out the id 0"),
    "without the first": (finished(lambda table: table[1:]), r"^Value of the column id"),
    "without background missing": (
        lambda labels, image, pixel_size=1.0: measure_instances(labels, image, pixel_size)[int(0 not in labels):],
        r"^Value of the column id .*without background.*not the first id"),
    "components": (of_components, r"^Value of the column id.*Keep the ids"),
    "floats as ids": (changed(id=lambda t, *_: t["id"] * 1.0), r"^dtype of the column id.*float64.*one array"),
    "ids as text": (changed(id=lambda t, *_: t["id"].astype(str)), r"^Value of the column id"),
    "ids in a byte": (narrow(np.uint8), r"^Value of the column id .*ids up to 1000000.*types"),
    "ids in 16 bits": (narrow(np.uint16), r"^Value of the column id .*ids up to 1000000"),
    "clear border": (finished(lambda table: table[~table["touches_border"]]),
                     r"^Value of the column id.*touches the border"),
    "ids minus 1": (changed(id=lambda t, *_: t["id"] - 1), r"^Value of the column id.*as they are"),
    "area in pixels": (changed(area=PIXELS["pixels"]), r"^Value of area .*pixel_size=0.4.*the area in pixels"),
    "area not squared": (changed(area=lambda t, labels, image, size: t["area"] / size), r"^Value of area .*square"),
    "area divided": (changed(area=lambda t, labels, image, size: t["area"] / size**4),
                     r"^Value of area .*don't divide"),
    "area of the box": (changed(area=each(lambda mask, image, size: np.prod(
        np.ptp(np.argwhere(mask), axis=0) + 1) * size**2)), r"^Value of area .*bounding box"),
    "another default": (lambda labels, image, pixel_size=0.5: measure_instances(labels, image, pixel_size),
                        r"^Value of area for the id 3 \(six nuclei\)"),
    "radius": (changed(diameter=lambda t, *_: t["diameter"] / 2), r"^Value of diameter .*the radius"),
    "diameter in pixels": (changed(diameter=lambda t, labels, image, size: t["diameter"] / size),
                           r"^Value of diameter .*in pixels"),
    "diameter squared size": (changed(diameter=lambda t, labels, image, size: t["diameter"] * size),
                              r"^Value of diameter .*multiply by pixel_size once"),
    "side of a square": (changed(diameter=lambda t, *_: np.sqrt(t["area"])), r"^Value of diameter .*square of equal"),
    "intensity of labels": (changed(mean_intensity=lambda t, *_: t["id"]), r"^Value of mean_intensity .*not in labels"),
    "sum": (changed(mean_intensity=each(lambda mask, image, size: image[mask].sum(dtype=float))),
            r"^Value of mean_intensity .*the sum"),
    "sum in 16 bits": (changed(mean_intensity=each(lambda mask, image, size: image[mask].sum(
        dtype=image.dtype) / mask.sum())), r"^Value of mean_intensity"),
    "sum by area": (changed(mean_intensity=lambda t, labels, image, size: t["mean_intensity"] / size**2),
                    r"^Value of mean_intensity .*by the number of pixels"),
    "median": (changed(mean_intensity=each(lambda mask, image, size: np.median(image[mask]))), r"^Value .*the median"),
    "maximum": (changed(mean_intensity=each(lambda mask, image, size: image[mask].max())), r"^Value .*largest"),
    "bright pixels": (changed(mean_intensity=each(lambda mask, image, size: image[mask & (image > 0)].astype(
        float).mean() if (mask & (image > 0)).any() else 0)), r"^Value of mean_intensity"),
    "whole image": (changed(mean_intensity=lambda t, labels, image, size: float(image.astype(float).mean())),
                    r"^Value of mean_intensity .*whole image"),
    "divided by the image": (changed(mean_intensity=each(lambda mask, image, size: (image * mask).mean(dtype=float))),
                             r"^Value of mean_intensity .*not of the image"),
    "normalised": (changed(mean_intensity=lambda t, labels, image, size: t["mean_intensity"] / image.max()),
                   r"^Value of mean_intensity .*not normalised"),
    "rounded mean": (changed(mean_intensity=lambda t, *_: t["mean_intensity"].round()), r"^Value .*round the mean"),
    "integers": (changed(mean_intensity=lambda t, *_: t["mean_intensity"].astype(int)), r"^Value .*fraction"),
    "x and y": (changed(centroid_y=lambda t, *_: t["centroid_x"], centroid_x=lambda t, *_: t["centroid_y"]),
                r"^Value of centroid_y .*exchanged"),
    "centroid in units": (changed(centroid_y=lambda t, labels, image, size: t["centroid_y"] * size,
                                  centroid_x=lambda t, labels, image, size: t["centroid_x"] * size),
                          r"^Value of centroid_y .*pixel_size=0.4.*stay in pixels"),
    "x in units": (changed(centroid_x=lambda t, labels, image, size: t["centroid_x"] * size),
                   r"^Value of centroid_x .*stay in pixels"),
    "from 1": (changed(centroid_y=lambda t, *_: t["centroid_y"] + 1), r"^Value of centroid_y .*start at 0"),
    "half a pixel": (changed(centroid_x=lambda t, *_: t["centroid_x"] + 0.5), r"^Value of centroid_x .*0\.5"),
    "middle of the box": (changed(centroid_y=each(lambda mask, image, size: np.nonzero(mask)[0].min() / 2 + np.nonzero(
        mask)[0].max() / 2)), r"^Value of centroid_y .*bounding box"),
    "weighted": (changed(centroid_y=each(lambda mask, image, size: (np.nonzero(mask)[0] * image[mask]).sum(
        dtype=float) / (image[mask].sum(dtype=float) or 1))), r"^Value of centroid_y"),
    "rounded centroid": (changed(centroid_y=lambda t, *_: t["centroid_y"].round()), r"^Value of centroid_y .*round"),
    "top and left": (changed(touches_border=border_of("top", "left")), r"^Value of touches_border .*exclusive"),
    "bottom and right": (changed(touches_border=border_of("bottom", "right")), r"^Value of .*first row and the first"),
    "rows only": (changed(touches_border=border_of("top", "bottom")), r"^Value of touches_border .*left and the right"),
    "without right": (changed(touches_border=border_of("top", "bottom", "left")),
                      r"^Value of touches_border .*12.*right side"),
    "without bottom": (changed(touches_border=border_of("top", "right", "left")),
                       r"^Value of touches_border .*id 5.*lower side"),
    "the other way round": (changed(touches_border=lambda t, *_: ~t["touches_border"]), r"^Value .*other way round"),
    "a pixel beside the border": (changed(touches_border=lambda t, labels, *_: t["id"].isin([
        *np.unique(labels[:2]), *np.unique(labels[-2:]), *np.unique(labels[:, :2]), *np.unique(labels[:, -2:])])),
                                  r"^Value of touches_border .*not the ones beside"),
    "height and width": (changed(touches_border=each(lambda mask, image, size: min(
        *np.argwhere(mask).min(axis=0), *abs(mask.shape[::-1] - np.argwhere(mask).max(axis=0) - 1)) == 0)),
                         r"^Value of touches_border .*Height and width are exchanged"),
    "never": (changed(touches_border=lambda t, *_: False), r"^Value of touches_border .*No instance"),
    "numbers": (changed(touches_border=lambda t, *_: t["touches_border"].astype(int)), r"^dtype of .*int.*True and F"),
    "as text": (changed(area=lambda t, *_: t["area"].map(str)), r"^dtype of the column area"),
    "no columns when empty": (without_columns_when_empty, r"^Columns without instances: found \[\]"),
    "an error when empty": (broken_when_empty, r"^Result without instances: found KeyError"),
    "None when empty": (lambda labels, image, pixel_size=1.0: measure_instances(
        labels, image, pixel_size) if labels.any() else None, r"^Type of the result without instances"),
    "a row when empty": (lambda labels, image, pixel_size=1.0: measure_instances(
        labels if labels.any() else labels + 1, image, pixel_size), r"^Rows without instances: found 1, expected 0"),
    "every shape": (accepts_every_shape, r"^Result for labels .*no error, expected a ValueError"),
    "broadcast": (broadcasts, r"^Result for labels \(4, 6\) and an image \(1, 6\): found no error"),
    "assert": (asserts, r"^Result for labels .*`assert` is not enough"),
    "changes its argument": (normalizes_its_argument, r"^Mutation: your code changed its argument image"),
}  # fmt: skip


RIGHT = {
    "8.1": [by_regionprops, by_counting, by_bincount, by_pandas_series, by_torch_unique],
    "8.2": [by_regionprops_table, by_rows, by_ndimage, by_groups],
}
WRONG = {"8.1": WRONG_DIAMETER, "8.2": WRONG_TABLE}
EQUIVALENT = {
    "8.1": {
        "the counts are the last of two results": ["median_diameter, assignment: 1 -> -1"],
        "the median of nothing is nan": [
            f"median_diameter, return: {change}" for change in ("if else -> if part", "condition -> True", "len -> sum")
        ],
        "np.float64 is a Python float": ["median_diameter, return: float() -> argument 1"],
    },
    "8.2": {
        "read-only arrays, and those in the other byte order, are more than the exercise asks for": [
            f"measure_instances, assignment: {change}"
            for change in ("require() without argument 3", "require() -> argument 1", "newbyteorder() left out",
                           "'=' -> '=_'")
        ],
        "columns are taken by their names": [
            f"measure_instances, assignment 2: items {pair} swapped" for pair in ("1 and 2", "2 and 3", "3 and 4")
        ],
    },
}


class TestChecks(CheckTests):
    right, wrong, equivalent = RIGHT, WRONG, EQUIVALENT
    pictures = {
        "8.1": {"Panels": ["mean", "median area", "background"]},
        "8.2": {"Panels": ["area not squared", "without right", "renumbered", "x and y"]},
    }
    pictured = r"^Value of (the median|\w+ for the id .*six nuclei)"
