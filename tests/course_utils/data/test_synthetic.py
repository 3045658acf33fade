"""The generator of the embedded set, and the files it wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from course_utils.data import Sample, embedded_folder, load_data, synthetic
from course_utils.data.layouts import read_samples
from course_utils.data.synthetic import MIN_AREA, generate_image, image_order
from course_utils.exploration import touching_ids
from course_utils.metrics import f1_score
from course_utils.segmentation import connected_components, watershed_instances
from course_utils.targets import boundary_target

TRAIN, TEST = len(image_order("train")), len(image_order("test"))
REAL_SHAPES = {(256, 256), (256, 320), (260, 347), (360, 360), (512, 640), (520, 696)}


@pytest.fixture(scope="module")
def embedded():
    return load_data("embedded")


def areas(samples: list[Sample]) -> np.ndarray:
    return np.concatenate([np.unique(sample.mask[sample.mask > 0], return_counts=True)[1] for sample in samples])


def touching_share(samples: list[Sample]) -> float:
    return sum(len(touching_ids(sample.mask)) for sample in samples) / len(areas(samples))


# --- the files


@pytest.mark.parametrize("first", range(4))
def test_the_generator_makes_the_embedded_images_again_pixel_by_pixel(first):
    for index in range(first, TRAIN + TEST, 4):
        part = "train" if index < TRAIN else "test"
        image, mask = generate_image(index)
        for kind, array in (("images", image), ("masks", mask)):
            stored = tifffile.imread(embedded_folder() / part / kind / f"synthetic-{index + 1:04d}.tif")
            assert stored.dtype == array.dtype
            np.testing.assert_array_equal(stored, array, err_msg=f"{kind} of {part} image {index + 1}")


def test_the_folder_holds_these_files_and_no_others_in_under_6_megabytes():
    files = [path for path in embedded_folder().rglob("*") if path.is_file()]
    expected = {
        Path(part, kind, f"synthetic-{number:04d}.tif")
        for part, numbers in (("train", range(1, TRAIN + 1)), ("test", range(TRAIN + 1, TRAIN + TEST + 1)))
        for kind in ("images", "masks")
        for number in numbers
    }
    assert {path.relative_to(embedded_folder()) for path in files} == expected
    assert sum(path.stat().st_size for path in files) < 6_000_000


def test_numbers_and_sizes_are_as_promised(embedded):
    assert 60 <= len(embedded.train) <= 100
    assert 16 <= len(embedded.test) <= 24
    for samples in (embedded.train, embedded.test):
        shapes = [sample.image.shape for sample in samples]
        assert set(shapes) <= REAL_SHAPES
        assert len(set(shapes)) >= 4
        assert shapes.count((256, 256)) > len(shapes) / 2


def test_every_validation_split_of_the_course_holds_several_families():
    names = [family.name for family in image_order("train")]
    assert len(set(names[7::8])) >= 6
    assert len(set(names[19::20])) >= 3
    assert len(set(names[:8])) >= 4  # what notebook 01 shows first


# --- what the images look like


def test_every_nucleus_is_one_piece_and_no_smaller_than_the_smallest_real_one(embedded):
    for sample in embedded.train + embedded.test:
        for number, window in enumerate(ndimage.find_objects(sample.mask), start=1):
            if window is None:
                continue
            nucleus = sample.mask[window] == number
            assert nucleus.sum() >= MIN_AREA, sample.name
            assert ndimage.label(nucleus, np.ones((3, 3)))[1] == 1, sample.name


def test_some_masks_have_gaps_in_their_ids_and_others_have_none(embedded):
    has_gaps = [sample.mask.max() > len(np.unique(sample.mask)) - 1 for sample in embedded.train]
    assert 0.15 < np.mean(has_gaps) < 0.5


def test_ids_say_nothing_about_the_place_of_a_nucleus(embedded):
    first_ids = [sample.mask[sample.mask > 0][0] for sample in embedded.train]
    assert np.mean([first == sample.mask.max() for first, sample in zip(first_ids, embedded.train, strict=True)]) < 0.3
    assert np.mean([first == 1 for first in first_ids]) < 0.3


def test_about_30_percent_of_the_nuclei_touch_another(embedded):
    assert 0.23 < touching_share(embedded.train) < 0.37
    assert 0.23 < touching_share(embedded.test) < 0.37


def test_intensities_span_dim_and_bright_images(embedded):
    maxima = np.array([sample.image.max() for sample in embedded.train])
    means = np.array([sample.image.mean() for sample in embedded.train])
    assert maxima.min() <= 50 and maxima.max() == 255
    assert means.min() < 3 and means.max() > 35


def test_images_contain_bright_outliers(embedded):
    def brightest_to_typical(sample):
        ids = np.unique(sample.mask)[1:]
        levels = ndimage.mean(sample.image, sample.mask, ids)
        return levels.max() / np.median(levels)

    ratios = [brightest_to_typical(sample) for sample in embedded.train]
    assert np.mean(np.array(ratios) > 2) > 0.2


def test_boundaries_separate_all_nuclei_and_components_do_not(embedded):
    by_watershed, by_components = [], []
    for sample in embedded.test:
        target = boundary_target(sample.mask).numpy()
        watershed = watershed_instances((target == 1).astype(float), (target == 2).astype(float))
        by_watershed.append(f1_score(watershed, sample.mask, 0.9))
        by_components.append(f1_score(connected_components((sample.mask > 0).astype(float)), sample.mask))
    assert np.mean(by_watershed) >= 0.99
    assert 0.8 < np.mean(by_components) < 0.95  # 0.90 on the real test images


def test_the_set_resembles_the_real_training_images(embedded, real_data_zip):
    real = load_data(real_data_zip).train
    for shape, tolerance in (((256, 256), 1.35), ((360, 360), 1.35), ((520, 696), 1.35), ((512, 640), 1.5)):
        pair = [[sample for sample in samples if sample.image.shape == shape] for samples in (embedded.train, real)]
        for measure in (
            lambda samples: np.median(areas(samples)),
            lambda samples: np.median([np.count_nonzero(np.unique(sample.mask)) for sample in samples]),
            lambda samples: np.mean([(sample.mask > 0).mean() for sample in samples]),
            lambda samples: np.median([sample.image.mean() for sample in samples]),
            lambda samples: np.median([sample.image[sample.mask > 0].mean() for sample in samples]),
        ):
            ours, theirs = (measure(samples) for samples in pair)
            assert 1 / tolerance < ours / theirs < tolerance, (shape, ours, theirs)
    assert abs(touching_share(embedded.train) - touching_share(real)) < 0.05


# --- the generator


def test_an_image_depends_on_its_seed_and_index_alone():
    image, mask = generate_image(5, seed=1)
    generate_image(6, seed=1)
    again = generate_image(5, seed=1)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(mask, again[1])
    assert not np.array_equal(image, generate_image(5, seed=2)[0])


@pytest.mark.parametrize("index", [-1, TRAIN + TEST])
def test_an_index_outside_the_set_is_named(index):
    with pytest.raises(IndexError, match=f"image {index} was asked for"):
        generate_image(index)


def test_writing_twice_gives_the_same_bytes_and_leaves_no_old_files(tmp_path, monkeypatch, capsys):
    small = tuple(replace(family, train=int(family.name == "sparse"), test=int(family.name == "mixed"))
                  for family in synthetic.IMAGE_FAMILIES)  # fmt: skip
    monkeypatch.setattr(synthetic, "IMAGE_FAMILIES", small)
    leftover = tmp_path / "a" / "train" / "images" / "synthetic-0099.tif"
    own_file = tmp_path / "a" / "notes.txt"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    own_file.write_text("keep me")

    synthetic.main([str(tmp_path / "a")])
    assert "Wrote 2 images" in capsys.readouterr().out
    assert synthetic.write_dataset(tmp_path / "b") == 2

    names = sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*.tif"))
    assert len(names) == 4
    assert not leftover.exists() and own_file.exists()
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    found = read_samples(tmp_path / "b")
    assert [len(found.train), len(found.test)] == [1, 1]


@given(st.integers(-60, 90), st.integers(-60, 90), st.integers(0, 20))
def test_paste_cuts_canvas_and_patch_alike(row, column, half):
    patch = np.arange((2 * half + 1) ** 2).reshape(2 * half + 1, -1)
    on_canvas, on_patch = synthetic.paste((30, 40), patch, row, column)
    canvas = np.full((30, 40), -1)
    canvas[on_canvas] = patch[on_patch]
    for y, x in np.argwhere(canvas >= 0):
        assert canvas[y, x] == patch[y - row + half, x - column + half]
    visible = [(y, x) for y in range(30) for x in range(40) if abs(y - row) <= half and abs(x - column) <= half]
    assert np.count_nonzero(canvas >= 0) == len(visible)


@given(st.integers(0, 10_000), st.floats(60, 3000), st.floats(1, 2.2))
def test_a_smooth_shape_has_the_area_and_elongation_asked_for(seed, area, elongation):
    depth = synthetic.draw_shape(np.random.default_rng(seed), area, elongation, angle=0.7, irregularity=0)
    mask = depth > 0
    assert mask.sum() == pytest.approx(area, rel=0.15)
    assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    rows, columns = np.nonzero(mask)
    minor, major = np.sqrt(np.linalg.eigvalsh(np.cov(rows, columns)))
    assert major / minor == pytest.approx(elongation, rel=0.15)


def test_pushed_nuclei_touch_and_the_others_keep_their_distance():
    family = replace(next(r for r in synthetic.IMAGE_FAMILIES if r.name == "sparse"), nuclei=(20, 20))
    apart = synthetic.place_nuclei(np.random.default_rng(0), replace(family, touching=0.0))[1]
    together = synthetic.place_nuclei(np.random.default_rng(0), replace(family, touching=1.0))[1]
    assert apart.max() == 20
    assert len(touching_ids(apart)) == 0
    assert len(touching_ids(together)) > 0.9 * together.max()


def test_new_ids_keep_the_nuclei_as_they_are():
    labels = np.arange(12).reshape(3, 4).repeat(2, axis=1)
    for seed in range(10):
        shuffled = synthetic.shuffle_ids(np.random.default_rng(seed), labels)
        pairs = np.unique(np.stack([labels.ravel(), shuffled.ravel()]), axis=1)
        assert pairs.shape[1] == 12
        assert len(np.unique(pairs[1])) == 12
        np.testing.assert_array_equal(labels == 0, shuffled == 0)
