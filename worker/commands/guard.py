"""`reticula models guard`: a guard for a bundle that has none, or a new one."""

from pathlib import Path
from typing import Annotated

import typer

from worker import console
from worker.commands import learning
from worker.commands.learning import BatteryOption, Dataset, UnknownsOption
from worker.errors import WorkerError


def guard(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    dataset: Dataset,
    output: Annotated[Path, typer.Option(help="Folder of the new bundle; it must not exist.")],
    version: Annotated[str, typer.Option(help="Version of the new bundle.")],
    battery: BatteryOption = None,
    unknowns: UnknownsOption = None,
) -> None:
    """Make a bundle anew with a guard, temperature and operating point from exams that it has never seen.

    Give labelled exams: of those that it learned from none counts. It is asked what it says of unknowns, too.

    Example: reticula models guard bundles/old new-exams/ --output bundles/uip-nsip-3 --version 3
    """
    if output.exists():
        raise WorkerError(f"{output} exists already: name a folder that does not, or remove it.")
    learning.need_torch()
    from models.bundle import open_bundle
    from training.guarding import guard_bundle

    opened = open_bundle(bundle)
    description = opened.description
    sources = learning.sources_of(dataset)
    folder = learning.unknowns_setting(unknowns)
    with learning.shown_run() as (bars, observer):
        data = learning.read_dataset(sources, description.preprocessing, None, bars, classes=description.class_names)
        made = guard_bundle(
            opened, output, data,
            version=version, battery=learning.battery_setting(battery), unknowns=folder,
            progress=observer.on_count, on_stage=observer.on_stage,
        )  # fmt: skip
    for sentence in learning.what_it_says(made):
        console.say(sentence)
    console.say(f"Bundle {made.description.name} {made.description.version} lies in {made.folder}.")
