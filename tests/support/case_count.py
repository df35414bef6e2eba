"""Number of random cases per test. The factor ``SEGUE_TEST_CASES``, such as 50 or 0.1, multiplies it."""

from __future__ import annotations

import os

FACTOR = float(os.environ.get("SEGUE_TEST_CASES", "1"))


def case_count(usual: int) -> int:
    return max(1, round(usual * FACTOR))


def case_count_at_most(usual: int) -> int:
    """Return the number of cases, reduced by a factor below 1 and never increased."""
    return max(1, round(usual * min(FACTOR, 1)))
