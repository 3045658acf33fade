# %% [markdown]
# # 04 Instances, and how to score them
#
# Notebook 03 ended with a map of probabilities. A biologist asks: how many nuclei are there, and how large is each? So
# the map has to become **instances**, and a score has to count nuclei, not pixels.
#
# **After this notebook you can**
#
# * predict an image of any size, and turn the prediction into instances;
# * match predicted with true instances and compute the F1 score at an IoU threshold;
# * tell mean F1 from pooled F1, and say which errors lower a score;
# * compare a network with a method that needs no training.
#
# **You need** notebooks 01 to 03. If notebook 03 has saved a trained network, it is used; otherwise the pretrained
# network of the course.
#
# **Time** about 100 minutes of work. Computing: about a minute. With your own data, for which there is no pretrained
# network, and in the profile `full`: as long as notebook 03.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from scipy.optimize import linear_sum_assignment
from skimage.measure import label

from course_utils import UNet, get_profile, load_data, normalize_percentiles, pad_to_multiple, plotting
from course_utils.arguments import check_arguments
from course_utils.display import LiveFigure, show
from course_utils.exercises import check
from course_utils.exercises.claims import claim
from course_utils.exploration import split_train_val
from course_utils.metrics import classify_errors
from course_utils.networks import foreground_model
from course_utils.results import compare_methods, record_scores, score_images, score_table, summarize_scores
from course_utils.segmentation import otsu_components, otsu_watershed

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
live = LiveFigure()


def draw(results):
    live.update(plotting.plot_training(results, "hard Dice"), "Loss and hard Dice of the training.")


model = foreground_model(data, settings, seed, output, on_epoch=draw)

# %% [markdown]
# ## Predict
#
# ### Exercise 4.1: Predict an image of any size
#
# {{difficulty}}
#
# Write `predict(model, image)` for a normalised image `(H, W)`. It returns a float32 array `(C, H, W)` of
# probabilities: the sigmoid for one output channel, the softmax for more. Any height and width must work: pad, predict,
# cut the padding off. Never crop the image. Use evaluation mode and no gradients, and restore the model's mode.

# %% [markdown] expected="4.1"
# Expected: three probabilities for each pixel of an image of 20 x 30, a size that the U-Net itself refuses.
#
# ```python expected
# probabilities = predict(UNet(1, 3, base_channels=4), np.zeros((20, 30), dtype=np.float32))
# print(probabilities.shape, probabilities.dtype, "sums to 1:", np.allclose(probabilities.sum(axis=0), 1, atol=1e-5))
# ```
#
# <details><summary>Hint 1</summary>
#
# `pad_to_multiple` also returns the size to which you cut the result.
#
# </details>
# <details><summary>Hint 2</summary>
#
# A model expects four axes, `(N, C, H, W)`. An image has two; `None` as an index adds one.
#
# </details>
# <details><summary>Hint 3</summary>
#
# One output channel or more? `torch.sigmoid` or `torch.softmax` over the channels. Move the result to the CPU before
# you convert it to NumPy.
#
# </details>

# %% exercise="4.1"
from course_utils import predict

# %% check="4.1"

# %%
_, val = split_train_val(data.train, settings.validation_every)
val_images = [normalize_percentiles(sample.image) for sample in val]
val_masks = [sample.mask for sample in val]
val_probabilities = [predict(model, image)[0] for image in val_images]
assert all(
    p.shape == mask.shape and p.dtype == np.float32 for p, mask in zip(val_probabilities, val_masks)
)
print(f"{len(val)} validation images predicted")

# %% [markdown]
# ### Exercise 4.2: From probabilities to instances
#
# {{difficulty}}
#
# Write `connected_components(probability, threshold=0.5)`. It returns an integer label image in which each connected
# region of pixels above `threshold` has its own id.

# %% [markdown] expected="4.2"
# Expected: two regions, two ids.
#
# ```python expected
# connected_components(np.array([[0.9, 0.1, 0.8]])).tolist()
# ```
#
# <details><summary>Hint 1</summary>
#
# First decide for each pixel: a comparison gives an array of booleans.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `skimage.measure.label` numbers the connected regions of such an array.
#
# </details>

# %% exercise="4.2"
from course_utils import connected_components

# %% check="4.2"

# %%
val_components = [connected_components(probability) for probability in val_probabilities]
n_touching = [len(np.unique(mask)) - len(np.unique(label(mask > 0))) for mask in val_masks]
shown = int(np.argmax(n_touching))  # the validation image in which most nuclei touch

figure, axes = plotting.grid(1, 4, width=2.9)
plotting.draw_image(axes[0, 0], val_images[shown], "image")
plotting.draw_probability(axes[0, 1], val_probabilities[shown], "probability")
plotting.draw_labels(
    axes[0, 2],
    plotting.with_matching_ids(val_components[shown], val_masks[shown]),
    f"{val_components[shown].max()} components",
)
plotting.draw_labels(
    axes[0, 3], val_masks[shown], f"{np.count_nonzero(np.unique(val_masks[shown]))} true nuclei"
)
show(
    figure,
    "A validation image, its predicted foreground, the connected components of that, and the "
    "truth. A nucleus that was found has the same colour in both.",
)

# %% [markdown]
# The map looks right. Yet where nuclei touch, several of them become one component: the colours in the third and fourth
# panel differ there.

# %% [markdown]
# ## Match
#
# To score instances, first decide which predicted instance corresponds to which true one. The measure is **intersection
# over union** (IoU) of their pixels: 1 for identical instances, 0 for disjoint ones.
#
# ### Exercise 4.3: Overlap of every prediction with every nucleus
#
# {{difficulty}}
#
# Write `iou_matrix(prediction, truth)`. It returns a float array `(n_pred, n_true)` with rows and columns in ascending
# order of the ids, without the background. Ids may have gaps, as you saw in notebook 01: `mask.max()` is not the number
# of nuclei, and an id of a million must not need a million columns. If the shapes differ, raise a `ValueError`.
#
# A loop over all pairs is correct, but slow with hundreds of nuclei. First renumber the ids 0, 1, 2, ... (`np.unique`
# can); then a single `np.bincount` counts the shared pixels of all pairs.

# %% [markdown] expected="4.3"
# Expected: one row for each prediction, one column for each nucleus.
#
# ```python expected
# truth = np.array([[1, 1, 1, 0, 7, 7]])
# found = np.array([[0, 5, 5, 0, 9, 9]])
# print(iou_matrix(found, truth).round(3))
# ```
#
# <details><summary>Hint 1</summary>
#
# `np.unique(labels, return_inverse=True)` gives the ids in ascending order, and for every pixel the *position* of its
# id among them.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Number the pairs: position in the prediction times the number of true ids, plus position in the truth. Count how often
# each number occurs (`minlength` fills up with zeros), and reshape the counts to a matrix: the intersections.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The area of a prediction is the sum of its row, the area of a nucleus the sum of its column, background included. The
# union is the sum of the two areas minus the intersection. Remove the background's row and column last.
#
# </details>

# %% exercise="4.3"
from course_utils import iou_matrix

# %% check="4.3"

# %%
truth = np.array([[1, 1, 1, 0, 7, 7], [1, 1, 1, 0, 7, 7], [0, 0, 0, 0, 7, 7]])  # ids 1 and 7
found = np.array([[0, 5, 5, 0, 9, 9], [0, 5, 5, 0, 9, 9], [0, 0, 0, 0, 9, 9]])
print(iou_matrix(found, truth))
assert np.allclose(iou_matrix(found, truth), [[4 / 6, 0], [0, 1]])

# %%
smaller = [n if len(np.unique(mask)) < 50 else -1 for n, mask in zip(n_touching, val_masks)]
few = int(np.argmax(smaller))  # fewer than fifty nuclei, of which many touch
iou = iou_matrix(val_components[few], val_masks[few])
figure, axes = plotting.grid(1, 1, width=5.5, height=4.5)
drawn = axes[0, 0].imshow(iou, cmap="cividis", vmin=0, vmax=1, aspect="auto")
axes[0, 0].set(xlabel="true nucleus", ylabel="predicted instance")
figure.colorbar(drawn, label="IoU")
show(figure, "IoU of every predicted instance with every true nucleus of a validation image.")

# %% [markdown]
# Nearly all entries are zero. A row with one bright entry is a nucleus that was found. A row with several dim entries
# is a component that covers several nuclei: it resembles none of them.
#
# ### Exercise 4.4: Match one to one
#
# {{difficulty}}
#
# Write `count_matches(iou, iou_threshold=0.5)`. It returns the largest number of pairs with `IoU >= iou_threshold` such
# that no row and no column is used twice.

# %% [markdown] expected="4.4"
# Expected: two matches, if the first prediction takes the second nucleus; a greedy choice finds only one.
#
# ```python expected
# count_matches(np.array([[0.4, 0.3], [0.45, 0.0]]), iou_threshold=0.3)
# ```
#
# <details><summary>Hint 1</summary>
#
# Which pairs are allowed? A comparison gives a matrix of booleans.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `scipy.optimize.linear_sum_assignment(matrix, maximize=True)` gives each row at most one column so that the sum over
# the chosen entries is largest. Which matrix do you give it, so that the *number* of matches is largest?
#
# </details>
# <details><summary>Hint 3</summary>
#
# It assigns as many pairs as it can, including those that are not allowed. Count only the allowed ones.
#
# </details>

# %% exercise="4.4"
from course_utils import count_matches

# %% check="4.4"

# %%
clear_case = np.array([[0.8, 0.1], [0.0, 0.6]])
contested = np.array(
    [[0.45, 0.40], [0.42, 0.0]]
)  # the first prediction overlaps both nuclei, the second only the first nucleus
print("above 0.5:", count_matches(clear_case), "  at 0.4:", count_matches(contested, iou_threshold=0.4))
assert count_matches(clear_case) == 2 and count_matches(contested, iou_threshold=0.4) == 2

# %% [markdown]
# In the second case, taking the largest value first (0.45) would give only one match; the best assignment has two.

# %% [markdown] question="4a"
# **Question 4a.** Above an IoU of 0.5 no assignment is needed: counting the entries is enough. Why?

# %% [markdown] answer="4a"
# If IoU > 0.5, the intersection is more than half of the union, and so more than half of the prediction *and* more than
# half of the nucleus. Two predictions do not overlap, since every pixel has one id, so they cannot both cover more than
# half of one nucleus; nor can one prediction lie with more than half of itself in each of two nuclei. So in each row
# and each column at most one entry exceeds 0.5. At exactly 0.5 ties are possible: a nucleus of four pixels split into
# two halves has an IoU of 0.5 with both.

# %% [markdown]
# ### Exercise 4.5: The F1 score of a segmentation
#
# {{difficulty}}
#
# Matched predictions are **true positives** (TP), the other predictions **false positives** (FP), unmatched nuclei
# **false negatives** (FN). The F1 score is
#
# $$ F_1 = \frac{2\,TP}{2\,TP + FP + FN} = \frac{2\,TP}{n_{pred} + n_{true}} $$
#
# Write `f1_score(prediction, truth, iou_threshold=0.5)`. It returns a Python float: 1.0 if both are empty, since
# everything is right then, and 0.0 if only one of them is.

# %% [markdown] expected="4.5"
# Expected: one of two predictions matches the only nucleus, so 2 · 1 / (2 + 1).
#
# ```python expected
# round(f1_score(np.array([[1, 1, 0, 2]]), np.array([[3, 3, 0, 0]])), 4)
# ```
#
# <details><summary>Hint 1</summary>
#
# The shape of the IoU matrix tells how many instances were predicted and how many are true.
#
# </details>
# <details><summary>Hint 2</summary>
#
# With no instances at all the formula is 0/0: handle this case first. If only one side is empty, the formula is already
# right.
#
# </details>

# %% exercise="4.5"
from course_utils import f1_score

# %% check="4.5"

# %% tags=["nbval-check-output"]
truth = np.array([[1, 1, 0, 7, 7]])
print("same shapes, other ids:", f1_score(np.array([[4, 4, 0, 2, 2]]), truth))
print("both nuclei in one:    ", f1_score(np.array([[3, 3, 3, 3, 3]]), truth))
print("one of two found:      ", round(f1_score(np.array([[3, 3, 0, 0, 0]]), truth), 3))
print("nothing there or found:", f1_score(np.zeros((1, 5), int), np.zeros((1, 5), int)))
assert f1_score(np.array([[4, 4, 0, 2, 2]]), truth) == 1

# %% [markdown]
# The first line is a test that many implementations fail: ids 1 and 7, predicted perfectly. A metric that takes 1 to 7
# as seven nuclei and counts 2 to 6 as missed would give 0.44.

# %% [markdown]
# ### Exercise 4.6: Average precision at several thresholds
#
# {{difficulty}}
#
# Papers rarely report F1. The score of the 2018 Data Science Bowl, of StarDist and of Cellpose is the **average
# precision** (AP)
#
# $$ AP = \frac{TP}{TP + FP + FN} $$
#
# at several IoU thresholds; its mean over the thresholds 0.5, 0.55, ... 0.95 is often called **mSA**. (The name is
# unlucky: in object detection it stands for the area under a curve of precision and recall. Here nothing is averaged.)
#
# Write `average_precision(prediction, truth, iou_thresholds)`. It returns a list of Python floats, one for each
# threshold, in the same order: 1.0 if both label images are empty, and 0.0 if only one of them is. Which instances
# overlap, and how much, does not depend on the threshold: compute it once.

# %% [markdown] expected="4.6"
# Expected: the nucleus and its prediction have an IoU of 2/3. At 0.5 they match, and one false positive is left:
# 1 / (1 + 1 + 0). At 0.75 nothing matches.
#
# ```python expected
# average_precision(np.array([[1, 1, 0, 2]]), np.array([[3, 3, 3, 0]]), [0.5, 0.75])
# ```
#
# <details><summary>Hint 1</summary>
#
# You have written all parts: `iou_matrix` takes the two label images, `count_matches` only needs its result and a
# threshold.
#
# </details>
# <details><summary>Hint 2</summary>
#
# How large is TP + FP + FN? The number of predictions is TP + FP, the number of nuclei TP + FN. Their sum counts each
# matched pair twice.
#
# </details>
# <details><summary>Hint 3</summary>
#
# As in 4.5, only the case without any instances needs its own line. It also returns one value for each threshold.
#
# </details>

# %% exercise="4.6"
from course_utils import average_precision

# %% check="4.6"

# %% tags=["nbval-check-output"]
found, truth = np.array([[1, 1, 0, 2]]), np.array([[3, 3, 3, 0]])
f1, (ap,) = f1_score(found, truth), average_precision(found, truth, [0.5])
print(f"one image, F1 = {f1:.3f}   2 AP / (1 + AP) = {2 * ap / (1 + ap):.3f}")

pairs = [(truth, truth), (np.array([[0, 0, 0, 2]]), truth)]  # everything right, and everything wrong
f1 = np.mean([f1_score(found, truth) for found, truth in pairs])
ap = np.mean([average_precision(found, truth, [0.5]) for found, truth in pairs])
print(f"two images, mean F1 = {f1:.3f}   2 AP / (1 + AP) of the mean AP = {2 * ap / (1 + ap):.3f}")

# %% [markdown]
# From the counts of *one* image, each score can be computed from the other: $F_1 = 2\,AP / (1 + AP)$, so AP is the
# smaller number. For *means* over images this no longer holds: what the formula makes of a mean AP is too high, never
# too low, unless all images have the same score. So a published AP cannot be turned into a mean F1. Compare AP with AP.

# %% [markdown]
# ## What kind of errors?
#
# A score says how many errors there are, a picture says which. In the next figure the colour of each instance shows its
# kind of error. A **merged** prediction covers most of several nuclei, a **split** nucleus is covered by several
# predictions; the other false positives and missed nuclei are simply wrong.

# %%
kinds = [classify_errors(found, mask) for found, mask in zip(val_components, val_masks)]
merged = sum(len(kind.merged) for kind in kinds)
split = sum(len(kind.split) for kind in kinds)
print(f"{merged} merged predictions and {split} split nuclei in {len(val)} validation images")

val_scores = [f1_score(found, mask) for found, mask in zip(val_components, val_masks)]
order = np.argsort(val_scores)
figure, axes = plotting.grid(1, 3, width=3.8, height=4.4)
for panel, index, name in zip(
    axes[0], [order[0], shown, order[len(order) // 2]], ["worst", "most touching", "median"]
):
    plotting.draw_errors(
        panel,
        val_images[index],
        val_components[index],
        val_masks[index],
        title=f"{name}: F1 = {val_scores[index]:.2f}",
    )
show(
    figure,
    "Three validation images with the kind of error of each instance, at an IoU threshold of 0.5; "
    "the counts are below each image.",
)

# %%
worst = pd.DataFrame(
    {
        "image": [s.name[:16] for s in val],
        "F1": val_scores,
        "nuclei": [np.count_nonzero(np.unique(m)) for m in val_masks],
    }
)
for name in ("false_positive", "missed", "merged", "split"):
    worst[name.replace("_", " ")] = [len(getattr(kind, name)) for kind in kinds]
worst.sort_values("F1").head(5).style.format({"F1": "{:.3f}"}).hide(axis="index")

# %% [markdown]
# The table lists the five worst validation images (false positives include the merged predictions, missed nuclei
# include the split ones). Merging is expensive: one component over three nuclei costs one false positive *and* three
# missed nuclei.

# %% [markdown] question="4b"
# **Question 4b.** Look at the worst images. Where do their errors come from?

# %% [markdown] answer="4b"
# The columns of the table tell; there is more than one pattern:
#
# * many **missed** and several **merged**: touching nuclei. A thin bridge of foreground pixels is enough to make one
#   component of two nuclei;
# * many **false positives** and hardly any merged: noise in a dim image became dozens of specks, or nuclei fell apart;
# * as many missed as false positives: the nuclei were found, but their outlines are too wide or too narrow for the IoU
#   threshold, which happens more easily the smaller a nucleus is.
#
# In images with few nuclei a single error has a large effect.

# %% [markdown] question="4c"
# **Question 4c.** How can the pixel Dice be 1.0 and the F1 score 0.9?

# %% [markdown] answer="4c"
# Pixel scores do not see instances. With the *true* foreground every pixel is right and Dice is 1.0, but touching
# nuclei are still one component. On the real test images the components of the true foreground reach a mean F1 of 0.90
# (notebook 01). A single column of wrong pixels between two nuclei changes the Dice score in the third decimal, but the
# number of nuclei by one.

# %% [markdown]
# ## One number
#
# Now score the **test** images. Nothing has been chosen on them: the threshold is 0.5, the usual default. There are two
# ways to get from many images to one number. **Mean F1** averages the scores of the images, so each *image* has the
# same weight. **Pooled F1** sums up TP, FP and FN of all images first, so each *nucleus* has the same weight. Always
# say which one you report.

# %%
test_images = [normalize_percentiles(sample.image) for sample in data.test]
test_masks = [sample.mask for sample in data.test]
test_components = [connected_components(predict(model, image)[0]) for image in test_images]
summary = summarize_scores(score_images(test_components, test_masks))
pd.DataFrame(summary).rename_axis("IoU threshold").style.format("{:.3f}").format_index("{:g}")

# %% [markdown] question="4d"
# **Question 4d.** When do mean and pooled F1 differ? Which would you report?

# %% [markdown] answer="4d"
# They differ when the score depends on how many nuclei an image contains. If crowded images are the difficult ones,
# pooled F1 is lower, because they contain most of the nuclei; if an image with three nuclei goes wrong, the mean drops
# and the pooled score hardly changes. Pooled F1 answers "what share of all nuclei is right?", mean F1 answers "how well
# will the next image go?". Report both, or at least name the one you report: on the same predictions they can differ by
# 0.2.

# %% [markdown]
# ## How strict?
#
# A higher IoU threshold requires better outlines.

# %%
iou_thresholds = np.round(np.arange(0.5, 0.96, 0.05), 2)
baseline = {
    "Otsu, components": [otsu_components(sample.image) for sample in data.test],
    "Otsu, watershed": [otsu_watershed(sample.image) for sample in data.test],
}
methods = {**baseline, "U-Net, components": test_components}
strict = {
    name: summarize_scores(score_images(found, test_masks, iou_thresholds))["mean_f1"]
    for name, found in methods.items()
}
show(
    plotting.plot_f1_curves(strict),
    "Mean F1 of the test images against the IoU threshold, for two classical methods and the network.",
)
assert all(np.all(np.diff(list(f1.values())) <= 0) for f1 in strict.values())

# %% [markdown]
# Every curve falls: what matches at a strict threshold also matches at a lenient one. A method whose curve is higher at
# strict thresholds has better outlines. At 0.5 outlines matter little; there the curve says how many nuclei are found
# and separated at all.
#
# ## A network must beat this
#
# The two other curves belong to methods **without any training**: smooth with a Gaussian, apply Otsu's threshold
# (1979), then either take connected components or run a watershed on the distance to the background, which splits round
# objects at their waist. That is twenty lines of code and a second of computing. If you train a network, know how much
# better it is than these.

# %%
scores = compare_methods(methods, test_masks)
display(score_table(scores).style.format("{:.3f}"))
unet, otsu = scores["U-Net, components"]["mean_f1"], scores["Otsu, watershed"]["mean_f1"]
gain = {t: round(unet[t] - otsu[t], 3) for t in unet}
print("U-Net, components, minus Otsu, watershed, mean F1 at each IoU threshold:", gain)
claim(gain[0.9] > gain[0.5], "The network gains more at a strict than at a lenient IoU threshold.")

# %% [markdown]
# Read the table honestly: at an IoU threshold of 0.5 the classical watershed usually **wins** against the components of
# the network. Nuclei are round, and splitting round objects at their waist works well; the last column, the share of
# touching nuclei that are found, shows it. At strict thresholds the network catches up or overtakes, because its
# outlines are better. So the network's foreground is not the problem. What is missing is separation, and a better
# foreground does not provide it. In notebook 05 the network learns to separate nuclei itself.

# %%
thresholds = (0.1, 0.3, 0.5, 0.9)
figure, axes = plotting.grid(1, 4, width=2.9, height=3.6)
for panel, threshold in zip(axes[0], thresholds):
    found = connected_components(val_probabilities[shown], threshold)
    title = f"threshold {threshold}: F1 = {f1_score(found, val_masks[shown]):.2f}"
    plotting.draw_errors(panel, val_images[shown], found, val_masks[shown], title=title)
show(
    figure,
    "The same probabilities at four thresholds: low ones merge nuclei, high ones separate some "
    "of them and shrink all.",
)

# %% [markdown]
# Low thresholds merge nuclei. Higher ones separate some, but shrink all and break some into pieces. Several nuclei stay
# merged at every threshold. With a running kernel, try it yourself; note that `threshold` (on probabilities) and
# `iou_threshold` (on matches) are two different things:

# %% tags=["optional"]
from course_utils.widgets import explore_threshold

explore_threshold(val_images, val_probabilities, val_masks)

# %% [markdown]
# ## What to remember
#
# * Score what the question is about: nuclei, not pixels.
# * An F1 score needs a matching, an IoU threshold, and the word *mean* or *pooled*.
# * Look at the kinds of errors: a merge is one false positive and several missed nuclei.
# * A classical baseline belongs in every table.
#
# Next: **05 Boundaries and watershed**.

# %%
record_scores(output, "04_instance_evaluation", scores)
plt.close("all")
