"""Where labelled slices lie: a folder a class, a table of paths, phantoms, or a list that the caller made.

A folder a class: `UIP/`, `NSIP/`, `normal/`, `other/` (`PIU/`, `PINE/`, `outros/` and the like mean the same), of DICOM
series or of PNG and JPEG slices. A table: CSV with the columns path, label, patient. Phantoms: a folder with the
`truth.json` that `reticula phantom` wrote.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.errors import DatasetError

CLASSES = ("UIP", "NSIP", "normal", "other")
_ALIASES = {
    "uip": "UIP",
    "piu": "UIP",
    "niu": "UIP",
    "nsip": "NSIP",
    "pine": "NSIP",
    "nine": "NSIP",
    "normal": "normal",
    "healthy": "normal",
    "other": "other",
    "outro": "other",
    "outros": "other",
    "otro": "other",
    "otros": "other",
    # Conditions of phantoms
    "emphysema": "other",
    "consolidation": "other",
    "nodules": "other",
}
PICTURES = frozenset({".png", ".jpg", ".jpeg"})
_COLUMNS = frozenset({"path", "label"})


@dataclass(frozen=True)
class Source:
    """Files of one class: DICOM series, or pictures. patient: whose they are, None to read it from them.

    outweighs: what it says of a slice counts, whatever other sources say of the same one.
    """

    label: str
    files: tuple[Path, ...]
    pictures: bool
    patient: str | None = None
    outweighs: bool = False


def class_name(label: str) -> str | None:
    """Return the class that a folder or a table means, None where it means none."""
    return _ALIASES.get(label.strip().lower())


def find_sources(dataset: Path) -> list[Source]:
    """List what a data set holds, with its classes. Raises DatasetError where it holds nothing."""
    if dataset.is_file():
        sources = _table(dataset)
    elif not dataset.is_dir():
        raise DatasetError(f"{dataset} does not exist: give the folder or the CSV table of the data set.")
    elif (dataset / "truth.json").is_file():
        sources = _phantoms(dataset)
    else:
        sources = _class_folders(dataset)
    if not sources:
        raise DatasetError(f"{dataset} holds no labelled slices; give a folder with UIP/ and NSIP/ in it.")
    return sources


def _phantoms(folder: Path) -> list[Source]:
    truth = folder / "truth.json"
    try:
        exams = json.loads(truth.read_text(encoding="utf-8"))
        return [
            Source(_ALIASES[exam["label"].lower()], tuple(sorted((folder / exam["folder"]).glob("*.dcm"))), False)
            for exam in exams.values()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{truth} does not name the class and folder of each series: {error!r}.") from error


def _class_folders(folder: Path) -> list[Source]:
    sources: list[Source] = []
    for child in sorted(folder.iterdir()):
        label = class_name(child.name)
        if label is None or not child.is_dir():
            continue
        for holder in (child, *sorted(path for path in child.rglob("*") if path.is_dir())):
            # Pictures that lie in the class's own folder name no patient: each folder below it is one.
            name = None if holder == child else holder.relative_to(child).parts[0]
            sources.extend(_of_folder(label, holder, name))
    return sources


def _of_folder(label: str, holder: Path, patient: str | None) -> Iterator[Source]:
    files = sorted(path for path in holder.iterdir() if path.is_file() and not path.name.startswith("."))
    pictures = tuple(path for path in files if path.suffix.lower() in PICTURES)
    others = tuple(path for path in files if path.suffix.lower() not in PICTURES)
    if pictures:
        if patient is None:
            raise DatasetError(
                f"{holder} holds pictures that no patient can be told of: put them into a folder for each patient, "
                "or write a table with the columns path, label, patient."
            )
        yield Source(label, pictures, pictures=True, patient=patient)
    if others:
        yield Source(label, others, pictures=False)


def _table(file: Path) -> list[Source]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            sample = lines.read(4096)
            lines.seek(0)
            rows = list(csv.DictReader(lines, delimiter=max(",;\t", key=sample.partition("\n")[0].count)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file} cannot be read as a table: {error}.") from error
    if not rows or not rows[0].keys() >= _COLUMNS:
        raise DatasetError(f"{file} needs a first line with the columns path, label and patient, and lines below it.")
    files: dict[tuple[str, str | None, Path, bool], list[Path]] = {}
    for number, row in enumerate(rows, start=2):
        label, patient, path = _row(file, number, row)
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.is_file() and not each.name.startswith("."))
        elif path.is_file():
            inside = [path]
        else:
            raise DatasetError(f"{file}, line {number}: {path} does not exist.")
        for each in inside:
            picture = each.suffix.lower() in PICTURES
            if picture and patient is None:
                raise DatasetError(f"{file}, line {number}: a picture needs its patient.")
            files.setdefault((label, patient, each.parent, picture), []).append(each)
    return [Source(label, tuple(each), picture, patient) for (label, patient, _folder, picture), each in files.items()]


def _row(file: Path, number: int, row: Mapping[str, str | None]) -> tuple[str, str | None, Path]:
    label, path = class_name(row["label"] or ""), (row["path"] or "").strip()
    if label is None:
        raise DatasetError(f"{file}, line {number}: {row['label']!r} is no class; known are {', '.join(CLASSES)}.")
    if not path:
        raise DatasetError(f"{file}, line {number}: the path is empty.")
    return label, (row.get("patient") or "").strip() or None, file.parent / path
