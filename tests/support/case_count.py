"""How many random cases a test tries: ``SEGUE_TEST_CASES`` multiplies the number, by 50 or by 0.1."""

from __future__ import annotations

import os

FACTOR = float(os.environ.get("SEGUE_TEST_CASES", "1"))


def case_count(usual: int) -> int:
    return max(1, round(usual * FACTOR))


def at_most(usual: int) -> int:
    """As many as usual, or fewer if fewer are asked for; never more."""
    return max(1, round(usual * min(FACTOR, 1)))
