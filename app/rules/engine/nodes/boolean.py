# ruff: noqa: ARG002 - nodes answer the same questions; not every node needs every argument
"""Truths that follow from the truths of other nodes at the same instant."""

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
    """``deciding_truth`` is the truth of a single child that decides the whole."""

    __slots__ = ()
    deciding_truth: bool

    @property
    def permanent_truth(self) -> bool | None:
        """What lasts in all children lasts in the whole, which grows with them."""
        truths = {child.permanent_truth for child in self.children}
        return truths.pop() if len(truths) == 1 else None

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        deciding_truth = self.deciding_truth
        for child in self.children:
            if child.holds(facts, t, cache) is deciding_truth:
                return deciding_truth
        return not deciding_truth

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """While children decide the whole, it waits for the last of them; else for the first that may."""
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
    """Children are the definitions of all stages of the journey, in order; ``target_places`` are places among them."""

    __slots__ = ("stage_keys", "target_places")

    def __init__(
        self,
        rule_json: dict[str, Any],
        stages: Sequence[CompiledRule],
        stage_keys: Sequence[str],
        target_places: frozenset[int],
    ) -> None:
        super().__init__(rule_json, stages)
        self.stage_keys, self.target_places = tuple(stage_keys), target_places

    def current_place(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """The place of the last stage that holds."""
        for place in range(len(self.children) - 1, -1, -1):
            if self.children[place].holds(facts, t, cache):
                return place
        return None

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return self.current_place(facts, t, cache) in self.target_places

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Nothing below the current stage matters while that holds."""
        first_check: int | None = None
        for child in reversed(self.children):
            check = child.next_check_at(facts, t, cache)
            if check is not None and (first_check is None or check < first_check):
                first_check = check
            if child.holds(facts, t, cache):
                break
        return first_check
