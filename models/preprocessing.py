"""How Hounsfield units become the network's input: the settings that a bundle carries.

Windowing and normalisation are part of the exported network; geometry is in `models.resizing`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preprocessing:
    """How a slice becomes an input.

    size: rows and columns of the network's input.
    window: (lowest, highest) HU that the network tells apart.
    mean, std: normalisation of the windowed value, 0 to 1, for each of the three channels.
    min_lung_fraction: slices with less lung than this are not classified.
    """

    size: int = 512
    window: tuple[float, float] = (-1350.0, 150.0)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    min_lung_fraction: float = 0.12
