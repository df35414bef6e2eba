"""The rule language and its engine. Pure: no I/O, no clock; instants and facts are arguments."""

from app.rules.engine.filters import Leaf
from app.rules.engine.nodes.base import Facts
from app.rules.engine.ruleset import Ruleset, compile_ruleset
from app.rules.engine.series import Retention, Series
from app.rules.engine.touchpoint_view import Occurrence
from app.rules.language.definitions import (
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
from app.rules.language.nodes import Rule
from app.rules.language.references import Definition

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
