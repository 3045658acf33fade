# %% [markdown]
# # 01 Data exploration
#
# The course teaches a network to find every cell nucleus in a microscope image and to tell the nuclei apart. This is
# the way, and where it ends:
#
# ```python expected hidden alt="From image and mask over the U-Net to components (four) and watershed (seven)."
# from course_utils.checkpoints import load_pretrained
#
# data = load_data("embedded")
# sample, window = data.test[21], (slice(344, 440), slice(80, 176))
# foreground, boundary = predict(load_pretrained(data, 8)[0], normalize_percentiles(sample.image))[1:]
# mask, either = sample.mask[window], np.clip(foreground + boundary, 0, 1)
# joined, apart = connected_components(either)[window], watershed_instances(foreground, boundary)[window]
# count = [len(np.unique(labels)) - 1 for labels in (mask, joined, apart)]
# assert count == [7, 4, 7], count
# figure, axes = plotting.grid(2, 3, width=1.7)
# plotting.draw_image(axes[0, 0], sample.image[window], "01 image")
# plotting.draw_labels(axes[0, 1], mask, f"01 mask: {count[0]} nuclei")
# for level in range(3):
#     size, place = (0.8 * 2**level, 5 / 2**level), [(0, 3), (1.9, 1.2), (3.4, 0)][level]
#     for x in {place[0], 10 - place[0] - size[0]}:
#         colour = "#999999" if level == 2 else plotting.SKY if x < 5 else plotting.ORANGE
#         axes[0, 2].add_patch(plt.Rectangle((x, place[1]), *size, facecolor=colour, edgecolor="black"))
#     if level < 2:
#         axes[0, 2].plot([place[0] + size[0], 10 - place[0] - size[0]], [place[1] + size[1] / 2] * 2, "k--")
# axes[0, 2].set(title="02 U-Net", xlim=(-0.3, 10.3), ylim=(-0.3, 8.3), box_aspect=1)
# axes[0, 2].axis("off")
# plotting.draw_probability(axes[1, 0], either[window], "03 probability")
# plotting.draw_labels(axes[1, 1], plotting.with_matching_ids(joined, mask), f"04 components: {count[1]}")
# arrow = {"arrowstyle": "->", "color": "white"}
# axes[1, 1].annotate("four in one", (50, 45), (12, 90), color="white", arrowprops=arrow)
# plotting.draw_labels(axes[1, 2], plotting.with_matching_ids(apart, mask), f"05 watershed: {count[2]}")
# figure
# ```
#
# *A crop of a test image, 96 x 96 pixels: the image and its mask, with a colour for each of seven nuclei; the network,
# drawn; the probability that it predicts for every pixel; the connected components, where the four nuclei that touch
# are found as one; and the watershed, which tells them apart.*
#
# | Notebook | The question it answers |
# |---|---|
# | **01 Data exploration** | What is in the images? What does a training target cost even if it is learnt perfectly? |
# | 02 The U-Net | How is the network built, and how far does a pixel see? |
# | 03 Binary training | How does it learn which pixels belong to a nucleus? |
# | 04 Instances, and how to score them | How do pixels become nuclei, and how many of them are right? |
# | 05 Boundaries and watershed | How do nuclei that touch come apart? |
# | *06 Losses and tuning* | When is one network better than another, and when was it only luck? |
# | *07 Denoising* | Can the same network learn to remove noise without ever seeing a clean image? |
# | *08 Your own images* | What does all this find in images of your own, and when should you not believe it? |
#
# 01 to 05 are the course, 06 and 07 continue it, and 08 takes it home.
#
# Before any learning, look at what there is to learn from: a mistake made here shows up only later, as a score that is
# too low or too good to be true.
#
# **After this notebook you can**
#
# * describe a segmentation data set: sizes, intensities, objects, and what is unusual about it;
# * explain why the ids in a label image have no meaning and cannot be predicted by regression;
# * say what a training target costs even when it is learnt perfectly, before you train on it;
# * turn images of different sizes into batches for PyTorch.
#
# **You need** Python and NumPy; a little PyTorch helps at the end.
#
# **Time** about {{minutes}} minutes of work. Computing: under a minute, on a CPU or a GPU.

# %%
from collections import Counter
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from scipy.ndimage import binary_erosion, maximum_filter, minimum_filter, uniform_filter
from skimage.segmentation import find_boundaries
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from course_utils import connected_components, f1_score, load_data, normalize_percentiles, plotting
from course_utils.arguments import as_list, check_arguments, check_crop_fits  # for the course's own functions
from course_utils.display import show
from course_utils.exercises import check
from course_utils.exercises.claims import claim
from course_utils.exercises.guesses import ask, compare
from course_utils.exploration import nucleus_areas, touching_ids
from course_utils.results import record_scores

plotting.use_course_style()

# %% [markdown]
# The next cell holds everything you may want to change: where the images come from, how large the networks are and how
# long they train (`smoke`, `laptop` or `full`; `auto` chooses for your machine), the seed of all random numbers, and a
# folder for results.

# %% tags=["parameters"]
data_source = "embedded"  # or "dsb2018" (a download), "kaggle", "auto", a folder, a zip
profile = "auto"
seed = 0
output = "output"

# %% [markdown]
# ## The data
#
# Two data sets have the same layout, and everything below runs on either:
#
# * `embedded`, a small **synthetic** set, part of the course. Its images are drawn by a program that imitates the real
#   ones. Nothing has to be downloaded.
# * `dsb2018`, 497 **real** fluorescence images: the part of the 2018 Data Science Bowl that was published with
#   StarDist. The images were contributed by many laboratories and annotated by a team of biologists; they are in the
#   public domain (CC0, image set BBBC038v1 of the Broad Bioimage Benchmark Collection; Caicedo et al., *Nature Methods*
#   2019).
#
# Each image is a 2-D array of 8-bit grey values: a fluorescent dye binds to DNA, so nuclei are bright. For each image
# there is a **mask**, also called label image: an integer array of the same shape, 0 on the background and one number,
# the **id**, on all pixels of one nucleus.

# %%
data = load_data(data_source)
print(data)

# %% [markdown]
# Look at a few of them. In every figure of the course a mask has a dark background and one colour for each id.

# %% tags=["fold"]
from_few_to_many = sorted(data.train, key=lambda sample: len(nucleus_areas(sample.mask)))
picked = [from_few_to_many[index] for index in np.linspace(0, len(data.train) - 1, 5).astype(int)]
figure, axes = plotting.grid(2, 5, width=2.2)
for column, sample in enumerate(picked):
    height, width = sample.image.shape
    plotting.draw_image(axes[0, column], sample.image, f"{height} x {width}")
    plotting.draw_labels(
        axes[1, column], sample.mask, f"{np.count_nonzero(np.unique(sample.mask))} nuclei"
    )
show(
    figure,
    "Five training images, from the fewest nuclei to the most, each stretched to its own range of intensities, and "
    "below them their masks.",
)
n_nuclei = [len(nucleus_areas(sample.mask)) for sample in (picked[0], picked[-1])]
claim(n_nuclei[0] < 10 and n_nuclei[1] > 100, "Some images have fewer than ten nuclei, others more than a hundred.")

# %% [markdown]
# You should see bright, roundish nuclei on a dark background. Some lie alone, some touch; some images hold fewer than
# ten, others more than a hundred. Each image is stretched to its own brightness here. Without that, many would look
# nearly black: below you measure how much they differ.

# %% [markdown]
# ## Sizes
#
# The images come from different microscopes and differ in size. A network is trained on *batches*, and a batch is one
# array, so all images in it must have the same shape. First find out which shapes there are.
#
# ### Exercise 1.1: Count the image sizes
#
# {{difficulty}}
#
# Write `count_shapes(images)`. It returns a dict that maps each shape `(H, W)` to the number of images that have it.
#
# In every exercise the docstring is that of the course's own function. Of the errors under `Raises`, write only those
# that the task asks for: the checks ask for no others.

# %% [markdown] expected="1.1"
# Expected: two images of one size and one of another give
#
# ```python expected
# count_shapes([np.zeros((2, 3)), np.zeros((4, 4)), np.zeros((2, 3))])
# ```
#
# <details><summary>Hint 1</summary>
#
# Every array has an attribute with its shape, which can be the key of a dict.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Start with an empty dict. For each image, add one to the count of its shape; `counts.get(key, 0)` gives 0 for a key
# that is not there yet.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Counting equal things is so common that Python has a class for it in the module `collections`. It is a dict, too;
# `dict(...)` turns it into a plain one.
#
# </details>

# %% exercise="1.1"
from course_utils import count_shapes

# %% check="1.1"

# %% tags=["nbval-check-output"]
shapes = pd.DataFrame(
    {
        "training": count_shapes([sample.image for sample in data.train]),
        "test": count_shapes([sample.image for sample in data.test]),
    }
)
shapes = shapes.fillna(0).astype(int).sort_index().rename_axis(["height", "width"])
assert shapes["training"].sum() == len(data.train) and shapes["test"].sum() == len(data.test)
shapes

# %% [markdown]
# The table has few rows, but more than one. Remember the sides: a U-Net of depth 4 halves the image four times, so both
# sides must be divisible by $2^4 = 16$.

# %%
sides = sorted({side for shape in shapes.index for side in shape})
awkward = [side for side in sides if side % 16 != 0]
print(f"sides: {sides}, not divisible by 16: {awkward}")
squares = [min(sample.image.shape) == max(sample.image.shape) <= 400 for sample in data.train]
claim(np.mean(squares) > 0.7, "More than 70 % of the training images are squares of at most 400 pixels.")
claim(len(awkward) > 0, "Some sides are not divisible by 16.")

# %% [markdown]
# Most images are square and small, some are wide, and some sides do not fit a U-Net. Notebook 02 deals with that.

# %% [markdown] question="1a"
# **Question 1a.** What breaks if images of different sizes are put in one batch? Name three remedies and what each
# costs.

# %% [markdown] answer="1a"
# `torch.stack` refuses tensors of different shapes, so no batch can be built at all. Remedies:
#
# * **Crop** all images to one size. Nothing is distorted, and random crops also multiply the data. But nuclei are cut
#   at the crop's border, and the network sees less context there.
# * **Pad** all images to the largest. Nothing is lost, but much computing time goes into padding, and a black border
#   looks like an edge that no real image has (reflecting the image is better).
# * **Resize** all images. Simple, but nuclei of the same type then appear at different scales, shapes are distorted
#   when the aspect ratio changes, and a mask must be resized without interpolation, or new ids appear in between.
#
# (Batches of one image avoid the problem, but training is slower and its steps are noisier.) This course crops for
# training and pads for prediction.

# %% [markdown]
# ## Nuclei
#
# How large are nuclei, how many are in an image, and how much of an image do they cover?

# %%
areas = np.concatenate([nucleus_areas(sample.mask) for sample in data.train])
counts = np.array([len(nucleus_areas(sample.mask)) for sample in data.train])
coverage = np.array([np.mean(sample.mask > 0) for sample in data.train])

# %% tags=["fold"]
figure, axes = plotting.grid(1, 3, width=3.4, height=2.8)
sns.histplot(areas, log_scale=True, bins=40, ax=axes[0, 0]).set(
    xlabel="area of a nucleus [pixels]", ylabel="nuclei"
)
sns.histplot(counts, log_scale=True, bins=25, ax=axes[0, 1]).set(
    xlabel="nuclei in an image", ylabel="images"
)
sns.histplot(100 * coverage, bins=25, ax=axes[0, 2]).set(
    xlabel="covered by nuclei [%]", ylabel="images"
)
show(
    figure,
    "Area of nuclei, nuclei per image (both on logarithmic axes), and the share of pixels "
    "that belong to a nucleus.",
)

# %%
print(f"area: {areas.min()} to {areas.max()}, median {np.median(areas):.0f} pixels")
print(f"nuclei per image: {counts.min()} to {counts.max()}, median {np.median(counts):.0f}")
print(f"foreground: {100 * coverage.mean():.1f} % of the pixels on average")
claim(counts.min() > 0 and counts.max() > 100, "Every image has nuclei, and some have more than a hundred.")
claim(areas.max() > 100 * areas.min(), "The largest nucleus is more than a hundred times as large as the smallest.")
claim(np.mean(areas < 64) > 0.03, "More than 3 % of the nuclei are smaller than 64 pixels.")
claim(np.mean(coverage) < 0.3, "More than 70 % of the pixels are background.")

# %% [markdown]
# Three things to keep in mind:
#
# * Between the smallest and the largest nucleus lie two orders of magnitude. A method must handle both.
# * Tiny nuclei exist. A filter that drops "specks" under 64 pixels, the default of some libraries, throws real nuclei
#   away.
# * Most pixels are background. A network that says "background" everywhere is right on most pixels and finds nothing:
#   pixel accuracy is a poor score (notebook 03).

# %% [markdown]
# ## Ids have no meaning
#
# Take one mask, cut a piece out of it, and compare the ids in both.

# %%
def ids_of(mask):
    ids = np.unique(mask)
    return ids[ids > 0]


smallest = min(sample.mask.size for sample in data.train)
sample = max((s for s in data.train if s.mask.size == smallest), key=lambda s: len(ids_of(s.mask)))
height, width = sample.mask.shape
crop = sample.mask[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
for name, mask in [("mask", sample.mask), ("crop", crop)]:
    print(f"{name}: {len(ids_of(mask))} nuclei, ids {ids_of(mask)[:6]} ... {ids_of(mask)[-2:]}")
claim(ids_of(crop).max() > len(ids_of(crop)), "The ids in the crop have gaps.")

masks = [sample.mask for sample in data.train + data.test]
print(f"with gaps before any cropping: {sum(m.max() > len(ids_of(m)) for m in masks)} of {len(masks)} masks")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 2, width=3.2)
plotting.draw_labels(axes[0, 0], sample.mask, f"mask, largest id {sample.mask.max()}")
frame = plt.Rectangle((width // 3, height // 3), crop.shape[1], crop.shape[0], fill=False, color="white", lw=2)
axes[0, 0].add_patch(frame)
plotting.draw_labels(axes[0, 1], crop, f"crop: {len(ids_of(crop))} nuclei, largest id {crop.max()}")
show(figure, "A mask with a white frame, and the piece inside the frame: its nuclei keep their ids and colours.")

# %% [markdown]
# The nuclei in the piece keep their ids; those outside take theirs away, and the numbers have **gaps**. Here that comes
# from cropping alone: in the real set none of the 497 masks has a gap before it is cropped. In the synthetic set a
# third of the masks have gaps from the start, as if they had been cut out of larger ones. Either way, `mask.max()` is
# not the number of nuclei.
#
# The order of the ids means nothing either. Renumber the nuclei of the whole mask at random: it is the same
# annotation, as correct as before.

# %%
rng = np.random.default_rng(seed)
ids = ids_of(sample.mask)
new_id = np.zeros(sample.mask.max() + 1, dtype=int)
new_id[ids] = rng.permutation(ids)
renumbered = new_id[sample.mask]

nuclei = sample.mask > 0
difference = np.mean((sample.mask[nuclei] - renumbered[nuclei]) ** 2)
variance = np.var(sample.mask[nuclei])
print(f"F1 of one against the other: {f1_score(renumbered, sample.mask):.3f}")
print(f"mean squared difference of the ids: {difference:.0f}; variance of the ids: {variance:.0f}")
claim(difference > variance, "The masks differ more from each other than from a constant.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 3, width=3.2)
plotting.draw_image(axes[0, 0], sample.image, "image")
plotting.draw_labels(axes[0, 1], sample.mask, "mask")
plotting.draw_labels(axes[0, 2], renumbered, "the same mask, renumbered")
show(
    figure,
    "One image with two masks that are equally right: the shapes are the same, the ids "
    "(colours) are not.",
)

# %% [markdown]
# As segmentations, the two masks are identical (F1 = 1). As arrays of numbers they differ *more* than the mask differs
# from its own mean: a network that answered with the average id everywhere would have a lower squared error than one
# that found every nucleus perfectly and numbered them in another order.

# %% [markdown] question="1b"
# **Question 1b.** Do the ids have a meaning? Could a U-Net be trained to predict them, by regression or as classes?

# %% [markdown] answer="1b"
# The ids only say which pixels belong together; any renumbering is just as correct. A U-Net cannot predict them:
#
# * **Regression** punishes correct answers with another numbering, as measured above, and the target is ambiguous:
#   nothing in the image says which nucleus is number 7. If one numbering is as likely as another, the best answer is
#   the mean over all of them, the same number on every nucleus. Also, nucleus 4 is not something "between nucleus 3
#   and nucleus 5".
# * **Classification** would need one class for each id, but the number of nuclei has no limit, and class 7 would look
#   like class 8. Away from the border a convolution does not know positions either: two nuclei that look alike, in
#   surroundings that look alike, get the same answer, but need different ids.
#
# So the network predicts something that every pixel can know from its surroundings, such as "nucleus or not"
# (notebook 03) or "interior, boundary or background" (notebook 05), and instances are made from it afterwards.

# %% [markdown]
# ## Touching nuclei, and what a perfect network would score
#
# The simplest way to find nuclei: decide for every pixel whether it belongs to a nucleus (the **binary target**: 1 on
# every nucleus, 0 elsewhere), then call every connected region one nucleus. It fails where nuclei touch. How often do
# they?

# %%
n_touching = sum(len(touching_ids(sample.mask)) for sample in data.test)
n_nuclei = sum(len(nucleus_areas(sample.mask)) for sample in data.test)
print(f"{n_touching} of {n_nuclei} test nuclei touch another: {100 * n_touching / n_nuclei:.0f} %")
claim(0.2 < n_touching / n_nuclei < 0.5, "Between a fifth and a half of the test nuclei touch another.")

# %% [markdown]
# **Predict, then run.** Suppose that a network learnt this target perfectly: *every* pixel of the test images is right.
# Take the connected components and score them against the true masks with the F1 score (you write it in notebook 04; 1
# means that every nucleus is found and nothing else). What is the mean F1 over the test images?

# %%
ask("01 exact target", "Every pixel is right. What is the mean F1 of the components?", low=0.0, high=1.0, step=0.01)

# %%
def components_f1(foregrounds):
    """Mean F1 of the connected components, given a foreground (H, W) for each test image."""
    found = [connected_components(foreground.astype(float)) for foreground in foregrounds]
    return float(np.mean([f1_score(components, sample.mask) for components, sample in zip(found, data.test)]))


exact = [sample.mask > 0 for sample in data.test]
exact_f1 = components_f1(exact)
compare("01 exact target", exact_f1)

# %% [markdown]
# This is the score of a network that reproduces *this target* exactly. It is **not** a limit of what a network and
# connected components can reach, as you will see: is it the network that is at fault, or the target?
#
# Change the target, and see what happens. Three ways to remove pixels from it, so that nuclei come apart:
#
# * erode the foreground as a whole: remove its outermost pixels;
# * erode each nucleus on its own: remove its outermost pixels, also where it touches another nucleus;
# * remove only the pixels **where nuclei meet**: those with a pixel of another nucleus among their eight neighbours.
#
# Which of them helps, and which does most? Decide before you go on.

# %%
WAYS = ["foreground eroded as a whole", "each nucleus eroded", "cut where nuclei meet"]
ask("01 best target", "Which way raises F1 most?", options=[*WAYS, "none of them"])

# %%
def erode_nuclei(mask, pixels):
    """Remove the outermost pixels of each nucleus, `pixels` times."""
    for _ in range(pixels):
        mask = np.where(find_boundaries(mask, mode="inner"), 0, mask)
    return mask


def meeting_pixels(mask):
    """Pixels of a nucleus that have a pixel of another nucleus among their eight neighbours; boolean (H, W)."""
    highest = maximum_filter(mask, size=3)
    lowest = minimum_filter(np.where(mask > 0, mask, mask.max() + 1), size=3)
    return (mask > 0) & (lowest != highest)


# %%
masks = [sample.mask for sample in data.test]
as_a_whole = [[binary_erosion(f, iterations=n, border_value=1) for f in exact] for n in (1, 2, 3)]
each_nucleus = [[erode_nuclei(mask, n) > 0 for mask in masks] for n in (1, 2, 3)]
cut = [foreground & ~meeting_pixels(mask) for foreground, mask in zip(exact, masks)]


def removed_and_f1(foregrounds):
    """Mean share of the pixels that were removed, in percent of the image, and the mean F1 of what is left."""
    removed = [np.mean(before & ~after) for before, after in zip(exact, foregrounds)]
    return 100 * np.mean(removed), components_f1(foregrounds)


eroded = [[(0, exact_f1), *map(removed_and_f1, targets)] for targets in (as_a_whole, each_nucleus)]
curves = dict(zip(WAYS, [*eroded, [removed_and_f1(cut)]]))
best = max(WAYS, key=lambda name: max(f1 for _, f1 in curves[name]))
compare("01 best target", best, f"F1 is {max(f1 for _, f1 in curves[best]):.3f}.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=6.5, height=3.6)
for (name, points), style in zip(curves.items(), ["--s", "-o", "*"]):
    axes[0, 0].plot(*zip(*points), style, label=name, markersize=14 if style == "*" else 6)
for pixels, (x, y) in enumerate(curves["each nucleus eroded"]):
    label, place = (f"{pixels} px", (8, 3)) if pixels else ("exact target", (-4, -16))
    axes[0, 0].annotate(label, (x, y), place, textcoords="offset points")
axes[0, 0].set(xlabel="pixels removed from the target [% of the image]", ylabel="mean F1", ylim=(0, 1.05))
axes[0, 0].legend(loc="lower left")
show(figure, "Mean F1 of the connected components against the share of pixels removed from the binary target.")

# %%
cut_removed, cut_f1 = curves["cut where nuclei meet"][0]
eroded_removed, eroded_f1 = curves["each nucleus eroded"][1]
for name, points in curves.items():
    print(f"{name:28s} {', '.join(f'{removed:.2f} %: {f1:.3f}' for removed, f1 in points)}")
claim(0.8 < exact_f1 < 0.95, "With every pixel right, 5 to 20 % of the score are lost.")
claim(cut_f1 > 0.99 and cut_removed < 0.25, "A cut of less than 0.25 % of the pixels raises F1 above 0.99.")
claim(cut_f1 > eroded_f1 > exact_f1 + 0.05, "Eroding each nucleus by 1 pixel helps, but less than the cut.")
claim(eroded_removed > 8 * cut_removed, "Eroding by 1 pixel removes more than eight times as many pixels as the cut.")
claim(curves["each nucleus eroded"][2][1] < exact_f1, "Eroding by 2 pixels is worse than the exact target.")
claim(curves["foreground eroded as a whole"][1][1] < exact_f1, "Eroding the whole foreground is worse, too.")

# %% [markdown]
# With the exact target about a tenth of the score is lost (F1 is 0.90 on the real images, 0.87 on the synthetic ones),
# and nearly all of that is due to the few pixels where nuclei meet. Without them (0.17 % of the pixels of the real
# images, 0.19 % of the synthetic ones) the same connected components reach F1 0.999 and 0.998. Eroding each nucleus by
# one pixel also opens gaps between nuclei (0.969 and 0.993), but removes about eleven times as many pixels, and eroding
# by 2 or 3 pixels does harm: small nuclei lose so much area that they no longer count as found (a disc 11 pixels wide
# is 7 pixels wide after eroding by 2, with 40 % of its area). Eroding the foreground as a whole does not help at all:
# where two nuclei have merged there is no gap to widen, and the neck between them is often wider than what is removed.
#
# Look at one place closely.

# %%
worst = int(np.argmin([f1_score(connected_components(f.astype(float)), mask) for f, mask in zip(exact, masks)]))
meeting, size = meeting_pixels(masks[worst]), 64
density = uniform_filter(meeting[size // 2 : -size // 2, size // 2 : -size // 2].astype(float), size // 2)
row, column = np.unravel_index(np.argmax(density), density.shape)
window = slice(row, row + size), slice(column, column + size)

# %% tags=["fold"]
figure, axes = plotting.grid(2, 3, width=2.4)
plotting.draw_image(axes[0, 0], data.test[worst].image[window], "test image, a crop")
plotting.draw_labels(axes[1, 0], masks[worst][window], "its nuclei")
for panels, name, foreground in zip(axes.T[1:], ["exact target", "cut target"], [exact[worst], cut[worst]]):
    plotting.draw_probability(panels[0], foreground[window].astype(float), name)
    components = connected_components(foreground.astype(float))
    plotting.draw_labels(panels[1], plotting.with_matching_ids(components, masks[worst])[window], "its components")
show(
    figure,
    "A crop of the test image with the lowest F1, where several nuclei meet. The components of the exact target join "
    "them; those of the cut target do not. Matching nuclei have the same colour.",
)

# %% [markdown]
# In the exact target only notches in the outline hint at where one nucleus ends and the next begins: the line between
# them is lost before any network is trained. In the cut target it is there, and the components are the nuclei.
#
# Why not simply train on the cut target? **Break it**: put some of the removed pixels back, chosen at random, as a
# network would that misses a few of them.

# %%
rng = np.random.default_rng(seed)
for share in (0.1, 0.2, 0.5):
    leaky = [f | (meeting_pixels(mask) & (rng.random(mask.shape) < share)) for f, mask in zip(cut, masks)]
    leaky_f1 = components_f1(leaky)
    print(f"{100 * share:3.0f} % of the removed pixels put back: F1 {leaky_f1:.3f}")
claim(abs(leaky_f1 - exact_f1) < 0.03, "With half of the line missing, the score is again that of the exact target.")

# %% [markdown]
# One missing pixel in the line can be enough to join two nuclei; with half of the line missing, nothing is left of the
# gain. So the target must do two things: show where nuclei meet, and be robust where this is learnt imperfectly. The
# boundary class and the watershed of notebook 05 do both: given its target exactly, that method reaches F1 above 0.99.

# %% [markdown]
# ## Intensities
#
# ### Exercise 1.2: Mean and standard deviation of all pixels
#
# {{difficulty}}
#
# Write `intensity_statistics(images)`. It returns `(mean, std)` over all pixels of all images as two Python floats. The
# images differ in size; every *pixel* has the same weight. `std` is the population standard deviation.

# %% [markdown] expected="1.2"
# Expected: three pixels with the values 0, 0 and 3 in two images, so the mean is 1 and the standard deviation is the
# square root of 2:
#
# ```python expected
# mean, std = intensity_statistics([np.array([[0, 0]]), np.array([[3]])])
# print(type(mean), round(mean, 4), round(std, 4))
# ```
#
# <details><summary>Hint 1</summary>
#
# The mean of the means of the images is not the mean of all pixels: the images differ in size. Divide once, at the end,
# by the number of all pixels.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The variance is the mean of the squared distances from the mean. It needs the mean first, so go over the images twice,
# or put all pixels into one long array.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Images are `uint8`. What are `200 + 100` and `0 - 3` in that type? Let NumPy compute in float64, and convert the
# results to Python floats at the end.
#
# </details>

# %% exercise="1.2"
from course_utils import intensity_statistics

# %% check="1.2"

# %%
images = [sample.image for sample in data.train]
mean, std = intensity_statistics(images)
print(f"mean {mean:.2f}, standard deviation {std:.2f}")

# %% [markdown]
# ### Exercise 1.3: Standardize an image
#
# {{difficulty}}
#
# Write `standardize(image, mean, std)`: `(image - mean) / std` as a **float32** array. The image itself must not
# change.
#
# A trap: `mean` and `std` are often NumPy scalars of type float64. Since NumPy 2, `float32_array - float64_scalar` is
# float64, and a network with float32 weights refuses such an input.

# %% [markdown] expected="1.3"
# Expected: a float32 array, even though `std` is a float64 scalar here:
#
# ```python expected
# standardize(np.array([[0, 4]], dtype=np.uint8), mean=2.0, std=np.float64(2.0))
# ```
#
# <details><summary>Hint 1</summary>
#
# Convert the image before you subtract: a `uint8` cannot be negative.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Three values enter: the image, `mean` and `std`. If one of them is float64, so is the result. Convert all three, or
# the result at the end.
#
# </details>

# %% exercise="1.3"
from course_utils import standardize

# %% check="1.3"

# %% [markdown]
# Compare two ways to normalise images. *Dataset-wide*: one mean and one standard deviation for all images. *Per image*:
# scale each image so that its own 1st percentile becomes 0 and its own 99.8th percentile becomes 1
# (`normalize_percentiles`). Percentiles are used instead of minimum and maximum because a single hot pixel would
# otherwise set the scale.

# %%
ways = {
    "raw": lambda image: image,
    "dataset-wide": lambda image: standardize(image, mean, std),
    "per image": normalize_percentiles,
}
assert ways["dataset-wide"](images[0]).dtype == ways["per image"](images[0]).dtype == np.float32


brightness = np.array([np.percentile(image, 99) for image in images])
ratio = brightness.max() / brightness.min()
print(f"99th percentile: {brightness.min():.0f} to {brightness.max():.0f} of 255, {ratio:.0f}-fold")
claim(np.mean(brightness < 64) > 1 / 3, "More than a third of the images use only a quarter of the grey scale.")
claim(5 < ratio < 20, "The brightest image is 5 to 20 times as bright as the dimmest.")
claim(areas.max() / areas.min() > 10 * ratio, "Areas vary over ten times as much as brightness.")

# %% [markdown]
# The images differ about tenfold in brightness, much less than the nuclei differ in area. But a difference of area is
# one of the nuclei, while brightness depends on the dye, the exposure and the microscope. Does scaling remove it?

# %%
contrasts, spread = {}, {}
for name, way in ways.items():  # one image at a time: copies of all of them as float32 take four times their memory
    contrasts[name] = np.array([np.ptp(np.percentile(way(image), [1, 99])) for image in images])
    spread[name] = np.percentile(contrasts[name], 95) / np.percentile(contrasts[name], 5)
    print(f"{name:13s} contrast of a bright image : contrast of a dim one = {spread[name]:.1f}")
claim(np.isclose(spread["raw"], spread["dataset-wide"], rtol=0.001), "Dataset-wide scaling does not change the ratio.")
claim(spread["per image"] < 0.5 * spread["raw"], "Per-image scaling more than halves it.")

# %% tags=["fold"]
figure, axes = plt.subplots(3, 1, figsize=(6.5, 5), sharex=True)
for panel, (name, contrast) in zip(axes, contrasts.items()):
    relative = contrast / np.median(contrast)
    panel.hist(relative, bins=np.geomspace(1 / 8, 8, 37), color=plotting.SKY, edgecolor="white")
    ends, height = np.percentile(relative, [5, 95]), 1.15 * panel.get_ylim()[1]
    panel.plot(ends, [height, height], "|-", color=plotting.BLACK, markersize=10)
    panel.set(ylabel="images", xscale="log", ylim=(0, 1.45 * height))
    panel.text(1, 1.08 * height, f"{name}: {spread[name]:.1f}-fold", ha="center", va="bottom")
ticks = [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]
axes[-1].set_xticks(ticks, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
axes[-1].minorticks_off()
axes[-1].set_xlabel("contrast of an image, as a multiple of the median contrast")
show(
    figure,
    "Contrast of the images (99th minus 1st percentile) on one logarithmic axis: as stored, after scaling all images "
    "alike, and after scaling each by its own percentiles. The bar spans the middle 90 % of the images. The upper "
    "two are the same; the third is much narrower.",
)

# %% [markdown]
# Dataset-wide standardisation moves and stretches all images *together*: the ratio between bright and dim images stays
# exactly what it was. Per-image percentiles bring them to one scale; the ratio shrinks to less than half. The rest of
# the course uses them.

# %%
picked = np.argsort(brightness)[[0, len(brightness) // 2, -1]]
standardized, by_percentile = ([ways[name](images[i]) for i in picked] for name in ("dataset-wide", "per image"))
low, high = np.percentile(standardized[0], [1, 99])
claim(high - low < 0.3 * 5, "After dataset-wide scaling, the dimmest image uses less than 30 % of the scale -1 to 4.")
ends = [np.percentile(image, 99.8) for image in by_percentile]
claim(np.allclose(ends, 1), "After scaling by percentiles, all three reach from 0 to 1.")

# %% tags=["fold"]
figure, axes = plotting.grid(2, 3, width=2.8)
for column, name in enumerate(["dimmest", "median", "brightest"]):
    axes[0, column].imshow(standardized[column], cmap="gray", vmin=-1, vmax=4)
    axes[1, column].imshow(by_percentile[column], cmap="gray", vmin=0, vmax=1)
    axes[0, column].set_title(f"{name}, dataset-wide")
    axes[1, column].set_title("per image")
for panel in axes.flat:
    panel.axis("off")
show(
    figure,
    "The dimmest, a median and the brightest image. Top: one grey scale after dataset-wide "
    "standardisation. Bottom: after per-image percentiles.",
)

# %% [markdown]
# In the top row the dim image is nearly flat. In the bottom row all three use the same range of grey values. They do
# not become alike: noise, background and the nuclei themselves still differ, and the network has to learn that.

# %% [markdown] question="1c"
# **Question 1c.** When would you still prefer dataset-wide normalisation?

# %% [markdown] answer="1c"
# When absolute brightness carries information: all images come from one calibrated instrument, and the question is
# about intensity (how much DNA is in a nucleus? is there any nucleus at all?). Per-image scaling throws that away: an
# empty image is stretched until its noise looks like signal. Here the images were not taken under equal conditions, so
# brightness says little about the nuclei, and every image contains some: per-image normalisation is the better choice.
# Statistics over several images come from the training images only, never from the test images.

# %% [markdown]
# ## Training and validation
#
# The **test** images are for the very end. Every choice before that (how long to train, which threshold) needs other
# images that the network was not trained on: the **validation** images. Set them aside now.
#
# ### Exercise 1.4: Set validation images aside
#
# {{difficulty}}
#
# Write `split_train_val(samples, every=20)`. The samples at indices 19, 39, 59, ... go to validation, all others to
# training. Return `(train, val)`, both in the original order.

# %% [markdown] expected="1.4"
# Expected: of seven samples, every third goes to validation.
#
# ```python expected
# split_train_val(list("abcdefg"), every=3)
# ```
#
# <details><summary>Hint 1</summary>
#
# With `every=20` the first validation sample has index 19: counted from one, it is the 20th.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Slices can have a step. For the training samples, go through the indices (`enumerate` helps) and leave the others out.
#
# </details>

# %% exercise="1.4"
from course_utils import split_train_val

# %% check="1.4"

# %%
train, val = split_train_val(data.train)
assert len(train) + len(val) == len(data.train)
print(f"every 20th: {len(train)} training and {len(val)} validation images")
train, val = split_train_val(data.train, every=8)
print(f"every 8th:  {len(train)} training and {len(val)} validation images")

# %% [markdown]
# A fixed rule is reproducible, and taking every 20th rather than the last twentieth keeps the mixture of sizes if the
# files are sorted by size or origin. The later notebooks use every 8th: a score from a few images says little, and the
# thresholds of notebook 05 are tuned on these images.
#
# ### What such a split hides
#
# No image is in both parts. But are the validation images really *new* to a network that saw the training images?
# Describe each image by its size and brightness, and look for the training image that is most like it.

# %%
def look(image):
    """Size and brightness of an image: six numbers, on a logarithmic scale."""
    return np.log2([*image.shape, *(1 + np.percentile(image, [5, 50, 95, 99.8]))])


looks = np.array([look(sample.image) for sample in train])
distances = np.array([np.abs(looks - look(sample.image)).mean(axis=1) for sample in val])
nearest = distances.argmin(axis=1)
share = np.median(distances.min(axis=1)) / np.median(distances)
print(f"median distance to the nearest training image: {100 * share:.0f} % of that to any training image")
claim(share < 0.25, "The nearest training image is more than four times as close as a typical one.")

# %% tags=["fold"]
figure, axes = plotting.grid(2, 5, width=2.0)
for column, index in enumerate(np.linspace(0, len(val) - 1, 5).astype(int)):
    plotting.draw_image(axes[0, column], val[index].image, "validation")
    plotting.draw_image(axes[1, column], train[nearest[index]].image, "training")
show(figure, "Five validation images, and below each the training image that is nearest in size and brightness.")

# %% [markdown]
# The pairs look as if they came from one experiment. Some may even come from one *field of view*, cut into tiles. Then
# the edge of one image continues in the other, and the pixels on both sides of the seam are nearly equal:

# %%
def unit(edge):
    edge = edge - edge.mean()
    return edge / max(np.linalg.norm(edge), 1e-9)


def seam(left, right):
    """Correlation of the last column of one image with the first column of another."""
    return float(unit(left[:, -1]) @ unit(right[:, 0]))


def best_continuation(image, others):
    """The highest correlation on any of the four sides, with the two images side by side (turned if need be)."""
    best = -1, None
    for other in others:
        if other.shape == image.shape:
            for pair in [(image, other), (other, image), (image.T, other.T), (other.T, image.T)]:
                best = max(best, (seam(*pair), pair), key=lambda found: found[0])
    return best


# %%
train_images = [sample.image for sample in train]
fits = {}
for name, part in [("test", data.test), ("validation", val)]:
    fits[name] = sorted((best_continuation(s.image, train_images) for s in part), key=lambda fit: -fit[0])
    tiles = sum(correlation > 0.98 for correlation, _ in fits[name])
    print(f"{tiles} of {len(part)} {name} images continue a training image (correlation above 0.98)")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 2, width=4.4, height=2.4)
for panel, (correlation, pair) in zip(axes[0], fits["validation"]):
    middle = np.clip(np.argmax(pair[0][:, -1]), 30, pair[0].shape[0] - 30)  # the brightest place at the seam
    halves = [pair[0][middle - 30 : middle + 30, -60:], pair[1][middle - 30 : middle + 30, :60]]
    plotting.draw_image(panel, np.hstack(halves), f"correlation at the seam {correlation:.3f}")
    for ends in ((0, 0.12), (0.88, 1)):
        panel.axvline(59.5, *ends, color=plotting.ORANGE, linewidth=2)
show(
    figure,
    "Crops of the two pairs of a validation and a training image whose edges fit best, side by side. The orange marks "
    "are at the seam.",
)

# %% [markdown]
# In the **real** set half of the validation images (27 of 55) are such tiles: the nucleus at the seam is half in a
# training image and half in a validation image. A split by index **leaks**: the score says how well the network does on
# more images of the same experiments, not on those of another laboratory. The published test images leak in the same
# way (33 of 50). Where the experiment of each image is known, split by experiment. The names of these files do not tell
# it, so the course keeps the published split, and its scores mean: on images like these. The **synthetic** images are
# drawn one by one, and none continues another (at the seam nothing fits but the brightness); but they come from ten
# families of alike images, and each validation image has near relatives among the training images.

# %% [markdown]
# ## Batches of crops
#
# ### Exercise 1.5: Cut a random window from image and mask
#
# {{difficulty}}
#
# Write `random_crop(image, mask, size, rng)`. It cuts the **same** window of `size` x `size` pixels out of both. `rng`
# is a `numpy.random.Generator`; all positions are equally likely, the last one included. If the image is smaller than
# the window, raise a `ValueError` that names both sizes.

# %% [markdown] expected="1.5"
# Expected: two windows of the same shape that show the same place. On an image of the course:
#
# ```python expected hidden alt="Four windows of one image, and below each the same window of its mask."
# sample = max(load_data("embedded").train, key=lambda sample: sample.mask.max())
# rng = np.random.default_rng(0)
# figure, axes = plotting.grid(2, 4, width=1.5)
# for image_axes, mask_axes in axes.T:
#     image_crop, mask_crop = random_crop(sample.image, sample.mask, 96, rng)
#     plotting.draw_image(image_axes, image_crop)
#     plotting.draw_labels(mask_axes, mask_crop)
# figure
# ```
#
# <details><summary>Hint 1</summary>
#
# A window is given by its upper left corner. In which rows can the corner be, if the image has `H` rows and the window
# `size`? How many rows is that?
#
# </details>
# <details><summary>Hint 2</summary>
#
# In `rng.integers(low, high)` the upper bound is never drawn.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Draw the corner once and cut both arrays with the same two slices. Check the sizes before you draw.
#
# </details>

# %% exercise="1.5"
from course_utils import random_crop

# %% check="1.5"

# %%
rng = np.random.default_rng(seed)
sample = max(train, key=lambda sample: len(nucleus_areas(sample.mask)))
side = min(128, *sample.image.shape)
figure, axes = plotting.grid(2, 5, width=2.0)
for column in range(5):
    image_crop, mask_crop = random_crop(sample.image, sample.mask, side, rng)
    plotting.draw_image(axes[0, column], image_crop)
    plotting.draw_labels(axes[1, column], mask_crop)
show(figure, "Five random windows of one image, with the same windows of its mask below.")

# %% [markdown]
# Image and mask must show the same place in each column. The ids of a crop have gaps, as you have seen: code that takes
# `mask.max()` for the number of nuclei is wrong from here on.
#
# ### Exercise 1.6: From a label image to a foreground target
#
# {{difficulty}}
#
# Write `binary_target(mask)`. It returns a float32 tensor of shape `(1, H, W)`: 1 on every nucleus, 0 elsewhere.

# %% [markdown] expected="1.6"
# Expected: ids 5 and 2 both become 1, and there is a new first axis.
#
# ```python expected
# binary_target(np.array([[0, 5], [2, 0]]))
# ```
#
# <details><summary>Hint 1</summary>
#
# Comparing the whole array with 0 tells for every pixel whether it is on a nucleus, whatever its id.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Convert the result to float32 in NumPy, then `torch.from_numpy`. Indexing with `None` adds an axis.
#
# </details>

# %% exercise="1.6"
from course_utils import binary_target

# %% check="1.6"

# %%
target = binary_target(sample.mask)
print(target.shape, target.dtype, target.unique())
assert target.shape == (1, *sample.mask.shape) and torch.equal(
    target.unique(), torch.tensor([0.0, 1.0])
)

# %% [markdown]
# ### Exercise 1.7: A dataset of random crops
#
# {{difficulty}}
#
# Write `NucleiDataset`, a `torch.utils.data.Dataset`. Item `i` is a pair: a random crop of image `i` as a float32
# tensor `(1, S, S)`, and `target_transform` of the same crop of its mask. With `augment=True`, image and mask are also
# flipped, and rotated by multiples of 90 degrees, **both in the same way**. Each access draws another crop, also in
# other workers of a loader and in the next epoch; the same `seed` and the same torch seed give the same crops again.
#
# Two things that easily go wrong:
#
# * *Joint augmentation.* `torchvision.transforms.v2` transforms several inputs together, but only if it knows what each
#   is: wrap the image as `tv_tensors.Image` and the mask as `tv_tensors.Mask`. A second plain tensor would pass through
#   unchanged.
# * *Random numbers.* A NumPy generator made in `__init__` is copied into every loader worker: each would draw the same
#   crops, and again in the next epoch. torch's own generator is seeded differently for every worker and epoch, so
#   derive the randomness from it.

# %% [markdown] expected="1.7"
# Expected: each `dataset[0]` gives a new crop of the same image and mask. With `augment=True`:
#
# ```python expected hidden alt="Five augmented crops of one image; below each the foreground target of that place."
# sample = max(load_data("embedded").train, key=lambda sample: sample.mask.max())
# dataset = NucleiDataset(
#     [normalize_percentiles(sample.image)], [sample.mask], binary_target, crop_size=128, augment=True
# )
# figure, axes = plotting.grid(2, 5, width=1.5)
# for image_axes, target_axes in axes.T:
#     image, target = dataset[0]
#     plotting.draw_image(image_axes, image[0].numpy())
#     plotting.draw_probability(target_axes, target[0].numpy())
# figure
# ```
#
# <details><summary>Hint 1</summary>
#
# A dataset needs three methods: `__init__` keeps what it is given, `__len__` returns the number of items, `__getitem__`
# makes one item. `random_crop` does most of the work.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Where does `rng` for `random_crop` come from? Draw one large random integer from torch inside `__getitem__`, and use
# it together with `self.seed` to make a new NumPy generator.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The way of the mask to torch and back: masks are often `uint16`, with which torch can do very little, so convert the
# crop to `int64` in NumPy, then `torch.from_numpy`, then add the channel axis with `[None]`. Ids are whole numbers: as
# floats, or resized with interpolation, they would no longer be ids. Back again: index `[0]`, then `.numpy()`.
#
# </details>
# <details><summary>Hint 4</summary>
#
# For the augmentation, make both tensors of shape `(1, S, S)`, wrap them as `tv_tensors.Image` and `tv_tensors.Mask`,
# and pass both to **one** call of the transform. `target_transform` expects a NumPy mask `(S, S)` again.
# `v2.RandomRotation((90, 90))` is a quarter turn, and `v2.RandomChoice` picks one of several transforms.
#
# </details>

# %% exercise="1.7"
from course_utils import NucleiDataset

# %% check="1.7"

# %%
images = [normalize_percentiles(sample.image) for sample in train]
masks = [sample.mask for sample in train]
smallest = min(min(image.shape) for image in images)
dataset = NucleiDataset(images, masks, binary_target, min(128, smallest), augment=True, seed=seed)
torch.manual_seed(seed)
loader = DataLoader(dataset, batch_size=6, shuffle=True)
batch_images, batch_targets = next(iter(loader))
print(batch_images.shape, batch_images.dtype, batch_targets.shape, batch_targets.dtype)

# %% tags=["fold"]
figure, axes = plotting.grid(2, 6, width=1.8)
for column in range(6):
    plotting.draw_image(axes[0, column], batch_images[column, 0].numpy())
    plotting.draw_probability(axes[1, column], batch_targets[column, 0].numpy())
show(figure, "One batch: six augmented crops and their foreground targets.")

# %% [markdown]
# In every column, image and target must match: if a target is mirrored, the augmentation treated the two differently.
# Now test two properties: new crops in the next epoch, and the same crops after the same seed.

# %%
torch.manual_seed(seed)
first, second = dataset[0][0], dataset[0][0]
torch.manual_seed(seed)
again = dataset[0][0]
print("the same item twice gives the same crop:      ", torch.equal(first, second))
print("the same item after the same torch seed does: ", torch.equal(first, again))
assert not torch.equal(first, second) and torch.equal(first, again)

# %% [markdown]
# **Break it**: what if image and mask are plain tensors, not wrapped as `tv_tensors`?

# %%
crowded = max(range(len(masks)), key=lambda index: np.mean(masks[index] > 0))
crop = np.s_[:128, :128]
image, mask = torch.from_numpy(images[crowded][crop]), torch.from_numpy(masks[crowded][crop].astype(np.int64))
flip = v2.RandomHorizontalFlip(p=1)
plain = flip(image, mask)
wrapped = flip(tv_tensors.Image(image[None]), tv_tensors.Mask(mask[None]))
claim(torch.equal(plain[0], image.flip(-1)), "The image is mirrored.")
claim(torch.equal(plain[1], mask), "The mask is not mirrored.")
claim(torch.equal(wrapped[1][0], mask.flip(-1)), "Wrapped as a mask, it is.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 3, width=3)
panels = {"before": (image, mask), "flipped, plain tensors": plain, "flipped, tv_tensors": [t[0] for t in wrapped]}
for panel, (name, (shown, labels)) in zip(axes[0], panels.items()):
    plotting.draw_outlines(panel, shown.numpy(), labels.numpy(), name)
show(
    figure,
    "A crop of an image with the outlines of its mask in orange: before, mirrored as plain tensors (the outlines "
    "are beside the nuclei), and mirrored as `tv_tensors` (they fit again).",
)

# %% [markdown]
# No error, no warning: the transform takes the first plain tensor for the image and passes the second one through. A
# network trained on such pairs learns from masks that belong to other places.

# %% [markdown]
# ## Optional: browse the images
#
# Needs a running kernel. Move the slider.

# %% tags=["optional"]
from course_utils.widgets import browse_images

browse_images(data.train)

# %% [markdown]
# ## What to remember
#
# * Ids are names, not numbers; after cropping they have gaps.
# * Score the target before you train on it: a perfect binary target loses a tenth of the F1, at the few pixels where
#   nuclei meet.
# * Brightness depends on the exposure, and differs about tenfold between images: normalise each image separately.
# * A split by index shows how well a network does on more of the same images. Ask which images belong together.
# * Crops make batches; random numbers must differ between epochs and workers, and still be repeatable.

# %%
record_scores(
    output,
    "01_data_exploration",
    {"exact_target_mean_f1": exact_f1, "cut_target_mean_f1": cut_f1, "touching_share": n_touching / n_nuclei},
)
plt.close("all")
