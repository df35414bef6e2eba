"""What stood in quarantine, read once more: a message of ours, or the foreign event that it was. Pure.

The form of a rejection names its reader, and behind a question mark what of the request a replay must not take anew:
when it was sent by the sender's clock, when an event happened that does not say so, and who sent it. An address that
the sender did not want kept needs no place there, because a replay has no connection to take one from.
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
    """One message, or what one foreign event makes. Raises InvalidBody.

    ``form`` is the rejection's; ``received_at`` when it first arrived; ``options`` are those of its source.
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
    """A foreign event may be corrected by a message of ours."""
    return decode_text_or_none(members.get("type")) in TYPES or not _SEGMENT_MEMBERS.isdisjoint(members)


def _reparse_without_form(original: bytes, members: Members, received_at: int, limits: Limits) -> segment.Envelope:
    """What was kept before forms were."""
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
        raise InvalidBody("Send one message.")
    return envelope
