"""`reticula phantom`: chest CT with a known disease."""

from pathlib import Path
from typing import Annotated

import typer

from worker import console


def phantom(
    folder: Annotated[Path, typer.Argument(help="Where to write the exams and truth.json.")],
    seed: Annotated[int, typer.Option(help="The same seed writes the same exams.", min=0)] = 1,
    exams: Annotated[int, typer.Option(help="How many exams, half of them of each disease.", min=1)] = 2,
    slices: Annotated[int | None, typer.Option(help="Slices of each exam (default: as scanned).", min=3)] = None,
) -> None:
    """Write phantom chest CT exams with a UIP-like or an NSIP-like disease.

    Example: reticula phantom /tmp/phantoms --seed 7 --exams 4
    """
    from training.phantom import write_phantoms

    with console.progress() as bars:
        task = bars.add_task("Exams", total=exams)
        write_phantoms(
            folder,
            seed=seed,
            exams=exams,
            slices=slices,
            progress=lambda done: bars.update(task, completed=done),
        )
    console.say(f"{exams} exams and their truth.json lie in {folder}.")
