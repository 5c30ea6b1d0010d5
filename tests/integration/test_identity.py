"""Patient and accession number asked again of a real PACS before a report is made."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import requests
from pydicom import dcmread
from sqlalchemy import update

from pacs.archive import Archive
from pacs.errors import QueryError
from pacs.listener import Listener
from pacs.report.reader import read_report
from pacs.retrieval import FoundStudy, StudyQuery
from pacs.series import Patient, read_series
from tests.integration.test_retrieval import fill
from tests.integration.test_rules import Site, said
from tests.integration.test_stow import file
from tests.plant import files
from tests.servers import Orthanc, free_port
from training.phantom import PhantomExam
from worker import restart
from worker.database import Database, now
from worker.identity import AskAgainError, HeldError, IdentityCheck
from worker.sections import DeliverySettings, DicomwebSourceSettings
from worker.tables import Report, Series

Phantoms = tuple[Path, list[PhantomExam]]


@pytest.fixture
def site(tmp_path: Path, database: Database) -> Any:
    made: list[Site] = []

    def make(url: str, changed: Literal["take", "hold"] = "take") -> Site:
        made.append(
            Site(
                tmp_path / "site", database,
                sources=(DicomwebSourceSettings(name="pacs", kind="dicomweb", url=url),),
                delivery=DeliverySettings(identity_from="pacs", identity_changed=changed),
            )
        )  # fmt: skip
        return made[-1]

    yield make
    for each in made:
        each.listener.stop()


def corrected(paths: list[Path], **values: Any) -> bytes:
    """The first slice as the PACS has it after a correction."""
    dataset = dcmread(paths[0])
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return file(dataset)


def look_again(site: Site) -> None:
    with site.plant.database.write() as session:
        session.execute(update(Series).values(not_before=None, woken_at=None))
    site.plant.run()


def test_the_report_takes_what_the_pacs_has_and_says_so(site: Any, orthanc: Orthanc, phantoms: Phantoms) -> None:
    paths = files(phantoms)
    fill(orthanc, corrected(paths, PatientID="MERGED-1", PatientName="Oliveira^Inês", AccessionNumber="B77"))
    here = site(orthanc.dicomweb)
    here.plant.receive(*paths, age=60)
    here.plant.run()
    (report,) = here.reports().values()
    assert (report.PatientID, str(report.PatientName), report.AccessionNumber) == ("MERGED-1", "Oliveira^Inês", "B77")
    sentence = "Taken from the PACS, which differs from the images: PatientID, PatientName, AccessionNumber"
    assert sentence in said(report)
    assert str(dcmread(paths[0]).PatientID) not in str(report)
    assert read_report(report).patient_id == "MERGED-1"


def test_what_is_the_same_is_not_mentioned(site: Any, orthanc: Orthanc, phantoms: Phantoms) -> None:
    paths = files(phantoms)
    fill(orthanc, paths[0].read_bytes())
    here = site(orthanc.dicomweb, "hold")
    here.plant.receive(*paths, age=60)
    here.plant.run()
    (report,) = here.reports().values()
    assert not [sentence for sentence in said(report) if "differs" in sentence]
    assert report.PatientID == dcmread(paths[0]).PatientID


def test_a_held_exam_goes_out_when_it_is_settled(site: Any, orthanc: Orthanc, phantoms: Phantoms) -> None:
    paths = files(phantoms)
    fill(orthanc, corrected(paths, PatientID="SOMEBODY"))
    here = site(orthanc.dicomweb, "hold")
    here.plant.receive(*paths, age=60)
    here.plant.run()
    exam = here.plant.exam(phantoms[1][0].series_uid)
    assert (exam["state"], exam["reason_code"]) == ("classified", "identity_changed")
    assert exam["reason"].startswith("The PACS has another PatientID than the images")
    assert "SOMEBODY" not in exam["reason"]
    assert here.reports() == {}
    look_again(here)
    assert here.reports() == {}
    (patient,) = orthanc.get("/patients")
    requests.delete(f"http://127.0.0.1:{orthanc.http}/patients/{patient}", timeout=20).raise_for_status()
    fill(orthanc, paths[0].read_bytes())
    look_again(here)
    assert len(here.reports()) == 1
    settled = here.plant.exam(phantoms[1][0].series_uid)
    assert (settled["state"], settled["reason_code"]) == ("reported", None)


def test_a_report_that_waited_is_not_sent_under_a_patient_who_was_merged_meanwhile(
    site: Any, orthanc: Orthanc, phantoms: Phantoms
) -> None:
    paths = files(phantoms)
    fill(orthanc, paths[0].read_bytes())
    here = site(orthanc.dicomweb)
    here.listener.stop()
    here.plant.receive(*paths, age=60)
    here.plant.run()
    (patient,) = orthanc.get("/patients")
    requests.delete(f"http://127.0.0.1:{orthanc.http}/patients/{patient}", timeout=20).raise_for_status()
    fill(orthanc, corrected(paths, PatientID="MERGED-1"))
    port = here.plant.settings.destinations[0].port
    here.listener = Listener(Archive(here.archive), ae_title="ARCHIVE", host="127.0.0.1", port=port)
    here.listener.start()
    with here.plant.database.write() as session:
        session.execute(update(Report).values(created_at=now() - timedelta(hours=3)))
    here.plant.deliver_now()
    here.plant.run()
    exam = here.plant.exam(phantoms[1][0].series_uid)
    assert (exam["state"], exam["reason_code"]) == ("failed", "delivery_refused")
    assert "Since it was made the PACS has another PatientID" in exam["reason"]
    assert here.reports() == {}
    restart.reprocess(here.plant.database, here.plant.settings.data_dir, phantoms[1][0].series_uid, actor="ana")
    here.plant.run()
    (report,) = here.reports().values()
    assert report.PatientID == "MERGED-1"


def test_nothing_goes_out_while_the_pacs_cannot_be_asked(site: Any, orthanc: Orthanc, phantoms: Phantoms) -> None:
    here = site(f"http://127.0.0.1:{free_port()}/dicom-web")
    here.plant.receive(*files(phantoms), age=60)
    here.plant.run()
    assert here.plant.exam(phantoms[1][0].series_uid)["state"] == "classified"
    assert here.reports() == {}


def test_a_study_that_the_pacs_does_not_know_keeps_what_its_images_say(
    site: Any, orthanc: Orthanc, phantoms: Phantoms
) -> None:
    here = site(orthanc.dicomweb, "hold")
    here.plant.receive(*files(phantoms), age=60)
    here.plant.run()
    assert len(here.reports()) == 1


class Saying:
    """A PACS that says one thing."""

    name = "saying"

    def __init__(self, *studies: FoundStudy, error: str = "") -> None:
        self._studies, self._error = studies, error

    def studies(self, query: StudyQuery) -> list[FoundStudy]:
        if self._error:
            raise QueryError(self._error)
        return list(self._studies)

    def series(self, study_uid: str) -> Any:
        raise NotImplementedError

    fetch: Any = series
    read: Any = series
    check: Any = series


def test_nothing_of_the_former_patient_stays_beside_the_new_number(phantoms: Phantoms) -> None:
    header = read_series(files(phantoms)[:1]).header
    found = FoundStudy(header.study_uid, "NEW", "", "", "", "", "", "", "", ())
    taken, changed = IdentityCheck(Saying(found), "take").apply(header)
    assert taken.patient == Patient("NEW", "", "", "", "")
    assert (taken.accession_number, taken.referring_physician, taken.context) == ("", "", "{}")
    assert {"PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"} <= set(changed)
    same = replace(found, patient_id=header.patient.patient_id, sex="O")
    kept, changed = IdentityCheck(Saying(same), "take").apply(header)
    assert (kept.accession_number, kept.context, changed) == (header.accession_number, header.context, ("PatientSex",))
    with pytest.raises(HeldError):
        IdentityCheck(Saying(same), "hold").apply(header)
    # What a report cannot state is no difference, on either side.
    odd = replace(
        header,
        patient=replace(header.patient, birth_date="1950.01.02", sex="f"),
        accession_number="MUCH TOO LONG FOR ONE",
    )
    stated = replace(odd, patient=replace(odd.patient, birth_date="19500102", sex="F"), accession_number="")
    same_study = FoundStudy(
        header.study_uid,
        odd.patient.patient_id,
        "",
        odd.patient.name,
        "1950.01.02",
        "f",
        odd.accession_number,
        "",
        "",
        (),
    )
    assert IdentityCheck(Saying(same_study), "take").changes(stated) == ()
    padded = FoundStudy(
        header.study_uid, header.patient.patient_id, "", header.patient.name + "^^", "", "", "", "", "", ()
    )
    assert IdentityCheck(Saying(padded), "hold").apply(header)[1] == ()
    elsewhere = FoundStudy("1.2.3", "NEW", "", "", "", "", "", "", "", ())
    assert IdentityCheck(Saying(elsewhere), "hold").apply(header) == (header, ())
    with pytest.raises(HeldError):
        IdentityCheck(Saying(found), "hold").apply(header)
    with pytest.raises(AskAgainError, match=r"cannot be asked: It is away\."):
        IdentityCheck(Saying(error="It is away."), "take").apply(header)
