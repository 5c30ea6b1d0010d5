"""From a network that learned to a bundle on disk: export, distances, figures, card."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from models.bundle import CARD, FAMILIARITY, Bundle, Description, open_bundle, seal_bundle
from models.export import export_network
from training.card import write_card
from training.dataset import LabelledSlices
from training.experiment import Measured
from training.figures import draw_evaluation, draw_training
from training.learners import Fitted

FIGURES = "figures"


def write_bundle(
    output: Path,
    description: Description,
    fitted: Fitted,
    data: LabelledSlices,
    measured: Sequence[Measured],
    *,
    seed: int,
    replace: bool = False,
) -> Bundle:
    """Make the bundle beside its place and rename it there: a broken run leaves no half bundle.

    The figures are those of the first protocol that was measured. `replace` takes an earlier bundle away.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        workshop.chmod(0o755)
        export_network(fitted.network, description.preprocessing, description.temperature, workshop)
        fitted.familiarity.save(workshop / FAMILIARITY)
        draw_training(data, measured[0].courses, seed, workshop / FIGURES)
        draw_evaluation(data, measured[0].test, measured[0].scaled, workshop / FIGURES)
        (workshop / CARD).write_text(write_card(description), encoding="utf-8")
        seal_bundle(workshop, description)
        if replace and output.exists():
            shutil.rmtree(output)
        workshop.rename(output)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return open_bundle(output)
