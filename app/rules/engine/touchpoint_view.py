"""Access to the fields and properties of a touchpoint, and to traits, by name or dotted path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final

import msgspec

_decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode


class TouchpointView(msgspec.Struct):
    """One touchpoint. ``properties``, ``context`` and ``traits`` are JSON objects as bytes, parsed on first access.

    ``occurred_at`` is in microseconds since 1970.
    """

    name: str
    channel: str
    source: str
    occurred_at: int
    properties: bytes = b"{}"
    context: bytes = b"{}"
    traits: bytes = b"{}"
    _parsed: dict[str, Any] = msgspec.field(default_factory=dict)

    def parsed_part(self, name: str) -> Any:
        """Return ``properties``, ``context`` or ``traits``, parsed at most once; numbers are ``int`` or ``Decimal``."""
        if name not in self._parsed:
            raw: bytes = getattr(self, name)
            self._parsed[name] = _decode(raw) if raw else {}
        return self._parsed[name]

    def may_contain_key(self, name: str, key: bytes) -> bool:
        """Return false only if no key of the part begins with ``key`` (JSON text without closing quote).

        Most touchpoints lack most of the properties that rules read, and searching bytes is cheaper than parsing them.
        A part with a backslash may spell the key with escapes, so it may contain every key.
        """
        if name in self._parsed:
            return True
        raw: bytes = getattr(self, name)
        return key in raw or b"\\" in raw


def get_by_path(values: Any, name: str, path: tuple[str, ...]) -> Any:
    """Return the value under the exact name, else at the path; ``None`` if both are missing or null.

    A path passes through objects only. It cannot reach values inside an array.
    """
    if not isinstance(values, Mapping):
        return None
    value = values.get(name)
    if value is not None or len(path) == 1:
        return value
    value = values
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def compile_path(path: str) -> Callable[[TouchpointView], Any]:
    """Return a function that reads ``path`` from a touchpoint.

    A path starts in the properties. A path with the prefix ``context.`` or ``traits.`` starts in that part of the
    message, and ``touchpoint.`` reads a field of the touchpoint itself.
    """
    part, _, rest = path.partition(".")
    if rest and part == "touchpoint":
        return attrgetter(rest)
    if rest and part in ("context", "traits"):
        name = rest
    else:
        part, name = "properties", path
    steps = tuple(name.split("."))
    key = msgspec.json.encode(steps[0])[:-1]  # The key of the exact name begins with the same bytes.

    def read(touchpoint: TouchpointView) -> Any:
        return get_by_path(touchpoint.parsed_part(part), name, steps) if touchpoint.may_contain_key(part, key) else None

    return read
