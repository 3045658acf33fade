"""Checks of notebook 01: see `course_utils.checking` for what a check is."""

from __future__ import annotations

import numpy as np

from course_utils.checking import need_callable, need_type, untouched, wrong


def check_count_shapes(count_shapes) -> None:
    need_callable(count_shapes, "count_shapes")
    images = [np.zeros(shape, dtype=np.uint8) for shape in [(2, 3), (4, 4), (2, 3), (3, 2), (2, 3)]]
    with untouched(images=images):
        found = count_shapes(images)
    need_type("the result", found, dict, "Return a dict {(H, W): number of images}.")
    keys = [key for key in found if not isinstance(key, tuple) or len(key) != 2]
    if keys:
        wrong("Keys of the dict", keys[0], "tuples (H, W)", "image.shape is such a tuple.")
    for shape, number in {(2, 3): 3, (4, 4): 1, (3, 2): 1}.items():
        if found.get(shape) != number:
            look = "Shapes (2, 3) and (3, 2) are different: height first." if shape != (4, 4) else ""
            wrong(f"Number of images of shape {shape}", found.get(shape, "none"), number, look)
    if len(found) != 3:
        extra = [key for key in found if key not in [(2, 3), (4, 4), (3, 2)]]
        wrong("Number of shapes in the dict", len(found), 3, f"{extra[0]} is the shape of no image.")
    if count_shapes([]) != {}:
        wrong("Result for no images", count_shapes([]), {})
