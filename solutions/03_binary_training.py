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
# * read learning curves, and say what they do not show.
#
# **You need** notebooks 01 and 02, and an idea of gradient descent.
#
# **Time** about 100 minutes of work. Computing: in the profile `laptop` 5 to 15 minutes on a CPU, in `smoke` under a
# minute; `full`, meant for a GPU, has not been measured yet.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import softplus

from course_utils import NucleiDataset, UNet, binary_target, get_profile, load_data, plotting, predict
from course_utils.arguments import check_arguments, check_logits
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


extreme = [-10_000, -200, -50, 0, 50, 200, 10_000]
textbook = {logit: value_and_gradient(textbook_cross_entropy, logit, target=0) for logit in extreme}
print(pd.DataFrame(textbook, index=["loss", "gradient"]).T.rename_axis("logit, target 0").to_string())
assert not np.isfinite(list(textbook.values())).all()

# %% [markdown]
# From a logit of 17 on (the table shows 50), `1 - p` rounds to zero and the loss is infinite. At -200 the prediction is
# perfectly *right*, yet the result is not a number: `p` is 0, and `0 * log(0)` is undefined. One such pixel ruins all
# weights in the next step.
#
# ### Exercise 3.1: A cross entropy that survives large logits
#
# {{difficulty}}
#
# Write `binary_cross_entropy(logits, target)`. It returns the mean over all elements as a scalar tensor. Loss and
# gradients must be finite for logits of $\pm 10^4$. Do not call torch's own binary cross entropy. If the two shapes
# differ, raise a `ValueError`.
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
claim(1 - foreground > 0.5, "Predicting only background is right on more than half of the pixels.")

# %% [markdown]
# It is right on more than half of the pixels, usually far more, and has found nothing. A better score looks at the
# foreground only. The **Dice score** compares the overlap of two masks with their sizes:
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
# below 1 because the network is unsure. The soft Dice is smooth and shows small changes during training. The hard Dice
# says how good the mask is that you will use. Report the hard one, and never call either of them accuracy.

# %% [markdown] question="3b"
# **Question 3b.** How does the small share of foreground affect the cross entropy? What would you see if it were 1 %?

# %% [markdown] answer="3b"
# Cross entropy is a mean over pixels, so the background, the majority, dominates it. The quickest way to a low loss is
# to predict the share of foreground everywhere: early in training the map is uniformly dark, the loss falls, and the
# Dice score stays near zero. With 1 % foreground this plateau already has a loss of 0.056, and errors on nuclei hardly
# add to it. Remedies: give foreground pixels more weight, sample crops that contain nuclei, or use a loss built on the
# Dice score, which does not depend on the amount of background.

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
crop = min(128, settings.crop_size)
covered = [np.mean(mask > 0) for mask in train_masks]
a, b = np.argsort(covered)[-2:]  # two images with plenty of nuclei
crops = NucleiDataset(
    [train_images[a], train_images[b]], [train_masks[a], train_masks[b]], binary_target, crop
)
batch = next(iter(training_loader(crops, batch_size=2, crops_per_epoch=2)))
pupil = prepare_model(UNet(1, 1, base_channels=8, batch_norm=True))
optimizer = torch.optim.AdamW(pupil.parameters(), lr=1e-2)
memorised = [
    train_epoch(pupil, [batch], binary_cross_entropy, optimizer, dice_score) for _ in range(100)
]

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
val_loader = validation_loader(val_images, val_masks, binary_target)
before = {name: value.clone() for name, value in pupil.state_dict().items()}
loss, dice = validate(pupil, val_loader, binary_cross_entropy, dice_score)
_, hard_dice = validate(pupil, val_loader, binary_cross_entropy, hard_dice_score)
unchanged = all(torch.equal(value, before[name]) for name, value in pupil.state_dict().items())
print(f"the network that learnt two crops by heart, on new images: soft Dice {dice:.3f}, hard Dice {hard_dice:.3f}")
print(f"weights and buffers unchanged: {unchanged}, still in training mode: {pupil.training}")
assert unchanged and pupil.training

# %% [markdown]
# The validation images are **whole images, padded, always the same**. Random crops would give a different score each
# time, and you could not tell progress from luck.

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
# * Dice and loss need not agree: the loss still falls as correct pixels become more certain, even when no decision
#   changes any more.

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

# %% [markdown]
# Before training the map says nothing. After the first epoch nearly everything is there; later epochs make the map more
# certain and improve edges, dim nuclei and the narrow gaps between nuclei. A pixel score hardly rewards this, but
# notebook 04 depends on it.

# %%
val_loss, soft = validate(model, val_loader, binary_cross_entropy, dice_score)
_, hard = validate(model, val_loader, binary_cross_entropy, hard_dice_score)
print(f"validation: loss {val_loss:.4f}, soft Dice {soft:.3f}, hard Dice {hard:.3f}")
claim(hard > 0.8, "The hard Dice is above 0.8.")
claim(hard > hard_dice, "It is higher than that of the network that learnt two crops by heart.")

# %% [markdown]
# This is the number to report: the **hard Dice on whole validation images**. Compare it with that of the network that
# learnt two crops by heart. Their soft Dice may be similar: it also punishes a network for being unsure, and the one
# that learnt by heart is always sure.

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
# * Minimise the loss, report the metric, and say which Dice it is.
# * Overfit one batch before you train on all images.
# * Validate on fixed, whole images, in evaluation mode.
#
# A pixel score of 0.9 sounds good. Whether the *nuclei* are right is another question: **04 Instances and how to score
# them**.

# %%
record_scores(
    output,
    "03_binary_training",
    {"validation_loss": val_loss, "validation_soft_dice": soft, "validation_hard_dice": hard},
)
plt.close("all")
