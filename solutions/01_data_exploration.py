# %% [markdown]
# # 01 Data exploration
#
# The course teaches a network to find every cell nucleus in a microscope image and to tell the nuclei apart. Before any
# learning, look at what there is to learn from. Half of the mistakes of the later notebooks are made here, unnoticed.
#
# **After this notebook you can**
#
# * describe a segmentation data set: sizes, intensities, objects, and what is unusual about it;
# * explain why the ids in a label image have no meaning and cannot be predicted by regression;
# * say what score a method can reach at best, before you train it;
# * turn images of different sizes into batches for PyTorch.
#
# **You need** Python and NumPy; a little PyTorch helps at the end.
#
# **Time** about 90 minutes of work. Computing: under a minute, on a CPU or a GPU.

# %%
from collections import Counter
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from course_utils import connected_components, f1_score, load_data, normalize_percentiles, plotting
from course_utils.arguments import check_arguments
from course_utils.display import show
from course_utils.exercises import check
from course_utils.exercises.claims import claim
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

# %%
picked = [data.train[index] for index in np.linspace(0, len(data.train) - 1, 5).astype(int)]
figure, axes = plotting.grid(2, 5, width=2.2)
for column, sample in enumerate(picked):
    height, width = sample.image.shape
    plotting.draw_image(axes[0, column], sample.image, f"{height} x {width}")
    plotting.draw_labels(
        axes[1, column], sample.mask, f"{np.count_nonzero(np.unique(sample.mask))} nuclei"
    )
show(
    figure,
    "Five training images, each stretched to its own range of intensities, and below them their masks.",
)

# %% [markdown]
# You should see bright, roundish nuclei on a dark background. Some lie alone, some touch; some images hold a handful,
# some hundreds. Each image is stretched to its own brightness here. Without that, many would look black; below you
# measure how much they differ.

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
# Most images are square and small, some are wide. Remember the sides: a U-Net of depth 4 halves the image four times,
# so both sides must be divisible by $2^4 = 16$. Of the sides in the real set, 360, 347, 260, 520 and 696 are not.
# Notebook 02 deals with that.

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

claim(areas.max() > 5 * np.median(areas), "The largest nucleus is more than five times as large as the median.")
claim(np.mean(coverage) < 0.5, "Most pixels are background.")
print(f"area: {areas.min()} to {areas.max()}, median {np.median(areas):.0f} pixels")
print(f"nuclei per image: {counts.min()} to {counts.max()}, median {np.median(counts):.0f}")
print(f"foreground: {100 * coverage.mean():.1f} % of the pixels on average")

# %% [markdown]
# Three things to keep in mind:
#
# * The largest nucleus is more than five times as large as the median one; between the smallest and the largest lie
#   orders of magnitude. A method must handle both.
# * Tiny nuclei exist. A filter that drops "specks" under 64 pixels, the default of some libraries, throws real nuclei
#   away.
# * Most pixels are background. A network that says "background" everywhere is right on most pixels and finds nothing:
#   pixel accuracy is a poor score (notebook 03).

# %% [markdown]
# ## Ids have no meaning
#
# Print the ids of four masks that have gaps.

# %%
def missing_ids(sample):
    ids = np.unique(sample.mask[sample.mask > 0])
    return ids.max(initial=0) - len(ids)


for sample in sorted(data.train, key=missing_ids)[-4:]:
    ids = np.unique(sample.mask)
    ids = ids[ids > 0]
    print(f"{sample.name[:16]:16s}  {len(ids):3d} nuclei, ids {ids[:5]} ... {ids[-2:]}, {missing_ids(sample)} left out")

# %% [markdown]
# The numbers say nothing about the nuclei. An annotation tool counted upward as people drew; where somebody deleted an
# outline, or a piece was cut out of a larger image, numbers are missing. To see what follows from that, renumber the
# nuclei of one mask at random. It is the same annotation, as correct as before.

# %%
smallest = min(sample.mask.size for sample in data.train)
sample = max((s for s in data.train if s.mask.size == smallest), key=lambda s: len(np.unique(s.mask)))
rng = np.random.default_rng(seed)
ids = np.unique(sample.mask)
ids = ids[ids > 0]
new_id = np.zeros(sample.mask.max() + 1, dtype=int)
new_id[ids] = rng.permutation(ids)
renumbered = new_id[sample.mask]

figure, axes = plotting.grid(1, 3, width=3.2)
plotting.draw_image(axes[0, 0], sample.image, "image")
plotting.draw_labels(axes[0, 1], sample.mask, "mask")
plotting.draw_labels(axes[0, 2], renumbered, "the same mask, renumbered")
show(
    figure,
    "One image with two masks that are equally right: the shapes are the same, the ids "
    "(colours) are not.",
)

nuclei = sample.mask > 0
difference = np.mean((sample.mask[nuclei] - renumbered[nuclei]) ** 2)
variance = np.var(sample.mask[nuclei])
print(f"F1 of one against the other: {f1_score(renumbered, sample.mask):.3f}")
print(f"mean squared difference of the ids: {difference:.0f}; variance of the ids: {variance:.0f}")
claim(difference > variance, "The masks differ more from each other than from a constant.")

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
#   nothing in the image says which nucleus is number 7. The best the network can do is the mean over all numberings, a
#   constant. Also, nucleus 4 is not something "between nucleus 3 and nucleus 5".
# * **Classification** would need one class for each id, but the number of nuclei has no limit, and class 7 would look
#   like class 8. A convolution does not know positions either: two nuclei that look alike get the same answer, but need
#   different ids.
#
# So the network predicts something that every pixel can know from its surroundings, such as "nucleus or not"
# (notebook 03) or "interior, boundary or background" (notebook 05), and instances are made from it afterwards.

# %% [markdown]
# ## Touching nuclei, and a ceiling
#
# The simplest way to find nuclei: decide for every pixel whether it belongs to a nucleus, then call every connected
# region one nucleus. It fails where nuclei touch. How often do they?

# %%
n_touching = sum(len(touching_ids(sample.mask)) for sample in data.test)
n_nuclei = sum(len(nucleus_areas(sample.mask)) for sample in data.test)
print(f"{n_touching} of {n_nuclei} test nuclei touch another: {100 * n_touching / n_nuclei:.0f} %")

# %% [markdown]
# Now suppose that a network were perfect: *every* pixel right. Take the true foreground, find its connected components,
# and score them against the truth with the F1 score (you write it in notebook 04; 1 means that every nucleus is found
# and nothing else).

# %%
components = [connected_components((sample.mask > 0).astype(float)) for sample in data.test]
scores = [f1_score(found, sample.mask) for found, sample in zip(components, data.test)]
ceiling = float(np.mean(scores))
print(f"mean F1 of the components of the true foreground: {ceiling:.3f}")
claim(ceiling < 0.99, "Perfect pixels do not give perfect nuclei.")

worst = int(np.argmin(scores))
figure, axes = plotting.grid(1, 3, width=3.2)
plotting.draw_image(axes[0, 0], data.test[worst].image, "test image")
plotting.draw_labels(axes[0, 1], data.test[worst].mask, "truth")
plotting.draw_labels(
    axes[0, 2],
    plotting.with_matching_ids(components[worst], data.test[worst].mask),
    f"components, F1 = {scores[worst]:.2f}",
)
show(
    figure,
    "The test image with the lowest F1: nuclei that touch in the true mask become one component.",
)

# %% [markdown]
# This is a **ceiling**: no network, however good, can exceed it this way. On the 50 real test images it is 0.90,
# because nearly a third of their nuclei touch another. A tenth of the score is lost even with perfect pixels. That is
# why the course does not end with notebook 04: the method of notebook 05 has a far higher ceiling, 0.997.

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
standardized = [standardize(image, mean, std) for image in images]
by_percentile = [normalize_percentiles(image) for image in images]
assert standardized[0].dtype == by_percentile[0].dtype == np.float32


def bright_end(arrays):
    return [np.percentile(array, 99) for array in arrays]


panels = {"raw": images, "dataset-wide": standardized, "per image": by_percentile}
figure, axes = plotting.grid(1, 3, width=3.4, height=2.8)
for panel, (name, arrays) in zip(axes[0], panels.items()):
    sns.histplot(bright_end(arrays), bins=30, ax=panel).set(
        title=name, xlabel="99th percentile of an image", ylabel="images"
    )
show(
    figure,
    "The 99th percentile of each image: as stored, after scaling all images alike, and after "
    "scaling each by its own percentiles.",
)

# %%
spread = {}
for name, arrays in panels.items():
    contrast = [np.percentile(array, 99) - np.percentile(array, 1) for array in arrays]
    spread[name] = np.percentile(contrast, 95) / np.percentile(contrast, 5)
    print(f"{name:13s} contrast of a bright image : contrast of a dim one = {spread[name]:.1f}")
claim(np.isclose(spread["raw"], spread["dataset-wide"], rtol=0.01), "Dataset-wide scaling does not change the ratio.")
claim(spread["per image"] < 0.5 * spread["raw"], "Per-image scaling more than halves it.")

# %% [markdown]
# Dataset-wide standardisation moves and stretches all images *together*: the ratio between bright and dim images stays
# exactly what it was. Per-image percentiles bring them to one scale; the ratio shrinks to less than half. The rest of
# the course uses them.

# %%
order = np.argsort([np.percentile(image, 99) for image in images])
picked = order[[0, len(order) // 2, -1]]
figure, axes = plotting.grid(2, 3, width=2.8)
for column, (index, name) in enumerate(zip(picked, ["dimmest", "median", "brightest"])):
    top = axes[0, column].imshow(standardized[index], cmap="gray", vmin=-1, vmax=4)
    below = axes[1, column].imshow(by_percentile[index], cmap="gray", vmin=0, vmax=1)
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
# In the top row the dim image is nearly flat; in the bottom row all three look alike to the eye, and to the network.

# %% [markdown] question="1c"
# **Question 1c.** When would you still prefer dataset-wide normalisation?

# %% [markdown] answer="1c"
# When absolute brightness carries information: all images come from one calibrated instrument, and the question is
# about intensity (how much DNA is in a nucleus? is there any nucleus at all?). Per-image scaling throws that away: an
# empty image is stretched until its noise looks like signal. Here images come from many microscopes with arbitrary
# exposure, brightness means nothing, and nearly every image contains nuclei, so per-image normalisation is the better
# choice. Either way, statistics come from the training images only, never from the test images.

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

# %% [markdown]
# ## Batches of crops
#
# ### Exercise 1.5: Cut a random window from image and mask
#
# {{difficulty}}
#
# Write `random_crop(image, mask, size, rng)`. It cuts the **same** window of `size` x `size` pixels out of both. `rng`
# is a `numpy.random.Generator`; every position must be possible, including the last one. If the image is smaller than
# the window, raise a `ValueError` that names both sizes.

# %% [markdown] expected="1.5"
# Expected: two windows of the same shape that show the same place. On an image of the course:
#
# ```python expected hidden alt="Four windows of one image, and below each the same window of its mask."
# sample = load_data("embedded").train[0]
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
# Image and mask must show the same place in each column. Crops have a side effect on ids: a nucleus outside the window
# leaves a **gap** in the numbers. Code that takes `mask.max()` for the number of nuclei is wrong from here on.
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
# flipped, and rotated by multiples of 90 degrees, **both in the same way**.
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
# sample = load_data("embedded").train[0]
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
# * Touching nuclei limit every method that cannot separate them. You can know the limit before training.
# * Brightness varies more between images than the nuclei do: normalise each image separately.
# * Crops make batches; random numbers must differ between epochs and workers, and still be repeatable.
#
# Next: **02 The U-Net**, the network that will learn from these batches.

# %%
record_scores(
    output,
    "01_data_exploration",
    {"ceiling_mean_f1": ceiling, "touching_share": n_touching / n_nuclei},
)
plt.close("all")
