"""What parts the pictures of a revision from those of the one before, which no PACS lets us change."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pacs.report import ReportedExam
from worker.summary.theme import DPI, SCREEN, pixels
from worker.summary.wording import WORDING, moment


def draw_superseded(exam: ReportedExam) -> NDArray[np.uint8]:
    """Return RGB (512, 640, 3): all that follows in the series is superseded by this exam."""
    words = WORDING[exam.language]
    figure = Figure(figsize=(640 / DPI, 512 / DPI), dpi=DPI, facecolor=SCREEN.paper)
    figure.text(0.5, 0.6, words.superseded, fontsize=30, weight="bold", ha="center", va="center", color=SCREEN.warning)
    said = words.superseded_by.format(number=exam.revision, moment=moment(exam.classified_at, exam.language))
    figure.text(
        0.5, 0.42, said, fontsize=10, ha="center", va="center", color=SCREEN.ink, linespacing=1.6, parse_math=False
    )
    return pixels(figure)
