"""A picture of an exam: its key slices, and the probabilities along the body axis."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pacs.pixels import hounsfield
from pacs.series import SourceSlice

LUNG_WINDOW = (-1350, 150)
_DISCLAIMER = "Decision support, not a diagnosis"


def draw_exam(exam: dict[str, Any], sources: Sequence[SourceSlice], path: Path) -> None:
    """Write a PNG of an exam as `worker.listing.show_exam` tells it; `sources` are its slices on disk."""
    figure = Figure(figsize=(12, 7), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    certainty = f"{exam['certainty']:.0%}"
    figure.suptitle(f"{exam['patient_id']}: {exam['verdict']}, {certainty}   ({exam['model']})\n{_DISCLAIMER}")
    grid = figure.add_gridspec(2, 6, height_ratios=[1, 1.2])
    by_uid = {(source.sop_uid, source.frame): source for source in sources}
    keys = sorted((image for image in exam["slices"] if image["key_rank"]), key=lambda image: image["position_mm"])
    for column, image in enumerate(keys[:6]):
        axes = figure.add_subplot(grid[0, column])
        hu = hounsfield(by_uid[image["sop_uid"], image["frame"]])
        axes.imshow(hu, cmap="gray", vmin=LUNG_WINDOW[0], vmax=LUNG_WINDOW[1])
        called = max(image["probabilities"], key=image["probabilities"].get)
        axes.set_title(f"{image['position_mm']:.0f} mm: {called} {image['probabilities'][called]:.0%}", fontsize=9)
        axes.axis("off")
    axes = figure.add_subplot(grid[1, :])
    classified = [image for image in exam["slices"] if image["classified"]]
    positions = np.array([image["position_mm"] for image in classified])
    for name in exam["probabilities"]:
        axes.plot(positions, [image["probabilities"][name] for image in classified], marker="o", ms=3, label=name)
    axes.fill_between(
        [image["position_mm"] for image in exam["slices"]],
        [image["lung_fraction"] or 0 for image in exam["slices"]],
        color="0.85", label="lung in the slice", zorder=0,
    )  # fmt: skip
    for image in keys:
        axes.axvline(image["position_mm"], color="0.6", lw=0.8, ls=":")
    axes.set(xlabel="position along the body axis, foot to head (mm)", ylabel="probability", ylim=(-0.02, 1.02))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
