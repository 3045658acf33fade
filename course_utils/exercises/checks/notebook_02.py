"""The checks of notebook 02.

Students may store the weights in any way, so networks are compared in a way that does not depend on it: all parameters
are set to one constant. Then the result of every right network is that of a few calls of `torch.nn.functional`,
whatever the order of a concatenation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, max_pool2d

from course_utils.exercises.checks.models import (
    ShapeTrace,
    beside,
    pictured,
    run,
    unet_plan,
    unet_shapes,
    up_block_plan,
)
from course_utils.exercises.diagrams import Stage
from course_utils.exercises.feedback import (
    CheckFailed,
    check_part,
    diagnosis,
    expect_callable,
    expect_close,
    expect_dtype,
    expect_error,
    expect_pair,
    expect_shape,
    expect_type,
    expect_whole_number,
    fail,
    untouched,
)
from course_utils.exercises.pictures import compared

CONSTANTS = (0.1, -0.1)  # with a positive constant every ReLU is open, with a negative one most are closed

# 2.1 ConvBlock


def check_ConvBlock(ConvBlock) -> None:
    expect_module_class(ConvBlock, "ConvBlock")
    torch.manual_seed(0)
    for in_channels, out_channels in [(3, 8), (8, 5), (1, 4)]:
        name = f"ConvBlock({in_channels}, {out_channels})"
        block, x = build(ConvBlock, name, in_channels, out_channels), torch.randn(2, in_channels, 7, 10)
        trace, given = ShapeTrace(), [Stage("encoder", 0, "x", *[str((2, in_channels, 7, 10))] * 2)]
        shape = (2, out_channels, 7, 10)
        plan = [("conv2d", ("encoder", 0, f"{n} convolution"), shape, 3) for n in ("first", "second")]
        with pictured(partial(unet_shapes, trace, block, x, plan, given)):
            with untouched(x=x):
                result = run(name, block, x, trace=trace)
            look = "Channels change from in_channels to out_channels; padding 1 keeps height and width."
            expect_tensor(f"the result of {name} for {tuple(x.shape)}", result, (2, out_channels, 7, 10), look)
            expect_end_in_relu(name, result)
            expect_no_randomness(name, block, x)
            expect_no_normalisation(name, block, x)
            look = "Two 3x3 convolutions with bias, in_channels to out_channels to out_channels, and nothing else."
            expect_parameters(name, block, count_conv_block(in_channels, out_channels), look)
            expect_field_of_5(name, block, in_channels)
            for constant in CONSTANTS:
                set_parameters(block, constant)
                expected = conv_block_by_hand(x, out_channels, constant)
                if same(block(x), conv_block_by_hand(x, out_channels, constant, inner_relu=False)):
                    look = "Two convolutions without a ReLU between them are equivalent to a single one."
                    fail(f"Nonlinearity of {name}", "no ReLU after the first convolution", "one after each", look)
                look = "Two 3x3 convolutions with padding 1 (zeros), each followed by ReLU."
                expect_close(f"the result of {name} with all parameters {constant}", block(x), expected, look, 1e-3)


# 2.2 UpBlock


def check_UpBlock(UpBlock) -> None:
    expect_module_class(UpBlock, "UpBlock")
    torch.manual_seed(0)
    for in_channels, out_channels in [(8, 4), (6, 3), (7, 3), (12, 4), (3, 5)]:  # not only those of a U-Net
        name = f"UpBlock({in_channels}, {out_channels})"
        block = build(UpBlock, name, in_channels, out_channels)
        x, skip = torch.randn(2, in_channels, 3, 5), torch.randn(2, out_channels, 6, 10)
        shapes = [("bottleneck", 1, "x", str(tuple(x.shape))), ("encoder", 0, "skip", str(tuple(skip.shape)))]
        trace, given = ShapeTrace(), [Stage(*place, shape, shape) for *place, shape in shapes]
        plan = up_block_plan(0, 2, out_channels, (6, 10))
        with pictured(partial(unet_shapes, trace, block, x, plan, given)):
            with untouched(x=x, skip=skip):
                result = up_block_result(name, block, x, skip, trace)
            look = "out_channels maps, with the height and width of skip, twice those of x."
            what = f"the result of {name} for x {tuple(x.shape)} and skip {tuple(skip.shape)}"
            expect_tensor(what, result, (2, out_channels, 6, 10), look)
            expect_end_in_relu(name, result)
            expect_no_randomness(name, block, x, skip)
            expect_no_normalisation(name, block, x, skip)
            set_parameters(block, 0.1)
            expect_use_of_both(name, block, x.abs(), skip.abs())
            expect_parameters(name, block, count_up_block(in_channels, out_channels), UP_BLOCK)
            for constant in CONSTANTS:
                set_parameters(block, constant)
                look = (
                    "Transposed convolution of x with kernel size 2 and stride 2, without an activation; concatenation "
                    "with skip along the channels; ConvBlock."
                )
                what = f"the result of {name} with all parameters {constant}"
                expect_close(what, block(x, skip), up_block_by_hand(x, skip, constant), look, 1e-3)


UP_BLOCK = "A 2x2 transposed convolution with bias to out_channels maps, then a ConvBlock of twice as many."


def up_block_result(name: str, block: nn.Module, x: torch.Tensor, skip: torch.Tensor, trace: ShapeTrace) -> Any:
    """The block's result. The cause of an error may be a block that needs in_channels to be twice out_channels."""
    in_channels, out_channels = x.shape[1], skip.shape[1]
    try:
        return run(name, block, x, skip, trace=trace)
    except CheckFailed as error:
        if in_channels == 2 * out_channels or not str(error).startswith("Channels"):
            raise
        found = str(error).split("found ")[1].split(", expected")[0]
        fail(f"Number of channels in {name}", f"layers that do not fit ({found})",
             f"{in_channels} from below, {out_channels} from skip", UP_BLOCK)  # fmt: skip


# 2.3 UNet


UNETS = ((2, 3, 2, 2), (1, 1, 3, 4), (3, 2, 4, 1))  # in_channels, out_channels, base_channels, depth


def check_UNet(UNet) -> None:
    expect_module_class(UNet, "UNet")
    torch.manual_seed(0)
    for (in_channels, out_channels, base_channels, depth), size in zip(UNETS, [(8, 12), (32, 16), (2, 6)], strict=True):
        with check_part():
            name = f"UNet({in_channels}, {out_channels}, base_channels={base_channels}, depth={depth})"
            channels = {"in_channels": in_channels, "out_channels": out_channels, "base_channels": base_channels}
            model = build(UNet, name, **channels, depth=depth)
            x = torch.randn(2, in_channels, *size)
            trace, plan = ShapeTrace(), unet_plan(2, out_channels, base_channels, depth, size)
            with pictured(partial(unet_shapes, trace, model, x, plan, [])):
                look = "out_channels maps, with the height and width of the input: one step up for each step down."
                with untouched(x=x):
                    result = accepts_size(name, model, x, 2**depth, trace)
                expect_tensor(f"the result of {name} for {tuple(x.shape)}", result, (2, out_channels, *size), look)
                expect_no_randomness(name, model, x)
                expect_no_normalisation(name, model, x)
                expected = count_unet(in_channels, out_channels, base_channels, depth)
                expect_parameters(name, model, expected, explain_count(UNet) if count(model) != expected else "")
                expect_linear_output(name, model, x)
                pool = expect_value_of_unet(name, model, x, (out_channels, base_channels, depth))
                expect_gradients(name, model, x.abs(), pool, (out_channels, base_channels, depth))
    expect_size_of_the_paper(UNet)
    expect_refused_sizes(UNet)


def accepts_size(name: str, model: nn.Module, x: torch.Tensor, divisor: int, trace: ShapeTrace) -> Any:
    try:
        return run(name, model, x, levels=True, trace=trace)
    except ValueError as error:
        found = f'ValueError "{error}"'
        fail(f"Divisor of {name} for {tuple(x.shape)}", found, f"no error, since both sides are divisible by {divisor}")


def expect_linear_output(name: str, model: nn.Module, x: torch.Tensor) -> None:
    """Large weights give values far above 1, small negative ones values below 0: only a linear output has both."""
    for constant in CONSTANTS:
        set_parameters(model, constant)
        result = model(x.abs())
        if (constant > 0 and result.max() <= 1) or (constant < 0 and result.min() >= 0):
            found = f"only {result.min().item():.3g} to {result.max().item():.3g}"
            expected = "values above 1" if constant > 0 else "negative values"
            look = "The output is linear (logits): no sigmoid, softmax or ReLU after the last convolution."
            fail(f"Range of the result of {name} with all parameters {constant}", found, expected, look)


def expect_value_of_unet(name: str, model: nn.Module, x: torch.Tensor, sizes: tuple[int, int, int]) -> Callable:
    """Check the result for known parameters, and return how the model halves the resolution."""
    # The task leaves open how, so each of the usual ways is right.
    pools = [lambda maps: max_pool2d(maps, 2), lambda maps: avg_pool2d(maps, 2), lambda maps: maps[..., ::2, ::2]]
    for constant in CONSTANTS:
        set_parameters(model, constant)
        found = model(x)
        fitting = [pool for pool in pools if same(found, unet_by_hand(x, *sizes, constant, pool))]
        if fitting:
            pools = fitting
            continue
        if any(same(found, unet_by_hand(x, *sizes, constant, pool, use_skips=False)) for pool in pools):
            look = "Keep the result of each encoder level for the decoder level of the same resolution."
            fail(f"Skip connections of {name}", "a result that does not depend on them", "one that does", look)
        look = (
            "Encoder: block with its ReLUs, keep the result, halve. Bottleneck: block. Decoder: transposed "
            "convolution, concatenation, block. Then a 1x1 convolution."
        )
        expected = unet_by_hand(x, *sizes, constant, pools[0])
        expect_close(f"the result of {name} with all parameters {constant}", found, expected, look, 1e-3)
    return pools[0]


def expect_gradients(name: str, model: nn.Module, x: torch.Tensor, pool: Callable, sizes: tuple[int, int, int]) -> None:
    """Every parameter gets a gradient, through every part of the network."""
    set_parameters(model, CONSTANTS[0])
    model.zero_grad()
    x = x.clone().requires_grad_()
    result = model(x)
    silent = list(model.parameters())
    if result.requires_grad:
        result.sum().backward()
        silent = [weight for weight in model.parameters() if weight.grad is None or not weight.grad.any()]
    look = "Nothing in the network may be detached."
    if silent:
        found = f"none for {len(silent)} of {len(list(model.parameters()))} parameter tensors"
        fail(f"Gradient of {name}", found, "one for each", look)
    by_hand = unet_by_hand(x, *sizes, CONSTANTS[0], pool).sum()
    if x.grad is None or not same(x.grad, torch.autograd.grad(by_hand, x)[0]):
        fail(f"Gradient of {name}", "one that leaves out a part of the network", "one through all of it", look)


@check_part()
def expect_size_of_the_paper(UNet) -> None:
    """The defaults give the network of the paper: 31 million weights, which are counted and not allocated."""
    look = "The defaults are in_channels=1, out_channels=1, base_channels=64, depth=4."
    try:
        with torch.device("meta"):  # shapes without memory
            found = count(UNet())
    except Exception:  # a right network may need numbers in its constructor, or make its weights with the first image
        for name, options, sizes in [
            ("UNet(base_channels=2)", {"base_channels": 2}, (1, 1, 2, 4)),
            ("UNet(depth=1)", {"depth": 1}, (1, 1, 64, 1)),
        ]:
            model = UNet(**options)
            model(torch.zeros(1, 1, 16, 16))
            expect_parameters(name, model, count_unet(*sizes), look)
        return
    if found != 31_030_593:
        fail("Number of parameters of UNet()", f"{found:,}", "31,030,593", look)


@check_part()
def expect_refused_sizes(UNet) -> None:
    for depth, size, side, names in [
        (4, (40, 48), 40, "height"), (4, (48, 40), 40, "width"), (3, (24, 20), 20, "width"), (4, (8, 32), 8, "height"),
    ]:  # fmt: skip
        model = build(UNet, "UNet", in_channels=1, out_channels=1, base_channels=1, depth=depth)
        divisor, what = 2**depth, f"Error of UNet(depth={depth}) for an image of {size[0]} x {size[1]}"
        expected = f"a ValueError that names the side {side} and the divisor {divisor}"
        look = "Compare both sides with 2**depth at the start of forward."
        error = expect_error(what, partial(model, torch.zeros(1, 1, *size)), (), look, expected)
        side_named = re.search(rf"(?<!\d){side}(?!\d)|{names}", error, re.IGNORECASE)
        divisor_named = re.search(rf"(?<!\d){divisor}(?!\d)|2 ?(\*\*|\^) ?{depth}(?!\d)", error)
        if not (side_named and divisor_named):
            fail(what, f'"{error}"', expected, "Put both numbers into the text of the error.")


# 2.4 count_parameters


class Root(nn.Module):
    """A model without a forward method, with direct parameters: one without dimensions, one frozen."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3, 4))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Parameter(torch.zeros(7), requires_grad=False)
        self.inner = nn.ModuleList([nn.Linear(3, 2, bias=False)])


def check_count_parameters(count_parameters) -> None:
    expect_callable(count_parameters, "count_parameters")
    shared, frozen, tied = nn.Linear(10, 2), nn.Linear(10, 2), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    frozen.weight.requires_grad = False
    tied[1].weight = tied[0].weight
    cases = [
        ("nn.Linear(10, 2)", nn.Linear(10, 2), 22, "10 * 2 weights and 2 biases."),
        ("a network of several layers", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(5, 1)), 118,
         "The parameters of all layers count."),
        ("nn.Linear(10, 2) with a frozen weight", frozen, 2, "A parameter is trainable if its requires_grad is True."),
        ("nn.BatchNorm2d(5)", nn.BatchNorm2d(5), 10, "Running averages are buffers, not parameters."),
        ("a network that uses one nn.Linear(10, 2) twice", nn.Sequential(shared, shared), 22,
         "A shared parameter counts once."),
        ("two nn.Linear(3, 3) with the same weight tensor", tied, 15, "A shared parameter counts once."),
        ("a module with direct parameters", Root(), 2 * 3 * 4 + 1 + 6, "model.parameters() lists them all."),
        ("nn.ReLU()", nn.ReLU(), 0, "It has no parameters."),
    ]  # fmt: skip
    found = []
    for what, model, _, _ in cases:
        before = [(weight.clone(), weight.requires_grad) for weight in model.parameters()]
        try:
            found.append(count_parameters(model))
        except Exception:
            if found == [case[2] for case in cases[: len(found)]]:
                raise
            break  # an earlier number says more
        expect_whole_number(f"the result for {what}", found[-1])
        for (weight, trainable), after in zip(before, model.parameters(), strict=True):
            if trainable != after.requires_grad or not torch.equal(weight, after):
                fail(f"Mutation of {what}", "a changed parameter", "a model that stays as it was", "Only count.")

    cases = cases[: len(found)]
    advice = diagnosis(found, [case[2] for case in cases], {
        "Only parameters with requires_grad are trainable.": lambda model: sum(w.numel() for w in model.parameters()),
        "Count numbers, not tensors.": lambda model: len(list(model.parameters())),
        "Count numbers, not trainable tensors.": lambda model: sum(w.requires_grad for w in model.parameters()),
        "Biases are parameters, too.": lambda model: sum(
            w.numel() for name, w in model.named_parameters() if w.requires_grad and "bias" not in name
        ),
    }, 0, [[model] for _, model, _, _ in cases])  # fmt: skip
    for (what, _, expected, look), number in zip(cases, found, strict=True):
        if number != expected:
            fail(f"Value of the result for {what}", number, expected, advice or look)


# 2.5 pad_to_multiple


def check_pad_to_multiple(pad_to_multiple) -> None:
    expect_callable(pad_to_multiple, "pad_to_multiple")
    with pictured(partial(picture_of_padding, pad_to_multiple)):
        _check_pad_to_multiple(pad_to_multiple)


def picture_of_padding(pad_to_multiple: Callable, error: Exception) -> Any:
    """The first of a few images, so small that their numbers can be read, that is not padded as it should be."""
    if not str(error).startswith(("Shape", "Position", "Value")):
        return None
    for height, width, multiple in [(6, 5, 4), (5, 3, 8), (4, 6, 4)]:
        image = np.arange(1, height * width + 1, dtype=np.float32).reshape(height, width)
        found = pad_to_multiple(image.copy(), multiple)[0]
        expected = image[np.ix_(*(_reflected(side, -(-side // multiple) * multiple) for side in image.shape))]
        if not np.array_equal(found, expected):
            return beside(f"An image {height} x {width} padded to multiples of {multiple}", found, expected, image)
    return None


def _check_pad_to_multiple(pad_to_multiple: Callable) -> None:
    rng = np.random.default_rng(0)
    sizes = [(20, 37), (32, 20), (20, 32), (16, 48), (5, 3), (17, 1), (1, 9), (2, 16), (16, 2), (1, 1)]
    for number, (height, width) in enumerate(sizes):
        dtype = (np.float32, np.uint8, np.float64, np.uint16, np.int32)[number % 5]
        # other values than a byte or a whole number can hold, where the type allows it
        step = {np.uint8: 1, np.uint16: 80, np.int32: -60_001}.get(dtype, 300.5)
        image = (rng.permutation(np.arange(1, height * width + 1) % 251) * step).reshape(height, width).astype(dtype)
        _check_padding(pad_to_multiple, image, 16, f"an image {height} x {width} of {dtype.__name__}")
    for multiple, (height, width) in [(8, (20, 13)), (32, (40, 32)), (5, (7, 12)), (1, (7, 12))]:
        image = rng.random((height, width), dtype=np.float32)
        pad, what = partial(pad_to_multiple, multiple=multiple), f"an image {height} x {width} with multiple={multiple}"
        _check_padding(pad, image, multiple, what)


def _check_padding(pad: Callable, image: np.ndarray, multiple: int, what: str) -> None:
    before, (height, width) = image.copy(), image.shape
    found = pad(image)
    expect_pair(f"the result for {what}", found, "(padded, (H, W))")
    padded, size = found
    expect_type(f"the padded image for {what}", padded, np.ndarray)
    rows, columns = (_reflected(side, -(-side // multiple) * multiple) for side in image.shape)
    look = f"Pad to the next multiple of {multiple}; a side that already fits gets no padding."
    expect_shape(f"the padded image for {what}", padded, (len(rows), len(columns)), look)
    expect_dtype(f"the padded image for {what}", padded, image.dtype, "Padding keeps the dtype.")
    if not isinstance(size, (tuple, list)) or tuple(size) != (height, width):
        look = "The size before padding, with which the prediction is cropped."
        fail(f"Size returned for {what}", size, (height, width), look)
    windows = np.lib.stride_tricks.sliding_window_view(padded, before.shape)
    places = np.argwhere((windows == before).all((2, 3))).tolist()
    if places and [0, 0] not in places:
        look = "Pad only at the bottom and at the right, so that padded[:H, :W] is the image."
        fail(f"Position of the image in the result for {what}", tuple(places[0]), (0, 0), look)
    look = "padded[:H, :W] is the image: no pixel changes, whatever its dtype."
    expect_close(f"the padded image for {what}", padded[:height, :width], before, look, 0)
    expected = before[np.ix_(rows, columns)]
    if not np.array_equal(padded, expected):
        look = 'Reflect as np.pad(mode="reflect") does: the edge pixel is not repeated, a long pad reflects again.'
        if mode := _mode_of(pad, multiple):
            look = f'That is mode="{mode}". {look}'
        expect_close(f"the padded image for {what}", padded, expected, look, 0)
    if not np.array_equal(image, before):
        fail(f"Mutation of {what}", "changed pixels", "an image that stays as it was", "Work on a copy.")


def _mode_of(pad: Callable, multiple: int) -> str:
    """Another mode of `np.pad` that explains what `pad` does to two images."""
    images = [np.arange(1.0, 1 + multiple * side).reshape(multiple, side)[:-1] for side in (2 * multiple - 1, 5)]
    for mode in ("constant", "edge", "symmetric", "wrap"):
        pairs = [(pad(image)[0], np.pad(image, [(0, -side % multiple) for side in image.shape], mode))
                 for image in images]  # fmt: skip
        if all(np.array_equal(*pair) for pair in pairs):
            return mode
    return ""


def _reflected(length: int, new_length: int) -> list[int]:
    """The source of each of `new_length` pixels if a line of `length` is reflected back and forth between its ends."""
    period = max(1, 2 * (length - 1))
    return [min(place % period, period - place % period) if length > 1 else 0 for place in range(new_length)]


# What several checks need


def expect_module_class(submission: Any, name: str) -> None:
    """A class, or a function that returns modules."""
    if isinstance(submission, nn.Module) or not callable(submission):
        fail(f"Kind of {name}", f"an object of type {type(submission).__name__}", "a class", f"Pass {name} itself.")


def build(module_class: Callable, name: str, *sizes: int, **options: int) -> nn.Module:
    module = module_class(*sizes, **options)
    if not isinstance(module, nn.Module):
        look = "Derive the class from nn.Module."
        if isinstance(module, type):
            look = "It is a class: call it with its sizes."
        fail(f"Type of {name}", type(module).__name__, "a torch.nn.Module", look)
    return module


def expect_tensor(what: str, value: Any, shape: tuple, look: str) -> None:
    expect_type(what, value, torch.Tensor, "Does forward return its result?" if value is None else "")
    expect_shape(what, value, shape, look)
    expect_dtype(what, value, torch.float32)


def expect_end_in_relu(name: str, result: torch.Tensor) -> None:
    lowest = result.min().item()
    if lowest < 0:
        look = "A ReLU follows the second convolution, too."
        fail(f"Range of the result of {name}", f"a value of {lowest:.3f}", "no negative values", look)


def expect_no_randomness(name: str, module: nn.Module, *inputs: torch.Tensor) -> None:
    if not torch.allclose(module(*inputs), module(*inputs), rtol=1e-5, atol=1e-7):
        look = "It must contain nothing random, such as dropout."
        if count(module) == 0:
            look = "Make the layers once, in __init__, as attributes of self."
        fail(f"Randomness of {name}", "two results for the same input", "one", look)


def expect_no_normalisation(name: str, module: nn.Module, *inputs: torch.Tensor) -> None:
    """The result for an image depends neither on the other images of its batch nor on the mode."""
    batch, alone = module(*inputs), module(*(x[:1] for x in inputs))
    look = "No normalisation, such as batch norm, unless a keyword asks for it."
    if not same(batch[:1], alone):
        fail(f"Independence of {name}", "a result that depends on the other images of the batch", "one for each image",
             look)  # fmt: skip
    module.eval()
    evaluated = module(*inputs)
    module.train()
    if not same(batch, evaluated):
        fail(f"Independence of {name}", "other results in evaluation mode than in training mode", "the same", look)


def expect_parameters(name: str, module: nn.Module, expected: int, look: str) -> None:
    found = count(module)
    if found == expected:
        return
    hidden = [value for part in module.modules() for value in vars(part).values() if isinstance(value, (list, tuple))]
    if found == 0 or any(isinstance(layer, nn.Module) for layers in hidden for layer in layers):
        look = "Layers must be attributes of self; torch does not find them in a Python list, so use nn.ModuleList."
    fail(f"Number of trainable parameters of {name}", found, expected, look)


def expect_field_of_5(name: str, block: nn.Module, in_channels: int) -> None:
    """An output pixel depends on 5x5 pixels of the input. Positive numbers keep every ReLU open."""
    set_parameters(block, None)
    image = torch.rand(1, in_channels, 13, 13, requires_grad=True)
    result = block(image)[0, :, 6, 6].sum()
    if not result.requires_grad:
        fail(f"Gradient of {name}", "none", "one with respect to its input", "Nothing in the block may be detached.")
    gradient = torch.autograd.grad(result, image, allow_unused=True)[0]
    seen = torch.zeros(13, 13) if gradient is None else gradient[0].abs().sum(dim=0)
    rows, columns = seen.any(dim=1).sum().item(), seen.any(dim=0).sum().item()
    if (rows, columns) != (5, 5) or seen[4:9, 4:9].count_nonzero() != 25:
        found = f"{seen.count_nonzero().item()} pixels in {rows} x {columns}"
        look = "That is the field of two 3x3 convolutions; nothing else in the block uses neighbours."
        right = np.pad(np.ones((5, 5), dtype=int), 4)
        picture = compared("Pixels that the output pixel in the middle depends on (1)", (seen > 0).int(), right)
        fail(f"Receptive field of {name}", found, "all 25 pixels in 5 x 5 around the output pixel", look, picture)


def expect_use_of_both(name: str, block: nn.Module, x: torch.Tensor, skip: torch.Tensor) -> None:
    """The result depends on both inputs, and so does its gradient."""
    inputs = {"x": x.clone().requires_grad_(), "skip": skip.clone().requires_grad_()}
    result = block(*inputs.values()).sum()
    for what, value in inputs.items():
        gradient = None
        if result.requires_grad:
            gradient = torch.autograd.grad(result, value, retain_graph=True, allow_unused=True)[0]
        if gradient is None or not gradient.any():
            look = "Both are concatenated, and neither is detached."
            fail(f"Use of {what} in {name}", "a gradient of zero", "a result that depends on it", look)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def set_parameters(module: nn.Module, constant: float | None) -> None:
    """Set every parameter to one constant, or to positive random numbers."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.uniform_(0.01, 0.1) if constant is None else weight.fill_(constant)


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)


def count_conv(in_channels: int, out_channels: int, kernel_size: int) -> int:
    return in_channels * out_channels * kernel_size**2 + out_channels


def count_conv_block(in_channels: int, out_channels: int) -> int:
    return count_conv(in_channels, out_channels, 3) + count_conv(out_channels, out_channels, 3)


def count_up_block(in_channels: int, out_channels: int) -> int:
    return count_conv(in_channels, out_channels, 2) + count_conv_block(2 * out_channels, out_channels)


def count_unet(
    in_channels: int, out_channels: int, base_channels: int, depth: int,
    growth: int = 2, block: Callable = count_conv_block, up: Callable = count_up_block,
) -> int:  # fmt: skip
    channels = [base_channels * growth**level for level in range(depth + 1)]
    down = sum(block(a, b) for a, b in zip([in_channels, *channels], channels, strict=False))
    return down + sum(map(up, channels[1:], channels)) + count_conv(base_channels, out_channels, 1)


def explain_count(UNet: Callable) -> str:
    """Where to look if U-Nets have the wrong number of parameters."""
    found = [count(UNet(in_channels=i, out_channels=o, base_channels=b, depth=d)) for i, o, b, d in UNETS]
    block, one = count_conv_block, partial(count_conv, kernel_size=3)

    def counts(**options):
        return lambda *sizes: count_unet(*sizes, **options)

    suspects = {
        "That is the number for depth=4: does your code use its argument depth?":
            lambda i, o, b, d: count_unet(i, o, b, 4),
        "That is the number for base_channels=64: does your code use its argument base_channels?":
            lambda i, o, b, d: count_unet(i, o, 64, d),
        "The first level has base_channels maps, not twice as many.": lambda i, o, b, d: count_unet(i, o, 2 * b, d),
        "There are depth steps down, not one more.": lambda i, o, b, d: count_unet(i, o, b, d + 1),
        "There are depth steps down, not one less.": lambda i, o, b, d: count_unet(i, o, b, d - 1),
        "The last convolution has kernel size 1.": lambda i, o, b, d: count_unet(i, o, b, d) + 8 * b * o,
        "Channels double from level to level: here they stay the same.": counts(growth=1),
        "A block has two convolutions.": counts(block=one, up=lambda a, b: count_conv(a, b, 2) + one(2 * b, b)),
        "The blocks of the decoder receive the skip connection, too.":
            counts(up=lambda a, b: count_conv(a, b, 2) + block(b, b)),
        "The step up is a transposed convolution, not an nn.Upsample.": counts(up=lambda a, b: block(a + b, b)),
        "The step up is a transposed convolution, not an nn.Upsample and a 1x1 convolution.":
            counts(up=lambda a, b: count_conv(a, b, 1) + block(2 * b, b)),
        "The transposed convolution has kernel size 2, not 3.":
            counts(up=lambda a, b: count_conv(a, b, 3) + block(2 * b, b)),
        "The transposed convolution has kernel size 2, not 4.":
            counts(up=lambda a, b: count_conv(a, b, 4) + block(2 * b, b)),
    }  # fmt: skip
    return diagnosis(found, [count_unet(*sizes) for sizes in UNETS], suspects, 0, UNETS) or (
        "Compare with the diagram, level by level: two 3x3 convolutions in a block, a 2x2 transposed convolution for "
        "each step up, a 1x1 convolution at the end, all with bias; channels double from level to level."
    )


def conv_by_hand(x: torch.Tensor, out_channels: int, constant: float, kernel_size: int = 3) -> torch.Tensor:
    weight = torch.full((out_channels, x.shape[1], kernel_size, kernel_size), constant)
    return conv2d(x, weight, torch.full((out_channels,), constant), padding=kernel_size // 2)


def conv_block_by_hand(x: torch.Tensor, out_channels: int, constant: float, inner_relu: bool = True) -> torch.Tensor:
    x = conv_by_hand(x, out_channels, constant)
    return conv_by_hand(x.relu() if inner_relu else x, out_channels, constant).relu()


def up_block_by_hand(x: torch.Tensor, skip: torch.Tensor, constant: float) -> torch.Tensor:
    channels = skip.shape[1]
    weight, bias = torch.full((x.shape[1], channels, 2, 2), constant), torch.full((channels,), constant)
    up = conv_transpose2d(x, weight, bias, stride=2)
    return conv_block_by_hand(torch.cat([up, skip], dim=1), channels, constant)


def unet_by_hand(
    x: torch.Tensor, out_channels: int, base_channels: int, depth: int, constant: float, pool: Callable,
    use_skips: bool = True,
) -> torch.Tensor:  # fmt: skip
    """The result of a U-Net whose parameters are all `constant`, from `torch.nn.functional` alone."""
    skips = []
    for level in range(depth):
        x = conv_block_by_hand(x, base_channels * 2**level, constant)
        skips.append(x)
        x = pool(x)
    x = conv_block_by_hand(x, base_channels * 2**depth, constant)
    for skip in reversed(skips):
        x = up_block_by_hand(x, skip * use_skips, constant)
    return conv_by_hand(x, out_channels, constant, kernel_size=1)
