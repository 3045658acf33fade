"""Exercises 1.1 to 1.5 and the statistics of notebook 01."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_utils.exploration import (
    count_shapes,
    intensity_statistics,
    normalize_percentiles,
    nucleus_areas,
    random_crop,
    split_train_val,
    standardize,
    touching_ids,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)
IMAGES = hnp.arrays(np.uint8, SHAPES)
LABELS = hnp.arrays(np.int32, SHAPES, elements=st.sampled_from([0, 1, 2, 9]))


def frozen(array: np.ndarray) -> np.ndarray:
    """A copy that raises an error when somebody writes to it."""
    array = array.copy()
    array.flags.writeable = False
    return array


# 1.1 count_shapes


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3))))
def test_count_shapes_counts_height_and_width_in_this_order(shapes):
    assert count_shapes([np.zeros(shape) for shape in shapes]) == {shape: shapes.count(shape) for shape in shapes}


# 1.2 intensity_statistics


@given(st.lists(IMAGES, min_size=1, max_size=4))
def test_intensity_statistics_are_those_of_all_pixels_together(images):
    pixels = np.concatenate([image.ravel() for image in images]).astype(float)
    found = intensity_statistics([frozen(image) for image in images])
    assert found == pytest.approx((pixels.mean(), pixels.std()), abs=1e-9)
    assert [type(value) for value in found] == [float, float]


def test_every_pixel_counts_the_same_however_large_its_image():
    mean, std = intensity_statistics([np.zeros((9, 1)), np.ones((1, 1))])
    assert mean == pytest.approx(0.1)
    assert std == pytest.approx(0.3)  # of the population: with division by n - 1 it would be 0.316


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
def test_sums_do_not_overflow_or_lose_small_differences(dtype):
    bright = np.full((700, 700), 255, dtype)
    assert intensity_statistics([bright, bright]) == (255.0, 0.0)


def test_a_large_mean_does_not_swallow_a_small_spread():
    _, std = intensity_statistics([np.array([[1e8, 1e8 + 2]])])
    assert std == pytest.approx(1.0)


@pytest.mark.parametrize("images", [[], [np.zeros((0, 5))]])
def test_statistics_of_no_pixel_are_an_error(images):
    with pytest.raises(ValueError, match="at least one pixel"):
        intensity_statistics(images)


# 1.3 standardize


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("number", [float, np.float64, np.float32, np.array])
def test_standardize_gives_float32_whatever_comes_in(dtype, number):
    image = frozen(np.array([[10, 14]], dtype))
    result = standardize(image, number(10.0), number(2.0))
    assert result.dtype == np.float32 and not np.shares_memory(result, image)
    assert result.tolist() == [[0.0, 2.0]]


def test_standardize_does_not_wrap_below_the_mean():
    assert standardize(np.array([[0]], np.uint8), 10.0, 5.0).item() == -2.0


@given(st.lists(IMAGES, min_size=1, max_size=3))
def test_standardized_images_have_mean_0_and_standard_deviation_1(images):
    mean, std = intensity_statistics(images)
    if std > 0:
        again = intensity_statistics([standardize(image, mean, std) for image in images])
        assert again == pytest.approx((0, 1), abs=1e-3)


# normalize_percentiles


def test_the_percentiles_become_0_and_1_and_nothing_is_clipped():
    image = np.random.default_rng(0).normal(100, 20, (200, 200))
    result = normalize_percentiles(frozen(image))
    assert result.dtype == np.float32
    assert np.percentile(result, [1, 99.8]) == pytest.approx([0, 1], abs=1e-3)
    assert result.min() < 0 and result.max() > 1


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_image_becomes_all_zeros(value):
    assert not normalize_percentiles(np.full((4, 5), value, np.uint8)).any()
    assert not normalize_percentiles(np.full((1, 1), value, np.uint8)).any()


def test_one_bright_pixel_in_a_constant_image_survives():
    image = np.zeros((100, 100), np.uint8)
    image[3, 4] = 200
    result = normalize_percentiles(image)
    assert result[3, 4] == 1 and np.count_nonzero(result) == 1


@given(IMAGES, st.integers(1, 200), st.integers(0, 1000))
def test_brightness_and_contrast_of_the_camera_do_not_matter(image, gain, offset):
    other = image.astype(np.uint16) * gain + np.uint16(offset)
    assert normalize_percentiles(other) == pytest.approx(normalize_percentiles(image), abs=2e-2, rel=1e-3)


# 1.4 split_train_val


def test_by_default_samples_19_39_and_so_on_go_to_validation():
    train, val = split_train_val(range(65))
    assert val == [19, 39, 59]
    assert train == [i for i in range(65) if i not in val]


@given(st.lists(st.integers(), max_size=50), st.integers(1, 25))
def test_the_split_holds_every_sample_once_in_the_old_order(samples, every):
    before = list(samples)
    train, val = split_train_val(samples, every)
    assert samples == before
    assert val == samples[every - 1 :: every]
    rest = iter(train)
    chosen = iter(val)
    assert [next(chosen) if (i + 1) % every == 0 else next(rest) for i in range(len(samples))] == samples
    assert list(rest) == list(chosen) == []


@pytest.mark.parametrize("every", [0, -3, 2.5])
def test_every_must_be_a_whole_number_from_1(every):
    with pytest.raises(ValueError, match=f"whole number of at least 1, but is {every}"):
        split_train_val("abc", every)


# 1.5 random_crop

COORDINATES = frozen(np.arange(5 * 7).reshape(5, 7))  # every pixel tells where it comes from


@pytest.mark.parametrize("size", [1, 3, 5])
def test_image_and_mask_are_cut_in_the_same_window_of_adjacent_pixels(size):
    rng = np.random.default_rng(0)
    for _ in range(30):
        image, mask = random_crop(frozen(COORDINATES.astype(np.float32)), COORDINATES, size, rng)
        assert image.dtype == np.float32 and mask.dtype == COORDINATES.dtype
        assert np.array_equal(image, mask)
        top, left = divmod(int(mask[0, 0]), 7)
        assert np.array_equal(mask, COORDINATES[top : top + size, left : left + size])
        assert mask.shape == (size, size)


def test_every_start_is_equally_likely_the_first_and_the_last_included():
    rng = np.random.default_rng(0)
    starts = [divmod(int(random_crop(COORDINATES, COORDINATES, 3, rng)[0][0, 0]), 7) for _ in range(3000)]
    counts = {start: starts.count(start) for start in product(range(3), range(5))}
    assert sum(counts.values()) == 3000
    assert all(130 < count < 270 for count in counts.values()), counts  # 200 expected, five standard deviations


@pytest.mark.parametrize("shape", [(5, 7), (7, 5)])
def test_an_image_smaller_than_the_crop_is_an_error_that_names_both_sizes(shape):
    image = np.zeros(shape)
    with pytest.raises(ValueError, match=f"{shape[0]} x {shape[1]} .*6 x 6"):
        random_crop(image, image, 6, np.random.default_rng(0))


def test_image_and_mask_of_different_shapes_are_an_error():
    with pytest.raises(ValueError, match=r"\(5, 7\) and \(7, 5\)"):
        random_crop(COORDINATES, COORDINATES.T, 3, np.random.default_rng(0))


def test_the_generator_alone_decides_the_crop():
    def crops(seed):
        rng = np.random.default_rng(seed)
        return [int(random_crop(COORDINATES, COORDINATES, 3, rng)[0][0, 0]) for _ in range(20)]

    np.random.seed(1)  # noqa: NPY002  the old global state has no influence
    first = crops(0)
    np.random.seed(2)  # noqa: NPY002
    assert crops(0) == first != crops(1)


# nucleus_areas and touching_ids


@given(LABELS)
def test_areas_are_the_pixel_counts_in_the_order_of_the_ids(mask):
    assert nucleus_areas(frozen(mask)).tolist() == [int(np.sum(mask == i)) for i in (1, 2, 9) if np.any(mask == i)]


@given(LABELS)
def test_touching_ids_are_those_with_another_nucleus_among_their_eight_neighbours(mask):
    expected = set()
    height, width = mask.shape
    for y, x, dy, dx in product(range(height), range(width), (-1, 0, 1), (-1, 0, 1)):
        if 0 <= y + dy < height and 0 <= x + dx < width:
            here, there = mask[y, x], mask[y + dy, x + dx]
            if here != there and here != 0 and there != 0:
                expected |= {int(here), int(there)}
    assert touching_ids(frozen(mask)).tolist() == sorted(expected)


# other numbers than expected: right, or an error that says what was found

STEPS = np.arange(64 * 80, dtype=np.uint8).reshape(64, 80)


@pytest.mark.parametrize("once", [iter, lambda images: (one for one in images), lambda images: map(np.copy, images)])
def test_images_that_can_be_read_only_once_count_like_a_list(once):
    images = [np.array([[0, 0]]), np.array([[3]])]
    assert intensity_statistics(once(images)) == intensity_statistics(images)
    assert count_shapes(once(images)) == count_shapes(images)
    assert len(split_train_val(once(images * 20))[1]) == 2


@pytest.mark.parametrize("offset", [2**20, 2**28, 2**32, 2**40, -(2**40)])
def test_a_large_offset_changes_nothing(offset):
    """float32 alone would turn the image into a few steps."""
    shifted = STEPS.astype(np.int64) + offset
    np.testing.assert_allclose(normalize_percentiles(shifted), normalize_percentiles(STEPS), atol=1e-6)
    np.testing.assert_allclose(standardize(shifted, 7 + offset, 2.5), standardize(STEPS, 7, 2.5), atol=1e-6)
    assert intensity_statistics([shifted])[1] == pytest.approx(intensity_statistics([STEPS])[1])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.float16, np.float64])
def test_every_dtype_of_numbers_is_normalised_alike(dtype):
    image = np.array([[0, 1, 1, 0], [1, 0, 0, 1]])
    np.testing.assert_allclose(normalize_percentiles(image.astype(dtype)), normalize_percentiles(image))


@pytest.mark.parametrize(("value", "n"), [(np.nan, 1), (np.inf, 1), (-np.inf, 3)])
@pytest.mark.parametrize(
    "function", [normalize_percentiles, lambda x: standardize(x, 0, 1), lambda x: intensity_statistics([STEPS, x])]
)
def test_pixels_that_are_no_numbers_are_counted(function, value, n):
    image = STEPS.astype(np.float32)
    image[0, :n] = value
    with pytest.raises(ValueError, match=f"{n} values that are NaN or infinite"):
        function(image)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: normalize_percentiles(STEPS, 99.8, 1), "low must be below high, but they are 99.8 and 1"),
        (lambda: normalize_percentiles(STEPS, 50, 50), "low must be below high"),
        (lambda: normalize_percentiles(STEPS, -1, 99), r"percentiles\[0\] must be a number from 0 to 100, but is -1"),
        (lambda: normalize_percentiles(STEPS[None]), r"shape \(1, 64, 80\)"),
        (lambda: normalize_percentiles(STEPS[:0]), "no pixels"),
        (lambda: standardize(STEPS, 0, 0), "std must be a finite number above 0, but is 0"),
        (lambda: standardize(STEPS, 0, np.float32("nan")), "std must be .*nan"),
        (lambda: standardize(STEPS, np.inf, 1), "mean must be a finite number, but is inf"),
        (lambda: count_shapes([STEPS.tolist()]), r"images\[0\] .* is of type list"),
        (lambda: count_shapes(STEPS), r"images\[0\] .* shape \(80,\)"),
        (lambda: random_crop(STEPS, STEPS, 0, np.random.default_rng(0)), "size .* at least 1, but is 0"),
        (lambda: random_crop(STEPS, STEPS, -2, np.random.default_rng(0)), "size .* but is -2"),
        (lambda: random_crop(STEPS, STEPS, 2.5, np.random.default_rng(0)), "size .* but is 2.5"),
        (lambda: random_crop(STEPS, STEPS, 2, 0), "rng must be a generator of random numbers"),
        (lambda: nucleus_areas(np.array([[0, -3]])), "no negative ids, but has values from -3 to 0"),
        (lambda: touching_ids(np.zeros(5, int)), "not 2-dimensional"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_what_was_found(call, message):
    with pytest.raises(ValueError, match=message):
        call()
