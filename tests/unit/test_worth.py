"""What a figure is worth, in a sentence."""

from training.worth import behind, worth


def test_who_stands_behind_a_figure_is_counted() -> None:
    assert behind({"UIP": 1, "NSIP": 1}) == "2 patients (1 UIP, 1 NSIP)"
    assert behind({"UIP": 1}) == "1 patient (1 UIP)"
    assert behind({}) == "unknown"


def test_one_patient_a_class_and_leaked_splits_are_warned_of() -> None:
    one = {"patients": {"UIP": 1, "NSIP": 1}}
    assert worth(one, leaked=False) == (
        "One patient alone stands for UIP and for NSIP, which says nothing of any other."
    )
    leaked = worth(one, leaked=True)
    assert leaked.startswith("Patients stand on both sides of this split")
    assert "One patient alone".lower() in leaked
    assert "for NSIP" not in worth({"patients": {"UIP": 1, "NSIP": 9}}, leaked=False)
    assert worth({"patients": {"UIP": 19, "NSIP": 90}}, leaked=False) == "19 patients of a class say little of others."
    assert worth({"patients": {"UIP": 20, "NSIP": 20}}, leaked=False) == ""
