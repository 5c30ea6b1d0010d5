"""The Conformance Statement says what the running services do."""

import re
from pathlib import Path

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, build_context
from typer.testing import CliRunner

from pacs.commitment import PUSH_MODEL
from pacs.listener import Listener
from pacs.report import SR_CLASSES
from pacs.series import CT_CLASSES
from pacs.spool import Spool
from tests.conftest import CHECKOUT
from worker.conformance import statement
from worker.main import app
from worker.sections import DimseSettings, DimseSourceSettings, HttpSettings, ListenerSettings, PeerSettings
from worker.settings import Settings


def rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the table that follows a text."""
    part = page[page.index(heading) :]
    table = part[part.index("| --- |") :].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def accepted(port: int, sop_class: str, *syntaxes: str) -> set[str]:
    """The transfer syntaxes that a listener takes of a class, each proposed in a context of its own."""
    entity = AE("TESTER")
    contexts = [build_context(sop_class, syntax) for syntax in syntaxes]
    association = entity.associate("127.0.0.1", port, contexts, ae_title="RETICULA")
    if not association.is_established:
        return set()
    association.release()
    return {str(context.transfer_syntax[0]) for context in association.accepted_contexts}


def test_what_the_statement_names_is_what_the_listener_takes(tmp_path: Path) -> None:
    page = statement(Settings(data_dir=tmp_path))
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    listener = Listener(spool, ae_title="RETICULA", host="127.0.0.1", port=0)
    listener.start()
    try:
        stated = {uid for _name, uid in rows(page, "Transfer syntaxes of CT")}
        for sop_class in CT_CLASSES:
            assert accepted(listener.port, str(sop_class), *map(str, ALL_TRANSFER_SYNTAXES)) == stated
        for _name, uid, _scu, scp in rows(page, "## 1 Overview"):
            # Commitment is offered by the installation's listener; the others are in one row.
            if uid[0] == "1" and uid != PUSH_MODEL:
                assert bool(accepted(listener.port, uid, ImplicitVRLittleEndian)) == (scp != "no"), uid
    finally:
        listener.stop()


def test_the_settings_of_an_installation_stand_in_its_statement(tmp_path: Path) -> None:
    page = statement(
        Settings(
            data_dir=tmp_path,
            listener=ListenerSettings(ae_title="UIPNSIP", host="192.0.2.1", port=1104),
            http=HttpSettings(enabled=True, port=8099),
            peers=(PeerSettings(ae_title="PACS", address="192.0.2.7"),),  # type: ignore[arg-type]
            destinations=(
                DimseSettings(name="main", kind="dimse", host="pacs", port=104, ae_title="PACS", objects=("summary",)),
            ),
            sources=(
                DimseSourceSettings(
                    name="old", kind="dimse", host="archive", port=105, ae_title="OLD", retrieve="move"
                ),
            ),
        )
    )  # fmt: skip
    for said in ("UIPNSIP", "192.0.2.1:1104", "PACS from 192.0.2.7", "STOW-RS is served", ":8099/", "sr, summary"):
        assert said in page, said
    assert ["main", "dimse", "pacs:104 PACS", "sr, summary"] in rows(page, "### 2.2")
    assert "archive:105 OLD, C-MOVE" in page
    codes = {(row[0], row[1]) for row in rows(page, "## 8 Codes")}
    assert {("RID5333", "RADLEX"), ("111023", "DCM"), ("not_confirmed", "99RETICULA")} <= codes
    assert all(UID(uid).name in page for uid in SR_CLASSES)
    assert not re.search(r"\bNone\b(?!\.)", page)


def test_the_statement_in_the_documents_is_that_of_the_code(tmp_path: Path) -> None:
    written = (CHECKOUT / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert written == statement(Settings(data_dir=tmp_path)), "run: reticula conformance > docs/conformance.md"
    assert CliRunner().invoke(app, ["conformance"]).exit_code == 0
