"""The battery, and bundles that come without its answers."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import NORMAL, UIP, Bundle, open_bundle, seal_bundle
from models.classifier import Classifier
from models.guard import Guard
from models.preprocessing import Preprocessing
from tests.bundles import PASSED, make_bundle
from training.battery import KINDS, SITE, Battery, Count, ask, is_current
from training.phantom import CONDITIONS
from training.phantom.strange import STRANGE
from training.unknowns import ALTERATIONS, Drawing, altered, draw_all
from worker.database import Database
from worker.errors import WorkerError
from worker.registry import Questions, Registry, demo_bundle, may_serve

EVERYTHING = Guard("patients", {"UIP": 40, "NSIP": 40}, {"UIP": 1e9, "NSIP": 1e9})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of few patients."""
    return make_bundle(tmp_path_factory.mktemp("tiny") / "bundle", answers=False)


def changed(bundle: Bundle, **values: Any) -> Bundle:
    return seal_bundle(bundle.folder, replace(bundle.description, **values))


def copied(bundle: Bundle, folder: Path) -> Bundle:
    shutil.copytree(bundle.folder, folder / "copy")
    return open_bundle(folder / "copy")


def counts(each: int, **wrong: int) -> dict[str, Count]:
    return {kind: Count(each, wrong.get(kind, 0)) for kind in KINDS}


def signs(each: int = 60, wrong: int = 0) -> dict[str, Count]:
    return {name: Count(each, wrong) for name in ALTERATIONS}


def test_the_bound_is_the_one_of_the_rule() -> None:
    assert Count(59, 0).upper_bound == pytest.approx(0.0495, abs=1e-4)
    assert Count(58, 0).upper_bound > 0.05
    assert Count(93, 1).upper_bound < 0.0501
    assert Count(0, 0).upper_bound == Count(5, 5).upper_bound == 1.0


def test_what_passes_and_what_does_not() -> None:
    assert Battery(1, counts(30), signs()).passed
    assert Battery(1, counts(30, normal=3), signs()).passed
    one_kind = Battery(1, counts(30, noise=4), signs())
    assert not one_kind.passed
    assert "4 of 30 noise named" in one_kind.sentence
    # Two of each kind are few of each and many of all.
    assert not Battery(1, counts(30, **dict.fromkeys(KINDS, 2)), signs()).passed
    assert not Battery(1, counts(29), signs()).passed
    assert not Battery(1, counts(30), signs(60, 7)).passed
    site = {**counts(30), SITE: Count(5, 1)}
    assert not Battery(1, site, signs()).passed
    assert Battery(1, {**counts(30), SITE: Count(5, 0)}, signs()).passed
    nobody = Battery(1, {**counts(30), SITE: Count(0, 0)}, signs())
    assert not nobody.passed
    assert "Too few were asked: site" in nobody.sentence


def test_a_large_folder_of_the_site_does_not_buy_a_pass() -> None:
    failed = counts(30, **dict.fromkeys(KINDS, 3))
    assert not Battery(1, failed, signs()).passed
    diluted = Battery(1, {**failed, SITE: Count(600, 0)}, signs())
    assert not diluted.passed
    assert (diluted.as_json()["asked"], diluted.as_json()["named"]) == (30 * len(KINDS), 3 * len(KINDS))
    assert "Of the site's own 0 of 600" in diluted.sentence


def test_two_kinds_and_more_can_be_learned_by_nobody() -> None:
    assert len(STRANGE) >= 2
    assert not set(STRANGE) & set(CONDITIONS)
    assert set(STRANGE) < set(KINDS)


def test_phantoms_of_a_battery_are_the_same_by_seed_and_show_lung_where_they_have_some() -> None:
    drawings = [Drawing(kind, 5, 1) for kind in ("noise", "checkerboard", "body")]
    first, again = (list(draw_all(drawings, Preprocessing(size=64))) for _ in range(2))
    assert [len(images) for images in first[:2]] == [8, 8]
    for one, other in zip(first, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    for alteration in ALTERATIONS:
        turned = altered(first[0], alteration, np.random.default_rng(0))
        assert [image.shape for image in turned] == [(64, 64)] * 8
        assert all(image.dtype == np.int16 for image in turned)
        assert not np.array_equal(turned[3], first[0][3])


def test_a_model_that_names_everything_fails_and_one_that_knows_nobody_is_not_asked(tiny: Bundle) -> None:
    few = changed(tiny, guard=Guard("patients", {"UIP": 4, "NSIP": 4}))
    silent = ask(Classifier(few, asked=True), exams=2)
    assert silent.passed
    assert "the model needs" in silent.sentence
    assert silent.as_json()["silent"] is True
    point = replace(tiny.description.operating_point, commit=0.0)
    bold = changed(tiny, guard=EVERYTHING, operating_point=point)
    told: list[tuple[int, int]] = []
    answers = ask(Classifier(bold, asked=True), exams=1, progress=lambda done, total: told.append((done, total)))
    named = answers.as_json()["kinds"]
    assert not answers.passed
    # Of parts of the body others are drawn until one shows what passes for lungs.
    assert named == {kind: {"asked": 1, "named": 1} for kind in KINDS}
    assert told[-1] == (len(KINDS) + 2, len(KINDS) + 2)
    # Without answers that anybody knows it says nothing at all.
    assert Classifier(bold).guard is None


def test_the_sites_own_exams_are_asked_about(tiny: Bundle, real_ct: Path, tmp_path: Path) -> None:
    (tmp_path / "unknowns").mkdir()
    (tmp_path / "unknowns" / "exam").symlink_to(real_ct / "A0002-B70f")
    point = replace(tiny.description.operating_point, commit=0.0)
    bold = changed(tiny, guard=EVERYTHING, operating_point=point)
    folder = tmp_path / "copied"
    folder.mkdir()
    for file in sorted((real_ct / "A0002-B70f").iterdir()):
        (folder / file.name).symlink_to(file)
    answers = ask(Classifier(bold, asked=True), exams=1, unknowns=folder)
    assert answers.unknowns[SITE] == Count(1, 1)


def test_a_bundle_without_answers_is_asked_when_it_is_imported(
    tiny: Bundle, database: Database, tmp_path: Path
) -> None:
    """One that fails is there, and classifies nothing until a person says why it shall nevertheless."""
    point = replace(tiny.description.operating_point, commit=0.0)
    bold = changed(tiny, guard=EVERYTHING, operating_point=point, battery=None)
    registry = Registry(database, tmp_path / "data", None)
    version = registry.import_bundle(str(bold.folder), actor="test", questions=Questions(exams=1))
    assert not version.active
    assert version.battery is not None
    assert not version.battery["passed"]
    assert not may_serve(version)
    with pytest.raises(WorkerError, match="--despite"):
        registry.promote("tiny", actor="test")
    pinned = Registry(database, tmp_path / "data", "tiny")
    with database.read() as session:
        assert pinned.active(session) is None
        assert pinned.candidates(session) == []
    assert registry.promote("tiny", actor="test", despite="for research").active
    with database.read() as session:
        active = registry.active(session)
        assert active is not None
        assert active.despite == "for research"
        assert registry.classifier(active).guard == EVERYTHING


def test_a_disease_that_a_bundle_has_no_class_for_is_unknown_to_it(tiny: Bundle, tmp_path: Path) -> None:
    """One that tells UIP from healthy lungs must not call NSIP one of them; other diseases it may call other."""
    classes = (UIP, replace(NORMAL, name="NORMAL"))
    point = replace(tiny.description.operating_point, commit=0.0)
    limits = replace(EVERYTHING, limits={"UIP": 1e9, "NORMAL": 1e9})
    bold = changed(copied(tiny, tmp_path), classes=classes, guard=limits, operating_point=point)
    answers = ask(Classifier(bold, asked=True), exams=1)
    assert answers.unknowns["NSIP"] == Count(1, 1)
    assert answers.signs.keys() == set(ALTERATIONS)
    assert all(each.asked == 1 for each in answers.signs.values())


def test_a_row_without_answers_does_not_wake_a_bundle_that_failed(tiny: Bundle, tmp_path: Path) -> None:
    failed = {**Battery(1, counts(30, noise=30), signs()).as_json()}
    bundle = changed(copied(tiny, tmp_path), guard=EVERYTHING, battery=failed)
    assert Classifier(bundle).guard is None
    assert Classifier(changed(bundle, battery={}), asked=False).guard is None


def test_the_first_model_that_passes_becomes_active_whatever_was_imported_before(
    tiny: Bundle, database: Database, tmp_path: Path
) -> None:
    failed = Battery(1, counts(30, noise=30), signs()).as_json()
    bad = changed(copied(tiny, tmp_path / "bad"), guard=EVERYTHING, battery=failed, version="bad")
    good = changed(copied(tiny, tmp_path / "good"), guard=EVERYTHING, battery=PASSED, version="good")
    registry = Registry(database, tmp_path / "data", None)
    assert not registry.import_bundle(str(bad.folder), actor="test").active
    assert registry.import_bundle(str(good.folder), actor="test").active
    with pytest.raises(WorkerError, match="models promote"):
        registry.import_bundle(str(bad.folder), actor="test", despite="for research")


def test_the_demo_holds_its_answers_and_passed() -> None:
    battery = open_bundle(demo_bundle()).description.battery
    assert is_current(battery)
    assert battery is not None
    assert battery["passed"]
    assert set(battery["kinds"]) == set(KINDS)
    assert all(each["asked"] >= 30 for each in battery["kinds"].values())
