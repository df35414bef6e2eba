"""What stood in quarantine, read once more: a message of ours, or the foreign event that it was. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.config import Limits
from app.errors import InvalidBody
from app.wire import ga4, mixpanel, posthog, segment, webhook
from app.wire.encodings import document
from app.wire.foreign import members_of, text_of
from app.wire.segment_fields import TYPES

_OURS: Final = {"userId", "anonymousId", "messageId"}


def read(original: bytes, form: str, received_at: int, limits: Limits, options: Mapping[str, str]) -> segment.Envelope:
    """One message, or what one foreign event makes. Raises InvalidBody.

    ``form`` is the rejection's; ``received_at`` when it first arrived; ``options`` are those of its source.
    """
    intake = webhook.read_again(form, original, received_at, options)
    if intake is not None:
        return intake.envelope
    try:
        members = members_of(document(original, limits).readable)
    except InvalidBody:
        members = {}
    if text_of(members.get("type")) not in TYPES and _OURS.isdisjoint(members):
        if "events" in members or "user_properties" in members:
            return ga4.read(original, None, received_at, limits)
        if "$distinct_id" in members or "$group_key" in members:
            return mixpanel.read(original, "engage", received_at, limits)
        if "event" in members and posthog.is_posthog(original, limits):
            return posthog.read(original, received_at, limits)
        if "event" in members and "token" in members_of(members.get("properties", b"")):
            return mixpanel.read(original, "track", received_at, limits)
    envelope = segment.read(b'{"batch":[' + original + b"]}", "batch", limits)
    if len(envelope.items) + len(envelope.rejections) != 1:
        raise InvalidBody("Send one message.")
    return envelope
