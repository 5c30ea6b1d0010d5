"""`card.md`: what a bundle was trained on, what its figures are worth, and what it is not for."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from models.bundle import Description
from models.guard import FEWEST_PATIENTS, Guard
from models.verdict import silent_about_all
from training.metrics import INTERVALS
from training.worth import behind, worth

INTENDED_USE = (
    "Decision support for radiologists who read chest CT of patients with systemic sclerosis: it names the pattern, "
    "UIP or NSIP, that the slices of an axial chest CT show. It is no diagnosis and no medical device; nobody is to be "
    "treated by its word alone."
)


def write_card(description: Description) -> str:
    """Return the card in Markdown."""
    point, data = description.operating_point, description.data
    sentence = description.metrics.get("sentence")
    sentence = f"\n{sentence}\n" if sentence else ""
    interrupted = (
        "\nThe run was interrupted by hand; the best epoch until then was kept.\n"
        if description.metrics.get("interrupted")
        else ""
    )
    return f"""# {description.name} {description.version}

{description.architecture}, classes {", ".join(description.class_names)}, started from {data["started_from"]}, learned
{data["learned"]}.
{interrupted}
## Intended use

{INTENDED_USE}

## Limits

{data["limits"]}

## Data

| class | slices | series | patients |
| --- | --- | --- | --- |
{_classes(data)}

Of these, {data["slices_used"]} slices were used; {data["views"]}.
{data["left_out"]} files or folders were left out. Fingerprint `{data["fingerprint"]}`.

## Figures

{_figures(description.metrics)}
{sentence}
{INTERVALS} Exams: as the model would
report them on the slices that were used, with its right to abstain.

## When it commits itself

An exam gets a verdict where {point.min_share:.0%} or more of the slices that may show lung were classified, over
{point.min_extent_mm:.0f} mm of the body or more, {point.min_slices} slices at least; where the mean probability
reaches {point.commit:.0%}; and where the guard knows exams like it. Otherwise it is `indeterminate`. Probabilities were
scaled with temperature {description.temperature:.2f}. All was chosen on {_main(description)["calibrated_on"]}.

{_guard(description.guard)}

## What it says of what it must not name

{_battery(description.battery)}

## Arithmetic

{_arithmetic(description)}

## Pictures

`figures/`: synthetic images, learning curves, ROC, reliability, confusion, abstention, and the most wrong slices (which
show patients, unnamed).

## Made by

`{description.command}` (torch {torch.__version__}, {os.cpu_count()} processors)
"""


def _guard(guard: Guard | None) -> str:
    """Whom the bundle knows, and what is guaranteed by how many."""
    silence = silent_about_all(guard)
    if guard is None or guard.limits is None or silence is not None:
        why = "" if silence is None else f": {silence[1]}"
        return f"**It gives no verdict on anybody{why}.**"
    counts = " and ".join(f"{count} {guard.knows} of {name}" for name, count in guard.patients.items())
    limits = ", ".join(f"{limit:.2f} from {name}" for name, limit in guard.limits.items())
    fewest = min(guard.patients.values())
    unseen = 1 - 0.05 ** (1 / fewest)
    others = "whatever does not say that it is one" if guard.knows == "phantoms" else "whoever lies beyond its limits"
    return f"""It knows **{guard.knows}**, and is `indeterminate` about {others}. Limits of distance: {limits}; they
come from {counts} that no network had seen.

What that guarantees: of further {guard.knows} like these, of one class, 90 % or more lie within the limits on average,
and about 95 % are to be expected (conformal prediction over a cross-validation, CV+; it takes {FEWEST_PATIENTS} of a
class). It does not guarantee that a verdict on these is right: {fewest} of them without an error would show that at
most {unseen:.1%} of the verdicts are wrong; 5 % takes 59. Nor does it say anything of exams that are strange in a way
that the features do not show."""


def _battery(battery: Mapping[str, Any] | None) -> str:
    if battery is None:
        return "It was not asked, so it gives no verdict on anybody until it has been."
    lines = [battery["sentence"], "", battery["rule"]]
    if not battery["kinds"]:
        return "\n".join(lines)
    lines += ["", "| kind | exams | named, or wrong |", "| --- | --- | --- |"]
    lines += [f"| {kind} | {each['asked']} | {each['named']} |" for kind, each in battery["kinds"].items()]
    lines += [f"| {kind} UIP and NSIP | {each['asked']} | {each['wrong']} |" for kind, each in battery["signs"].items()]
    drawn = (
        f"All but `site` are drawn (seed {battery['seed']}). They are unlike a patient in many ways, and a model that "
        "knows patients may be silent about them for these alone: only exams of the site's own say what it makes of "
        "other diseases of patients."
    )
    return "\n".join([*lines, "", drawn])


def _arithmetic(description: Description) -> str:
    if description.quantisation is None:
        return "Served in the processor's floating point; int8 was not tried."
    rule = (
        "Int8 serves when, on patients and phantoms that quantisation never saw, no verdict is another than in 32-bit "
        "arithmetic, and slice probabilities differ by 0.01 or less in the mean."
    )
    return f"{description.quantisation['sentence']}\n\n{rule}"


def _main(description: Description) -> Mapping[str, Any]:
    """The figures of the protocol that made the bundle."""
    main: Mapping[str, Any] = description.metrics[description.metrics["protocol"]]
    return main


def _classes(data: Mapping[str, Any]) -> str:
    rows = [f"| {row['name']} | {row['slices']} | {row['series']} | {row['patients']} |" for row in data["classes"]]
    return "\n".join(rows)


def _figures(metrics: Mapping[str, Any]) -> str:
    names = {"study": "by slice (the study's)", "patient": "by patient"}
    lines = ["| | " + " | ".join(names[name] for name in names if name in metrics) + " |"]
    measured = [metrics[name] for name in names if name in metrics]
    lines.append("| --- |" + " --- |" * len(measured))
    rows = {
        "split": [each["split"] for each in measured],
        "networks trained": [str(each["folds"]) for each in measured],
        "training / validation images, test slices": [
            f"{each['training_images']} / {each['validation_images']}, {each['test_slices']}" for each in measured
        ],
        "training accuracy": [percent(each["training_accuracy"]) for each in measured],
        "validation accuracy": [percent(each["validation_accuracy"]) for each in measured],
        "patients tested": [behind(each["slices"].get("patients", {})) for each in measured],
        "what that is worth": [
            worth(each["slices"], leaked=name == "study") or "-"
            for name, each in zip((name for name in names if name in metrics), measured, strict=True)
        ],
        "**test accuracy of slices**": [f"**{interval(each['slices']['accuracy'])}**" for each in measured],
        "balanced accuracy": [interval(each["slices"]["balanced_accuracy"]) for each in measured],
        "area under the ROC curve": [interval(each["slices"]["auc"], part=True) for each in measured],
        "Brier score": [interval(each["slices"]["brier"], part=True) for each in measured],
        "calibration error before / after scaling": [
            f"{each['slices']['calibration_error_before']:.3f} / {each['slices']['calibration_error']:.3f}"
            for each in measured
        ],
        "sensitivity of slices": [_by_class(each["slices"]["sensitivity"]) for each in measured],
        "exams with a verdict": [interval(each["exams"]["coverage"]) for each in measured],
        "exams right, of those": [interval(each["exams"]["accuracy_of_decided"]) for each in measured],
        "exams of no class left indeterminate": [
            interval(each["exams"]["background_indeterminate"]) for each in measured
        ],
    }
    lines.extend(f"| {name} | {' | '.join(values)} |" for name, values in rows.items())
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """Return a part of one in percent."""
    return "none" if value is None else f"{value:.1%}"


def interval(figure: Mapping[str, float | None] | None, *, part: bool = False) -> str:
    """Return a figure with its interval, in percent or, with `part`, as it is."""
    if figure is None or figure["value"] is None:
        return "none"

    def show(value: float | None) -> str:
        return "?" if value is None else f"{value:.3f}" if part else f"{value:.1%}"

    if figure["low"] is None:
        return show(figure["value"])
    return f"{show(figure['value'])} ({show(figure['low'])} to {show(figure['high'])})"


def _by_class(values: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {percent(value)}" for name, value in values.items())
