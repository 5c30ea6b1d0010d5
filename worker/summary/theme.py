"""Sizes, colours and labels of what is drawn. Every text stands on a colour against which it can be read.

Contrasts are at least 4.5 to 1 (WCAG 2.2, 1.4.3). Viewers write over the edges of a capture, so a tenth of it stays
free along each.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

DPI = 100
MARGIN = 0.10
# A label within a picture.
LABEL: dict[str, Any] = {"color": "white", "bbox": {"facecolor": "black", "edgecolor": "none", "pad": 1.5}}


@dataclass(frozen=True)
class Theme:
    """Colours, and the size of the page: (width, height) in inches; scale: of the letters.

    classes: colours that are told apart without seeing red or green (after Okabe & Ito 2008), by the class's place.
    """

    paper: str
    ink: str
    faint: str
    warning: str
    classes: tuple[str, ...]
    size: tuple[float, float]
    scale: float = 1.0

    def colour(self, index: int) -> str:
        """Return the colour of a class."""
        return self.classes[index % len(self.classes)]


SCREEN = Theme(
    "#0E0E0E", "#F2F2F2", "#A0A0A0", "#F0E442", ("#E69F00", "#56B4E9", "#00B486", "#CC79A7"), (12.8, 9.6)
)  # fmt: skip
# A4, lying.
PRINT = Theme(
    "#FFFFFF", "#000000", "#5A5A5A", "#7A3E00", ("#8A5A00", "#00608F", "#006B4F", "#8F3F6E"), (11.69, 8.27), 0.88
)  # fmt: skip


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Return a figure as RGB (rows, columns, 3)."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
