"""Parsers of metric files: all formats, and every reason for an invalid row."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from app.channel_metrics.parsers import METRIC_FORMATS
from app.channel_metrics.parsers.metric import MetricDefaults, ParsedMetrics, Unreadable

MAY_4, MAY_5 = date(2026, 5, 4), date(2026, 5, 5)


def read(kind: str, body: str | bytes, defaults: MetricDefaults | None = None) -> ParsedMetrics:
    return METRIC_FORMATS[kind].parse_file(
        body.encode() if isinstance(body, str) else body, defaults or MetricDefaults()
    )


def values_by_key(parsed: ParsedMetrics) -> dict[tuple[str, str, str], str]:
    """Return the values of a file by ``(metric, subject, day)``."""
    return {(item.metric, item.subject, item.day.isoformat()): str(item.value) for item in parsed}


def bad(parsed: ParsedMetrics) -> list[tuple[int | None, str]]:
    return [(item.line, item.reason) for item in parsed.bad]


@pytest.mark.parametrize("kind", METRIC_FORMATS)
def test_sample_of_every_format_has_only_valid_rows(kind: str) -> None:
    parsed = read(kind, METRIC_FORMATS[kind].sample, MetricDefaults(day=MAY_4))
    assert len(parsed) > 0
    assert parsed.bad == []


def test_business_suite_export_in_utf16_with_title() -> None:
    text = 'sep=,\n"Facebook visits"\n"Date","Primary"\n"2026-05-04T00:00:00","1,204"\n"2026-05-05T00:00:00","7"\n'
    parsed = read("facebook_insights", b"\xff\xfe" + text.encode("utf-16-le"), MetricDefaults(subject="Our page"))
    assert values_by_key(parsed) == {
        ("visits", "Our page", "2026-05-04"): "1204",
        ("visits", "Our page", "2026-05-05"): "7",
    }
    assert {item.channel for item in parsed} == {"social"}


def test_old_page_insights_with_explaining_second_row() -> None:
    body = (
        "Date,Lifetime Total Likes,Daily New Likes,Source\n"
        ',"Lifetime: the people who like your Page","Daily: the people who came to",\n'
        "4/25/2026,1000,3,organic\n5/4/2026,1003,,ads\n"
    )
    parsed = read("facebook_insights", body)
    assert values_by_key(parsed) == {
        ("lifetime_total_likes", "", "2026-04-25"): "1000",
        ("daily_new_likes", "", "2026-04-25"): "3",
        ("lifetime_total_likes", "", "2026-05-04"): "1003",
    }
    assert bad(parsed) == []


def test_graph_api_day_is_the_day_before_end_time() -> None:
    answer = {
        "data": [
            {
                "name": "page_impressions",
                "period": "day",
                "values": [{"value": 10, "end_time": "2026-05-05T07:00:00+0000"}],
                "id": "1111/insights/page_impressions/day",
            },
            {
                "name": "page_impressions",
                "period": "week",
                "values": [{"value": 70, "end_time": "2026-05-05T07:00:00+0000"}],
                "id": "1111/insights/page_impressions/week",
            },
            {
                "name": "page_reactions",
                "period": "day",
                "values": [
                    {"value": {"like": 3, "love": 1}, "end_time": "2026-05-05T07:00:00+0000"},
                    {"value": {}, "end_time": "2026-05-06T07:00:00+0000"},
                    {"value": "many", "end_time": "2026-05-07T07:00:00+0000"},
                    {"value": 3},
                ],
            },
            {"name": "nothing"},
        ]
    }
    parsed = read("instagram_insights", json.dumps(answer))
    assert values_by_key(parsed) == {
        ("page_impressions", "1111", "2026-05-04"): "10",
        ("page_impressions_week", "1111", "2026-05-04"): "70",
        ("page_reactions_like", "", "2026-05-04"): "3",
        ("page_reactions_love", "", "2026-05-04"): "1",
    }
    assert bad(parsed) == [
        (None, "data[2].values[2] of page_reactions: `value` is not a number"),
        (None, "data[2].values[3] of page_reactions: `end_time` is missing or unreadable"),
        (None, "data[3] needs `name` and `values`"),
    ]


@pytest.mark.parametrize(
    ("end", "day"),
    [
        ("2026-05-05T00:00:00+0200", "2026-05-04"),
        ("2026-05-05T23:30:00-0700", "2026-05-04"),
        ("2026-05-05T07:00:00+0000", "2026-05-04"),
        ("1777939200", "2026-05-04"),
    ],
)
def test_graph_api_day_uses_the_offset_of_end_time(end: str, day: str) -> None:
    metric = {"name": "reach", "period": "day", "values": [{"value": 1, "end_time": end}]}
    assert set(values_by_key(read("facebook_insights", json.dumps({"data": [metric]})))) == {("reach", "", day)}


def test_end_time_on_the_first_day_is_refused() -> None:
    metric = {"name": "reach", "values": [{"value": 1, "end_time": "0001-01-01T00:00:00+0000"}]}
    assert len(bad(read("facebook_insights", json.dumps({"data": [metric]})))) == 1


def test_graph_api_error_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="Invalid OAuth access token"):
        read("facebook_insights", '{"error": {"message": "Invalid OAuth access token"}}')


def test_twitter_export_in_old_and_new_format() -> None:
    older = "Date,Tweets published,impressions,engagement rate,promoted impressions\n2026-05-04,2,1250,0.025,-\n"
    newer = 'Date,Impressions,Likes,New follows\n"Mon, May 4, 2026",1250,9,0\n'
    assert values_by_key(read("twitter_analytics", older)) == {
        ("tweets_published", "", "2026-05-04"): "2",
        ("impressions", "", "2026-05-04"): "1250",
        ("engagement_rate", "", "2026-05-04"): "0.025",
    }
    assert values_by_key(read("twitter_analytics", newer)) == {
        ("impressions", "", "2026-05-04"): "1250",
        ("likes", "", "2026-05-04"): "9",
        ("new_follows", "", "2026-05-04"): "0",
    }


def test_twitter_export_by_post_is_refused() -> None:
    with pytest.raises(Unreadable, match="by day"):
        read("twitter_analytics", "Post id,Date,Impressions\n1,2026-05-04,7\n")


def test_semrush_report_without_a_date_uses_the_default_day() -> None:
    history = "Rank;Organic Keywords;Date\n15000;500;20260504\n12345;641;20260505\n"
    assert values_by_key(read("semrush", history)) == {
        ("rank", "", "2026-05-04"): "15000",
        ("organic_keywords", "", "2026-05-04"): "500",
        ("rank", "", "2026-05-05"): "12345",
        ("organic_keywords", "", "2026-05-05"): "641",
    }
    with pytest.raises(Unreadable, match="day="):
        read("semrush", "Keyword;Position\nshoes;3\n")


def test_semrush_file_of_several_responses_with_errors() -> None:
    body = (
        "Database;Domain;Rank;Organic Traffic\nus;example.com;1500;1200000\n"
        "ERROR 50 :: NOTHING FOUND\n"
        "Database;Domain;Rank;Organic Traffic\nde;example.com;nil;7\n"
    )
    parsed = read("semrush", body, MetricDefaults(day=MAY_4))
    assert values_by_key(parsed) == {
        ("rank", "example.com us", "2026-05-04"): "1500",
        ("organic_traffic", "example.com us", "2026-05-04"): "1200000",
        ("organic_traffic", "example.com de", "2026-05-04"): "7",
    }
    assert bad(parsed) == [
        (5, "rank is not a readable number: 'nil'"),
        (3, "SEMrush reported: ERROR 50 :: NOTHING FOUND"),
    ]


def test_semrush_response_without_results() -> None:
    parsed = read("semrush", "ERROR 50 :: NOTHING FOUND")
    assert (len(parsed), bad(parsed)) == (0, [(1, "SEMrush reported: ERROR 50 :: NOTHING FOUND")])


def test_repeated_keyword_keeps_its_first_position() -> None:
    parsed = read(
        "semrush",
        "Keyword;Position;Url\nshoes;3;https://a\nshoes;9;https://b\nshoes;3;https://c\n",
        MetricDefaults(day=MAY_4),
    )
    assert values_by_key(parsed) == {("position", "shoes", "2026-05-04"): "3"}
    assert bad(parsed) == [(3, "position of shoes on 2026-05-04 is already 3 in line 2")]


def test_invalid_row_is_reported_with_its_line() -> None:
    body = (
        "day,channel,metric,value,subject\n"
        "2026-05-04,ads,spend,1.5,\n"
        "2026-02-30,ads,spend,1,\n"
        'soon,ads,spend,1,"over\ntwo lines"\n'
        "2026-05-04,!!,spend,1,\n"
        "2026-05-04,ads,,1,\n"
        "2026-05-04,ads,spend,much,\n"
        "2026-05-04,ads,spend,1e9,\n"
        f"2026-05-04,ads,large,{'9' * 35},\n"
        "2026-05-04,ads\n"
        "\n"
        "2026-05-05,ads,spend,-2,\n"
    )
    parsed = read("generic", body)
    assert values_by_key(parsed) == {("spend", "", "2026-05-04"): "1.5", ("spend", "", "2026-05-05"): "-2"}
    assert [line for line, _ in bad(parsed)] == [3, 4, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("dates", "defaults", "days"),
    [
        (("25/04/2026", "03/05/2026"), MetricDefaults(), ["2026-04-25", "2026-05-03"]),
        (("04/25/2026", "05/03/2026"), MetricDefaults(), ["2026-04-25", "2026-05-03"]),
        (("25.04.2026", "03.05.2026"), MetricDefaults(), ["2026-04-25", "2026-05-03"]),
        (("03/05/2026",), MetricDefaults(day_first=True), ["2026-05-03"]),
        (("03/05/2026",), MetricDefaults(day_first=False), ["2026-03-05"]),
        (("05/05/2026",), MetricDefaults(), ["2026-05-05"]),
        (("03/05/2026",), MetricDefaults(), []),
        (("13/05/2026", "05/14/2026", "03/05/2026"), MetricDefaults(), ["2026-05-13", "2026-05-14"]),
    ],
)
def test_ambiguous_date_is_resolved_by_the_file_or_the_default(
    dates: tuple[str, ...], defaults: MetricDefaults, days: list[str]
) -> None:
    body = "day,channel,metric,value\n" + "".join(f"{date},ads,spend,1\n" for date in dates)
    parsed = read("generic", body, defaults)
    assert [day for _, _, day in values_by_key(parsed)] == days
    assert all("is ambiguous" in reason for _, reason in bad(parsed))
    assert len(parsed) + len(parsed.bad) == len(dates)


def test_comma_separates_thousands_only_if_unambiguous() -> None:
    assert values_by_key(read("twitter_analytics", 'Date,Impressions\n2026-05-04,"1,250"\n')) == {
        ("impressions", "", "2026-05-04"): "1250"
    }
    parsed = read("semrush", "Keyword;Position;Volume\nshoes;1,250;7\nhats;2;8\n", MetricDefaults(day=MAY_4))
    assert ("position", "shoes", "2026-05-04") not in values_by_key(parsed)
    assert bad(parsed) == [(2, "position is not a readable number: '1,250'")]


@pytest.mark.parametrize(
    "body",
    [b"", b"\n\n", b"no header at all\n1\n", b"\xff\xfe\x00", b"\xc3\x28,metric", b'"' + b"a" * 200_000 + b"\nDate\n"],
)
@pytest.mark.parametrize("kind", METRIC_FORMATS)
def test_file_of_another_format_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(Unreadable):
        read(kind, body, MetricDefaults(day=MAY_4))


def test_headers_in_other_scripts_become_metrics() -> None:
    parsed = read("twitter_analytics", "Date,Αναγνώσεις,% \n2026-05-05,7,1\n")
    assert {(item.metric, item.day, item.value) for item in parsed} == {
        ("αναγνώσεις", MAY_5, Decimal(7)),
        ("percent", MAY_5, Decimal(1)),
    }


def test_column_of_possible_german_thousands_is_refused() -> None:
    sure = "Date;Visits;Rate\n2026-05-04;1.234;1.234\n2026-05-05;12.345;0.5\n"
    parsed = read("facebook_insights", sure)
    assert set(values_by_key(parsed)) == {("rate", "", "2026-05-04"), ("rate", "", "2026-05-05")}
    assert [line for line, _ in bad(parsed)] == [2, 3]
    assert "thousands" in bad(parsed)[0][1]
