"""Deeply nested rules.

``python -m tests.support.deep_rules HEAD`` checks that a rule with a million levels is refused.
"""

from __future__ import annotations

import sys
from typing import Any

from app.errors import InvalidDefinition
from app.rules.language.definitions import parse_rule


def nested(levels: int, head: str) -> Any:
    rule: Any = {"did": "A"}
    for _ in range(levels):
        rule = {head: rule if head in ("not", "where", "did") else [rule]}
    return rule


if __name__ == "__main__":
    try:
        parse_rule(nested(10**6, sys.argv[1]))
    except InvalidDefinition:
        sys.exit("refused")
