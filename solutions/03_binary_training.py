# %% [markdown]
# # 03 Binary training
#
# The network of notebook 02 knows nothing. Now it learns from examples to tell nucleus from background at every pixel.
# You write the four parts of every training: a loss, a metric, the training loop and the validation loop.
#
# **After this notebook you can**
#
# * compute a cross entropy from logits that is stable for any number;
# * explain why the score you report is not the loss you minimise;
# * write a training loop, and test it by overfitting on purpose;
# * choose a learning rate, and recognise common bugs by their curves;
# * tell overfitting from learning, and read learning curves.
#
# **You need** notebooks 01 and 02, and an idea of gradient descent.
#
# **Time** about {{minutes}} minutes of work. Computing: in the profile `laptop` 5 to 15 minutes on a CPU, in `smoke`
# one or two; `full`, meant for a GPU, has not been measured yet.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, RandomSampler

from course_utils import NucleiDataset, UNet, binary_target, get_profile, load_data, plotting, predict
from course_utils.arguments import check_arguments, check_logits  # used by the course's own functions, not by yours
from course_utils.checkpoints import save_model
from course_utils.dataset import training_loader, validation_loader
from course_utils.device import choose_device, describe_device, prepare_model
from course_utils.display import LiveFigure, ProgressBar, show
from course_utils.exercises import check
from course_utils.exercises.claims import claim
from course_utils.exercises.guesses import ask, compare
from course_utils.exploration import split_train_val
from course_utils.losses import hard_dice_score
from course_utils.networks import model_path, normalized_arrays, training_config
from course_utils.results import prepare_output, record_scores
from course_utils.training import EpochResult

plotting.use_course_style()

# %% tags=["parameters"]
data_source = "embedded"  # or "dsb2018" (a download), "kaggle", "auto", a folder, a zip
profile = "auto"
seed = 0
output = "output"

# %%
settings = get_profile(profile)
device = choose_device()
print(
    f"profile {settings.name}: {settings.binary_epochs} epochs of {settings.crops_per_epoch} crops",
    f"on {describe_device(device)}",
)

data = load_data(data_source)
train, val = split_train_val(data.train, settings.validation_every)
train_images, train_masks = normalized_arrays(train, settings.crop_size)
val_images, val_masks = normalized_arrays(val)
prepare_output(output)
print(f"{len(train)} training and {len(val)} validation images. {data.note}")

# %% [markdown]
# ## The loss
#
# The network outputs one number $x$ for each pixel, the **logit**. The sigmoid $p = 1 / (1 + e^{-x})$ turns it into a
# probability. For a target $t$ of 0 or 1 the binary cross entropy is
#
# $$ -t \log p - (1 - t) \log (1 - p) $$
#
# Implemented literally, it already fails for moderate logits:


# %%
def textbook_cross_entropy(logits, target):
    p = torch.sigmoid(logits)
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()


def value_and_gradient(function, logit, target):
    x = torch.tensor([float(logit)], requires_grad=True)
    loss = function(x, torch.tensor([float(target)]))
    loss.backward()
    return loss.item(), x.grad.item()


def table_of(function):
    values = {logit: value_and_gradient(function, logit, target=0) for logit in extreme}
    table = pd.DataFrame(values, index=["loss", "gradient"]).T.rename_axis("logit, target 0")
    return values, (table + 0).map("{:.3g}".format)  # + 0 turns -0 into 0


extreme = [-10_000, -200, -50, 0, 16, 17, 50, 200, 10_000]
textbook, table = table_of(textbook_cross_entropy)
print(table.to_string())
claim(np.isfinite(textbook[16][0]) and textbook[17][0] == np.inf, "The loss is finite at 16 and infinite at 17.")
claim(np.isnan(textbook[-200][0]), "At -200 it is not a number.")

# %% [markdown]
# From a logit of 17 on, `1 - p` rounds to zero and the loss is infinite. At -200 the prediction is perfectly *right*,
# yet the result is not a number: `p` is 0, and `0 * log(0)` is undefined. One pixel without a finite gradient ruins all
# weights in the next step.
#
# ### Exercise 3.1: A cross entropy that survives large logits
#
# {{difficulty}}
#
# Write `binary_cross_entropy(logits, target)`. It returns the mean over all elements as a scalar tensor. Loss and
# gradients must be finite for logits of $\pm 10^4$. Do not call torch's own binary cross entropy. If the two shapes
# differ, raise a `ValueError`. (Here and below: of the errors under `Raises` in a docstring, write only those that the
# task asks for.)
#
# Insert the sigmoid into the formula **before** computing, and simplify: $-\log p = \log(1 + e^{-x})$ and
# $-\log(1 - p) = \log(1 + e^{x})$. What remains needs a $\log(1 + e^x)$ that does not overflow; torch has one.

# %% [markdown] expected="3.1"
# Expected: a logit of 0 costs log 2 for either target; a wrong logit of 10,000 costs 10,000.
#
# ```python expected
# for logit, target in [(0.0, 1.0), (10_000.0, 0.0), (10_000.0, 1.0)]:
#     loss = binary_cross_entropy(torch.tensor([logit]), torch.tensor([target]))
#     print(f"logit {logit:.0f}, target {target:.0f}: {loss:.4f}")
# ```
#
# <details><summary>Hint 1</summary>
#
# Start with pen and paper: what is left of the cross entropy for $t = 1$, and what for $t = 0$? Each is one logarithm
# of $1 + e^{\pm x}$.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The two logarithms differ by very little: $\log(1 + e^{-x}) = \log(1 + e^{x}) - x$. Insert that into the whole
# formula and multiply out; most terms cancel.
#
# </details>
# <details><summary>Hint 3</summary>
#
# $\log(1 + e^x)$ is called *softplus* in torch, and imported above. Compare the shapes first (broadcasting would hide a
# mistake), and do not forget the mean.
#
# </details>

# %% exercise="3.1"
from course_utils import binary_cross_entropy

# %% check="3.1"

# %%
stable, table = table_of(binary_cross_entropy)
print(table.to_string())
assert np.isfinite(list(stable.values())).all() and stable[10_000] == (10_000, 1) and stable[-10_000] == (0, 0)

# %% [markdown]
# Now a wrong logit of 10,000 costs 10,000 with a gradient of 1, which pushes it back. A right one costs nothing.

# %% [markdown] question="3a"
# **Question 3a.** `torch.nn.BCELoss` takes probabilities, `torch.nn.BCEWithLogitsLoss` takes logits. Which one do you
# choose, and what does that mean for the last layer of the network?

# %% [markdown] answer="3a"
# `BCEWithLogitsLoss`, because it does what you just did: it combines sigmoid and logarithm before rounding can do harm.
# `BCELoss` cannot repair what the sigmoid rounded away; it clamps the logarithm at -100 so that the loss stays finite,
# but a confidently wrong pixel, which needs a gradient most, gets none. So the network ends in a linear layer, and the
# sigmoid is applied only where probabilities are needed: in the metric and in the prediction. Sigmoid in the network
# *and* loss with logits is a frequent mistake that trains badly without an error message.

# %% [markdown]
# ## The metric
#
# Most pixels are background. Count the correct pixels of a network that always says "background":

# %%
foreground = np.mean(np.concatenate([mask.ravel() > 0 for mask in val_masks]))
print(f"pixel accuracy of 'everything is background': {1 - foreground:.3f}")
claim(1 - foreground > 0.75, "Predicting only background is right on more than three quarters of the pixels.")

# %% [markdown]
# It is right on more than three quarters of the pixels and has found nothing. A better score looks at the foreground
# only. The **Dice score** compares the overlap of two masks with their sizes:
#
# $$ \mathrm{Dice} = \frac{2 \sum p\, t}{\sum p + \sum t} $$
#
# ### Exercise 3.2: The Dice score
#
# {{difficulty}}
#
# Write `dice_score(logits, target)` for tensors `(N, C, H, W)`. It computes the Dice of `sigmoid(logits)` for each
# image and channel, and returns the mean, a scalar tensor in [0, 1]. If prediction and target are both empty, the
# prediction is perfect: the score is 1, not 0/0. No squares in the denominator.

# %% [markdown] expected="3.2"
# Expected: half of the target is found and nothing else, so 2 · 2 / (2 + 4); 1 if both are empty.
#
# ```python expected
# target = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]]])
# logits = torch.tensor([[[[1e4, 1e4], [-1e4, -1e4]]]])
# print(round(dice_score(logits, target).item(), 4), dice_score(logits - 2e4, 0 * target).item())
# ```
#
# <details><summary>Hint 1</summary>
#
# Sum over the pixels only: `dim=(-2, -1)` leaves one number for each image and channel. Take the mean last.
#
# </details>
# <details><summary>Hint 2</summary>
#
# When exactly is the denominator 0, and what should the score be there? Decide it for each map on its own, before the
# mean: a batch may hold both kinds.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `torch.where` takes each element from one of two tensors. The 0/0 in the tensor that it does not take does no harm,
# because a score needs no gradient.
#
# </details>

# %% exercise="3.2"
from course_utils import dice_score

# %% check="3.2"

# %%
target = torch.zeros(1, 1, 8, 8)
target[..., 2:6, 2:6] = 1
timid = torch.where(target > 0, 0.4, -0.4)  # right everywhere, but unsure: probabilities 0.6 and 0.4
nothing = torch.full_like(target, -1e4)
print(f"everything background: {dice_score(nothing, target):.3f}")
soft, hard = dice_score(timid, target), hard_dice_score(timid, target)
print(f"right but unsure:      soft {soft:.3f}, hard {hard:.3f}")
print(f"empty, as the target:  {dice_score(nothing, torch.zeros_like(target)):.3f}")
assert dice_score(nothing, target) == 0 and dice_score(nothing, torch.zeros_like(target)) == 1
assert hard_dice_score(timid, target) == 1 > dice_score(timid, target)

# %% [markdown]
# "Everything background" now scores 0. The second line shows the difference between the **soft** Dice (of
# probabilities) and the **hard** Dice (of the binary mask, $p > 0.5$): the mask is perfect, yet the soft score is far
# below 1 because the network is unsure.
#
# How unsure must it be? **Predict, then run**: a network is certain of every nucleus ($p = 1$) and nearly certain of
# the background ($p = 0.03$). What is the soft Dice on the validation images?

# %%
ask("03 soft Dice", "The soft Dice on the validation images, with p = 0.03 on the background:", low=0.0, high=1.0)

# %%
val_loader = validation_loader(val_images, val_masks, binary_target)
hazy_scores = []
for _, target in val_loader:
    logits = torch.where(target > 0, 1e4, np.log(0.03 / 0.97))
    hazy_scores.append((dice_score(logits, target).item(), hard_dice_score(logits, target).item()))
hazy_soft, hazy_hard = np.mean(hazy_scores, axis=0)
compare("03 soft Dice", float(hazy_soft), f"The hard Dice is {hazy_hard:.0f}.")
claim(hazy_soft < 0.9 and hazy_hard == 1, "The haze costs the soft Dice more than the hard one, which stays at 1.")

# %% [markdown]
# Most pixels are background, so a little probability on each of them adds up in the denominator. The soft Dice is
# smooth and shows small changes during training, but it mixes two things: how good the mask is, and how certain the
# network. The hard Dice says how good the mask is that you will use. When you report a Dice score, report the hard one,
# and never call either of them accuracy.

# %% [markdown] question="3b"
# **Question 3b.** How does the small share of foreground affect the cross entropy? What would you see if it were 1 %?

# %% [markdown] answer="3b"
# Cross entropy is a mean over pixels, and most of them are background. At the start, with $p = 0.5$ everywhere, every
# pixel pulls its logit equally hard, so with 1 % foreground 99 % of the gradient says "darker". The quickest way to a
# low loss is to predict the share $f$ of foreground everywhere: the map is uniformly dark, no nucleus is found, the
# hard Dice is 0, and yet the loss is already down to $-f \log f - (1 - f) \log (1 - f)$: 0.40 with 14 % foreground, but
# 0.056 with 1 %. So a loss of 0.05 can be good on one data set and worthless on another. Remedies: give foreground
# pixels more weight, sample crops that contain nuclei, or use a loss built on the Dice score, in which background that
# is predicted as background does not count.

# %% [markdown]
# ## The loop
#
# ### Exercise 3.3: One epoch of training
#
# {{difficulty}}
#
# Write `train_epoch(model, loader, loss_fn, optimizer, metric=None)`. For each batch: move it to the model's device,
# compute logits and loss, set the old gradients to zero, backward, step. Return `(mean loss, mean metric)` as Python
# floats (`None` without a metric). Weight each batch by its size, since the last one may be smaller. Put the model in
# training mode. `loader` may be any iterable of batches, even one without a length: count the images yourself. Sum up
# numbers or detached tensors; anything else would hold the graph of every batch.

# %% [markdown] expected="3.3"
# Expected: a pair of Python floats. This model knows nothing (all logits are 0), so the loss is log 2:
#
# ```python expected
# model = torch.nn.Conv2d(1, 1, 1)
# torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
# optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
# batch = torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
# loss, metric = train_epoch(model, [batch], binary_cross_entropy, optimizer)
# print(round(loss, 4), metric, "and a step was made:", model.bias.item() > 0)
# ```
#
# <details><summary>Hint 1</summary>
#
# To find the model's device, look at one of its parameters. `next(model.parameters())` gives the first.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Five lines in the loop do the learning: move the batch, forward, old gradients to zero, backward, step.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `loss` is a tensor that keeps its graph; `loss.item()` is a number. Sum up `number * batch size`, and divide once at
# the end.
#
# </details>

# %% exercise="3.3"
from course_utils import train_epoch

# %% check="3.3"

# %% [markdown]
# Before spending minutes on training, spend seconds on a test: **a network must be able to learn one small batch by
# heart**. If it cannot, the loop is wrong, and no amount of data will help.
#
# Two parts of the loop are new. The **optimizer** turns gradients into steps. Plain gradient descent (`SGD`) moves each
# weight by the learning rate times its gradient. `AdamW` first divides the gradient by its usual size, weight by
# weight, so that each moves by about the learning rate, however small its gradients are; the W stands for *weight
# decay*: every step also shrinks each weight a little. The **schedule** changes the learning rate from step to step.
# This one lets it fall to zero along a cosine: large steps first, to get close quickly, small ones at the end, to
# settle.

# %%
torch.manual_seed(seed)
by_coverage = np.argsort([-np.mean(mask > 0) for mask in train_masks])  # images with the most foreground first
dataset = NucleiDataset(train_images, train_masks, binary_target, crop_size=96, seed=seed)
crops = [dataset[index] for index in by_coverage]  # one crop of each training image, always the same


def learn(crops, network=None, steps=100):
    """Train a small network on fixed crops, two in each step; returns it with loss and soft Dice of every step."""
    torch.manual_seed(seed)
    pupil = prepare_model(network or UNet(1, 1, base_channels=8, batch_norm=True))
    optimizer = torch.optim.AdamW(pupil.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    history = []
    for batch in DataLoader(crops, batch_size=2, sampler=RandomSampler(crops, num_samples=2 * steps)):
        history.append(train_epoch(pupil, [batch], binary_cross_entropy, optimizer, dice_score))
        schedule.step()
    return pupil, history


pupil, memorised = learn(crops[:2])

# %% tags=["fold"]
figure, axes = plotting.grid(1, 3, width=3.6, height=2.8)
axes[0, 0].plot([loss for loss, _ in memorised])
axes[0, 0].set(xlabel="step", ylabel="loss", yscale="log")
axes[0, 1].plot([dice for _, dice in memorised], color=plotting.ORANGE)
axes[0, 1].set(xlabel="step", ylabel="soft Dice", ylim=(0, 1))
axes[0, 2].plot([1e-2 * (1 + np.cos(np.pi * step / 100)) / 2 for step in range(100)], color=plotting.GREEN)
axes[0, 2].set(xlabel="step", ylabel="learning rate", ylim=(0, 0.0105))
show(
    figure,
    "Overfitting on purpose: loss and soft Dice of one batch of two crops, shown a hundred times, and the learning rate"
    " of each step: half a cosine from 0.01 to 0.",
)

# %%
(first_loss, first_dice), (last_loss, last_dice) = memorised[0], memorised[-1]
print(f"loss {first_loss:.3f} -> {last_loss:.3f}, soft Dice {first_dice:.3f} -> {last_dice:.3f}")
claim(last_loss < 0.3 * first_loss, "The loss fell to less than a third.")
claim(last_dice > first_dice + 0.2, "The Dice score rose.")

# %% [markdown]
# The loss falls to less than a third and the Dice score rises: the loop can learn. This says nothing about new images;
# validation does.
#
# ### The learning rate: too small, too large
#
# Of all settings this one matters most. Train the same network five times for a hundred steps, with five learning rates
# a factor of ten or more apart, on crops of all training images. (No schedule here, and no batch normalisation, which
# hides much of the harm that large steps do.) **Predict, then run**:

# %%
rates = ["0.00001", "0.0002", "0.003", "0.1", "1"]
ask("03 best rate", "With which learning rate is the loss lowest after a hundred steps?", options=rates)
ask("03 diverging rate", "And with which one is it higher than before the first step?", options=rates)

# %%
losses_at = {}
for rate in rates:
    torch.manual_seed(seed)
    trial = prepare_model(UNet(1, 1, base_channels=8))
    optimizer = torch.optim.AdamW(trial.parameters(), lr=float(rate))
    batches = DataLoader(crops, batch_size=2, sampler=RandomSampler(crops, num_samples=200))
    losses_at[rate] = [train_epoch(trial, [batch], binary_cross_entropy, optimizer)[0] for batch in batches]

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=8, height=3.6)
for rate, style in zip(rates, [":", "--", "-", "-.", (0, (1, 1))]):
    smooth = np.convolve(losses_at[rate], np.ones(10) / 10, mode="valid")
    axes[0, 0].plot(range(10, 101), np.fmin(smooth, 2.9), linestyle=style, linewidth=2, label=rate)
axes[0, 0].set(xlabel="step", ylabel="loss (mean of 10 steps)", yscale="log", ylim=(0.03, 3))
axes[0, 0].set_yticks([0.03, 0.1, 0.3, 1, 3], ["0.03", "0.1", "0.3", "1", "3 or more"])
axes[0, 0].legend(frameon=False, title="learning rate", loc="center left", bbox_to_anchor=(1, 0.5))
show(figure, "Loss in a hundred steps with five learning rates; a curve along the upper edge is above it.")

# %%
start = losses_at[rates[0]][0]
end = {rate: np.mean(losses_at[rate][-20:]) for rate in rates}
best, worst = min(end, key=end.get), max(end, key=end.get)
print(f"loss before the first step {start:.2g}, mean of the last 20 steps:")
for rate in rates:
    print(f"learning rate {rate:8} {end[rate]:.2g}")
compare("03 best rate", best)
compare("03 diverging rate", worst, f"At its highest, the loss is {np.nanmax(losses_at[worst]):.0e}.")
claim(best == "0.003", "The middle one of the five rates has the lowest loss.")
claim(worst == "1" and end["1"] > 2 * start, "With a learning rate of 1 the loss is more than doubled.")

# %% [markdown]
# Too small a rate learns slowly; too large a rate steps over the valley it should descend into, and at 1 the loss
# climbs out of every valley. The best one lies between, and there is no formula for it: try a few, a factor of
# three to ten apart, for a hundred steps each. The answer holds for this optimizer, network and batch size only.
#
# ### Three bugs, three curves
#
# **Break it**: three bugs that raise no error. Here is the loop of `train_epoch` once more, with one of them in it:
#
# * *no zero_grad*: old gradients are not set to zero, so each step uses the sum of all gradients so far;
# * *sigmoid twice*: the network ends in a sigmoid, and the loss expects logits;
# * *only the mask flipped*: augmentation flips the mask of a crop at random, and not the image.
#
# The optimizer is plain SGD. AdamW divides by the usual size of the gradient, and so would hide the first bug almost
# completely.


# %%
def learn_with(bug, steps=100):
    """Train a small network with a bug (or None); returns loss and hard Dice of every step."""
    torch.manual_seed(seed)
    trial = prepare_model(UNet(1, 1, base_channels=8, batch_norm=True), device)
    optimizer = torch.optim.SGD(trial.parameters(), lr=1)
    history = []
    for images, target in DataLoader(crops, batch_size=2, sampler=RandomSampler(crops, num_samples=2 * steps)):
        if bug == "only the mask flipped":
            target = target.flip([(), (-2,), (-1,), (-2, -1)][torch.randint(4, ())])
        images, target = images.to(device), target.to(device)
        logits = trial(images)
        if bug == "sigmoid twice":
            logits = torch.sigmoid(logits)
        loss = binary_cross_entropy(logits, target)
        if bug != "no zero_grad":
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((loss.item(), hard_dice_score(logits.detach(), target).item()))
    return np.array(history)


# %%
bugs = ["no zero_grad", "sigmoid twice", "only the mask flipped"]
trained = {bug: learn_with(bug) for bug in [None, *bugs]}
shuffled = [bugs[index] for index in np.random.default_rng(seed + 3).permutation(3)]  # which one is A, which B, C?

# %% tags=["fold"]
figure, axes = plotting.grid(1, 2, width=4.2, height=3.4)
names, styles = ["no bug", "A", "B", "C"], ["-", "--", "-.", ":"]
colours = [plotting.BLACK, plotting.BLUE, plotting.RED, plotting.GREEN]
for column, (panel, ylabel) in enumerate(zip(axes[0], ["loss", "hard Dice"])):
    for name, bug, style, colour in zip(names, [None, *shuffled], styles, colours):
        smooth = np.convolve(trained[bug][:, column], np.ones(10) / 10, mode="valid")
        panel.plot(range(10, 101), smooth, style, color=colour, linewidth=2, label=name)
    panel.set(xlabel="step", ylabel=f"{ylabel} (mean of 10 steps)", xlim=(10, 100))
axes[0, 0].set(yscale="log")
axes[0, 1].set(ylim=(0, 1))
axes[0, 1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
show(figure, "Loss and hard Dice on the training crops, without a bug and with three bugs, A, B and C.")

# %%
from itertools import permutations

answers = [", ".join(map("{} {}".format, "ABC", order)) for order in permutations(bugs)]
question = "Which bug is which curve? Think what each does to the loss, and what to the mask."
ask("03 three bugs", question, options=answers)

# %%
end = {bug or "no bug": history[-20:].mean(axis=0) for bug, history in trained.items()}
means = "; ".join(f"{bug}: loss {loss:.2f}, hard Dice {dice:.2f}" for bug, (loss, dice) in end.items())
compare("03 three bugs", ", ".join(map("{} {}".format, "ABC", shuffled)), f"Means of the last 20 steps: {means}.")
claim(min(end[bug][0] / end["no bug"][0] for bug in bugs) > 2, "With each bug the loss ends over twice as high.")
jumps = trained["no zero_grad"][:, 0]
doubled, flipped = trained["sigmoid twice"], trained["only the mask flipped"]
as_told = jumps[20:].max() > jumps[0] and doubled[:, 0].min() > 0.31 and flipped[-20:, 1].mean() < end["no bug"][1] / 2
claim(as_told, "Each curve does what is told about its bug below.")

# %% [markdown]
# <details><summary>Guess first, then unfold: what each bug does</summary>
#
# * **no zero_grad**: the loss falls at first and then **jumps**, again and again, above its start. The sum of all
#   gradients so far acts like the momentum of a ball without friction: it rushes through the valley and up on the
#   other side.
# * **sigmoid twice**: the loss falls smoothly and **stops high**. The outputs lie between 0 and 1; taken for logits,
#   they stand for probabilities between 0.5 and 0.73, and no training can make that certain: even a perfect network
#   pays 0.31 for each pixel of a nucleus and 0.69 for each pixel of the background. No logit is negative, so the mask
#   is "nucleus" everywhere.
# * **only the mask flipped**: the loss falls at first and **stays several times as high** as without the bug, and the
#   Dice score stays **low**. Three of four masks do not belong to their image. What can still be learnt is the share
#   of foreground, which is small: the network mostly says "background".
#
# A loss curve alone can look healthy: look at a second number, and at predictions.
#
# </details>
#
# ### Exercise 3.4: Measure without learning
#
# {{difficulty}}
#
# Write `validate(model, loader, loss_fn, metric=None)`. It returns the same as `train_epoch` but changes nothing:
# evaluation mode, no gradients, and afterwards, also after an error, the earlier modes of the model and of torch's
# gradients.
#
# Why a mode? Our networks use *batch normalisation*: in training mode it scales by the mean and standard deviation of
# the current batch, and updates running averages of them; in evaluation mode it uses these averages and does not change
# them.

# %% [markdown] expected="3.4"
# Expected: the same pair, and an unchanged model.
#
# ```python expected
# model = torch.nn.Conv2d(1, 1, 1)
# torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
# batch = torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
# loss, metric = validate(model, [batch], binary_cross_entropy, dice_score)
# print(round(loss, 4), round(metric, 4), "still in training mode:", model.training)
# ```
#
# <details><summary>Hint 1</summary>
#
# Start from `train_epoch` and remove the lines that learn.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `model.training` says which mode the model is in. Remember it before you change it.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `with torch.no_grad():` switches recording off and on again. For the mode, `try` and `finally` do the same, even if an
# error occurs in between.
#
# </details>

# %% exercise="3.4"
from course_utils import validate

# %% check="3.4"

# %%
before = {name: value.clone() for name, value in pupil.state_dict().items()}
loss, dice = validate(pupil, val_loader, binary_cross_entropy, hard_dice_score)
unchanged = all(torch.equal(value, before[name]) for name, value in pupil.state_dict().items())
print(f"loss {loss:.3f}, hard Dice {dice:.3f}")
print(f"weights and buffers unchanged: {unchanged}, still in training mode: {pupil.training}")
assert unchanged and pupil.training

# %% [markdown]
# The validation images are **whole images, padded, always the same**. Random crops would give a different score each
# time, and you could not tell progress from luck.
#
# ### Learnt, or learnt by heart?
#
# The network above has seen nothing but two crops, a hundred times, and yet its Dice score on new images may look
# respectable. Is it overfitted? Compare: the same network, the same hundred steps, on two crops, on eight, and on one
# crop of every training image. Which of the three has the lowest loss on the crops that it was trained on? Which on new
# images?

# %%
pupils = {2: pupil, 8: learn(crops[:8])[0], len(crops): learn(crops)[0]}  # the first was trained above
rows = {}
for n, one in pupils.items():
    known = validate(one, DataLoader(crops[:n], batch_size=2), binary_cross_entropy, hard_dice_score)
    new = validate(one, val_loader, binary_cross_entropy, hard_dice_score)
    rows[n] = [known[0], new[0], new[0] / known[0], known[1], new[1], known[1] - new[1]]
columns = ["loss, known", "loss, new", "ratio", "hard Dice, known", "hard Dice, new", "difference"]
compared = pd.DataFrame(rows, index=columns).T.rename_axis("crops")
print(compared.round(3).to_string())

# %% tags=["fold"]
figure, axes = plotting.grid(1, 2, width=4.2, height=2.8)
for panel, name in zip(axes[0], ["loss", "hard Dice"]):
    panel.plot(compared.index, compared[f"{name}, known"], "--o", label="crops it was trained on")
    panel.plot(compared.index, compared[f"{name}, new"], "-s", label="new images (validation)")
    panel.set(xlabel="crops to learn from", ylabel=name, xscale="log", xticks=compared.index)
    panel.set_xticks(compared.index, compared.index, minor=False)
axes[0, 0].legend(frameon=False)
show(figure, "Loss and hard Dice after a hundred steps on 2, 8 and all crops, for known crops and for new images.")

# %%
few, many = compared.loc[2], compared.loc[len(crops)]
claim(few["ratio"] > 1.25 and few["difference"] > 0.02, "After two crops, new images are clearly worse than known.")
claim(many["ratio"] < 1.25 and many["difference"] < 0.03, "After all crops, they are about as good.")
claim(few["loss, known"] < many["loss, known"], "On known crops, the network that saw two has the lower loss.")

# %% [markdown]
# What does that look like? Below is one of the two crops that all three networks know, and the crop of the validation
# images on which the first network loses most.


# %%
def dice_of(n, crop):
    return validate(pupils[n], DataLoader([crop]), binary_cross_entropy, hard_dice_score)[1]


new_crops = list(NucleiDataset(val_images, val_masks, binary_target, crop_size=96, seed=seed))
hardest = max(new_crops, key=lambda crop: dice_of(len(crops), crop) - dice_of(2, crop))

# %% tags=["fold"]
figure, axes = plotting.grid(2, 5, width=2.1)
for row, (kind, (image, target)) in zip(axes, [("known", crops[0]), ("new", hardest)]):
    plotting.draw_image(row[0], image[0].numpy(), f"{kind} crop")
    plotting.draw_probability(row[1], target[0].numpy(), "truth")
    for panel, n in zip(row[2:], pupils):
        probability = predict(pupils[n], image[0].numpy())[0]
        plotting.draw_probability(panel, probability, f"{n} crops: Dice {dice_of(n, (image, target)):.2f}")
        panel.contour(target[0], [0.5], colors=plotting.RED, linewidths=1)
show(
    figure,
    "A known crop and a new one, and the probability of foreground after training on 2, 8 and all crops, with the hard"
    " Dice and the true outline in red.",
)

# %%
all_crops = len(crops)
claim(dice_of(2, crops[0]) > dice_of(all_crops, crops[0]), "On the known crop, the network that saw two is better.")
claim(dice_of(2, hardest) < dice_of(all_crops, hardest), "On the new crop, it is worse.")

# %% [markdown]
# On the known crop the network that saw two follows the outline almost pixel by pixel. The new crop looks like neither
# of its two: on the real images it loses large parts of the nuclei, on the synthetic ones it is misled by streaks and
# rims.
#
# **Overfitting is the gap** between known and new images, not a low score. It is wide after two crops, and nearly gone
# after all, although (or rather because) that network is worse on its own crops: in a hundred steps it has seen each of
# them a few times at most, and could not learn any by heart. A hundred steps are also too few to make the most of all
# crops: on new images the network that saw eight may even have the lowest loss. The training below takes more steps,
# and brings it lower still.
#
# How bad the overfitted network is on new images depends on how much those differ from the two crops. The real images
# vary, and its hard Dice is clearly below that of the network that saw every image (0.84 against 0.90). The synthetic
# images are easier: there it may be nearly as good (0.91 against 0.94; with other seeds 0.80 and 0.95), and a look at
# the score on new images alone would not show that anything is wrong. So compare known with new, and look at the loss
# as well as at the Dice.

# %% [markdown] question="3c"
# **Question 3c.** Why evaluation mode? And why is `torch.no_grad()` not the same thing?

# %% [markdown] answer="3c"
# Some layers behave differently in training. Batch normalisation uses the statistics of the current batch and updates
# its running averages; dropout switches off units at random. In evaluation mode batch normalisation uses the stored
# averages and changes nothing. Without `eval()` the result for one image depends on which images share its batch, and
# validation images leak into the model through the running averages. `torch.no_grad()` is about something else: it
# stops torch from recording operations for a backward pass, which saves memory and time. It does not change any layer's
# behaviour. You want both.

# %% [markdown]
# ## Training
#
# Now for real. Two functions help: `training_loader` draws crops from each image in proportion to its area, a fixed
# number in each epoch; `prepare_model` moves the network to your device and computes in bfloat16 where the hardware is
# faster that way, elsewhere in float32. The learning rate falls along a cosine again, this time once after each epoch.
#
# You see three things grow while it trains: the bar; the curves, with the loss of each single step as a thin line; and
# the prediction for one validation image. Watching must not slow training down, so the figure is drawn so rarely that
# it costs less than 3 % of the time.

# %%
torch.manual_seed(seed)
dataset = NucleiDataset(
    train_images, train_masks, binary_target, settings.crop_size, augment=True, seed=seed
)
train_loader = training_loader(dataset, settings.batch_size, settings.crops_per_epoch, settings.workers)
network = UNet(1, 1, settings.base_channels, settings.depth, batch_norm=True)
model = prepare_model(network, device)
optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings.binary_epochs)

watched = int(
    np.argmin([mask.size for mask in val_masks])
)  # a small validation image to look at after each epoch
snapshots = [predict(model, val_images[watched])[0]]
history, losses = [], []  # of every epoch, of every step
curves, bar = LiveFigure(), ProgressBar(settings.binary_epochs)


# %%
def noted_loss(logits, target):
    """The cross entropy, which is also noted for the curve."""
    loss = binary_cross_entropy(logits, target)
    losses.append(loss.item())
    return loss


def look():
    """Draw the curves so far, and what the network predicts now."""
    prediction = predict(model, val_images[watched])[0]
    figure = plotting.plot_training(
        history, "soft Dice", settings.binary_epochs, losses, len(train_loader), prediction
    )
    curves.update(
        figure,
        "Loss and soft Dice of training crops (dashed, the loss of each step as a thin line) and of whole validation"
        " images (solid); the probability of foreground in one validation image.",
    )


# %%
for epoch in range(1, settings.binary_epochs + 1):
    start = time.perf_counter()
    batches = bar.epoch(train_loader, look)
    train_loss, train_dice = train_epoch(model, batches, noted_loss, optimizer, dice_score)
    val_loss, val_dice = validate(model, val_loader, binary_cross_entropy, dice_score)
    schedule.step()
    snapshots.append(predict(model, val_images[watched])[0])
    history.append(
        EpochResult(epoch, train_loss, train_dice, val_loss, val_dice, time.perf_counter() - start)
    )
    look()
save_model(model_path(output, "binary"), network, **training_config("binary", data, settings, seed))
first, last = history[0], history[-1]
claim(last.train_loss < first.train_loss, "The training loss fell.")
claim(last.validation_loss < first.validation_loss, "The validation loss fell.")

# %% [markdown]
# How to read the curves:
#
# * Both losses should fall. The training value is an average *over* the epoch, while the network still changes; the
#   validation value is measured *after* it. Early on, validation can therefore look better than training.
# * If validation loss rises while training loss keeps falling, the network learns the training images by heart:
#   **overfitting**. With random, augmented crops this takes long.
# * Dice and loss need not agree: while correct pixels become more certain, the loss falls and the soft Dice rises, even
#   when no decision changes any more and the hard Dice stays the same.

# %% tags=["fold"]
from scipy.ndimage import uniform_filter

shown = sorted({0, *np.linspace(1, settings.binary_epochs, 3).astype(int).tolist()})  # four at most
side = min(64, *(length // 2 for length in val_images[watched].shape))
change = uniform_filter(np.abs(snapshots[-1] - snapshots[1]), side)[side // 2 : -side // 2, side // 2 : -side // 2]
top, left = np.unravel_index(change.argmax(), change.shape)  # of the window that changes most after the first epoch
window = slice(top, top + side), slice(left, left + side)
figure, axes = plotting.grid(2, len(shown) + 2, width=1.8)
for panels, part in zip(axes, (np.s_[:, :], window)):
    plotting.draw_image(panels[0], val_images[watched][part], "image" if part != window else "enlarged")
    for panel, epoch in zip(panels[1:], shown):
        plotting.draw_probability(panel, snapshots[epoch][part], f"epoch {epoch}")
    plotting.draw_probability(panels[-1], (val_masks[watched][part] > 0).astype(float), "truth")
for panel in axes[0]:
    panel.add_patch(plt.Rectangle((left - 0.5, top - 0.5), side, side, fill=False, color="white", linestyle="--"))
show(
    figure,
    "The probability of foreground for one validation image before training (epoch 0) and after some of the epochs."
    " Below, enlarged, the dashed square: the part that changes most after the first epoch.",
)

# %%
certainty = [2 * np.mean(np.abs(snapshot - 0.5)) for snapshot in snapshots]
print("certainty, from 0 (p = 0.5 everywhere) to 1:", *(f"{value:.2f}" for value in certainty))
claim(certainty[0] < 0.5 < certainty[1] < certainty[-1], "The map becomes more certain.")

# %% [markdown]
# Before training the map says nothing. The first epoch brings the nuclei out; later ones make the map more certain.
# Look at the edges in the lower row, at dim nuclei and at narrow gaps between neighbours: few pixels change there, and
# a pixel score hardly notices them, but notebook 04 depends on them.

# %%
val_loss, soft = validate(model, val_loader, binary_cross_entropy, dice_score)
_, hard = validate(model, val_loader, binary_cross_entropy, hard_dice_score)
print(f"validation: loss {val_loss:.4f}, soft Dice {soft:.3f}, hard Dice {hard:.3f}")
claim(hard > 0.8, "The hard Dice is above 0.8.")
claim(hard > few["hard Dice, new"], "The hard Dice is higher than after two crops.")
claim(val_loss < compared["loss, new"].min(), "The loss is lower than after a hundred steps, on however many crops.")
claim(soft < hard, "The soft Dice is lower than the hard one.")

# %% [markdown]
# Masks are judged by the **hard Dice on whole images**. It is higher than that of the network that learnt two crops by
# heart, and the loss is lower. The soft Dice is lower than the hard one although the masks are good: part of it is the
# haze of small probabilities that you saw above.
#
# This is a **validation** score: good for choosing, not for reporting. Whatever is chosen by it (the epoch, the
# network, a threshold) makes it too good. The number to report comes from the test images, measured once, when all
# choices have been made; and it, too, is about images like those of the training set (notebook 01).

# %% [markdown] question="3d"
# **Question 3d.** Somebody trains for 200 epochs on 20 images without augmentation. The training Dice reaches 0.99,
# validation falls from 0.90 to 0.86. What happened, and what would you do?

# %% [markdown] answer="3d"
# Overfitting: the network can memorise so few images that never change, including the annotators' mistakes. Validation
# got worse while training got better. The first remedy is more varied data: random crops, flips, rotations, changes of
# intensity, more annotated images. Then: the weights of the epoch with the best validation score (early stopping), a
# smaller network, weight decay. Note that choosing the epoch by validation makes the validation score optimistic; this
# is why the test images stay untouched.

# %% [markdown]
# ## What to remember
#
# * Compute the loss from logits; the sigmoid belongs to the prediction.
# * Minimise the loss, report the metric, and say which Dice it is, and on which images.
# * Overfit one batch before you train on all images.
# * Overfitting is a gap between known and new images; easy data can hide it from the score on new ones.
# * Validate on fixed, whole images, in evaluation mode.
#
# A pixel score of 0.9 sounds good. Whether the *nuclei* are right is another question: **04 Instances, and how to score
# them**.

# %%
record_scores(
    output,
    "03_binary_training",
    {"validation_loss": val_loss, "validation_soft_dice": soft, "validation_hard_dice": hard},
)
plt.close("all")
