# %% [markdown]
# # 08 Your own images
#
# So far every image came with a mask that somebody had drawn. Your own images have none: nobody tells you the score.
# This notebook takes a folder of images to a table of measurements, and shows how to find out when not to believe it.
#
# **After this notebook you can**
#
# * segment a folder of images, and write label images, pictures to look at and one table;
# * measure nuclei in pixels and in micrometres, and name what biases the measurements;
# * recognise the kinds of images on which a trained network fails, and mend what can be mended;
# * say what agreement without a truth proves, and what it does not.
#
# **You need** notebooks 01 to 05.
#
# **Time** about {{minutes}} minutes of work. Computing: with the pretrained network less than a minute on two CPU cores
# in the profile `smoke` and a few minutes in `laptop`; `full`, meant for a GPU, has not been measured yet.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.stats import spearmanr
from skimage.io import imsave
from skimage.measure import regionprops_table
from skimage.segmentation import mark_boundaries, relabel_sequential
from skimage.transform import resize

from course_utils import f1_score, get_profile, load_data, plotting, predict, watershed_instances
from course_utils.arguments import check_arguments  # used by the course's own functions, not by yours
from course_utils.display import show
from course_utils.exercises import check
from course_utils.exercises.claims import claim
from course_utils.exercises.guesses import ask, compare
from course_utils.exploration import normalize_percentiles
from course_utils.networks import boundary_model
from course_utils.own_images import TrainedSizes, read_image, segment_image, subtract_background
from course_utils.results import record_scores, summarize_error
from course_utils.segmentation import remove_small, remove_uncertain

plotting.use_course_style()

# %% tags=["parameters"]
data_source = "embedded"  # or "dsb2018" (a download), "kaggle", "auto", a folder, a zip
profile = "auto"
seed = 0
output = "output"
folder = ""  # of your own images, such as "/home/me/experiment_7"; empty: a few examples

# %%
settings = get_profile(profile)
data = load_data(data_source)
print(data)
model = boundary_model(data, settings, seed, output)
tests = sorted(data.test, key=lambda sample: sample.image.size)[: 4 if settings.name == "smoke" else 12]  # small ones

# %% [markdown]
# ## A folder of images
#
# If `folder` is empty, a few test images are written into the folder `output`, as microscopes and people store them:
# most with 8 bits, one with **16 bits** as a TIFF, one as a **colour** picture of a blue stain, and a file that is not
# an image. Then they count as images without masks. Put the path of your own folder into `folder`, and run everything
# again.


# %%
SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")


def write_examples(place):
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob("image_*"):
        old.unlink()
    for number, sample in enumerate(tests[:6], start=1):
        image, name = sample.image, f"image_{number}.png"
        if number == 2:
            image, name = image.astype(np.uint16) * 100, f"image_{number}_16bit.tif"
        if number == 3:
            image, name = np.stack([0 * image, 0 * image, image], axis=-1), f"image_{number}_colour.png"
        imsave(place / name, image, check_contrast=False)
    (place / "notes.png").write_text("The microscope was repaired on Monday.")
    return place


place = Path(folder).expanduser() if folder else write_examples(Path(output) / "08_example_images")
files = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
print(f"{len(files)} files in {place.name}")

# %% [markdown]
# `segment_image` does for one image what you built in notebooks 04 and 05, plus what foreign images need. It takes any
# size, in **tiles**, so that a slide of 8192 x 8192 pixels fits into memory; any number of bits; and colours, of which
# it makes one channel. And it **warns** where it has a reason to doubt its own result. A file that cannot be read is
# named and skipped: one broken file among a hundred must not cost you the night.

# %%
sizes = TrainedSizes.of([sample.mask for sample in data.train])
results = {}
for number, path in enumerate(files, start=1):
    try:
        found = segment_image(model, read_image(path), sizes=sizes)
    except (ValueError, OSError) as error:
        print(f"{number} of {len(files)}, {path.name}: skipped, {summarize_error(error)}")
        continue
    results[path.name] = found
    print(f"{number} of {len(files)}, {path.name}: nuclei found: {found.labels.max()}")
    for warning in found.warnings:
        print(f"    {warning}")
assert results, f"There is no image that can be read in {place}."

# %% tags=["fold"]
shown = dict(list(results.items())[:6])
figure, axes = plotting.grid(2, 3, width=3.2, height=3.3)
for panel, (name, found) in zip(axes.flat, shown.items()):
    part = np.s_[:160, :160]
    plotting.draw_outlines(panel, normalize_percentiles(found.grey)[part], found.labels[part], name)
for panel in axes.flat[len(shown) :]:
    panel.axis("off")
show(figure, "The upper left part of each image of the folder, with the outlines of the nuclei that were found.")

# %% [markdown]
# **Look at such pictures first**, before any number. Do the outlines follow what you would draw? Are there outlines
# where you see nothing? No table will tell you that.
#
# ## How large are the nuclei?
#
# A network knows nuclei of the sizes it was trained on. So the first number to ask for is a size. A common one is the
# **diameter of the circle of equal area**: a nucleus of area $A$ has $d = 2\sqrt{A / \pi}$.
#
# ### Exercise 8.1: The diameter of a typical nucleus
#
# {{difficulty}}
#
# Write `median_diameter(labels)`: the median, over all instances of a label image, of this diameter in pixels, as a
# Python float. Without instances there is no diameter: return `nan`.

# %% [markdown] expected="8.1"
# Expected: the diameters are 2.26 and 1.13, and their median is
#
# ```python expected
# labels = np.array([[1, 1, 0, 7], [1, 1, 0, 0]])
# round(median_diameter(labels), 3)
# ```
#
# <details><summary>Hint 1</summary>
#
# `np.unique(..., return_counts=True)` counts how often each id occurs. The background is not an instance: take only the
# pixels where `labels > 0`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# First the diameter of each nucleus, then the median. The other way round gives another number if the number of nuclei
# is even: the median is the mean of the middle two, and the root of a mean is not the mean of the roots.
#
# </details>

# %% exercise="8.1"
from course_utils import median_diameter

# %% check="8.1"

# %%
print(f"training images: nuclei {sizes.median} pixels, medians of images {sizes.smallest} to {sizes.largest} pixels")
for name, found in results.items():
    print(f"{name}: {median_diameter(found.labels):.1f} pixels")

# %% [markdown]
# If your nuclei are far smaller or larger than those of the training images, the network has never seen anything like
# them. Below you will see what that costs, and what helps.
#
# ## Measure
#
# ### Exercise 8.2: Measure every nucleus
#
# {{difficulty}}
#
# Write `measure_instances(labels, image, pixel_size=1.0)`. It returns a `pandas.DataFrame` with a row for each id, in
# ascending order, and these columns:
#
# | column | what it holds |
# |---|---|
# | `id` | the id in the label image |
# | `area` | number of pixels times `pixel_size` squared |
# | `diameter` | of the circle of equal area, times `pixel_size` |
# | `mean_intensity` | the mean of `image` over the pixels of the instance |
# | `centroid_y`, `centroid_x` | mean row and mean column, in pixels |
# | `touches_border` | `True` if a pixel lies in the first or last row or column of the image |
#
# Without instances the table has the same columns and no rows. If `labels` and `image` have different shapes, raise a
# `ValueError`.

# %% [markdown] expected="8.2"
# Expected: two rows. The pixels are half a micrometre wide, so each has a quarter of a square micrometre.
#
# ```python expected
# labels = np.array([[0, 0, 0, 0], [0, 9, 9, 0], [0, 0, 0, 4]])
# measure_instances(labels, labels * 10, pixel_size=0.5)[["id", "area", "mean_intensity", "touches_border"]]
# ```
#
# <details><summary>Hint 1</summary>
#
# `skimage.measure.regionprops_table(labels, image, properties=(...))` measures `"label"`, `"area"`, `"intensity_mean"`,
# `"centroid"` and `"bbox"`, and `pd.DataFrame` makes a table of its result. A loop over `np.unique(labels)` is as
# right.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Areas grow with the square of `pixel_size`, diameters with `pixel_size`, positions in pixels not at all.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The last two numbers of a bounding box (`bbox-2`, `bbox-3`) are *exclusive*: a box that ends at the lower border has
# the height of the image there.
#
# </details>

# %% exercise="8.2"
from course_utils import measure_instances

# %% check="8.2"

# %% [markdown]
# **Pixel size and units.** A pixel is not a size. How many micrometres it measures depends on objective and camera; the
# file often knows (in Fiji: *Image > Properties*), the images of this course do not. So `pixel_size` stays 1 here, and
# lengths are in pixels. The square matters:

# %% tags=["nbval-check-output"]
square = np.zeros((12, 12), dtype=int)
square[1:11, 1:11] = 1
for pixel_size in (1.0, 0.5, 0.25):
    row = measure_instances(square, square, pixel_size).iloc[0]
    print(f"pixel size {pixel_size}: area {row['area']:g}, diameter {row['diameter']:.2f}")

# %% [markdown]
# Half the pixel size is half the diameter, but a quarter of the area. Now all images: one table, one label TIFF and one
# overlay picture for each, in the folder `output`. Intensities are measured in the **original** image, not in the
# normalised one, which was stretched differently for every image.

# %%
saved = Path(output) / "08_results"
saved.mkdir(parents=True, exist_ok=True)
tables = []
for name, found in results.items():
    bits = np.uint16 if found.labels.max() < 2**16 else np.uint32  # 16 bits are what every program reads
    imsave(saved / f"{name}.labels.tif", found.labels.astype(bits), check_contrast=False)
    overlay = mark_boundaries(normalize_percentiles(found.grey).clip(0, 1), found.labels, color=(1, 0.6, 0))
    imsave(saved / f"{name}.overlay.png", (255 * overlay).astype(np.uint8), check_contrast=False)
    tables.append(measure_instances(found.labels, found.grey).assign(image=name))
table = pd.concat(tables, ignore_index=True)
table.to_csv(saved / "measurements.csv", index=False)
print(f"{len(table)} nuclei of {len(results)} images")
table.head(4).style.format(precision=1)

# %% tags=["fold"]
names = list(results)[:12]
figure, axes = plotting.grid(3, 1, width=6.4, height=2.4)
jitter = np.random.default_rng(0).uniform(-0.2, 0.2, len(table))
units = {"area": "pixels", "diameter": "pixels", "mean_intensity": "grey levels"}
for panel, (column, unit) in zip(axes[:, 0], units.items()):
    for place_, name in enumerate(names):
        rows = table["image"] == name
        panel.plot(place_ + jitter[rows], table[column][rows], ".", color=plotting.BLUE, alpha=0.6)
        if rows.any():
            panel.plot(place_ + np.array([-0.3, 0.3]), 2 * [table[column][rows].median()], color=plotting.RED, lw=3)
    panel.set(ylabel=f"{column.replace('_', ' ')}\n({unit})", xticks=[], yscale="log")
panel.set_xticks(range(len(names)), [Path(name).stem for name in names], rotation=20, ha="right")
show(
    figure,
    "Area, diameter and mean intensity of each nucleus, one column of dots for each image, on a logarithmic scale; "
    "the line is the median of the image. The grey levels of the 16-bit image are of another order.",
)

# %% [markdown]
# Compare images before you compare nuclei: if one image stands out in everything, the reason is rather the microscope,
# the stain or the file than biology. Grey levels of a 16-bit and of an 8-bit file, or of two exposures, cannot be
# compared at all.

# %% [markdown] question="8a"
# **Question 8a.** The border of the image cuts nuclei. What does that do to the mean area? Somebody therefore leaves
# out all nuclei that touch the border. Why are the rest not a fair sample either, and what can be done?

# %% [markdown] answer="8a"
# A cut nucleus looks smaller than it is, so the mean area is too low with them. Without them it is biased, too: a large
# nucleus meets the border more often than a small one, so large ones are left out more often. In counting, the usual
# remedy is to leave out those at *two* of the four sides only (above and left, say): then each nucleus of a plane tiled
# with images is counted once. For sizes one can weight each remaining nucleus of height $h$ and width $w$ by $HW / ((H
# - h)(W - w))$, the inverse of its chance of lying inside the image of $H \times W$ pixels (the Miles-Lantuejoul
# correction), or use images that are large against the nuclei, where few touch the border.

# %%
ratios = []
for sample in data.test:
    measured = measure_instances(sample.mask, sample.image).groupby("touches_border")["area"].mean()
    if len(measured) == 2:
        ratios.append(measured[True] / measured[False])
print(f"mean area at the border / inside, median of {len(ratios)} test images with their true masks: "
      f"{np.median(ratios):.2f}")  # fmt: skip
claim(np.median(ratios) < 0.9, "Nuclei at the border look smaller than the others by more than a tenth.")

# %% [markdown]
# ## When it fails
#
# The network is good on images like its training images. Others are not like them. To see what that costs, take test
# images whose truth is known and spoil them. First the size: another objective makes all nuclei larger or smaller. The
# network has seen some of that: in its training half of the crops were shrunk or enlarged, by up to a factor of 2
# (notebook 05). **Predict, then run**:

# %%
question = "Test images are shrunk to 0.35 of their size. By how much does the mean F1 fall?"
ask("08 shrunk", question, 0.0, 0.9, 0.01)


# %%
def scaled(sample, factor):
    """Image and mask of another size."""
    shape = [max(1, round(side * factor)) for side in sample.image.shape]
    image = resize(sample.image.astype(float), shape, order=1, anti_aliasing=factor < 1)
    mask = resize(sample.mask, shape, order=0, preserve_range=True, anti_aliasing=False)
    return image, mask.astype(np.int32)


def score(image, mask, **options):
    found = segment_image(model, image, sizes=sizes, compare_views=False, **options)
    return f1_score(found.labels, mask)


factors = (0.35, 0.5, 0.7, 1, 1.4, 2, 2.8)
rows = []
for factor in factors:
    pairs = [scaled(sample, factor) for sample in tests]
    plain = np.mean([score(*pair) for pair in pairs])
    rescaled = np.mean([score(*pair, diameter=median_diameter(pair[1])) for pair in pairs])
    rows.append({"scale": factor, "as it is": plain, "rescaled first": rescaled})
by_scale = pd.DataFrame(rows).set_index("scale")

# %%
plain, rescaled = by_scale["as it is"], by_scale["rescaled first"]
note = f"Half the size costs {plain[1] - plain[0.5]:.2f}, twice the size {plain[1] - plain[2]:.2f}."
compare("08 shrunk", round(plain[1] - plain[0.35], 2), note, by_scale.style.format("{:.3f}").format_index("{:g}"))
claim(min(plain[0.7], plain[1.4]) > plain[1] - 0.05, "From 0.7 to 1.4 less than 0.05 is lost.")
claim(plain[0.35] < plain[1] - 0.3, "At 0.35, smaller than in any crop, more than 0.3 is lost.")
claim(rescaled[0.35] - plain[0.35] > (plain[1] - plain[0.35]) / 2, "Rescaling wins back more than half of that.")
claim(rescaled[1] < plain[1] + 0.01, "At scale 1 it gains nothing.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=5.8, height=3.4)
for name, marker, colour in (("as it is", "o", plotting.BLUE), ("rescaled first", "s", plotting.RED)):
    axes[0, 0].plot(by_scale.index, by_scale[name], marker=marker, color=colour, label=name)
axes[0, 0].axvspan(0.5, 2, color="grey", alpha=0.15, lw=0, label="zoom of the training")
axes[0, 0].set(xscale="log", xlabel="scale of the image", ylabel="mean F1", ylim=(0, 1.03))
axes[0, 0].set_xticks(factors, [f"{factor:g}" for factor in factors])
axes[0, 0].minorticks_off()
axes[0, 0].legend(frameon=False)
show(
    figure,
    "Mean F1 against the scale of the images, as they are and rescaled first to the diameter of the training images. "
    "Grey: how far crops were zoomed in the training. As they are, it falls steeply where nuclei are smaller; rescaled "
    "it is nearly flat.",
)

# %% tags=["fold"]
def window(factor=1.0):
    """The window of 96 x 96 pixels with most nuclei, in an image of another size."""
    return tuple(slice(round(start * factor), round((start + 96) * factor)) for start in (top, left))


places = [(i, *corner) for i in range(len(tests)) for corner in np.ndindex(*np.array(tests[i].mask.shape) // 32 - 2)]
count = [len(np.unique(tests[i].mask[32 * y :, 32 * x :][:96, :96])) for i, y, x in places]
index, top, left = np.array(places)[int(np.argmax(count))] * (1, 32, 32)
figure, axes = plotting.grid(2, 3, width=3.1, height=3.3)
for pair, factor in zip(axes.T, (0.35, 1, 2.8)):
    image, mask = scaled(tests[index], factor)
    part = window(factor)
    for panel, diameter, name in zip(pair, (None, median_diameter(mask)), ("as it is", "rescaled first")):
        found = segment_image(model, image, sizes=sizes, compare_views=False, diameter=diameter)
        title = f"scale {factor:g}, {name}\nF1 = {f1_score(found.labels, mask):.2f}"
        plotting.draw_outlines(panel, normalize_percentiles(image)[part], found.labels[part], title)
show(
    figure,
    "The same part of one image at three scales, with the outlines of what was found. Above as it is: at scale 0.35 "
    "nuclei are missed or merged. Below rescaled first: about the same nuclei are found at all scales.",
)

# %% [markdown]
# **The remedy** is one number: measure the diameter of a few of your nuclei with a ruler (in Fiji, the line tool) and
# give it as `diameter`. The image is rescaled so that they get the median size of the training images, and the labels
# are scaled back. (Here the diameter came from the true mask, which is what a ruler would tell.) It cannot bring back
# details that a coarse image does not have: at 0.35 some loss remains. At scale 1 it gains nothing: the training images
# held nuclei of many sizes, so do not rescale what is already in their range.
#
# (These are a few small images. On all 50 real test images half the size costs 0.125 without the diameter and 0.012
# with it, twice the size 0.490 and nothing: `docs/results.md`.)
#
# With a running kernel, move the diameter: how exact does the ruler have to be?

# %% tags=["optional"]
from ipywidgets import FloatLogSlider

from course_utils.widgets import SLIDER, redraw_on_change

coarse, coarse_mask = scaled(tests[index], 0.35)


def draw_with_diameter(diameter):
    found = segment_image(model, coarse, sizes=sizes, compare_views=False, diameter=round(diameter, 1))
    figure, axes = plotting.grid(1, 2, width=3.6)
    plotting.draw_outlines(axes[0, 0], coarse, coarse_mask, f"truth: {median_diameter(coarse_mask):.1f} pixels")
    plotting.draw_outlines(axes[0, 1], coarse, found.labels, f"diameter {diameter:.1f}")
    return figure, f"With a diameter of {diameter:.1f} pixels F1 = {f1_score(found.labels, coarse_mask):.2f}."


slider = FloatLogSlider(sizes.median, base=2, min=2, max=6, step=0.1, description="diameter", **SLIDER)
redraw_on_change(draw_with_diameter, diameter=slider)

# %% [markdown]
# **Break it**: now spoil the same images in four other ways, and mend them where that is possible.


# %%
def second_stain(sample):
    """A colour image: the nuclei are blue, and a second stain fills the bodies of the cells with green."""
    body = gaussian_filter((distance_transform_edt(sample.mask == 0) < 8).astype(float), 1.5)
    green = body * np.percentile(sample.image, 99.8)
    return np.stack([0 * green, green, sample.image], axis=-1).clip(0, 255).astype(np.uint8)


def uneven(image):
    """Light that grows from the upper left to the lower right corner, up to twice the brightness of the nuclei."""
    y, x = np.indices(image.shape)
    return image + np.percentile(image, 99.8) * (x / x.max() + y / y.max())


def invert(image):
    return image.max() - image


# %%
damaged = {
    "none": [sample.image for sample in tests],
    "inverted contrast": [invert(sample.image) for sample in tests],
    "uneven light": [uneven(sample.image.astype(float)) for sample in tests],
    "a second stain": [second_stain(sample) for sample in tests],
    "blur": [gaussian_filter(sample.image.astype(float), 3) for sample in tests],
}
mended = {
    "inverted contrast": ("invert it again", [invert(image) for image in damaged["inverted contrast"]], {}),
    "uneven light": ("subtract the background", [*map(subtract_background, damaged["uneven light"])], {}),
    "a second stain": ("choose the channel", damaged["a second stain"], {"channel": 3}),
}

# %%
rows = {}
for name, images in damaged.items():
    found = [segment_image(model, image, sizes=sizes, compare_views=False) for image in images]
    rows[name] = {"F1": np.mean([f1_score(one.labels, sample.mask) for one, sample in zip(found, tests)])}
    rows[name]["images with a warning"] = sum(len(one.warnings) > 0 for one in found)
    if name in mended:
        remedy, images, options = mended[name]
        rows[name]["remedy"] = remedy
        rows[name]["F1 then"] = np.mean([score(i, sample.mask, **options) for i, sample in zip(images, tests)])
failures = pd.DataFrame(rows).T.rename_axis("damage").fillna("")
f1, then = failures["F1"].astype(float), failures["F1 then"]
claim(max(f1["inverted contrast"], f1["a second stain"]) < 0.3, "Inverted or with a second stain nearly all is wrong.")
claim(max(f1["blur"], f1["uneven light"]) < f1["none"] - 0.03, "Blur and uneven light cost more than 0.03 each.")
claim(rows["blur"]["images with a warning"] == 0, "Of blur no warning tells.")
claim(all(then[name] > f1[name] + 0.03 for name in mended), "Each remedy helps.")
claim(min(then["inverted contrast"], then["a second stain"]) > f1["none"] - 0.01, "Two of them bring everything back.")
formats = {"F1": "{:.3f}", "images with a warning": "{:.0f}"}
failures.style.format(formats | {"F1 then": lambda value: f"{value:.3f}" if value != "" else ""})

# %% tags=["fold"]
part, truth = window(), tests[index].mask
figure, axes = plotting.grid(2, 4, width=2.7, height=3.2)
for (upper, lower), name in zip(axes.T, list(damaged)[1:]):
    views = [(upper, damaged[name][index], {}, name)]
    if name in mended:
        views.append((lower, mended[name][1][index], mended[name][2], mended[name][0]))
    else:
        lower.axis("off")
    for panel, image, options, title in views:
        found = segment_image(model, image, sizes=sizes, compare_views=False, **options)
        title += f"\nF1 = {f1_score(found.labels, truth):.2f}"
        plotting.draw_outlines(panel, normalize_percentiles(found.grey)[part], found.labels[part], title)
show(
    figure,
    "A part of one image with four kinds of damage, and below three of them mended. Lines: what was found. F1 is "
    "that of the whole image. Inverted, nearly nothing is right; mended, the outlines follow the nuclei.",
)

# %% [markdown]
# The four kinds differ in an important way, also in whether the function notices (the second column):
#
# * **Inverted** contrast (bright-field images, stains that absorb) is a total failure with a trivial remedy. The
#   function *warns*, but never inverts by itself: it cannot know what is a nucleus in your image.
# * **Uneven light** leaves too little contrast for the normalisation: its percentiles are those of the light. What does
#   not vary over the width of a nucleus can be subtracted.
# * **A second stain**: the mean of the colours shows the cells, not the nuclei. Nobody but you knows the right channel.
# * **Blur** has no remedy here. What is not in the image cannot be computed back without inventing it. Focus again; or
#   train on blurred images. And no warning tells you: **no warning does not mean that all is well**.

# %% [markdown] question="8b"
# **Question 8b.** Why can no amount of normalisation make the network independent of the size of the nuclei, although
# it makes it independent of their brightness? What does zooming the crops of the *training* change, and what does it
# cost?

# %% [markdown] answer="8b"
# Brightness is one number for the whole image, and percentiles measure it without knowing what a nucleus is. For the
# size one has to know which pixels belong together, which is just what the network should find out. Its filters have
# fixed sizes in pixels, and the receptive field is fixed, too: a nucleus that fills it has no visible surroundings.
# Random scaling of the crops (*scale augmentation*) shows it more sizes, and between them it works; the price is that
# it must learn more with the same number of parameters, and beyond the largest factor it is as lost as before. Cellpose
# takes the other way: it estimates the diameter first and rescales.

# %% [markdown]
# ## Doubt without a truth
#
# On your own images there is no F1. What can be checked is whether the answer is **stable**: a nucleus does not depend
# on which way the camera was held, nor on a threshold that could as well be a bit different. So predict the image in
# its eight flips and quarter turns, or cut with two thresholds, and compute the F1 of the results *with each other*.
# Does such agreement predict the true F1?


# %%
def labels_of(probability, threshold=0.8):
    labels = remove_small(watershed_instances(probability[1], probability[2], threshold), 20)
    return remove_uncertain(labels, probability[1] + probability[2])


def agreement_of_views(image):
    """Mean F1 of seven views with the image itself."""
    image, found = normalize_percentiles(image), []
    for turns, flip in np.ndindex(4, 2):
        view = np.rot90(image, turns)[:, :: 1 - 2 * flip]
        labels = labels_of(predict(model, np.ascontiguousarray(view)))
        found.append(np.rot90(labels[:, :: 1 - 2 * flip], -turns))
    return np.mean([f1_score(one, found[0]) for one in found[1:]])


# %%
small = sorted(data.test, key=lambda sample: sample.image.size)[: len(data.test) // 2 + 1]
predictions = [predict(model, normalize_percentiles(sample.image)) for sample in small]
truly = [f1_score(labels_of(found), sample.mask) for found, sample in zip(predictions, small)]
stable = [f1_score(labels_of(found, 0.5), labels_of(found, 0.95)) for found in predictions]
order = spearmanr(truly, stable).statistic
print(f"rank correlation of the true F1 and the agreement of two thresholds, {len(small)} test images: {order:.2f}")
claim(order > 0.3, "The more two thresholds agree, the better the segmentation, in tendency.")

few = tests[:3]
colours = {"none": plotting.BLUE, "blur": plotting.RED, "a second stain": "black"}
views = {}
for name in colours:
    images = [image.mean(axis=-1) if image.ndim == 3 else image for image in damaged[name][: len(few)]]
    views[name] = [(agreement_of_views(i), score(i, sample.mask)) for i, sample in zip(images, few)]

# %% tags=["fold"]
figure, axes = plotting.grid(1, 2, width=3.9, height=3.6)
axes[0, 0].plot(stable, truly, "o", color=plotting.BLUE, label="none")
for (name, colour), marker in zip(colours.items(), "osx"):
    axes[0, 1].plot(*np.array(views[name]).T, marker, color=colour, label=name)
axes[0, 0].set(xlabel="agreement of two thresholds", ylabel="true F1")
axes[0, 1].set(xlabel="agreement of eight views")
for panel, low in zip(axes[0], (min(stable + truly) - 0.05, 0)):
    panel.plot([low, 1], [low, 1], color="grey", lw=1, zorder=0)
    panel.set(xlim=(low - 0.02, 1.02), ylim=(low - 0.02, 1.02))
axes[0, 1].legend(title="damage", frameon=False, loc="center left")
show(
    figure,
    "Left: true F1 of test images against the agreement of two thresholds; it rises. Right: against the agreement "
    "of eight views, for images without damage, blurred, and with a second stain: the last agree well, and are "
    "wrong.",
)

# %%
means = pd.DataFrame({name: np.mean(pairs, axis=0) for name, pairs in views.items()}, ["agreement", "true F1"]).T
claim(means["agreement"]["blur"] > 0.9, "Of blurred images the eight views agree to more than 0.9.")
claim(means["true F1"]["a second stain"] < 0.3 < 0.7 < means["agreement"]["a second stain"],
      "With a second stain they agree to more than 0.7, although nearly everything is wrong.")  # fmt: skip
means.rename_axis("damage").style.format("{:.2f}")

# %% [markdown]
# Among images like the training images, agreement is a useful hint: sort by it, and look at the worst first. But
# **agreement is not correctness**. All eight views are answers of the *same* network, which makes the same mistake
# eight times: on the second stain it finds cells where it should find nuclei, reliably. Disagreement proves that
# something is wrong; agreement proves nothing. What remains is to look, and to annotate a few images of your own by
# hand: twenty nuclei in each of five images already tell an F1 of 0.9 from one of 0.6.

# %% [markdown] question="8c"
# **Question 8c.** You want to report how good the segmentation of your 300 images is. You have one afternoon. Which
# images do you annotate, and what do you do with those that the network warned about?

# %% [markdown] answer="8c"
# Draw images at random (from all experiments, plates and days), not the beautiful ones and not the worst ones: only a
# random sample tells something about all 300. Annotate *before* looking at the network's outlines, or they will guide
# your hand. Report the mean F1 with its bootstrap interval (notebook 06) and the number of images. Images with warnings
# stay in the sample if their measurements stay in the result; if you exclude them, say how many and by which rule, and
# decide the rule before you see the effect. Do not tune diameter or threshold on the images that you report.

# %% [markdown]
# ## Which tool to take
#
# You know now how such a tool works inside. For everyday work, take one that is maintained, and test it on your images:
#
# * **StarDist** (Schmidt et al., MICCAI 2018; Weigert et al., WACV 2020) predicts distances to the outline along rays.
#   Round, crowded nuclei in fluorescence or H&E: ready networks, plugins for Fiji, QuPath and napari. It cannot draw
#   shapes that are not star-convex.
# * **Cellpose** (Stringer et al., Nature Methods 2021) predicts flows to the centre of each cell; version 2 (Pachitariu
#   & Stringer, Nature Methods 2022) is retrained on your corrections within an hour, and Cellpose-SAM (2025)
#   generalises widely. Whole cells, odd shapes, many kinds of images. The large model wants a GPU.
# * **The network of this course** is small, quick on a CPU, and made for images like those of DSB2018: fluorescent
#   nuclei, bright on dark. On the real test images it has an AP of 0.870 at IoU 0.5 (StarDist: 0.870 to 0.873 according
#   to the README of an unofficial port) and a mean AP of 0.661 (Cellpose-SAM: 0.656, without training on this split;
#   see the end of notebook 05). That says nothing about *your* images.
#
# Whatever you take: same folder, same five annotated images, same score; then decide.
#
# ## On the command line
#
# For a whole experiment you need no notebook (put your own values in place of the capital letters):
#
#     python3 course.py segment FOLDER --out RESULTS --diameter DIAMETER --pixel-size MICROMETRES
#
# It writes a label TIFF, an overlay and the ROIs of each image, `measurements.csv`, and `summary.html` with all
# warnings; interrupted, it goes on where it stopped. To look at the results:
#
# * **Fiji**: open the label TIFF, then *Image > Lookup Tables > glasbey*; drag the zip of ROIs onto the window of the
#   image to get the outlines in the ROI Manager, where *Measure* repeats the table.
# * **napari**: `napari IMAGE LABELS`, then right-click on the second layer, *Convert to Labels*; there you can also
#   paint corrections and save them.
#
# ## What to remember
#
# * Look at outlines before numbers, at images before nuclei.
# * Know the size of your nuclei, your channel and your pixel size; no program can guess them.
# * Disagreement proves an error. Agreement proves nothing: annotate a few images yourself.

# %%
record_scores(
    output,
    "08_own_images",
    {f"scale {scale:g}": row.to_dict() for scale, row in by_scale.iterrows()}
    | {f"damage: {name}": {"F1": float(value)} for name, value in f1.items()},
)
plt.close("all")
