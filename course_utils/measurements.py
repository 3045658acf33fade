"""From label images to numbers (notebook 08): how large, how bright and where each nucleus is.

An argument that is not what its description says, or has NaN or infinite values, is a `ValueError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.measure import regionprops_table
from skimage.segmentation import relabel_sequential

from course_utils.arguments import check_arguments

if TYPE_CHECKING:
    import pandas as pd


def median_diameter(labels: np.ndarray) -> float:
    """Median over the instances of the diameter of the circle of equal area.

    A network knows nuclei of the size of its training images; the ratio of two such medians is the factor by which to
    rescale an image of another size (Cellpose does the same: Stringer et al., Nature Methods 2021).

    Args:
        labels: label image `(H, W)` of integers; it is not changed. Ids need not be consecutive.

    Returns:
        Python float in pixels; nan without instances.

    Raises:
        ValueError: `labels` is not a label image.

    >>> round(median_diameter(np.array([[1, 1, 0, 7], [1, 1, 0, 0]])), 3)  # diameters 2.257 and 1.128
    1.693
    """
    check_arguments(labels=labels)
    areas = np.unique(labels[labels > 0], return_counts=True)[1]
    return float(np.median(np.sqrt(4 * areas / np.pi))) if len(areas) else float("nan")


def measure_instances(labels: np.ndarray, image: np.ndarray, pixel_size: float = 1.0) -> pd.DataFrame:
    """Measure the size, the intensity and the position of every instance.

    Args:
        labels: label image `(H, W)` of integers; it is not changed. Ids need not be consecutive and may be huge.
        image: `(H, W)`, integers or floats, whose intensities are measured: the original, not the normalised one.
        pixel_size: length of the side of a pixel in any unit, for example micrometres; above 0.

    Returns:
        `pandas.DataFrame` with a row for each id in ascending order and the columns `id`, `area` (in the square of the
        unit), `diameter` of the circle of equal area (in the unit), `mean_intensity`, `centroid_y`, `centroid_x`
        (pixels, 0 is the middle of the first one) and `touches_border` (bool: a pixel lies in the first or last row or
        column). Without instances it has these columns and no rows.

    Raises:
        ValueError: the shapes differ, `labels` is not a label image, or `pixel_size` is not above 0.

    >>> labels = np.array([[0, 0, 0, 0], [0, 9, 9, 0], [0, 0, 0, 4]])
    >>> measure_instances(labels, labels * 10, pixel_size=0.5)[["id", "area", "mean_intensity", "touches_border"]]
       id  area  mean_intensity  touches_border
    0   4  0.25            40.0            True
    1   9  0.50            90.0           False
    """
    import pandas as pd

    check_arguments(labels=labels, image=image)
    check_arguments(pixel_size=pixel_size)
    # regionprops_table takes memory for every number up to the largest id: number the instances 1, 2, 3, ...
    # in this machine's byte order, as its compiled code wants them
    consecutive = relabel_sequential(np.require(labels, labels.dtype.newbyteorder("="), "W"))[0]
    table = regionprops_table(consecutive, image, properties=("area", "intensity_mean", "centroid", "bbox"))
    height, width = labels.shape
    return pd.DataFrame(
        {
            "id": np.unique(labels[labels > 0]),
            "area": table["area"] * pixel_size**2,
            "diameter": np.sqrt(4 * table["area"] / np.pi) * pixel_size,
            "mean_intensity": table["intensity_mean"],
            "centroid_y": table["centroid-0"],
            "centroid_x": table["centroid-1"],
            "touches_border": (table["bbox-0"] == 0)
            | (table["bbox-1"] == 0)
            | (table["bbox-2"] == height)  # the end of a bounding box is exclusive
            | (table["bbox-3"] == width),
        }
    )
