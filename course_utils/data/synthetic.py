"""Synthetic fluorescence images of nuclei with exact masks: the generator of the embedded data set.

The embedded set replaces DSB2018 where there is no network. Each `ImageFamily` imitates a kind of DSB2018 *training*
image (small nuclei among fibres, crowded layers, glowing round nuclei, large dim ones, ...); its numbers were measured
there. An image is made in four steps, each a function below:

    place_nuclei      wavy ellipses, one after the other, in a free place or pushed against an earlier one
    render_nuclei     light of each nucleus: dome, chromatin, nucleoli; the light of overlapping nuclei adds up
    render_background glow around the nuclei, fibres, uneven light, unlabelled debris
    expose            blur of the lens, noise of the camera, rounding to 8 bits

Each image has its own random generator, derived from (seed, index), so any image can be made alone:

>>> image, mask = generate_image(index=3)
>>> image.dtype, mask.dtype, image.shape == mask.shape
(dtype('uint8'), dtype('uint16'), True)

`python -m course_utils.data.synthetic FOLDER` writes the whole set again.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

SEED = 2018
STRIDE = 71  # mixes the families, see `image_order`; coprime to the numbers of images, 96 and 23
MIN_AREA = 21  # pixels; the smallest annotated nucleus of DSB2018


@dataclass(frozen=True)
class ImageFamily:
    """The appearance of one family of images. Pairs are (low, high), drawn once per image; lengths are in pixels."""

    name: str
    shape: tuple[int, int]  # height and width
    train: int  # number of training images
    test: int  # number of test images
    nuclei: tuple[int, int]  # nuclei per image
    area: tuple[float, float]  # median area of a nucleus
    signal: tuple[float, float]  # brightness of the typical nucleus above the background, in grey levels
    background: tuple[float, float]  # grey level between the nuclei; the camera clips values below zero
    area_spread: float = 0.4  # standard deviation of the logarithm of the areas
    signal_spread: float = 0.25  # the same for the brightness of the nuclei
    condensation: float = 0.25  # small nuclei are brighter: signal ~ area ** -condensation
    bright: float = 0.04  # share of condensed nuclei, half as large and two to four times as bright
    elongation: tuple[float, float] = (1.1, 1.7)  # long axis / short axis, drawn per nucleus
    irregularity: float = 0.05  # deviation of the outline from the ellipse, as a share of the radius
    lobed: float = 0.08  # share of nuclei with deep dents
    alignment: float = 0.0  # 0: directions are random, 1: all nuclei point the same way
    touching: float = 0.15  # share of nuclei that are pushed against an earlier one
    overlap: float = 0.06  # largest share of such a nucleus that may be covered
    translucency: float = 0.3  # share of its light that shines through where it is covered
    clustering: float = 0.6  # 0: spread evenly; 1 and more: only where a smooth random map is high
    texture: float = 0.12  # contrast of the chromatin
    grain: float = 1.6  # size of the chromatin grains
    nucleoli: float = 1.0  # mean number of dark spots in a nucleus
    dome: float = 0.3  # how much darker the rim is than the centre, because the nucleus is thinner there
    defocused: float = 0.0  # share of nuclei outside the focal plane
    blur: tuple[float, float] = (0.9, 1.3)  # standard deviation of the lens blur
    glow: tuple[float, float] = (0.1, 0.3)  # light scattered around the nuclei, as a share of the signal
    fibres: float = 0.0  # brightness of cell bodies, as a share of the signal
    unevenness: float = 0.08  # slow change of the background across the image, as a share of the background
    debris: float = 1.0  # mean number of unlabelled specks
    read_noise: tuple[float, float] = (0.2, 0.5)  # standard deviation of the noise in the dark
    gain: float = 0.04  # noise variance per grey level of light (photon noise)
    noise_grain: float = 0.0  # above 0: size of the grains of the noise, as in an enlarged small image


IMAGE_FAMILIES = (
    ImageFamily("sparse", (256, 256), 28, 6, (8, 30), (95, 190), (26, 100), (2, 13), elongation=(1.1, 2.0),
                touching=0.06, irregularity=0.04, fibres=0.09, area_spread=0.35, alignment=0.4, texture=0.1),
    ImageFamily("mixed", (256, 256), 14, 3, (15, 80), (75, 180), (30, 100), (2, 10), area_spread=0.55,
                signal_spread=0.3, condensation=0.5, touching=0.22, lobed=0.15, fibres=0.03, bright=0.06,
                texture=0.1),
    ImageFamily("crowded", (256, 256), 10, 2, (50, 110), (110, 190), (35, 90), (2, 10), elongation=(1.2, 2.1),
                alignment=0.7, touching=0.16, fibres=0.12, blur=(1.1, 1.8), dome=0.5, clustering=0.3, texture=0.06,
                glow=(0.2, 0.5), area_spread=0.3, irregularity=0.04),
    ImageFamily("glowing", (256, 256), 10, 2, (18, 80), (200, 420), (50, 110), (2, 6), elongation=(1.0, 1.35),
                touching=0.2, texture=0.25, grain=2.2, dome=0.4, blur=(1.2, 1.7), glow=(0.4, 0.8), defocused=0.15,
                area_spread=0.35, irregularity=0.05, translucency=0.5),
    ImageFamily("layered", (256, 320), 4, 1, (15, 40), (260, 460), (60, 90), (4, 7), area_spread=0.6, touching=0.3,
                overlap=0.15, translucency=0.7, lobed=0.2, defocused=0.3, clustering=1.2, texture=0.2,
                blur=(0.9, 1.2), glow=(0.3, 0.5), signal_spread=0.35, read_noise=(0.3, 0.5)),
    ImageFamily("large", (360, 360), 15, 4, (17, 30), (1600, 2200), (14, 25), (2.5, 6.5), area_spread=0.4,
                touching=0.17, overlap=0.03, lobed=0.25, elongation=(1.1, 2.0), clustering=0.1, condensation=0.1,
                signal_spread=0.16, bright=0.03, texture=0.12, grain=1.2, nucleoli=2.5, blur=(1.2, 1.6),
                read_noise=(0.2, 0.32), gain=0.02, debris=5.0, fibres=0.04),
    ImageFamily("dim", (512, 640), 4, 1, (15, 52), (900, 1450), (14, 36), (-4, 6), area_spread=0.6,
                elongation=(1.0, 1.5), signal_spread=0.4, condensation=0.5, touching=0.2, overlap=0.12,
                translucency=0.7, texture=0.2, grain=2.5, dome=0.1, defocused=0.3, blur=(1.4, 2.2), glow=(0.3, 0.6),
                bright=0.03, read_noise=(2.0, 3.0), gain=0.25, noise_grain=0.75),
    ImageFamily("field", (520, 696), 6, 2, (60, 200), (520, 780), (22, 75), (1, 8), elongation=(1.1, 2.0),
                touching=0.2, overlap=0.04, nucleoli=2.0, lobed=0.15, debris=8.0, texture=0.12, area_spread=0.3,
                fibres=0.02, gain=0.02, read_noise=(0.15, 0.4)),
    ImageFamily("defocused", (520, 696), 3, 1, (90, 300), (400, 680), (30, 60), (2, 8), elongation=(1.2, 1.9),
                touching=0.16, texture=0.06, dome=0.5, blur=(1.8, 2.8), glow=(0.4, 0.9), defocused=0.2, debris=3.0,
                nucleoli=0.5, area_spread=0.3, gain=0.015, read_noise=(0.15, 0.4)),
    ImageFamily("wide", (520, 696), 2, 1, (9, 26), (1600, 2100), (40, 90), (2, 16), texture=0.15, grain=2.5,
                nucleoli=3.0, lobed=0.2, elongation=(1.2, 2.0), blur=(1.4, 1.9), touching=0.08, clustering=0.2,
                area_spread=0.3, gain=0.02, read_noise=(0.15, 0.4)),
)  # fmt: skip


def log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """One number between two positive bounds, uniform on a logarithmic scale."""
    return float(np.exp(rng.uniform(*np.log(bounds))))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: tuple[float, float] | float) -> np.ndarray:
    """A random field (H, W) of blobs of size `sigma` (rows, columns), with mean 0 and standard deviation 1."""
    spectrum = np.fft.rfft2(rng.standard_normal(shape))  # a wide Gaussian is much faster in the frequency domain
    field = np.fft.irfft2(ndimage.fourier_gaussian(spectrum, sigma, n=shape[1]), shape)
    return (field - field.mean()) / field.std()


def draw_shape(
    rng: np.random.Generator, area: float, elongation: float, angle: float, irregularity: float
) -> np.ndarray:
    """Draw a filled outline: an ellipse whose radius is modulated by four random waves.

    `area` is in pixels, `angle` in radians; the centre is anywhere within a pixel. Returns a square float array with
    the nucleus in its middle: depth inside the outline as a share of the radius (1 in the centre, 0 on the outline,
    negative outside), so `depth > 0` is its mask.
    """
    radius = np.sqrt(area / np.pi)
    half = int(np.ceil(radius * np.sqrt(elongation) * (1 + 2.5 * irregularity))) + 3
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    y, x = y + rng.uniform(-0.5, 0.5), x + rng.uniform(-0.5, 0.5)
    along = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(elongation)
    across = (y * np.cos(angle) - x * np.sin(angle)) * np.sqrt(elongation)
    direction = np.arctan2(across, along)
    outline = np.ones_like(direction)
    for wave in (2, 3, 4, 5):  # wave 1 would only shift the shape
        outline += irregularity * rng.normal() * 4 / wave**2 * np.cos(wave * direction + rng.uniform(0, 2 * np.pi))
    return 1 - np.hypot(along, across) / (radius * np.maximum(outline, 0.3))


def paste(canvas_shape: tuple[int, int], patch: np.ndarray, row: int, column: int) -> tuple[tuple, tuple]:
    """Slices of canvas and patch that overlap when the middle of the patch is at (row, column)."""
    half = patch.shape[0] // 2
    canvas_slices, patch_slices = [], []
    for centre, length in zip((row, column), canvas_shape, strict=True):
        start, stop = (min(max(edge, 0), length) for edge in (centre - half, centre + half + 1))
        canvas_slices.append(slice(start, stop))
        patch_slices.append(slice(start - centre + half, stop - centre + half))
    return tuple(canvas_slices), tuple(patch_slices)


@dataclass(frozen=True)
class Nucleus:
    """A nucleus and its place: a patch with its depth (see `draw_shape`), and row and column of the patch's middle."""

    depth: np.ndarray
    area: float  # without what the border cuts off or others cover
    brightness: float  # 1 for a typical nucleus of the image
    row: int = 0
    column: int = 0


def draw_nucleus(rng: np.random.Generator, family: ImageFamily, median_area: float, common_angle: float) -> Nucleus:
    """Draw size, brightness and shape of one nucleus, which has no place yet."""
    relative_area = np.exp(family.area_spread * rng.normal())
    brightness = np.exp(family.signal_spread * rng.normal()) * np.clip(relative_area, 0.3, 3) ** -family.condensation
    if rng.random() < family.bright:
        relative_area, brightness = 0.5 * relative_area, rng.uniform(2.0, 4.0) * brightness
    area = max(median_area * relative_area, MIN_AREA)
    irregularity = family.irregularity * (4 if rng.random() < family.lobed else 1)
    angle = common_angle + (1 - family.alignment) * rng.uniform(-np.pi / 2, np.pi / 2)
    return Nucleus(draw_shape(rng, area, rng.uniform(*family.elongation), angle, irregularity), area, brightness)


def free_part(labels: np.ndarray, nucleus: Nucleus) -> tuple[np.ndarray, int]:
    """The pixels of a nucleus that are in the image and free in `labels` (H, W), and how many are already taken."""
    on_canvas, on_patch = paste(labels.shape, nucleus.depth, nucleus.row, nucleus.column)
    inside = nucleus.depth[on_patch] > 0
    taken = inside & (labels[on_canvas] > 0)
    pieces, number = ndimage.label(inside & ~taken)
    if number > 1:  # an earlier nucleus cuts this one in two: keep the larger piece
        return pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:]), int(taken.sum())
    return pieces > 0, int(taken.sum())


def place_freely(
    rng: np.random.Generator, nucleus: Nucleus, occupied: np.ndarray, density: np.ndarray, clustering: float
) -> Nucleus | None:
    """Try one random place; None if it is `occupied` (H, W), or if `density` (H, W), a random map, is low there."""
    nucleus = replace(nucleus, row=int(rng.integers(density.shape[0])), column=int(rng.integers(density.shape[1])))
    on_canvas, on_patch = paste(density.shape, nucleus.depth, nucleus.row, nucleus.column)
    is_desert = clustering * (0.5 - density[nucleus.row, nucleus.column]) > rng.random()
    return None if is_desert or (occupied[on_canvas] & (nucleus.depth[on_patch] > 0)).any() else nucleus


def slide_against(
    rng: np.random.Generator, nucleus: Nucleus, neighbour: Nucleus, labels: np.ndarray, overlap: float
) -> Nucleus | None:
    """Move a nucleus from a random side towards a neighbour until a share of it, at most `overlap`, is covered.

    Returns None if it hits a third nucleus in `labels` (H, W) or ends outside the image.
    """
    direction = rng.uniform(0, 2 * np.pi)
    wanted = rng.uniform(0, overlap) * nucleus.area
    for distance in range((len(nucleus.depth) + len(neighbour.depth)) // 2, 2, -1):
        row = round(neighbour.row + distance * np.sin(direction))
        column = round(neighbour.column + distance * np.cos(direction))
        nucleus = replace(nucleus, row=row, column=column)
        _, covered = free_part(labels, nucleus)
        if covered > wanted:
            ran_into_a_third = covered > 2 * overlap * nucleus.area + 5
            outside = not (0 <= row < labels.shape[0] and 0 <= column < labels.shape[1])
            return None if ran_into_a_third or outside else nucleus
    return None


def place_nuclei(rng: np.random.Generator, family: ImageFamily) -> tuple[list[Nucleus], np.ndarray]:
    """Draw and place nuclei one after the other.

    Most go to a free place, two or more pixels from the others. A share of `family.touching` slides towards an earlier
    nucleus until both overlap a little; the later one is below. The border of the image may cut nuclei. A nucleus for
    which no place is found is left out. Returns the nuclei and the label image (H, W) int32: nucleus i has id i + 1.
    """
    labels = np.zeros(family.shape, np.int32)
    occupied = np.zeros(family.shape, bool)  # the nuclei and two pixels around them
    nuclei: list[Nucleus] = []
    median_area = log_uniform(rng, family.area)
    density = smooth_noise(rng, family.shape, 0.12 * family.shape[0])
    common_angle = rng.uniform(0, np.pi)
    for _ in range(round(log_uniform(rng, family.nuclei))):
        unplaced = draw_nucleus(rng, family, median_area, common_angle)
        pushed = bool(nuclei) and rng.random() < family.touching
        for _ in range(100):
            if pushed:
                neighbour = nuclei[rng.integers(len(nuclei))]
                nucleus = slide_against(rng, unplaced, neighbour, labels, family.overlap)
            else:
                nucleus = place_freely(rng, unplaced, occupied, density, family.clustering)
            if nucleus is None:
                continue
            free, _ = free_part(labels, nucleus)
            if free.sum() >= MIN_AREA:
                nuclei.append(nucleus)
                on_canvas, _ = paste(family.shape, nucleus.depth, nucleus.row, nucleus.column)
                labels[on_canvas][free] = len(nuclei)
                occupied[on_canvas] |= ndimage.binary_dilation(free, iterations=2)
                break
    return nuclei, labels


def render_nuclei(
    rng: np.random.Generator, family: ImageFamily, nuclei: list[Nucleus], labels: np.ndarray, signal: float
) -> np.ndarray:
    """Light of the nuclei before the lens, float (2, H, W) in grey levels: inside and outside the focal plane."""
    light = np.zeros((2, *family.shape))
    grains = smooth_noise(rng, family.shape, family.grain) + 0.7 * smooth_noise(rng, family.shape, 2.5 * family.grain)
    chromatin = np.exp(family.texture * grains)  # more bright spots than dark ones
    for number, nucleus in enumerate(nuclei, start=1):
        depth = nucleus.depth
        edge = np.sqrt(nucleus.area / np.pi)  # depth is a share of the radius; this turns it into pixels
        profile = np.clip(depth * edge + 0.5, 0, 1) * (1 - family.dome * (1 - np.clip(depth, 0, 1)) ** 2)
        for _ in range(rng.poisson(family.nucleoli)):
            spot = draw_spot(rng, depth.shape, 0.5 * edge, rng.uniform(0.08, 0.2) * edge)
            profile *= 1 - rng.uniform(0.1, 0.4) * spot
        on_canvas, on_patch = paste(family.shape, depth, nucleus.row, nucleus.column)
        plane = int(rng.random() < family.defocused)
        covered = (labels[on_canvas] > 0) & (labels[on_canvas] != number)
        seen = np.where(covered, family.translucency, 1.0)
        light[plane][on_canvas] += signal * nucleus.brightness * seen * profile[on_patch] * chromatin[on_canvas]
    return light


def draw_spot(rng: np.random.Generator, shape: tuple[int, int], scatter: float, sigma: float) -> np.ndarray:
    """A Gaussian spot of height 1 at a random place, at most about `scatter` pixels from the middle of `shape`."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    row, column = np.array(shape) / 2 + scatter * rng.uniform(-1, 1, 2)
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * max(sigma, 0.7) ** 2))


def draw_fibres(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Cell bodies and fibres (H, W), from 0 to about 3: stretched, turned and slightly bent noise."""
    thin, broad = (smooth_noise(rng, (512, 512), sigma) for sigma in ((1.8, 25.0), (6.0, 30.0)))
    streaks = np.maximum(thin - 1.0, 0) + 0.8 * np.maximum(broad - 0.5, 0)
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    y += 10 * smooth_noise(rng, shape, 45)
    x += 10 * smooth_noise(rng, shape, 45)
    turned = np.array([y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)])
    return ndimage.map_coordinates(streaks, turned, order=1, mode="grid-wrap")


def render_background(rng: np.random.Generator, family: ImageFamily, light: np.ndarray, signal: float) -> np.ndarray:
    """All light between the nuclei, float (H, W) in grey levels.

    `light` (H, W) is the light of the nuclei: part of it is scattered as a glow, near and far, and the cell bodies
    (fibres) are around it. Debris is a few specks in loose groups, some much brighter than any nucleus.
    """
    shape = family.shape
    glow = log_uniform(rng, family.glow)
    background = rng.uniform(*family.background) * (1 + family.unevenness * smooth_noise(rng, shape, shape[0] / 3))
    near, far = (ndimage.gaussian_filter(light, sigma, truncate=2.5) for sigma in (5, 20))
    background += glow * (0.6 * near + 0.4 * far)
    if family.fibres:
        territory = ndimage.gaussian_filter((light > 0).astype(float), 18, truncate=2.5)
        background += family.fibres * signal * draw_fibres(rng, shape) * (0.2 + territory / (territory.max() + 1e-9))
    for _ in range(rng.poisson(family.debris / 4)):
        row, column = rng.integers(shape[0]), rng.integers(shape[1])
        for _ in range(1 + rng.poisson(3)):
            speck = log_uniform(rng, (0.1, 2.5)) * draw_spot(rng, (41, 41), 7, log_uniform(rng, (0.6, 2.5)))
            on_canvas, on_patch = paste(shape, speck, int(row), int(column))
            background[on_canvas] += signal * speck[on_patch]
    return background


def expose(rng: np.random.Generator, family: ImageFamily, light: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The camera's image: both planes blurred by the lens, with photon and read noise, rounded to uint8 (H, W)."""
    blur = log_uniform(rng, family.blur)
    sharp, defocused = light
    exposure = ndimage.gaussian_filter(sharp, blur) + ndimage.gaussian_filter(defocused, 2.2 * blur)
    exposure += ndimage.gaussian_filter(background, 0.8)
    variance = log_uniform(rng, family.read_noise) ** 2 + family.gain * np.maximum(exposure, 0)
    grained = family.noise_grain > 0
    noise = smooth_noise(rng, family.shape, family.noise_grain) if grained else rng.standard_normal(family.shape)
    exposure += np.sqrt(variance) * noise
    return np.clip(np.round(exposure), 0, 255).astype(np.uint8)


def shuffle_ids(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Give the nuclei new ids in random order, with gaps in a third of the images; label image (H, W) uint16."""
    count = int(labels.max())
    highest = count + count // 3 + 1 if rng.random() < 1 / 3 else count
    ids = np.concatenate([[0], 1 + rng.permutation(highest)[:count]])
    return ids[labels].astype(np.uint16)


def image_order(part: str) -> list[ImageFamily]:
    """The family of every image of "train" or "test".

    The families are mixed: neighbours in the list differ, and every 8th or 20th image, as `split_train_val` sets them
    aside for validation, is a fair sample of all.
    """
    blocks = [family for family in IMAGE_FAMILIES for _ in range(getattr(family, part))]
    return [blocks[STRIDE * position % len(blocks)] for position in range(len(blocks))]


def generate_image(index: int, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Make one image of the set and its mask, uint8 and uint16 (H, W); the same `index` and `seed` give the same image.

    `index` counts from 0, first the training images, then the test images; `IndexError` if there is no such image.
    """
    families = image_order("train") + image_order("test")
    if not 0 <= index < len(families):
        raise IndexError(f"There are images 0 to {len(families) - 1}, but image {index} was asked for.")
    family = families[index]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(index,))))
    nuclei, labels = place_nuclei(rng, family)
    signal = log_uniform(rng, family.signal)
    light = render_nuclei(rng, family, nuclei, labels, signal)
    background = render_background(rng, family, light.sum(axis=0), signal)
    image = expose(rng, family, light, background)
    return image, shuffle_ids(rng, labels)


def write_dataset(folder: str | Path, seed: int = SEED) -> int:
    """Write all pairs as `folder/{train,test}/{images,masks}/synthetic-NNNN.tif`; returns the number of pairs.

    Files of that name that an older version of the set left in the folder are removed.
    """
    for leftover in Path(folder).glob("t*/*/synthetic-[0-9][0-9][0-9][0-9].tif"):
        leftover.unlink()
    parts = ["train"] * len(image_order("train")) + ["test"] * len(image_order("test"))
    for index, part in enumerate(parts):
        for kind, array in zip(("images", "masks"), generate_image(index, seed), strict=True):
            path = Path(folder) / part / kind / f"synthetic-{index + 1:04d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            # The predictor stores differences of neighbouring pixels: smaller files for noisy images, larger for masks.
            options = {"predictor": kind == "images", "rowsperstrip": array.shape[0]}
            tifffile.imwrite(path, array, compression="zlib", compressionargs={"level": 9}, **options)
    return len(parts)


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m course_utils.data.synthetic FOLDER [--seed NUMBER]`."""
    parser = argparse.ArgumentParser(description="Write the embedded synthetic data set.")
    parser.add_argument("folder", type=Path, help="folder that will hold train/ and test/")
    parser.add_argument("--seed", type=int, default=SEED, help=f"another seed gives other images (default {SEED})")
    options = parser.parse_args(arguments)
    print(f"Wrote {write_dataset(options.folder, options.seed)} images to {options.folder}.")


if __name__ == "__main__":
    main()
