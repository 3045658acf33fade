"""What the network learns to predict for each pixel (notebooks 01 and 05).

An argument that is not what its description says is a `ValueError`, which says what was found.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion
from skimage.segmentation import find_boundaries

from course_utils.arguments import check_arguments


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
    check_arguments(mask=mask)
    return torch.from_numpy((mask > 0).astype(np.float32))[None]


def boundary_target(mask: np.ndarray, mode: str = "inner") -> torch.Tensor:
    """Three-class target: 0 background, 1 interior of a nucleus, 2 boundary.

    The boundary class separates nuclei that touch: between two interiors there is always some boundary. The idea goes
    back to the weighted gaps of the U-Net paper (Ronneberger et al., MICCAI 2015) and to DCAN (Chen et al., CVPR 2016).

    Args:
        mask: label image `(H, W)` of integers; it is not changed.
        mode: as in `skimage.segmentation.find_boundaries`. "inner": the outermost pixels of each nucleus;
            "outer": the background pixels around it and, where nuclei touch, a pixel of each; "thick": both.

    Returns:
        int64 tensor `(H, W)`, the dtype that `torch.nn.CrossEntropyLoss` needs.

    >>> boundary_target(np.array([[0, 0, 0, 0, 0], [0, 4, 4, 4, 0], [0, 4, 4, 4, 0], [0, 4, 4, 4, 0]]))
    tensor([[0, 0, 0, 0, 0],
            [0, 2, 2, 2, 0],
            [0, 2, 1, 2, 0],
            [0, 2, 1, 2, 0]])
    """
    check_arguments(mask=mask, mode=mode)
    target = (mask > 0).astype(np.int64)
    target[find_boundaries(mask, mode=mode)] = 2
    return torch.from_numpy(target)


def looks_like_boundary_target(mask: np.ndarray | torch.Tensor) -> bool:
    """Whether an array looks like a 0/1/2 target of `boundary_target` rather than a label image with one or two nuclei.

    In a target, interior (1) is never directly beside background (0), and the boundary (2) is thin: few of its pixels
    have boundary on all four sides (at most 16 % in the targets of DSB2018, against more than 30 % in nearly all of its
    nuclei). In a label image nucleus 1 borders on background, unless nucleus 2 encloses it and is thick. An array
    without a 2 is never taken for a target; a single nucleus with id 2 that is only two pixels wide is.

    >>> mask = np.zeros((6, 6), int); mask[1:5, 1:5] = 1
    >>> looks_like_boundary_target(mask), looks_like_boundary_target(boundary_target(mask))
    (False, True)
    """
    mask = mask.numpy(force=True) if torch.is_tensor(mask) else mask  # `boundary_target` returns a tensor
    check_arguments(mask=mask, values=False)
    boundary = mask == 2
    if not boundary.any() or not np.isin(mask, [0, 1, 2]).all():
        return False
    beside_background = binary_dilation(mask == 0)  # by default the four neighbours
    surrounded = binary_erosion(boundary)
    return not (beside_background & (mask == 1)).any() and bool(surrounded.sum() < 0.25 * boundary.sum())
