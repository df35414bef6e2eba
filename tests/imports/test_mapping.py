"""Rows converted by a mapping: the value of each target, and rejected rows."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from app.connectors.adapter import to_segment_message
from app.connectors.webhook_request import Unreadable
from app.imports.mapping import FileMapping, MappingRefused, RowReader, check_mapping

CARDS = {"Who": "user_id", "When": "timestamp"}


def _calls(row: dict[str, Any], **mapping: Any) -> list[Any]:
    mapping.setdefault("columns", CARDS)
    mapping.setdefault("constants", {"event": "Bought"})
    return RowReader(check_mapping(FileMapping(**mapping)), row).map_row(row)


def _message(row: dict[str, Any], **mapping: Any) -> dict[str, Any]:
    (call,) = _calls(row, **mapping)
    return json.loads(to_segment_message(call))


def test_row_sets_every_target() -> None:
    row = {
        "what": "SALE",
        "Kunden_Nr": "42",
        "E-MAIL": " User@example.com ",
        "Tel": "'+49 30 123456",
        "visitor": "v-1",
        "card": "0012",
        "Sold At": "2026-05-04T12:00:00.1234567+02:00",
        "via": "in_store",
        "no": "r-1",
        "Total": "42.50",
        "city": "Köln",
        "camp": "spring",
        "said": "hä?",
        "printed": "never mind",
        "Größe in cm": "7",
    }
    columns = {
        "What": "event",
        "kunden nr": "user_id",
        "email": "email",
        "tel": "phone",
        "visitor": "anonymous_id",
        "card": "ids.loyalty_card",
        "sold_at": "timestamp",
        "via": "channel",
        "no": "message_id",
        "total": "properties.money.total",
        "city": ["properties.city", "properties.place"],
        "camp": "context.campaign.name",
        "said": "text.said",
        "printed": "ignore",
    }
    message = _message(
        row, columns=columns, values={"event": {"SALE": "Order Completed"}}, constants={"properties.x": 1}
    )
    assert message == {
        "type": "track",
        "messageId": "r-1",
        "event": "Order Completed",
        "timestamp": "2026-05-04T10:00:00.123456Z",
        "userId": "42",
        "anonymousId": "v-1",
        "properties": {"money": {"total": 42.5}, "city": "Köln", "place": "Köln", "x": 1, "größe_in_cm": 7},
        "context": {
            "campaign": {"name": "spring"},
            "channel": "in_store",
            "externalIds": [{"id": "0012", "type": "loyalty_card"}],
            "private": {"said": "hä?"},
            "traits": {"email": "User@example.com", "phone": "+49 30 123456"},
        },
    }


@pytest.mark.parametrize(
    ("cell", "zone", "instant"),
    [
        ("1777888800", None, "2026-05-04T10:00:00.000000Z"),
        ("1777888800123", None, "2026-05-04T10:00:00.123000Z"),
        ("2026-05-04T10:00:00.1234567Z", None, "2026-05-04T10:00:00.123456Z"),
        ("2026-05-04 12:00:00 +0200", "Asia/Tokyo", "2026-05-04T10:00:00.000000Z"),
        ("2026-05-04 12:00:00", "Europe/Berlin", "2026-05-04T10:00:00.000000Z"),
        ("2026-05-04", "America/New_York", "2026-05-04T04:00:00.000000Z"),
        ("2026-03-29 02:30:00", "Europe/Berlin", "2026-03-29T01:30:00.000000Z"),  # skipped by the clock: an hour later
        ("2026-10-25 02:30:00", "Europe/Berlin", "2026-10-25T00:30:00.000000Z"),  # occurs twice: the first counts
    ],
)
def test_times(cell: str, zone: str | None, instant: str) -> None:
    assert _message({"who": "1", "when": cell}, zone=zone)["timestamp"] == instant


@pytest.mark.parametrize(
    ("cell", "times", "zone", "instant"),
    [
        ("03/04/2026 9:05 PM", ["%m/%d/%Y %I:%M %p"], "UTC", "2026-03-04T21:05:00.000000Z"),
        ("03/04/2026", ["%d/%m/%Y"], "Europe/Berlin", "2026-04-02T22:00:00.000000Z"),
        ("04.05.2026 12:00:00.1234567", ["%d.%m.%Y", "%d.%m.%Y %H:%M:%S.%f"], "UTC", "2026-05-04T12:00:00.123456Z"),
        ("04 May 2026 12:00 +0200", ["%d %b %Y %H:%M %z"], None, "2026-05-04T10:00:00.000000Z"),
    ],
)
def test_times_with_declared_formats(cell: str, times: list[str], zone: str | None, instant: str) -> None:
    assert _message({"who": "1", "when": cell}, times=times, zone=zone)["timestamp"] == instant


@pytest.mark.parametrize(
    ("cell", "more", "why"),
    [
        ("2026-05-04 12:00:00", {}, "set `zone`"),
        ("03/04/2026", {"zone": "UTC"}, "add its format"),
        ("yesterday", {"zone": "UTC"}, "add its format"),
        ("2026-05-04", {"zone": "UTC", "times": ["%d.%m.%Y"]}, "does not match any format"),
        ("03.04.2026", {"times": ["%d.%m.%Y"]}, "set `zone`"),
        ("01.01.0001", {"zone": "Asia/Tokyo", "times": ["%d.%m.%Y"]}, "1 to 9999"),
        ("", {}, "no time"),
    ],
)
def test_ambiguous_times_are_rejected(cell: str, more: dict[str, Any], why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        _calls({"who": "1", "when": cell}, **more)


@pytest.mark.parametrize(
    ("cell", "plain", "comma"),
    [
        ("1234", 1234, 1234),
        ("1234.5", Decimal("1234.5"), "1234.5"),
        ("1234,5", "1234,5", Decimal("1234.5")),
        ("1.234,50", "1.234,50", Decimal("1234.50")),
        ("1.234", Decimal("1.234"), 1234),
        ("-0,5", "-0,5", Decimal("-0.5")),
        ("007", "007", "007"),
        ("1e3", Decimal("1e3"), "1e3"),
        ("+1", "+1", "+1"),
        ("true", True, True),
        ("True", "True", "True"),
        ("1" * 25, "1" * 25, "1" * 25),
        ("1,234.5", "1,234.5", "1,234.5"),
    ],
)
def test_numbers_with_point_and_comma(cell: str, plain: Any, comma: Any) -> None:
    row = {"who": "1", "when": "1777888800", "n": cell}
    for decimal_comma, expected in ((False, plain), (True, comma)):
        value = _calls(row, decimal_comma=decimal_comma)[0].properties["n"]
        assert (value, type(value)) == (expected, type(expected))
    assert _calls(row, texts=["properties.n"])[0].properties["n"] == cell


def test_row_with_traits_becomes_an_identify_message() -> None:
    columns = {**CARDS, "What": "event", "Tier": "traits.tier"}
    row = {"who": "1", "when": "1777888800", "tier": "gold"}
    (identify,) = _calls(row, columns=columns, constants={})
    assert (identify.event, identify.traits) == (None, {"tier": "gold"})
    touchpoint, identify = _calls({**row, "what": "Joined"}, columns=columns, constants={})
    assert (touchpoint.event, touchpoint.traits, identify.event) == ("Joined", {}, None)
    assert touchpoint.id != identify.id
    (customer,) = _calls({"who": "1", "city": "Köln"}, columns={"who": "user_id"}, constants={}, others="traits")
    assert customer.traits == {"city": "Köln"}
    with pytest.raises(Unreadable, match="neither an event"):
        _calls({"who": "1", "when": "1777888800", "tier": ""}, columns=columns, constants={})


def test_first_non_empty_column_sets_the_target() -> None:
    columns = {**CARDS, "Email": "email", "Email Address": "email"}
    row = {"who": "1", "when": "1777888800", "Email Address": "b@example.com", "Email": ""}
    assert _calls(row, columns=columns)[0].email == "b@example.com"
    assert _calls({**row, "Email": "a@example.com"}, columns=columns)[0].email == "a@example.com"


def test_derived_message_ids() -> None:
    mapping = check_mapping(FileMapping(columns={**CARDS, "printed": "ignore"}, constants={"event": "Bought"}))
    one = {"who": "1", "when": "1777888800", "n": "1"}
    other = {"n": "1", "WHEN": "1777888800", "Who": " 1", "printed": "today", "empty": ""}
    reader = RowReader(mapping)
    ids = [reader.map_row(row)[0].id for row in (one, other, {**one, "n": "2"}, one)]
    assert ids[1] == f"{ids[0]}-2"
    assert ids[3] == f"{ids[0]}-3"
    assert len(set(ids)) == 4
    again = RowReader(mapping)
    assert [again.map_row(row)[0].id for row in (other, {**one, "n": "2"}, one, one)] == [
        ids[0],
        ids[2],
        ids[1],
        ids[3],
    ]


def test_ndjson_values_keep_their_types() -> None:
    columns: dict[str, str | list[str]] = {"user.id": "user_id", "user.plan.name": "properties.plan", "at": "timestamp"}
    reader = RowReader(check_mapping(FileMapping(columns=columns, constants={"event": "Bought"})))
    row = {"user": {"id": 7, "plan": {"name": "pro"}, "age": 3}, "at": 1777888800, "n": "1", "list": [1, {"a": None}]}
    (call,) = reader.map_row(row)
    assert call.user_id == 7
    assert call.properties == {"plan": "pro", "user": {"age": 3}, "n": "1", "list": [1, {"a": None}]}
    (bare,) = reader.map_row({"user": {"id": "8"}, "at": "2026-05-04T10:00:00Z"})
    assert (bare.user_id, bare.properties) == ("8", {})


@pytest.mark.parametrize(
    ("mapping", "why"),
    [
        ({"columns": {"a": "user_id"}}, "target `event` or `traits"),
        ({"columns": {"a": "event", "b": "user_id"}}, "need a time"),
        ({"columns": {"a": "event", "b": "timestamp"}}, "an identity as target"),
        ({"columns": {**CARDS, "c": "properties"}}, "not a valid target"),
        ({"columns": {**CARDS, "c": "ids.Bad Kind"}}, "not a valid target"),
        ({"columns": {**CARDS, "c": "properties..x"}}, "not a valid target"),
        ({"columns": CARDS, "constants": {"event": "x", "nonsense": 1}}, "not a valid target"),
        ({"columns": CARDS, "constants": {"event": "x", "message_id": "1"}}, "stored as one message"),
        ({"columns": CARDS, "constants": {"event": "x"}, "zone": "Mars"}, "unknown time zone"),
        ({"columns": CARDS, "constants": {"event": "x"}, "delimiter": "||"}, "one character"),
        ({"columns": CARDS, "constants": {"event": "x"}, "times": ["dd.mm.yyyy"]}, "format"),
        ({"columns": CARDS, "constants": {"event": "x"}, "skip_rows": -1}, "must not be negative"),
    ],
)
def test_invalid_mapping_is_refused(mapping: dict[str, Any], why: str) -> None:
    with pytest.raises(MappingRefused, match=why):
        check_mapping(FileMapping(**mapping))


def test_file_must_have_the_columns_that_its_mapping_needs() -> None:
    mapping = check_mapping(FileMapping(columns={**CARDS, "Mail": "email"}, constants={"event": "x"}))
    RowReader(mapping, ["MAIL", "when"])
    with pytest.raises(MappingRefused, match=r"identity as target.*file's columns: other, when"):
        RowReader(mapping, ["When", "Other"])
    with pytest.raises(MappingRefused, match="need a time"):
        RowReader(mapping, ["Who", "Other"])


@pytest.mark.parametrize(
    ("cell", "instant"),
    [("20260504", "2026-05-03T22:00:00.000000Z"), ("20260504101500", "2026-05-04T08:15:00.000000Z")],
)
def test_eight_or_fourteen_digits_are_local_dates(cell: str, instant: str) -> None:
    row = {"Who": "u", "When": cell}
    assert _message(row, zone="Europe/Berlin")["timestamp"] == instant
    with pytest.raises(Unreadable, match="set `zone`"):
        _calls(row)


@pytest.mark.parametrize("cell", ["46146.5", "46146", "0", "-1", "999999999", "1e8", "202605041015"])
def test_epoch_number_before_2001_must_be_declared(cell: str) -> None:
    row = {"Who": "u", "When": cell}
    with pytest.raises(Unreadable, match="before 2001"):
        _calls(row, zone="UTC")
    assert _message(row, times=["%Y-%m-%d", "%s"])["timestamp"] < "2001-09-10"


@pytest.mark.parametrize("cell", ["04052026", "20261399", "99990504101500"])
def test_invalid_digit_dates_are_not_epoch_numbers(cell: str) -> None:
    with pytest.raises(Unreadable, match="add its format"):
        _calls({"Who": "u", "When": cell}, zone="UTC")
