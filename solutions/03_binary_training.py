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
# * tell overfitting from learning, and read learning curves.
#
# **You need** notebooks 01 and 02, and an idea of gradient descent.
#
# **Time** about {{minutes}} minutes of work. Computing: in the profile `laptop` 5 to 15 minutes on a CPU, in `smoke`
# about a minute; `full`, meant for a GPU, has not been measured yet.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, RandomSampler

from course_utils import NucleiDataset, UNet, binary_target, get_profile, load_data, plotting, predict
from course_utils.arguments import check_arguments, check_logits  # used by the course's own functions, not by yours
from course_utils.checkpoints import save_model
from course_utils.dataset import training_loader, validation_loader
from course_utils.device import choose_device, describe_device, prepare_model
from course_utils.display import LiveFigure, progress, show
from course_utils.exercises import check
from course_utils.exercises.claims import claim
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


extreme = [-10_000, -200, -50, 0, 16, 17, 50, 200, 10_000]
textbook = {logit: value_and_gradient(textbook_cross_entropy, logit, target=0) for logit in extreme}
print(pd.DataFrame(textbook, index=["loss", "gradient"]).T.rename_axis("logit, target 0").to_string())
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
# The function you need is called *softplus*: $\mathrm{softplus}(x) = \log(1 + e^x)$. It is imported above.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Both logarithms can be written with it, and $\mathrm{softplus}(-x) = \mathrm{softplus}(x) - x$. Insert, and most terms
# cancel.
#
# </details>
# <details><summary>Hint 3</summary>
#
# What is left is one softplus minus one product. Do not forget the mean. Compare the shapes first: broadcasting would
# hide a mistake.
#
# </details>

# %% exercise="3.1"
from course_utils import binary_cross_entropy

# %% check="3.1"

# %%
stable = {logit: value_and_gradient(binary_cross_entropy, logit, target=0) for logit in extreme}
print(pd.DataFrame(stable, index=["loss", "gradient"]).T.rename_axis("logit, target 0").to_string())
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
# Where prediction and target are both empty, the denominator is 0. `torch.where` can put a 1 there: it takes each
# element from one of two tensors. The 0/0 in the other tensor does no harm, because a score needs no gradient.
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
guess = 0.99  # your guess, from 0 to 1

val_loader = validation_loader(val_images, val_masks, binary_target)
hazy = [(torch.where(target > 0, 1e4, np.log(0.03 / 0.97)), target) for _, target in val_loader]
hazy_soft = np.mean([dice_score(logits, target) for logits, target in hazy])
hazy_hard = np.mean([hard_dice_score(logits, target) for logits, target in hazy])
print(f"you guessed {guess:.3f}; soft Dice {hazy_soft:.3f}, hard Dice {hazy_hard:.3f}")
claim(hazy_soft < 0.9 and hazy_hard == 1, "A haze of 0.03 on the background alone costs the soft Dice more than 0.1.")

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
# heart**. If it cannot, the loop is wrong (gradients not reset, image and mask that do not belong together, an extra
# activation), and no amount of data will help.

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

# %%
figure, axes = plotting.grid(1, 2, width=4.2, height=2.8)
axes[0, 0].plot([loss for loss, _ in memorised])
axes[0, 0].set(xlabel="step", ylabel="loss", yscale="log")
axes[0, 1].plot([dice for _, dice in memorised], color=plotting.ORANGE)
axes[0, 1].set(xlabel="step", ylabel="soft Dice", ylim=(0, 1))
show(
    figure,
    "Overfitting on purpose: loss and Dice of one batch of two crops, shown a hundred times.",
)
(first_loss, first_dice), (last_loss, last_dice) = memorised[0], memorised[-1]
print(f"loss {first_loss:.3f} -> {last_loss:.3f}, soft Dice {first_dice:.3f} -> {last_dice:.3f}")
claim(last_loss < 0.3 * first_loss, "The loss fell to less than a third.")
claim(last_dice > first_dice + 0.2, "The Dice score rose.")

# %% [markdown]
# The loss falls to less than a third and the Dice score rises: the loop can learn. This says nothing about new images;
# validation does.
#
# **Break it**: a sigmoid at the end of the network, in front of a loss that expects logits. There is no error message.
# Does this test notice?

# %%
_, broken = learn(crops[:2], nn.Sequential(UNet(1, 1, base_channels=8, batch_norm=True), nn.Sigmoid()))
print(f"loss {broken[0][0]:.3f} -> {broken[-1][0]:.3f}, without the extra sigmoid {last_loss:.3f}")
claim(broken[-1][0] > 0.31 and broken[-1][0] > 3 * last_loss, "The loss stays above 0.31, over three times as high.")

# %% [markdown]
# It does: two crops, and the loss stops far above zero. The outputs lie between 0 and 1 now; taken for logits, they
# stand for probabilities between 0.5 and 0.73, and no training can make that certain: even a perfect network pays 0.31
# for each pixel of a nucleus and 0.69 for each pixel of the background.
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
rows = {}
for n in (2, 8, len(crops)):
    pupil, _ = learn(crops[:n])
    known = validate(pupil, DataLoader(crops[:n], batch_size=2), binary_cross_entropy, hard_dice_score)
    new = validate(pupil, val_loader, binary_cross_entropy, hard_dice_score)
    rows[n] = [known[0], new[0], new[0] / known[0], known[1], new[1], known[1] - new[1]]
columns = ["loss, known", "loss, new", "ratio", "hard Dice, known", "hard Dice, new", "difference"]
compared = pd.DataFrame(rows, index=columns).T.rename_axis("crops")
print(compared.round(3).to_string())

# %%
figure, axes = plotting.grid(1, 2, width=4.2, height=2.8)
for panel, name in zip(axes[0], ["loss", "hard Dice"]):
    panel.plot(compared.index, compared[f"{name}, known"], "--o", label="crops it was trained on")
    panel.plot(compared.index, compared[f"{name}, new"], "-s", label="new images (validation)")
    panel.set(xlabel="crops to learn from", ylabel=name, xscale="log", xticks=compared.index)
    panel.set_xticks(compared.index, compared.index, minor=False)
axes[0, 0].legend(frameon=False)
show(figure, "Loss and hard Dice after a hundred steps on 2, 8 and all crops, for known crops and for new images.")

few, many = compared.loc[2], compared.loc[len(crops)]
claim(few["ratio"] > 1.25 and few["difference"] > 0.02, "After two crops, new images are clearly worse than known.")
claim(many["ratio"] < 1.25 and many["difference"] < 0.03, "After all crops, they are about as good.")
claim(few["loss, known"] < many["loss, known"], "On known crops, the network that saw two has the lower loss.")

# %% [markdown]
# **Overfitting is the gap** between known and new images, not a low score. It is wide after two crops, and nearly gone
# after all, although (or rather because) that network is worse on its own crops: in a hundred steps it has seen each of
# them a few times at most, and could not learn any by heart.
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
# faster that way, elsewhere in float32. The learning rate falls along a cosine, so that training settles in the last
# epochs.

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
history = []

# %%
curves = LiveFigure()
for epoch in range(1, settings.binary_epochs + 1):
    start = time.perf_counter()
    batches = progress(train_loader, f"epoch {epoch}")
    train_loss, train_dice = train_epoch(model, batches, binary_cross_entropy, optimizer, dice_score)
    val_loss, val_dice = validate(model, val_loader, binary_cross_entropy, dice_score)
    schedule.step()
    snapshots.append(predict(model, val_images[watched])[0])
    history.append(
        EpochResult(epoch, train_loss, train_dice, val_loss, val_dice, time.perf_counter() - start)
    )
    figure = plotting.plot_training(history, "soft Dice", settings.binary_epochs)
    curves.update(
        figure,
        "Loss and soft Dice after each epoch, for training crops (dashed) and whole validation"
        " images (solid).",
    )
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

# %%
shown = sorted({0, *np.linspace(1, settings.binary_epochs, 5).astype(int).tolist()})  # six at most
figure, axes = plotting.grid(1, len(shown) + 2, width=1.7)
plotting.draw_image(axes[0, 0], val_images[watched], "image")
for panel, epoch in zip(axes[0, 1:], shown):
    plotting.draw_probability(panel, snapshots[epoch], f"epoch {epoch}")
plotting.draw_probability(axes[0, -1], (val_masks[watched] > 0).astype(float), "truth")
show(
    figure,
    "The probability of foreground for one validation image before training (epoch 0) and "
    "after some of the epochs.",
)

certainty = [2 * np.mean(np.abs(snapshot - 0.5)) for snapshot in snapshots]
print("certainty, from 0 (p = 0.5 everywhere) to 1:", *(f"{value:.2f}" for value in certainty))
claim(certainty[0] < 0.5 < certainty[1] < certainty[-1], "The map becomes more certain.")

# %% [markdown]
# Before training the map says nothing. The first epoch brings the nuclei out; later ones make the map more certain.
# Look at the edges, at dim nuclei and at the narrow gaps between neighbours: few pixels change there, and a pixel score
# hardly notices them, but notebook 04 depends on them.

# %%
val_loss, soft = validate(model, val_loader, binary_cross_entropy, dice_score)
_, hard = validate(model, val_loader, binary_cross_entropy, hard_dice_score)
print(f"validation: loss {val_loss:.4f}, soft Dice {soft:.3f}, hard Dice {hard:.3f}")
claim(hard > 0.8, "The hard Dice is above 0.8.")
claim(hard > few["hard Dice, new"], "The hard Dice is higher than after two crops.")
claim(val_loss < few["loss, new"], "The loss is lower than after two crops.")
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
