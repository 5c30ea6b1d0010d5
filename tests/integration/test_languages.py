"""What a reader sees on the command line, in each language."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.codes import LANGUAGES, Language, short_name
from tests.installation import Installation, send
from tests.plant import files
from training.phantom import PhantomExam
from worker.commands import wording
from worker.states import DeliveryState, State

Phantoms = tuple[Path, list[PhantomExam]]


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, phantoms: Phantoms, dcmtk: dict[str, str]
) -> Iterator[Installation]:
    """An installation that has classified one exam and rejected another."""
    made = Installation(tmp_path_factory.mktemp("languages"))
    made.prepare()
    made.start("up")
    few = tmp_path_factory.mktemp("few")
    for path in files(phantoms, 1)[:3]:
        (few / path.name).write_bytes(path.read_bytes())
    send(dcmtk["storescu"], made.port, files(phantoms, 0)[0].parent, few)
    for exam, states in zip(phantoms[1], (("classified",), ("rejected",)), strict=False):
        made.wait_for_state(exam.series_uid, *states)
    yield made
    made.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_exams_are_listed_and_shown_in_the_readers_language(installation: Installation, language: Language) -> None:
    installation.environment["RETICULA_LANGUAGE"] = language
    rows = {row["state"]: row for row in installation.json("exams", "list")}
    listed = installation.run("exams", "list").stdout
    for state in rows:
        assert wording.value(state, language) in listed
    reason = {
        "en": "too_few_slices",
        "pt-BR": "A série tem poucos cortes",
        "es": "La serie tiene pocos cortes",
    }[language]
    assert reason in listed
    assert short_name(rows["classified"]["verdict"], language) in listed
    shown = installation.run("exams", "show", rows["classified"]["series_uid"]).stdout
    for key in ("received_at", "model", "completeness", "position_mm"):
        assert wording.name(key, language) in shown
    assert wording.sentence("key_slice", language, rank=1) in shown
    if language != "en":
        for english in ("received", "classified slices", "key slice", "position"):
            assert english not in shown


def test_no_sentence_is_missing(installation: Installation) -> None:
    (row, *_) = installation.json("exams", "list")
    shown = installation.json("exams", "show", row["series_uid"])
    named = set(shown) - {"slices", "deliveries"}
    for language in LANGUAGES:
        for table in (wording._NAMES, wording._VALUES, wording._SENTENCES):
            assert all(said.strip() for known in table.values() for said in known)
        assert not [key for key in named if key not in wording._NAMES], language
        assert not [state for state in (*State, *DeliveryState) if state not in wording._VALUES]


def test_the_list_can_be_shortened(installation: Installation) -> None:
    everything = installation.json("exams", "list")
    assert installation.json("exams", "list", "--newest", "1") == everything[:1]
    beyond = installation.run("exams", "list", "--newest", "9" * 20, check=False)
    assert beyond.returncode == 2
    assert "1000000" in beyond.stderr
    rejected = installation.json("exams", "list", "--state", "rejected")
    assert rejected == [row for row in everything if row["state"] == "rejected"] != []
    wrong = installation.run("exams", "list", "--state", "lost", check=False)
    assert wrong.returncode == 2
    assert "rejected" in wrong.stderr
