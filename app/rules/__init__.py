"""The rule language and its engine. Pure: no I/O, no clock; instants and facts are arguments."""

from app.rules.definitions import (
    JourneyIn,
    SegmentIn,
    StageIn,
    TraitIn,
    parse_journey,
    parse_rule,
    parse_segment,
    parse_trait,
    parse_value,
    rule_to_json,
    value_to_json,
)
from app.rules.document import Occurrence
from app.rules.language import Rule
from app.rules.leaves import Leaf
from app.rules.nodes.base import Facts
from app.rules.references import Definition
from app.rules.ruleset import Ruleset, compile_ruleset
from app.rules.series import Retention, Series

__all__ = [
    "Definition",
    "Facts",
    "JourneyIn",
    "Leaf",
    "Occurrence",
    "Retention",
    "Rule",
    "Ruleset",
    "SegmentIn",
    "Series",
    "StageIn",
    "TraitIn",
    "compile_ruleset",
    "parse_journey",
    "parse_rule",
    "parse_segment",
    "parse_trait",
    "parse_value",
    "rule_to_json",
    "value_to_json",
]
