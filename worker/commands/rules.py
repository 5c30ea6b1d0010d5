"""`reticula rules`: what the rules of the settings say of exams."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pacs.errors import Rejected
from pacs.facts import SeriesFacts, read_facts
from pacs.head import read_head
from pacs.selection import select
from pacs.series import group_by_series, read_series
from worker import console
from worker.application import Application
from worker.commands.context import application
from worker.errors import WorkerError
from worker.exams import NOT_PREFERRED
from worker.rules import Scope, Standing

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The rules about which exams are taken.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass
class _Judged:
    """A series of the files, and what becomes of it."""

    study_uid: str
    series_uid: str
    facts: SeriesFacts
    scope: Scope
    standing: Standing
    rejected: tuple[str, str] | None


@app.command("list")
def list_rules(as_json: AsJson = False) -> None:
    """List the rules in the order in which they are asked.

    Example: reticula rules list
    """
    rows = [rule.model_dump(mode="json", exclude_defaults=True) for rule in application().settings.rules]
    if as_json:
        console.say_json(rows)
        return
    table = Table("rule", "does", "where")
    for row in rows:
        where = "; ".join(f"{key} {value}" for key, value in row.items() if key not in ("name", "does"))
        table.add_row(row["name"], row["does"], where)
    console.out.print(table)


@app.command("test")
def judge(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.", exists=True)],
    as_json: AsJson = False,
) -> None:
    """Say of each series what would become of it, and which rule decides. Nothing is stored or sent.

    Example: reticula rules test /srv/exams/today
    """
    found = [each for path in paths for each in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    groups, unreadable = group_by_series(path for path in found if path.is_file())
    if not groups:
        raise WorkerError("There is no DICOM series in these files.")
    judged = [_judge(application(), group) for group in groups]
    _prefer(application(), judged)
    rows = list(_rows(judged))
    if as_json:
        console.say_json(rows)
    else:
        table = Table("series", "description", "taken", "decided by", "ahead by")
        for row in rows:
            reason = row["reason"] or (f"rule {row['rule']}" if row["rule"] else "no rule about scope")
            cells = row["series_uid"], row["description"] or "", "yes" if row["taken"] else "no", reason
            table.add_row(*cells, row["urgent_by"] or "")
        console.out.print(table)
    if unreadable:
        console.err.print(f"{len(unreadable)} files are no DICOM instances of a series.", markup=False)


def _judge(application: Application, group: tuple[Path, ...]) -> _Judged:
    dataset = read_head(group[0])
    facts = read_facts(dataset, len(group))
    scope, rejected = application.rules.scope(facts), None
    try:
        select(read_series(group), min_slices=application.settings.selection.min_slices)
    except Rejected as error:
        rejected = error.code, str(error)
    series_uid = str(dataset.SeriesInstanceUID)
    standing = application.preference.standing(
        series_uid, kernel=facts.kernel, description=facts.description, thickness=facts.thickness, slices=facts.slices
    )
    return _Judged(str(dataset.StudyInstanceUID), series_uid, facts, scope, standing, scope.rejected or rejected)


def _prefer(application: Application, judged: list[_Judged]) -> None:
    """Set aside those for which another series of their study speaks."""
    if not application.preference.keep_others:
        return
    for study in {each.study_uid for each in judged}:
        running = [each for each in judged if each.study_uid == study and each.rejected is None]
        best = min(running, key=lambda each: each.standing, default=None)
        for each in running:
            if best is not None and each is not best:
                each.rejected = NOT_PREFERRED, application.preference.sentence(best.series_uid, best.standing)


def _rows(judged: list[_Judged]) -> Iterator[dict[str, Any]]:
    for each in sorted(judged, key=lambda one: (one.study_uid, one.standing)):
        code, sentence = each.rejected or (None, None)
        yield {
            "study_uid": each.study_uid,
            "series_uid": each.series_uid,
            "description": each.facts.description or None,
            "kernel": each.facts.kernel or None,
            "thickness_mm": each.facts.thickness,
            "slices": each.facts.slices,
            "taken": each.rejected is None,
            "rule": each.scope.confirmed_by,
            "reason_code": code,
            "reason": sentence,
            "urgent_by": each.scope.urgent_by,
        }
