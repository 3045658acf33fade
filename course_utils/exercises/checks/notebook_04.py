"""The checks of notebook 04."""

from __future__ import annotations

import contextlib
import itertools
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from course_utils.exercises.checks.models import ModelState, Notes, beside, pictured
from course_utils.exercises.diagrams import MAX_INSTANCES, Matches
from course_utils.exercises.feedback import (
    CheckFailed,
    advice_for,
    check_part,
    diagnosis,
    expect_callable,
    expect_close,
    expect_dtype,
    expect_error,
    expect_float,
    expect_label_image,
    expect_room_for_ids,
    expect_shape,
    expect_type,
    expect_whole_number,
    fail,
    untouched,
)
from course_utils.exercises.pictures import Panel, Panels
from course_utils.exercises.sandbox import on_timeout
from course_utils.unet import UNet

# 4.1 predict


def check_predict(predict) -> None:
    expect_callable(predict, "predict")
    rng = np.random.default_rng(41)
    cases = [  # sides divisible by 16, others, and some shorter than their padding
        (1, (20, 37), np.float32),
        (3, (33, 16), np.float64),
        (2, (16, 32), np.float32),
        (1, (1, 1), np.float32),
        (3, (1, 50), np.float32),
        (1, (47, 5), np.float64),
    ]
    for number, (channels, shape, dtype) in enumerate(cases):
        model, image = PointModel(channels), rng.random(shape).astype(dtype)
        with check_part():
            found = _predict(predict, model.train(number % 2 == 0), image)
            with pictured(partial(_picture_of_probabilities, found, model.expected(image), image)):
                _expect_probabilities(found, image, model)
    _expect_device(predict, rng.random((20, 37), dtype=np.float32))

    # every pixel is predicted together with its neighbours: no seams
    model, image = PointModel(1, kernel_size=3), rng.random((36, 53), dtype=np.float32)
    found, expected = _predict(predict, model.train(), image), model.expected(image)
    look = "Pass the whole image to the model at once, as it is."
    expect_close("the probabilities of a 3x3 convolution (rim left out)", found[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1],
                 look, tolerance=0.01, input=image[1:-1, 1:-1])  # fmt: skip

    torch.manual_seed(41)
    for channels, shape in [(1, (20, 20)), (3, (20, 45))]:
        unet = UNet(1, channels, base_channels=4, depth=4, batch_norm=True)
        with check_part():
            found = _predict(predict, unet.train(), rng.random(shape, dtype=np.float32))
            expect_shape(f"the result for a U-Net and an image {shape}", found, (channels, *shape))
            if not np.isfinite(found).all() or found.min() < 0 or found.max() > 1.0001:
                fail("Range of the probabilities of a U-Net", f"{found.min():.3g} to {found.max():.3g}", "0 to 1")


class Refused(ValueError):
    """The model of the check refuses a tensor that a U-Net could not take."""


class PointModel(torch.nn.Module):
    """A network whose pixels depend on themselves (or on their neighbours) only, with the input of a U-Net.

    So the right result for every pixel is known, whatever the padding contains.
    """

    def __init__(self, channels: int, kernel_size: int = 1):
        super().__init__()
        weight, bias = torch.tensor([6.0, -4.0, 1.0])[:channels].reshape(-1, 1, 1, 1), torch.tensor([-3.0, 2.0, 0.0])
        if kernel_size > 1:
            generator = torch.Generator().manual_seed(channels)
            weight = 3 * torch.randn(channels, 1, kernel_size, kernel_size, generator=generator)
            bias = -0.5 * weight.sum(dim=(1, 2, 3))
        self.convolution = torch.nn.Conv2d(1, channels, kernel_size, padding="same")
        self.convolution.load_state_dict({"weight": weight, "bias": bias[:channels]})
        self.dropout = torch.nn.Dropout()  # a part that must be in evaluation mode, too
        self.notes = Notes()

    def forward(self, x):
        self.notes.called, shape = True, tuple(x.shape)
        if len(shape) != 4 or shape[1] != 1:
            raise Refused(f"Shape of the tensor that reaches the model: found {shape}, expected (1, 1, H, W). "
                          "Add an axis for the batch and one for the channel.")  # fmt: skip
        if shape[2] % 16 or shape[3] % 16 or 0 in shape:
            raise Refused(f"Shape of the tensor that reaches the model: found {shape}, expected sides divisible by "
                          "16. Pad the image first.")  # fmt: skip
        if x.dtype != self.convolution.weight.dtype or x.dtype == torch.float64:
            raise Refused(f"dtype of the tensor that reaches the model: found {x.dtype}, expected torch.float32. "
                          "The image may be float64; convert it, not the model.")  # fmt: skip
        self.notes.on_device |= x.device == self.convolution.weight.device
        if x.device.type == "meta" or self.convolution.weight.device.type == "meta":  # see _expect_device
            return torch.zeros(len(x), self.convolution.out_channels, *shape[2:]).as_subclass(_Elsewhere)
        logits = self.convolution(x)
        self.notes.add(self, logits)
        return logits

    def expected(self, image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = self.convolution(torch.tensor(image, dtype=torch.float32)[None, None])[0]
        return (logits.sigmoid() if len(logits) == 1 else logits.softmax(dim=0)).numpy()


class _Elsewhere(torch.Tensor):
    """A tensor that seems to be on another device: `numpy` works only after a move to the CPU."""

    not_brought_back = False

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function == torch.Tensor.device.__get__:
            return torch.device("meta")
        places = [str(value) for value in (*args[1:], *kwargs.values()) if isinstance(value, (str, torch.device))]
        brings_back = function is torch.Tensor.cpu or function is torch.Tensor.to and "cpu" in places
        if brings_back or function is torch.Tensor.numpy and kwargs.get("force"):
            plain = args[0].as_subclass(torch.Tensor)
            return function(plain, *args[1:], **kwargs)
        if function in (torch.Tensor.numpy, torch.Tensor.__array__):
            cls.not_brought_back = True
            raise TypeError("can't convert device type tensor to numpy. Copy the tensor to host memory first.")
        return super().__torch_function__(function, types, args, kwargs)


def _expect_device(predict: Callable, image: np.ndarray) -> None:
    """The tensor is moved to the device of the model, and the result to the CPU, checked without a GPU.

    The parameters are on torch's "meta" device, which has no numbers: the check looks at devices only.
    """
    model, moved = PointModel(1).to("meta").eval(), False
    _Elsewhere.not_brought_back = False
    try:
        predict(model, image)
    except NotImplementedError:  # torch cannot copy from the meta device
        moved = not model.notes.called
    except Exception:  # this device cannot do all that a real one can
        pass
    if moved or model.notes.called and not model.notes.on_device:
        found = "the model moved" if moved else "the tensor on the CPU"
        fail("Device, when the model is not on the CPU", found, "the tensor on the device of the model's parameters",
             "Every parameter of the model has a device.")  # fmt: skip
    if _Elsewhere.not_brought_back:
        fail("Device of the result", "the model's", "the CPU", "NumPy cannot read a tensor on a GPU.")


def _predict(predict: Callable, model: torch.nn.Module, image: np.ndarray) -> Any:
    """Call `predict`, and check everything but the numbers: the model and the image are what they were."""
    before = ModelState(model, grad_mode=True)
    try:
        with untouched(image=image), torch.enable_grad():
            found = predict(model, image)
            grad_mode = torch.is_grad_enabled()
    except Refused as refusal:
        raise CheckFailed(str(refusal)) from None
    look = "The method numpy of a tensor gives an array." if isinstance(found, torch.Tensor) else "The array alone."
    expect_type("the result", found, np.ndarray, look)
    if isinstance(model, PointModel):
        model.notes.expect_inference()
    before.expect_unchanged(grad_mode)
    return found


def _picture_of_probabilities(found: np.ndarray, expected: np.ndarray, image: np.ndarray, error: Exception) -> Any:
    return beside(f"The probabilities of an image {image.shape}", found, expected, image, "probability", 0.01)


def _expect_probabilities(found: np.ndarray, image: np.ndarray, model: PointModel) -> None:
    expected = model.expected(image)
    channels, height, width = expected.shape
    what = f"the result for an image {image.shape} and {channels} channel{'s' * (channels > 1)}"
    look = "Remove the batch axis, keep the channel axis."
    if found.ndim == 3 and found.shape != expected.shape:
        larger = found.shape[1] >= height and found.shape[2] >= width
        look = "Cut the padding off." if larger else "Pad the image instead of cropping it: every pixel needs a result."
        if 0 in found.shape:
            look = "A slice that ends at -0 is empty."
        elif found.shape == (height, width, channels):
            look = "Channels first, then height and width."
        elif found.shape[2] == height and found.shape[1] >= min(width, 32):
            look = "Height first, then width."
    expect_shape(what, found, expected.shape, look)
    looks = {"b": "Probabilities, not decisions.", "f": "Convert it, as .astype(np.float32) does."}
    expect_dtype(what, found, np.float32, looks.get(found.dtype.kind, "Probabilities from 0 to 1, not scaled."))

    if found.min() < -0.01 or found.max() > 1.01:
        look = "The model returns logits; turn them into probabilities."
        if found.max() <= 0:
            look = "Logarithms of probabilities are negative: softmax, not log_softmax."
        fail(f"Range of {what}", f"{found.min():.3g} to {found.max():.3g}", "0 to 1", look)
    sums = found.sum(axis=0)
    if channels > 1 and not np.allclose(sums, 1, atol=0.02):
        fail(f"Sum over the channels of {what}", round(float(sums.ravel()[0]), 4), 1,
             "More than one channel: softmax over the channels. Which axis is that?")  # fmt: skip
    look = "Pass the image as it is (not resized, normalised or shifted) to the model, then one sigmoid or softmax."
    if channels == 1 and (found == 1).all():
        look = "A softmax over one channel is always 1: one channel needs the sigmoid."
    if not np.allclose(found, expected, atol=0.01):
        look = _name_values(found, expected) or look
    expect_close(what, found, expected, look, tolerance=0.01)


def _name_values(found: np.ndarray, expected: np.ndarray) -> str:
    """Which mistake gives all the pixels that were found, as a sentence; empty if it is none of these."""
    if min(expected.shape[1:]) < 5:
        return ""
    again = torch.from_numpy(expected)
    twice = again.sigmoid() if len(again) == 1 else again.softmax(0)
    look = advice_for(found, {
        "": expected,
        "It is applied twice: one sigmoid or one softmax is enough.": twice,
        "The rows are upside down.": expected[:, ::-1],
        "Left and right are exchanged.": expected[:, :, ::-1],
        "The channels are in another order.": expected[::-1],
        "The probabilities are rounded.": expected.round(1),
    }, "", 0.003)  # fmt: skip
    if look:
        return look
    _, height, width = expected.shape
    for down, right in itertools.product(range(-15, 16), repeat=2):
        ours = expected[:, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
        theirs = found[:, max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)]
        if (down or right) and ours.size > 20 and np.allclose(theirs, ours, atol=0.003):
            return (f"It is shifted by {down} rows and {right} columns: cut the result out where the image lies in the "
                    "padded one.")  # fmt: skip
    return ""


# 4.2 connected_components


def check_connected_components(connected_components) -> None:
    expect_callable(connected_components, "connected_components")
    probability = np.full((15, 18), 0.05, dtype=np.float32)
    probability[1:4, 1:4] = 0.93
    probability[5, 2] = 0.55  # a single pixel
    probability[7:12, 1:6] = 0.7  # a ring: its hole is background
    probability[8:11, 2:5] = 0.2
    probability[1:8, 7], probability[1:8, 11], probability[7, 7:12] = 0.6, 0.6, 0.6  # two arms, joined at the bottom
    probability[9:11, 13:15], probability[11:13, 15:17] = 0.9, 0.85  # two that touch at a corner
    probability[10:12, 10:12], probability[12:14, 8:10] = 0.9, 0.85  # and two at the other corner
    probability[2:5, 14:17] = 0.4  # above low thresholds only
    probability[14, :6] = 0.75
    probability[14, 12], probability[14, 17] = 0.5004, 0.4996  # just above and just below the default threshold
    for dtype in (np.float32, np.float64):
        image = probability.astype(dtype)
        for threshold, arguments in [(0.5, ()), (0.3, (0.3,)), (0.8, (0.8,))]:
            with untouched(probability=image):
                found = connected_components(image, *arguments)
            default = "the default threshold" if not arguments else f"threshold={threshold}"
            _expect_components(found, image, threshold, default)
    _expect_components(connected_components(probability, threshold=0.65), probability, 0.65, "threshold=0.65")

    many = np.full((41, 43), 0.1)
    many[::2, ::2] = 0.9  # 462 components: too many ids for a byte
    for name, image in [("an image of many single pixels", many), ("an image all above the threshold", 1 - many / 3),
                        ("an image all below the threshold", many / 3)]:  # fmt: skip
        found = connected_components(image)
        expect_room_for_ids(f"Number of components ({name})", found, 462 * (image is many))
        _expect_components(found, image, 0.5, name)


def _expect_components(found: Any, probability: np.ndarray, threshold: float, what: str) -> None:
    expect_label_image(f"the result for {what}", found, probability.shape)
    above = probability > threshold
    four, n_four = ndimage.label(above)
    eight, n_eight = ndimage.label(above, structure=np.ones((3, 3)))

    place = None  # of what is wrong

    def picture(error: CheckFailed) -> Panels:
        mark = None if place is None else tuple(map(int, place))
        panels = [("probability", probability, "probability"), ("yours", found, "labels"),
                  ("expected, one of several numberings", eight if n_found == n_eight else four, "labels")]  # fmt: skip
        alt = "Probability, your components and the expected ones"
        alt += ", the first wrong pixel framed" * (mark is not None) + f": {error.finding}"
        return Panels(tuple(Panel(*panel, mark=mark) for panel in panels), alt)

    n_found = len(np.unique(found[above]))
    with pictured(picture):
        for inside, relation, expected in [(True, "above", "the id of a component"),
                                           (False, "below", "0 (background)")]:  # fmt: skip
            places = np.argwhere((above == inside) & ((found != 0) != inside))
            if len(places):
                place = y, x = tuple(places[0].tolist())
                if np.array_equal(found != 0, ~above):
                    look = "Pixels above the threshold are foreground, not those below."
                elif not found.any():
                    look = "All is background: give the result of a comparison to `label`, not probabilities."
                elif np.array_equal(found != 0, probability > 0.5):
                    look = "Use the argument threshold."
                else:
                    look = "Only pixels above it are foreground: no other threshold, no filled holes."
                    if inside:
                        look = "Every pixel above it is foreground, even a single one."
                fail(f"Value at ({y}, {x}), where the probability {probability[y, x]:.4g} is {relation} the threshold "
                     f"{threshold} ({what})", int(found[y, x]), expected, look)  # fmt: skip
        for region in range(1, n_four + 1):
            ids = np.unique(found[four == region])
            if len(ids) > 1:
                place = np.argwhere((four == region) & (found == ids[1]))[0]
                fail(f"Ids inside one connected region ({what})", f"{len(ids)}: {ids.tolist()[:5]}", "a single one")
        for id_ in np.unique(found[above]):
            regions = np.unique(eight[found == id_])
            if len(regions) > 1:
                place = np.argwhere((eight == regions[1]) & (found == id_))[0]
                fail(f"Number of components ({what})", n_found,
                     n_eight if n_eight == n_four else f"{n_eight} or {n_four}",
                     f"Regions that are not connected share the id {id_}.")  # fmt: skip
        if n_found not in (n_four, n_eight):
            fail(f"Number of components ({what})", n_found, f"{n_eight} or {n_four}",
                 "Join diagonal neighbours everywhere or nowhere.")  # fmt: skip


# 4.3 iou_matrix


def check_iou_matrix(iou_matrix) -> None:
    expect_callable(iou_matrix, "iou_matrix")
    prediction, truth = _label_pair()
    with untouched(prediction=prediction, truth=truth):
        found = iou_matrix(prediction, truth)
    _expect_iou(found, prediction, truth, "ids with gaps")

    swapped = iou_matrix(truth, prediction)
    _expect_iou(swapped, truth, prediction, "more predictions than nuclei")
    # Ids grow step by step, so that code whose memory depends on their size fails before it fills the machine. The
    # steps are too large for one type after the other: float32 represents integers up to 2**24.
    steps = {2_000: "uint8", 256: "uint8", 1_000_000: "uint16", 2**16: "uint16", 2**24: "float32", 2**40: "int32"}
    for largest, too_small in steps.items():
        pair = [labels.astype(np.int64) for labels in (prediction, truth)]
        for labels in pair:
            labels[labels == 250], labels[np.isin(labels, [251, 9])] = largest, largest + 1
        name = f"ids up to {largest + 1}"
        look = f"The largest id was {largest + 1}: do not count up to it, take the ids that occur (np.unique)."
        with on_timeout(look), peak_memory() as peak:
            found = iou_matrix(*pair)
        if peak[0] > 500_000:
            fail(f"Memory for a few ids, the largest of them {largest}", f"{peak[0] / 1e6:.1f} MB",
                 "a few kB", "First number the ids that occur 0, 1, 2, ...; their size must not matter.")  # fmt: skip
        look = f"Ids up to {largest + 1} do not fit into {too_small}: two become one, or one becomes the background."
        _expect_iou(found, *pair, name, look)

    for dtypes in [(np.uint8, np.uint8), (np.uint16, np.int32), (np.int64, np.uint8), (np.int64, np.int64)]:
        pair = [labels.astype(dtype) for labels, dtype in zip((prediction, truth), dtypes, strict=True)]
        for labels in pair:  # the largest id of the small types, where a product of ids overflows
            labels[labels == 250] = min(np.iinfo(labels.dtype).max, 65535)
        with untouched(prediction=pair[0], truth=pair[1]):
            found = iou_matrix(*pair)
        _expect_iou(found, *pair, " and ".join(np.dtype(dtype).name for dtype in dtypes))

    full = np.repeat(np.repeat([[3, 5], [9, 9]], 3, axis=0), 4, axis=1)
    striped = np.repeat([[4, 1, 0, 6]], 6, axis=0).repeat(2, axis=1)
    _expect_iou(iou_matrix(full, striped), full, striped, "a prediction without background")
    _expect_iou(iou_matrix(striped, full), striped, full, "a truth without background")
    one = np.ones((1, 1), dtype=np.int32)
    _expect_iou(iou_matrix(one, one), one, one, "an image of one pixel")

    large = np.zeros((2, 260, 300), dtype=np.uint16)  # more pixels than 16 bits can count
    large[0, :255, :290], large[1, 1:257, :280] = 3, 7
    large[0, 256:, ::2], large[1, 257:, 1:] = 9, 2
    look = "Areas and their sums are larger than 65535 pixels: a small type cannot count them."
    _expect_iou(iou_matrix(*large), *large, "instances of 70000 pixels", look)
    many = np.zeros((40, 30), dtype=np.int32)
    many[::2, ::2] = np.arange(2, 302).reshape(20, 15)
    few = np.where(many > 150, 5, 8 * (many > 0))
    look = "There are 300 predictions: a number above 255 does not fit into a byte."
    _expect_iou(iou_matrix(many, few), many, few, "300 predictions and 2 nuclei", look)

    empty = np.zeros_like(prediction)
    for first, second, name in [(empty, truth, "an empty prediction"), (prediction, empty, "an empty truth"),
                                (empty, empty, "two empty label images")]:  # fmt: skip
        _expect_iou(iou_matrix(first, second), first, second, name)

    expect_equal_shapes(iou_matrix)


@check_part()
def expect_equal_shapes(function: Callable) -> None:
    """Label images of different shapes raise a `ValueError`, even if NumPy could broadcast them."""
    for first, second in [((4, 6), (6, 4)), ((1, 6), (4, 6)), ((4, 6), (4, 5))]:
        labels = np.zeros(first, dtype=np.int32), np.zeros(second, dtype=np.int32)
        labels[0][0, 1:3], labels[1][0, 1:3] = 1, 2
        expect_error(f"Result for the shapes {first} and {second}", partial(function, *labels),
                     look="Compare the shapes first.")  # fmt: skip


def _label_pair() -> tuple[np.ndarray, np.ndarray]:
    """A prediction of 4 instances and a truth of 6, whose ids are not in the order of the image."""
    prediction, truth = np.zeros((2, 24, 40), dtype=np.int32)
    truth[1:9, 1:9], truth[1:9, 12:20], truth[1:9, 20:30] = 12, 3, 250
    truth[12:22, 2:14], truth[12:22, 20:26], truth[14:20, 30:38] = 1, 40, 251
    prediction[2:10, 1:10] = 9  # shifted
    prediction[1:9, 12:28] = 250  # two nuclei merged
    prediction[12:17, 2:14], prediction[17:22, 3:13] = 6, 2  # one nucleus split
    return prediction, truth


MEASURES = {
    "Dice, 2 * intersection over the sum of the areas": lambda a, b: 2 * (a & b).sum() / (a.sum() + b.sum()),
    "intersection over the area of the prediction": lambda a, b: (a & b).sum() / a.sum(),
    "intersection over the area of the nucleus": lambda a, b: (a & b).sum() / b.sum(),
    "the intersection in pixels": lambda a, b: float((a & b).sum()),
    "intersection over the sum of the areas": lambda a, b: (a & b).sum() / (a.sum() + b.sum()),
    "one minus the IoU, a distance": lambda a, b: 1 - _iou(a, b),
    "the IoU in percent": lambda a, b: 100 * _iou(a, b),
    "whether the IoU is above 0.5": lambda a, b: float(_iou(a, b) > 0.5),
}


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def _brute_force(prediction: np.ndarray, truth: np.ndarray, measure: Callable = _iou) -> np.ndarray:
    """The matrix of a measure, computed pair by pair."""
    rows, columns = ([labels == i for i in np.unique(labels[labels != 0])] for labels in (prediction, truth))
    values = [[measure(row, column) for column in columns] for row in rows]
    return np.array(values, dtype=float).reshape(len(rows), len(columns))


@check_part()
def _expect_iou(found: Any, prediction: np.ndarray, truth: np.ndarray, name: str, special: str = "") -> None:
    """The matrix is right. `special` says where to look if only this example fails."""
    expected = _brute_force(prediction, truth)
    what = f"the matrix for {name}"
    with pictured(partial(_picture_of_iou, what, found, expected, (prediction, truth))):
        expect_type(what, found, np.ndarray)
        n_pred, n_true = expected.shape
        largest = (int(prediction.max()), int(truth.max()))
        looks = {
            (n_true, n_pred): "Rows are predictions, columns are true nuclei.",
            (n_pred + 1, n_true + 1): "Leave out the background.",
            largest: "Ids have gaps: the largest is not their number.",
            tuple(size + 1 for size in largest): "Ids have gaps: the largest is not their number.",
        }
        look = special or "One row for each prediction, one column for each nucleus; only the background has the id 0."
        if expected.size == 0:
            look = "Without instances the matrix still has two axes, one of length 0."
        expect_shape(what, found, expected.shape, looks.get(found.shape, look))
        if found.dtype.kind != "f":
            fail(f"dtype of {what}", str(found.dtype), "a float type")
        look = special or "Rows and columns are in ascending order of the ids."
        if not np.allclose(found, expected, atol=1e-5):
            look = advice_for(found, {
                f"These are the values of another measure: {measure}.": _brute_force(prediction, truth, function)
                for measure, function in MEASURES.items()
            }, look)  # fmt: skip
            sorted_values = np.sort(found.ravel()), np.sort(expected.ravel())
            if not np.allclose(*sorted_values, atol=1e-5) and look.startswith("Rows"):
                look = "Count intersection and union of one pair by hand, and compare."
        expect_close(what, found, expected, look)


def _picture_of_iou(what: str, found: Any, expected: np.ndarray, labels: tuple, error: Exception) -> Panels | None:
    """Both label images, then the matrices, if their numbers can be read."""
    if not 0 < max(expected.shape) <= MAX_INSTANCES:
        return None
    names = "prediction: ids are rows", "truth: ids are columns"
    matrices = beside(what, found, expected)
    return replace(matrices, panels=(*map(Panel, names, labels, ["labels"] * 2), *matrices.panels))


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Yield a list that afterwards contains the peak of the bytes that Python and NumPy allocated inside."""
    peak, was_tracing = [0], tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        yield peak
        peak[0] = tracemalloc.get_traced_memory()[1] - before
    finally:
        if not was_tracing:
            tracemalloc.stop()


# 4.4 count_matches


def check_count_matches(count_matches) -> None:
    expect_callable(count_matches, "count_matches")
    found, error = [], None
    cases = [(name, np.array(iou, dtype=float), threshold, look) for name, iou, threshold, look in matching_cases()]
    for name, iou, threshold, _ in cases:
        try:
            with untouched(iou=iou):
                number = count_matches(iou) if threshold is None else count_matches(iou, threshold)
            expect_whole_number(f"the number of matches ({name})", number)
        except Exception as problem:  # first what is wrong before it
            error = problem
            break
        found.append(int(number))
    cases = [(name, iou, 0.5 if threshold is None else threshold, look) for name, iou, threshold, look in cases]
    expected = [most_matches(iou >= threshold) for _, iou, threshold, _ in cases[: len(found)]]
    if found != expected:
        matrices = [(iou, threshold) for _, iou, threshold, _ in cases[: len(found)]]
        named = diagnosis(found, expected, MISTAKES_IN_MATCHING, cases=matrices)
        for (name, iou, cut, look), number, right in zip(cases, found, expected, strict=False):
            if number != right:
                picture = partial(picture_of_matches, iou, cut, f"Pairs: found {number}, expected {right}")
                fail(f"Value of count_matches for {name}", number, right, named or look, picture)
    if error is not None:
        raise error
    number = count_matches(np.array([[0.8, 0.1, 0.0], [0.0, 0.6, 0.0]]), iou_threshold=0.7)
    if number != 1:
        fail("Value of count_matches with iou_threshold=0.7", number, 1)


def matching_cases() -> Iterator[tuple[str, Any, float | None, str]]:
    """Name, matrix, threshold (None for the default), and where to look if the number is wrong."""
    clear = [[0.8, 0.1, 0.0], [0.0, 0.6, 0.0], [0.0, 0.2, 0.3]]
    yield "a clear case at the default threshold", clear, None, "Count the pairs with an IoU of at least 0.5."
    yield "a clear case at 0.7", clear, 0.7, "Use the argument iou_threshold."
    yield "a clear case at 0.25", clear, 0.25, "Use the argument iou_threshold."
    at = "An IoU at the threshold is a match."
    yield "a pair exactly at the threshold 0.5", [[0.5]], None, at
    yield "a pair exactly at the threshold 0.75", [[0.75, 0.0]], 0.75, at
    yield "pairs all below the threshold", [[0.4, 0.3], [0.0, 0.2]], None, "No pair reaches the threshold."
    one_to_one = "One to one: no row and no column is used twice."
    yield "a nucleus in two halves", [[0.5], [0.5]], None, one_to_one
    yield "one prediction over two nuclei", [[0.4, 0.45]], 0.3, one_to_one
    name = "two predictions that want one nucleus, and two nuclei that want one prediction"
    yield name, [[0.4, 0.0, 0.0], [0.4, 0.0, 0.0], [0.0, 0.4, 0.4]], 0.3, one_to_one
    greedy = "The best pair first can block two others: search for the best assignment."
    yield "the notebook's contested case at 0.4", [[0.45, 0.40], [0.42, 0.0]], 0.4, greedy
    yield "its mirror image at 0.4", [[0.0, 0.42], [0.40, 0.45]], 0.4, greedy
    yield "its transpose at 0.4", [[0.45, 0.42], [0.40, 0.0]], 0.4, greedy
    yield "a long chain at 0.2", [[0.3, 0.2, 0.0], [0.0, 0.3, 0.2], [0.0, 0.25, 0.0]], 0.2, greedy
    look = "Maximize the number of pairs, not the sum of their IoU."
    yield "a case where fewer pairs have the larger sum", [[8 / 12, 0.2], [0.2, 0.0]], 0.2, look
    for shape in [(0, 3), (3, 0), (0, 0)]:
        yield f"an empty matrix {shape}", np.zeros(shape), None, "Nothing to match."
    rng = np.random.default_rng(44)
    for shape in [(4, 7), (7, 4), (6, 6), (60, 50)] * 3:
        iou = rng.random(shape) * (rng.random(shape) < min(1, 8 / sum(shape)))
        threshold = float(rng.choice([0.1, 0.3, 0.5]))
        look = "Find the largest number of pairs, one to one, for any shape."
        yield f"a matrix {shape} at {threshold}", iou, threshold, look
    yield "300 pairs", np.eye(300), None, "A number above 255 does not fit into a byte."


def picture_of_matches(iou: np.ndarray, cut: float, title: str, labels: tuple = ()) -> Matches | None:
    """A largest set of matches, as lines; None if there are too many instances to tell the lines apart."""
    if not 0 < max(iou.shape) <= MAX_INSTANCES:
        return None
    pairs = zip(*linear_sum_assignment(iou >= cut, maximize=True), strict=True)
    pairs = tuple((int(row), int(column)) for row, column in pairs if iou[row, column] >= cut)
    possible = () if labels else tuple(map(tuple, np.argwhere(iou >= cut).tolist()))
    sides = [range(n) for n in iou.shape]
    names, counts = ("row", "column"), f"pairs: {len(pairs)}"
    if labels:
        sides, names = [np.unique(image[image != 0]).tolist() for image in labels], ("prediction", "nucleus")
        counts = f"TP {len(pairs)}, FP {iou.shape[0] - len(pairs)}, FN {iou.shape[1] - len(pairs)}"
    lines = [f"{names[0]} {sides[0][row]} with {names[1]} {sides[1][column]}" for row, column in pairs] or ["none"]
    alt = f"{title}. Lines join a largest set of matches at an IoU of {cut:g} ({counts}): {', '.join(lines)}."
    return Matches(iou, pairs, possible, labels, f"{title}\nIoU of at least {cut:g}, {counts}", alt)


def most_matches(possible: np.ndarray) -> int:
    return int((maximum_bipartite_matching(csr_array(possible), perm_type="column") >= 0).sum())


def assigned(matrix: np.ndarray, counted: np.ndarray, maximize: bool = True) -> int:
    return int(counted[linear_sum_assignment(matrix, maximize=maximize)].sum())


MISTAKES_IN_MATCHING = {
    "An IoU at the threshold is a match.": lambda iou, cut: most_matches(iou > cut),
    "Use the argument iou_threshold: these are the matches at 0.5.": lambda iou, cut: most_matches(iou >= 0.5),
    "linear_sum_assignment makes the sum small: it needs maximize=True.":
        lambda iou, cut: assigned(iou >= cut, iou >= cut, maximize=False),
    "linear_sum_assignment makes the sum of the IoU small: maximize the number of allowed pairs.":
        lambda iou, cut: assigned(iou, iou >= cut, maximize=False),
    "Maximize the number of pairs, not the sum of their IoU.": lambda iou, cut: assigned(iou, iou >= cut),
    "The assignment includes pairs below the threshold: do not count them.": lambda iou, cut: min(iou.shape),
    "One to one: these are all the entries at or above the threshold.": lambda iou, cut: int((iou >= cut).sum()),
    "One to one: these are the rows with a partner.": lambda iou, cut: int((iou >= cut).any(axis=1).sum()),
    "One to one: these are the columns with a partner.": lambda iou, cut: int((iou >= cut).any(axis=0).sum()),
    "Each row takes its largest entry: with another one there can be more pairs.":
        lambda iou, cut: len(set(iou.argmax(axis=1)[iou.max(axis=1) >= cut])) if iou.size else 0,
    "These are the pairs on the diagonal: any row may match any column.":
        lambda iou, cut: int((np.diagonal(iou) >= cut).sum()),
}  # fmt: skip


# 4.5 f1_score


def check_f1_score(f1_score) -> None:
    expect_callable(f1_score, "f1_score")

    def expect_score(
        name: str, prediction: Any, truth: Any, expected: float, look: str = "", **arguments: float
    ) -> None:
        prediction, truth = np.asarray(prediction), np.asarray(truth)
        with untouched(prediction=prediction, truth=truth):
            found = f1_score(prediction, truth, **arguments)
        expect_score_type(name, found)
        if not abs(found - expected) < 1e-5:
            cut, scores = arguments.get("iou_threshold", 0.5), (round(float(found), 4), round(expected, 4))
            title, labels = "F1: found {:g}, expected {:g}".format(*scores), (prediction, truth)
            picture = partial(picture_of_matches, _brute_force(*labels), cut, title, labels)
            fail(f"Value of f1_score for {name}", *scores, look, picture)

    cases = [(3, 1, 4), (4, 3, 1)]  # matches, false positives, missed nuclei
    pairs = [_scored_pair(*counts) for counts in cases]
    scores = []
    for counts, pair in zip(cases, pairs, strict=True):
        with untouched(prediction=pair[0], truth=pair[1]):
            scores.append(f1_score(*pair))
        expect_score_type(_in_words(*counts), scores[-1])
    right = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in cases]
    suspects = {f"That is {formula}.": value for formula, value in WRONG_SCORES.items()}
    arguments = [(*counts, *pair) for counts, pair in zip(cases, pairs, strict=True)]
    named = diagnosis(scores, right, suspects, cases=arguments)
    for (tp, fp, fn), pair, expected in zip(cases, pairs, right, strict=True):
        look = named or f"Count TP, FP and FN of this case by hand: {tp}, {fp} and {fn}."
        expect_score(_in_words(tp, fp, fn), *pair, expected, look)

    two = [[5, 5, 5, 0, 8, 8, 8, 8]]
    part = [[1, 1, 0, 0, 2, 2, 0, 0]]  # IoU 2/3, and exactly 1/2
    at, given = "The default is 0.5, and a pair exactly at it is a match.", "Pass iou_threshold on."
    name = "an IoU of 0.67 and one of 0.5 at"
    expect_score(f"{name} the default iou_threshold", part, two, 1.0, at)
    expect_score(f"{name} iou_threshold=0.6", part, two, 0.5, given, iou_threshold=0.6)
    expect_score(f"{name} iou_threshold=0.75", part, two, 0.0, given, iou_threshold=0.75)
    for name, prediction, truth, counts, look in scored_cases():
        for threshold, (tp, fp, fn) in counts.items():
            expected = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0
            where = f" at iou_threshold={threshold}" if threshold != 0.5 else ""
            expect_score(name + where, prediction, truth, expected, look, iou_threshold=threshold)
    expect_equal_shapes(f1_score)


def scored_cases() -> Iterator[tuple[str, Any, Any, dict[float, tuple[int, int, int]], str]]:
    """Name, prediction, truth, threshold -> (matches, false positives, missed nuclei), where to look."""
    row, nothing = [[1, 1, 0, 7, 7]], [[0, 0, 0, 0, 0]]
    both, one_to_one = {0.5: (2, 0, 0), 1.0: (2, 0, 0)}, "Matches are one to one."
    yield "ids 1 and 7, predicted perfectly", row, row, both, "Ids have gaps: the largest is not their number."
    yield "right shapes with other ids", [[4, 4, 0, 2, 2]], row, both, "The pixels must agree, not the ids."
    yield "a prediction without background", [[3, 3, 9, 9, 9]], row, {0.5: (2, 0, 0)}, "Only the id 0 is background."
    look = "Nothing to find and nothing found: all is right, at every threshold."
    yield "two empty label images", nothing, nothing, {0.5: (0, 0, 0), 0.75: (0, 0, 0)}, look
    yield "an empty prediction", nothing, row, {0.5: (0, 0, 2), 0.75: (0, 0, 2)}, "Every nucleus is missed."
    yield "an empty truth", row, nothing, {0.5: (0, 2, 0), 0.75: (0, 2, 0)}, "Every prediction is wrong."
    halves, whole = [[1, 1, 2, 2]], [[6, 6, 6, 6]]
    yield "a nucleus split into two halves", halves, whole, {0.5: (1, 1, 0)}, one_to_one
    yield "two nuclei in one prediction", whole, halves, {0.5: (1, 0, 1)}, one_to_one
    name = "a nucleus in two halves beside two nuclei in one prediction"
    yield name, [[1, 1, 2, 2, 3, 3, 3, 3]], [[8, 8, 8, 8, 5, 5, 6, 6]], {0.5: (2, 1, 1)}, one_to_one
    # the first prediction overlaps both nuclei, the second only the first nucleus
    look = "Use the largest number of matches: count_matches finds it."
    yield "a contested case", [[1, 1, 1, 1, 1, 2, 2]], [[8, 5, 5, 5, 5, 5, 5]], {0.2: (2, 0, 0), 0.5: (1, 1, 1)}, look
    many, two = np.zeros((2, 30, 40), dtype=np.int32)
    many[::2, ::2] = np.arange(1, 301).reshape(15, 20)
    two[0, 0], two[28, 38] = 1, 300
    look = "A number above 255 does not fit into a byte."
    yield "300 predictions of 2 nuclei", many, two, {0.5: (2, 298, 0)}, look
    far = np.array([[256, 256, 0, 65536, 65536, 0, 2**24, 2**24 + 1]])
    look = "Keep the type of the ids: uint8, uint16 and float32 cannot hold them all."
    yield "one of four nuclei, with ids up to 16777217", 5 * (far == 2**24), far, {0.5: (1, 0, 3)}, look


def expect_score_type(name: str, score: Any) -> None:
    if not isinstance(score, int):  # 1 for 1.0 is right, too
        expect_float(f"the score of {name}", score)


def _in_words(tp: int, fp: int, fn: int) -> str:
    return f"{tp} matches, {fp} false positive{'s' * (fp > 1)} and {fn} missed nucle{'i' if fn > 1 else 'us'}"


def _scored_pair(tp: int, fp: int, fn: int) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth with these numbers. Ids have gaps, and the first match is not exact."""
    ids = [2, 3, 5, 11, 12, 30, 31][: tp + fn]
    prediction, truth = np.zeros((2, 12, 30), dtype=np.uint16)
    for index, id_ in enumerate(ids):
        truth[2:6, 4 * index : 4 * index + 3] = id_
    prediction[np.isin(truth, ids[-tp:])] = truth[np.isin(truth, ids[-tp:])] + 7
    prediction[2, prediction[2] == ids[-tp] + 7] = 0
    for index in range(fp):
        prediction[8:11, 8 * index : 8 * index + 7] = 1 + index
    return prediction, truth


WRONG_SCORES = {
    "precision, TP / (TP + FP)": lambda tp, fp, fn, *_: tp / (tp + fp),
    "recall, TP / (TP + FN)": lambda tp, fp, fn, *_: tp / (tp + fn),
    "average precision, TP / (TP + FP + FN)": lambda tp, fp, fn, *_: tp / (tp + fp + fn),
    "TP / (number predicted + number true): a factor 2 is missing": lambda tp, fp, fn, *_: tp / (2 * tp + fp + fn),
    "2 TP / (TP + FP + FN): a factor 2 below the line is missing": lambda tp, fp, fn, *_: 2 * tp / (tp + fp + fn),
    "the mean of precision and recall": lambda tp, fp, fn, *_: (tp / (tp + fp) + tp / (tp + fn)) / 2,
    "the number of matches": lambda tp, *_: tp,
    "the F1 in percent": lambda tp, fp, fn, *_: 200 * tp / (2 * tp + fp + fn),
    "the F1 with the background as an instance": lambda tp, fp, fn, *_: 2 * (tp + 1) / (2 * tp + fp + fn + 2),
    "the F1 with the largest id as the number of instances":
        lambda tp, fp, fn, prediction, truth: 2 * tp / (int(prediction.max()) + int(truth.max())),
    "the mean IoU of the predictions with their best nucleus":
        lambda tp, fp, fn, prediction, truth: _brute_force(prediction, truth).max(axis=1).mean(),
    "the Dice of the pixels, not of the instances":
        lambda tp, fp, fn, prediction, truth: 2 * ((prediction > 0) & (truth > 0)).sum()
        / ((prediction > 0).sum() + (truth > 0).sum()),
    "the IoU of the pixels, not of the instances":
        lambda tp, fp, fn, prediction, truth: _iou(prediction > 0, truth > 0),
    "the share of right pixels": lambda tp, fp, fn, prediction, truth: ((prediction > 0) == (truth > 0)).mean(),
}  # fmt: skip


# 4.6 average_precision


def check_average_precision(average_precision) -> None:
    expect_callable(average_precision, "average_precision")

    @check_part()
    def expect_scores(
        name: str, pair: tuple, iou_thresholds: list | tuple, expected: list[float], look: str = "",
        slips: dict[str, list[float]] | None = None,
    ) -> None:  # fmt: skip
        prediction, truth = (np.array(labels) for labels in pair)
        with untouched(prediction=prediction, truth=truth, iou_thresholds=iou_thresholds):
            found = average_precision(prediction, truth, iou_thresholds)
        what = f"average_precision for {name}, iou_thresholds={iou_thresholds}"
        one_each = "One score for each threshold, in the order in which they are given."
        if isinstance(found, (int, float)) and abs(found - np.mean(expected)) < 1e-5 and len(set(expected)) > 1:
            one_each = "That is their mean: return the list."
        if isinstance(found, np.ndarray):
            one_each = "The method tolist of an array makes a list of Python floats."
        expect_type(f"the result of {what}", found, (list, tuple), one_each)
        if len(found) != len(expected):
            one_each = one_each if truth.any() or prediction.any() else look
            fail(f"Number of scores of {what}", len(found), len(expected), one_each)
        for score in found:
            if not isinstance(score, int):  # 1 for 1.0 is right, too
                expect_type(f"a score of {what}", score, float, "Return Python floats.")
        if not np.allclose(found, expected, rtol=0, atol=1e-5):
            look = advice_for(found, {f"That is {slip}.": scores for slip, scores in (slips or {}).items()}, look, 1e-4)
            scores = [[round(float(score), 4) for score in side] for side in (found, expected)]
            wrong = next(case for case in zip(*scores, iou_thresholds, strict=True) if case[0] != case[1])
            title, labels = "AP: found {:g}, expected {:g}".format(*wrong), (prediction, truth)
            picture = partial(picture_of_matches, _brute_force(*labels), wrong[2], title, labels)
            fail(f"Value of {what}", *scores, look, picture)

    # 8 nuclei of ten pixels: six are predicted with an IoU of 0.3 to 1, two are missed; one prediction is elsewhere
    truth, prediction = np.zeros((2, 8, 40), dtype=np.uint16)
    for index, (id_, shared) in enumerate([(3, 8), (4, 0), (9, 10), (11, 3), (20, 5), (21, 0), (37, 9), (40, 6)]):
        row, start = 3 * (index // 4), 10 * (index % 4)
        truth[row : row + 2, start : start + 5] = id_
        prediction[row : row + 2, start : start + 5].flat[:shared] = 61 - id_
    prediction[7, 5:12] = 60
    pair, found, n_pred, n_true = (prediction, truth), np.array([5, 3, 2]), 7, 8
    foreground = (prediction > 0), (truth > 0)
    strict = np.array([4, 3, 1])
    slips = {
        "the F1 score": 2 * found / (n_pred + n_true),
        "precision, TP / (TP + FP)": found / n_pred,
        "recall, TP / (TP + FN)": found / n_true,
        "TP / (number predicted + number true), which counts matched pairs twice": found / (n_pred + n_true),
        "the number of matches": found,
        "the score with IoU > threshold: a pair exactly at the threshold matches, too": strict / (15 - strict),
        "the score at the first threshold; use each": [1 / 2] * 3,
        "the score at the last threshold; use each": [2 / 13] * 3,
        "the score at 0.5 (the default of count_matches), whatever the threshold": [1 / 2] * 3,
        "the mean of the scores, several times": [(1 / 2 + 1 / 4 + 2 / 13) / 3] * 3,
        "the order of the thresholds reversed": [2 / 13, 1 / 4, 1 / 2],
        "the score with the largest id as the number of instances": found / (60 + 40 - found),
        "the score with the background as an instance": [6 / 11, 4 / 13, 2 / 15],
        "the IoU of the pixels, not of the instances": [(foreground[0] & foreground[1]).sum()
                                                        / (foreground[0] | foreground[1]).sum()] * 3,
        "FP + FN in the place of TP: the share of errors": 1 - found / (n_pred + n_true - found),
    }  # fmt: skip
    expected = [1 / 2, 1 / 4, 2 / 13]
    look = "Count TP, FP and FN of this case by hand: 5, 2 and 3 at 0.5; 3, 4 and 5 at 0.75; 2, 5 and 6 at 0.9."
    name = "8 nuclei and 7 predictions"
    expect_scores(name, pair, [0.5, 0.75, 0.9], expected, look, slips)
    in_order = "One score for each threshold, in the order in which they are given."
    expect_scores(name, pair, [0.9, 0.5, 0.75, 0.5], [2 / 13, 1 / 2, 1 / 4, 1 / 2], in_order)
    expect_scores(name, pair, (0.6,), [4 / 11], "Use the thresholds that are given: here it is a single one.")
    expect_scores(name, pair[::-1], [0.3, 0.95], [6 / 9, 1 / 14], "Use the thresholds that are given.")

    for name, prediction, truth, counts, look in scored_cases():
        expected = [tp / (tp + fp + fn) if tp + fp + fn else 1.0 for tp, fp, fn in counts.values()]
        expect_scores(name, (prediction, truth), list(counts), expected, look)
    expect_equal_shapes(lambda *labels: average_precision(*labels, [0.5]))
    _expect_overlaps_once(average_precision)


@check_part()
def _expect_overlaps_once(average_precision: Callable, n_thresholds: int = 20) -> None:
    """Twenty thresholds take hardly longer than one if overlaps are computed once, and twenty times as long if not.

    Processor time, the best of several calls: a busy machine makes both longer. Few nuclei on many pixels: the
    overlaps need nearly all of the time, the matches nearly nothing.
    """
    squares = np.kron(np.array([[1, 0, 2], [0, 3, 0], [4, 0, 5]]), np.ones((64, 64), dtype=int))

    def seconds(n: int) -> float:
        pair, iou_thresholds = (np.roll(squares, 8, axis=1), squares.copy()), [0.5 + 0.02 * i for i in range(n)]
        start = time.thread_time()
        average_precision(*pair, iou_thresholds)
        return time.thread_time() - start

    one = max(min(seconds(1) for _ in range(4)), time.get_clock_info("thread_time").resolution)
    ratio = float("inf")
    for _ in range(4):
        ratio = min(ratio, seconds(n_thresholds) / one)
        if ratio < n_thresholds / 2:
            return
    fail(f"Processor time for {n_thresholds} IoU thresholds", f"{ratio:.0f} times that for one", "hardly more",
         "How much instances overlap does not depend on the threshold: compute it once, before the loop.")  # fmt: skip
