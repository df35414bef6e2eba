"""Helpers that pass a message or a batch through the Segment parser."""

from __future__ import annotations

import json
from typing import Any

from app.config import Settings
from app.errors import Rejection
from app.formats.segment import Parsed, normalise, read
from app.touchpoint import Message, SourceView

SETTINGS = Settings()
SOURCE = SourceView("site")
NOW = 1_777_888_800_000_000  # 2026-05-04T10:00:00Z
SECOND = 1_000_000


def parse(body: bytes, route: str = "batch", source: SourceView = SOURCE, settings: Settings = SETTINGS) -> Parsed:
    return normalise(read(body, route, settings.limits), source, NOW, settings)


def send(*items: Any, route: str = "batch", source: SourceView = SOURCE, **envelope: Any) -> Parsed:
    body = items[0] if route not in ("batch", "import") else {"batch": list(items), **envelope}
    return parse(json.dumps(body).encode(), route, source)


def track(**fields: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Order Completed", "userId": "u1", "messageId": "m1"} | fields


def message(item: Any, source: SourceView = SOURCE, **envelope: Any) -> Message:
    parsed = send(item, source=source, **envelope)
    assert parsed.rejections == []
    return parsed.messages[0][1]


def rejection(item: Any) -> Rejection:
    """Return the rejection of an item. The item is sent between two valid items, which must be accepted."""
    raw = item if isinstance(item, bytes) else json.dumps(item).encode()
    good = json.dumps(track()).encode()
    parsed = parse(b'{"batch":[' + b",".join([good, raw, good]) + b"]}")
    assert [index for index, _ in parsed.messages] == [0, 2]
    [rejected] = parsed.rejections
    assert rejected.index == 1
    assert rejected.original == raw.strip()
    return rejected


def kinds(message: Message) -> list[str]:
    return [str(identity) for identity in message.identities]
