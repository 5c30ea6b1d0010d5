"""The spool: nothing half written, nothing overwritten."""

import errno
import os
import time
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import ComprehensiveSRStorage

from pacs.spool import OnConflict, ReceivedInstance, Spool, Stored
from tests.datasets import SERIES, STUDY, ct


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.prepare()
    return made


def received(number: int = 1, sender: str = "CT1", sop_class: str | None = None, **values: Any) -> ReceivedInstance:
    dataset = ct(number, **values)
    dataset.file_meta.SourceApplicationEntityTitle = sender
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return ReceivedInstance(sop_class or dataset.SOPClassUID, dataset.SOPInstanceUID, STUDY, SERIES, buffer.getvalue())


def files(spool: Spool) -> list[str]:
    """What is kept, without the marks of arrivals."""
    found = (path.relative_to(spool.root) for path in spool.root.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != "arrivals")


def age_marks(spool: Spool, seconds: float = 3600) -> None:
    for mark in (spool.root / "arrivals").iterdir():
        os.utime(mark, (time.time() - seconds, time.time() - seconds))


def test_a_series_is_an_arrival_until_it_is_settled(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.store(received())
    (arrival,) = spool.arrivals()
    assert arrival == next(spool.series())
    spool.settle(arrival)
    assert list(spool.arrivals()) == [arrival], "an instance of it may be on its way to its name"
    age_marks(spool)
    spool.settle(arrival)
    assert list(spool.arrivals()) == []
    spool.store(received(2))
    assert [each.folder for each in spool.arrivals()] == [arrival.folder]
    # Another one comes in the very moment in which the mark is removed.
    age_marks(spool)
    rename = Path.rename

    def interrupted(mark: Path, target: Path) -> Path:
        mark.touch()
        return rename(mark, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    spool.settle(arrival)
    assert len(list(spool.arrivals())) == 1
    assert list((spool.root / "incoming").iterdir()) == []


def test_a_process_that_dies_before_the_name_has_announced_the_series(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.store(received())
    age_marks(spool)
    spool.settle(next(spool.arrivals()))
    link = Path.hardlink_to

    def dies(path: Path, target: Path) -> None:
        link(path, target)
        raise SystemExit

    monkeypatch.setattr(Path, "hardlink_to", dies)
    with pytest.raises(SystemExit):
        spool.store(received(2))
    (arrival,) = spool.arrivals()
    assert len(spool.instances(arrival.folder)) == 2


def test_what_was_announced_and_never_came_is_forgotten(spool: Spool) -> None:
    (spool.root / "arrivals" / f"{STUDY}~{SERIES}").touch()
    assert list(spool.arrivals()) == []
    assert len(list((spool.root / "arrivals").iterdir())) == 1
    age_marks(spool)
    assert list(spool.arrivals()) == []
    assert list((spool.root / "arrivals").iterdir()) == []


def test_an_instance_lies_under_study_and_series(spool: Spool) -> None:
    instance = received()
    assert spool.store(instance) is Stored.NEW
    assert files(spool) == [f"series/{STUDY}/{SERIES}/{SERIES}.1.dcm"]
    (series,) = spool.series()
    (found,) = spool.instances(series.folder)
    assert (series.study_uid, series.series_uid, found.sop_uid) == (STUDY, SERIES, f"{SERIES}.1")
    assert found.path.read_bytes() == instance.content
    assert abs((datetime.now(UTC) - found.arrived).total_seconds()) < 60


def test_the_same_instance_from_another_sender_changes_nothing(spool: Spool) -> None:
    first = received(sender="CT1")
    spool.store(first)
    assert spool.store(received(sender="ANOTHER PACS")) is Stored.DUPLICATE
    assert files(spool) == [f"series/{STUDY}/{SERIES}/{SERIES}.1.dcm"]
    assert (spool.root / files(spool)[0]).read_bytes() == first.content


def test_the_same_uid_with_other_content_is_kept_aside(spool: Spool) -> None:
    first = received()
    spool.store(first)
    assert spool.store(received(PatientID="P2")) is Stored.CONFLICT
    aside, kept = files(spool)
    assert f"/{SERIES}.1~" in aside
    assert (spool.root / kept).read_bytes() == first.content
    assert dcmread(spool.root / aside).PatientID == "P2"
    assert spool.store(received(PatientID="P2")) is Stored.CONFLICT
    assert len(files(spool)) == 2, "the same conflict is kept once"


def test_the_same_uid_with_other_content_is_refused_where_that_is_the_rule(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", on_conflict=OnConflict.REFUSE)
    spool.prepare()
    first = received()
    assert spool.store(first) is Stored.NEW
    assert spool.store(received(PatientID="P2")) is Stored.REFUSED
    assert spool.store(received(sender="CT2")) is Stored.DUPLICATE
    (kept,) = files(spool)
    assert (spool.root / kept).read_bytes() == first.content


def test_the_same_uid_with_other_content_lies_beside_the_first_for_a_revision(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", on_conflict=OnConflict.REVISE)
    spool.prepare()
    first, second = received(), received(PatientComments="corrected")
    assert [spool.store(each) for each in (first, second, second)] == [Stored.NEW, Stored.REVISED, Stored.DUPLICATE]
    (series,) = spool.series()
    found = spool.instances(series.folder)
    assert [each.sop_uid for each in found] == [first.sop_uid] * 2
    assert {each.path.read_bytes() for each in found} == {first.content, second.content}


def test_other_classes_are_laid_aside_and_expire(spool: Spool) -> None:
    assert spool.store(received(sop_class=ComprehensiveSRStorage)) is Stored.ASIDE
    assert list(spool.series()) == []
    today = datetime.now(UTC).date()
    assert spool.expire_aside(14, today) == 0
    assert len(files(spool)) == 1
    assert spool.expire_aside(14, today.replace(year=today.year + 1)) == 1
    assert files(spool) == []


def test_a_full_disk_leaves_no_half_file(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        spool.store(received())
    assert files(spool) == []


def test_data_and_folders_are_synced_before_success(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(spool.root)).split("/")[0])
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    spool.store(received())
    # The content first, then each new folder in its parent, the name of the file last.
    assert synced == ["incoming", "series", "series", "series"]


def test_what_a_dead_process_left_is_removed_at_start(spool: Spool) -> None:
    old, fresh = spool.root / "incoming" / "old", spool.root / "incoming" / "fresh"
    old.write_bytes(b"half")
    fresh.write_bytes(b"being written by another listener")
    os.utime(old, (1, 1))
    spool.prepare()
    assert files(spool) == ["incoming/fresh"]
