"""Files of figures: each tool's forms, and every way in which a row can be none."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from app.channel_metrics.parsers import METRIC_FORMATS
from app.channel_metrics.parsers.metric import MetricDefaults, ParsedMetrics, Unreadable

MAY_4, MAY_5 = date(2026, 5, 4), date(2026, 5, 5)


def read(kind: str, body: str | bytes, told: MetricDefaults | None = None) -> ParsedMetrics:
    return METRIC_FORMATS[kind].parse_file(body.encode() if isinstance(body, str) else body, told or MetricDefaults())


def said(figures: ParsedMetrics) -> dict[tuple[str, str, str], str]:
    """``(metric, subject, day)`` to value."""
    return {(each.metric, each.subject, each.day.isoformat()): str(each.value) for each in figures}


def bad(figures: ParsedMetrics) -> list[tuple[int | None, str]]:
    return [(each.line, each.reason) for each in figures.bad]


@pytest.mark.parametrize("kind", METRIC_FORMATS)
def test_the_sample_of_each_kind_is_figures_and_nothing_else(kind: str) -> None:
    figures = read(kind, METRIC_FORMATS[kind].sample, MetricDefaults(day=MAY_4))
    assert len(figures) > 0
    assert figures.bad == []


def test_business_suite_writes_utf16_with_the_metric_above_the_header() -> None:
    text = 'sep=,\n"Facebook visits"\n"Date","Primary"\n"2026-05-04T00:00:00","1,204"\n"2026-05-05T00:00:00","7"\n'
    figures = read("facebook_insights", b"\xff\xfe" + text.encode("utf-16-le"), MetricDefaults(subject="Our page"))
    assert said(figures) == {
        ("visits", "Our page", "2026-05-04"): "1204",
        ("visits", "Our page", "2026-05-05"): "7",
    }
    assert {each.channel for each in figures} == {"social"}


def test_old_page_insights_explain_their_columns_in_a_second_row() -> None:
    body = (
        "Date,Lifetime Total Likes,Daily New Likes,Source\n"
        ',"Lifetime: the people who like your Page","Daily: the people who came to",\n'
        "4/25/2026,1000,3,organic\n5/4/2026,1003,,ads\n"
    )
    figures = read("facebook_insights", body)
    assert said(figures) == {
        ("lifetime_total_likes", "", "2026-04-25"): "1000",
        ("daily_new_likes", "", "2026-04-25"): "3",
        ("lifetime_total_likes", "", "2026-05-04"): "1003",
    }
    assert bad(figures) == []


def test_the_graph_apis_day_is_the_one_that_ends() -> None:
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
    figures = read("instagram_insights", json.dumps(answer))
    assert said(figures) == {
        ("page_impressions", "1111", "2026-05-04"): "10",
        ("page_impressions_week", "1111", "2026-05-04"): "70",
        ("page_reactions_like", "", "2026-05-04"): "3",
        ("page_reactions_love", "", "2026-05-04"): "1",
    }
    assert bad(figures) == [
        (None, "data[2].values[2] of page_reactions: its value is no number"),
        (None, "data[2].values[3] of page_reactions: it has no end_time that can be read"),
        (None, "data[3] needs name and values"),
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
def test_a_day_of_insights_ends_in_its_own_offset(end: str, day: str) -> None:
    metric = {"name": "reach", "period": "day", "values": [{"value": 1, "end_time": end}]}
    assert set(said(read("facebook_insights", json.dumps({"data": [metric]})))) == {("reach", "", day)}


def test_the_first_of_all_days_has_none_before_it() -> None:
    metric = {"name": "reach", "values": [{"value": 1, "end_time": "0001-01-01T00:00:00+0000"}]}
    assert len(bad(read("facebook_insights", json.dumps({"data": [metric]})))) == 1


def test_an_error_of_the_graph_api_is_no_file() -> None:
    with pytest.raises(Unreadable, match="Invalid OAuth access token"):
        read("facebook_insights", '{"error": {"message": "Invalid OAuth access token"}}')


def test_both_generations_of_twitters_export() -> None:
    older = "Date,Tweets published,impressions,engagement rate,promoted impressions\n2026-05-04,2,1250,0.025,-\n"
    newer = 'Date,Impressions,Likes,New follows\n"Mon, May 4, 2026",1250,9,0\n'
    assert said(read("twitter_analytics", older)) == {
        ("tweets_published", "", "2026-05-04"): "2",
        ("impressions", "", "2026-05-04"): "1250",
        ("engagement_rate", "", "2026-05-04"): "0.025",
    }
    assert said(read("twitter_analytics", newer)) == {
        ("impressions", "", "2026-05-04"): "1250",
        ("likes", "", "2026-05-04"): "9",
        ("new_follows", "", "2026-05-04"): "0",
    }


def test_twitters_export_by_post_has_no_figures_of_a_day() -> None:
    with pytest.raises(Unreadable, match="by day"):
        read("twitter_analytics", "Post id,Date,Impressions\n1,2026-05-04,7\n")


def test_semrush_names_the_day_only_sometimes() -> None:
    history = "Rank;Organic Keywords;Date\n15000;500;20260504\n12345;641;20260505\n"
    assert said(read("semrush", history)) == {
        ("rank", "", "2026-05-04"): "15000",
        ("organic_keywords", "", "2026-05-04"): "500",
        ("rank", "", "2026-05-05"): "12345",
        ("organic_keywords", "", "2026-05-05"): "641",
    }
    with pytest.raises(Unreadable, match="day="):
        read("semrush", "Keyword;Position\nshoes;3\n")


def test_semrush_answers_one_after_another_with_their_errors() -> None:
    body = (
        "Database;Domain;Rank;Organic Traffic\nus;example.com;1500;1200000\n"
        "ERROR 50 :: NOTHING FOUND\n"
        "Database;Domain;Rank;Organic Traffic\nde;example.com;nil;7\n"
    )
    figures = read("semrush", body, MetricDefaults(day=MAY_4))
    assert said(figures) == {
        ("rank", "example.com us", "2026-05-04"): "1500",
        ("organic_traffic", "example.com us", "2026-05-04"): "1200000",
        ("organic_traffic", "example.com de", "2026-05-04"): "7",
    }
    assert bad(figures) == [
        (5, "rank is no number that can be read: 'nil'"),
        (3, "SEMrush says: ERROR 50 :: NOTHING FOUND"),
    ]


def test_semrush_that_found_nothing() -> None:
    figures = read("semrush", "ERROR 50 :: NOTHING FOUND")
    assert (len(figures), bad(figures)) == (0, [(1, "SEMrush says: ERROR 50 :: NOTHING FOUND")])


def test_a_keyword_that_stands_twice_keeps_its_first_position() -> None:
    figures = read(
        "semrush",
        "Keyword;Position;Url\nshoes;3;https://a\nshoes;9;https://b\nshoes;3;https://c\n",
        MetricDefaults(day=MAY_4),
    )
    assert said(figures) == {("position", "shoes", "2026-05-04"): "3"}
    assert bad(figures) == [(3, "position of shoes on 2026-05-04 is 3 in line 2 already")]


def test_a_bad_row_is_told_with_its_line_and_stops_no_other() -> None:
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
    figures = read("generic", body)
    assert said(figures) == {("spend", "", "2026-05-04"): "1.5", ("spend", "", "2026-05-05"): "-2"}
    assert [line for line, _ in bad(figures)] == [3, 4, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("dates", "told", "days"),
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
def test_an_ambiguous_date_is_settled_by_the_file_or_by_who_sends_it(
    dates: tuple[str, ...], told: MetricDefaults, days: list[str]
) -> None:
    body = "day,channel,metric,value\n" + "".join(f"{each},ads,spend,1\n" for each in dates)
    figures = read("generic", body, told)
    assert [day for _, _, day in said(figures)] == days
    assert all("may be two days" in reason for _, reason in bad(figures))
    assert len(figures) + len(figures.bad) == len(dates)


def test_a_comma_parts_thousands_only_where_it_cannot_be_a_decimal_one() -> None:
    assert said(read("twitter_analytics", 'Date,Impressions\n2026-05-04,"1,250"\n')) == {
        ("impressions", "", "2026-05-04"): "1250"
    }
    figures = read("semrush", "Keyword;Position;Volume\nshoes;1,250;7\nhats;2;8\n", MetricDefaults(day=MAY_4))
    assert ("position", "shoes", "2026-05-04") not in said(figures)
    assert bad(figures) == [(2, "position is no number that can be read: '1,250'")]


@pytest.mark.parametrize(
    "body",
    [b"", b"\n\n", b"no header at all\n1\n", b"\xff\xfe\x00", b"\xc3\x28,metric", b'"' + b"a" * 200_000 + b"\nDate\n"],
)
@pytest.mark.parametrize("kind", METRIC_FORMATS)
def test_what_is_no_such_file_is_refused_as_a_whole(kind: str, body: bytes) -> None:
    with pytest.raises(Unreadable):
        read(kind, body, MetricDefaults(day=MAY_4))


def test_headers_in_other_scripts_are_metrics_too() -> None:
    figures = read("twitter_analytics", "Date,Αναγνώσεις,% \n2026-05-05,7,1\n")
    assert {(each.metric, each.day, each.value) for each in figures} == {
        ("αναγνώσεις", MAY_5, Decimal(7)),
        ("percent", MAY_5, Decimal(1)),
    }


def test_a_column_of_what_may_be_german_thousands_is_refused() -> None:
    sure = "Date;Visits;Rate\n2026-05-04;1.234;1.234\n2026-05-05;12.345;0.5\n"
    figures = read("facebook_insights", sure)
    assert set(said(figures)) == {("rate", "", "2026-05-04"), ("rate", "", "2026-05-05")}
    assert [line for line, _ in bad(figures)] == [2, 3]
    assert "thousands" in bad(figures)[0][1]
