"""Exercises 1.6 and 5.1: the targets of the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.draw import disk
from skimage.measure import label
from skimage.segmentation import find_boundaries

from course_utils.data.layouts import read_samples
from course_utils.targets import binary_target, boundary_target, looks_like_boundary_target

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)
MASKS = hnp.arrays(np.int32, SHAPES, elements=st.sampled_from([0, 0, 3, 4, 70000]))


def two_touching_nuclei() -> np.ndarray:
    mask = np.zeros((30, 40), np.int32)
    mask[disk((15, 12), 9)] = 5
    mask[disk((15, 28), 9)] = 900
    return mask


# 1.6 binary_target


@given(MASKS)
def test_binary_target_is_1_on_nuclei_and_0_elsewhere(mask):
    before = mask.copy()
    target = binary_target(mask)
    assert target.dtype == torch.float32
    assert target.shape == (1, *mask.shape)
    assert target[0].tolist() == [[float(value != 0) for value in row] for row in mask]
    target += 1  # the target does not share memory with the mask
    assert np.array_equal(mask, before)


@pytest.mark.parametrize("function", [binary_target, boundary_target])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_targets_take_every_integer_dtype_and_read_only_flipped_views(function, dtype):
    mask = (two_touching_nuclei() % 251).astype(dtype)
    mask.flags.writeable = False
    assert torch.equal(function(mask[::-1]), function(mask.astype(np.int64)).flip(-2))


# 5.1 boundary_target


@pytest.mark.parametrize("mode", ["inner", "outer", "thick"])
@given(mask=MASKS)
def test_the_boundary_class_is_that_of_find_boundaries_and_the_rest_is_foreground(mode, mask):
    before = mask.copy()
    target = boundary_target(mask, mode)
    boundary = find_boundaries(mask, mode=mode)
    assert target.dtype == torch.int64
    assert target.numpy().tolist() == np.where(boundary, 2, mask > 0).tolist()
    assert np.array_equal(mask, before)


@given(MASKS)
def test_an_inner_boundary_pixel_has_another_id_above_below_or_beside_it(mask):
    height, width = mask.shape
    target = boundary_target(mask)
    for y in range(height):
        for x in range(width):
            neighbours = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            differs = any(mask[v, u] != mask[y, x] for v, u in neighbours if 0 <= v < height and 0 <= u < width)
            assert target[y, x] == (0 if mask[y, x] == 0 else 2 if differs else 1)


@given(MASKS)
def test_no_component_of_the_interior_reaches_into_two_nuclei(mask):
    interior = label(boundary_target(mask).numpy() == 1)
    for component in range(1, interior.max() + 1):
        assert len(np.unique(mask[interior == component])) == 1


def test_two_touching_nuclei_are_one_component_of_the_foreground_and_two_of_the_interior():
    mask = two_touching_nuclei()
    assert label(mask > 0).max() == 1
    assert label(boundary_target(mask).numpy() == 1).max() == 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_masks_with_sides_of_one_pixel_and_empty_masks_work(shape):
    assert not boundary_target(np.zeros(shape, int)).any()
    assert boundary_target(np.full(shape, 6)).eq(1).all()  # the end of the image is not a boundary


def test_the_target_suits_cross_entropy():
    target = boundary_target(two_touching_nuclei())[None]
    loss = torch.nn.functional.cross_entropy(torch.zeros(1, 3, *target.shape[1:]), target)
    assert loss.item() == pytest.approx(np.log(3), rel=1e-5)


# looks_like_boundary_target


@pytest.mark.parametrize("mode", ["inner", "outer", "thick"])
def test_a_target_is_recognised(mode):
    target = boundary_target(two_touching_nuclei(), mode)
    assert looks_like_boundary_target(target) and looks_like_boundary_target(target.numpy())


def label_images_with_small_ids() -> dict[str, np.ndarray]:
    mask = two_touching_nuclei()
    within, second_alone = np.zeros((40, 40), int), np.zeros((20, 20), int)
    within[disk((20, 20), 15)], within[disk((20, 20), 6)], second_alone[disk((8, 8), 3)] = 2, 1, 2
    one, two = np.where(mask == 5, 1, 0), np.where(mask == 5, 1, 2) * (mask > 0)
    named = {"empty": 0 * mask, "one": one, "two": two, "other ids": mask}
    return {**named, "one within the other": within, "id 2 alone": second_alone}


@pytest.mark.parametrize("name", label_images_with_small_ids())
def test_a_label_image_is_not_taken_for_a_target(name):
    assert not looks_like_boundary_target(label_images_with_small_ids()[name])


def test_a_target_of_nuclei_without_interior_is_recognised():
    mask = np.zeros((20, 20), int)
    mask[3:5, 3:9], mask[10:12, 4:6] = 1, 2
    target = boundary_target(mask).numpy()
    assert set(np.unique(target)) == {0, 2}
    assert looks_like_boundary_target(target) and not looks_like_boundary_target(mask)


@pytest.mark.parametrize("mode", ["inner", "outer", "thick"])
def test_real_targets_are_recognised_and_real_label_images_are_not(real_data_zip, mode):
    samples = read_samples(real_data_zip).test
    assert not any(looks_like_boundary_target(sample.mask) for sample in samples)
    assert all(looks_like_boundary_target(boundary_target(sample.mask, mode).numpy()) for sample in samples)


# arguments that are something else


@pytest.mark.parametrize("mode", ["Inner", "innr", "outer ", "subpixel", "", None])
def test_a_misspelt_mode_is_an_error_that_lists_the_modes(mode):
    """find_boundaries takes any other word for "thick"."""
    with pytest.raises(ValueError, match=f"mode must be 'inner', 'outer' or 'thick', but is {mode!r}"):
        boundary_target(two_touching_nuclei(), mode)


@pytest.mark.parametrize("function", [binary_target, boundary_target])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.array([[0.0, 0.5], [1.0, 0.0]]), "dtype float64"),
        (np.array([[0, -1], [1, 0]]), "values from -1 to 1"),
        (np.zeros((1, 4, 4), int), r"shape \(1, 4, 4\)"),
        (np.zeros((0, 4), int), "no pixels"),
        (torch.zeros(4, 4, dtype=torch.int64), "of type Tensor"),
    ],
)
def test_what_is_no_label_image_has_no_target(function, mask, message):
    with pytest.raises(ValueError, match=f"mask must be a label image .*{message}"):
        function(mask)
