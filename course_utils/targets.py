"""What the network is asked to predict for every pixel (notebooks 01 and 05)."""

from __future__ import annotations

import numpy as np
import torch
from skimage.segmentation import find_boundaries


def binary_target(mask: np.ndarray) -> torch.Tensor:
    """Foreground target: 1 on every nucleus, 0 on the background.

    Args:
        mask: label image `(H, W)` of integers; it is not changed.

    Returns:
        float32 tensor `(1, H, W)`.

    >>> binary_target(np.array([[0, 5], [2, 0]]))
    tensor([[[0., 1.],
             [1., 0.]]])
    """
    return torch.from_numpy((mask > 0).astype(np.float32))[None]


def boundary_target(mask: np.ndarray, mode: str = "inner") -> torch.Tensor:
    """Three-class target: 0 background, 1 interior of a nucleus, 2 boundary.

    The boundary class keeps nuclei apart that touch: between two interiors there is always some boundary. The idea goes
    back to the weighted gaps of the U-Net paper (Ronneberger et al., MICCAI 2015) and to DCAN (Chen et al., CVPR 2016).

    Args:
        mask: label image `(H, W)` of integers; it is not changed.
        mode: as in `skimage.segmentation.find_boundaries`. "inner": the outermost pixels of each nucleus;
            "outer": the background pixels around it, and where nuclei touch, a pixel of each; "thick": both.

    Returns:
        int64 tensor `(H, W)`, the dtype that `torch.nn.CrossEntropyLoss` asks for.

    >>> boundary_target(np.array([[0, 0, 0, 0, 0], [0, 4, 4, 4, 0], [0, 4, 4, 4, 0], [0, 4, 4, 4, 0]]))
    tensor([[0, 0, 0, 0, 0],
            [0, 2, 2, 2, 0],
            [0, 2, 1, 2, 0],
            [0, 2, 1, 2, 0]])
    """
    target = (mask > 0).astype(np.int64)
    target[find_boundaries(mask, mode=mode)] = 2
    return torch.from_numpy(target)


def looks_like_boundary_target(mask: np.ndarray) -> bool:
    """Whether an array is a 0/1/2 target of `boundary_target` rather than a label image with up to two nuclei.

    In the target, interior (1) never lies directly beside background (0): there is always boundary (2) between them.
    In a label image the nucleus with id 1 does border on background.

    >>> mask = np.zeros((6, 6), int); mask[1:5, 1:5] = 1
    >>> looks_like_boundary_target(mask), looks_like_boundary_target(boundary_target(mask).numpy())
    (False, True)
    """
    mask = np.asarray(mask)
    if set(np.unique(mask).tolist()) != {0, 1, 2}:
        return False
    beside = [(mask[:, :-1], mask[:, 1:]), (mask[:-1, :], mask[1:, :])]
    return not any(((a == 0) & (b == 1) | (a == 1) & (b == 0)).any() for a, b in beside)
