"""Why a rule is true or false of a customer, node by node, since when and until when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from app.rules.engine.nodes.aggregates import Aggregate
from app.rules.engine.nodes.base import CompiledRule, Facts, Memo, Node, Value
from app.rules.engine.nodes.boolean import AtStage
from app.rules.engine.nodes.counts import Did, DidInside
from app.rules.engine.nodes.first_last import Once
from app.rules.engine.nodes.random_bucket import Bucket, bucket_of
from app.rules.engine.nodes.recurring import Regularly
from app.rules.engine.nodes.sequence import SequenceDone
from app.rules.engine.nodes.traits import Compares, Computed, Trait, Within
from app.rules.language.validation import HEADS

TOUCHPOINTS_MAX: Final = 100
"""Message ids shown for one node: the latest ones. ``counted`` says how many there are."""

Ids = Callable[[str], Sequence[tuple[int, str]]]
"""leaf id -> (occurred_at, message id) of every touchpoint of the customer that belongs to it, in order."""

_COUNTS: Final = ("at_least", "at_most", "exactly", "between")
_PACE: Final = ("at_least", "of_last", "period")
_NOT_COMPARED: Final = frozenset(
    (*HEADS, "of", "where", "channel", "source", "within", "before", "from", "to", "during", "timezone", "ignore_case")
)


def explain(
    node: Node, facts: Facts, t: int, ids: Ids | None, watched: Mapping[int, CompiledRule] | None = None
) -> dict[str, Any]:
    """The tree of a rule with, at each node, its truth and the instant at which that changes by itself.

    ``rule``, ``truth``, ``since`` (microseconds; ``None`` where ``watched`` does not follow the node), ``valid_until``
    (microseconds or ``None``) and ``nodes`` stand everywhere; what counts touchpoints adds ``counted``, ``needed`` and
    ``touchpoints``, what compares a value ``value``, a stage node ``current``, a bucket node ``bucket``. A segment or
    stage that several nodes read is laid out under the first of them, with its id under ``definition``.
    """
    shown = {node.rule_id} if isinstance(node, CompiledRule) else set()
    return _Explaining(facts, t, ids, watched or {}, shown).tree(node)


def explain_value(computed: Computed, facts: Facts, t: int, ids: Ids | None) -> dict[str, Any]:
    """``value``, ``valid_until``, and the touchpoints that it was worked out from."""
    memo = Memo()
    value, until = computed.standing(facts, t, memo)
    worked_out = _Explaining(facts, t, ids, {}, set()).worked_out_from(computed)
    return {"value": value, "valid_until": until} | worked_out


class _Explaining:
    def __init__(
        self, facts: Facts, t: int, ids: Ids | None, watched: Mapping[int, CompiledRule], shown: set[str]
    ) -> None:
        self.facts, self.t, self.ids, self.watched, self.shown = facts, t, ids, watched, shown
        self.memo = Memo()

    def tree(self, node: Node) -> dict[str, Any]:
        if isinstance(node, CompiledRule):
            return {"definition": node.rule_id} | self.tree(node.body)
        watch = self.watched.get(id(node))
        follower = watch or CompiledRule("", node)
        answer: dict[str, Any] = {
            "rule": node.rule,
            "truth": node.holds(self.facts, self.t, self.memo),
            "since": watch.standing(self.facts, self.t, self.memo).since if watch is not None else None,
            "valid_until": follower.next_check(self.facts, self.t, Memo()),
        }
        answer |= self._details(node)
        answer["nodes"] = [self.tree(child) for child in self._children(node)]
        return answer

    def _children(self, node: Node) -> list[Node]:
        """What stands below; a named rule is laid out once, a hidden one not at all."""
        children: list[Node] = []
        for child in node.children:
            if isinstance(child, CompiledRule):
                if child.rule_id in self.shown or child.rule_id.startswith("watch:"):
                    continue
                self.shown.add(child.rule_id)
            children.append(child)
        return children

    def _details(self, node: Node) -> dict[str, Any]:
        match node:
            case Did():
                return self._counted(node)
            case DidInside():
                inside, _ = node.points.spells(self.facts, self.t, self.memo)
                places = [spell.place for spell in inside]
                return {"counted": len(places), "needed": _needed(node)} | self._used(node.points.leaf, places)
            case Once():
                place = node.place(self.facts, self.t, self.memo)
                return self._used(node.points.leaf, [] if place is None else [place])
            case SequenceDone():
                return self._used(node.points.leaf, node.used(self.facts, self.t, self.memo))
            case Regularly():
                return self._periods(node)
            case Trait():
                return {"value": node.source.value(self.facts, self.t, self.memo)}
            case Compares():
                value = node.source.value(self.facts, self.t, self.memo)
                return {"value": value, "needed": _compared(node)} | self.worked_out_from(node.source)
            case AtStage():
                current = node.current(self.facts, self.t, self.memo)
                return {"current": None if current is None else node.keys[current]}
            case Bucket():
                person = self.facts.person
                return {"bucket": None if person is None else bucket_of(node.salt, *person)}
            case _:
                return {}

    def _counted(self, node: Did) -> dict[str, Any]:
        found = self.ids(node.leaf) if self.ids else []
        inside = [message for p, message in found if node.inside(p, self.facts, self.t)]
        return {
            "counted": len(inside) if self.ids else node.count(self.facts, self.t),
            "needed": _needed(node),
            "touchpoints": inside[-TOUCHPOINTS_MAX:],
        }

    def _periods(self, node: Regularly) -> dict[str, Any]:
        hit = node.hit(self.facts, self.t, self.memo)
        instants = {p for found in hit.values() for p in found}
        places = [place for place, point in enumerate(node.points.of(self.facts)) if point[0] in instants]
        needed = {key: node.rule[key] for key in _PACE}
        return {"counted": len(hit), "needed": needed} | self._used(node.points.leaf, places)

    def worked_out_from(self, source: Value) -> dict[str, Any]:
        """``counted`` and ``touchpoints`` of an aggregate, if the value is one."""
        while isinstance(source, Computed | Within):
            source = source.source
        if not isinstance(source, Aggregate):
            return {}
        places = [place for place, _ in source.counted(self.facts, self.t, self.memo)]
        return {"counted": len(places)} | self._used(source.points.leaf, places)

    def _used(self, leaf: str, places: Sequence[int]) -> dict[str, Any]:
        """Ids of the touchpoints at these places; an explaining ruleset keeps every point, so places agree."""
        found = self.ids(leaf) if self.ids else []
        return {"touchpoints": [found[place][1] for place in places[-TOUCHPOINTS_MAX:]] if found else []}


def _needed(node: Node) -> dict[str, Any]:
    return {key: node.rule[key] for key in _COUNTS if key in node.rule} or {"at_least": 1}


def _compared(node: Node) -> dict[str, Any]:
    """The comparison of a node, as it is written."""
    return {key: asked for key, asked in node.rule.items() if key not in _NOT_COMPARED}
