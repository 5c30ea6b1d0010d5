"""Where labelled slices lie: a folder a class, a table of paths, phantoms, or a list that the caller made.

A folder a class: `UIP/`, `NSIP/`, `normal/`, `other/` (`PIU/`, `PINE/`, `outros/` and the like mean the same), of DICOM
series or of slices as pictures (PNG, JPEG, BMP, TIFF). A table: CSV with the columns path, label, patient. Phantoms: a
folder with the `truth.json` that `reticula phantom` wrote. What lies there and is not read, `training.overlooked` says.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
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
        sources = [
            Source(_ALIASES[exam["label"].lower()], tuple(sorted((folder / exam["folder"]).glob("*.dcm"))), False)
            for exam in exams.values()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{truth} does not name the class and folder of each series: {error!r}.") from error
    for source, exam in zip(sources, exams.values(), strict=True):
        if not source.files:
            raise DatasetError(f"{truth} names the folder {exam['folder']}, in which there is no DICOM file.")
    return sources


def _class_folders(folder: Path) -> list[Source]:
    sources: list[Source] = []
    for child in sorted(folder.iterdir()):
        label = class_name(child.name)
        if label is None or not child.is_dir():
            continue
        for holder in (child, *folders_below(child)):
            within = holder.relative_to(child).parts
            for name in within:
                if class_name(name) not in {None, label}:
                    raise DatasetError(
                        f"{holder} has the name of one class and lies in the folder of another, {child.name}: nobody "
                        "knows which is meant. Move or rename it."
                    )
            # Pictures that lie in the class's own folder name no patient: each folder below it is one.
            sources.extend(_of_folder(label, holder, within[0] if within else None))
    return sources


def folders_below(folder: Path) -> list[Path]:
    """Return all folders below one, but for hidden ones and what they hold."""
    below = (path for path in folder.rglob("*") if path.is_dir())
    return sorted(path for path in below if not hidden(path, folder))


def hidden(path: Path, folder: Path) -> bool:
    """Whether a path is hidden, or lies in a hidden folder below `folder`, as copies that programs keep do."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


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
            inside = sorted(each for each in path.rglob("*") if each.is_file() and not hidden(each, path))
            if not inside:
                raise DatasetError(f"{file}, line {number}: {path} holds no file.")
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


def _row(file: Path, number: int, row: Mapping[str | None, Any]) -> tuple[str, str | None, Path]:
    if None in row:  # the reader keeps there what has no column
        raise DatasetError(
            f"{file}, line {number} has more columns than the first line: a path with a separator in it needs quotes."
        )
    label, path = class_name(row["label"] or ""), (row["path"] or "").strip()
    if label is None:
        raise DatasetError(f"{file}, line {number}: {row['label']!r} is no class; known are {', '.join(CLASSES)}.")
    if not path:
        raise DatasetError(f"{file}, line {number}: the path is empty.")
    return label, (row.get("patient") or "").strip() or None, file.parent / path
