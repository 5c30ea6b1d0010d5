"""Random views of training slices: shift, scale, rotation, flip, and a change of density."""

import math

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

ROTATION_DEGREES = 15.0
SCALE = 0.12
DENSITY_HU = 40.0
AIR_HU = -1024.0


def random_views(images: Tensor, boxes: NDArray, window: int, generator: torch.Generator) -> Tensor:  # type: ignore[type-arg]
    """Return one random view of each slice: (N, 1, size, size) in HU gives (N, 1, window, window).

    The pixels keep about their size in mm: a window smaller than the slice is laid over the lungs at random.
    boxes: the lungs as (N, 4) of (top, left, bottom, right).
    """
    count, size = images.shape[0], images.shape[-1]

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle = uniform(-ROTATION_DEGREES, ROTATION_DEGREES) * math.pi / 180
    scale = uniform(1 - SCALE, 1 + SCALE) * window / size
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    corners = torch.as_tensor(boxes, dtype=torch.float32) / size * 2 - 1  # in the grid's -1 to 1
    middle_y, middle_x = (corners[:, 0] + corners[:, 2]) / 2, (corners[:, 1] + corners[:, 3]) / 2
    # As far as the window may move and still stay over the lungs; a little where it covers them all.
    slack_y = ((corners[:, 2] - corners[:, 0]) / 2 - window / size).clamp(min=0.08)
    slack_x = ((corners[:, 3] - corners[:, 1]) / 2 - window / size).clamp(min=0.08)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    transform = torch.stack(
        [
            torch.stack([cosine * flip, -sine, middle_x + uniform(-1, 1) * slack_x], dim=1),
            torch.stack([sine * flip, cosine, middle_y + uniform(-1, 1) * slack_y], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(transform, [count, 1, window, window], align_corners=False)
    # Shifted so that what lies outside the slice becomes air.
    views = functional.grid_sample(images - AIR_HU, grid, align_corners=False) + AIR_HU
    return views + uniform(-DENSITY_HU, DENSITY_HU).view(-1, 1, 1, 1)
