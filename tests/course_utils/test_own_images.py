"""Images of one's own: channels, tiles, the trained size, and warnings."""

from __future__ import annotations

import gc
import math
import tracemalloc

import numpy as np
import pytest
import tifffile
import torch

from course_utils.checkpoints import checkpoint_folder, load_model
from course_utils.data import load_data
from course_utils.exploration import normalize_percentiles
from course_utils.measurements import median_diameter
from course_utils.metrics import f1_score
from course_utils.own_images import (
    TrainedSizes,
    percentile_range,
    read_image,
    segment_image,
    subtract_background,
    to_grey,
)
from course_utils.segmentation import predict, remove_small, watershed_instances
from course_utils.unet import ConvBlock

SIZES = TrainedSizes(median=17.0, smallest=8.0, largest=52.0)


class Brightness(torch.nn.Module):
    """Interior where a normalised pixel is above 0.5, boundary from 0.2 to 0.5: no context, so tiles are exact."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        interior, boundary = (x > 0.5).float(), ((x > 0.2) & (x <= 0.5)).float()
        return 20 * torch.cat([1 - interior - boundary, interior, boundary], dim=1)


class Blurred(Brightness):
    """The same of a blurred image: its probabilities are not 0 or 1, and the watershed has something to decide."""

    def forward(self, x):
        x = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), "reflect"), 3, stride=1)
        return torch.cat([20 * (0.4 - x), 20 * (x - 0.6), 3 - 20 * (x - 0.5).abs()], dim=1)


@pytest.fixture(scope="module")
def nuclei():
    """Discs in a 300 x 420 image, many of them on the seams of tiles of 64, and their label image."""
    rng = np.random.default_rng(0)
    image, labels = np.full((300, 420), 10.0), np.zeros((300, 420), dtype=int)
    rows, columns = np.indices(image.shape)
    for number, (row, column) in enumerate([(r, c) for r in range(0, 310, 21) for c in range(0, 430, 22)], start=1):
        distance = np.hypot(rows - row, columns - column)
        image[distance <= 9.5] = 90
        image[distance <= 8.2] = 200
        labels[distance <= 9.5] = number
    noise = rng.integers(0, 5, image.shape) + (image > 150) * rng.integers(0, 40, image.shape)
    return (image + noise).astype(np.uint8), labels


def same_up_to_ids(labels: np.ndarray, others: np.ndarray) -> bool:
    pairs = np.unique(np.stack([labels.ravel(), others.ravel()]), axis=1)
    return pairs.shape[1] == len(np.unique(labels)) == len(np.unique(others)) and (pairs[:, 0] == 0).all()


# tiles


@pytest.mark.parametrize("model", [Brightness(), Blurred()], ids=["sharp", "blurred"])
@pytest.mark.parametrize("tile", [64, 96, 200])
def test_tiles_give_the_instances_of_the_whole_image(nuclei, model, tile):
    image, _ = nuclei
    found = segment_image(model, image, threshold=0.3, tile=tile)
    _, foreground, boundary = predict(model, normalize_percentiles(image))
    whole = remove_small(watershed_instances(foreground, boundary, 0.3), 20)
    assert whole.max() > 200
    assert same_up_to_ids(found.labels, whole)
    assert found.labels.dtype == np.int32 and found.labels.max() == len(np.unique(found.labels)) - 1


def test_a_network_with_context_gives_the_same_in_tiles():
    """Exactly, if its normalisation has fixed statistics, those of the whole image, in place of each tile's own."""
    model, _ = load_model(checkpoint_folder() / "boundary_embedded.pt")
    image = np.tile(load_data("embedded").test[0].image[:256, :256], (2, 2))
    for block in [part for part in model.modules() if isinstance(part, ConvBlock)]:
        for place, part in enumerate(block.layers):
            if isinstance(part, torch.nn.InstanceNorm2d):
                block.layers[place] = torch.nn.BatchNorm2d(part.num_features, momentum=None)
                block.layers[place].load_state_dict(part.state_dict(), strict=False)
    with torch.no_grad():
        model.train()(torch.from_numpy(normalize_percentiles(image))[None, None])
    tiles, whole = (segment_image(model.eval(), image, tile=tile, compare_views=False) for tile in (256, 1024))
    assert same_up_to_ids(tiles.labels, whole.labels) and tiles.labels.max() > 20


def test_the_pretrained_network_finds_nearly_the_same_in_tiles_and_as_much_of_the_truth():
    """Nearly: its instance normalisation sees the tile, not the whole image."""
    sample = load_data("embedded").test[0]
    model, _ = load_model(checkpoint_folder() / "boundary_embedded.pt")
    image = np.tile(sample.image[:256, :256], (2, 2))
    parts = [sample.mask[:256, :256] + (sample.mask[:256, :256] > 0) * 1000 * place for place in range(4)]
    truth = np.block([parts[:2], parts[2:]])
    tiles, whole = (segment_image(model, image, tile=tile, compare_views=False).labels for tile in (256, 1024))
    assert f1_score(tiles, whole) > 0.95 and tiles.max() > 20
    assert f1_score(tiles, truth) > f1_score(whole, truth) - 0.02


@pytest.mark.parametrize("diameter", [10.0, 29.0])
def test_tiles_of_a_scaled_image_give_the_same(nuclei, diameter):
    image, _ = nuclei
    tiles, whole = (
        segment_image(Blurred(), image, diameter, 0.3, SIZES, compare_views=False, tile=tile).labels
        for tile in (96, 2048)
    )
    assert same_up_to_ids(tiles, whole) and tiles.max() > 50


def test_nuclei_of_another_size_are_found_at_the_trained_one(nuclei):
    """`Brightness` does not care about sizes: the labels come back where they were."""
    image, labels = nuclei
    for diameter in (9.0, 30.0):
        found = segment_image(Brightness(), image, diameter, sizes=SIZES)
        assert found.labels.shape == image.shape
        assert f1_score(found.labels, labels, 0.7) > 0.9


def test_an_object_larger_than_the_margin_is_cut_and_said_to_be():
    image = np.zeros((600, 64), dtype=np.uint8)
    image[20:580, 10:50] = 200
    image[20:580, 15:45] = 220
    found = segment_image(Brightness(), image + np.arange(64, dtype=np.uint8) % 3, tile=64)
    assert "cut" in [warning.kind for warning in found.warnings]
    assert (found.labels[30:570, 20:40] > 0).mean() > 0.5


def test_the_views_agree_on_what_is_clear(nuclei):
    image, _ = nuclei
    assert segment_image(Brightness(), image, tile=64).agreement == 1
    assert math.isnan(segment_image(Brightness(), image, compare_views=False).agreement)


class OnTheLeft(Brightness):
    """Sees nuclei in the left half only: the mirror image has others."""

    def forward(self, x):
        logits = super().forward(x)
        logits[:, 0, :, x.shape[-1] // 2 :] = 30
        return logits


def test_views_that_disagree_are_a_warning(nuclei):
    image, _ = nuclei
    found = segment_image(OnTheLeft(), image)
    assert found.agreement < 0.2 and "views" in [warning.kind for warning in found.warnings]


# channels and dtypes


def test_every_dtype_gives_the_same_labels(nuclei):
    image, _ = nuclei
    expected = segment_image(Brightness(), image).labels
    for other in (image * np.uint16(257), image / np.float32(255), image.astype(np.float64) * 1e5, image.astype(">i4"),
                  image[..., None], image[None], np.stack([image] * 3, axis=-1)):  # fmt: skip
        assert np.array_equal(segment_image(Brightness(), other).labels, expected)


@pytest.mark.parametrize(
    ("shape", "dtype", "channel", "kind", "value"),
    [
        ((20, 30, 3), np.uint8, None, ["colour"], 1.0),
        ((20, 30, 4), np.uint8, None, ["colour"], 1.0),
        ((20, 30, 3), np.uint8, 3, [], 2),
        ((20, 30, 3), np.uint16, None, ["channel"], 0),
        ((20, 30, 2), np.uint8, 2, [], 1),
        ((5, 20, 30), np.uint16, None, ["channel"], 0),
        ((12, 20, 30), np.uint16, 12, [], 11),
        ((1, 3, 20, 30), np.uint16, 2, [], 1),
        ((1, 20, 30, 3), np.uint8, None, ["colour"], 1.0),
    ],
)
def test_one_channel_is_taken(shape, dtype, channel, kind, value):
    axis = next(at for at, side in enumerate(shape) if side not in (1, 20, 30))
    numbers = np.arange(shape[axis]).reshape([-1 if at == axis else 1 for at in range(len(shape))])
    grey, warnings = to_grey(np.broadcast_to(numbers, shape).astype(dtype), channel)
    assert grey.shape == (20, 30) and (grey == value).all()
    assert [warning.kind for warning in warnings] == kind


@pytest.mark.parametrize(("n_channels", "example"), [(2, "--channel 2"), (5, "--channel 3")])
def test_the_channel_that_the_warning_names_is_there(n_channels, example):
    [warning] = to_grey(np.zeros((n_channels, 20, 30), np.uint16))[1]
    assert f"Channel 1 of {n_channels}" in warning.text and example in warning.text


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((6, 20, 30)), "stack or a time series"),
        (np.zeros((2, 3, 20, 30)), "stack or a time series"),
        (np.zeros((20,)), "has the shape"),
        (np.full((20, 30), np.nan), "600 values that are NaN"),
        (np.zeros((20, 30), dtype=complex), "dtype complex128"),
        (np.zeros((0, 30)), "no pixels"),
    ],
)
def test_what_is_no_image_is_refused_in_words(image, message):
    with pytest.raises(ValueError, match=message):
        to_grey(image)


def test_a_channel_that_is_not_there_and_a_diameter_that_cannot_be_are_refused(nuclei):
    with pytest.raises(ValueError, match="no channel 4: the image has 3"):
        to_grey(np.zeros((20, 30, 3), dtype=np.uint8), 4)
    for diameter in (0.0, -3.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"diameter must be a finite number above 0, but is {diameter}"):
            segment_image(Brightness(), nuclei[0], diameter)
    for diameter in (1.0, 1e4):
        with pytest.raises(ValueError, match=f"diameter must be a number of pixels from .* to .*, but is {diameter}"):
            segment_image(Brightness(), nuclei[0], diameter)


@pytest.mark.parametrize(("shape", "dtype"), [((1500, 2000), np.uint16), ((1500, 2000, 3), np.uint8)])
def test_an_image_is_in_memory_once(tmp_path, shape, dtype):
    tifffile.imwrite(tmp_path / "large.tif", np.random.default_rng(0).integers(0, 256, shape, dtype=dtype))
    read_image(tmp_path / "large.tif")  # with all imports
    gc.disable()  # a slide must not wait for it
    tracemalloc.start()
    try:
        image = read_image(tmp_path / "large.tif")
        assert tracemalloc.get_traced_memory()[0] < 1.1 * image.nbytes
        tracemalloc.reset_peak()
        grey, _ = to_grey(image)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * image.nbytes + 1.3 * grey.nbytes
    finally:
        tracemalloc.stop()
        gc.enable()


def test_the_percentiles_are_those_of_the_normalisation(nuclei):
    for image in (nuclei[0], nuclei[0].astype(np.float32) / 7, np.eye(90, dtype=np.uint16)):
        low, high = percentile_range(image)
        expected = normalize_percentiles(image)
        assert np.allclose((image - low) / (high - low), expected, atol=1e-5)


# warnings


def kinds(image, **options):
    found = segment_image(Brightness(), image, **options)
    assert all(str(warning).endswith(".") for warning in found.warnings)
    return [warning.kind for warning in found.warnings]


def test_each_reason_for_doubt_is_said(nuclei):
    image, _ = nuclei
    rng = np.random.default_rng(1)
    assert kinds(image) == []
    assert "inverted" in kinds(255 - image)
    assert kinds(np.full((50, 60), 7, dtype=np.uint16)) == ["empty"]
    assert "low contrast" in kinds((image > 150).astype(np.uint8) * np.uint8(3) + np.uint8(20))
    assert "low contrast" in kinds(rng.normal(1000, 30, (200, 300)).astype(np.float32))
    assert "saturated" in kinds(np.minimum(image, 190))
    assert "size" in kinds(np.kron(image[:80, :80], np.ones((6, 6), dtype=np.uint8)))
    assert "uneven" in kinds((image * 0.3 + np.linspace(0, 100, 420)).astype(np.uint16))
    dark = np.zeros((64, 64), dtype=np.uint8)
    dark[30, 30] = 90
    assert "empty" in kinds(dark)


def test_the_diameter_to_try_is_that_of_the_nuclei_and_trying_it_helps(nuclei):
    image = np.kron(nuclei[0][:80, :80], np.ones((6, 6), dtype=np.uint8))
    found = segment_image(Brightness(), image)
    (text,) = (warning.text for warning in found.warnings if warning.kind == "size")
    assert text.endswith(f"try the diameter {median_diameter(found.labels):.0f}.")
    assert "size" not in kinds(image, diameter=median_diameter(found.labels))


class Fragile(Brightness):
    """Sees small nuclei everywhere, and large ones in the right half only: the mirror image has others."""

    def forward(self, x):
        wide = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (15, 15, 15, 15)), 31, stride=1) > 0.45
        broken = wide & (torch.arange(x.shape[-1]) < x.shape[-1] // 2)
        return super().forward(x) + 40 * torch.cat([broken.float(), -broken.float(), -broken.float()], dim=1)


def test_views_that_agree_at_a_smaller_scale_give_a_diameter_to_try():
    image = np.zeros((400, 400), dtype=np.uint8)
    rows, columns = np.indices(image.shape)
    for row in range(40, 400, 70):
        for column in range(33, 400, 70):
            image[np.hypot(rows - row, columns - column) < 25] = 120
    image[image > 0] += np.random.default_rng(0).integers(0, 90, np.count_nonzero(image)).astype(np.uint8)
    found = segment_image(Fragile(), image)
    assert found.agreement < 0.8
    (text,) = (warning.text for warning in found.warnings if warning.kind == "size")
    tried = float(text.rsplit(" ", 1)[1].rstrip("."))
    assert 30 < tried < 65
    assert segment_image(Fragile(), image, tried).agreement > found.agreement


def test_the_training_images_cause_no_warning_before_they_are_segmented():
    class Nothing(Brightness):
        def forward(self, x):
            return torch.cat([x * 0 + 9, x * 0, x * 0], dim=1)

    for sample in load_data("embedded").train[::4]:
        found = segment_image(Nothing(), sample.image, compare_views=False)
        assert [warning.kind for warning in found.warnings] == ["empty"]


def test_an_uneven_background_is_removed(nuclei):
    image, labels = nuclei
    slope = np.linspace(0, 150, image.shape[1])[None]
    flat = subtract_background(np.round(image * 0.4 + slope))
    assert flat.dtype == np.float32 and flat.min() == 0
    background = flat[:, 30:-30][labels[:, 30:-30] == 0]
    assert background.std() < 15 < slope.std()


def test_the_sizes_of_the_embedded_set():
    sizes = TrainedSizes.of([sample.mask for sample in load_data("embedded").train])
    assert (sizes.median, sizes.smallest, sizes.largest) == (17.8, 9.5, 50.1)
