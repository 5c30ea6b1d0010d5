"""`reticula models compare`: where two versions differ over exams that both have classified."""

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from worker import console, model_comparison
from worker.commands.context import application
from worker.errors import WorkerError
from worker.model_comparison import NOTHING, Statement


def compare(
    first: Annotated[str, typer.Argument(help="Name, 'name version', or the start of the checksum.")],
    second: Annotated[str, typer.Argument(help="The other one, as a challenger for instance.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where two versions differ, over exams that both have classified, live or in shadow.

    Example: reticula models compare 'uip-nsip 1' 'uip-nsip 1+run-3'
    """
    registry = application().registry
    with application().database.read() as session:
        one, two = registry.find(session, first), registry.find(session, second)
        if one.id == two.id:
            raise WorkerError(f"{first} and {second} are the same version: name two.")
        found = model_comparison.pairs(session, one, two)
    result = model_comparison.as_json(found, one, two)
    if as_json:
        console.say_json(result)
        return
    names = str(result["first"]), str(result["second"])
    console.say(f"{result['exams']} exams were classified by both; the verdicts differ in {result['differ']}.")
    if not found:
        return
    table = Table(*map(escape, names), "exams")
    for row in result["verdicts"]:
        table.add_row(row["first"], row["second"], str(row["exams"]))
    console.out.print(table)
    for title, key in (("class", "by_class"), ("scanner", "by_scanner"), ("month", "by_month")):
        _groups(title, result[key])
    differing = Table("series", "class", *map(escape, names))
    for pair in found:
        if pair.differ:
            differing.add_row(pair.series_uid, escape(pair.kind), _said(pair.first), _said(pair.second))
    if differing.row_count:
        console.out.print(differing)


def _groups(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title, "exams", "differ")
    for row in rows:
        table.add_row(escape(row["group"]), str(row["exams"]), str(row["differ"]))
    console.out.print(table)


def _said(statement: Statement) -> str:
    """Return a verdict with its probability, and an abstention with its reason: it is certain of nothing."""
    probabilities = statement.probabilities or {}
    if statement.verdict in probabilities:
        return f"{statement.verdict} {probabilities[statement.verdict]:.2f}"
    return f"{statement.verdict} ({statement.reason_code})" if statement.verdict != NOTHING else NOTHING
