"""What the checks of models share: how one was used, whether it is what it was, where its shapes do not fit."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from course_utils.exercises.diagrams import BEHIND, Stage, UNetShapes
from course_utils.exercises.feedback import CheckFailed, fail
from course_utils.exercises.pictures import MAX_NUMBERS, Panel, Panels, compared

MODES = {True: "training mode", False: "evaluation mode"}


class Notes:
    """How a model was used. Copies of the model write into the same notes."""

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        self.modes: set[bool] = set()  # whether a part of it was in training mode
        self.called = self.gradients = self.on_device = False

    def __deepcopy__(self, memo):
        return self

    def add(self, model: nn.Module, result: torch.Tensor) -> None:
        self.modes.add(any(part.training for part in model.modules()))
        self.gradients |= result.requires_grad

    def expect_inference(self) -> None:
        """Every call was in evaluation mode and without a graph."""
        if True in self.modes:
            look = "Dropout and batch normalisation work differently in the two modes."
            fail("Mode of the model while it is used", MODES[True], MODES[False], look)
        if self.gradients:
            fail("Gradients", "recorded", "none", "Nothing is learnt here, so torch need not record the operations.")


class ModelState:
    """Parameters, buffers, gradients and mode of a model, and torch's gradient mode, to compare with later."""

    def __init__(self, model: nn.Module, grad_mode: bool):
        self.model, self.grad_mode, self.training = model, grad_mode, model.training
        self.values = {name: value.clone() for name, value in model.state_dict().items()}
        self.gradients = _gradients(model)

    def expect_unchanged(self, grad_mode: bool) -> None:
        model, look = self.model, "Your code must not change the model."
        for name, value in model.state_dict().items():
            before = self.values[name]
            if value.dtype != before.dtype or not torch.equal(value.to(before.device), before):
                kind = "parameter" if name in dict(model.named_parameters()) else "buffer"
                fail(f"Mutation of the model's {kind} {name}", "another value than before", "no change", look)
            if value.device != before.device:
                look = "Move the images, not the model."
                fail("Device of the model afterwards", value.device, before.device, look)
        if not all(weight.requires_grad for weight in model.parameters()):
            fail("Mutation of the model", "parameters without requires_grad", "parameters that can still learn", look)
        for before, now in zip(self.gradients, _gradients(model), strict=True):
            if (before is None) != (now is None) or (before is not None and not torch.equal(before, now)):
                fail("Mutation of the model", "other gradients in its parameters than before", "no change", look)
        if any(part.training != self.training for part in model.modules()):
            found, expected = MODES[not self.training], f"{MODES[self.training]} as before"
            fail("Mode of the model afterwards", found, expected, "Remember model.training before you change it.")
        if grad_mode != self.grad_mode:
            names = {True: "switched on", False: "switched off"}
            look = "A with block restores it."
            fail("Torch's gradient mode afterwards", names[grad_mode], f"{names[self.grad_mode]} as before", look)


def _gradients(model: nn.Module) -> list[torch.Tensor | None]:
    return [None if weight.grad is None else weight.grad.clone() for weight in model.parameters()]


class ShapeTrace(TorchFunctionMode):
    """Follows the maps through a network, to say in its terms where shapes do not fit."""

    def __init__(self):
        super().__init__()
        self.steps: list[tuple[str, list, Any]] = []  # function, what it was given, result or None if it failed

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result, name = None, getattr(function, "__name__", "")
        try:
            result = function(*args, **(kwargs or {}))
            return result
        finally:
            given = [args[0]] if args else list((kwargs or {}).values())[:1]
            if name in ("concat", "concatenate"):
                name = "cat"
            if name == "cat":
                given = [part for parts in given for part in parts]
            elif name.startswith("conv"):
                given += [args[1] if len(args) > 1 else (kwargs or {}).get("weight")]
            if name in ("cat", "conv2d", "conv_transpose2d", "interpolate") or "pool" in name:
                self.steps.append((name, given, result))

    def explain(self, name: str, inputs: tuple[torch.Tensor, ...], levels: bool) -> None:
        """Fail with the two shapes that do not fit; return if it was something else that failed.

        Args:
            name: of the network.
            inputs: the image, or the maps from below and the skip connection.
            levels: whether it has levels: the image is at level 0, each level below has half the height and width.
        """
        for function, given, result in self.steps:
            if function == "cat" and result is not None and result.shape[1] == given[0].shape[1]:
                found = f"maps of shape {tuple(given[0].shape)} joined to {tuple(result.shape)}"
                look = "Channels are axis 1: torch.cat(..., dim=1)."
                fail(f"Axis of the concatenation in {name}", found, "more channels", look)
            small = function == "conv2d" and result is not None and given[1].shape[2] == 3
            if small and result.shape[2:] != given[0].shape[2:]:
                found = f"maps of shape {tuple(given[0].shape)} turned into {tuple(result.shape)}"
                fail(f"Size after a 3x3 convolution in {name}", found, "the same height and width", "It has padding 1.")
        if not self.steps:
            return
        function, given, result = self.steps[-1]
        if result is not None or any(getattr(part, "ndim", 0) != 4 for part in given):
            return
        level = _level(given[0].shape, inputs[0].shape) if levels else ""
        if function == "cat" and len(given) == 2 and given[0].shape[2:] != given[1].shape[2:]:
            self._explain_sizes(name, given, inputs[0].shape, levels)
        elif function == "conv2d" and given[0].shape[1] != given[1].shape[1]:
            self._explain_channels(name + level, given[0], "a convolution", given[1].shape[1::-1], inputs)
        elif function == "conv_transpose2d" and given[0].shape[1] != given[1].shape[0]:
            self._explain_channels(name + level, given[0], "a transposed convolution", given[1].shape[:2], inputs)
        elif "pool" in function and min(given[0].shape[2:]) < 2:
            look = "There are depth steps down: does your code use its argument depth?"
            fail(f"Pooling in {name}", f"maps of shape {tuple(given[0].shape)}", "sides of at least 2", look)

    def _explain_sizes(self, name: str, given: list, image: tuple, levels: bool) -> None:
        ups = [tuple(result.shape) for function, _, result in self.steps[:-1] if function == "conv_transpose2d"]
        kept, up = sorted((tuple(part.shape) for part in given), key=lambda shape: shape in ups[-1:])
        look = "There is one step up, with kernel size 2 and stride 2, for each step down."
        if not ups:
            kept, up = sorted((kept, up), reverse=True)
            look = "No transposed convolution came before: it doubles the height and width of the maps from below."
        elif levels and kept[1] == up[1] and kept[2] * 2 == up[2] <= image[2]:
            look = "The skip connection was kept after pooling: keep the result of the block before it."
        elif levels and kept[1] < up[1] and kept[2] >= up[2] * 2:
            look = "Skip connections are used in reverse order: the one kept last comes first, as list.pop() gives it."
        fail(f"Skip connection in {name}{_level(up, image) if levels else ''}",
             f"maps of shape {up} from below and {kept} from the encoder", "the same sides", look)  # fmt: skip

    def _explain_channels(self, where: str, maps: torch.Tensor, kind: str, channels: tuple, inputs: tuple) -> None:
        before, parts, _ = self.steps[-2] if len(self.steps) > 1 else ("", [], None)
        look = f"The layer before it returns {maps.shape[1]} channels."
        if before == "cat":
            joined = " and ".join(str(part.shape[1]) for part in parts)
            look = f"The concatenation joins {joined} channels: those from below and those of the skip connection."
        elif maps is inputs[-1] and len(inputs) == 2:
            look = "forward(x, skip): x is upsampled, skip is not."
        elif maps is inputs[0]:
            look = "The first layer takes in_channels and returns out_channels, in this order."
        elif kind == "a transposed convolution" and "pool" in before:
            look = "Between the last pooling and the first step up stands the bottleneck, one more block."
        elif kind == "a transposed convolution" and maps.shape[1] * 2 == channels[0]:
            look = "It takes the maps from below, not the skip connection."
        found = f"maps of shape {tuple(maps.shape)} for {kind} from {channels[0]} to {channels[1]} channels"
        fail(f"Channels in {where}", found, f"maps with {channels[0]} channels", look)


def _level(shape: tuple, image: tuple) -> str:
    """The level of maps of this shape, in words."""
    for level in range(image[2].bit_length()):
        if shape[2] * 2**level == image[2] and shape[3] * 2**level == image[3]:
            return f", level {level} ({shape[2]} x {shape[3]})"
    return ""


def run(
    name: str, model: nn.Module, *inputs: torch.Tensor, levels: bool = False, trace: ShapeTrace | None = None
) -> Any:
    """The result of a network; where shapes do not fit, the message has both, with `levels` also the level."""
    trace = trace or ShapeTrace()
    try:
        with trace:
            return model(*inputs)
    except Exception:
        trace.explain(name, inputs, levels)
        raise


@contextmanager
def pictured(picture: Callable[[Exception], Any]) -> Iterator[None]:
    """An error inside gets the picture that the function makes of it, if it makes one."""
    try:
        yield
    except Exception as error:
        with suppress(Exception), redirect_stdout(io.StringIO()):  # what the student made may be as strange as it likes
            error.picture = picture(error) or vars(error).get("picture")
        raise


def beside(
    what: str, found: Any, expected: Any, input: Any = None, kind: str = "values", tolerance: float = 1e-5
) -> Panels | None:
    """As `compared`, and for arrays of different shapes their first planes: an outline shows what both have."""
    found, expected = np.asarray(found), np.asarray(expected)
    input_kind = "image" if input is not None and max(input.shape) > MAX_NUMBERS else "values"
    if found.shape == expected.shape:
        return compared(what, found, expected, input, kind, input_kind, tolerance)
    planes = [array.reshape(-1, *array.shape[-2:])[0] for array in (found, expected)]
    if max(planes[0].shape) > 60 or planes[0].shape == planes[1].shape:
        return None
    common = tuple(map(min, *(plane.shape for plane in planes)))
    panels = [Panel("input", input, input_kind)] * (input is not None)
    for name, plane in zip(("yours", "expected"), planes, strict=True):
        outline = np.zeros(plane.shape, dtype=bool)
        outline[: common[0], : common[1]] = plane.shape != common
        panels.append(Panel(f"{name}, {plane.shape[0]} x {plane.shape[1]}", plane, kind, outline))
    alt = f"{what}: found the shape {found.shape}, expected {expected.shape}. An outline shows what both have."
    return Panels(tuple(panels), alt[0].upper() + alt[1:])


# The shapes of a network along the drawing of the U-Net. A plan is the list of its steps: function, (part, level, name)
# of the stage, shape of the result, kernel size.

WORDS = {"conv2d": "convolution", "conv_transpose2d": "transposed convolution", "cat": "concatenation",
         "pool": "pooling", "interpolate": "interpolation"}  # fmt: skip
ABOUT_SHAPES = ("Shape", "Channels", "Pooling", "Number", "Skip", "Size after", "Axis", "Use of", "Value")


def up_block_plan(level: int, n: int, channels: int, sides: Sequence[int]) -> list[tuple]:
    shape = (n, channels, *sides)
    return [("conv_transpose2d", ("decoder", level, "up"), shape, 2),
            ("cat", ("decoder", level, "joined"), (n, 2 * channels, *sides), 0),
            *2 * [("conv2d", ("decoder", level, "block"), shape, 3)]]  # fmt: skip


def unet_plan(n: int, out_channels: int, base_channels: int, depth: int, sides: Sequence[int]) -> list[tuple]:
    plan = []
    scaled = [[side >> level for side in sides] for level in range(depth + 1)]
    for level in range(depth + 1):
        stage = ("encoder" if level < depth else "bottleneck", level, "block")
        if level:
            plan.append(("pool", stage, (n, base_channels << level - 1, *scaled[level]), 0))
        plan += 2 * [("conv2d", stage, (n, base_channels << level, *scaled[level]), 3)]
    for level in reversed(range(depth)):
        plan += up_block_plan(level, n, base_channels << level, scaled[level])
    return [*plan, ("conv2d", ("decoder", 0, "output"), (n, out_channels, *sides), 1)]


def unet_shapes(
    trace: ShapeTrace, model: nn.Module, x: torch.Tensor, plan: list[tuple], given: list[Stage], error: Exception
) -> UNetShapes | None:
    """The stages of the network up to the first that differs from the plan; None if none does, or if it can't be told.

    Args:
        x: what the first step is given.
        given: stages that are no steps, such as the input.
        error: what is wrong, or what stopped the network.
    """
    steps = [step for step in trace.steps if step[0] != "interpolate" or step[1][0].shape != step[2].shape]
    stopped = not isinstance(error, CheckFailed) or (bool(steps) and steps[-1][2] is None)
    weights = [weight for weight in model.parameters() if weight.ndim > 1]
    seen = {id(part) for _, parts, _ in steps for part in parts}
    if any(weight.ndim != 4 for weight in weights) or not (stopped or seen >= {*map(id, weights)}):
        return None  # layers of another kind, whose steps were not followed
    if isinstance(error, CheckFailed) and not str(error).startswith(ABOUT_SHAPES):
        return None
    stages = {stage: Stage(*stage, BEHIND, str(shape)) for _, stage, shape, _ in plan}
    last, wrong = tuple(x.shape), None
    for function, stage, shape, kernel in plan:
        name, parts, result = steps[0] if steps else ("", [], None)
        name = "pool" if "pool" in name or (name, function) == ("interpolate", "pool") else name
        shapes = [tuple(part.shape) for part in parts]
        if name == function:
            wrong = _difference(shapes, None if result is None else tuple(result.shape), last, shape, kernel)
            steps = steps[1:]
        elif not shapes or shape == last or shape not in shapes:  # else it was done in a way that is not followed
            found = f"{WORDS[name]} of {shapes[0]}" if name else "nothing more"
            wrong = found, f"{'half the sides, no weights' if function == 'pool' else WORDS[function]}, {shape}"
            if not name and not isinstance(error, CheckFailed):
                wrong = f"not reached, {type(error).__name__}", str(shape)
        if wrong:
            stages[stage] = replace(stages[stage], found=wrong[0], expected=wrong[1])
            break
        last = shape
        stages[stage] = replace(stages[stage], found=str(shape))
    if wrong is None and (unused := re.match("Use of (x|skip) |Skip connections of ", str(error))):
        stage = next(stage for function, stage, *_ in plan if function == "cat")
        wrong = f"no gradient for {unused[1]}" if unused[1] else "skip has no effect", "both are used"
        stages[stage] = replace(stages[stage], found=wrong[0], expected=wrong[1])
    if wrong is None:
        return None
    reached = [f"{s.part}, level {s.level}, {s.name}: {s.found}" for s in stages.values() if s.found == s.expected]
    where, right = f"{stage[0]}, level {stage[1]}, {stage[2]}", "; ".join(reached) or "nothing"
    alt = (f"Your network along the drawing of the U-Net. First wrong, in a red frame with a cross: {where}: found "
           f"{wrong[0]}, expected {wrong[1]}. Right: {right}.")  # fmt: skip
    return UNetShapes((*given, *stages.values()), alt)


def _difference(given: list[tuple], result: tuple | None, last: tuple, shape: tuple, kernel: int) -> tuple | None:
    """Found and expected, if a step (its arguments, its result or None) is not the planned one."""
    if result is None and kernel == 0:
        return " with ".join(map(str, given)), " with ".join([str((*shape[:1], shape[1] // 2, *shape[2:]))] * 2)
    if result is None and given[0] != last:
        return f"takes {given[0]}", f"takes {last}"
    if result is None:
        channels = given[1][0 if kernel == 2 else 1]
        return f"in_channels={channels}" if channels != last[1] else "stopped here", f"in_channels={last[1]}"
    if result != shape:
        return str(result), str(shape)
    if kernel and given[1][2:] != (kernel, kernel):
        return f"kernel {' x '.join(map(str, given[1][2:]))}", f"kernel {kernel} x {kernel}"
    return None
