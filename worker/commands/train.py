"""`reticula train`: from labelled slices to a bundle, with figures that say what it is worth."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from worker import console
from worker.commands import learning
from worker.commands.learning import (
    BackgroundOption,
    BalanceOption,
    Batch,
    BatteryOption,
    ConfirmLabels,
    Dataset,
    DeviceOption,
    Epochs,
    FineTuneOption,
    FoldsOption,
    FromScratch,
    Int8Option,
    LearningRate,
    SeedOption,
    Size,
    UnknownsOption,
    WeightDecay,
    Weights,
    chosen,
)
from worker.errors import WorkerError


def train(
    dataset: Dataset,
    output: Annotated[Path, typer.Option(help="Folder of the new bundle; it must not exist.")],
    weights: Weights = None,
    from_scratch: FromScratch = False,
    protocol: Annotated[
        str, typer.Option(help="'patient' keeps patients whole; 'study' splits by slice, as the study did.")
    ] = "patient",
    architecture: Annotated[str, typer.Option(help="mobilenet_v2, vgg16, resnet50, efficientnet_b0.")] = "mobilenet_v2",
    fine_tune: FineTuneOption = "last",
    name: Annotated[str, typer.Option(help="Name of the model.")] = "uip-nsip",
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1",
    balance: BalanceOption = "undersample",
    folds: FoldsOption = None,
    background: BackgroundOption = None,
    epochs: Epochs = 30,
    batch: Batch = 32,
    learning_rate: LearningRate = 1e-4,
    weight_decay: WeightDecay = 1e-3,
    views: Annotated[
        str, typer.Option(help="'study': three synthetic images a slice; 'random': new views in every epoch.")
    ] = "study",
    window: Annotated[int, typer.Option(help="Side in pixels of random views.", min=32)] = 352,
    full_epochs: Annotated[int, typer.Option(help="The last epochs, in which random views are whole.", min=1)] = 2,
    pace: Annotated[str, typer.Option(help="Learning rate: 'constant', or 'one-cycle'.")] = "constant",
    select: Annotated[str, typer.Option(help="What the best epoch is best in: 'accuracy' or 'loss'.")] = "accuracy",
    other_protocol: Annotated[
        bool, typer.Option("--both/--one", help="Measure the other protocol as well, for comparison.")
    ] = True,
    size: Size = 512,
    int8: Int8Option = True,
    battery: BatteryOption = None,
    unknowns: UnknownsOption = None,
    confirm_labels: ConfirmLabels = None,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    limits: Annotated[str, typer.Option(help="What the card warns of.")] = learning.LIMITS,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
) -> None:
    """Train a network and write a bundle. Ctrl-C keeps the best epoch so far.

    Example: reticula train exams/ --output bundles/uip-nsip-2 --weights mobilenet_v2.safetensors
    """
    if output.exists() and not resume:
        raise WorkerError(f"{output} exists already: name a folder that does not, or remove it.")
    if views == "random" and fine_tune == "last":
        raise typer.BadParameter(
            "Random views are for --fine-tune all: the last layer learns on features kept from fixed ones."
        )
    learning.need_torch()
    from models.architectures import ARCHITECTURES
    from models.preprocessing import Preprocessing
    from training import recipe as recipes
    from training.experiment import Protocol
    from training.fitting import Schedule
    from training.learners import Views
    from training.protocols import Balance
    from training.weights import find_start
    from training.worth import behind, worth

    architecture = chosen(architecture, ARCHITECTURES, "--architecture")
    found = learning.weights_setting(weights, from_scratch=from_scratch)
    recipe = recipes.Recipe(
        name=name,
        version=version,
        architecture=architecture,
        start=find_start(architecture, found, from_scratch=from_scratch),
        protocol=chosen(protocol, get_args(Protocol), "--protocol"),
        fine_tune=chosen(fine_tune, get_args(recipes.FineTune), "--fine-tune"),
        balance=chosen(balance, get_args(Balance), "--balance"),
        folds=folds,
        views=Views(chosen(views, ("study", "random"), "--views"), window, full_epochs),
        schedule=Schedule(
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            seed=seed,
            pace=chosen(pace, ("constant", "one-cycle"), "--pace"),
            select=chosen(select, ("accuracy", "loss"), "--select"),
        ),
        device=chosen(device, ("auto", "cpu", "cuda"), "--device"),
        both=other_protocol,
        limits=limits,
        command=learning.command_line(),
        int8=int8,
        battery=learning.battery_setting(battery),
        unknowns=learning.unknowns_setting(unknowns),
    )
    learning.labels_checked(dataset, confirm_labels)
    sources = learning.sources_of(dataset)
    with learning.shown_run() as (bars, observer):
        data = learning.read_dataset(sources, Preprocessing(size=size), background, bars)
        run = recipes.Run(recipe, data, learning.feature_cache(), observer)
        console.err.print(f"{recipe.architecture} starts from {recipe.start}.", markup=False)
        if recipe.start.kind == "scratch" and recipe.fine_tune == "last":
            console.err.print("Only the last layer learns, on a random network: --fine-tune all lets it learn to see.")
        console.err.print(f"About {learning.duration(run.expected_seconds())} to go.")
        trained = run.train(output, resume=resume)
    for protocol_name, measured in trained.measured.items():
        split = "By slice" if protocol_name == "study" else "By patient"
        figures = trained.bundle.description.metrics[protocol_name]["slices"]
        said = worth(figures, leaked=protocol_name == "study")
        console.say(
            f"{split}: {measured.accuracy} of {figures['slices']} test slices of {behind(figures['patients'])} are "
            f"right. {said}".rstrip()
        )
    if trained.sentence:
        console.say(trained.sentence)
    bundle = trained.bundle
    for measured in trained.measured.values():
        if measured.uncalibrated:
            console.err.print(measured.uncalibrated, markup=False)
    for sentence in learning.what_it_says(bundle):
        console.say(sentence)
    if bundle.description.quantisation is not None:
        console.say(bundle.description.quantisation["sentence"])
    console.say(f"Bundle {bundle.description.name} {bundle.description.version} lies in {bundle.folder}.")
