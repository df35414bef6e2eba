"""Parsing of quarantined originals: Segment-shaped messages, or events in a vendor's format. Pure.

``form`` is the format code of a rejected message: the name of its parser, followed by ``?`` and the request data that a
replay must reuse. These are the time of sending by the sender's clock, the time assigned to an event without a time,
and the SDK. The code does not record whether an IP address may be stored, because a replay does not have an address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from app.config import Limits
from app.connectors import webhook_parser
from app.errors import InvalidBody
from app.formats import customerio_track, ga4, mixpanel, posthog, segment
from app.formats.encodings import parse_document
from app.formats.segment_fields import TYPES
from app.formats.vendor_events import EventTimes, Members, decode_members_or_empty, decode_text_or_none

_SEGMENT_MEMBERS: Final = {"userId", "anonymousId", "messageId"}


def reparse(
    original: bytes, form: str, received_at: int, limits: Limits, options: Mapping[str, str]
) -> segment.Envelope:
    """Parse one message, or the messages of one vendor event. Raise InvalidBody.

    ``form`` is the format code in the quarantine row, ``received_at`` is when the original arrived, and ``options`` are
    the options of its source.
    """
    delivery = webhook_parser.reparse(form, original, received_at, options)
    if delivery is not None:
        return delivery.envelope
    name, _, query = form.partition("?")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    times = EventTimes(received_at, _parse_instant(parameters.get("sent")), _parse_instant(parameters.get("moment")))
    vendor, _, route = name.partition("/")
    members = _decode_members(original, limits)
    if _is_segment_message(members):
        return _read_segment_message(original, limits)
    if vendor == "mixpanel":
        return mixpanel.read(original, route, received_at, limits, replay_times=times)
    if vendor == "posthog":
        return posthog.read(original, received_at, limits, sdk=parameters.get("sdk"), replay_times=times)
    if vendor == "ga4":
        return ga4.read(original, None, received_at, limits, replay_times=times)
    if vendor == "customerio":
        return customerio_track.reparse(original, limits, times)
    return _reparse_without_form(original, members, received_at, limits)


def _parse_instant(text: str | None) -> int | None:
    return int(text) if text else None


def _decode_members(original: bytes, limits: Limits) -> Members:
    try:
        return decode_members_or_empty(parse_document(original, limits).readable)
    except InvalidBody:
        return {}


def _is_segment_message(members: Members) -> bool:
    """Return whether these are the fields of a Segment-shaped message; a vendor event may be corrected to one."""
    return decode_text_or_none(members.get("type")) in TYPES or not _SEGMENT_MEMBERS.isdisjoint(members)


def _reparse_without_form(original: bytes, members: Members, received_at: int, limits: Limits) -> segment.Envelope:
    """Parse a row that was stored before rows had a format code; infer the format from its fields."""
    if "events" in members or "user_properties" in members:
        return ga4.read(original, None, received_at, limits)
    if "$distinct_id" in members or "$group_key" in members:
        return mixpanel.read(original, "engage", received_at, limits)
    if "event" in members and posthog.is_posthog(original, limits):
        return posthog.read(original, received_at, limits)
    if "event" in members and "token" in decode_members_or_empty(members.get("properties", b"")):
        return mixpanel.read(original, "track", received_at, limits)
    return _read_segment_message(original, limits)


def _read_segment_message(original: bytes, limits: Limits) -> segment.Envelope:
    envelope = segment.read(b'{"batch":[' + original + b"]}", "batch", limits)
    if len(envelope.items) + len(envelope.rejections) != 1:
        raise InvalidBody("The body must contain exactly one message.")
    return envelope
