"""One line of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Say = Callable[[str], object]
"""Tell whoever waits what is being measured."""


@dataclass(frozen=True)
class Figure:
    letter: str
    what: str
    value: float
    bound: Literal["at least", "at most"]
    limit: float | None
    """None where it is only to be known."""
    detail: str
    digits: int = 2

    @property
    def holds(self) -> bool:
        if self.limit is None:
            return True
        return self.value >= self.limit if self.bound == "at least" else self.value <= self.limit
