"""Inference of mappings: the result for many columns and cells, and the remaining doubts."""

from __future__ import annotations

from typing import Any

import pytest

from app.imports.mapping import MappingRefused, check_mapping
from app.imports.mapping_inference import (
    DECIMAL_COMMA,
    EVENT,
    TIMES,
    WHEN,
    WHO,
    ZONE,
    InferredMapping,
    Topic,
    apply_answer,
    infer_mapping,
)


def _guess(**columns: list[str]) -> InferredMapping:
    return infer_mapping(list(columns), _rows(**columns))


def _rows(**columns: list[str]) -> list[dict[str, str]]:
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _doubts(guessed: InferredMapping) -> list[str]:
    return [doubt.about for doubt in guessed.doubts]


def test_common_column_names_leave_no_doubts() -> None:
    header = ["timestamp", "user_id", "email", "channel", "event", "message_id", "plan"]
    row = ["2026-05-04T10:00:00Z", "user-1", "user@example.com", "email", "email.opened", "m-1", "pro"]
    guessed = infer_mapping(header, [dict(zip(header, row, strict=True))])
    assert guessed.doubts == ()
    assert check_mapping(guessed.mapping).columns == {name: name for name in header if name != "plan"}


@pytest.mark.parametrize(
    ("column", "place"),
    [
        ("Occurred At", "timestamp"),
        ("event_datetime", "timestamp"),
        ("Date/Time", "timestamp"),
        ("Created-At", "timestamp"),
        ("Touchpoint", "event"),
        ("Event Name", "event"),
        ("Source", "channel"),
        ("userId", "user_id"),
        ("CUSTOMER ID", "user_id"),
        ("external_id", "user_id"),
        ("Client ID", "anonymous_id"),
        ("device_id", "anonymous_id"),
        ("E-Mail", "email"),
        ("Phone Number", "phone"),
        ("Loyalty Card", "ids.loyalty_card"),
        ("Event ID", "message_id"),
        ("Stage", None),
    ],
)
def test_column_names_are_recognised_in_any_spelling(column: str, place: str | None) -> None:
    cell = "2026-05-04T10:00:00Z" if place == "timestamp" else "x"
    assert _guess(**{column: [cell]}).mapping.columns.get(column) == place


def test_repeated_id_is_not_a_message_id() -> None:
    assert _guess(id=["1", "2"]).mapping.columns == {"id": "message_id"}
    assert _guess(id=["1", "1"]).mapping.columns == {}


def test_email_column_is_recognised_by_its_cells() -> None:
    assert _guess(Kunde=["a@example.com", "b@example.com"], n=["1", "2"]).mapping.columns == {"Kunde": "email"}
    assert _guess(Kunde=["a@example.com", "nobody"]).mapping.columns == {}


@pytest.mark.parametrize(
    ("cells", "doubts", "times"),
    [
        (["1777888800", "1777888800123"], [], []),
        (["2026-05-04T10:00:00.1234567Z", "2026-05-04 12:00 +0200"], [], []),
        (["2026-05-04 10:00:00"], [ZONE], []),
        (["2026-05-04"], [ZONE], []),
        (["20260504", "20260505"], [ZONE], []),
        (["20260504101500"], [ZONE], []),
        (["46146.5", "46147"], [TIMES], []),
        (["04052026"], [TIMES], []),
        (["03/04/2026", "04/05/2026"], [TIMES], []),
        (["03/04/2026", "25/04/2026"], [ZONE], ["%d/%m/%Y"]),
        (["03/04/2026 1:05 PM", "04/25/2026 9:00 AM"], [ZONE], ["%m/%d/%Y %I:%M %p"]),
        (["04.05.2026 12:00:00.1234567"], [ZONE], ["%d.%m.%Y %H:%M:%S.%f"]),
        (["25/04/2026 10:00:00 +0200"], [], ["%d/%m/%Y %H:%M:%S %z"]),
        (["04 May 2026", "05 Jun 2026"], [ZONE], ["%d %b %Y"]),
        (["25/04/2026"] * 30 + ["n/a"], [ZONE], ["%d/%m/%Y"]),
        (["25/04/2026"] * 5 + ["n/a"] * 5, [TIMES], []),
    ],
)
def test_times(cells: list[str], doubts: list[str], times: list[str]) -> None:
    guessed = _guess(user_id=["1"] * len(cells), event=["x"] * len(cells), occurred_at=cells)
    assert (_doubts(guessed), guessed.mapping.times) == (doubts, times)


def test_order_of_day_and_month_is_a_doubt_with_two_choices() -> None:
    guessed = _guess(user_id=["1"], event=["x"], date=["03/04/2026"])
    (doubt,) = guessed.doubts
    assert set(doubt.choices) == {"%d/%m/%Y", "%m/%d/%Y"}
    then = apply_answer(guessed, TIMES, "%m/%d/%Y")
    assert (then.mapping.times, _doubts(then)) == (["%m/%d/%Y"], [ZONE])
    done = apply_answer(then, ZONE, "Europe/Berlin")
    assert check_mapping(done.mapping).zone == "Europe/Berlin"
    assert done.doubts == ()


@pytest.mark.parametrize(
    ("cells", "comma", "doubts"),
    [
        (["19,90", "1.234,50"], True, []),
        (["19.90", "1,234"], False, []),
        (["1,234"], False, [DECIMAL_COMMA]),
        (["19", "20"], False, []),
        (["Berlin, 3"], False, []),
    ],
)
def test_decimal_commas_are_inferred(cells: list[str], comma: bool, doubts: list[str]) -> None:
    guessed = _guess(user_id=["1"] * len(cells), total=cells)
    assert (guessed.mapping.decimal_comma, _doubts(guessed)) == (comma, doubts)


def test_decimal_point_of_one_column_does_not_explain_another() -> None:
    assert _doubts(_guess(user_id=["1"], rate=["1.2"], total=["1,234"])) == [DECIMAL_COMMA]
    assert _doubts(_guess(user_id=["1"], version=["1.2"], total=["19,90"])) == [DECIMAL_COMMA]


def test_points_before_three_digits_are_a_doubt_in_semicolon_files() -> None:
    def guessed(total: str, delimiter: str) -> InferredMapping:
        return infer_mapping(["user_id", "total"], _rows(user_id=["1", "2"], total=["1.234", total]), delimiter)

    inferred = guessed("12.345.678", ";")
    assert _doubts(inferred) == [DECIMAL_COMMA]
    assert apply_answer(inferred, DECIMAL_COMMA, "yes").mapping.decimal_comma
    assert _doubts(guessed("1.5", ";")) == _doubts(guessed("12.345", ",")) == []


def test_missing_targets_are_doubts() -> None:
    columns = {"Kundennummer": ["7"], "Datum": ["25.04.2026"]}
    guessed = _guess(**columns)
    assert _doubts(guessed) == [WHO]  # Without events and times, rows are customers, and columns are traits.
    assert guessed.mapping.others == "traits"
    columns = {"Kundennummer": ["7"], "Event": ["x"], "Datum": ["25.04.2026"]}
    guessed = _guess(**columns)
    assert _doubts(guessed) == [WHO, WHEN]
    answers: list[tuple[Topic, str]] = [(WHO, "Kundennummer"), (WHEN, "Datum"), (ZONE, "UTC")]
    for about, answer in answers:
        guessed = apply_answer(guessed, about, answer, _rows(**columns))
    assert guessed.doubts == ()
    assert check_mapping(guessed.mapping).times == ["%d.%m.%Y"]
    guessed = _guess(user_id=["7"], date=["2026-05-04T10:00:00Z"])
    assert _doubts(guessed) == [EVENT]
    assert check_mapping(apply_answer(guessed, EVENT, "Order Completed").mapping).constants == {
        "event": "Order Completed"
    }


@pytest.mark.parametrize(("about", "answer"), [(ZONE, "Mars"), (TIMES, "dd.mm.yyyy"), (EVENT, " ")])
def test_invalid_answer_is_refused(about: Topic, answer: Any) -> None:
    with pytest.raises(MappingRefused):
        apply_answer(_guess(user_id=["1"], date=["03/04/2026"]), about, answer)
