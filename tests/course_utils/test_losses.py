"""Losses and pixel scores from logits, beside what the checks of exercises 3.1 and 3.2 prove of the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_utils.losses import (
    binary_cross_entropy,
    class_weights,
    dice_score,
    foreground_dice_score,
    hard_dice_score,
    multiclass_dice_loss,
)
from course_utils.networks import boundary_loss

torch.set_num_threads(1)
BATCHES = hnp.array_shapes(min_dims=4, max_dims=4, max_side=4)


@st.composite
def logits_and_target(draw):
    shape = draw(BATCHES)
    logits = draw(hnp.arrays(np.float32, shape, elements=st.floats(-20, 20, width=32)))
    target = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0])))
    return torch.from_numpy(logits), torch.from_numpy(target)


# 3.1 binary_cross_entropy


@given(logits_and_target())
def test_cross_entropy_agrees_with_torch_and_with_the_textbook(pair):
    logits, target = pair
    loss = binary_cross_entropy(logits, target)
    assert loss.shape == () and loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        torch.nn.functional.binary_cross_entropy_with_logits(logits, target).item(), rel=1e-5, abs=1e-6
    )
    p = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
    t = target.numpy()
    assert loss.item() == pytest.approx(np.mean(-t * np.log(p) - (1 - t) * np.log(1 - p)), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("function", [binary_cross_entropy, dice_score, hard_dice_score])
def test_shapes_that_would_broadcast_are_an_error(function):
    with pytest.raises(ValueError, match=r"same shape"):
        function(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))


# 3.2 dice_score


def dice_by_loops(probability: np.ndarray, target: np.ndarray) -> float:
    """The mean over batch and channels, pixel by pixel."""
    scores = []
    for p_image, t_image in zip(probability, target, strict=True):
        for p_map, t_map in zip(p_image, t_image, strict=True):
            overlap = total = 0.0
            for p, t in zip(p_map.ravel(), t_map.ravel(), strict=True):
                overlap += float(p) * float(t)
                total += float(p) + float(t)
            scores.append(2 * overlap / total if total > 0 else 1.0)
    return sum(scores) / len(scores)


@given(logits_and_target())
def test_dice_is_twice_the_overlap_by_the_sum_of_both(pair):
    logits, target = pair
    score = dice_score(logits, target)
    assert score.shape == () and 0 <= score.item() <= 1
    expected = dice_by_loops(1 / (1 + np.exp(-logits.numpy().astype(np.float64))), target.numpy())
    assert score.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(logits_and_target())
def test_hard_dice_is_the_dice_of_the_decisions(pair):
    logits, target = pair
    score = hard_dice_score(logits, target)
    assert score.item() == pytest.approx(dice_by_loops(logits.numpy() > 0, target.numpy()), abs=1e-6)


EMPTY, FULL = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)


@pytest.mark.parametrize("score", [dice_score, hard_dice_score])
def test_extreme_logits_give_exact_scores(score):
    yes, no = 1e4 * FULL, -1e4 * FULL
    assert score(no, EMPTY) == 1  # nothing to find and nothing found
    assert score(yes, FULL) == 1
    assert score(no, FULL) == 0
    assert score(yes, EMPTY) == 0


def test_dice_has_finite_gradients_also_for_an_empty_map():
    for target in (EMPTY, FULL):
        for value in (-1e4, 0.0, 1e4):
            logits = torch.full((1, 1, 4, 4), value, requires_grad=True)
            dice_score(logits, target).backward()
            assert logits.grad.isfinite().all()


def test_foreground_dice_counts_interior_and_boundary_as_nucleus():
    target = torch.tensor([[[0, 1, 2, 2]]])
    sure = torch.nn.functional.one_hot(target, 3).movedim(-1, 1) * 10.0
    assert foreground_dice_score(sure, target) == 1
    swapped = sure[:, [0, 2, 1]]  # interior for boundary: the foreground is the same
    assert foreground_dice_score(swapped, target) == 1
    undecided = torch.zeros(1, 3, 1, 4)  # background has a third, so all is foreground
    assert foreground_dice_score(undecided, target).item() == pytest.approx(2 * 3 / (4 + 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("score", [dice_score, hard_dice_score])
def test_dice_of_a_large_image_is_the_same_in_every_precision(dtype, score):
    torch.manual_seed(0)
    logits, target = 4 * torch.randn(1, 1, 512, 512), (torch.rand(1, 1, 512, 512) < 0.6).float()
    found = score(logits.to(dtype), target.to(dtype))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(score(logits.to(dtype).float(), target).item(), rel=1e-5)


# 6.1 multiclass_dice_loss


@st.composite
def logits_and_classes(draw):
    n, classes, height, width = (draw(st.integers(*limits)) for limits in [(1, 3), (2, 4), (1, 4), (1, 4)])
    logits = draw(hnp.arrays(np.float32, (n, classes, height, width), elements=st.floats(-20, 20, width=32)))
    target = draw(hnp.arrays(np.int64, (n, height, width), elements=st.integers(0, classes - 1)))
    return torch.from_numpy(logits), torch.from_numpy(target)


@given(logits_and_classes())
def test_multiclass_dice_is_that_of_loops_over_the_classes(pair):
    logits, target = pair
    loss = multiclass_dice_loss(logits, target)
    assert loss.shape == () and loss.dtype == torch.float32 and -1e-6 <= loss.item() <= 1
    exponential = np.exp(logits.numpy().astype(np.float64))
    probability = exponential / exponential.sum(axis=1, keepdims=True)
    batch = np.moveaxis(probability, 1, 0).reshape(1, logits.shape[1], -1)  # as one image
    classes = [dice_by_loops(batch[:, [k]], (target.numpy() == k).reshape(1, 1, -1)) for k in range(1, logits.shape[1])]
    assert loss.item() == pytest.approx(1 - np.mean(classes), rel=1e-4, abs=1e-5)


# targets and logits that are something else

LOGITS, TARGET = torch.full((1, 1, 4, 4), 10.0), torch.ones(1, 1, 4, 4)
CLASSES = torch.zeros(1, 4, 4, dtype=torch.int64)


@pytest.mark.parametrize("function", [binary_cross_entropy, dice_score, hard_dice_score])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (TARGET * 255, r"from 0 to 1, but they are from 255\.0 to 255\.0"),
        (TARGET.to(torch.uint8) * 255, "from 0 to 1, but they are from 255 to 255"),
        (-TARGET, "from 0 to 1"),
        (TARGET * float("nan"), "from nan to nan"),
        (TARGET[:0], "hold pixels"),
        (TARGET.numpy(), "tensor of numbers, but they are torch.float32 and float32"),
        (None, "and NoneType"),
        (TARGET.to(torch.complex64), "and torch.complex64"),
    ],
)
def test_a_target_that_is_not_from_0_to_1_is_an_error(function, target, message):
    logits = LOGITS if target is None or len(target) else LOGITS[:0]
    with pytest.raises(ValueError, match=message):
        function(logits, target)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.uint16, torch.int64, torch.float16, torch.bfloat16, torch.float64]
)
@pytest.mark.parametrize("function", [binary_cross_entropy, dice_score, hard_dice_score])
def test_a_target_of_0_and_1_may_have_any_dtype(function, dtype):
    target = TARGET.clone()
    target[..., :2] = 0
    assert function(LOGITS, target.to(dtype)).item() == pytest.approx(function(LOGITS, target).item())


@pytest.mark.parametrize("function", [binary_cross_entropy, dice_score, hard_dice_score])
def test_logits_of_nan_have_no_score(function):
    """Neither the 0 of a bad network, nor the 1 of an empty image that is found empty."""
    assert function(LOGITS * float("nan"), TARGET).isnan()
    assert function(LOGITS * float("nan"), 0 * TARGET).isnan()


@pytest.mark.parametrize("function", [foreground_dice_score, boundary_loss, multiclass_dice_loss])
@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (torch.zeros(1, 3, 4, 4), CLASSES + 3, "from 0 to 2, but they are from 3 to 3"),
        (torch.zeros(1, 3, 4, 4), CLASSES[:, :3], r"but have \(1, 3, 4, 4\) and \(1, 3, 4\)"),
        (torch.zeros(1, 3, 4, 4), CLASSES[:, None], r"and \(1, 1, 4, 4\)"),
        (torch.zeros(1, 1, 4, 4), CLASSES, r"but have \(1, 1, 4, 4\)"),
        (torch.zeros(3, 4, 4), CLASSES, "4 dimensions"),
        (torch.zeros(1, 3, 4, 4), CLASSES.float(), "of integers"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), CLASSES, "tensor of floats"),
    ],
)
def test_logits_and_classes_must_fit(function, logits, target, message):
    with pytest.raises(ValueError, match=message):
        function(logits, target)


# 6.2 class_weights


@given(st.lists(hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.integers(0, 3))))
def test_class_weights_are_inverse_frequencies_of_mean_1(targets):
    counts = [sum(np.count_nonzero(target == k) for target in targets) for k in range(4)]
    if not sum(counts):
        return
    weights = class_weights([torch.from_numpy(target) for target in targets], n_classes=4)
    assert weights.shape == (4,) and weights.dtype == torch.float32
    assert weights.mean().item() == pytest.approx(1, rel=1e-5)
    shares = [weights[k].item() * counts[k] for k in range(4) if counts[k]]
    assert shares == pytest.approx([shares[0]] * len(shares), rel=1e-5), "every class that is there counts the same"
    assert all(weights[k] == 0 for k in range(4) if not counts[k])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "no pixels"),
        ([CLASSES[:0]], "no pixels"),
        ([CLASSES + 3], "from 0 to 2, but they are from 3 to 3"),
        ([CLASSES - 1], "from -1 to -1"),
        ([CLASSES.float()], r"integers, but one is of torch\.float32"),
        ([CLASSES.numpy()], "integers, but one is of int64"),
        (None, "must be a list"),
    ],
)
def test_targets_that_are_not_classes_have_no_weights(targets, message):
    with pytest.raises(ValueError, match=message):
        class_weights(targets)
