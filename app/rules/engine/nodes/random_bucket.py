# ruff: noqa: ARG002 - all nodes have the same methods; not every node needs every argument
"""Node for ``bucket``: a random but stable share of the customers."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

from app.rules.engine.nodes.base import EvaluationCache, Facts, Node

BUCKETS: Final = 100


def compute_bucket(salt: str, kind: str, value: str) -> int:
    """Return 0 to 99: the first 8 bytes, big-endian, of SHA-256(salt NUL kind NUL value), modulo 100."""
    digest = sha256(f"{salt}\0{kind}\0{value}".encode()).digest()
    return int.from_bytes(digest[:8]) % BUCKETS


class BucketNode(Node):
    __slots__ = ("first", "last", "salt")

    def __init__(self, rule_json: dict[str, Any], first: int, last: int, salt: str) -> None:
        super().__init__(rule_json)
        self.first, self.last, self.salt = first, last, salt

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return (
            facts.bucketing_key is not None
            and self.first <= compute_bucket(self.salt, *facts.bucketing_key) < self.last
        )
