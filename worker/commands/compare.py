"""`reticula compare`: the architectures by the study's protocol and by patient."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from worker import console
from worker.commands import learning
from worker.commands.learning import (
    BackgroundOption,
    BalanceOption,
    Batch,
    Dataset,
    DeviceOption,
    Epochs,
    FineTuneOption,
    FoldsOption,
    FromScratch,
    LearningRate,
    SeedOption,
    Size,
    WeightDecay,
    Weights,
    chosen,
)
from worker.errors import WorkerError

if TYPE_CHECKING:
    from training.recipe import Run


def compare(
    dataset: Dataset,
    output: Annotated[Path, typer.Option(help="Folder for the bundles, comparison.md and comparison.json.")],
    weights: Weights = None,
    from_scratch: FromScratch = False,
    architecture: Annotated[
        list[str] | None, typer.Option(help="One of the four; may be repeated (default: all).")
    ] = None,
    fine_tune: FineTuneOption = "last",
    balance: BalanceOption = "undersample",
    folds: FoldsOption = None,
    background: BackgroundOption = None,
    epochs: Epochs = 30,
    batch: Batch = 32,
    learning_rate: LearningRate = 1e-4,
    weight_decay: WeightDecay = 1e-3,
    size: Size = 512,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    control: Annotated[
        int | None,
        typer.Option(
            help="How often the split by slice is learned under permuted labels, to see what it reaches where there is "
            "nothing to find (default: 3 times, with '--fine-tune all' once; 0: never).",
            min=0,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train the architectures on the same slices and say which is best, by slice and by patient.

    Example: reticula compare exams/ --output comparison --weights weights/
    """
    learning.need_torch()
    from models.architectures import ARCHITECTURES
    from models.preprocessing import Preprocessing
    from training import comparison
    from training import recipe as recipes
    from training.fitting import Schedule
    from training.learners import Views
    from training.protocols import Balance
    from training.weights import find_start

    if output.exists() and any(output.iterdir()):
        raise WorkerError(f"{output} holds something already: name a new folder.")
    tuned = chosen(fine_tune, get_args(recipes.FineTune), "--fine-tune")
    balanced = chosen(balance, get_args(Balance), "--balance")
    where = chosen(device, ("auto", "cpu", "cuda"), "--device")
    names = [chosen(name, ARCHITECTURES, "--architecture") for name in dict.fromkeys(architecture or ARCHITECTURES)]
    found = learning.weights_setting(weights, from_scratch=from_scratch)
    starts = {name: find_start(name, found, from_scratch=from_scratch) for name in names}
    sources = learning.sources_of(dataset)
    with learning.shown_run() as (bars, observer):
        data = learning.read_dataset(sources, Preprocessing(size=size), background, bars)

        def make(name: str) -> "Run":
            recipe = recipes.Recipe(
                name=name.replace("_", "-"),
                version="1",
                architecture=name,
                start=starts[name],
                protocol="study",
                fine_tune=tuned,
                balance=balanced,
                folds=folds,
                views=Views(),
                schedule=Schedule(
                    epochs=epochs, batch=batch, learning_rate=learning_rate, weight_decay=weight_decay, seed=seed
                ),
                device=where,
                both=True,
                limits=learning.LIMITS,
                command=learning.command_line(),
            )
            return recipes.Run(recipe, data, learning.feature_cache(), observer)

        draws = (3 if tuned == "last" else 1) if control is None else control
        _announce({name: str(starts[name]) for name in names}, make, draws)
        rows = comparison.compare([(partial(make, name), output / name) for name in names], draws=draws)
    page = comparison.as_markdown(rows, learning.command_line(), data)
    (output / "comparison.md").write_text(page, encoding="utf-8")
    content = {"winner": comparison.winner(rows).architecture, "networks": [row.as_json() for row in rows]}
    (output / "comparison.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if as_json:
        console.say_json(content)
    else:
        console.say(page)


def _announce(starts: dict[str, str], make: "Callable[[str], Run]", draws: int) -> None:
    """Say where each network starts, and how long all of it will take."""
    total = 0.0
    for name, start in starts.items():
        seconds = make(name).expected_seconds()
        total += seconds
        console.err.print(f"{name} starts from {start}; about {learning.duration(seconds)}.", markup=False)
    more = f", and {draws} more splits by slice of each, the control" if draws else ""
    console.err.print(f"About {learning.duration(total)} in all{more}.")
