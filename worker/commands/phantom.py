"""`reticula phantom`: chest CT with a known disease."""

from pathlib import Path
from typing import Annotated

import typer

from worker import console


def phantom(
    folder: Annotated[Path, typer.Argument(help="Where to write the exams and truth.json.")],
    seed: Annotated[int, typer.Option(help="The same seed writes the same exams.", min=0)] = 1,
    exams: Annotated[int, typer.Option(help="How many exams, as many of each condition.", min=1)] = 2,
    slices: Annotated[int | None, typer.Option(help="Slices of each exam (default: as scanned).", min=3)] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="UIP, NSIP, normal, emphysema, consolidation, nodules; given twice, twice as many."),
    ] = None,
    total: Annotated[
        list[str] | None,
        typer.Option(help="Slices of a condition over all its exams, as NSIP=813; all show lung enough."),
    ] = None,
) -> None:
    """Write phantom chest CT exams with a UIP-like or an NSIP-like disease, another one, or none.

    Example: reticula phantom /tmp/study --seed 7 --exams 8 --total NSIP=813 --total UIP=333
    """
    from training.phantom import CONDITIONS, DISEASES, write_phantoms

    totals = _totals(total or [])
    conditions = tuple(condition or totals or DISEASES)
    for name in conditions:
        if name not in CONDITIONS:
            raise typer.BadParameter(f"{name!r} is no condition: it must be one of {', '.join(CONDITIONS)}.")
    if totals and (slices is not None or set(totals) != set(conditions)):
        raise typer.BadParameter("--total says how many slices there are, of each --condition that is given.")
    if totals and any(count < exams for count in totals.values()):
        raise typer.BadParameter(f"{exams} exams need a --total of {exams} slices or more of each condition.")
    if totals and exams < len(conditions):
        raise typer.BadParameter(f"{exams} exams are too few for {len(conditions)} conditions.")
    with console.progress() as bars:
        task = bars.add_task("Exams", total=exams)
        write_phantoms(
            folder,
            seed=seed,
            exams=exams,
            slices=slices,
            conditions=conditions,
            totals=totals or None,
            progress=lambda done: bars.update(task, completed=done),
        )
    console.say(f"{exams} exams and their truth.json lie in {folder}.")


def _totals(given: list[str]) -> dict[str, int]:
    totals = {}
    for each in given:
        name, _, count = each.partition("=")
        if not count.isdecimal() or not int(count):
            raise typer.BadParameter(f"--total is {each!r}: it must read like NSIP=813.")
        totals[name] = int(count)
    return totals
