"""Why a rule is true or false of a customer, node by node, and until when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from app.rules.nodes import AtStage, Definition, Did, Facts, InSegment, Memo, Node, Trait

TOUCHPOINTS_MAX: Final = 100
"""Message ids shown for one node: the latest ones. ``counted`` says how many there are."""

Ids = Callable[[str], Sequence[tuple[int, str]]]
"""leaf id -> (occurred_at, message id) of every touchpoint of the customer that belongs to it."""

_COUNTS: Final = ("at_least", "at_most", "exactly", "between")


def explain(node: Node, facts: Facts, t: int, ids: Ids | None) -> dict[str, Any]:
    """The tree of a rule with, at each node, its truth and the instant at which that changes by itself.

    ``rule``, ``truth``, ``valid_until`` (microseconds or ``None``) and ``nodes`` stand everywhere; a did node adds
    ``counted``, ``needed`` and ``touchpoints``, a trait node ``value``, a stage node ``current``. A segment or
    stage that several nodes read is laid out under the first of them, with its id under ``definition``.
    """
    return _explain(node, facts, t, ids, {}, {node.rule_id} if isinstance(node, Definition) else set())


def _explain(node: Node, facts: Facts, t: int, ids: Ids | None, memo: Memo, shown: set[str]) -> dict[str, Any]:
    if isinstance(node, Definition):
        return {"definition": node.rule_id} | _explain(node.children[0], facts, t, ids, memo, shown)
    answer: dict[str, Any] = {
        "rule": node.rule,
        "truth": node.holds(facts, t, memo),
        "valid_until": node.next_change(facts, t, memo),
    }
    match node:
        case Did():
            answer |= _counted(node, facts, t, ids)
        case Trait():
            answer["value"] = node.value(facts)
        case AtStage():
            place = node.current(facts, t, memo)
            answer["current"] = None if place is None else node.keys[place]
    answer["nodes"] = [_explain(child, facts, t, ids, memo, shown) for child in _children(node, shown)]
    return answer


def _children(node: Node, shown: set[str]) -> list[Node]:
    """What stands below; a named rule is laid out once."""
    if not isinstance(node, InSegment | AtStage):
        return list(node.children)
    new = [child for child in node.children if isinstance(child, Definition) and child.rule_id not in shown]
    shown.update(child.rule_id for child in new)
    return list(new)


def _counted(node: Did, facts: Facts, t: int, ids: Ids | None) -> dict[str, Any]:
    found = [message for p, message in ids(node.leaf) if node.inside(p, facts, t)] if ids else []
    needed: dict[str, Any] = {key: node.rule[key] for key in _COUNTS if key in node.rule}
    default: dict[Literal["at_least"], int] = {"at_least": 1}
    return {
        "counted": len(found) if ids else node.count(facts, t),
        "needed": needed or default,
        "touchpoints": found[-TOUCHPOINTS_MAX:],
    }
