# %% [markdown]
# # 05 Boundaries and watershed
#
# Nuclei that touch are one component of the foreground, even of the true one. So the network has to answer another
# question: not only "nucleus or background?", but also "is this the *boundary* of a nucleus?" Between two touching
# nuclei there is always some boundary, and a watershed makes instances of the answers.
#
# **After this notebook you can**
#
# * design a target whose perfect prediction gives perfect instances, and prove it before training;
# * explain the three inputs of a watershed;
# * tune a threshold on validation images, and say why not on test images;
# * compare two methods honestly.
#
# **You need** notebooks 01 to 04.
#
# **Time** about {{minutes}} minutes of work. Computing: a minute or two with the pretrained network. If you train one
# yourself: on two CPU cores a minute or two in the profile `smoke`, about 50 minutes in `laptop` (40 times a measured
# epoch); `full`, meant for a GPU, has not been measured yet.

# %%
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from scipy import ndimage
from skimage.measure import label, profile_line, regionprops
from skimage.segmentation import find_boundaries, watershed

from course_utils import connected_components, f1_score, get_profile, load_data, paired_bootstrap, plotting, predict
from course_utils import classify_errors, looks_like_boundary_target
from course_utils.arguments import check_arguments  # used by the course's own functions, not by yours
from course_utils.display import LiveFigure, show, show_frames
from course_utils.exercises import check
from course_utils.exercises.claims import claim
from course_utils.exercises.guesses import ask, compare
from course_utils.exploration import normalize_percentiles, split_train_val
from course_utils.networks import BOUNDARY_WEIGHT, boundary_model
from course_utils.results import compare_methods, record_scores, score_images, score_table, summarize_scores
from course_utils.segmentation import otsu_components, otsu_watershed, remove_small, remove_uncertain
from course_utils.segmentation import watershed_flat_height, watershed_without_rim

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
val_images = [normalize_percentiles(sample.image) for sample in val]
val_masks = [sample.mask for sample in val]

# %% [markdown]
# ## Which boundary?
#
# `skimage.segmentation.find_boundaries` offers several modes. Look at two small nuclei that touch:

# %% tags=["nbval-check-output"]
pair = np.zeros((15, 24), dtype=int)
disc = np.hypot(*np.mgrid[-5:6, -5:6]) <= 5
pair[2:13, 2:13][disc] = 1
pair[2:13, 11:22][disc & (pair[2:13, 11:22] == 0)] = 2
areas = {mode: int(np.sum((pair > 0) & ~find_boundaries(pair, mode=mode))) for mode in ("thick", "inner", "outer")}
print("pixels of interior that remain:", areas)
assert areas["thick"] == areas["inner"] < areas["outer"]

# %% tags=["fold"]
figure, axes = plotting.grid(2, 2, width=3.4, height=2.5)
plotting.draw_labels(axes[0, 0], pair, "mask")
for panel, mode in zip(axes.flat[1:], ("thick", "inner", "outer")):
    classes = (pair > 0).astype(int)
    classes[find_boundaries(pair, mode=mode)] = 2
    plotting.draw_classes(panel, classes, f'mode="{mode}"', legend=mode == "outer")
show(
    figure,
    "Two touching nuclei, eleven pixels wide, and three modes of their boundaries: background, "
    "interior and boundary as classes.",
)

# %% [markdown]
# * **thick** marks pixels on both sides of every edge: nuclei look larger than they are.
# * **inner** marks the outermost pixels of each nucleus: interior and boundary *together are exactly the nucleus*.
# * **outer** marks the background around a nucleus; most of the interior remains, but the boundary of a nucleus that
#   touches another lies inside the other.
#
# The course uses **inner**: no pixel of a nucleus is lost and none is added.
#
# ### Exercise 5.1: A target with a boundary class
#
# {{difficulty}}
#
# Write `boundary_target(mask, mode="inner")`. It returns an int64 tensor `(H, W)` with 0 for background, 1 for interior
# and 2 for boundary, as `find_boundaries` defines it in this mode.

# %% [markdown] expected="5.1"
# Expected: a ring of boundary around each interior, even where two nuclei touch.
#
# ```python expected hidden alt="The three classes of two touching squares: each has its own interior and boundary."
# mask = np.zeros((12, 20), dtype=int)
# mask[2:10, 2:10] = 3
# mask[2:10, 10:18] = 8
# figure, axes = plotting.grid(1, 1, width=3.2, height=2.6)
# plotting.draw_classes(axes[0, 0], boundary_target(mask), legend=True)
# figure
# ```
#
# <details><summary>Hint 1</summary>
#
# Start with 1 on every nucleus and 0 elsewhere, then overwrite the boundary.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `find_boundaries` returns an array of booleans with the shape of the mask. Used as an index, it sets all these pixels
# at once. `torch.nn.CrossEntropyLoss` needs int64.
#
# </details>

# %% exercise="5.1"
from course_utils import boundary_target

# %% check="5.1"

# %%
sample = max(train, key=lambda sample: np.mean(find_boundaries(sample.mask, mode="inner")))
target = boundary_target(sample.mask)
share = torch.bincount(target.flatten(), minlength=3) / target.numel()
print("background {:.1%}, interior {:.1%}, boundary {:.1%}".format(*share.tolist()))
assert target.dtype == torch.int64 and torch.equal(target > 0, torch.from_numpy(sample.mask > 0))

# %% tags=["fold"]
tiles = [np.s_[80 * i : 80 * i + 80, 80 * j : 80 * j + 80] for i, j in np.ndindex(*np.array(target.shape) // 80)]
crowd = max(tiles, key=lambda tile: (target[tile] == 2).sum(), default=np.s_[:80, :80])
figure, axes = plotting.grid(1, 3, width=3.6)
plotting.draw_image(axes[0, 0], sample.image[crowd], "image")
plotting.draw_labels(axes[0, 1], sample.mask[crowd], "mask")
plotting.draw_classes(axes[0, 2], target[crowd], "target", legend=True)
show(figure, "Part of a crowded training image, 80 x 80 pixels, its mask, and the target with three classes.")

# %% [markdown]
# ## From three classes to instances
#
# The network will predict three probabilities for each pixel, which add up to one. A **watershed** needs three inputs:
#
# * a **mask**: which pixels belong to any nucleus? Those where interior and boundary *together* exceed 0.5;
# * **markers**: one seed for each nucleus, namely the connected components of the pixels where interior exceeds
#   boundary by more than `threshold`;
# * a **height map**: the boundary probability. Imagine it as a landscape. Water rises from every seed; the border is
#   where the water of two seeds meets, on the ridge between touching nuclei.
#
# ### Exercise 5.2: Grow instances with the watershed
#
# {{difficulty}}
#
# Write `watershed_instances(foreground, boundary, threshold=0.5)`. Here `foreground` is the probability of *interior*
# alone and `boundary` that of boundary, both `(H, W)`. The mask is `foreground + boundary > 0.5`; the markers are the
# components of `foreground - boundary > threshold` inside the mask; grow them over the boundary probability inside the
# mask with `skimage.segmentation.watershed`.

# %% [markdown] expected="5.2"
# Expected: from the perfect probabilities of two touching squares, two instances of full size. (The dark line between
# them is only part of the drawing; its pixels belong to a nucleus.)
#
# ```python expected hidden alt="Interior, boundary and the resulting two instances of two touching squares."
# mask = np.zeros((12, 20), dtype=int)
# mask[2:10, 2:10] = 3
# mask[2:10, 10:18] = 8
# target = boundary_target(mask).numpy()
# foreground, boundary = (target == 1).astype(float), (target == 2).astype(float)
# figure, axes = plotting.grid(1, 3, width=2.4, height=1.8)
# plotting.draw_probability(axes[0, 0], foreground, "foreground")
# plotting.draw_probability(axes[0, 1], boundary, "boundary")
# plotting.draw_labels(axes[0, 2], watershed_instances(foreground, boundary), "instances")
# figure
# ```
#
# <details><summary>Hint 1</summary>
#
# Three lines: mask, markers, and the call of the watershed.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Markers are not booleans: each seed needs its own number. `label` numbers connected regions.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `watershed(height, markers=..., mask=...)`. Water must climb the height map: which of your inputs is high between two
# nuclei?
#
# </details>

# %% exercise="5.2"
from course_utils import watershed_instances

# %% check="5.2"

# %% [markdown]
# ## First test without a network
#
# Before training anything, run the pipeline on the **target itself**: a network that predicts perfectly. If the score
# is not close to 1 now, no training will repair it.
#
# **Break it**: a common variant, `watershed_without_rim`, leaves the boundary out: `mask = foreground > 0.5`.
# It looks harmless. **Predict, then run**:

# %%
question = "What does the watershed without the rim score on the perfect target? Mean F1 at an IoU threshold of 0.75:"
ask("05 without rim", question, 0.0, 1.0, 0.01)

# %%
test_masks = [sample.mask for sample in data.test]
targets = [boundary_target(mask).numpy() for mask in test_masks]
oracle = {
    "components of the foreground": [connected_components((t > 0).astype(float)) for t in targets],
    "watershed, boundary left out of the mask": [
        watershed_without_rim((t == 1).astype(float), (t == 2).astype(float)) for t in targets
    ],
    "watershed, as in exercise 5.2": [
        watershed_instances((t == 1).astype(float), (t == 2).astype(float)) for t in targets
    ],
}

# %%
exact = {
    name: {
        f"IoU {t:g}": np.mean([f1_score(found, mask, t) for found, mask in zip(results, test_masks)])
        for t in (0.5, 0.75, 0.9)
    }
    for name, results in oracle.items()
}
exact = pd.DataFrame(exact).T
right, rimless = exact.loc["watershed, as in exercise 5.2"], exact.loc["watershed, boundary left out of the mask"]
note = f"At 0.5 it is {rimless['IoU 0.5']:.2f}."
compare("05 without rim", rimless["IoU 0.75"], note, exact.style.format("{:.3f}"))
claim(right.min() > 0.99, "A perfect prediction gives more than 0.99 at every IoU threshold.")
claim(rimless["IoU 0.75"] < 0.75, "Without the rim a quarter is lost at IoU 0.75.")

# %% tags=["fold"]
regions = [(region.area, index, region) for index, mask in enumerate(test_masks) for region in regionprops(mask)]
area, index, region = sorted(regions, key=lambda one: one[:2])[len(regions) // 4]  # smaller than most
top, left, bottom, right_side = region.bbox
part = np.s_[max(top - 5, 0) : bottom + 5, max(left - 5, 0) : right_side + 5]
nucleus = (test_masks[index] == region.label)[part]
figure, axes = plotting.grid(1, 3, width=3.4)
plotting.draw_classes(axes[0, 0], targets[index][part], f"target: nucleus of {area:g} pixels", legend=True)
for panel, name, title in zip(axes[0, 1:], list(oracle)[:0:-1], ("as in exercise 5.2", "boundary left out")):
    found = oracle[name][index][part]
    own = found == max(np.unique(found[nucleus]), key=lambda id_: (id_ > 0, np.sum(found[nucleus] == id_)))
    iou = np.sum(own & nucleus) / np.sum(own | nucleus)
    plotting.draw_outlines(panel, (found > 0).astype(float), test_masks[index][part], f"{title}: IoU {iou:.2f}")
show(
    figure,
    "A small nucleus of the test images. White: what the watershed makes of the perfect target; the line is the true "
    "outline. With the boundary in the mask it is filled up to the outline, without it a rim is missing.",
)

# %% [markdown]
# On a *perfect* prediction the variant loses more than a quarter of the score at IoU 0.75: every nucleus is too small
# by one pixel on all sides, and for a small nucleus one pixel is a lot. On the real test images it reaches 0.97 at IoU
# 0.5, so nobody notices, but 0.65 at IoU 0.75. With the right mask, the score exceeds 0.99 at every IoU threshold: this
# target can be turned back into the nuclei, and that of notebook 03 cannot.

# %% [markdown] question="5a"
# **Question 5a.** What happens to tiny nuclei in this pipeline? When can even a perfect prediction score below 1?

# %% [markdown] answer="5a"
# A nucleus that is only two pixels wide consists of boundary alone. Without interior it has no seed, and without a seed
# there is no instance, even from a perfect prediction. A nucleus with a narrow waist has two separate interiors, so it
# gets two seeds and is split. Both are rare in these images (the smallest nucleus of the real set has 21 pixels), so
# less than one per cent of the score is lost, or nothing at all. For objects of a few pixels the pipeline would need
# another target, for example a distance map, or images of higher resolution.

# %% [markdown]
# ## Train
#
# `boundary_model` does what you did by hand in notebook 03, with three outputs and a few additions:
#
# * **instance normalisation** in place of batch normalisation: each map of each image is scaled by its own mean and
#   deviation, so a dim image looks like a bright one from the first layer on. In short trials it helped most;
# * **crops of other magnifications**: every second crop is shrunk or enlarged, by up to a factor of 2, since nuclei
#   come in all sizes (`ZoomedDataset`); the intensities vary at random, too;
# * the learning rate rises and falls once (*one-cycle*), and the weights are averaged over the last steps.
#
# The loss is the cross entropy over three classes, with a threefold weight for the thin boundary class, a common remedy
# for rare classes. It has a drawback: the network sees boundary where there is none. So after training the logarithm of
# the weight is subtracted from the logit of the class (*logit adjustment*). What has been measured of each part stands
# in `docs/results.md`.
#
# In the profiles `smoke` and `laptop` the next cell loads a pretrained network. It was trained with this function, and
# the curves are those of its training, which was longer than one in `smoke` would be. (The one for the real images is
# older, with batch normalisation and no zoom, and was trained a second time, with a lower learning rate and unchanged
# intensities; its curves show both trainings, one after the other.) Add `pretrained=False` to the call to
# train one yourself, as `full` does; it is saved in the folder `output` and loaded from there the next time.
#
# (The sentences below about probabilities and scores hold for the pretrained networks. For one that was trained for a
# minute or two some do not, and the notebook says so.)

# %%
live = LiveFigure()


def draw(results):
    figure = plotting.plot_training(results, "hard Dice")
    live.update(figure, "Loss, and hard Dice of the foreground (interior and boundary), after each epoch.")


model = boundary_model(data, settings, seed, output, on_epoch=draw)
epochs = f"{settings.boundary_epochs} epochs of {settings.crops_per_epoch} crops"
print(f"With pretrained=False, the profile {settings.name} trains for {epochs}.")
print(f"weight of the boundary class in the loss: {BOUNDARY_WEIGHT:g}")

# %% [markdown]
# ## Can the probabilities be believed?
#
# Of all pixels to which the network gives 30 % boundary, 30 % should be boundary. A **reliability curve** shows whether
# that is so: the predictions are sorted into ten bins, and for each the share that really is boundary is drawn against
# the mean prediction. **Break it**: multiply the odds of the boundary class by its weight again, as the loss asked for.

# %%
question = "With the weight left in, the network sees boundary where there is none."
ask("05 weight", question + " By how much is its mask of interior and boundary too large?", -5, 20, 0.5, unit="%")

# %%
val_predictions = [predict(model, image) for image in val_images]
val_foregrounds = [prediction[1] for prediction in val_predictions]
val_boundaries = [prediction[2] for prediction in val_predictions]


def with_weight(prediction):
    """Put the weight of the boundary back into probabilities (3, H, W): multiply, and scale to a sum of 1."""
    odds = prediction * np.array([1, 1, BOUNDARY_WEIGHT], dtype=np.float32)[:, None, None]
    return odds / odds.sum(axis=0)


versions = {"weight removed": lambda prediction: prediction, "weight left in": with_weight}

# %%
n_foreground = sum(np.count_nonzero(mask) for mask in val_masks)
reliability, distance, excess = {}, {}, {}
for name, version in versions.items():
    sums, n_inside = np.zeros((3, 10)), 0
    for p, mask in zip(map(version, val_predictions), val_masks):
        bins = np.minimum((10 * p[2]).astype(int), 9).ravel()
        counted = np.ones(mask.shape), p[2], find_boundaries(mask, mode="inner")
        sums += [np.bincount(bins, values.ravel(), minlength=10) for values in counted]
        n_inside += np.count_nonzero(p[0] < 0.5)
    mean, share = sums[1:] / np.maximum(sums[0], 1)
    reliability[name] = mean, share
    distance[name] = np.abs(mean - share).max()
    excess[name] = n_inside / n_foreground - 1
compare("05 weight", round(100 * excess["weight left in"], 1), f"Without it: {excess['weight removed']:+.1%}.")
without, weighted = distance.values()
print(f"shares off by up to {weighted:.2f} with the weight, by up to {without:.2f} without it")
claim(without < 0.1 < 0.2 < weighted, "Without the weight, predicted and observed shares agree far better.")
claim(abs(excess["weight removed"]) < excess["weight left in"], "With the weight the mask is too large.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=4.5, height=3.6)
for (name, curve), style in zip(reliability.items(), ("-o", "--s")):
    axes[0, 0].plot(*curve, style, label=name)
axes[0, 0].plot([0, 1], [0, 1], ":", color="black", label="as it should be")
axes[0, 0].set(xlabel="predicted probability of boundary", ylabel="share that is boundary")
axes[0, 0].legend(frameon=False)
show(figure, "Reliability curve of the boundary class on the validation images, with and without the weight.")

# %% [markdown]
# With the weight the network overestimates boundary: in the middle of the range, about twice. Without it, predicted and
# observed shares differ by less than 0.1 in every bin. The mask of interior and boundary would have 4.6 % too many
# pixels on the real validation images and 1.6 % on the synthetic ones; now it is right within one per cent. That shows
# at strict IoU thresholds: F1 at 0.9, each with its own best threshold, rises from 0.48 to 0.54 on the real validation
# images, and from 0.84 to 0.86 on the synthetic ones.

# %% [markdown]
# ## Step by step
#
# Follow two touching nuclei through the pipeline. To find some: components of the mask in which two nuclei of
# comparable size lie.

# %%
val_insides = [f + b > 0.5 for f, b in zip(val_foregrounds, val_boundaries)]
val_instances = [watershed_instances(f, b) for f, b in zip(val_foregrounds, val_boundaries)]
pairs, separated = [], []
for index, (inside, found, mask) in enumerate(zip(val_insides, val_instances, val_masks)):
    for region in regionprops(label(inside)):
        under = mask[region.slice][region.image]
        _, areas = np.unique(under[under > 0], return_counts=True)
        if np.count_nonzero(areas > region.area / 4) == np.count_nonzero(areas > region.area / 20) == 2:
            pairs.append((region.area, index, region.bbox))
            _, parts = np.unique(found[region.slice][region.image], return_counts=True)
            if np.count_nonzero(parts > region.area / 4) == 2:
                separated.append(pairs[-1])
print(f"{len(pairs)} components of the mask hold two nuclei; the watershed separates {len(separated)} of them")
claim(0 < len(separated) < len(pairs), "The watershed separates some pairs of touching nuclei, not all.")

# %% [markdown]
# Take the largest separated pair that fits into a window of 100 x 100 pixels, and compute the three inputs of the
# watershed for its image. (If there is none in your data, two drawn discs take its place. Where the nuclei are small
# the window has 60 x 60 pixels, so that they can be seen.)

# %%
fitting = [one for one in separated if max(one[2][2] - one[2][0], one[2][3] - one[2][1]) < 90]
if fitting:
    _, shown, box = max(fitting)
    image, mask, foreground, boundary = (
        arrays[shown] for arrays in (val_images, val_masks, val_foregrounds, val_boundaries)
    )
else:
    classes = boundary_target(pair).numpy()
    image, mask, box = (pair > 0).astype(float), pair, (0, 0, *pair.shape)
    foreground, boundary = (classes == 1).astype(float), (classes == 2).astype(float)

inside = foreground + boundary > 0.5
seeds = label((foreground - boundary > 0.5) & inside)
instances = watershed(boundary, seeds, mask=inside)

# %% [markdown]
# In all panels, and in the plot below them, a line runs from A to B: through both nuclei, and across the place where
# they touch.

# %%
side = 60 if max(box[2] - box[0], box[3] - box[1]) < 45 else 100
top, left = (int(np.clip((box[i] + box[i + 2] - side) // 2, 0, max(mask.shape[i] - side, 0))) for i in (0, 1))
window = np.s_[top : top + side, left : left + side]
ids, areas = np.unique(instances[box[0] : box[2], box[1] : box[3]], return_counts=True)
two = [id_ for id_ in ids[np.argsort(-areas)] if id_ > 0][:2]  # the instances of the pair
centres = np.array(ndimage.center_of_mass(inside, instances, two))
touch = np.argwhere(ndimage.binary_dilation(instances == two[0]) & (instances == two[1]))
middle = touch.mean(axis=0) if len(touch) else centres.mean(axis=0)
last = np.array(image[window].shape) - 3
start, end = (np.clip(middle + way * (centres[1] - centres[0]) - (top, left), 2, last) for way in (-1.1, 1.1))

# %%
along = {"interior": foreground, "boundary": boundary, "mask": inside, "marker": seeds, "instance": instances}
along = {
    name: profile_line(values[window].astype(float), start, end, order=values.dtype.kind == "f", mode="nearest")
    for name, values in along.items()
}
changes = np.flatnonzero(np.diff(along["instance"]) * along["instance"][1:] * along["instance"][:-1])
claim(len(changes) == 1, "On the line there is one border between two instances.")

# %% tags=["fold"]
matching = np.zeros(instances.max() + 1, int)  # the ids of the nuclei, for the colours
matching[instances] = plotting.with_matching_ids(instances, mask)
figure, axes = plotting.grid(3, 3, width=3.6)
plotting.draw_image(axes[0, 0], image[window], "image")
plotting.draw_probability(axes[0, 1], foreground[window], "interior")
plotting.draw_probability(axes[0, 2], boundary[window], "boundary")
plotting.draw_probability(axes[1, 0], inside[window].astype(float), "mask: interior + boundary > 0.5")
plotting.draw_labels(axes[1, 1], matching[seeds][window], "markers: interior - boundary > 0.5")
plotting.draw_probability(axes[1, 2], (boundary * inside)[window], "height map: boundary in the mask")
plotting.draw_labels(axes[2, 0], matching[instances][window], "result")
plotting.draw_labels(axes[2, 1], mask[window], "truth")
plotting.draw_outlines(axes[2, 2], image[window], instances[window], "result on the image")
for panel in axes.flat:
    plotting.draw_line(panel, start, end)
show(
    figure,
    "Two touching nuclei on their way from the image to instances: image, interior, boundary; mask, markers, height "
    "map; result, truth, and the result as outlines on the image. The line from A to B crosses both nuclei.",
)

# %% tags=["fold"]
place = np.arange(len(along["interior"]))
figure, axes = plotting.grid(1, 1, width=9, height=3.6)
axes[0, 0].plot(place, along["interior"], "-", color=plotting.BLUE, label="interior")
axes[0, 0].plot(place, along["boundary"], "--", color=plotting.RED, label="boundary")
for number, id_ in enumerate(two, start=1):
    marker = place[along["marker"] == id_]
    if len(marker):  # a line through an odd shape may pass beside it
        axes[0, 0].hlines(-0.07, marker.min(), marker.max(), color="black", linewidth=6)
        axes[0, 0].text(marker.mean(), -0.17, f"marker {number}", ha="center", va="center")
for change in changes:
    axes[0, 0].axvline(change + 0.5, color="black", linestyle=":")
    axes[0, 0].text(change + 0.5, 1.05, "border", ha="center")
axes[0, 0].set(xlabel="pixels from A to B", ylabel="probability", ylim=(-0.25, 1.02), yticks=(0, 0.5, 1))
axes[0, 0].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
show(
    figure,
    "The probabilities on the line from A to B. Interior is high in both nuclei, with a valley between them; boundary "
    "has a ridge there. The markers end on both sides of the ridge, the border lies on it.",
)

# %% [markdown]
# In the mask the two nuclei are one region; in the boundary map a ridge runs between them. It is high enough for two
# markers, and the watershed draws the border along the ridge.
#
# ### The watershed as it floods
#
# Water rises from every marker, over the height map, and nowhere outside the mask. At each level it covers the pixels
# that are not higher and can be reached. Water of different markers does not mix: where two of them meet is a border.

# %%
levels = np.linspace(0, 1, 11).round(1)
floods = [watershed(boundary, seeds, mask=inside & ((boundary <= level) | (seeds > 0))) for level in levels]
claim(np.array_equal(floods[-1], instances), "The last flood is the result of the watershed.")
kept = [np.array_equal(flood, np.where(flood > 0, instances, 0)) for flood in floods]
claim(all(kept), "A pixel once flooded stays with its marker.")


def meet(flood):
    return np.any(ndimage.binary_dilation(flood == two[0]) & (flood == two[1]))


first = next((level for level, flood in zip(levels, floods) if meet(flood)), None)
print(f"The water of the two markers meets when it stands at {first}.")

# %% tags=["fold"]
def draw_from_above(panel, flood):
    plotting.draw_probability(panel, (boundary * inside)[window], "height map, and water from each marker")
    water = matching[flood][window]
    panel.imshow(np.dstack([plotting.label_colours(water), water > 0]))
    plotting.draw_line(panel, start, end)


def draw_section(side_view, level, flood):
    ground = along["boundary"]
    under = profile_line(flood[window].astype(float), start, end, order=0, mode="nearest")
    side_view.bar(place, np.where(along["mask"] > 0, 0, 1.05), width=1, color="0.85", label="outside the mask")
    side_view.bar(place, np.where(along["mask"] > 0, ground, 0), width=1, color="0.45", label="boundary")
    for number, id_ in enumerate(two, start=1):
        colour = plotting.label_colours(matching[[[id_]]])[0, 0]
        wet = np.where(under == id_, np.maximum(level - ground, 0), 0)
        side_view.bar(place, wet, width=1, bottom=ground, color=colour)
        if len(marker := place[along["marker"] == id_]):
            side_view.text(marker.mean(), -0.08, f"marker {number}", ha="center", va="center", size=9)
    side_view.axhline(level, color="black", linewidth=1)
    side_view.set(xlabel="pixels from A to B", ylim=(-0.15, 1.35), yticks=(0, 0.5, 1))
    side_view.legend(fontsize=8, loc="upper center", ncols=2, frameon=False)


# %% tags=["fold"]
def draw_flood(level, flood):
    figure, axes = plotting.grid(1, 2, width=3.6, height=3.9)
    draw_from_above(axes[0, 0], flood)
    draw_section(axes[0, 1], level, flood)
    return figure


show_frames(
    (draw_flood(level, flood) for level, flood in zip(levels, floods)),
    [f"water up to {level}" for level in levels],
    "The watershed as it floods, seen from above and in the section from A to B: at first there is water in the "
    "markers only; it rises, spreads over the rims and up both sides of the ridge; at the end it fills the mask.",
    columns=2,
)

# %% [markdown]
# The last frame is the result above. Where the ridge is too low, there is a single marker, and a pair stays one
# instance: most of the other pairs counted above are of this kind. Now the whole image:

# %% tags=["fold"]
figure, axes = plotting.grid(1, 2, width=5.2, height=5.6)
plotting.draw_labels(axes[0, 0], matching[instances], f"result: {np.count_nonzero(np.unique(instances))} instances")
plotting.draw_errors(axes[0, 1], image, instances, mask, title=f"errors: F1 = {f1_score(instances, mask):.2f}")
for panel in axes[0]:
    panel.add_patch(plt.Rectangle((left, top), side, side, fill=False, color=plotting.ORANGE, linewidth=2))
show(figure, "The result for the whole image, and the kind of error of each instance. The square is the window above.")

# %% [markdown]
# ## Which of the three inputs matters most?
#
# Change one input at a time, with the same network on the validation images: a **flat** height map in place of the
# boundary probability, and a mask **without the rim**; each with few, medium and many pixels in the seeds. **Predict,
# then run**:

# %%
question = "Which of the two costs more, at an IoU threshold of 0.75 and with medium seeds?"
ask("05 inputs", question, options=["flat height map", "mask without the rim", "about the same"])

# %%
variants = {
    "as in exercise 5.2": watershed_instances,
    "flat height map": watershed_flat_height,
    "mask without the rim": watershed_without_rim,
}
rows = {}
for threshold in (0.1, 0.5, 0.95):
    for name, variant in variants.items():
        found = [variant(f, b, threshold) for f, b in zip(val_foregrounds, val_boundaries)]
        rows[threshold, name] = summarize_scores(score_images(found, val_masks))["mean_f1"]
inputs = pd.DataFrame(rows).T.rename_axis(["threshold", "variant"])
right, flat, rimless = (inputs.xs(name, level="variant") for name in variants)
losses = [right.loc[0.5, 0.75] - other.loc[0.5, 0.75] for other in (flat, rimless)]
larger = "flat height map" if losses[0] > losses[1] else "mask without the rim"
measured = "about the same" if abs(losses[0] - losses[1]) < 0.01 else larger
table = inputs.style.format("{:.3f}").format_index("{:g}", level=0).format_index("IoU {:g}", axis=1)
compare("05 inputs", measured, "The flat map costs {:.3f}, the missing rim {:.3f}.".format(*losses), table)
claim((right - rimless)[0.75].min() > 0.1, "Without the rim more than 0.1 is lost at IoU 0.75, whatever the threshold.")
claim((right - flat).loc[[0.1, 0.5]].max().max() < 0.01, "A flat height map costs less than 0.01 up to threshold 0.5.")
claim(0 < (right - flat).loc[0.95].max() < 0.05, "At threshold 0.95, where the seeds are small, it costs a little.")

# %% [markdown]
# The mask without the rim lowers the score most, for a real prediction as for the perfect one. The height map, to which
# textbooks give the most room, changes nothing that can be seen here while the seeds are large; at 0.95 it is worth
# about 0.01.

# %% [markdown] question="5b"
# **Question 5b.** Why a height map at all, and why does a flat one do nearly as well here?

# %% [markdown] answer="5b"
# The watershed draws a border where the water of two seeds meets. With the boundary probability as height, they meet on
# the ridge, where a border between nuclei is likely; with a flat map, halfway between the seeds.
#
# Here the seeds are nearly whole nuclei: all interior, right up to the thin boundary. Halfway between two such seeds
# *is* the boundary, and there are only a few pixels left to distribute. With small seeds, such as single points or
# those of a high threshold, halfway can be far from the border: a large nucleus beside a small one loses pixels to it.

# %% [markdown]
# Try it: shrink every seed to a single point, the one farthest from its edge, and grow it over both maps.


# %%
def watershed_from_points(foreground, boundary, height):
    mask = foreground + boundary > 0.5
    seeds = label((foreground - boundary > 0.5) & mask)
    depth = ndimage.distance_transform_edt(seeds > 0)
    points = np.zeros_like(seeds)
    for number, place in enumerate(ndimage.maximum_position(depth, seeds, range(1, seeds.max() + 1)), start=1):
        points[place] = number
    return watershed(height, points, mask=mask)


rows = {"seeds of exercise 5.2": val_instances}
for name, heights in {"boundary": val_boundaries, "flat": [np.zeros_like(b) for b in val_boundaries]}.items():
    found = [watershed_from_points(*arrays) for arrays in zip(val_foregrounds, val_boundaries, heights)]
    rows[f"single points, {name}"] = found
points = pd.DataFrame({name: summarize_scores(score_images(f, val_masks))["mean_f1"] for name, f in rows.items()}).T
full, hills, plain = points[0.9]
claim(abs(full - hills) < 0.005, "On the boundary map single points do as well as whole seeds.")
claim(plain < hills - 0.01, "On a flat map they lose more than 0.01 at IoU 0.9.")
points.style.format("{:.3f}").format_index("IoU {:g}", axis=1)

# %% [markdown]
# ## Choose the threshold
#
# How clear must interior be to count as a seed? If the threshold is too low, seeds of neighbours merge; if it is too
# high, dim nuclei get no seed, or one nucleus is split into several.

# %%
candidates = (0.1, 0.5, 0.8, 0.95)

# %% tags=["fold"]
figure, axes = plotting.grid(2, 4, width=2.9, height=3.4)
for (upper, lower), threshold in zip(axes.T, candidates):
    found = watershed_instances(foreground, boundary, threshold)
    title = f"threshold {threshold}: F1 = {f1_score(found, mask):.2f}"
    plotting.draw_errors(upper, image, found, mask, title=title)
    seeds = plotting.with_matching_ids(label((foreground - boundary > threshold) & inside), mask)
    plotting.draw_labels(lower, seeds[window], f"seeds in the window: {np.count_nonzero(np.unique(seeds[window]))}")
show(figure, "The same prediction with four thresholds: the kinds of errors, and the seeds of the two touching nuclei.")

# %%
rows = {}
for threshold in candidates:
    found = [watershed_instances(f, b, threshold) for f, b in zip(val_foregrounds, val_boundaries)]
    kinds = [classify_errors(one, truth) for one, truth in zip(found, val_masks)]
    rows[threshold] = {kind: sum(len(getattr(one, kind)) for one in kinds) for kind in ("merged", "split", "missed")}
    unseeded = [np.count_nonzero(inside & (one == 0)) for one, inside in zip(found, val_insides)]
    rows[threshold]["pixels of the mask without a seed"] = sum(unseeded)
errors = pd.DataFrame(rows).T.rename_axis("threshold")
claim(errors["merged"][0.1] > errors["merged"][0.8], "A low threshold merges more nuclei than a high one.")
unseeded = errors["pixels of the mask without a seed"]
claim(unseeded[0.95] > unseeded[0.1], "A high threshold leaves more of the mask without a seed.")
errors.style.format_index("{:g}")

# %% [markdown]
# ### Exercise 5.3: Choose the threshold on validation images
#
# {{difficulty}}
#
# Write `find_best_threshold(foregrounds, boundaries, truths, thresholds, iou_threshold=0.5)`. For each threshold
# compute the mean F1 of `watershed_instances` over the images. Return `(best, {threshold: mean F1})`; of equally good
# thresholds return the smallest.
#
# The truths are **label images**. It is easy to pass the training target with its classes 0, 1, 2 by mistake: it is an
# integer array, too, so the search runs, but it compares with two huge "nuclei". Raise a `ValueError` in that case;
# `looks_like_boundary_target(truth)` checks one array.

# %% [markdown] expected="5.3"
# Expected: for one perfectly predicted image every threshold is equally good, and the smallest is returned.
#
# ```python expected
# mask = np.zeros((12, 20), dtype=int)
# mask[2:10, 2:10], mask[2:10, 10:18] = 3, 8
# target = boundary_target(mask).numpy()
# find_best_threshold([(target == 1) * 1.0], [(target == 2) * 1.0], [mask], thresholds=[0.7, 0.3, 0.5])
# ```
#
# <details><summary>Hint 1</summary>
#
# Use two loops: over the thresholds, and for each of them over the images. `watershed_instances` and `f1_score` do the
# rest.
#
# </details>
# <details><summary>Hint 2</summary>
#
# There are two thresholds: `threshold` belongs to `watershed_instances`, `iou_threshold` to `f1_score`. The second
# never changes.
#
# </details>
# <details><summary>Hint 3</summary>
#
# To get the smallest of the best: `max` and `min` return the *first* of several equal values, so the order of the
# thresholds matters.
#
# </details>

# %% exercise="5.3"
from course_utils import find_best_threshold

# %% check="5.3"

# %%
thresholds = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
best, mean_f1 = find_best_threshold(val_foregrounds, val_boundaries, val_masks, thresholds)
print(f"best threshold on {len(val)} validation images: {best} with a mean F1 of {mean_f1[best]:.3f}")
assert all(mean_f1[best] >= value for value in mean_f1.values())

at_best = [f1_score(watershed_instances(f, b, best), m) for f, b, m in zip(val_foregrounds, val_boundaries, val_masks)]
rng = np.random.default_rng(seed)
_, low, high = paired_bootstrap(at_best, [0] * len(at_best), rng)  # against 0: the interval of the mean itself
print(f"95 % interval of this mean: {low:.3f} to {high:.3f}")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=5.5, height=3.2)
axes[0, 0].plot(list(mean_f1), list(mean_f1.values()), "-o")
axes[0, 0].plot(best, mean_f1[best], "*", markersize=16, label=f"best: {best}")
axes[0, 0].set(xlabel="threshold of the seeds", ylabel="mean F1, validation")
axes[0, 0].legend(frameon=False)
show(
    figure,
    "Mean F1 of the validation images against the threshold of the seeds, at a fixed IoU "
    "threshold of 0.5.",
)

# %% [markdown]
# Do not read too much into small differences: the interval printed above says how precisely so few images determine the
# mean F1 of *one* threshold (it comes from drawing the images again with replacement, a *bootstrap*). If the curve is
# flat around its maximum, any threshold there is as good.

# %% [markdown] question="5c"
# **Question 5c.** Why must the threshold come from validation images? What would be wrong with choosing it on the test
# images and then reporting that score?

# %% [markdown] answer="5c"
# The test score should say how well the method works on images nobody has looked at. The best of ten thresholds *on the
# test images* is best partly by chance for exactly these images; its score is too high, and nobody can say by how much.
# The same holds for the number of epochs, the network's size or the seed. Make all choices on validation images; score
# the test images once, at the end, and report that number whatever it is. (Choosing on the *training* images would not
# work either: the network was fitted to them, and may be surer there than on new images.)

# %% [markdown]
# ## The result
#
# The table of notebook 04 again. Two rows make a fair comparison: *boundary U-Net, components* and *watershed, unsure
# ones kept* have the **same network**, and only the last step differs. The threshold of the components is chosen on the
# validation images, too. Specks of fewer than 20 pixels, smaller than any nucleus of the training images, are removed
# from all results, as the classical methods already do.
#
# The network can do one thing more: say how sure it is. The mask holds every pixel that is more likely nucleus than
# not, so a faint smudge that it calls nucleus with 0.6 becomes an instance like any other. `remove_uncertain` takes the
# mean probability of its pixels as the score of an instance, and drops those below 0.8 (a value chosen on validation
# images). The row *boundary U-Net, watershed* is the result of that.
#
# (A popular addition is to predict every image eight times, flipped and rotated, and to average:
# `course_utils.segmentation.predict_flipped`. Measured with the pretrained networks, F1 at IoU 0.5 rises by 0.004 on
# the real test images, and not at all on the synthetic ones; prediction takes eight times as long.)

# %%
component_f1 = {}
for t in thresholds:
    found = [connected_components(f + b, t) for f, b in zip(val_foregrounds, val_boundaries)]
    component_f1[t] = np.mean([f1_score(one, mask) for one, mask in zip(found, val_masks)])
best_components = max(component_f1, key=component_f1.get)
print(f"threshold of the components: {best_components}, of the seeds: {best}")

test_images = [normalize_percentiles(sample.image) for sample in data.test]
predictions = [predict(model, image)[1:].copy() for image in test_images]  # not the background
kept = [remove_small(watershed_instances(f, b, best), 20) for f, b in predictions]
methods = {
    "Otsu, components": [otsu_components(sample.image) for sample in data.test],
    "Otsu, watershed": [otsu_watershed(sample.image) for sample in data.test],
    "boundary U-Net, components": [
        remove_small(connected_components(f + b, best_components), 20) for f, b in predictions
    ],
    "watershed, unsure ones kept": kept,
    "boundary U-Net, watershed": [remove_uncertain(one, f + b) for one, (f, b) in zip(kept, predictions)],
}
scores = compare_methods(methods, test_masks)
display(score_table(scores).style.format("{:.3f}"))
recall = {name: row["touching_recall"][0.5] for name, row in scores.items()}
claim(recall["watershed, unsure ones kept"] > recall["boundary U-Net, components"], "More touching nuclei are found.")

# %% [markdown]
# Now compare **in pairs**: both methods on the same image, then the mean of the differences. An image that is hard for
# one method is often hard for the other, too; pairing removes that part of the variation, and the interval gets
# narrower.

# %%
def paired_difference(name, other, iou_threshold):
    found = (methods[name], methods[other])
    pair = [[f1_score(image, mask, iou_threshold) for image, mask in zip(images, test_masks)] for images in found]
    mean, low, high = paired_bootstrap(*pair, rng)
    conclusion = "better" if low > 0 else "worse" if high < 0 else "not shown to be different"
    print(f"  IoU {iou_threshold}: {mean:+.3f} ({low:+.3f} to {high:+.3f}), {conclusion}")
    return low


lowest = {}
for name, other in (
    ("watershed, unsure ones kept", "boundary U-Net, components"),
    ("boundary U-Net, watershed", "watershed, unsure ones kept"),
    ("boundary U-Net, watershed", "Otsu, watershed"),
):
    print(f"{name}, against {other}: mean difference of F1 (95 % interval)")
    lowest[other] = {t: paired_difference(name, other, t) for t in (0.5, 0.75, 0.9)}
claim(min(lowest["boundary U-Net, components"].values()) > 0, "With the same network the watershed is better.")
claim(min(lowest["Otsu, watershed"][t] for t in (0.75, 0.9)) > 0, "The network is better where outlines count.")

# %%
splits, per_image = {}, {}
for name in ("Otsu, watershed", "boundary U-Net, watershed"):
    errors = [classify_errors(found, mask) for found, mask in zip(methods[name], test_masks)]
    splits[name] = sum(len(one.split) for one in errors)
    per_image[name] = [f1_score(found, mask) for found, mask in zip(methods[name], test_masks)]
print("split nuclei:", splits)
claim(np.corrcoef(list(per_image.values()))[0, 1] > 0, "What is hard for one method is hard for the other.")
claim(splits["Otsu, watershed"] > splits["boundary U-Net, watershed"], "The classical method splits more nuclei.")

# %% [markdown]
# The first block shows what the watershed adds with the same network: it is better at all three IoU thresholds, on the
# real and on the synthetic images. The second shows what dropping the unsure ones adds: little, and nothing on the
# synthetic images, where the network is sure of all it finds. The third shows whether training was worth the effort: it
# was, at all three, on the real images (+0.106 at 0.5, from +0.082 to +0.129) and on the synthetic ones (+0.090, from
# +0.060 to +0.124), and most where outlines count. If an interval includes 0, this experiment does not show which
# method is better; that would take more test images.
#
# The last column of the table shows what the boundary class is for: the share of touching nuclei that are found. With
# the same network, the watershed finds twice as many as the components, or more. The classical watershed finds fewer of
# them (0.55 against 0.83 on the real images, 0.75 against 0.94 on the synthetic ones), although it cuts wherever an
# outline has a waist, rightly or wrongly. That costs split nuclei, on both (48 against 35, and 17 against 4), and its
# outlines are rougher.

# %% tags=["fold"]
found = methods["boundary U-Net, watershed"]
test_scores = [f1_score(one, mask) for one, mask in zip(found, test_masks)]
order = np.argsort(test_scores)
figure, axes = plotting.grid(1, 3, width=3.8, height=4.4)
for panel, index, name in zip(axes[0], order[[0, len(order) // 2, -1]], ["worst", "median", "best"]):
    title = f"{name}: F1 = {test_scores[index]:.2f}"
    plotting.draw_errors(panel, test_images[index], found[index], test_masks[index], title=title)
show(
    figure,
    "The worst, the median and the best test image of the watershed, with the kind of error of each instance.",
)

# %% [markdown]
# With a running kernel, move both thresholds:

# %% tags=["optional"]
from course_utils.widgets import explore_watershed

explore_watershed(val_images, val_foregrounds, val_boundaries, val_masks)

# %% [markdown]
# ## What to remember
#
# * Test the pipeline on a perfect prediction first.
# * Mask, markers and height map are three different questions; each has its own answer.
# * Tune on validation images, report on test images, compare in pairs.
#
# You have built what many published pipelines consist of. How good is it? Others publish AP (exercise 4.6), so compare
# AP with AP (the row *boundary U-Net, watershed* of the table), and mind that "mean" may be one over images or over
# nuclei. Means over the 50 real test images:
#
# | | AP at IoU 0.5 / 0.75 / 0.9 | mSA |
# |---|---|---|
# | this notebook, pretrained network | 0.870 / 0.722 / 0.394 | 0.661 |
# | StarDist in PyTorch (README of an unofficial port; how it averages is not said) | 0.870 / 0.634 / 0.193 | |
# | StarDist in Keras (the same README) | 0.873 / 0.598 / 0.188 | |
# | EmbedSeg, 200 epochs, test-time augmentation | 0.887 at 0.5 | |
# | micro-SAM APG, trained on this training split (`scripts/apg_experiments` of micro-sam) | | 0.665 |
# | Cellpose-SAM, about 312 million parameters, not trained on this split (the same file) | | 0.656 |
#
# One run of each, on 50 images: differences of 0.02 are not significant. On the 23 synthetic test images this notebook
# reaches 0.954 / 0.930 / 0.832, mSA 0.892.

# %%
exact = {
    "exact binary target, components": oracle["components of the foreground"],
    "exact boundary target, watershed": oracle["watershed, as in exercise 5.2"],
}
chosen = {"threshold": best, "component_threshold": best_components}
record_scores(output, "05_boundary_watershed", {**chosen, **scores, **compare_methods(exact, test_masks)})
plt.close("all")
