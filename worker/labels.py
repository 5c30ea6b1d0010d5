"""What radiologists say that exams show. The latest word counts; earlier ones stay."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from training.sources import CLASSES, class_name
from worker import audit
from worker.database import Database, now
from worker.errors import WorkerError
from worker.tables import Label, Series

_COLUMNS = frozenset({"series_uid", "label"})


@dataclass(frozen=True)
class GivenLabel:
    """A label for a series, and where it was given: the line of a table, for messages."""

    series_uid: str
    label: str
    origin: str = ""


def store(database: Database, given: Sequence[GivenLabel], *, author: str) -> int:
    """Store labels, all or none; return how many. Raises WorkerError for an unknown class or series."""
    with database.write() as session:
        known = set(session.scalars(select(Series.series_uid).distinct()))
        for each in given:
            label = class_name(each.label)
            if label is None:
                known_classes = ", ".join(CLASSES)
                raise WorkerError(f"{each.origin}{each.label!r} is none of {known_classes}. Nothing was stored.")
            if each.series_uid not in known:
                raise WorkerError(f"{each.origin}There is no series {each.series_uid}. Nothing was stored.")
            session.add(Label(series_uid=each.series_uid, label=label, author=author[:128], created_at=now()))
            audit.record(session, "series labelled", each.series_uid, actor=author, label=label)
    return len(given)


def read_table(file: Path) -> list[GivenLabel]:
    """Read labels from a CSV table with the columns series_uid and label. Raises WorkerError."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            first = lines.readline()
            lines.seek(0)
            rows = list(csv.DictReader(lines, delimiter=max(",;\t", key=first.count)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WorkerError(f"{file} cannot be read as a table: {error}.") from error
    if not rows or not rows[0].keys() >= _COLUMNS:
        raise WorkerError(f"{file} needs a first line with the columns series_uid and label, and lines below it.")
    return [
        GivenLabel((row["series_uid"] or "").strip(), (row["label"] or "").strip(), f"{file}, line {number}: ")
        for number, row in enumerate(rows, start=2)
    ]


def current(session: Session) -> dict[str, str]:
    """Return the label of each series that has one."""
    return {row.series_uid: row.label for row in session.scalars(select(Label).order_by(Label.id))}
