"""A slice in the lung window with the evidence for the likeliest class in colour over it."""

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from models.lung_mask import block_mean
from worker.summary.material import Material, ShownSlice

LUNG_WINDOW = (-1350.0, 150.0)
_STRONGEST = 0.55  # how much of the slice the strongest evidence covers
_COLOURS = np.asarray(colormaps["plasma"](np.linspace(0.25, 1, 256)))[:, :3].astype(np.float32)


def evidence_scale(material: Material) -> float:
    """Return the strongest evidence in any key slice: one scale for all of them."""
    found = [float(shown.activation.max()) for shown in material.slices if shown.activation is not None]
    return max([*found, 1e-6])


def draw_heat_map(shown: ShownSlice, scale: float, size: int | None = None) -> NDArray[np.uint8]:
    """Return RGB (rows, columns, 3) of a slice; `size`: the longer side, where it is to be smaller.

    Only what speaks for the class is coloured. Without an activation the slice stands alone.
    """
    step = 1 if size is None else max(1, -(-max(shown.hu.shape) // size))
    activation = None if shown.activation is None else shown.activation[::step, ::step]
    low, high = LUNG_WINDOW
    grey = np.clip((block_mean(shown.hu, step) - low) / (high - low), 0, 1)[:, :, None]
    if activation is None:
        return np.asarray(np.repeat(grey, 3, axis=2) * 255).astype(np.uint8)
    strength = np.clip(activation / scale, 0, 1)
    colour = _COLOURS[(strength * 255).astype(np.uint8)]
    cover = (strength * _STRONGEST)[:, :, None]
    return np.asarray((grey * (1 - cover) + colour * cover) * 255).astype(np.uint8)
