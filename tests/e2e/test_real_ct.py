"""The main job on real chest CT: DCMTK's storescu in, reports at Orthanc, checked by tools that are not ours."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs.report.reader import read_report
from tests.installation import Installation, send
from tests.report_checks import check_with_tools
from tests.servers import Orthanc, Postgres, Redis

CODES = {"UIP": "RID5333", "NSIP": "RID5341", "indeterminate": "82334004"}


def _settings(orthanc: Orthanc, protocols: list[str], scalars: str) -> str:
    # Two of the series are reconstructions of one study.
    tables = 'language = "pt-BR"\n' + scalars + '\n[selection]\nothers = "classify"\n'
    for protocol in protocols:
        if protocol == "dimse":
            where = f'host = "127.0.0.1"\nport = {orthanc.port}\nae_title = "ORTHANC"'
        else:
            where = f'url = "{orthanc.dicomweb}"'
        tables += f'\n[[destinations]]\nname = "pacs-{protocol}"\nkind = "{protocol}"\n{where}\n'
    return tables


@pytest.fixture(params=["dimse+dicomweb, server", "dimse+dicomweb, embedded"])
def installation(request: pytest.FixtureRequest, tmp_path: Path, orthanc: Orthanc) -> Iterator[Installation]:
    protocols, kind = request.param.split(", ")
    scalars = ""
    if kind == "server":
        postgres: Postgres = request.getfixturevalue("postgres")
        redis: Redis = request.getfixturevalue("redis")
        scalars = f'database_url = "{postgres.new_database()}"\nbroker_url = "{redis.url}"\n'
    running = Installation(tmp_path / "installation", _settings(orthanc, protocols.split("+"), scalars))
    running.prepare()
    yield running
    running.close()


def test_four_real_series_come_back_as_reports(
    installation: Installation, orthanc: Orthanc, real_ct: Path, dcmtk: dict[str, str]
) -> None:
    up = installation.start("up")
    assert "FAIL" not in installation.run("check").stdout
    sources = {}
    for folder in sorted(path for path in real_ct.iterdir() if path.is_dir()):
        sent = send(dcmtk["storescu"], installation.port, folder)
        assert sent.returncode == 0, sent.stderr
        files = sorted(folder.glob("*.dcm"))
        sources[str(dcmread(files[0]).SeriesInstanceUID)] = files
    assert len(sources) == 4

    for series_uid in sources:
        installation.wait_for_state(series_uid, "reported")
    for series_uid, files in sources.items():
        exam = installation.json("exams", "show", series_uid)
        _check_exam(exam, files)
        report, path = _report_at(orthanc, exam, installation.folder)
        _check_report(report, exam)
        check_with_tools(path, files)
    assert installation.stop(up) == 0


def _check_exam(exam: dict[str, Any], files: list[Path]) -> None:
    assert exam["slice_count"] == len(files)
    assert exam["completeness"] == "quiet_period"
    assert exam["model"] == "demo 2.2"
    assert abs(sum(exam["probabilities"].values()) - 1) < 1e-3
    assert exam["slices_classified"] == sum(image["classified"] for image in exam["slices"])
    assert exam["slices_classified"] >= 15
    assert {delivery["state"] for delivery in exam["deliveries"]} == {"delivered"}
    assert len({delivery["sop_uid"] for delivery in exam["deliveries"]}) == 1


def _report_at(orthanc: Orthanc, exam: dict[str, Any], folder: Path) -> tuple[Dataset, Path]:
    """Find the report by QIDO-RS in the study of its CT, exactly once."""
    found = orthanc.get(f"/dicom-web/studies/{exam['study_uid']}/instances", Modality="SR")
    delivered = exam["deliveries"][0]["sop_uid"]
    uids = [item["00080018"]["Value"][0] for item in found]
    assert uids.count(delivered) == 1
    key = orthanc.get("/instances")
    matching = [one for one in key if orthanc.get(f"/instances/{one}/simplified-tags")["SOPInstanceUID"] == delivered]
    assert len(matching) == 1
    content = orthanc.content(f"/instances/{matching[0]}/file")
    path = folder / f"{delivered}.dcm"
    path.write_bytes(content)
    return dcmread(io.BytesIO(content)), path


def _check_report(report: Dataset, exam: dict[str, Any]) -> None:
    read = read_report(report)
    assert report.SOPClassUID == exam["deliveries"][0]["sop_class"]
    assert report.StudyInstanceUID == exam["study_uid"]
    assert report.PatientID == exam["patient_id"]
    assert read.impression[0] == CODES[exam["verdict"]]
    if exam["certainty"] is None:
        assert (read.certainty, read.probabilities) == (None, {})
        assert read.reason_code
    else:
        stated = {name: pytest.approx(value, abs=1.1e-4) for name, value in exam["probabilities"].items()}
        assert read.certainty == pytest.approx(exam["certainty"], abs=1.1e-4)
        assert read.probabilities == stated
    assert read.series_uids == {exam["series_uid"]}
    assert read.sop_uids == {image["sop_uid"] for image in exam["slices"] if image["classified"]}


def test_listener_takes_instances_while_database_and_broker_are_away(
    tmp_path: Path, phantoms: tuple[Path, list[Any]], dcmtk: dict[str, str]
) -> None:
    folder, exams = phantoms
    away = 'database_url = "postgresql+psycopg://nobody@127.0.0.1:9/none"\nbroker_url = "redis://127.0.0.1:9/0"\n'
    installation = Installation(tmp_path / "installation", away)
    try:
        installation.start("listen")
        sweep = installation.start("sweep")
        assert send(dcmtk["storescu"], installation.port, folder / exams[0].folder).returncode == 0
        stored = list((installation.data / "spool" / "series").rglob("*.dcm"))
        assert len(stored) == exams[0].slices
        assert sweep.poll() is None
        done = installation.run("check", check=False)
        assert done.returncode == 1
        assert "FAIL  database" in done.stdout
        assert "FAIL  broker" in done.stdout
    finally:
        installation.close()
