# ruff: noqa: ARG002 - nodes answer the same questions; not every node needs every argument
"""Truths that follow from the truths of other nodes at the same instant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.rules.engine.nodes.base import CompiledRule, Facts, Memo, Node


class Everyone(Node):
    __slots__ = ()

    @property
    def lasting(self) -> bool | None:
        return True

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return True


class Combination(Node):
    """``decisive`` is the truth of a single child that decides the whole."""

    __slots__ = ()
    decisive: bool

    @property
    def lasting(self) -> bool | None:
        """What lasts in all children lasts in the whole, which grows with them."""
        found = {child.lasting for child in self.children}
        return found.pop() if len(found) == 1 else None

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        decisive = self.decisive
        for child in self.children:
            if child.holds(facts, t, memo) is decisive:
                return decisive
        return not decisive

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        """While children decide the whole, it waits for the last of them; else for the first that may."""
        found: int | None = None
        deciding: int | None = None
        decisive = self.decisive
        for child in self.children:
            check = child.next_check(facts, t, memo)
            if child.holds(facts, t, memo) is decisive:
                if check is None:
                    return None
                deciding = check if deciding is None or check > deciding else deciding
            elif check is not None and (found is None or check < found):
                found = check
        return found if deciding is None else deciding


class All(Combination):
    __slots__ = ()
    decisive = False


class AnyOf(Combination):
    __slots__ = ()
    decisive = True


class Not(Node):
    __slots__ = ()

    @property
    def lasting(self) -> bool | None:
        inner = self.children[0].lasting
        return None if inner is None else not inner

    @property
    def exact(self) -> bool:
        return self.children[0].exact

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return not self.children[0].holds(facts, t, memo)

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        return self.children[0].next_check(facts, t, memo)


class InSegment(Node):
    __slots__ = ()

    @property
    def lasting(self) -> bool | None:
        return self.children[0].lasting

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return self.children[0].holds(facts, t, memo)

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        return self.children[0].next_check(facts, t, memo)


class AtStage(Node):
    """Children are the definitions of all stages of the journey, in order; ``asked`` are places among them."""

    __slots__ = ("asked", "keys")

    def __init__(
        self, rule: dict[str, Any], stages: Sequence[CompiledRule], keys: Sequence[str], asked: frozenset[int]
    ) -> None:
        super().__init__(rule, stages)
        self.keys, self.asked = tuple(keys), asked

    def current(self, facts: Facts, t: int, memo: Memo) -> int | None:
        """The place of the last stage that holds."""
        for place in range(len(self.children) - 1, -1, -1):
            if self.children[place].holds(facts, t, memo):
                return place
        return None

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return self.current(facts, t, memo) in self.asked

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        """Nothing below the current stage matters while that holds."""
        found: int | None = None
        for child in reversed(self.children):
            check = child.next_check(facts, t, memo)
            if check is not None and (found is None or check < found):
                found = check
            if child.holds(facts, t, memo):
                break
        return found
