"""`reticula models quantise`: an int8 network for a bundle that has none."""

from pathlib import Path
from typing import Annotated

import typer

from worker import console
from worker.commands import learning
from worker.commands.learning import BatteryOption, Dataset, SeedOption, UnknownsOption
from worker.errors import WorkerError


def quantise(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    dataset: Dataset,
    output: Annotated[Path, typer.Option(help="Folder of the new bundle; it must not exist.")],
    version: Annotated[str, typer.Option(help="Version of the new bundle.")],
    seed: SeedOption = 0,
    battery: BatteryOption = None,
    unknowns: UnknownsOption = None,
) -> None:
    """Make a bundle anew from its weights, with an int8 network that serves if no verdict changes by it.

    Give the data set that it was trained on: some patients it learned from calibrate, all others are asked.

    Example: reticula models quantise bundles/uip-nsip-2 exams/ --output bundles/uip-nsip-2.1 --version 2.1
    """
    if output.exists():
        raise WorkerError(f"{output} exists already: name a folder that does not, or remove it.")
    learning.need_torch()
    from models.bundle import open_bundle
    from training.assembly import ask_bundle, quantise_bundle

    opened = open_bundle(bundle)
    description = opened.description
    sources = learning.sources_of(dataset)
    with learning.shown_run() as (bars, observer):
        data = learning.read_dataset(sources, description.preprocessing, None, bars, classes=description.class_names)
        observer.on_stage("Quantising")
        made = quantise_bundle(opened, output, data, version=version, seed=seed, progress=observer.on_count)
        exams = learning.battery_setting(battery)
        if exams and description.guard is not None:
            observer.on_stage("Unknowns")
            folder = learning.unknowns_setting(unknowns)
            made = ask_bundle(made, exams=exams, unknowns=folder, progress=observer.on_count)
    if made.description.quantisation is not None:
        console.say(made.description.quantisation["sentence"])
    console.say(f"Bundle {made.description.name} {made.description.version} lies in {made.folder}.")
