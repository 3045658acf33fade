# %% [markdown]
# # 02 The U-Net
#
# The U-Net was published in 2015 for a task with thirty training images, and it is still a usual first choice in
# biomedical segmentation. You will build it from two kinds of blocks, about fifty lines in all, and then measure what
# it does.
#
# **After this notebook you can**
#
# * draw a U-Net: encoder, decoder, skip connections, and the shape of the data at every point;
# * implement it, and count its parameters;
# * say how far a single output pixel can see, and compare that with the size of a nucleus;
# * feed it images of any size.
#
# **You need** notebook 01, and `torch.nn`: modules, convolutions.
#
# **Time** about {{minutes}} minutes of work. Computing: under a minute, on a CPU or a GPU.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.ndimage import binary_dilation
from skimage.measure import regionprops
from skimage.segmentation import find_boundaries
from torch import nn
from torch.utils.data import DataLoader

import course_utils
from course_utils import NucleiDataset, binary_target, get_profile, load_data, normalize_percentiles, plotting, predict
from course_utils.arguments import check_arguments  # used by the course's own functions, not by yours
from course_utils.display import show
from course_utils.exercises import check
from course_utils.exercises.claims import claim
from course_utils.exercises.guesses import ask, compare
from course_utils.exploration import nucleus_areas, split_train_val
from course_utils.results import record_scores

plotting.use_course_style()

# %% tags=["parameters"]
data_source = "embedded"  # or "dsb2018" (a download), "kaggle", "auto", a folder, a zip
profile = "auto"
seed = 0
output = "output"

# %% [markdown]
# ## The architecture
#
# The network answers one question for each pixel: does it belong to a nucleus? Its own grey value is a hint and no
# more: a dim nucleus can be darker than a bright spot of the background (you will see how often). Its surroundings tell
# more. So the network has to collect information from an area (*context*) and still answer for each single pixel
# (*localisation*). The U-Net does both:
#
# * the **encoder** (left) halves the resolution step by step. Each step sees a larger area, with more feature maps;
# * the **decoder** (right) doubles the resolution step by step until every pixel has its answer;
# * **skip connections** (dashed) pass the fine detail of each encoder level directly to the decoder level of the same
#   resolution.

# %% [markdown]
# ### The smallest U-Net: one level
#
# Before any loop, take one step down and one step up, each written out. The input is a crop of a training image, with
# two axes in front: `(N, C, H, W)`, here one image with one channel. The weights are random; only the shapes matter.

# %%
data = load_data(data_source)
crowded = max(data.train, key=lambda sample: np.mean(sample.mask > 0))
side = min(128, min(crowded.image.shape) // 16 * 16)
crop = normalize_percentiles(crowded.image)[-side:, -side:]
x = torch.from_numpy(crop.copy())[None, None]

torch.manual_seed(seed)
fine = torch.relu(nn.Conv2d(1, 8, kernel_size=3, padding=1)(x))  # encoder: 8 maps at full resolution
coarse = nn.MaxPool2d(2)(fine)  # down: of 2x2 pixels only the largest is kept
bottleneck = torch.relu(nn.Conv2d(8, 16, kernel_size=3, padding=1)(coarse))
back = nn.ConvTranspose2d(16, 8, kernel_size=2, stride=2)(bottleneck)  # up: each pixel becomes 2x2
both = torch.cat([fine, back], dim=1)  # the skip connection: the fine maps beside those that come back
decoded = torch.relu(nn.Conv2d(16, 8, kernel_size=3, padding=1)(both))
logits = nn.Conv2d(8, 1, kernel_size=1)(decoded)  # one number for each pixel

steps = {"image": x, "encoder": fine, "down": coarse, "bottleneck": bottleneck, "up": back, "skip + up": both}
steps |= {"decoder": decoded, "logits": logits}
assert logits.shape == x.shape and both.shape[1] == 2 * back.shape[1]
pd.DataFrame({"shape (N, C, H, W)": {name: tuple(step.detach().shape) for name, step in steps.items()}})

# %% tags=["fold"]
show(
    plotting.plot_unet(base_channels=8, depth=1, side=side),
    f"The same as a drawing. The width of a box is the number of its maps, its height their side in pixels; both "
    f"numbers are above it: 8 maps of {side}², 16 maps of {side // 2}².",
)

# %% [markdown]
# Height and width are halved once and doubled once, so the logits are as large as the image. `skip + up` has twice the
# channels of `up`: half of them come from the encoder, at full resolution. A real U-Net differs in two things only:
# each box has **two** convolutions, and there are several levels, each with twice as many maps as the one above. So you
# will write the box once (2.1), the way up once (2.2), and then a loop over the levels (2.3).
#
# ### The whole network

# %% tags=["fold"]
show(
    plotting.plot_unet(base_channels=64, depth=4, side=256),
    "The U-Net of depth 4 for an image of 256 x 256 pixels. The width of a box is the number of its feature maps, its "
    "height their side in pixels. Above it are both numbers: at the top 64 maps of 256², at the bottom 1024 of 16².",
)

# %% [markdown]
# All convolutions here are padded ("SAME"), so a box keeps its resolution, and the output is as large as the input. The
# paper used unpadded ("VALID") convolutions: its output was smaller than its input, and skip connections had to be
# cropped.

# %% [markdown]
# ### Exercise 2.1: Two convolutions
#
# {{difficulty}}
#
# Write `ConvBlock(in_channels, out_channels)`, a box of the drawing: two 3x3 convolutions with padding 1, each followed
# by a ReLU. It maps `(N, in_channels, H, W)` to `(N, out_channels, H, W)`. The solution also has two switches,
# `batch_norm` and `instance_norm`, off by default, which later notebooks use to train faster; you may leave them out,
# in all exercises of this notebook. Of the errors under `Raises` in a docstring, write only those that the task asks
# for.

# %% [markdown] expected="2.1"
# Expected: two images with one channel become two with eight, of the same size.
#
# ```python expected
# ConvBlock(1, 8)(torch.zeros(2, 1, 32, 48)).shape
# ```
#
# <details><summary>Hint 1</summary>
#
# `nn.Sequential` applies layers one after the other. Here you need four.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The first convolution changes the number of channels. How many does the second one receive, and how many does it
# return?
#
# </details>

# %% exercise="2.1"
from course_utils import ConvBlock

# %% check="2.1"

# %%
block = ConvBlock(1, 8)
print(block)
print("from (2, 1, 32, 48) to", tuple(block(torch.zeros(2, 1, 32, 48)).shape))
assert block(torch.zeros(2, 1, 32, 48)).shape == (2, 8, 32, 48)

# %% [markdown]
# ### Exercise 2.2: Up, concatenate, convolve
#
# {{difficulty}}
#
# Write `UpBlock(in_channels, out_channels)`, a step of the decoder. `forward(x, skip)` doubles the resolution of `x`
# with a 2x2 transposed convolution of stride 2 that returns `out_channels` maps, concatenates the result with `skip`
# (which also has `out_channels` maps) along the channels, and applies a `ConvBlock`.

# %% [markdown] expected="2.2"
# Expected: the height and width of the skip connection, and `out_channels` maps.
#
# ```python expected
# UpBlock(16, 8)(torch.zeros(1, 16, 10, 12), torch.zeros(1, 8, 20, 24)).shape
# ```
#
# <details><summary>Hint 1</summary>
#
# `nn.ConvTranspose2d` with kernel size 2 and stride 2 doubles height and width. Let it also reduce the channels to
# `out_channels`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `torch.cat` joins tensors along an axis; channels are axis 1. How many channels are there afterwards, and how many
# does the `ConvBlock` receive?
#
# </details>

# %% exercise="2.2"
from course_utils import UpBlock

# %% check="2.2"

# %%
up = UpBlock(16, 8)
from_below, skip = torch.zeros(1, 16, 10, 12), torch.zeros(1, 8, 20, 24)
print(
    "from",
    tuple(from_below.shape),
    "and skip",
    tuple(skip.shape),
    "to",
    tuple(up(from_below, skip).shape),
)
assert up(from_below, skip).shape == (1, 8, 20, 24)

# %% [markdown] question="2a"
# **Question 2a.** Why skip connections? What would the decoder have to work with without them?

# %% [markdown] answer="2a"
# Without them, all that the decoder gets is the bottleneck: 16 x 16 positions for an image of 256 x 256. Where exactly
# an edge runs within a square of 16 x 16 pixels would have to be encoded in the feature maps, and outlines tend to come
# out blurred. A skip connection passes on the encoder's maps of the same resolution, in which every edge is still in
# its place: the bottleneck says *what* is there, the skip connection says *where* exactly. Skip connections also
# shorten the path of the gradient to the early layers, so deep networks train more easily.

# %% [markdown]
# ### Exercise 2.3: The whole network
#
# {{difficulty}}
#
# Write `UNet(in_channels=1, out_channels=1, base_channels=64, depth=4)`. The first level has `base_channels` maps,
# every level below twice as many. `forward` has three parts: down (keep the skip connections, halve the resolution: the
# paper takes the maximum of 2x2 pixels, but their mean is right, too), bottleneck, up (use the skip connections in
# reverse order). It ends in a 1x1 convolution to `out_channels` maps **without** an activation: the output is
# *logits*; notebook 03 says why. If a side of the input is not divisible by `2**depth`, raise a `ValueError` that names
# the side and the divisor.
#
# Hint: keep the blocks in an `nn.ModuleList`; in a plain list their parameters are invisible to the optimizer.

# %% [markdown] expected="2.3"
# Expected: as many maps as asked for, of the size of the input, with some negative values.
#
# ```python expected
# model = UNet(in_channels=1, out_channels=3, base_channels=8)
# logits = model(torch.rand(1, 1, 64, 96))
# print(tuple(logits.shape), bool(logits.min() < 0))
# ```
#
# <details><summary>Hint 1</summary>
#
# Write down the channels of each level first: `base_channels` times 1, 2, 4, ... A `ConvBlock` of the encoder goes from
# one number to the next, an `UpBlock` of the decoder back.
#
# </details>
# <details><summary>Hint 2</summary>
#
# On the way down, put the result of each `ConvBlock` into a list **before** pooling. On the way up, the last one comes
# first: that is what `list.pop()` gives.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Pooling has no parameters, so one `nn.MaxPool2d(2)` serves all levels. The bottleneck is one more `ConvBlock`, without
# pooling after it.
#
# </details>

# %% exercise="2.3"
from course_utils import UNet

# %% check="2.3"

# %% [markdown]
# ### Break it: cut the skip connections
#
# Take a U-Net of depth 3 twice, with the same weights at the start. In one of them each `UpBlock` gets **zeros** in
# place of its skip connection, so all that reaches the decoder comes up from the bottleneck. Train both for some
# seconds on the same crops, and look at the outlines. (How training works is the subject of notebook 03. Here it is
# only a tool, and the networks are the course's own, because their parts have known names.)
#
# **Predict, then run**: both networks will be wrong on some pixels near the outlines of the nuclei. How many times as
# many will it be without skip connections?

# %%
ask(
    "02 skip connections",
    "Without skip connections, how many times as many pixels near the outlines are wrong?",
    low=1.0, high=5.0, step=0.1,
)  # fmt: skip

# %% [markdown]
# A *hook* is a function that torch calls when data passes a layer. This one replaces what goes in:

# %%
def without_skips(network):
    for block in network.decoder:
        block.register_forward_pre_hook(lambda block, inputs: (inputs[0], torch.zeros_like(inputs[1])))
    return network


train, val = split_train_val(data.train, every=8)
images = [normalize_percentiles(sample.image) for sample in train]
size = min(96, *(side // 16 * 16 for image in images for side in image.shape))
crops = NucleiDataset(
    images, [sample.mask for sample in train], binary_target, size, augment=True, seed=seed
)
torch.manual_seed(seed)
sampler = torch.utils.data.RandomSampler(crops, replacement=True, num_samples=320)
batches = list(DataLoader(crops, batch_size=4, sampler=sampler))

# %%
def train_briefly(network):
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=len(batches))
    for image, target in batches:
        loss = nn.functional.binary_cross_entropy_with_logits(network(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


networks = {}
for name, change in [("with skips", lambda network: network), ("without skips", without_skips)]:
    torch.manual_seed(seed)
    networks[name] = train_briefly(change(course_utils.UNet(base_channels=8, depth=3, batch_norm=True)))

# %% [markdown]
# Now count the wrong pixels of validation images: those within two pixels of an outline, and all others.

# %%
shown = val[:: max(1, len(val) // 12)][:12]
truths = [sample.mask > 0 for sample in shown]
near = [binary_dilation(find_boundaries(sample.mask, mode="thick")) for sample in shown]
probabilities, wrong_near, wrong_elsewhere = {}, {}, {}
for name, network in networks.items():
    found = [predict(network, normalize_percentiles(sample.image))[0] for sample in shown]
    wrong = [(p > 0.5) != truth for p, truth in zip(found, truths)]
    probabilities[name] = found
    wrong_near[name] = np.mean(np.concatenate([w[n] for w, n in zip(wrong, near)]))
    wrong_elsewhere[name] = np.mean(np.concatenate([w[~n] for w, n in zip(wrong, near)]))
times = wrong_near["without skips"] / wrong_near["with skips"]
compare("02 skip connections", times, "So many times as many pixels near outlines are wrong without skip connections.")

# %%
for name in networks:
    print(f"wrong {name}: {100 * wrong_near[name]:.0f} % near outlines, {100 * wrong_elsewhere[name]:.1f} % elsewhere")
claim(times > 1.1, "Without skip connections, more pixels near outlines are wrong, by over a tenth.")
claim(max(wrong_elsewhere.values()) < 0.1, "Even without them, over 90 % of the pixels away from outlines are right.")

# %% tags=["fold"]
def window_with_most(wanted, size=64):
    """The window of an image in which the wanted pixels have the largest sum."""
    size = min(size, *wanted.shape)
    sums = np.pad(wanted, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    counts = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    row, column = np.unravel_index(counts.argmax(), counts.shape)
    return counts.max(), (slice(row, row + size), slice(column, column + size))


# wrong near an outline only without skip connections; pixels that are wrong with them count against the crop
worse = [
    (((without > 0.5) != truth) & edge).astype(int) - 2 * ((with_ > 0.5) != truth)
    for without, with_, truth, edge in zip(*reversed(probabilities.values()), truths, near)
]
index = max(range(len(worse)), key=lambda index: window_with_most(worse[index])[0])
window = window_with_most(worse[index])[1]

# %% tags=["fold"]
figure, axes = plotting.grid(2, 3, width=2.6)
truth = truths[index][window]
plotting.draw_image(axes[0, 0], shown[index].image[window], "validation image, a crop")
plotting.draw_probability(axes[1, 0], truth.astype(float), "target")
for panels, (name, found) in zip(axes.T[1:], probabilities.items()):
    p = found[index][window]
    plotting.draw_probability(panels[0], p, name)
    panels[0].contour(truth, levels=[0.5], colors="white", linewidths=1)
    wrong = (p > 0.5) != truth
    plotting.draw_probability(panels[1], wrong.astype(float), f"wrong: {wrong.sum()} pixels")
show(
    figure,
    "The crop in which the two networks differ most, and their predictions: dark blue is 0, yellow 1, grey in between; "
    "white is the true outline. Below: the target, and in yellow the pixels on the wrong side of 0.5. With skip "
    "connections the step from 0 to 1 follows the outline; without them it is a broad band.",
)

# %% [markdown]
# Without skip connections the network still knows roughly where nuclei are, but not where they end: the bottleneck has
# one position for 8 x 8 pixels, and what comes up from there is blurred.
#
# What do the boxes of the drawing hold? Below it is one map of each box of the network trained with skip connections:
# of its maps, the one that is most like the mask (or its negative).

# %%
def feature_maps(network, image):
    """The maps that each box of the network computes, from the encoder to the decoder, as arrays (C, H, W)."""
    boxes, maps = [*network.encoder, network.bottleneck, *network.decoder], []
    hooks = [box.register_forward_hook(lambda box, inputs, result: maps.append(result[0].numpy())) for box in boxes]
    with torch.no_grad():
        network(torch.from_numpy(image.copy())[None, None])
    for hook in hooks:
        hook.remove()
    return maps


many = max(shown, key=lambda sample: len(np.unique(sample.mask)))
side = min(256, min(many.image.shape) // 16 * 16)
maps = feature_maps(networks["with skips"], normalize_percentiles(many.image)[:side, :side])
print(", ".join(f"{len(box)} maps of {box.shape[1]}²" for box in maps))


def most_like(mask, box):
    """The map of a box with the highest correlation with a mask, which is shrunk to its size."""
    shrunk = mask.reshape(box.shape[1], mask.shape[0] // box.shape[1], box.shape[2], -1).mean(axis=(1, 3))
    likeness = [abs(np.corrcoef(shrunk.ravel(), one.ravel())[0, 1]) if one.std() > 0 else 0 for one in box]
    return box[np.argmax(likeness)]


# %% tags=["fold"]
show(
    plotting.plot_unet(base_channels=8, depth=3, side=side),
    f"The network that was just trained, for an image of {side} x {side} pixels.",
)
figure, axes = plotting.grid(2, 4, width=2.2)
names = ["level 1", "level 2", "level 3", "bottleneck"]
for column, name in enumerate(names):
    for row, box in [(0, maps[column]), (1, maps[6 - column])]:
        picked = most_like(many.mask[:side, :side] > 0, box) if (row, column) != (1, 3) else many.image[:side, :side]
        title = "the image" if (row, column) == (1, 3) else name if column == 3 else f"{['down', 'up'][row]}, {name}"
        plotting.draw_image(axes[row, column], picked, f"{title}, {picked.shape[0]}²")
show(
    figure,
    "One feature map of each box. Top, from left to right: down the encoder to the bottleneck, where a nucleus is a "
    "few pixels. Bottom: up the decoder, level 3 to 1 from right to left; at the right the image.",
)

# %% [markdown]
# Read the top row from left to right, the bottom row from right to left. On the way down the maps get coarser: at the
# bottleneck a pixel stands for 8 x 8 pixels of the image. On the way up outlines return, level by level: each map of
# the decoder is made from what comes up and, through the skip connection, from the maps above it in this figure.

# %% [markdown]
# ### Exercise 2.4: Count the parameters
#
# {{difficulty}}
#
# Write `count_parameters(model)`. It returns the number of trainable parameters as an int.

# %% [markdown] expected="2.4"
# Expected: a layer from ten numbers to two has twenty weights and two biases.
#
# ```python expected
# count_parameters(torch.nn.Linear(10, 2))
# ```
#
# <details><summary>Hint 1</summary>
#
# `model.parameters()` yields every parameter tensor once.
#
# </details>
# <details><summary>Hint 2</summary>
#
# A tensor knows its number of elements, and whether it is trained: `requires_grad`.
#
# </details>

# %% exercise="2.4"
from course_utils import count_parameters

# %% check="2.4"

# %% tags=["nbval-check-output"]
paper_size = UNet(in_channels=1, out_channels=1, base_channels=64, depth=4)
n_parameters = count_parameters(paper_size)
assert n_parameters == 31_030_593
print(f"{n_parameters:,}")

# %% [markdown]
# Thirty-one million, exactly 31,030,593. If you get another number, compare with the drawing: a missing bias, bilinear
# upsampling in place of the transposed convolution, or an extra block all change it.
#
# **Break it**: blocks in a plain Python list instead of an `nn.ModuleList`. How many parameters does this network have?

# %%
class Forgetful(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = [ConvBlock(1, 8), ConvBlock(8, 8)]


print(f"{count_parameters(Forgetful()):,} of {sum(map(count_parameters, Forgetful().blocks)):,}")
claim(count_parameters(Forgetful()) == 0, "torch does not see the parameters in a plain list.")

# %% [markdown]
# An optimizer made from `model.parameters()` would train none of them, without an error message.
#
# Back to the thirty-one million. In which convolutions are most of them?

# %%
convolutions = [
    layer for layer in paper_size.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
]
table = pd.DataFrame(
    {"maps": [c.out_channels for c in convolutions], "parameters": map(count_parameters, convolutions)}
)
table = table.groupby("maps").sum()
table["share"] = (100 * table["parameters"] / n_parameters).round(1).astype(str) + " %"
assert table["parameters"].sum() == n_parameters and table.loc[1024, "parameters"] > 0.4 * n_parameters
table.style.format({"parameters": "{:,}"})

# %% [markdown]
# Each row sums up the convolutions with that number of feature maps. The two in the bottleneck, with 1024 maps, hold
# over 40 % of all parameters: the number grows with the square of the channels, and channels are most numerous where
# resolution is lowest. Computing time and memory are distributed differently, as you will see.
#
# Now follow the data through the network, once more with hooks: these are called whenever a layer has computed its
# output.

# %%
small, size = UNet(base_channels=8), 256
steps = []
for layer in small.modules():
    if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.ConvTranspose2d)):
        layer.register_forward_hook(
            lambda layer, inputs, result: steps.append(
                [type(layer).__name__, tuple(inputs[0].shape), tuple(result.shape)]
            )
        )
small(torch.zeros(1, 1, size, size))
steps = pd.DataFrame(steps, columns=["layer", "from", "to"])
steps

# %% [markdown]
# Follow the last two numbers of each shape: 256, 128, 64, 32, 16 on the way down and back up again. The second number,
# the channels, goes the other way. After each transposed convolution the next layer receives twice as many channels as
# it made: the other half comes through the skip connection.
#
# From the same table, sum up computing and memory at each resolution. A convolution with a kernel of $k \times k$ costs
# $k^2 \cdot C_{in} \cdot C_{out}$ multiplications for each output pixel (here only the 3x3 convolutions are counted),
# and its result has to be kept for the backward pass:

# %%
convolutions = steps[(steps["layer"] == "Conv2d") & (steps["to"].str[1] > 1)]
work = pd.DataFrame(
    {
        "side": [to[-1] for to in convolutions["to"]],
        "multiplications": [
            9 * f[1] * to[1] * to[2] * to[3] for f, to in zip(convolutions["from"], convolutions["to"])
        ],
        "kept values": [to[1] * to[2] * to[3] for to in convolutions["to"]],
    }
)
work = work.groupby("side").sum().sort_index(ascending=False)
work = (100 * work / work.sum()).round(1)
claim(work["multiplications"].iloc[:4].between(15, 30).all(), "The four upper levels cost about the same.")
claim(work["kept values"].iloc[0] > 40, "The top level needs over 40 % of the memory, more than any other.")
work

# %% [markdown]
# Values are percentages. Computing is spread almost evenly over the upper levels: one level down there is a quarter of
# the pixels, but four times the work for each of them. Memory is needed at the top: this is why large images or large
# batches run out of it.

# %% [markdown]
# ## An untrained prediction

# %% [markdown]
# What does a network predict whose weights are still random?

# %%
torch.manual_seed(seed)
model = UNet(base_channels=get_profile(profile).base_channels).eval()
with torch.no_grad():
    logits = model(torch.from_numpy(crop.copy())[None, None])
probability = torch.sigmoid(logits)[0, 0].numpy()
low, high = probability.min(), probability.max()
print(f"probabilities from {low:.4f} to {high:.4f}")
claim(high - low < 0.05, "The untrained network predicts nearly the same everywhere.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 3, width=3)
plotting.draw_image(axes[0, 0], crop, "image")
plotting.draw_probability(axes[0, 1], probability, "prediction, 0 to 1", colorbar=True)
darkest, brightest = np.percentile(probability, [2, 98])  # the border, where zeros are read, would set the scale
drawn = axes[0, 2].imshow(probability, cmap="cividis", vmin=darkest, vmax=brightest)
axes[0, 2].set_title(f"the same, {darkest:.4f} to {brightest:.4f}")
axes[0, 2].axis("off")
figure.colorbar(drawn, ax=axes[0, 2], shrink=0.7, ticks=[darkest, brightest], format="%.4f")
show(
    figure,
    "An image, the probability of foreground that an untrained network gives each pixel, and the same with colours "
    "stretched to its own range. On the scale from 0 to 1 it is one flat grey; stretched, the nuclei appear.",
)

# %% [markdown]
# The prediction is one flat grey, "don't know": on the scale from 0 to 1 all pixels get nearly the same number. But the
# network is not blind. Stretched to its own range, the prediction shows the nuclei (brighter or darker than the
# background, as chance has it): random filters pass the image on. Training has to widen these small differences, and in
# the right direction.
#
# Could the grey value alone do it? Compare the dark pixels of nuclei with the bright pixels of the background, after
# normalisation:

# %%
nuclei, background = [], []
for sample in data.train:  # every second row and column is enough, and takes a quarter of the memory
    image, mask = normalize_percentiles(sample.image)[::2, ::2], sample.mask[::2, ::2]
    nuclei.append(image[mask > 0])
    background.append(image[mask == 0])
overlap = np.mean(np.concatenate(nuclei) < np.percentile(np.concatenate(background), 99))
print(f"{100 * overlap:.0f} % of the nucleus pixels are darker than the brightest 1 % of the background")
claim(0.05 < overlap < 0.3, "The grey values of nuclei and background overlap, but only in part.")

# %% [markdown]
# The grey value goes a long way in fluorescence images, and fails at dim nuclei, blurred edges and bright debris. To
# decide there, a pixel must see its surroundings.

# %% [markdown]
# ## How far does an output pixel see?
#
# The **receptive field** of an output pixel is the part of the input that can change it. Measure it instead of
# calculating it: take one output pixel and compute its gradient with respect to every input pixel. Where the gradient
# is not zero, a change of the input changes the output.
#
# **Predict, then run**: how many pixels wide is the field of a U-Net of depth 4?

# %%
ask("02 receptive field", "How many pixels wide is the field at depth 4?", low=0, high=400, step=2, unit="pixels")

# %%
def receptive_field(depth, side=320, repeats=4):
    torch.manual_seed(seed)
    seen = np.zeros((side, side))
    for _ in range(repeats):  # max pooling passes on only one of four pixels, so try several inputs
        network = UNet(base_channels=4, depth=depth)
        x = torch.rand(1, 1, side, side, requires_grad=True)
        network(x)[0, 0, side // 2, side // 2].backward()
        seen += x.grad[0, 0].abs().numpy()
    return seen


fields = {depth: receptive_field(depth) for depth in (1, 2, 3, 4)}
width = {depth: int((field > 0).any(axis=0).sum()) for depth, field in fields.items()}
areas = np.concatenate([nucleus_areas(sample.mask) for sample in data.train])
diameter = 2 * np.sqrt(np.median(areas) / np.pi)
compare("02 receptive field", width[4], f"A nucleus of median size is {diameter:.0f} pixels wide.")

# %% [markdown]
# How much is that? Lay the fields over an image, around a pixel in the middle of a nucleus of median size.

# %%
print(f"depth 1 to 4: {list(width.values())} pixels")
claim(all(1.8 < width[depth + 1] / width[depth] < 2.6 for depth in (1, 2, 3)), "Each level about doubles the field.")
claim(0.7 < width[1] / diameter < 1.4, "At depth 1 the field is about as wide as a median nucleus.")
claim(width[4] > 3 * diameter, "At depth 4 the field is more than three times as wide as a nucleus.")
middle = slice(160 - width[4] // 8, 160 + width[4] // 8)
claim(fields[4][middle, middle].sum() > 0.9 * fields[4].sum(), "Its middle sixteenth has 90 % of the gradient.")

# %% tags=["fold"]
half = 110


def place_in_an_image(sample, region):
    """How far a window around a nucleus sticks out, whether it is long, and how far its area is from the median."""
    inside = min(*region.centroid, *np.subtract(sample.image.shape, region.centroid))
    return max(0, half - inside), region.eccentricity > 0.7, abs(region.area - np.median(areas))


nuclei = [(sample, region) for sample in data.train[:30] for region in regionprops(sample.mask)]
sample, region = min(nuclei, key=lambda nucleus: place_in_an_image(*nucleus))
row, column = np.round(region.centroid).astype(int)
around = slice(row, row + 2 * half), slice(column, column + 2 * half)
neighbourhood = np.pad(sample.image, half, mode="reflect")[around]
nucleus = np.pad(sample.mask == region.label, half)[around]

# %% tags=["fold"]
figure, axes = plotting.grid(2, 2, width=3.4)
for panel, (depth, field) in zip(axes.flat, fields.items()):
    plotting.draw_image(panel, neighbourhood, f"depth {depth}: {width[depth]} pixels")
    seen = np.clip(np.log10(field[50:270, 50:270] + 1e-12) / 12 + 1, 0, 1)
    plotting.draw_tint(panel, 0.8 * seen, plotting.ORANGE)
    panel.contour(nucleus, levels=[0.5], colors=plotting.SKY, linewidths=1.5)
    corner = half - width[depth] / 2
    panel.add_patch(plt.Rectangle((corner, corner), *2 * [width[depth]], fill=False, color="white", linestyle="--"))
    panel.plot([30, 80], [196, 196], color="white", linewidth=4)
    background = {"facecolor": "black", "pad": 1, "linewidth": 0}
    panel.text(55, 190, "50 pixels", color="white", ha="center", va="bottom", fontsize=10, bbox=background)
show(
    figure,
    "The dashed square is the receptive field of the pixel in the middle, for U-Nets of depth 1 to 4. The blue line is "
    "a nucleus of median size, the bar 50 pixels. The stronger the orange, the more a pixel counts (logarithmic). "
    "At depth 1 the field is about as wide as the nucleus, at depth 4 it holds its neighbours.",
)

# %% [markdown]
# Each level about doubles the field: after pooling, a 3x3 convolution covers twice the distance. At depth 4 a pixel
# sees an area several nuclei wide. But the gradient is concentrated in the middle: in a network with random weights,
# nearby pixels count most (the *effective* receptive field is smaller than the theoretical one).

# %% [markdown] question="2b"
# **Question 2b.** Compare the receptive field with a nucleus. Is a depth of 1 enough? Would a depth of 8 be better?

# %% [markdown] answer="2b"
# The field should cover a nucleus and its surroundings, so that the network recognises the inside of a large nucleus
# and can tell a nucleus from a bright patch of background. At depth 1 it is about as wide as a median nucleus: the
# middle of a large one looks like any evenly bright area. At depth 4 it covers several nuclei and their surroundings.
# Depth 8 would see more than the whole image: each level doubles the field, so it would be some 3000 pixels wide. That
# is hardly needed here, each level has about four times the parameters of the one above, and sides would have to be
# divisible by 256.

# %% [markdown] question="2c"
# **Question 2c.** What is the drawback of SAME convolutions at the border of an image?

# %% [markdown] answer="2c"
# Near the border the convolution reads zeros where there is no image. The network sees a dark frame that no microscope
# made, and with every layer its influence reaches further inwards, up to half the receptive field. Predictions near the
# border can be less reliable for that reason, and because half of their surroundings is missing. VALID convolutions
# avoid the frame, but their output is smaller than the input, and the border has no prediction at all unless the image
# is extended; the paper did this by reflection.

# %% [markdown]
# ## Images of any size
#
# The network refuses a size that is not divisible by 16:

# %%
try:
    small(torch.zeros(1, 1, 520, 696))
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# Cropping the image to a size that fits would lose nuclei at its border. A popular one-liner,
# `image[:-(H % 16), :-(W % 16)]`, is worse: for a side that is divisible, `-(256 % 16)` is `-0`, and the slice `[:-0]`
# is **empty**. So pad the image, and crop the prediction afterwards.
#
# ### Exercise 2.5: Pad to a size the network accepts
#
# {{difficulty}}
#
# Write `pad_to_multiple(image, multiple=16)`. It returns `(padded, (H, W))`. Pad at the bottom and at the right only,
# by reflection as `np.pad(..., mode="reflect")` does. An image that fits stays as it is. The function must work for
# every height and width from 1.

# %% [markdown] expected="2.5"
# Expected: three more pixels on the right that mirror those before the last one; the last one itself is not repeated.
#
# ```python expected
# padded, size = pad_to_multiple(np.array([[1, 2, 3, 4, 5]]), multiple=8)
# print(padded.shape, size)
# print(padded[0])
# ```
#
# <details><summary>Hint 1</summary>
#
# Begin with one side. How many pixels are missing to the next multiple of 16, for a side of 20? Of 31? Of 33? And of
# 32: none, or 16? Write down the four numbers before you write code.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `20 % 16` is what stands beyond the last multiple; you need what is missing to the next one. The two belong together,
# except where nothing stands beyond: there, nothing is missing either. An `if` is fine.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Look up in the documentation of `np.pad` what its second argument is for an array with two axes: how many pixels
# *before* and how many *after*, for each axis. Which of these four numbers are always 0?
#
# </details>
# <details><summary>Hint 4</summary>
#
# It also works without an `if`. Try in Python what `-1 % 16`, `-15 % 16` and `-16 % 16` are, and compare with your
# numbers of hint 1.
#
# </details>

# %% exercise="2.5"
from course_utils import pad_to_multiple

# %% check="2.5"

# %%
for height, width_ in [(256, 256), (520, 696), (360, 360), (260, 347), (1, 5)]:
    padded, size = pad_to_multiple(np.zeros((height, width_)))
    print(f"{height} x {width_} -> {padded.shape[0]} x {padded.shape[1]}")
    assert padded.shape[0] % 16 == padded.shape[1] % 16 == 0 and size == (height, width_)


odd = normalize_percentiles(crowded.image)[:216, :232]
padded, (height, width_) = pad_to_multiple(odd, multiple=64)

# %% tags=["fold"]
with_zeros = np.zeros_like(padded)
with_zeros[:height, :width_] = odd
panels = {f"image, {height} x {width_}": odd, f"reflected, {padded.shape[0]} x {padded.shape[1]}": padded}
panels["with zeros"] = with_zeros
bottom, right = padded.shape[0] - 0.5, padded.shape[1] - 0.5
figure, axes = plotting.grid(1, 3, width=3.1)
for panel, (name, array) in zip(axes[0], panels.items()):
    panel.imshow(array, cmap="gray", vmin=0, vmax=1)
    panel.plot([-0.5, width_ - 0.5, width_ - 0.5], [height - 0.5, height - 0.5, -0.5], color=plotting.ORANGE)
    panel.set(title=name, xlim=(right - 140, right), ylim=(bottom, bottom - 140))
    panel.axis("off")
show(
    figure,
    "The lower right corner of an image, the same padded to a multiple of 64 (so that the padding is visible), and "
    "padded with zeros, all at one scale. The image ends at the orange line; beyond it, it is mirrored, or black.",
)

# %% [markdown]
# Across the line the image continues as its own mirror image: background stays background, and a nucleus at the edge
# has a second half. With zeros instead, every nucleus at the edge would be cut off along a straight line.

# %% [markdown]
# ## What to remember
#
# * Encoder for context, decoder for resolution, skip connections for detail.
# * No level has as many parameters as the bottleneck, or needs as much memory as the top; computing is spread evenly.
# * The receptive field must cover what the network is to recognise.
# * Sides must be divisible by $2^{depth}$: pad, never crop.

# %%
record_scores(output, "02_unet", {"parameters": n_parameters, "receptive_field": width[4]})
plt.close("all")
