"""`reticula evaluate`: a bundle as it serves, on labelled slices."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from worker import console
from worker.commands import learning
from worker.commands.context import application
from worker.commands.learning import BatteryOption, Dataset, UnknownsOption


def evaluate(
    bundle: Annotated[str, typer.Argument(help="Folder of a bundle, or an imported model by name.")],
    dataset: Dataset,
    output: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json, figures and predictions (CSV).")
    ] = None,
    battery: BatteryOption = None,
    unknowns: UnknownsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a model on labelled slices, by slice and by exam, and ask it what it says of what it must not name.

    Example: reticula evaluate bundles/uip-nsip-2 exams/ --output evaluation
    """
    learning.need_torch()
    from models.bundle import open_bundle
    from training import evaluation
    from training.figures import draw_evaluation
    from training.prediction_tables import write_predictions

    folder, asked = Path(bundle), False
    if not folder.is_dir():
        registry = application().registry
        with application().database.read() as session:
            version = registry.find(session, bundle)
        folder, asked = registry.folder(version), version.battery is not None
    opened = open_bundle(folder)
    sources = learning.sources_of(dataset)
    with learning.shown_run() as (bars, observer):
        data = learning.read_dataset(
            sources, opened.description.preprocessing, None, bars, classes=opened.description.class_names
        )
        observer.on_stage("Classifying")
        measured = evaluation.evaluate(
            opened, data, observer.on_count, asked=asked, battery=learning.battery_setting(battery),
            unknowns=learning.unknowns_setting(unknowns), on_stage=observer.on_stage,
        )  # fmt: skip
    for warning in measured.warnings:
        console.err.print(warning, markup=False)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        draw_evaluation(data, measured.raw, measured.scaled, output)
        write_predictions(output, measured.raw, measured.scaled, measured.outcomes, named=True)
        text = json.dumps(measured.as_json(), indent=2, ensure_ascii=False)
        (output / "evaluation.json").write_text(text + "\n", encoding="utf-8")
    if as_json:
        console.say_json(measured.as_json())
        return
    _show("slices", measured.slices)
    _show("exams", measured.exams)
    console.say(measured.battery["sentence"])


def _show(title: str, figures: dict[str, Any]) -> None:
    from training.card import interval, percent

    table = Table(title, "")
    for name, value in figures.items():
        if isinstance(value, dict) and "value" in value:
            shown = interval(value, part=name in ("auc", "brier"))
        elif isinstance(value, dict):
            show = str if name == "patients" else percent
            shown = ", ".join(f"{each} {show(part)}" for each, part in value.items())
        else:
            shown = str(value)
        table.add_row(name.replace("_", " "), shown)
    console.out.print(table)
