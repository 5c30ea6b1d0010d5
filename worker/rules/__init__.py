"""Which exams are for us: rules from the settings, data and no code.

`conditions`: what a rule asks. `scope`: who is taken, and who goes ahead. `preference`: which series speaks for a
study.
"""

from worker.rules.conditions import Rule
from worker.rules.preference import Preference, Standing
from worker.rules.scope import Rules, Scope

__all__ = ["Preference", "Rule", "Rules", "Scope", "Standing"]
