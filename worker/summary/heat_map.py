"""A slice in the lung window with the evidence for the verdict's class in colour over it, in the lungs only."""

from textwrap import wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.lung_mask import block_mean
from pacs.codes import short_name
from pacs.report.capture import directions
from worker.summary.material import Material, ShownSlice
from worker.summary.theme import DPI, LABEL, MARGIN, SCREEN, pixels
from worker.summary.wording import WORDING

LUNG_WINDOW = (-1350.0, 150.0)
_STRONGEST = 0.55  # how much of the slice the strongest evidence covers
_COLOURS = np.asarray(colormaps["plasma"](np.linspace(0.25, 1, 256)))[:, :3].astype(np.float32)
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}
# A capture has at least so many pixels along its slice's longer side, and a strip for two lines above and below it.
_SMALLEST, _STRIP = 512, 44
_CAPTION_POINTS, _CAPTION_PIXELS = 10.0, 8.2  # and how wide a letter is


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


def sides(shown: ShownSlice) -> tuple[tuple[float, float, str], ...]:
    """Return the letters of the sides of a slice: (part of its width, part of its height from above, letter)."""
    found = directions(shown.key.orientation)
    if not found:
        return ()
    right, bottom = found
    return (0.03, 0.5, _OPPOSITE[right]), (0.97, 0.5, right), (0.5, 0.04, _OPPOSITE[bottom]), (0.5, 0.96, bottom)


def draw_capture(material: Material, shown: ShownSlice) -> NDArray[np.uint8]:
    """Return RGB (rows, columns, 3) of a slice with what it is written above it; a tenth along each edge stays free."""
    slice_ = draw_heat_map(shown, evidence_scale(material))
    slice_ = slice_.repeat(factor := -(-_SMALLEST // max(slice_.shape)), axis=0).repeat(factor, axis=1)
    rows, columns = slice_.shape[:2]
    inner_width, inner_height = max(columns, _SMALLEST), rows + 2 * _STRIP
    width, height = (int(np.ceil(size / (1 - 2 * MARGIN))) for size in (inner_width, inner_height))
    left, top = (width - columns) // 2, (height - inner_height) // 2 + _STRIP
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="black")
    figure.figimage(slice_, left, height - top - rows, origin="upper", resize=False)
    letters = int(inner_width / _CAPTION_PIXELS)
    for line, place, anchor in (
        (caption(material, shown), top - 6, "bottom"),
        (WORDING[material.exam.language].despite if material.exam.algorithm.despite else "", top + rows + 6, "top"),
    ):
        figure.text(
            0.5, 1 - place / height, "\n".join(wrap(line, letters)), fontsize=_CAPTION_POINTS, ha="center", va=anchor,
            parse_math=False, color=SCREEN.ink,
        )  # fmt: skip
    for x, y, letter in sides(shown):
        figure.text(
            (left + x * columns) / width, 1 - (top + y * rows) / height, letter, fontsize=11, weight="bold",
            ha="center", va="center", **LABEL,
        )  # fmt: skip
    return pixels(figure)


def caption(material: Material, shown: ShownSlice) -> str:
    """Return what is written above a slice."""
    exam, words = material.exam, WORDING[material.exam.language]
    said = words.caption if shown.activation is not None else words.caption_without
    name = short_name(exam.classes[material.likeliest].name, exam.language)
    return said.format(name=name, image=image_name(shown))


def image_name(shown: ShownSlice) -> str:
    """Return the number of a slice's image as the CT has it; of an enhanced CT with its frame."""
    number = "?" if shown.key.instance_number is None else str(shown.key.instance_number)
    return number if shown.key.frame is None else f"{number}/{shown.key.frame}"
