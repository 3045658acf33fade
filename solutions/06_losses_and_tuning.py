# %% [markdown]
# # 06 Losses and tuning
#
# The boundary between two touching nuclei is a few pixels wide, and those few pixels decide whether one nucleus is
# counted or two. Can a better loss find more of them? Everybody has an opinion about that. This notebook compares: one
# change at a time, at one budget, and with an interval for every difference.
#
# **After this notebook you can**
#
# * say why a thin class has little weight in a cross entropy, and write two remedies: class weights and the Dice loss;
# * compare losses fairly, and call one "better" only when that is shown;
# * say how far a threshold that was tuned on test images fools you.
#
# **You need** notebooks 01 to 05.
#
# **Time** about {{minutes}} minutes of work. Computing: six short trainings, which take less than half a minute on two
# CPU cores in the profile `smoke`, and a few minutes in `laptop`. On a GPU (`full`) it has not been measured yet.

# %%
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from skimage.measure import profile_line
from torch.nn.functional import cross_entropy, one_hot, pad

from course_utils import UNet, boundary_target, f1_score, get_profile, load_data, plotting, predict, split_train_val
from course_utils.arguments import as_list, check_arguments, check_class_logits, check_targets  # for the solutions
from course_utils.dataset import training_loader, validation_loader
from course_utils.device import choose_device, prepare_model
from course_utils.display import show
from course_utils.exercises import check
from course_utils.exercises.claims import claim
from course_utils.exercises.guesses import ask, compare
from course_utils.losses import hard_dice_score
from course_utils.metrics import classify_errors
from course_utils.networks import boundary_dataset, boundary_model, normalized_arrays
from course_utils.results import record_scores, score_images
from course_utils.segmentation import find_best_threshold, remove_small, watershed_instances, watershed_without_rim
from course_utils.training import fit

plotting.use_course_style()

# %% tags=["parameters"]
data_source = "embedded"  # or "dsb2018" (a download), "kaggle", "auto", a folder, a zip
profile = "auto"
seed = 0
output = "output"

# %%
settings = get_profile(profile)
data = load_data(data_source)
print(data)
train, val = split_train_val(data.train, settings.validation_every)
classes = ["background", "interior", "boundary"]
targets = [boundary_target(sample.mask).byte() for sample in train]  # int64 would take eight times the memory
counts = sum(torch.bincount(target.flatten(), minlength=3) for target in targets)
share = (counts / counts.sum()).tolist()
print("share of the pixels:", ", ".join(f"{name} {part:.1%}" for name, part in zip(classes, share)))
claim(share[2] < 0.05, "Fewer than 5 % of the pixels are boundary.")

# %% [markdown]
# ## What is a thin class worth?
#
# The cross entropy is a mean over *pixels*. Take a real target and three predictions, each 96 % sure of one class in
# every pixel: *all background*; *no boundary*, where boundary pixels are called interior and all else is right; and
# *right*. The pictures show the part of a training image with the most boundary.

# %%
sample = max(range(len(train)), key=lambda index: (targets[index] == 2).float().mean())
target = targets[sample].long()
predictions = {
    "all background": torch.zeros_like(target),
    "no boundary": target.clamp(max=1),
    "right": target,
}


def sure_logits(predicted):
    """Logits (1, 3, H, W) whose softmax is 0.96 for the predicted class and 0.02 for the two others."""
    return torch.log(0.02 + 0.94 * one_hot(predicted, 3).movedim(-1, 0)[None].float())


# %% tags=["fold"]
side = min(64, *target.shape)
steps = [range(0, size - side + 1, 16) for size in target.shape]
windows = [np.s_[top : top + side, left : left + side] for top in steps[0] for left in steps[1]]
crowd = max(windows, key=lambda window: int((target[window] == 2).sum()))
figure, axes = plotting.grid(2, 2, width=3.4)
plotting.draw_image(axes[0, 0], train[sample].image[crowd], "image")
for panel, (name, predicted) in zip(axes.flat[1:], predictions.items()):
    plotting.draw_classes(panel, predicted[crowd], name, legend=True)
show(figure, "Part of a training image and three predictions: all background, no boundary, and the right classes.")

# %% [markdown]
# *No boundary* is useless for a watershed: nuclei that touch are one region again. But is it far from *right* in the
# eyes of the loss? **Predict, then run**:

# %%
question = "On the way from the loss of 'all background' to that of 'right', how far has 'no boundary' come?"
ask("06 way", question + " For the cross entropy, in %:", 0, 100, unit="%")


# %%
def way_without_boundary(loss_fn):
    """The loss of the three predictions, and how far from the first to the last the second has come."""
    first, second, last = (loss_fn(sure_logits(one), target[None]).item() for one in predictions.values())
    return [first, second, last, (first - second) / (first - last)]


ways = {"cross entropy": way_without_boundary(cross_entropy)}
compare("06 way", round(100 * ways["cross entropy"][-1]), "The boundary is worth only the rest.")
claim(ways["cross entropy"][-1] > 0.6, "Without any boundary most of the way is done.")

# %% [markdown]
# A cross entropy pays for pixels, and interior and background have nearly all of them. So a network learns these two
# first. Two remedies are common: a loss in which every *class* counts the same, and weights.
#
# ### Exercise 6.1: The Dice loss of several classes
#
# {{difficulty}}
#
# Write `multiclass_dice_loss(logits, target)` for logits `(N, C, H, W)` and an integer target `(N, H, W)`. It is one
# minus the mean of the Dice over the classes 1, 2, ... of the softmax; the background, class 0, does not count. For
# each class
#
# $$ Dice = \frac{2 \sum p\,t}{\sum p + \sum t} $$
#
# with `p` the probability and `t` 1 where the target is this class, 0 elsewhere. There are **no squares** in the
# denominator. Sums over the whole batch and sums over each image are both right. The result is a scalar tensor from 0
# to 1 with a finite gradient, also where a class is neither there nor predicted.

# %% [markdown] expected="6.1"
# Expected: with equal probabilities, 1/3 each, one minus the mean of 2 · (2/3) / (4/3 + 2) and
# 2 · (1/3) / (4/3 + 1).
#
# ```python expected
# target = torch.tensor([[[0, 1], [1, 2]]])
# print(round(multiclass_dice_loss(torch.zeros(1, 3, 2, 2), target).item(), 4))
# ```
#
# <details><summary>Hint 1</summary>
#
# You need two arrays of the same shape: the probabilities `(N, C, H, W)`, and the target as ones and zeros in that
# shape.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `torch.nn.functional.one_hot` puts the classes *last*. `movedim` moves an axis; `reshape` would mix up the pixels.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Sum over all axes but that of the classes; drop class 0; then divide, and average. A class that is neither there nor
# predicted gives 0/0: there its Dice is 1. (A softmax is hardly ever exactly 0, but it happens for large logits.)
#
# </details>

# %% exercise="6.1"
from course_utils import multiclass_dice_loss

# %% check="6.1"

# %%
ways["Dice loss"] = way_without_boundary(multiclass_dice_loss)
print("How far 'no boundary' has come:", ", ".join(f"{name} {way[-1]:.0%}" for name, way in ways.items()))
claim(ways["Dice loss"][-1] < ways["cross entropy"][-1] - 0.1, "For the Dice loss the boundary is worth more.")
claim(abs(ways["Dice loss"][-1] - 0.5) < 0.1, "Without any boundary about half of the way is done.")

# %% [markdown]
# The Dice loss averages over *classes*: a network that finds all of the interior and nothing of the boundary has come
# about half of the way, however thin the boundary is.
#
# ### What squares in the denominator change
#
# Libraries disagree: the first Dice loss for volumes (V-Net, 2016) had $\sum p^2 + \sum t^2$ below, nnU-Net has
# $\sum p + \sum t$; torch-em has the squares, MONAI offers both. Suppose that of some pixels nobody can tell which are
# boundary: 30 % of them are. An honest network says 0.3 for each. What does the loss ask for?

# %% tags=["nbval-check-output"]
p, t = np.linspace(0.01, 1, 100), 0.3
one_for_all = {
    "cross entropy": -t * np.log(p) - (1 - t) * np.log(1.000001 - p),
    "Dice loss": 1 - 2 * p * t / (p + t),
    "Dice loss with squares": 1 - 2 * p * t / (p**2 + t),
}
asked_for = {name: round(float(p[np.argmin(loss)]), 2) for name, loss in one_for_all.items()}
print(asked_for)
assert list(asked_for.values()) == [0.3, 1.0, 0.55]

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=6, height=3.6)
for (name, loss), style in zip(one_for_all.items(), ("-", "--", ":")):
    [line] = axes[0, 0].plot(p, (loss - loss.min()) / (loss[0] - loss.min()), style, linewidth=2, label=name)
    axes[0, 0].plot(asked_for[name], 0, "o", color=line.get_color(), markersize=9, clip_on=False)
axes[0, 0].set(xlabel="probability given to each of these pixels", ylabel="loss, scaled", ylim=(0, 1))
axes[0, 0].legend(frameon=False, loc="upper right", bbox_to_anchor=(0.8, 1))
show(
    figure,
    "Three losses of one probability for all pixels, of which 30 % are boundary; each is scaled to 0 at its lowest "
    "point (the dots). The cross entropy is lowest at 0.3, the Dice loss at 1, the Dice loss with squares at 0.55.",
)

# %% [markdown]
# The cross entropy asks for the share, 0.3. The Dice loss asks for 1: wherever boundary is not unlikely, it is best to
# be sure of it. With squares it asks for $\sqrt{0.3}$, something between. So a network that was trained with Dice alone
# decides, but its numbers are no probabilities, and the two kinds of Dice are different losses: say which one you used.
#
# ### Exercise 6.2: Weights for unequal classes
#
# {{difficulty}}
#
# Write `class_weights(targets, n_classes=3)` for a list of integer targets of any shapes. It returns a float32 tensor
# `(n_classes,)`: the inverse of the frequency of each class over all pixels of all targets, scaled such that the mean
# of the weights is 1. A class without any pixel must not make a weight infinite.

# %% [markdown] expected="6.2"
# Expected: six, three and one pixels, so weights as 1/6 : 1/3 : 1.
#
# ```python expected
# print(class_weights([torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([[0, 0], [1, 2]])]))
# ```
#
# <details><summary>Hint 1</summary>
#
# Count first, over all targets; a mean of the weights of single targets is something else. `torch.bincount` counts in
# flat tensors, and its `minlength` makes room for classes that are absent.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The inverse of 0 is infinite. Replace it, or the count, before you scale: any finite weight will do for a class that
# no pixel has.
#
# </details>

# %% exercise="6.2"
from course_utils import class_weights

# %% check="6.2"

# %%
weights = class_weights([target.long() for target in targets])
print("weights:", ", ".join(f"{name} {weight:.2f}" for name, weight in zip(classes, weights.tolist())))


def weighted_loss(logits, target):
    return cross_entropy(logits, target, weight=weights.to(logits.device))


def combined_loss(logits, target):
    return cross_entropy(logits, target) + multiclass_dice_loss(logits, target)


# %% [markdown]
# A network learns from the *gradient*. At the start it knows nothing, and all logits are 0. What share of the gradient
# comes from the pixels of each class?

# %%
shares = {"pixels": share}
losses = {"cross entropy": cross_entropy, "weighted": weighted_loss, "Dice": multiclass_dice_loss}
losses |= {"cross entropy + Dice": combined_loss}
for name, loss_fn in losses.items():
    pulls = torch.zeros(3)
    for one in (target.long() for target in targets[::8]):
        logits = torch.zeros(1, 3, *one.shape, requires_grad=True)
        loss_fn(logits, one[None]).backward()
        pull = logits.grad.abs().sum(dim=1)[0]
        pulls += torch.stack([pull[one == class_].sum() for class_ in range(3)])
    shares[name] = (pulls / pulls.sum()).tolist()
shares = pd.DataFrame(shares, index=classes).T
on_boundary = shares["boundary"]
claim(on_boundary["cross entropy"] < 0.06, "Boundary has about as little of the gradient as of the pixels.")
claim(on_boundary["weighted"] > 0.25, "With the weights it has a quarter or more.")
claim(on_boundary["Dice"] > 3 * on_boundary["cross entropy"], "With Dice it has several times more.")
shares.style.format("{:.1%}")

# %% [markdown]
# So far this is an *argument* for weights and for Dice. It says what happens in the first step. Whether the trained
# network segments better is another question, and only a comparison answers it.

# %% [markdown] question="6a"
# **Question 6a.** A network with perfect knowledge is trained with the weighted cross entropy. Is what it says a
# probability? (Remember the reliability curve of notebook 05.)

# %% [markdown] answer="6a"
# No. The weighted cross entropy is lowest where the odds of each class are multiplied by its weight: it is the cross
# entropy of a world in which boundary is that much more frequent. The weight of boundary here is about 40 times that of
# background, so a pixel that is boundary in 3 of 100 cases is called boundary with more than 50 %. In notebook 05 a
# weight of 3 (`BOUNDARY_WEIGHT`) already made the mask too large, and was taken out of the probabilities after training
# (`without_boundary_weight`). The same can be done here: divide each probability by the weight of its class, and scale
# to a sum of 1.

# %% [markdown]
# ## One budget, one seed, one change
#
# An **ablation** changes one thing at a time. Six networks, which differ in the loss, or in the seed, and in nothing
# else: the same first weights, the same crops in the same order, the same number of steps. (Six short trainings, with
# crops of half the side and twice as many in a batch as in notebook 05, so that a step is quick.)
#
# * **cross entropy**: the baseline, to which all others are compared;
# * **weighted**: by inverse frequency, exercise 6.2; and once more with the **weights taken out** of its probabilities
#   after training (question 6a), which costs no training;
# * **Dice**: exercise 6.1 alone. It says nothing about the background, and is nearly flat where a network calls
#   everything nucleus; in a training this short it may stay there;
# * **cross entropy + Dice**: their sum, without background in the Dice, as in the defaults of nnU-Net;
# * **background included**: the same, but Dice averages over all three classes. The background is soon nearly right, so
#   a third of the mean has little to gain. Does that break it?
# * **another seed**: the baseline again, with another seed. Nothing but chance is different.


# %%
def background_included(logits, target):
    # with an impossible class in front, the background is class 1 and counts
    shifted = pad(logits, (0, 0, 0, 0, 1, 0), value=-1e4)
    return cross_entropy(logits, target) + multiclass_dice_loss(shifted, target + 1)


def boundary_dice(logits, target):
    """Hard Dice of the boundary class: a metric that does not depend on the loss."""
    return hard_dice_score(torch.softmax(logits, dim=1)[:, 2:] - 0.5, (target == 2).float()[:, None])


runs = {
    "cross entropy": (cross_entropy, seed),
    "weighted": (weighted_loss, seed),
    "Dice": (multiclass_dice_loss, seed),
    "cross entropy + Dice": (combined_loss, seed),
    "background included": (background_included, seed),
    "another seed": (cross_entropy, seed + 1),
}
n_epochs = settings.loss_epochs

# %% [markdown]
# All are scored on windows of at most 256 x 256 pixels, the upper left part of each image, which is quicker for large
# images. The threshold of the seeds is chosen for each network on the validation images.


# %%
def cut_windows(samples):
    images, masks = normalized_arrays(samples)
    return [image[:256, :256].copy() for image in images], [mask[:256, :256] for mask in masks]  # not the large images


val_windows, test_windows = cut_windows(val), cut_windows(data.test)
crop_size, batch_size = settings.crop_size // 2, 2 * settings.batch_size
few = [[part[:128, :128] for part in parts[::4]] for parts in val_windows]  # for the curves


def train_with(dataset, loss_fn, run_seed):
    torch.manual_seed(run_seed)  # decides first weights and crops
    network = UNet(1, 3, settings.base_channels, settings.depth, instance_norm=True).to(choose_device())
    curve = fit(
        network,
        training_loader(dataset, batch_size, settings.crops_per_epoch, settings.workers),
        validation_loader(*few, boundary_target, multiple=2**settings.depth),
        loss_fn,
        epochs=n_epochs,
        learning_rate=2 * settings.learning_rate,
        metric=boundary_dice,
    )
    return prepare_model(network), curve


# %%
question = "Six rows are compared with 'cross entropy': weighted, weights taken out, Dice, cross entropy + Dice, "
question += "background included, another seed. How many of them are shown to be better at an IoU threshold of 0.5?"
ask("06 better", question, options=[*"0123456"])

# %%
dataset = boundary_dataset(train, crop_size, seed)
trained = {name: train_with(dataset, *run) for name, run in runs.items()}
del dataset  # all training images as float32: memory that is not needed any more
n_steps = n_epochs * -(-settings.crops_per_epoch // batch_size)
print(f"{len(runs)} networks, {n_steps} steps each, {batch_size} crops of {crop_size} pixels in a step")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=7, height=3.8)
for (name, (_, curve)), style in zip(trained.items(), 3 * ("-o", "--s", ":^", "-.D", "--P", "-v")):
    epochs = [result.epoch for result in curve]
    axes[0, 0].plot(epochs, [result.validation_metric for result in curve], style, label=name)
axes[0, 0].set(xlabel="epoch", ylabel="Dice of the boundary", ylim=(0, 1), xticks=epochs)
axes[0, 0].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
show(figure, "Hard Dice of the boundary class on parts of validation images, after each epoch, for the six trainings.")


# %%
def without_weights(prediction):
    """Take the class weights out of probabilities (3, H, W): divide, and scale to a sum of 1."""
    odds = prediction / weights.numpy()[:, None, None]
    return odds / odds.sum(axis=0)


def predict_row(name, image):
    """Interior and boundary (2, H, W), as a row of the table predicts them; the background is the rest."""
    taken_out = name == "weights taken out"
    network, _ = trained["weighted" if taken_out else name]
    prediction = predict(network, image)
    return (without_weights(prediction) if taken_out else prediction)[1:].copy()


names = list(trained)
names.insert(names.index("weighted") + 1, "weights taken out")
predicted = {name: [predict_row(name, image) for image in val_windows[0]] for name in names}

# %% [markdown]
# A curve near 0 says that boundary is hardly anywhere the most probable class, not that nothing was learned: the
# watershed only needs a ridge. So look before you count. The crop below is from a validation image, with two nuclei
# that touch; the colour is the probability of boundary, the lines are the instances. Beside the rows stands the network
# of notebook 05, which was trained far longer (the pretrained one in the profiles `smoke` and `laptop`), and the pair
# is one that it separates, if there is any. Where is there a ridge between the two?

# %%
val_images, val_masks = val_windows
model = boundary_model(data, settings, seed, output)
by_05 = [predict(model, image)[:, :256, :256].copy() for image in normalized_arrays(val)[0]]
separated = []
for mask, p in zip(val_masks, by_05):
    separated.append(set(classify_errors(watershed_instances(p[1], p[2]), mask).matched.values()))

# %%
contacts = []
typical = np.median(np.concatenate([np.unique(mask, return_counts=True)[1][1:] for mask in val_masks]))
for index, mask in enumerate(val_masks):
    areas = dict(zip(*np.unique(mask, return_counts=True)))
    beside = [(mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])]
    touching = [(a[edge], b[edge]) for a, b in beside for edge in [(a != b) & (a > 0) & (b > 0)]]
    meeting = np.concatenate([np.stack(pair, axis=1) for pair in touching])
    for (one, other), length in zip(*np.unique(np.sort(meeting, axis=1), axis=0, return_counts=True)):
        rows, columns = np.nonzero((mask == one) | (mask == other))
        extent = max(np.ptp(rows), np.ptp(columns)) + 13
        if 0.5 * typical < min(areas[one], areas[other]) and max(areas[one], areas[other]) < 2 * typical:
            cut = 0 in (*rows, *columns) or rows.max() + 1 == mask.shape[0] or columns.max() + 1 == mask.shape[1]
            first = {one, other} <= separated[index] and not cut
            contacts.append((first, length, index, int(one), int(other), rows.min() - 6, columns.min() - 6, extent))
print(f"{len(contacts)} pairs of touching nuclei of a typical size in the validation windows")

# %%
if contacts:
    _, _, shown, one, other, top, left, extent = max(contacts)
else:  # no nuclei touch: any part of the first image
    shown, one, other, top, left, extent = 0, 0, 0, 0, 0, 64
top, left = max(top, 0), max(left, 0)
crop = np.s_[top : top + extent, left : left + extent]
thresholds = [0.1, 0.3, 0.5, 0.7, 0.9]
best = {}
for name, on_val in predicted.items():
    best[name], _ = find_best_threshold([p[0] for p in on_val], [p[1] for p in on_val], val_masks, thresholds)
trained_long = by_05[shown]

# %% tags=["fold"]
maps = {"notebook 05": (trained_long[1:], 0.5)} | {name: (predicted[name][shown], best[name]) for name in predicted}
figure, axes = plotting.grid(len(maps) // 3 + 1, 3, width=3.2)
plotting.draw_image(axes[0, 0], val_images[shown][crop], "image")
plotting.draw_edges(axes[0, 0], val_masks[shown][crop])
for panel, (name, (p, threshold)) in zip(axes.flat[1:], maps.items()):
    plotting.draw_probability(panel, p[1][crop], name)
    plotting.draw_edges(panel, watershed_instances(*p, threshold)[crop], "white")
for panel in axes.flat[len(maps) + 1 :]:
    panel.axis("off")
show(
    figure,
    "Two touching nuclei of a validation image (lines: the truth), and for the network of notebook 05 and each row the "
    "probability of boundary, from dark blue (0) to yellow (1), with the instances of the watershed as white lines.",
)

# %%
val_targets = [boundary_target(mask).numpy() for mask in val_masks]
n_nucleus, n_boundary = (sum(np.count_nonzero(target >= c) for target in val_targets) for c in (1, 2))
sizes = {}
for name, on_val in predicted.items():
    given = sum(p[1][target == 2].sum() for p, target in zip(on_val, val_targets)) / n_boundary
    spread = sum(p[1].sum() for p in on_val) / n_boundary
    mask = sum(np.count_nonzero(p[0] + p[1] > 0.5) for p in on_val) / n_nucleus
    sizes[name] = {"where it is boundary": given, "sum / boundary": spread, "mask / nuclei": mask}
sizes = pd.DataFrame(sizes).T
weighted, plain, out = (sizes.loc[name] for name in ("weighted", "cross entropy", "weights taken out"))
claim(weighted.iloc[0] > plain.iloc[0], "On boundary pixels weights raise the probability of boundary.")
claim(weighted.iloc[1] > 2, "But the weighted network predicts more than twice as much boundary as there is.")
claim(weighted.iloc[2] > out.iloc[2], "Taking the weights out makes its mask smaller.")
sizes.style.format("{:.2f}")

# %% [markdown]
# The table has, over all validation windows, the mean probability of boundary on true boundary pixels; the sum of that
# probability over all pixels, divided by the number of boundary pixels; and the area of the mask (interior + boundary >
# 0.5), divided by that of the nuclei. The first should be high, the others 1. With plain cross entropy a short training
# finds little of the thin class. Weighted by inverse frequency the network finds more of it, and also far more than
# there is: boundary spreads into the background around the nuclei, and the mask grows.
#
# ## Better?
#
# On which of the test images is one network better than the other, and by how much on average? And would it be so on
# other images of this kind? Nobody has other images. The **bootstrap** takes the ones there are and draws from them,
# with replacement, again and again: where the mean difference goes from draw to draw, it might go with other images,
# too. *Paired* means that both methods are scored on the same draw, so that an image that is hard for both moves
# nothing.
#
# ### Exercise 6.3: Better, or only luck? A paired bootstrap
#
# {{difficulty}}
#
# Write `paired_bootstrap(scores, other_scores, rng, repeats=2000, level=0.95)`. The two lists hold a score for each
# image. It returns `(mean, low, high)` of `scores - other_scores` as Python floats: the mean over the images as they
# are, and the interval that holds the middle `level` of the means of `repeats` draws, each of as many images as there
# are. `rng` is a `numpy.random.Generator`. Lists that are empty or of different lengths are a `ValueError`.

# %% [markdown] expected="6.3"
# Expected: a difference that is the same on every image is sure; one that rests on a few images is not.
#
# ```python expected
# rng = np.random.default_rng(0)
# print([round(value, 2) for value in paired_bootstrap([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], rng)])
# mean, low, high = paired_bootstrap([0.9, 0.8, 0.7, 0.6], [0.4, 0.8, 0.8, 0.6], rng)
# print(round(mean, 2), "low < 0 < high:", low < 0 < high)
# ```
#
# <details><summary>Hint 1</summary>
#
# If both methods are scored on the same draw, the mean of the differences is the difference of the means. So the
# differences are all you need to draw from.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `rng.choice(values, size)` draws with replacement. With the size `(repeats, n)` it makes all draws at once; one mean
# for each row follows.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The middle 95 % lie between the quantiles 0.025 and 0.975. For any `level`: how much is left on each side?
#
# </details>

# %% exercise="6.3"
from course_utils import paired_bootstrap

# %% check="6.3"

# %%
iou_thresholds = (0.5, 0.75, 0.9)
test_images, test_masks = test_windows
f1 = {}
for name in predicted:
    found = [remove_small(watershed_instances(*predict_row(name, image), best[name]), 20) for image in test_images]
    table = score_images(found, test_masks, iou_thresholds)
    f1[name] = {t: table.loc[table["iou_threshold"] == t, "f1"].tolist() for t in iou_thresholds}


def judge(scores, other_scores):
    """Mean difference, interval, and the only word that it allows."""
    mean, low, high = paired_bootstrap(scores, other_scores, np.random.default_rng(seed))
    return mean, low, high, "better" if low > 0 else "worse" if high < 0 else "not shown"


others = [name for name in f1 if name != "cross entropy"]
verdicts = {(name, t): judge(f1[name][t], f1["cross entropy"][t]) for name in others for t in iou_thresholds}

# %%
rows = {name: {f"IoU {t:g}": np.mean(scores[t]) for t in iou_thresholds} for name, scores in f1.items()}
rows = pd.DataFrame(rows).T
for t in iou_thresholds:
    rows[f"at {t:g}"] = ["baseline" if name == "cross entropy" else verdicts[name, t][-1] for name in rows.index]
rows["threshold"] = pd.Series(best)
better = {t: [name for name, at in verdicts if at == t and verdicts[name, t][-1] == "better"] for t in iou_thresholds}
note = "; ".join(f"at {t:g}: {', '.join(names) or 'none'}" for t, names in better.items())
table = rows.style.format("{:.3f}", subset=list(rows.columns[:3])).format("{:g}", subset=["threshold"])
compare("06 better", str(len(better[0.5])), f"Better than cross entropy {note}.", table)
claim(verdicts["weighted", 0.9][1] < 0, "At IoU 0.9 weights that are left in are not shown to be better.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 3, width=3.6, height=3.6)
looks = {"better": (plotting.BLUE, "^"), "worse": (plotting.RED, "v"), "not shown": ("0.4", "o")}
names = list(f1)[:0:-1]
for panel, t in zip(axes[0], iou_thresholds):
    for place, name in enumerate(names):
        mean, low, high, word = verdicts[name, t]
        colour, marker = looks[word]
        panel.plot([low, high], [place, place], color=colour, linewidth=2.5)
        panel.plot(mean, place, marker, color=colour, markersize=9)
    panel.axvline(0, color="black", linewidth=1)
    panel.set(title=f"IoU threshold {t:g}", yticks=range(len(names)), xlabel="difference of the mean F1")
    panel.set_yticklabels(names if t == iou_thresholds[0] else [""] * len(names))
handles = [plt.Line2D([], [], color=c, marker=m, label=word) for word, (c, m) in looks.items()]
figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
show(
    figure,
    "Difference of each row to the cross entropy, on the test windows: mean and 95 % interval, at three IoU "
    "thresholds. Blue triangles up: better; red triangles down: worse; grey discs: the interval holds 0.",
)

# %% [markdown]
# How to read it:
#
# * Only a row whose whole interval is on the right of 0 is *better*; "not shown" does not mean "equal".
# * There are 18 intervals of 95 %. If none of these networks differed, about one of the 18 would miss 0 by chance.
# * **Another seed** is the same loss as the baseline. Its interval may miss 0, too: the interval says that *this
#   network* is better than *that network* on images of this kind. Whether the *loss* is better is another question: for
#   that, the difference must be larger than what a second seed makes of the same loss.

# %%
chance = {t: verdicts["another seed", t][0] for t in iou_thresholds}
beyond = {
    t: [name for name in better[t] if verdicts[name, t][0] > abs(chance[t]) and name != "another seed"]
    for t in iou_thresholds
}
for t in iou_thresholds:
    print(f"IoU {t:g}: another seed changes the mean F1 by {chance[t]:+.3f}. Better, and by more than that:")
    print("   ", ", ".join(beyond[t]) or "none")

# %% [markdown]
# One other seed is a poor measure of chance, but far better than none.
#
# **Run it again, changed.** The comparison is yours to repeat: each of these takes as long as the trainings above.
#
# * *Another seed for all rows*: change `seed` in the parameters and run all cells. Which "better" survive?
# * *A larger budget*: double `n_epochs`, below `runs`, and run from there. Do the rows come closer together?
# * *A row of your own*: add a line to `runs`, such as
#   `"half of Dice": (lambda x, t: cross_entropy(x, t) + 0.5 * multiclass_dice_loss(x, t), seed)`. Tables and figures
#   take what is in `runs`. Change one thing only, and write down every row that you tried, not the best one.
#
# For a result that can be published, train longer, and each row with several seeds. In a copy of the repository
# `python -m benchmarks.losses --real path/to/dsb2018.zip --seeds 0 1 2` does that on the real images (`--help` shows
# the other settings); `docs/results.md` has what it found.

# %%
out = judge(f1["weights taken out"][0.9], f1["weighted"][0.9])
print("weights taken out against left in, IoU 0.9: {:+.3f} ({:+.3f} to {:+.3f}), {}".format(*out))
claim(out[0] > 0, "Taking the weights out after training raises the mean F1 at IoU 0.9.")

# %% [markdown]
# It is the same network. Where outlines count, weights that are left in cost a lot: not because the network knows less,
# but because its mask is too large.

# %% [markdown] question="6b"
# **Question 6b.** A paper says: "With our new loss F1 rises from 0.912 to 0.919 on 50 images; everything else, learning
# rate and number of epochs included, was tuned for it." What would you ask?

# %% [markdown] answer="6b"
# *How large is the interval?* On 50 images a difference of 0.007 is often within what other images would change; only
# the paired interval tells. *What does another seed change?* If 0.01, then 0.007 is nothing. *Was the old loss tuned as
# well?* Otherwise two things were changed, the loss and the tuning, and the second alone may explain the gain. *On
# which images was it tuned?* If on those 50, the score is too high (see below). *How many losses were tried?* The best
# of ten is better than the baseline by luck alone.

# %% [markdown]
# ## One row of pixels
#
# What a weight does can be seen without any training: at best it multiplies the odds of boundary. Take the network of
# notebook 05, which had time to learn, and whose weight was taken out. The line runs through the two nuclei from above,
# across the place where they touch.

# %%
if contacts:
    middle = np.array([np.argwhere(val_masks[shown] == id_).mean(axis=0) for id_ in (one, other)])
else:
    middle = np.array([[20.0, 20.0], [20.0, 40.0]])
start, end = (middle.mean(axis=0) + way * (middle[1] - middle[0]) for way in (-1.2, 1.2))
along = {name: profile_line(values, start, end, order=1, mode="nearest") for name, values in
         {"background": trained_long[0], "boundary": trained_long[2]}.items()}  # fmt: skip
truth = profile_line(boundary_target(val_masks[shown]).numpy().astype(float), start, end, order=0, mode="nearest")


def mask_with(weight, background, boundary):
    return background / (1 + (weight - 1) * boundary) < 0.5  # with the weight the probabilities add up to this


def draw_row(panel, weight):
    place, scale = np.arange(len(truth)), 1 + (weight - 1) * along["boundary"]
    mask = mask_with(weight, along["background"], along["boundary"])
    area, before = (mask_with(one, trained_long[0], trained_long[2]).sum() for one in (weight, 1))
    panel.fill_between(place, 0, 1, where=truth == 2, step="mid", color="0.85", label="true boundary")
    panel.plot(place, weight * along["boundary"] / scale, color=plotting.RED, label="boundary")
    panel.plot(place[mask], np.full(mask.sum(), -0.08), "s", color=plotting.BLUE, markersize=4, label="mask")
    growth = area / max(before, 1) - 1
    panel.set(title=f"weight {weight:g}: masks {growth:+.0%}", ylim=(-0.15, 1.05), yticks=(0, 0.5, 1))
    return growth


# %% tags=["fold"]
figure, axes = plotting.grid(2, 2, width=4.6, height=2.8)
growths = [draw_row(panel, weight) for panel, weight in zip(axes.flat, (1, 3, 10, 40))]
axes[0, 0].legend(fontsize=8, frameon=False, loc="upper center")
for panel in axes[-1]:
    panel.set_xlabel("pixels along the line")
show(
    figure,
    "Probability of boundary along a line through two touching nuclei, with the odds of boundary multiplied by 1, 3, "
    "10 and 40. Grey: true boundary; squares below: the mask. With the weight the ridges get higher and wider; the "
    "titles say by how much the masks of the whole image grow.",
)
claim(growths == sorted(growths) and growths[-1] > 0.02, "The larger the weight, the larger the masks.")

# %% [markdown]
# A weight does raise the ridge between the two nuclei, which is what it is for. It also raises everything around them.
# With a running kernel, move the weight:

# %% tags=["optional"]
from ipywidgets import FloatLogSlider

from course_utils.widgets import SLIDER, redraw_on_change


def draw_weight(weight):
    figure, axes = plotting.grid(1, 1, width=7, height=3)
    growth = draw_row(axes[0, 0], round(weight, 1))
    return figure, f"With a weight of {weight:.1f} the masks grow by {growth:.0%}."


redraw_on_change(draw_weight, weight=FloatLogSlider(1, base=10, min=0, max=2, step=0.1, description="weight", **SLIDER))

# %% [markdown]
# ## How far does a test set fool you?
#
# Notebook 05 chose the threshold on validation images. What if it had been chosen on the test images, "since that gives
# the best score"? Take the network of notebook 05 again, and score ten thresholds on whole images. **These choices are
# made on test images to show what is wrong with it; nothing below uses them.**

# %%
test_truths = [sample.mask for sample in data.test]
on_test_full = [predict(model, image) for image in normalized_arrays(data.test)[0]]
candidates = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]


def score_thresholds(predictions, masks):
    """F1 of each image (rows) at each candidate (columns), IoU threshold 0.5."""
    pairs = zip(predictions, masks)
    return np.array([[f1_score(watershed_instances(p[1], p[2], t), mask) for t in candidates] for p, mask in pairs])


on_val_full = (predict(model, image) for image in normalized_arrays(val)[0])  # one after the other saves memory
val_f1 = score_thresholds(on_val_full, [sample.mask for sample in val])
test_f1 = score_thresholds(on_test_full, test_truths)
honest, fooled = val_f1.mean(axis=0).argmax(), test_f1.mean(axis=0).argmax()
for name, index in {"validation": honest, "test": fooled}.items():
    print(f"chosen on {name} images: threshold {candidates[index]}, test F1 {test_f1[:, index].mean():.3f}")

# %% [markdown]
# The second score is not the lower one: its threshold was chosen for that. How much of the gain is luck? The fewer
# images there are to choose on, the more. So draw a few of the test images as if they were all, choose the threshold on
# them, and compare: the gain over the threshold from the validation images that you would *report*, on these images,
# and what that gain is *worth* on the other test images.


# %%
def gain_of_tuning(n_images, rng):
    order = rng.permutation(len(test_f1))
    drawn, others = order[:n_images], order[n_images:]
    gain = test_f1[:, test_f1[drawn].mean(axis=0).argmax()] - test_f1[:, honest]
    return gain[drawn].mean(), gain[others].mean()


rng = np.random.default_rng(seed)
n_drawn = [n for n in (5, 10, 20) if n <= len(test_f1) / 2]
gains = {n: np.array([gain_of_tuning(n, rng) for _ in range(2000)]).T for n in n_drawn}
fooling = {n: reported.mean() - worth.mean() for n, (reported, worth) in gains.items()}
for n, (reported, worth) in gains.items():
    print(f"{n} images: reported {reported.mean():+.4f}, worth {worth.mean():+.4f}; too high by {fooling[n]:.4f}")
if fooling:
    claim(fooling[min(n_drawn)] > 0.003, "With the fewest images the score is too high by more than 0.003.")
    claim(fooling[min(n_drawn)] > fooling[max(n_drawn)], "The more images, the less it fools.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=6.5, height=3.8)
labels = ("reported, on these images", "worth, on the other ones")
for shift, style, colour, row in ((-0.12, "o", plotting.RED, 0), (0.12, "s", plotting.BLUE, 1)):
    for place, pair in enumerate(gains.values()):
        low, high = np.quantile(pair[row], [0.05, 0.95])
        axes[0, 0].plot([place + shift] * 2, [low, high], color=colour, linewidth=2.5, alpha=0.6)
        name = labels[row] if place == 0 else None
        axes[0, 0].plot(place + shift, pair[row].mean(), style, color=colour, markersize=9, label=name)
axes[0, 0].axhline(0, color="black", linewidth=1)
axes[0, 0].set(xticks=range(len(gains)), xticklabels=[f"{n} images" for n in gains])
axes[0, 0].set(xlabel="test images on which the threshold was chosen", ylabel="gain of F1")
axes[0, 0].set_xlim(-0.7, len(gains) - 0.3)
axes[0, 0].legend(frameon=False)
show(
    figure,
    "Gain over the threshold from the validation images, when the threshold is chosen on a few test images: reported "
    "on these images (discs), and on the other test images (squares). Means of 2000 draws, and the range of 9 of 10 "
    "draws. The distance of disc and square shrinks with more images.",
)

# %% [markdown]
# The distance between disc and square is how far the choice fools you: 0.006 to 0.009 with five images, on the real and
# on the synthetic images. That seems little. But there were only ten candidates, in one knob. A study that tries
# losses, epochs, seeds, augmentations and thresholds makes hundreds of such choices, and with each of them the best
# score on the test images is a little more luck. Validation images are made for that.

# %% [markdown] question="6c"
# **Question 6c.** You have 20 labelled images of your own and no more. How do you choose a threshold, and what do you
# report?

# %% [markdown] answer="6c"
# Cross-validation: split the 20 into, say, five groups of four. For each group choose the threshold (and train) on the
# other sixteen, and score the four. Every image is scored once, by a network and a threshold that have not seen it; the
# mean over the 20 is an honest score, and its bootstrap interval says how sure it is. What never works is to choose on
# all 20 and to report the score on the same 20. Images of one experiment go into the same group (notebook 01),
# otherwise the groups are not independent.

# %% [markdown]
# ## Two cut-offs under one name
#
# In an older exercise on these images, two methods were compared in two cells. Both had a variable called `threshold`.
# In the first it was the *IoU threshold* of the score, and had been left at 0.1: an overlap of a tenth was a match. In
# the second the score used 0.5. The two scores were printed below each other and compared, and the conclusion was
# wrong: one of the two had only been given the easier test. Here is the same mistake with two methods of notebook 05:
# `watershed_without_rim`, which leaves the boundary out of the mask, and `watershed_instances`.

# %%
threshold = candidates[honest]
grid = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
curves, per_image = {}, {}
for name, method in {"without the rim": watershed_without_rim, "as in exercise 5.2": watershed_instances}.items():
    table = score_images([method(p[1], p[2], threshold) for p in on_test_full], test_truths, grid)
    per_image[name] = {t: group["f1"].tolist() for t, group in table.groupby("iou_threshold")}
    curves[name] = {t: np.mean(scores) for t, scores in per_image[name].items()}
rimless, right = curves["without the rim"], curves["as in exercise 5.2"]
print(f"without the rim: F1 {rimless[0.1]:.3f}      as in exercise 5.2: F1 {right[0.5]:.3f}")
claim(rimless[0.1] > right[0.5], "Printed like this, the boundary should be left out of the mask.")

# %%
wrong = judge(per_image["without the rim"][0.1], per_image["as in exercise 5.2"][0.5])
print("0.1 against 0.5: {:+.3f} ({:+.3f} to {:+.3f}), {}".format(*wrong))
claim(wrong[-1] == "better", "At 0.1 against 0.5 even the bootstrap calls it better.")
for t in (0.5, 0.75, 0.9):
    fair = judge(per_image["without the rim"][t], per_image["as in exercise 5.2"][t])
    print("{} against {}: {:+.3f} ({:+.3f} to {:+.3f}), {}".format(t, t, *fair))
    claim(fair[-1] == "worse", f"At the same IoU threshold, {t}, it is worse.")

# %% tags=["fold"]
figure = plotting.plot_f1_curves(curves)
[panel] = figure.axes
for value, t in ((rimless[0.1], 0.1), (right[0.5], 0.5)):
    panel.plot(t, value, "o", markersize=15, markerfacecolor="none", markeredgecolor=plotting.RED, markeredgewidth=2.5)
    panel.annotate(f"{value:.3f}", (t, value), (0, -22), textcoords="offset points", ha="center", color=plotting.RED)
panel.plot([0.1, 0.5], [rimless[0.1], right[0.5]], ":", color=plotting.RED, linewidth=1.5)
show(
    figure,
    "Mean F1 of both methods against the IoU threshold, on the test images. The two circles are the scores that were "
    "compared: without the rim at 0.1, as in exercise 5.2 at 0.5. From 0.5 on, the second curve is above the first.",
)

# %% [markdown]
# At an IoU of 0.1 nearly everything that touches a nucleus counts as found. The bootstrap does not help: it even calls
# the wrong method "better", since it only asks whether the difference of two numbers is luck, not whether they measure
# the same thing. On the curves nobody would have compared these two points. That is why two cut-offs have two names in
# this course: `threshold` for probabilities, `iou_threshold` for matches.

# %% [markdown]
# **Break it**: compute the interval of the fair comparison at 0.5 *unpaired*. Draw the images for each method on its
# own, as if the two had been scored on different images.

# %%
a, b = (np.array(per_image[name][0.5]) for name in ("without the rim", "as in exercise 5.2"))
_, low, high, _ = judge(a.tolist(), b.tolist())
rng = np.random.default_rng(seed)
unpaired = rng.choice(a, (2000, len(a))).mean(axis=1) - rng.choice(b, (2000, len(b))).mean(axis=1)
wide_low, wide_high = np.quantile(unpaired, [0.025, 0.975])
print(f"paired: {low:+.3f} to {high:+.3f}   unpaired: {wide_low:+.3f} to {wide_high:+.3f}")
print(f"The unpaired interval is {(wide_high - wide_low) / (high - low):.1f} times as wide.")
claim(wide_high - wide_low > 1.5 * (high - low), "Without pairs the interval is far wider.")

# %% [markdown]
# Both intervals are around the same mean difference. But the unpaired one also contains how much *images* differ from
# each other, which has nothing to do with the question, and a real difference can drown in it.

# %% [markdown] question="6d"
# **Question 6d.** Which other differences between two scores, besides the IoU threshold, make a comparison worthless?

# %% [markdown] answer="6d"
# Other images (validation against test, or with the hard ones left out); a mean over images against a pooled score, F1
# against AP (notebook 04); a threshold tuned on the scored images for one method only; specks removed for one method
# only; test-time augmentation for one only; a longer training, a larger network or more images for one only; a score of
# pixels against one of instances.

# %% [markdown]
# ## What to remember
#
# * A thin class has few pixels, so a cross entropy pays little for it; Dice and weights pay more. That is an argument,
#   not a result.
# * Weights and Dice change what the numbers of a network mean. Take weights out after training.
# * "Better" needs the same images, one change, a paired interval above 0, and more than another seed changes.
# * Choose on validation images, and give different things different names.

# %%
short = {name: name.replace("cross entropy", "CE") for name in f1}
chosen = {short[name]: {"mean_f1": {t: float(np.mean(f1[name][t])) for t in iou_thresholds}} for name in f1}
tuning = {"threshold": threshold, "too_high_by": {f"{n} images": float(value) for n, value in fooling.items()}}
record_scores(output, "06_losses_and_tuning", {**tuning, **chosen})
plt.close("all")
