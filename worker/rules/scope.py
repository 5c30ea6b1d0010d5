"""Who is taken, and who goes ahead."""

from collections.abc import Sequence
from dataclasses import dataclass

from pacs.errors import Rejected
from pacs.facts import SeriesFacts
from worker.rules.conditions import Rule


@dataclass(frozen=True)
class Scope:
    """What the rules say of a series. confirmed_by: the rule that chose it; None where there is no rule about that.

    rejected: code and sentence, where it is not taken. urgent_by: the rule that puts it ahead.
    """

    confirmed_by: str | None
    rejected: tuple[str, str] | None
    urgent_by: str | None


class Rules:
    """The rules of an installation. Of several that match the first is named."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)

    def scope(self, facts: SeriesFacts) -> Scope:
        """Judge a series. Without rules about scope every chest CT is taken. Raises SettingsError."""
        urgent, excluded = self._first("urgent", facts), self._first("exclude", facts)
        if excluded is not None:
            return Scope(None, ("excluded", f"The rule {excluded.name} excludes it."), None)
        chosen = self._first("scope", facts)
        if chosen is None and any(rule.does == "scope" for rule in self._rules):
            return Scope(None, ("out_of_scope", "No rule about scope chooses it."), None)
        return Scope(_name(chosen), None, _name(urgent))

    def check(self) -> str:
        """Say how many rules there are. Raises SettingsError where a list of patients cannot be read."""
        nobody = SeriesFacts("?", "", "", "", None, 0, "")
        for rule in self._rules:
            if rule.patients_file is not None:
                Rule(rule.name, rule.does, patients_file=rule.patients_file).matches(nobody)
        scoping = sum(rule.does == "scope" for rule in self._rules)
        return f"{len(self._rules)}, {scoping} of them about scope" if self._rules else "none: every chest CT is taken"

    def require(self, facts: SeriesFacts) -> str | None:
        """Return the rule that chose a series, or None where there is none about that. Raises Rejected."""
        scope = self.scope(facts)
        if scope.rejected is not None:
            raise Rejected(*scope.rejected)
        return scope.confirmed_by

    def _first(self, does: str, facts: SeriesFacts) -> Rule | None:
        return next((rule for rule in self._rules if rule.does == does and rule.matches(facts)), None)


def _name(rule: Rule | None) -> str | None:
    return None if rule is None else rule.name
