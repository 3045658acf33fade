# %% [markdown]
# # 07 Denoising
#
# Light harms living cells, so microscopists use little of it, and their images are noisy. The U-Net can remove noise:
# the same network and the same training as before, with another target. And that target, as you will see, may be noisy,
# too.
#
# **After this notebook you can**
#
# * tell kinds of noise apart, measure how much of it is left (PSNR, SSIM), and say when these scores mislead;
# * train a network to denoise without a single clean image (*Noise2Noise*), and explain why that works;
# * predict how it goes wrong when its assumption does not hold, before you train it;
# * judge whether denoising helps what comes after it.
#
# **You need** notebooks 01 to 05.
#
# **Time** about {{minutes}} minutes of work. Computing: with the pretrained networks, half a minute on two CPU cores in
# the profile `smoke` and a few minutes in `laptop`; `full`, meant for a GPU, has not been measured yet. Where there are
# none (other images, a stand-alone copy of the notebook), three denoisers are trained first: some minutes in `smoke`,
# an hour in `laptop`.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from skimage.segmentation import expand_labels, find_boundaries
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset, RandomSampler

from course_utils import FitOptions, UNet, average_precision, choose_device, find_best_threshold, fit, get_profile
from course_utils import load_data, normalize_percentiles, paired_bootstrap, plotting, predict, random_crop
from course_utils import record_scores, split_train_val, touching_ids, validation_loader, watershed_instances
from course_utils.arguments import check_arguments, check_crop_fits  # used by the course's own functions, not by yours
from course_utils.denoising import SIGMA, clipped_mean, denoise, denoising_model, noisy_arrays, non_local_means
from course_utils.denoising import to_unit_range, total_variation, without_clipping_bias
from course_utils.display import LiveFigure, show
from course_utils.exercises import check
from course_utils.exercises.claims import claim
from course_utils.exercises.guesses import ask, compare
from course_utils.networks import boundary_model

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
train_images, val_images = ([to_unit_range(sample.image) for sample in samples] for samples in (train, val))
rng = np.random.default_rng(seed)

# %% [markdown]
# ## Noise
#
# The images of the course count as clean here, and the computer adds the noise: so the truth is known, and every method
# can be scored. Nothing is normalised in this notebook. Noise is a number of grey levels, and the images are only
# divided by 255, the brightest of them.
#
# Two validation images will come along, a **dim** and a **bright** one, and of each a part with many nuclei.


# %%
def busy_window(mask, side=96):
    """The tile with most boundaries of nuclei."""
    tiles = [np.s_[side * r :, side * c :] for r, c in np.ndindex(*np.array(mask.shape) // side)] or [np.s_[:, :]]
    top, left = max(tiles, key=lambda tile: np.sum(find_boundaries(mask[tile][:side, :side], mode="inner")))
    return np.s_[top.start : top.start + side, left.start : left.start + side]


def dim_and_bright(images, samples):
    """Two images and their windows, by name."""
    order = np.argsort([np.percentile(image, 99.8) for image in images])
    return {name: (index, busy_window(samples[index].mask)) for name, index in zip(("dim", "bright"), order[[0, -1]])}


shown = dim_and_bright(val_images, val)
for name, (index, _) in shown.items():
    print(f"{name}: grey levels up to {255 * val_images[index].max():.0f} of 255")

# %% [markdown]
# ### Exercise 7.1: Add noise of mean zero
#
# {{difficulty}}
#
# Write `add_noise(image, sigma, rng)` for an image in [0, 1]. It returns `image` plus Gaussian noise of mean 0 and
# standard deviation `sigma` as a float32 array, with independent noise in every pixel. Values below 0 and above 1
# stay as they are: **do not clip**. Later you will see why.

# %% [markdown] expected="7.1"
# Expected: the mean stays, the spread is `sigma`, and half of the values of a black image are negative.
#
# ```python expected
# noisy = add_noise(np.zeros((200, 200)), sigma=0.1, rng=np.random.default_rng(0))
# print(noisy.dtype, f"mean {noisy.mean():.3f}, std {noisy.std():.3f}, negative {np.mean(noisy < 0):.2f}")
# ```
#
# <details><summary>Hint 1</summary>
#
# `rng.normal(mean, std, shape)` draws an array of independent numbers.
#
# </details>
# <details><summary>Hint 2</summary>
#
# NumPy draws float64. Convert the sum, not the image: an image of integers would lose its noise.
#
# </details>

# %% exercise="7.1"
from course_utils import add_noise

# %% check="7.1"

# %% [markdown]
# Noise of this kind is as strong in the dark as in the light; the electronics of a camera make it. Light itself is
# noisy, too: it comes as single photons. Where a camera counts $n$ of them on average, it counts more or fewer at
# random, with a variance of $n$ (**Poisson** noise).

# %%
sigma = SIGMA  # 20 of 255 grey levels
photons = 60  # of a pixel with grey level 255
views = {
    name: {
        "clean": val_images[index],
        "Gaussian noise": add_noise(val_images[index], sigma, rng),
        "Poisson noise": rng.poisson(val_images[index] * photons) / photons,
    }
    for name, (index, _) in shown.items()
}


# %% tags=["fold"]
def draw_views(views, shown, columns, titles=None, outlines=None):
    """For each image its window of each view, all on the grey scale of the clean one."""
    per_image = -(-len(next(iter(views.values()))) // columns)
    figure, axes = plotting.grid(len(views) * per_image, columns, width=3.2)
    for start, (name, images) in enumerate(views.items()):
        part = shown[name][1]
        low, high = np.percentile(images["clean"][part], [1, 99.8])
        margin = 0.15 * (high - low)
        for panel, (title, image) in zip(axes[start * per_image :].flat, images.items()):
            panel.imshow(image[part], cmap="gray", vmin=low - margin, vmax=high + margin)
            panel.set_title(f"{name}: {title}" if titles is None else titles[name][title], size=10)
    for panel in axes.flat:
        panel.axis("off")
    return figure


show(
    draw_views(views, shown, columns=3),
    "Parts of a dim and of a bright image, 96 x 96 pixels: clean, with Gaussian noise of 20 grey levels, and with "
    "Poisson noise. Gaussian noise is as strong in the dark background as in the nuclei, and dim nuclei hardly stand "
    "out of it; Poisson noise is strong in bright nuclei and weak in the background.",
)

# %% [markdown]
# Measured: for all pixels of the validation images with about the same true grey level, the variance of what the noise
# added.

# %%
values = np.concatenate([image.ravel() for image in val_images])[None]  # as one wide image
noise = {
    "Gaussian": add_noise(values, sigma, rng) - values,
    "Poisson": rng.poisson(values * photons) / photons - values,
}
bins = np.digitize(values, np.array([5, 10, 20, 40, 60, 80, 100, 130, 160, 200]) / 255)
used = np.flatnonzero(np.bincount(bins.ravel()) >= 2000)  # bins with enough pixels for a variance
level = np.array([values[bins == b].mean() for b in used])
variance = {name: np.array([np.var(added[bins == b]) for b in used]) for name, added in noise.items()}
del noise, bins  # each holds as many numbers as all validation images
claim(np.ptp(variance["Gaussian"]) < 0.25 * sigma**2, "The variance of Gaussian noise is the same at every grey level.")
claim(np.allclose(variance["Poisson"], level / photons, rtol=0.25), "That of Poisson noise grows with the level.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=6, height=3.6)
axes[0, 0].plot(255 * level, 255**2 * variance["Gaussian"], "-o", label="Gaussian, sigma = 20 grey levels")
axes[0, 0].plot(255 * level, 255**2 * variance["Poisson"], "--s", label=f"Poisson, {photons} photons at 255")
axes[0, 0].set(xlabel="true grey level (mean)", ylabel="variance of the noise\n(grey levels squared)", ylim=(0, None))
axes[0, 0].legend(frameon=False)
show(figure, "Variance against mean: level for Gaussian noise, a straight line through zero for Poisson noise.")

# %% [markdown]
# A real camera has both: a straight line that starts above zero. Such a plot of a real series of images of the same
# field shows which noise you have. From here on the noise is Gaussian with a sigma of 20 grey levels, as in published
# tests with these images (DenoiSeg, see the end).

# %% [markdown] question="7a"
# **Question 7a.** The exposure time is quadrupled, so each pixel gets four times as many photons. How much better is
# the ratio of signal to noise if the noise is that of the photons? And if it is that of the electronics?

# %% [markdown] answer="7a"
# With four times the photons, the signal is four times as strong. The variance of Poisson noise is four times as large,
# its standard deviation twice: the ratio doubles. Noise of the electronics stays as it was, so there the ratio is four
# times as good. In dim images the electronics dominate, in bright ones the photons. And the cells get four times the
# light, which is why one would rather denoise.

# %% [markdown]
# ## How noisy is it?
#
# The usual score is the **peak signal-to-noise ratio** in decibels,
#
# $$ \mathrm{PSNR} = 10 \log_{10} \frac{\mathrm{range}^2}{\mathrm{MSE}} $$
#
# where MSE is the mean squared error against the clean image: 10 dB more mean a tenth of the squared error. Two ranges
# are in use, and papers do not always say which:
#
# * **range 1**: the full scale of the image, 255 grey levels of 8 bits;
# * **max - min** of the clean image (DenoiSeg, CARE and others): what the image really uses of the scale.
#
# ### Exercise 7.2: The peak signal-to-noise ratio
#
# {{difficulty}}
#
# Write `psnr(reference, image, data_range=1.0)`. It returns the PSNR in dB as a Python float; for identical images it
# is `inf`.

# %% [markdown] expected="7.2"
# Expected: an error of 0.1 everywhere is 20 dB at a range of 1, and 14 dB if the image uses only half of it.
#
# ```python expected
# reference, image = np.zeros((4, 4)), np.full((4, 4), 0.1)
# print(round(psnr(reference, image), 2), round(psnr(reference, image, data_range=0.5), 2), psnr(image, image))
# ```
#
# <details><summary>Hint 1</summary>
#
# Mean squared error first: the mean of the squared differences. Images may be integers: what is 3 - 5 in `uint8`?
#
# </details>
# <details><summary>Hint 2</summary>
#
# A Python float refuses division by zero, a NumPy number only warns. Handle an error of exactly 0 before the division.
#
# </details>

# %% exercise="7.2"
from course_utils import psnr

# %% check="7.2"


# %%
def quality(clean, image):
    """Three scores of an image; the range of the last two is max - min of the clean one."""
    used_range = max(float(np.ptp(clean)), 1e-6)
    return {
        "PSNR, range 1": psnr(clean, image),
        "PSNR, max - min": psnr(clean, image, used_range),
        "SSIM": structural_similarity(clean, image.astype(clean.dtype), data_range=used_range),
    }


scores = pd.DataFrame({name: quality(seen["clean"], seen["Gaussian noise"]) for name, seen in views.items()}).T
fixed, own = scores["PSNR, range 1"], scores["PSNR, max - min"]
claim(abs(fixed["dim"] - fixed["bright"]) < 0.2, "With a fixed range the same noise gives the same PSNR.")
claim(own["dim"] < own["bright"] - 5, "With the image's own range the dim image is more than 5 dB worse.")
scores.style.format("{:.1f}").format("{:.2f}", subset="SSIM")

# %% [markdown]
# The noise is the same, so at a fixed range the PSNR is the same: 22.1 dB. With its own range the dim image is far
# worse, and so it looks above. Both numbers are right; a comparison needs the same one on both sides. In this notebook
# *PSNR* is that with **max - min**, unless it says otherwise.
#
# The **structural similarity** SSIM (Wang et al., 2004) compares means, contrasts and patterns in small windows; 1 is
# identical. It, too, needs a range.
#
# ### When the scores mislead
#
# Three ways to spoil the bright image: noise; 20 grey levels added to every pixel; one nucleus wiped out.

# %%
index, part = shown["bright"]
clean, mask = val_images[index], val[index].mask
alone = set(np.unique(mask[part][16:-16, 16:-16])) - {0, *touching_ids(mask)}
light = {id_: clean[mask == id_].sum() for id_ in alone or np.unique(mask[mask > 0])}
wiped_out = sorted(light, key=light.get)[len(light) // 2]  # neither the brightest nor the dimmest of the window
around = expand_labels(mask, 4) == wiped_out
spoilt = {
    "clean": clean,
    "noise": views["bright"]["Gaussian noise"],
    "20 grey levels added": clean + np.float32(sigma),
    "a nucleus wiped out": np.where(around, np.median(clean[mask == 0]), clean),
}
table = pd.DataFrame({name: quality(clean, image) for name, image in list(spoilt.items())[1:]}).T
decibels = table["PSNR, max - min"]
claim(abs(decibels["noise"] - decibels["20 grey levels added"]) < 0.2, "Noise and a shift have the same PSNR.")
claim(table.idxmax().eq("a nucleus wiped out").all(), "The missing nucleus has the best PSNR and the best SSIM.")

# %% tags=["fold"]
titles = {name: f"{name}: {row['PSNR, max - min']:.1f} dB, SSIM {row['SSIM']:.2f}" for name, row in table.iterrows()}
figure, axes = plotting.grid(2, 2, width=4)
for panel, (name, image) in zip(axes.flat, spoilt.items()):
    panel.imshow(image[part], cmap="gray", vmin=-sigma, vmax=clean[part].max() + sigma)
    panel.set_title(titles.get(name, name), size=10)
    panel.axis("off")
rows, columns = np.nonzero(mask[part] == wiped_out)
place = ((columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2)
radius = 4 + max(np.ptp(rows), np.ptp(columns)) / 2
axes[1, 1].add_patch(plt.Circle(place, radius, fill=False, color=plotting.ORANGE, linewidth=2))
show(
    figure,
    "The bright image, spoilt in three ways, on one grey scale. Noise and the brighter image have the same PSNR; the "
    "image with a missing nucleus (circle) has the best scores.",
)

# %% [markdown]
# Whoever counts the nuclei of this image sees it the other way round: the added grey levels do no harm, bright nuclei
# can still be counted in the noise, and the missing nucleus is an error. PSNR and SSIM compare grey values. Whether
# *your* question is answered better, only a score of your question tells; at the end of this notebook that is the AP
# of the segmentation.
#
# ## Pairs
#
# A network that denoises needs pairs to learn from: a noisy image, and a target.
#
# ### Exercise 7.3: A dataset of noisy pairs
#
# {{difficulty}}
#
# Write the class `NoisyPairDataset(images, sigma, crop_size=256, clean_target=False, seed=0)`. An item is a pair of
# float32 tensors `(1, S, S)`: two noisy views of the same random crop, with **independent** noise; with
# `clean_target=True` the noisy crop and the clean one. Every epoch and every worker of a loader gets new crops and new
# noise, and another `seed` gives others, as in exercise 1.7.

# %% [markdown] expected="7.3"
# Expected: two tensors of one window; what they differ by has the variance of two noises.
#
# ```python expected
# dataset = NoisyPairDataset([np.zeros((64, 80))], sigma=0.1, crop_size=48)
# noisy, target = dataset[0]
# print(noisy.shape, target.dtype, f"std of the difference: {(noisy - target).std():.2f}")
# noisy, target = NoisyPairDataset([np.zeros((64, 80))], sigma=0.1, crop_size=48, clean_target=True)[0]
# print("a clean target:", target.unique().tolist())
# ```
#
# <details><summary>Hint 1</summary>
#
# `random_crop` cuts the same window out of two arrays. Here one array is enough: pass the image twice, and use one of
# the results. Crop first, then add noise.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Call `add_noise` once for each view: one generator gives other numbers each time.
#
# </details>
# <details><summary>Hint 3</summary>
#
# In exercise 1.7 the generator was made anew for each item, from the seed and a number of torch:
# `np.random.default_rng([self.seed, int(torch.randint(2**62, ()))])`. Why not once in `__init__`?
#
# </details>

# %% exercise="7.3"
from course_utils import NoisyPairDataset

# %% check="7.3"

# %%
crop_size = min(settings.crop_size // 2, *(min(image.shape) // 16 * 16 for image in train_images))
torch.manual_seed(seed)
pairs = NoisyPairDataset(train_images, sigma, crop_size, seed=seed)
noisy, target = pairs[int(np.argmax([image.mean() for image in train_images]))]
difference = noisy - target
print(f"difference: mean {difference.mean():+.3f}, std {difference.std():.3f} = {difference.std() / sigma:.2f} sigma")
assert not torch.equal(noisy, target)
claim(abs(difference.std() / sigma - 2**0.5) < 0.1, "The two noises are independent: their variances add up.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 3, width=3.4)
for panel, (name, view) in zip(axes[0], {"view 1": noisy, "view 2": target, "difference": difference}.items()):
    panel.imshow(view[0, :96, :96], cmap="gray")
    panel.set_title(name)
    panel.axis("off")
side = min(crop_size, 96)
show(figure, f"A pair, {side} x {side} pixels: two views of the same nuclei. Their difference shows no nuclei.")

# %% [markdown]
# ## Learn from noise
#
# In **Noise2Noise** (Lehtinen et al., 2018) a network sees the first view and has to predict the second. It cannot: the
# second noise has nothing to do with the first. What does it learn then?
#
# A network that is trained with the mean squared error learns the *mean* of the targets that are possible for an input.
# Average many noisy views of one image:

# %%
index, part = shown["dim"]
averages = {n: np.mean([add_noise(val_images[index], sigma, rng) for _ in range(n)], axis=0) for n in (1, 4, 16, 64)}
left = {n: 255 * np.std(mean - val_images[index]) for n, mean in averages.items()}
print("noise that is left, in grey levels:", {n: round(float(value), 1) for n, value in left.items()})
claim(all(abs(value * n**0.5 - 20) < 1 for n, value in left.items()), "The mean of n views has noise of 20 / sqrt(n).")

# %% tags=["fold"]
numbered = {"dim": {"clean": val_images[index]} | {f"mean of {n}": mean for n, mean in averages.items()}}
figure = draw_views(numbered, shown, columns=3)
show(figure, "A dim image, and the means of 1, 4, 16 and 64 of its noisy views: they approach the clean image.")

# %% [markdown]
# The mean of many noisy targets is the clean image. A network never sees 64 views of one image, but thousands of crops
# in which nuclei look alike.
#
# The loss tells the same. Some predictions for the bright image, bad ones and good ones, are scored twice: against the
# clean image, and against a noisy view. **Predict, then run.**

# %%
question = "A prediction is perfect: the clean image. What is its mean squared error against a noisy target?"
ask("07 noisy target", question + " (The noise has a sigma of 20.)", 0, 1000, 10, unit="grey levels squared")

# %%
clean = val_images[shown["bright"][0]]
view, second_view = add_noise(clean, sigma, rng), add_noise(clean, sigma, rng)
candidates = {"clean image": clean, "black image": np.zeros_like(clean), "the input itself": view}
candidates |= {f"input, blurred by {width:g}": gaussian_filter(view, width) for width in (0.5, 0.7, 1, 2, 4)}


def error(image, target):
    return 255**2 * np.mean((image - target) ** 2, dtype=float)


targets = {"the clean image": clean, "a noisy view": second_view, "the input": view}
errors = pd.DataFrame(index=list(candidates), columns=list(targets), dtype=float)
for name, target in targets.items():
    errors[name] = [error(image, target) for image in candidates.values()]
difference = errors["a noisy view"] - errors["the clean image"]
measured = round(errors.loc["clean image", "a noisy view"])
compare("07 noisy target", measured, "That is sigma squared.", errors.style.format("{:.0f}"))
claim(abs(difference - 400).max() < 20, "Against a noisy view every prediction has 400 more: sigma squared.")
claim(errors["the input"].idxmin() == "the input itself", "Against its own noise the input is best.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=6, height=4)
drawn = errors.drop("black image")  # far away
axes[0, 0].plot([0, 420], [400, 820], ":", color="black", label="MSE against the clean image + 400")
axes[0, 0].plot(drawn["the clean image"], drawn["a noisy view"], "o", label="target: an independent noisy view")
axes[0, 0].plot(drawn["the clean image"], drawn["the input"], "s", label="target: the input, with its own noise")
for name, offset in {"clean image": (-4, 40), "the input itself": (10, -4)}.items():
    place = drawn.loc[name, ["the clean image", "a noisy view"]]
    line = {"arrowstyle": "-", "color": "grey"}
    axes[0, 0].annotate(name, place, offset, textcoords="offset points", arrowprops=line if offset[1] > 0 else None)
axes[0, 0].set(xlabel="MSE against the clean image", ylabel="MSE against the target", xlim=(-10, 560), ylim=(-30, 1150))
axes[0, 0].legend(frameon=False, loc="upper left")
show(
    figure,
    "Predictions scored against a noisy view, over their score against the clean image: all lie on one line, 400 above "
    "the diagonal. Against the input itself they do not: the noisy input has an error of 0.",
)

# %% [markdown]
# Why 400? The error against a noisy target is the error against the clean image, plus the noise of the target, plus
# twice their product. If the noise has a mean of 0 and nothing to do with the prediction, the mean of that product is
# 0:
#
# $$ \mathrm{mean}\,(f - t - n)^2 = \mathrm{mean}\,(f - t)^2 + \sigma^2 - 2\,\mathrm{mean}\,n\,(f - t) $$
#
# A constant has no gradient. **The loss of Noise2Noise has the same minimum as with clean targets**; only its gradients
# are noisier. The second series shows what happens without independence: measured against its own noise, the best
# prediction is the noisy input.
#
# ### Train
#
# The U-Net, the loop and the options are those of notebooks 03 and 05. What changes: the target is an image, the
# output stays as it is (no sigmoid), and the loss is the mean squared error. Two things are left out, because here the
# brightness matters: batch normalisation and the jitter of intensities. This is a short training, with a clean
# validation target, so that you see it learn.


# %%
def train_denoiser(dataset, model, epochs, on_epoch=None):
    crops = RandomSampler(dataset, replacement=True, num_samples=25 * settings.batch_size)
    loader = DataLoader(dataset, settings.batch_size, sampler=crops)
    options = FitOptions(batch_transform=None, average_decay=0.9, on_epoch=on_epoch)
    rate = settings.learning_rate / 2
    return fit(model, loader, val_loader, mse_loss, epochs=epochs, learning_rate=rate, metric=psnr_of, options=options)


def psnr_of(output, target):
    return -10 * torch.log10((output - target).square().mean())


few = [image[:128, :128] for image in val_images[:8]]
noisy_few = [add_noise(image, sigma, rng) for image in few]
val_loader = validation_loader(noisy_few, few, lambda image: torch.from_numpy(image)[None])

# %%
live = LiveFigure()


def in_grey_levels(result):
    return replace(result, train_loss=255**2 * result.train_loss, validation_loss=255**2 * result.validation_loss)


def draw(results):
    figure = plotting.plot_training([in_grey_levels(one) for one in results], "PSNR, range 1 (dB)", epochs=6)
    live.update(figure, "Loss (MSE in grey levels squared) and PSNR after each epoch of 25 steps.")


torch.manual_seed(seed)
small = UNet(1, 1, base_channels=16, depth=2).to(choose_device())
results = train_denoiser(pairs, small, 6, draw)
loss, true_loss = in_grey_levels(results[-1]).train_loss, in_grey_levels(results[-1]).validation_loss
print(f"MSE at the end: {loss:.0f} against noisy targets, {true_loss:.0f} against clean ones")
print(f"PSNR, range 1: from {results[0].validation_metric:.1f} to {results[-1].validation_metric:.1f} dB")
claim(results[-1].validation_metric > 30, "A few hundred crops are enough for 30 dB; the noisy images have 22.")
claim(loss > 380 and true_loss < 100, "The training loss stays above sigma squared, while the true error gets small.")

# %% [markdown]
# The two losses lie far apart, and here that is not a sign of overfitting or of a mistake: the training loss is
# measured against noisy targets and cannot fall below $\sigma^2$, the validation loss is measured against clean ones.
#
# **Break it.** Take the independence away: both views get the *same* noise. What will the network that can denoise
# learn when it is trained further on such pairs?

# %%
options = ["it denoises better", "it stays as it is", "its output gets noisy"]
ask("07 same noise", "Trained further on pairs with the same noise in both views:", options=options)


# %%
class SameNoise(Dataset):
    """Pairs whose target is the input: the noise is the same in both."""

    def __len__(self):
        return len(pairs)

    def __getitem__(self, index):
        noisy, _ = pairs[index]
        return noisy, noisy


image = noisy_few[int(np.argmax([image.std() for image in few]))]
before = denoise(small, image)
broken = train_denoiser(SameNoise(), small, 5)
after = denoise(small, image)
decibels = results[-1].validation_metric, broken[-1].validation_metric
answer = options[2] if decibels[1] < decibels[0] - 3 else options[0] if decibels[1] > decibels[0] else options[1]
compare("07 same noise", answer, "The PSNR falls from {:.1f} to {:.1f} dB.".format(*decibels))
claim(broken[-1].train_loss < sigma**2 / 2, "The loss falls far below sigma squared: the target can be predicted.")
claim(decibels[1] < decibels[0] - 3, "And the network gets worse by more than 3 dB.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 3, width=3.4)
for panel, (name, drawn) in zip(axes[0], {"noisy": image, "before": before, "after": after}.items()):
    plotting.draw_image(panel, drawn, name)
show(figure, "A noisy image, what the network makes of it, and what it makes of it after training on equal noise.")

# %% [markdown]
# A loss that suddenly gets *better* than $\sigma^2$ is the warning sign. In practice views share noise more often than
# one thinks: two channels read out with the same electronic pattern, neighbouring frames after a registration that
# interpolates, a JPEG of the one image.

# %% [markdown] question="7b"
# **Question 7b.** Noise2Noise needs two images of the same field. Where would you get them at a microscope, and what
# could go wrong? What if you only have one image of each field?

# %% [markdown] answer="7b"
# Take two short exposures right after one another instead of a long one. The cells must not move in between (the mean
# of two positions is blurred), the lamp must not fade (the second view is darker on average: the noise no longer has
# mean zero) and the camera's fixed pattern must be subtracted first, because it is the same in both.
#
# With one image for each field there are methods that hide single pixels and predict them from their neighbours
# (Noise2Void). They need noise that is independent from pixel to pixel, and reach a little less, because they see less.

# %% [markdown]
# ## Compare
#
# The following networks of the course had more time: the same U-Net, with noisy targets (*Noise2Noise*), and with clean
# ones (*supervised*). For your own data they are trained now.

# %%
noise2noise = denoising_model("noise2noise", data, settings, seed, output)
supervised = denoising_model("supervised", data, settings, seed, output)

# %% [markdown]
# Two classical denoisers need no training:
#
# * **non-local means** (Buades et al., 2005) replaces a pixel by a mean over pixels with similar surroundings;
# * **total variation** (Rudin, Osher and Fatemi, 1992) looks for an image that is close to the noisy one and has little
#   sum of gradients: flat areas and sharp edges.
#
# Both have a strength, here a `factor` of sigma. A fair comparison chooses it for each, on validation images.


# %%
def used_range_psnr(clean, image):
    return psnr(clean, image, max(float(np.ptp(clean)), 1e-6))


tuning = [image[:128, :128] for image in val_images]
noisy_tuning = [add_noise(image, sigma, rng) for image in tuning]
factors = {non_local_means: (0.6, 0.8, 1.0, 1.2), total_variation: (0.5, 1.0, 1.5, 2.0, 3.0)}
best = {}
for method, candidates in factors.items():
    found = {}
    for factor in candidates:
        results = [used_range_psnr(clean, method(noisy, sigma, factor)) for clean, noisy in zip(tuning, noisy_tuning)]
        found[factor] = np.mean(results)
    best[method] = max(found, key=found.get)
    print(method.__name__, {factor: f"{value:.1f} dB" for factor, value in found.items()}, "best:", best[method])
claim(all(min(f) < best[m] < max(f) for m, f in factors.items()), "No best factor lies at an end of the search.")

# %%
noisy_test, test_images = noisy_arrays(data.test)
denoised = {
    "noisy": noisy_test,
    "total variation": [total_variation(image, sigma, best[total_variation]) for image in noisy_test],
    "non-local means": [non_local_means(image, sigma, best[non_local_means]) for image in noisy_test],
    "Noise2Noise": [denoise(noise2noise, image) for image in noisy_test],
    "supervised": [denoise(supervised, image) for image in noisy_test],
}
qualities = {
    name: pd.DataFrame([quality(clean, image) for clean, image in zip(test_images, images)])
    for name, images in denoised.items()
}
means = pd.DataFrame({name: scores.mean() for name, scores in qualities.items()}).T
means.style.format("{:.1f}").format("{:.3f}", subset="SSIM")

# %% [markdown]
# Means over the test images. In pairs, image by image, with 95 % intervals (exercise 6.3):

# %%
rows = {}
for other in ("supervised", "non-local means", "total variation"):
    for score in ("PSNR, max - min", "SSIM"):
        pair = (qualities[name][score].tolist() for name in ("Noise2Noise", other))
        rows[f"Noise2Noise - {other}", score] = paired_bootstrap(*pair, np.random.default_rng(seed))
differences = pd.DataFrame(rows, index=["mean", "from", "to"]).T
gain = differences.xs("PSNR, max - min", level=1)
claim(abs(gain.loc["Noise2Noise - supervised", "mean"]) < 0.5, "Noisy targets cost less than 0.5 dB.")
claim(gain["from"].iloc[1:].min() > 0, "Noise2Noise is better than both classical denoisers.")
differences.style.format("{:+.3f}")

# %% tags=["fold"]
tests = dim_and_bright(test_images, data.test)
compared = {
    name: {"clean": test_images[index], **{method: images[index] for method, images in denoised.items()}}
    for name, (index, _) in tests.items()
}
titles = {
    name: {"clean": f"{name}: clean"}
    | {method: f"{method}: {qualities[method]['PSNR, max - min'][tests[name][0]]:.1f} dB" for method in denoised}
    for name in tests
}
show(
    draw_views(compared, tests, columns=3, titles=titles),
    "A dim and a bright test image, 96 x 96 pixels of each: clean, noisy, and what the four methods make of it, with "
    "the PSNR (max - min) of the whole image.",
)

# %% [markdown]
# *Noise2Noise* has never seen a clean image, and is nearly as good as the network that learned from clean ones: less
# than 0.5 dB apart, after equally long trainings (its gradients are noisier). Both are better than the classical
# methods, which are told how strong the noise is and know nothing of nuclei; the networks have learned what nuclei look
# like. Look at the dim image, too: where the noise hides the details, a network paints what is *likely* there.
#
# ### Other noise than in training
#
# The networks were trained with a sigma of 20 and nothing else. Non-local means gets the true sigma each time.
# **Predict, then run**:

# %%
options = ["the network", "non-local means", "about the same"]
ask("07 sigma 50", "Which has the higher PSNR when sigma is 50 grey levels?", options=options)

# %%
grey_levels = (5, 10, 20, 30, 50)
some = [(image, image[busy_window(s.mask, 128)]) for image, s in list(zip(test_images, data.test))[::3]]
names = ("noisy", "non-local means, told sigma", "Noise2Noise", "Noise2Noise, brightness scaled")
curves = {name: [] for name in names}
for level in grey_levels:
    noisy = [add_noise(part, level / 255, rng) for _, part in some]
    scale = 20 / level  # makes the noise what it was in training, and the nuclei brighter or dimmer
    results = [
        noisy,
        [non_local_means(part, level / 255, best[non_local_means]) for part in noisy],
        [denoise(noise2noise, part) for part in noisy],
        [denoise(noise2noise, part * scale) / scale for part in noisy],
    ]
    for curve, images in zip(curves.values(), results):
        curve.append(np.mean([psnr(part, one, np.ptp(image) + 1e-6) for (image, part), one in zip(some, images)]))
curves = pd.DataFrame(curves, index=grey_levels).rename_axis("sigma")

# %%
classical, network, scaled = (curves[name] for name in curves.columns[1:])
gap = network[50] - classical[50]
answer = "about the same" if abs(gap) < 0.2 else "the network" if gap > 0 else "non-local means"
compare("07 sigma 50", answer, f"By {abs(gap):.1f} dB.", curves.style.format("{:.1f}"))
lost = curves.loc[20] - curves.loc[50]
claim(lost["Noise2Noise"] > lost[classical.name] + 1, "From 20 to 50 the network loses more than non-local means.")
claim(classical[5] > network[5] + 1, "At 5 non-local means, which is told sigma, is better by more than 1 dB.")
claim(scaled[50] > network[50] + 1, "Scaling the brightness mends most of that.")
gained = curves.loc[5] - curves.loc[20]
claim(gained["Noise2Noise"] < gained["noisy"] / 2, "Where noise falls by 12 dB, the network gains less than half.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=8, height=3.8)
for name, style in zip(curves, (":", "--s", "-o", "-.^")):
    axes[0, 0].plot(curves.index, curves[name], style, label=name)
axes[0, 0].axvline(20, color="#999999", linewidth=1)
axes[0, 0].text(20.5, curves.min().min(), "training")
axes[0, 0].set(xlabel="sigma of the noise (grey levels)", ylabel="PSNR, max - min (dB)")
axes[0, 0].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
show(
    figure,
    "PSNR against the strength of the noise, mean of some test images: non-local means follows the noise. The network "
    "falls off above the sigma it was trained on and gains little below. Scaled to the noise of its training, an image "
    "is denoised better.",
)


# %% tags=["fold"]
def draw_strengths(levels, image, noise):
    """The noisy image above the denoised one, for each strength of the same noise."""
    figure, axes = plotting.grid(2, len(levels), width=2.8)
    for (upper, lower), level in zip(axes.T, levels):
        noisy = image + np.float32(level / 255) * noise
        for panel, drawn in ((upper, noisy), (lower, denoise(noise2noise, noisy))):
            panel.imshow(drawn, cmap="gray", vmin=0, vmax=image.max())
            panel.axis("off")
        upper.set_title(f"sigma {level:g}")
        lower.set_title(f"Noise2Noise: {psnr(image, denoise(noise2noise, noisy)):.1f} dB", size=10)
    return figure


index, part = tests["bright"]
strip = test_images[index][part]
standard_noise = add_noise(np.zeros_like(strip), 1, rng)
show(
    draw_strengths((5, 10, 20, 50), strip, standard_noise),
    "Noise of four strengths on the bright image, and what the network makes of it (PSNR with a range of 1).",
)

# %% [markdown]
# Noise that is weaker than in training is removed together with details that could have been kept; stronger noise
# stays, since to this network it looks like structure. If sigma is known, there is a trick: multiply the image by
# $20 / \sigma$, so that its noise is the one of the training, denoise it, and divide by the same number. (Or train on
# noise of many strengths.)
#
# With a running kernel, choose the strength yourself:

# %% tags=["optional"]
from ipywidgets import IntSlider

from course_utils.widgets import SLIDER, redraw_on_change


def draw_strength(sigma):
    figure = draw_strengths((sigma,), strip, standard_noise)
    return figure, f"The bright image with noise of {sigma} grey levels, and what the network makes of it."


redraw_on_change(draw_strength, sigma=IntSlider(20, 0, 60, description="sigma", **SLIDER))

# %% [markdown]
# ## Predict the bias
#
# Why must the noise not be clipped? An image file of 8 bits holds no negative values. If noise pushes a pixel below 0,
# the file has 0; above 255 it has 255. It is a small change, and tutorials that add noise and *clip* it are common.
# But then the noise has no mean of 0 any longer.
#
# **Predict, then run.** A pixel is black. Noise of 20 grey levels is added, and what is below 0 becomes 0. What is the
# mean of many such pixels?

# %%
ask("07 black pixel", "The mean of a black pixel with clipped noise of 20 grey levels:", 0, 30, 0.5, unit="grey levels")

# %%
mean = 255 * float(clipped_mean(np.zeros((1, 1)), sigma)[0, 0])
simulated = 255 * np.clip(add_noise(np.zeros((500, 500)), sigma, rng), 0, 1).mean()
compare("07 black pixel", round(mean, 1), f"Simulated: {simulated:.1f}. In closed form: 20 / sqrt(2 pi).")
assert abs(mean - 20 / np.sqrt(2 * np.pi)) < 0.01 and abs(simulated - mean) < 0.2

# %% tags=["nbval-check-output"]
true_levels = np.array([[0, 5, 10, 20, 40, 60, 128, 235, 255]])
biased = 255 * clipped_mean(true_levels / 255, sigma)
table = pd.DataFrame({"true grey level": true_levels[0], "mean of clipped noise": biased[0].round(1)})
print(table.to_string(index=False))

# %%
dark = np.mean([np.mean(image < sigma) for image in test_images])
print(f"{dark:.0%} of the pixels of a test image are darker than 20 grey levels (mean over the images)")
claim(dark > 0.5, "Most pixels are so dark that the clipping brightens them.")

# %% [markdown]
# From 60 to 195 grey levels, three sigma away from both ends, nothing happens. But most pixels of these images are
# darker than 20: they get brighter, and the contrast of dim nuclei shrinks. Noise2Noise learns the mean of its targets,
# so this curve is what a network should learn from clipped pairs. That is a **prediction**, made before any training:
# take what Noise2Noise makes of an image, and put it through the curve.

# %%
predicted = [clipped_mean(image.clip(0, 1), sigma) for image in denoised["Noise2Noise"]]
expected = np.mean([used_range_psnr(clean, image) for clean, image in zip(test_images, predicted)])
unbiased = qualities["Noise2Noise"]["PSNR, max - min"].mean()
print(f"predicted PSNR (max - min) with clipped pairs: {expected:.2f} dB; without clipping it is {unbiased:.2f} dB")

# %% [markdown]
# Now see: the third network of the course was trained on clipped pairs, otherwise like *Noise2Noise*. (Its images are
# clipped here, too, as in its training.)

# %%
clipped_network = denoising_model("clipped", data, settings, seed, output)
outputs = {
    "noisy pairs": denoised["Noise2Noise"],
    "clipped pairs": [denoise(clipped_network, image) for image in noisy_arrays(data.test, clipped=True)[0]],
}
outputs["clipped pairs, corrected"] = [without_clipping_bias(image, sigma) for image in outputs["clipped pairs"]]
reached = {
    name: np.mean([used_range_psnr(clean, image) for clean, image in zip(test_images, images)])
    for name, images in outputs.items()
}
print("PSNR (max - min):", {name: f"{value:.2f} dB" for name, value in reached.items()})
claim(abs(reached["clipped pairs"] - expected) < 0.3, "The network reaches what was predicted, within 0.3 dB.")
claim(reached["clipped pairs"] < unbiased - 2, "Clipping costs more than 2 dB.")
claim(reached["clipped pairs, corrected"] > reached["clipped pairs"] + 1, "The inverse of the curve mends much of it.")

# %%
step = np.round(255 * np.concatenate([image.ravel() for image in test_images])).astype(np.uint8)
n_pixels = np.bincount(step)
grey = np.flatnonzero((n_pixels > 500) & (np.arange(len(n_pixels)) <= 40))
mean_output = {
    name: 255 * np.bincount(step, np.concatenate([image.ravel() for image in images]))[grey] / n_pixels[grey]
    for name, images in outputs.items()
}
curve = 255 * clipped_mean(grey[None] / 255, sigma)[0]
off = np.abs(mean_output["clipped pairs"] - curve)
print(f"mean output and predicted curve differ by {off.mean():.1f} grey levels on average, by {off.max():.1f} at most")
claim(off.mean() < 2, "On average the output is within 2 grey levels of the predicted curve.")

# %% tags=["fold"]
figure, axes = plotting.grid(1, 1, width=6, height=4.4)
axes[0, 0].plot(grey, curve, color="black", linewidth=5, alpha=0.3, label="predicted: mean of the clipped noise")
for (name, values), style, size in zip(mean_output.items(), ("o", "s", "^"), (8, 4, 4)):
    axes[0, 0].plot(grey, values, style, markersize=size, label=f"network, {name}")
axes[0, 0].plot(grey[[0, -1]], grey[[0, -1]], ":", color="black", label="as it should be")
axes[0, 0].set(xlabel="true grey level", ylabel="mean output of the network (grey levels)")
axes[0, 0].legend(frameon=False)
show(
    figure,
    "Mean output of the networks against the true grey level. The one trained on clipped pairs follows the predicted "
    "curve, far above the true level where it is dark.",
)

# %% [markdown]
# The network from clipped pairs follows the curve that was predicted for it. Both networks also lean a little towards
# the grey levels that are common: where the noise leaves room for doubt, the mean of what is likely is the answer with
# the smallest squared error.

# %% [markdown] question="7c"
# **Question 7c.** You denoise images with the network from clipped pairs, and measure the mean intensity of nuclei
# above background. By how much is it wrong for a nucleus of 20 grey levels on a background of 5? And of 100 on 5?

# %% [markdown] answer="7c"
# The table says that 5 becomes 10.7 and 20 becomes 21.7. So the dim nucleus has 11.0 grey levels above its background
# instead of 15: a quarter too few. The bright one has 89.3 instead of 95, 6 % too few. The error depends on the
# brightness, so a comparison of a dim with a bright nucleus is wrong as well: the ratio would be 8.1 instead of 6.3.
# The inverse of the curve corrects it, if sigma is known; not clipping is simpler.

# %% [markdown]
# ## Does it help the segmentation?
#
# The network of notebook 05 has never seen noise. It gets the test images as they were, noisy, and denoised. The
# threshold of its watershed is chosen on clean validation images. **Predict, then run**:

# %%
question = "Clipped pairs cost the denoiser PSNR, as seen above. What do they cost the segmentation, in AP at IoU 0.5?"
ask("07 clipped AP", question, -0.1, 0.7, 0.01)

# %%
segmenter = boundary_model(data, settings, seed, output)


def interior_and_boundary(image):
    return predict(segmenter, normalize_percentiles(image))[1:].copy()


def segment(image):
    return watershed_instances(*interior_and_boundary(image), threshold)


found = [interior_and_boundary(image) for image in val_images]
masks = [sample.mask for sample in val]
threshold, _ = find_best_threshold([p[0] for p in found], [p[1] for p in found], masks, (0.5, 0.7, 0.8, 0.9))
print("threshold of the seeds:", threshold)

# %%
inputs = {
    "clean": test_images, "noisy": noisy_test, "total variation": denoised["total variation"],
    "Noise2Noise": denoised["Noise2Noise"], "Noise2Noise, clipped pairs": outputs["clipped pairs"],
}  # fmt: skip
masks = [sample.mask for sample in data.test]
precision = {}
for name, images in inputs.items():
    found = [segment(image) for image in images]
    precision[name] = np.array([average_precision(*pair, (0.5, 0.75, 0.9)) for pair in zip(found, masks)])
columns = ["AP at IoU 0.5", "AP at IoU 0.75", "AP at IoU 0.9"]
table = pd.DataFrame({name: values.mean(axis=0) for name, values in precision.items()}, index=columns).T
table["PSNR, max - min"] = [
    np.mean([used_range_psnr(*pair) for pair in zip(test_images, images)]) for images in inputs.values()
]

# %%
rows = {}
for other in ("noisy", "total variation", "Noise2Noise, clipped pairs", "clean"):
    pair = (precision[name][:, 0].tolist() for name in ("Noise2Noise", other))
    rows[f"Noise2Noise - {other}"] = paired_bootstrap(*pair, np.random.default_rng(seed))
differences = pd.DataFrame(rows, index=["mean", "from", "to"]).T
cost = differences.loc["Noise2Noise - Noise2Noise, clipped pairs", "mean"]
compare("07 clipped AP", round(cost, 3), table=table.style.format("{:.3f}").format("{:.1f}", subset="PSNR, max - min"))
claim(differences.loc["Noise2Noise - noisy", "from"] > 0.2, "Denoising adds more than 0.2 to the AP of noisy images.")
gain = differences["mean"]["Noise2Noise - noisy"]
claim(differences.loc["Noise2Noise - total variation", "from"] > 0, "Total variation adds less.")
claim(differences.loc["Noise2Noise - clean", "to"] < 0, "It does not bring back the AP of clean images.")
lowest = differences.loc["Noise2Noise - Noise2Noise, clipped pairs", "from"]
claim(lowest < 0 and cost < gain / 4, "It is not shown that clipped pairs cost any AP.")
differences.style.format("{:+.3f}")

# %% tags=["fold"]
gain = precision["Noise2Noise"][:, 0] - precision["noisy"][:, 0]
index = int(np.argsort(gain)[len(gain) // 2])
part = busy_window(masks[index], 128)
figure, axes = plotting.grid(2, 3, width=3.4)
for panel, (name, images) in zip(axes.flat, inputs.items()):
    title = f"{name}: AP {precision[name][index, 0]:.2f}"
    plotting.draw_outlines(panel, images[index][part], segment(images[index])[part], title)
plotting.draw_outlines(axes[1, 2], test_images[index][part], masks[index][part], "truth", colour=plotting.SKY)
show(figure, "Part of a test image, the one with the median gain, and the outlines of the instances found in it.")

# %% [markdown]
# * Noise ruins the segmentation. Denoising brings much of it back, but not all: what the noise has hidden stays hidden.
# * Some of the loss is the threshold, which was chosen on clean images. Chosen anew for each kind, on validation images
#   with the same noise, noisy images reach an AP of 0.44 on the real data, denoised ones 0.77 and clean ones 0.88
#   (`docs/results.md`): the order stays, the gain is smaller.
# * Total variation is only a few decibels behind, but clearly adds less AP, and on the real images next to nothing. It
#   leaves faint blotches, and to a network that has never seen them they may look like nuclei. Again: a score of grey
#   values is not a score of nuclei.
# * Clipped pairs cost decibels, but no loss of AP is shown: the interval of the difference contains 0. The bias lifts
#   the whole background, and the normalisation of each image takes that away again. For measuring nuclei (question 7c)
#   the bias matters, for counting them hardly.
#
# ### With few and with many labelled images
#
# One could also train the segmentation on noisy images, and let it find out by itself how to ignore the noise. Is
# denoising first still better? Here someone has drawn the masks of 10 training images. A small network learns from 200
# batches of their crops, once noisy and once denoised. **Predict, then run:**

# %%
question = "10 labelled images: how much AP at IoU 0.5 does it add to train on denoised ones, not on noisy ones?"
ask("07 few labels", question, -0.5, 0.7, 0.01)


# %%
from course_utils import NucleiDataset, boundary_target


def segmenter_inputs(samples, denoised):
    noisy, _ = noisy_arrays(samples)
    return [normalize_percentiles(denoise(noise2noise, image) if denoised else image) for image in noisy]


def train_segmenter(samples, denoised):
    """A small network for the three classes of notebook 05."""
    inputs, masks = segmenter_inputs(samples, denoised), [sample.mask for sample in samples]
    dataset = NucleiDataset(inputs, masks, boundary_target, crop_size, augment=True, seed=seed)
    loader = DataLoader(dataset, 4, sampler=RandomSampler(dataset, replacement=True, num_samples=100))
    seen = validation_loader(segmenter_inputs(val[:1], denoised), [val[0].mask], boundary_target)
    torch.manual_seed(seed)
    model = UNet(1, 3, base_channels=8, depth=3, batch_norm=True).to(choose_device())
    weights = torch.tensor([1.0, 1.0, 3.0], device=choose_device())
    options = FitOptions(average_decay=0.9)
    fit(model, loader, seen, torch.nn.CrossEntropyLoss(weights), epochs=8, learning_rate=5e-3, options=options)
    return model


# %%
ten = [train[index] for index in rng.permutation(len(train))[:10]]
some_test = data.test[::2]  # every second one, to save time
few = {}
for name, is_denoised in (("noisy", False), ("denoised", True)):
    model = train_segmenter(ten, is_denoised)
    some_inputs = segmenter_inputs(some_test, is_denoised)
    labels = [watershed_instances(*predict(model, image)[1:], 0.5) for image in some_inputs]  # an untuned threshold
    few[name] = [average_precision(one, s.mask, [0.5])[0] for one, s in zip(labels, some_test)]
added = paired_bootstrap(few["denoised"], few["noisy"], np.random.default_rng(seed))
few_means = {name: float(np.mean(values)) for name, values in few.items()}
compare("07 few labels", round(added[0], 2), "95 % interval {:.2f} to {:.2f}.".format(*added[1:]))
print("mean AP at IoU 0.5, trained with 10 labelled images:", {name: f"{ap:.2f}" for name, ap in few_means.items()})
claim(added[1] > 0, "With 10 labelled images, denoising first is better.")

# %% [markdown]
# Few labels, a short training, and noisy images: denoising takes one of the three difficulties away. How much is left
# with more labels? The same was measured on the real images, with 2,400 crops for each network and thresholds from
# validation images. AP at IoU 0.5 of the test images, one training each:
#
# | trained and tested on | 10 labelled images | all 392 |
# |---|---|---|
# | noisy images | 0.617 | 0.664 |
# | images denoised by Noise2Noise | 0.748 | 0.678 |
# | difference, 95 % interval | 0.131 (0.088 to 0.179) | 0.014 (-0.030 to 0.053) |
#
# With all labels the interval contains 0: no difference is shown. (2,400 crops are few for 392 images. Compare within a
# column.) The authors of DenoiSeg (Buchholz et al., 2020) trained for longer, with the same noise on the same data set,
# with the masks of 10 small patches and with those of all training images:
#
# | | 10 labelled patches | all labelled |
# |---|---|---|
# | trained on noisy images | 0.549 | 0.767 |
# | denoised first (Noise2Void), then trained | 0.609 | 0.782 |
# | one network that learns both (DenoiSeg) | 0.690 | 0.788 |
#
# Noisy images need no labels, so a denoiser can learn from all of them what nuclei look like. That pays when labels are
# few. With many labels and a long training the segmentation network learns it itself, and denoising adds hardly
# anything.

# %% [markdown] question="7d"
# **Question 7d.** A colleague wants to compare the mean intensity of nuclei in two conditions, and asks whether to
# denoise the images first. What do you answer?

# %% [markdown] answer="7d"
# Use the denoised image to find the nuclei, and measure the intensities in the *noisy* one. The mean over a nucleus of
# 300 pixels has noise of 20 / sqrt(300), about one grey level: averaging denoises, too, and without bias if the noise
# has mean zero. A denoiser adds its own errors: it takes what is rare for noise (a dim speck, an unusual texture)
# and replaces it with what is common in its training images; and with clipped pairs the error depends on the
# brightness. Check on images with a known truth that the numbers which count for you do not change.

# %% [markdown]
# ## What to remember
#
# * Say which PSNR: range 1 or max - min, mean over which images.
# * The mean squared error finds the mean of the targets. So noisy targets are as good as clean ones, if their noise has
#   a mean of zero and is independent of the input's.
# * A network knows the noise that it was trained on.
# * Predict before you train: what a network will learn from biased targets can be computed.
# * Denoising is a step, not an aim: score what comes after it.
#
# How good is it? On the real images, with the same noise and range (sigma 20, PSNR with max - min), the figures of
# DenoiSeg's authors and, in the last row, of this notebook:
#
# | | PSNR |
# |---|---|
# | noisy images | 16.3 |
# | Noise2Void, from single noisy images | 35.5 |
# | DenoiSeg | 35.4 |
# | Noise2Noise, the pretrained network of this notebook | 36.1 |
#
# (The last row is a mean over the 50 test images of this course; for the others no more is said than the data set.)

# %%
recorded = means.T.to_dict() | {"clipped pairs": {"predicted": expected, "PSNR, max - min": reached["clipped pairs"]}}
recorded["mean_ap"] = {name: dict(zip(("0.5", "0.75", "0.9"), row)) for name, row in table.iloc[:, :3].T.items()}
recorded["mean_ap_of_10_labelled"] = few_means
record_scores(output, "07_denoising", recorded)
plt.close("all")
