"""The security page: each threat has a test, and each test of a threat has a row."""

from __future__ import annotations

import re

from tests.docs.markdown import ROOT, read

PAGE = ROOT / "docs" / "security.md"
TESTS = ROOT / "tests" / "api" / "test_trust.py"


def test_every_threat_has_a_test_and_every_test_a_row() -> None:
    listed = re.findall(r"\| `(test_\w+)` \|$", read(PAGE), re.MULTILINE)
    written = re.findall(r"^async def (test_\w+)", read(TESTS), re.MULTILINE)
    assert sorted(listed) == sorted(written)
