"""What the checks of functions that run a model share: how the model was used, and whether it is what it was."""

from __future__ import annotations

import torch
from torch import nn

from course_utils.exercises.feedback import fail

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
