"""Number of random cases of a test. The environment variable ``SEGUE_TEST_CASES``, such as 50 or 0.1, multiplies it."""

from __future__ import annotations

import os

FACTOR = float(os.environ.get("SEGUE_TEST_CASES", "1"))


def case_count(usual: int) -> int:
    return max(1, round(usual * FACTOR))


def case_count_at_most(usual: int) -> int:
    """Return ``cases``, reduced if the factor is below 1, and otherwise unchanged."""
    return max(1, round(usual * min(FACTOR, 1)))
