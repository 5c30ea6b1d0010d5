"""Rules: what each condition means, which rule decides, and which series speaks for a study."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage

from pacs.errors import Rejected
from pacs.facts import SeriesFacts, read_facts
from tests.datasets import ct
from worker.errors import SettingsError
from worker.rules import Preference, Rule, Rules

FACTS = SeriesFacts(
    patient_id="4711", sender="CT99", body_part="CHEST", kernel="B70f", thickness=1.0, slices=300,
    description="Tórax fino", codes=(("89155008", "SCT", "Systemic sclerosis"),),
    descriptions=("TC DE TÓRAX", "Esclerose sistêmica, dispneia"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        ({"patients": ("4711",)}, True),
        ({"patients": ("471",)}, False),
        ({"codes": ("89155008",)}, True),
        ({"codes": ("SCT:89155008", "X")}, True),
        ({"codes": ("DCM:89155008",)}, False),
        ({"descriptions": ("*esclerose sistemica*",)}, True),
        ({"descriptions": ("ESCLEROSE",)}, False),
        ({"senders": ("CT99",)}, True),
        ({"senders": ("ct99",)}, False),
        ({"body_parts": ("chest", "thorax")}, True),
        ({"kernels": ("b7?f",)}, True),
        ({"kernels": ("B30*",)}, False),
        ({"min_thickness_mm": 1.0, "max_thickness_mm": 1.0}, True),
        ({"max_thickness_mm": 0.9}, False),
        ({"min_slices": 300, "max_slices": 300}, True),
        ({"min_slices": 301}, False),
        ({"max_slices": 299}, False),
        ({"patients": ("4711",), "senders": ("CT98",)}, False),
    ],
)
def test_all_conditions_hold_each_by_one_alternative(conditions: dict[str, Any], matches: bool) -> None:
    assert Rule("r", "scope", **conditions).matches(FACTS) is matches


def test_what_is_not_known_meets_no_condition() -> None:
    nothing = SeriesFacts("", "", "", "", None, 0, "")
    for conditions in ({"patients": ("",)}, {"max_thickness_mm": 5.0}, {"min_thickness_mm": 0.1}, {"codes": (":",)}):
        assert not Rule("r", "scope", **conditions).matches(nothing)


def test_a_list_of_patients_is_read_anew_and_must_be_readable(tmp_path: Path) -> None:
    listed = tmp_path / "patients.txt"
    rules = Rules([Rule("clinic", "scope", patients_file=listed)])
    with pytest.raises(SettingsError, match=r"rule clinic cannot be read from .*patients.txt: No such file"):
        rules.scope(FACTS)
    with pytest.raises(SettingsError):
        rules.check()
    listed.write_text("# the clinic's\n 12 \n\n", encoding="utf-8")
    assert rules.scope(FACTS).rejected == ("out_of_scope", "No rule about scope chooses it.")
    listed.write_text("12\n4711\n", encoding="utf-8")
    assert rules.scope(FACTS).confirmed_by == "clinic"
    assert rules.check() == "1, 1 of them about scope"


def test_who_decides() -> None:
    nobody = Rules([])
    assert nobody.require(FACTS) is None
    assert nobody.scope(FACTS).rejected is None
    only_urgent = Rules([Rule("emergency", "urgent", senders=("CT99",))])
    assert only_urgent.scope(FACTS).urgent_by == "emergency"
    assert only_urgent.scope(FACTS).rejected is None
    rules = Rules([
        Rule("by code", "scope", codes=("SCT:89155008",)),
        Rule("by list", "scope", patients=("4711",)),
        Rule("thick", "exclude", min_thickness_mm=5),
    ])  # fmt: skip
    assert rules.require(FACTS) == "by code"
    assert rules.require(replace(FACTS, codes=())) == "by list"
    with pytest.raises(Rejected, match="The rule thick excludes it") as thick:
        rules.require(replace(FACTS, thickness=5.0))
    assert thick.value.code == "excluded"
    with pytest.raises(Rejected) as stranger:
        rules.require(replace(FACTS, codes=(), patient_id="1"))
    assert stranger.value.code == "out_of_scope"


def test_facts_are_read_from_request_and_enhanced_ct() -> None:
    dataset = ct(1, SliceThickness="1.5", ConvolutionKernel="YA", ReasonForStudy="Esclerodermia")
    request, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "89155008", "SCT", "Systemic sclerosis"
    request.ReasonForRequestedProcedureCodeSequence = Sequence([code])
    request.ReasonForTheRequestedProcedure = "Raynaud"
    dataset.RequestAttributesSequence = Sequence([request])
    facts = read_facts(dataset, 12)
    assert (facts.thickness, facts.kernel, facts.slices, facts.sender) == (1.5, "YA", 12, "")
    assert facts.codes == (("89155008", "SCT", "Systemic sclerosis"),)
    assert {"Esclerodermia", "Raynaud"} <= set(facts.descriptions)
    enhanced, group, measures, reconstruction = Dataset(), Dataset(), Dataset(), Dataset()
    enhanced.SOPClassUID = EnhancedCTImageStorage
    measures.SliceThickness, reconstruction.ConvolutionKernel = "0.8", "LUNG"
    group.PixelMeasuresSequence, group.CTReconstructionSequence = Sequence([measures]), Sequence([reconstruction])
    enhanced.SharedFunctionalGroupsSequence = Sequence([group])
    facts = read_facts(enhanced, 1)
    assert (facts.thickness, facts.kernel, facts.patient_id) == (0.8, "LUNG", "")


def test_lung_kernel_then_thin_then_the_most_slices_speaks() -> None:
    preference = Preference(("B7*", "*lung*"), keep_others=True)

    def standing(uid: str, kernel: str = "", description: str = "", thickness: float | None = None, slices: int = 1):  # type: ignore[no-untyped-def]
        return preference.standing(uid, kernel=kernel, description=description, thickness=thickness, slices=slices)

    ordered = [
        standing("1.1", "B70f", thickness=1.0, slices=200),
        standing("1.2", "", "thin LUNG,1.25", thickness=1.25, slices=900),
        standing("1.3", "B70f", thickness=None, slices=900),
        standing("1.4", "B30f", thickness=0.6, slices=400),
        standing("1.5", "B30f", thickness=0.6, slices=300),
        standing("1.6", "B30f", thickness=0.6, slices=300),
    ]
    mixed = [ordered[index] for index in (5, 2, 0, 4, 1, 3)]
    assert sorted(mixed) == ordered
    sentence = preference.sentence("1.1", ordered[0])
    assert sentence == "Series 1.1 speaks for this study (lung kernel, 1 mm, 200 slices)."
