"""What is decided of one rule for one customer."""

from __future__ import annotations

import msgspec


class Truth(msgspec.Struct, gc=False, array_like=True):
    """Does the rule hold, since when, and the instant before which that does not change if nothing arrives.

    ``value_digest`` tells one value from another where the history of a value is followed, not that of a truth.
    """

    holds: bool
    since: int
    until: int | None = None
    value_digest: str | None = None

    def differs_from(self, other: Truth) -> bool:
        return self.holds != other.holds or self.value_digest != other.value_digest
