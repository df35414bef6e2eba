"""The view of one touchpoint, or of a customer's traits, that rules read: names and dotted paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final

import msgspec

_decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode


class TouchpointView(msgspec.Struct):
    """One touchpoint. ``properties``, ``context`` and ``traits`` are JSON objects as bytes, parsed when first read."""

    name: str
    channel: str
    source: str
    occurred_at: int
    properties: bytes = b"{}"
    context: bytes = b"{}"
    traits: bytes = b"{}"
    _parsed: dict[str, Any] = msgspec.field(default_factory=dict)

    def parsed_part(self, name: str) -> Any:
        """``properties``, ``context`` or ``traits``, parsed at most once; numbers are ``int`` or ``Decimal``."""
        if name not in self._parsed:
            raw: bytes = getattr(self, name)
            self._parsed[name] = _decode(raw) if raw else {}
        return self._parsed[name]

    def may_contain_key(self, name: str, key: bytes) -> bool:
        """Whether that part may hold a key that begins so (JSON text, its closing quote left out).

        Most rules ask for what most touchpoints lack, and a look at the bytes is cheaper than parsing them. Escapes
        may spell a key in another way.
        """
        if name in self._parsed:
            return True
        raw: bytes = getattr(self, name)
        return key in raw or b"\\" in raw


def get_by_path(values: Any, name: str, path: tuple[str, ...]) -> Any:
    """The value under the exact name, else along the path; ``None`` where there is none, null being none too.

    A path goes through objects only: what lies inside an array has no path.
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
    """A function that reads ``path`` of a touchpoint.

    ``context.`` and ``traits.`` reach beside the properties, ``touchpoint.`` the touchpoint's own fields.
    """
    part, _, rest = path.partition(".")
    if rest and part == "touchpoint":
        return attrgetter(rest)
    if rest and part in ("context", "traits"):
        name = rest
    else:
        part, name = "properties", path
    steps = tuple(name.split("."))
    key = msgspec.json.encode(steps[0])[:-1]  # that of the exact name begins so too

    def read(touchpoint: TouchpointView) -> Any:
        return get_by_path(touchpoint.parsed_part(part), name, steps) if touchpoint.may_contain_key(part, key) else None

    return read
