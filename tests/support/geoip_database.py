"""Writer for small MaxMind DB country databases: it writes an IPv6 tree with a few networks and 24-bit records."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

_KINDS = {"node_count": 6}
_MARKER = b"\xab\xcd\xefMaxMind.com"


def write(path: Path, networks: Mapping[str, Any]) -> None:
    """Write a database that maps networks to values. The format stores IPv4 networks below ``::/96``."""
    tree: list[list[Any]] = [[None, None]]
    data = b""
    for text, value in networks.items():
        network = ip_network(text)
        bits, length = int(network.network_address), network.prefixlen + (96 if network.version == 4 else 0)
        node = 0
        for depth in range(length - 1):
            side = bits >> (127 - depth) & 1
            if tree[node][side] is None:
                tree.append([None, None])
                tree[node][side] = len(tree) - 1
            node = tree[node][side]
        tree[node][bits >> (128 - length) & 1] = ("data", len(data))
        data += _encoded(value)
    count = len(tree)

    def record(value: Any) -> bytes:
        number = count if value is None else value if isinstance(value, int) else count + 16 + value[1]
        return number.to_bytes(3, "big")

    metadata = {
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": 1_767_225_600,
        "database_type": "Test-Country",
        "description": {"en": "for tests"},
        "ip_version": 6,
        "languages": ["en"],
        "node_count": count,
        "record_size": 24,
    }
    nodes = b"".join(record(side) for pair in tree for side in pair)
    path.write_bytes(nodes + b"\0" * 16 + data + _MARKER + _encoded(metadata))


def _encoded(value: Any, kind: str = "") -> bytes:
    if isinstance(value, str):
        return _head(2, len(value.encode())) + value.encode()
    if isinstance(value, int):
        raw = struct.pack(">I", value).lstrip(b"\0")
        return _head(_KINDS.get(kind, 5), len(raw)) + raw if kind != "build_epoch" else bytes([len(raw), 9 - 7]) + raw
    if isinstance(value, list):
        return bytes([len(value), 11 - 7]) + b"".join(map(_encoded, value))
    return _head(7, len(value)) + b"".join(_encoded(name) + _encoded(inner, name) for name, inner in value.items())


def _head(kind: int, size: int) -> bytes:
    assert size < 29
    return bytes([kind << 5 | size])
