# ruff: noqa: ARG002 - all nodes have the same methods; not every node needs every argument
"""Nodes that combine the results of other nodes at the same instant: all, any, not, everyone, segment, stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.rules.engine.nodes.base import CompiledRule, EvaluationCache, Facts, Node


class EveryoneNode(Node):
    __slots__ = ()

    @property
    def permanent_truth(self) -> bool | None:
        return True

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return True


class _CombinationNode(Node):
    """Base of ``all`` and ``any``. One child whose truth is ``deciding_truth`` decides the result."""

    __slots__ = ()
    deciding_truth: bool

    @property
    def permanent_truth(self) -> bool | None:
        """Permanent truth that all children share: ``all`` and ``any`` are monotonic, so they keep it too."""
        truths = {child.permanent_truth for child in self.children}
        return truths.pop() if len(truths) == 1 else None

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        deciding_truth = self.deciding_truth
        for child in self.children:
            if child.holds(facts, t, cache) is deciding_truth:
                return deciding_truth
        return not deciding_truth

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Return the latest check of the children that decide the result: until then, one of them still decides.

        If no child decides the result, return the earliest check of all children.
        """
        first_check: int | None = None
        last_deciding: int | None = None
        deciding_truth = self.deciding_truth
        for child in self.children:
            check = child.next_check_at(facts, t, cache)
            if child.holds(facts, t, cache) is deciding_truth:
                if check is None:
                    return None
                last_deciding = check if last_deciding is None or check > last_deciding else last_deciding
            elif check is not None and (first_check is None or check < first_check):
                first_check = check
        return first_check if last_deciding is None else last_deciding


class AllNode(_CombinationNode):
    __slots__ = ()
    deciding_truth = False


class AnyNode(_CombinationNode):
    __slots__ = ()
    deciding_truth = True


class NotNode(Node):
    __slots__ = ()

    @property
    def permanent_truth(self) -> bool | None:
        inner = self.children[0].permanent_truth
        return None if inner is None else not inner

    @property
    def next_check_is_exact(self) -> bool:
        return self.children[0].next_check_is_exact

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return not self.children[0].holds(facts, t, cache)

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        return self.children[0].next_check_at(facts, t, cache)


class SegmentNode(Node):
    __slots__ = ()

    @property
    def permanent_truth(self) -> bool | None:
        return self.children[0].permanent_truth

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return self.children[0].holds(facts, t, cache)

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        return self.children[0].next_check_at(facts, t, cache)


class StageNode(Node):
    """True if the current stage of the journey is one of the stages at ``target_positions``.

    The children are the rules of all stages, in the order of the journey.
    """

    __slots__ = ("stage_keys", "target_positions")

    def __init__(
        self,
        rule_json: dict[str, Any],
        stages: Sequence[CompiledRule],
        stage_keys: Sequence[str],
        target_positions: frozenset[int],
    ) -> None:
        super().__init__(rule_json, stages)
        self.stage_keys, self.target_positions = tuple(stage_keys), target_positions

    def current_position(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Return the position of the current stage, the last one whose rule holds; ``None`` if no rule holds."""
        for position in range(len(self.children) - 1, -1, -1):
            if self.children[position].holds(facts, t, cache):
                return position
        return None

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return self.current_position(facts, t, cache) in self.target_positions

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Return the earliest check of the current and later stages.

        While the current stage holds, earlier stages do not matter.
        """
        first_check: int | None = None
        for child in reversed(self.children):
            check = child.next_check_at(facts, t, cache)
            if check is not None and (first_check is None or check < first_check):
                first_check = check
            if child.holds(facts, t, cache):
                break
        return first_check
