"""Built-in mappings of surveys and user tests: messages imported from the export of each tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.imports.formats import mapping_of
from app.imports.mapping import FileMapping
from app.imports.rows import FilePosition, ImportRow, read_mapped_rows

SURVEYMONKEY = (
    "Respondent ID,Collector ID,Start Date,End Date,IP Address,Email Address,First Name,Last Name,Custom Data 1,"
    'How likely are you to recommend us?,"Which do you use?",\n'
    ",,,,,,,,,Response,Mail,Chat\n"
    "11400000001,42,05/04/2026 09:58:01 AM,05/04/2026 10:00:00 AM,203.0.113.9,user@example.com,Zoë,,vip,9,Mail,\n"
    "11400000002,42,05/04/2026 01:00:00 PM,05/04/2026 01:02:00 PM,203.0.113.9,,,,,3,,Chat\n"
)
HOTJAR = (
    "Number,User,Date Submitted,Country,Source URL,Device,Browser,OS,How was it?\n"
    "1,3f0e7c1a,2026-05-04 10:00:00,Germany,https://example.com/thanks,desktop,Firefox,Linux,8\n"
)
USERLYTICS = (
    "Participant ID,Email,Session ID,Completed At,Study Name,SUS Score,Video URL,Comments\n"
    "p-1,user@example.com,s-1,2026-05-04T10:00:00Z,Checkout,72.5,https://example.com/v/1,The map was slow\n"
)
CONTENTSQUARE = (
    "session_id,session_time,user_id,session_number_of_views,session_duration_msec,browser_name,replay_link\n"
    "77,2026-05-04 12:00:00,5066017809039612144,4,61000,Firefox,https://example.com/replay/77\n"
)


def lines(tmp_path: Path, kind: str, text: str, zone: str | None = None) -> list[ImportRow]:
    file = tmp_path / f"{kind}.csv"
    file.write_text(text)
    mapping = mapping_of(file, kind, None)
    assert isinstance(mapping, FileMapping)
    return list(read_mapped_rows(msgspec.structs.replace(mapping, zone=zone))(file, FilePosition()))


def messages(tmp_path: Path, kind: str, text: str, zone: str | None = None) -> list[dict[str, Any]]:
    rows = lines(tmp_path, kind, text, zone)
    assert [line.fault for line in rows if line.fault] == []
    return [json.loads(message) for line in rows for message in line.messages]


def test_surveymonkey_second_header_row_is_skipped(tmp_path: Path) -> None:
    first, names, second = messages(tmp_path, "surveymonkey", SURVEYMONKEY, "Europe/Berlin")
    assert (first["event"], first["timestamp"]) == ("survey.answered", "2026-05-04T08:00:00.000000Z")
    assert first["context"]["externalIds"] == [{"id": "11400000001", "type": "surveymonkey_respondent"}]
    assert first["context"]["traits"] == {"email": "user@example.com"}
    assert first["properties"]["how_likely_are_you_to_recommend_us"] == 9
    assert first["properties"]["which_do_you_use"] == "Mail"
    assert first["properties"]["custom_data_1"] == "vip"
    assert "203.0.113.9" not in json.dumps([first, names, second])
    assert (names["type"], names["traits"]["first_name"]) == ("identify", "Zoë")
    assert second["timestamp"] == "2026-05-04T11:02:00.000000Z"
    assert "traits" not in second["context"]


@pytest.mark.parametrize(
    ("kind", "text"), [("surveymonkey", SURVEYMONKEY), ("hotjar", HOTJAR), ("contentsquare", CONTENTSQUARE)]
)
def test_times_without_an_offset_need_a_zone(tmp_path: Path, kind: str, text: str) -> None:
    assert all("set `zone`" in (line.fault or "") for line in lines(tmp_path, kind, text))


def test_hotjar_export(tmp_path: Path) -> None:
    [answer] = messages(tmp_path, "hotjar", HOTJAR, "UTC")
    assert (answer["event"], answer["context"]["channel"]) == ("survey.completed", "survey")
    assert answer["context"]["externalIds"] == [{"id": "3f0e7c1a", "type": "hotjar_user"}]
    assert answer["properties"]["link"] == "https://example.com/thanks"
    assert answer["properties"]["how_was_it"] == 8


def test_userlytics_and_contentsquare_rows_are_recorded_sessions(tmp_path: Path) -> None:
    [study] = messages(tmp_path, "userlytics", USERLYTICS)
    assert (study["event"], study["context"]["channel"]) == ("session.recorded", "ux")
    assert (study["properties"]["recording_url"], study["properties"]["sus"]) == ("https://example.com/v/1", 72.5)
    assert study["context"]["private"] == {"comment": "The map was slow"}
    [session] = messages(tmp_path, "contentsquare", CONTENTSQUARE, "UTC")
    assert (session["event"], session["timestamp"]) == ("session.recorded", "2026-05-04T12:00:00.000000Z")
    assert session["context"]["externalIds"] == [{"id": "5066017809039612144", "type": "contentsquare_user"}]
    assert (session["properties"]["pages"], session["properties"]["session_id"]) == (4, "77")
