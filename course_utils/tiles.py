"""Tiles of an image of any size: each is segmented with a margin, and keeps the instances whose centroid is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from course_utils.segmentation import predict, remove_small, remove_uncertain, watershed_instances

MULTIPLE = 16  # sides of what a U-Net of depth 4 is given
CONTEXT = 112  # the receptive field reaches up to 107 pixels to each side
NUCLEUS = 80  # pixels around a tile in which its nuclei may reach; the largest of DSB2018 has a diameter of 91
MIN_AREA = 10  # smaller objects are specks; the smallest nucleus of DSB2018 has 21 pixels, at 0.7 of its size 10


@dataclass(frozen=True)
class TileAxis:
    """One axis of a tile, in pixels of the scaled image: `size` pixels there are `length` ones of the image.

    The tile owns `start` to `stop`, has instances from `first` to `last`, and needs the image from `begin` to `end`.
    """

    length: int
    size: int
    start: int
    stop: int
    first: int
    last: int
    begin: int
    end: int

    def back(self) -> tuple[slice, np.ndarray]:
        """The pixels of the image from `first` to `last`, and for each its place in there (nearest neighbour)."""
        factor = self.size / self.length
        low, high = (math.ceil(edge / factor - 0.5) for edge in (self.first, self.last))
        place = ((np.arange(low, high) + 0.5) * factor).astype(int) - self.first
        return slice(low, high), np.clip(place, 0, self.last - self.first - 1)


@dataclass(frozen=True)
class Tile:
    """A tile of an image, see `TileAxis`."""

    rows: TileAxis
    columns: TileAxis

    def cut(self, grey: np.ndarray) -> np.ndarray:
        """The piece of the scaled image that the network needs: smoothed first to become smaller, or sharpened after.

        Enlarged nuclei have blurred edges, and the network hesitates there. Width and strength of the unsharp mask are
        the best ones on DSB2018's validation images, halved in three ways and enlarged again.
        """
        axes = self.rows, self.columns
        if all(axis.size == axis.length for axis in axes):
            return grey[tuple(slice(axis.begin, axis.end) for axis in axes)]
        steps = [axis.length / axis.size for axis in axes]
        blur, far = [max(0.0, (step - 1) / 2) for step in steps], [int(2.5 / step) + 1 for step in steps]
        begin = [max(0, axis.begin - more) for axis, more in zip(axes, far, strict=True)]
        end = [min(axis.size, axis.end + more) for axis, more in zip(axes, far, strict=True)]
        reach = [5 * sigma + 20 for sigma in blur]  # of the filters, in pixels of the image
        low = [max(0, int(start * step - more)) for start, step, more in zip(begin, steps, reach, strict=True)]
        high = [int(stop * step + more) for stop, step, more in zip(end, steps, reach, strict=True)]
        piece = ndimage.gaussian_filter(grey[tuple(map(slice, low, high))].astype(np.float32), blur, mode="nearest")
        offsets = [(start + 0.5) * step - 0.5 - at for start, step, at in zip(begin, steps, low, strict=True)]
        shape = tuple(stop - start for start, stop in zip(begin, end, strict=True))
        piece = ndimage.affine_transform(piece, steps, offsets, shape, order=3, mode="nearest")
        if (strength := 1.5 * min(1.0, 1 / steps[0] - 1)) > 0:
            piece += strength * (piece - ndimage.gaussian_filter(piece, [0.5 / step for step in steps], mode="nearest"))
        return piece[tuple(slice(axis.begin - at, axis.end - at) for axis, at in zip(axes, begin, strict=True))]

    def instances(self, model: torch.nn.Module, piece: np.ndarray, threshold: float, mirrored: bool) -> np.ndarray:
        """Label image of the tile and the margin of its nuclei, from what `cut` gave, or from its mirror image."""
        probability = predict(model, np.ascontiguousarray(piece[:, ::-1]) if mirrored else piece, MULTIPLE)
        if len(probability) != 3:
            raise ValueError(f"model must give background, interior and boundary, but gives {len(probability)} maps.")
        probability = probability[:, :, ::-1] if mirrored else probability
        cut = (slice(axis.first - axis.begin, axis.last - axis.begin) for axis in (self.rows, self.columns))
        _, foreground, boundary = probability[:, *cut]
        labels = remove_small(watershed_instances(foreground, boundary, threshold), MIN_AREA)
        return remove_uncertain(labels, foreground + boundary)

    def owned(self, labels: np.ndarray) -> np.ndarray:
        """Ids of the instances whose centroid is in the tile. In whole numbers: a centroid on a seam has one owner."""
        areas = np.bincount(labels.ravel())
        ours = areas > 0
        ours[0] = False
        for axis, places in zip((self.rows, self.columns), np.indices(labels.shape, sparse=True), strict=True):
            sums = np.bincount(labels.ravel(), np.broadcast_to(places, labels.shape).ravel())
            ours &= (sums >= (axis.start - axis.first) * areas) & (sums < (axis.stop - axis.first) * areas)
        return np.flatnonzero(ours)

    def at_seams(self, labels: np.ndarray) -> np.ndarray:
        """Ids of the instances at an edge that is not one of the image: there may be more of them beyond."""
        edges = []
        for axis, turned in ((self.rows, labels), (self.columns, labels.T)):
            edges += [turned[0]] * (axis.first > 0) + [turned[-1]] * (axis.last < axis.size)
        return np.unique(np.concatenate(edges)) if edges else np.zeros(0, dtype=int)

    def paint(self, labels: np.ndarray, found: np.ndarray, own: np.ndarray, n_before: int) -> int:
        """Write the tile's own instances into the label image of the whole, with the next ids; returns the last."""
        (rows, row_places), (columns, column_places) = self.rows.back(), self.columns.back()
        here = np.where(np.isin(found, own), found, 0)[np.ix_(row_places, column_places)]
        there = labels[rows, columns]
        here[there > 0] = 0
        ids, index = np.unique(here, return_inverse=True)
        new = np.cumsum(ids > 0) + n_before
        there[here > 0] = new[index].reshape(here.shape)[here > 0]
        return n_before + int(np.count_nonzero(ids))


def tiles_of(shape: tuple[int, ...], scale: float, tile: int) -> list[Tile]:
    """The tiles of an image, of nearly equal size, row by row."""

    def along(length: int) -> list[TileAxis]:
        size = max(1, round(length * scale))
        step = MULTIPLE * math.ceil(size / math.ceil(size / tile) / MULTIPLE)
        far = NUCLEUS + CONTEXT
        return [
            TileAxis(length, size, start, min(size, start + step),
                  max(0, start - NUCLEUS), min(size, start + step + NUCLEUS),
                  max(0, start - far), min(size, start + step + far))
            for start in range(0, size, step)
        ]  # fmt: skip

    rows, columns = map(along, shape)
    return [Tile(row, column) for row in rows for column in columns]
