"""Attribution of real landing pages: group, source, medium, rule, channel."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enrichment import GROUPS, Attribution, Landing, attribute, channel_of
from app.enrichment.click_ids import CLICK_IDS
from app.enrichment.urls import VALUE_CHARS_MAX, find_parameters, host_of

HOME = "https://www.shop.example.com/landing"

LANDINGS = [
    tuple(row.values())
    for row in csv.DictReader(Path(__file__).with_name("attribution_cases.csv").read_text("utf-8").splitlines())
]
"""Columns: path and query after HOME, referrer, and the expected attribution. An empty source or medium means None."""


@pytest.mark.parametrize(("behind", "referrer", "group", "source", "medium", "rule", "channel"), LANDINGS)
def test_landing_is_attributed(
    behind: str, referrer: str, group: str, source: str, medium: str, rule: str, channel: str
) -> None:
    attribution = attribute(Landing(HOME + behind, None, referrer))
    assert attribution is not None
    assert (attribution.group, attribution.source or "", attribution.medium or "", attribution.rule) == (
        group,
        source,
        medium,
        rule,
    )
    assert channel_of(attribution) == channel


def test_landings_cover_every_group() -> None:
    assert {row[2] for row in LANDINGS} == set(GROUPS)


@pytest.mark.parametrize(
    ("url", "referrer"),
    [
        (HOME, HOME),
        (HOME, "https://www.shop.example.com/"),
        (HOME, "https://blog.example.com/post"),
        ("https://shop.example.co.uk/", "https://www.example.co.uk/"),
        ("http://localhost:8000/", "http://localhost:3000/"),
        ("http://192.0.2.1:8000/", "http://192.0.2.1/"),
        ("http://[2001:db8::1]/", "http://[2001:db8::1]:8080/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        (HOME, "https://accounts.google.com/o/oauth2"),
        (HOME, "https://checkout.stripe.com/c/pay"),
        (HOME, "https://www.paypal.com/checkoutnow"),
    ],
)
def test_page_within_the_site_is_not_attributed(url: str, referrer: str) -> None:
    assert attribute(Landing(url, None, referrer)) is None


@pytest.mark.parametrize(
    ("url", "referrer"),
    [
        ("https://one.github.io/", "https://other.github.io/"),
        ("https://example.co.uk/", "https://example.org.uk/"),
        ("https://example.com/", "https://example.org/"),
        ("http://192.0.2.1/", "http://192.0.3.1/"),
    ],
)
def test_neighbouring_hosts_are_different_sites(url: str, referrer: str) -> None:
    assert attribute(Landing(url, None, referrer)) is not None


def test_landing_without_data_is_not_attributed() -> None:
    assert attribute(Landing()) is None
    assert attribute(Landing(search="?a=1")) is None


def test_search_term_is_read_from_the_referrer() -> None:
    def term(url: str, referrer: str) -> str | None:
        attribution = attribute(Landing(url, None, referrer))
        assert attribution is not None
        return attribution.term

    assert term(HOME, "https://www.bing.com/search?q=red+shoes&form=QBLH") == "red shoes"
    assert term(HOME, "https://search.yahoo.com/search?p=sapatos%20vermelhos") == "sapatos vermelhos"
    assert term(HOME, "https://www.baidu.com/s?wd=%E9%9E%8B") == "鞋"
    assert term(HOME, "https://yandex.ru/search/?text=%D1%82%D1%83%D1%84%D0%BB%D0%B8") == "туфли"
    assert term(HOME, "https://blog.example.org/?q=private") is None
    assert term(f"{HOME}?utm_source=google&utm_medium=cpc&utm_term=shoes", "") == "shoes"


def test_campaign_tags_keep_their_case() -> None:
    query = "utm_source=Google&utm_medium=CPC&utm_campaign=Spring%20Sale&utm_content=Top+Banner&utm_term=Shoes&gclid=a"
    assert attribute(Landing(f"{HOME}?{query}", None, "")) == Attribution(
        group="Paid Search",
        rule="click_id:gclid",
        source="google",
        medium="cpc",
        campaign="Spring Sale",
        term="Shoes",
        content="Top Banner",
        click_id="gclid",
    )


def test_campaign_of_the_message_precedes_the_url() -> None:
    landing = Landing(
        f"{HOME}?utm_source=a&utm_medium=b&utm_content=c", None, "", {"source": "News", "medium": "email"}
    )
    attribution = attribute(landing)
    assert attribution is not None
    assert (attribution.group, attribution.source, attribution.medium, attribution.content) == (
        "Email",
        "news",
        "email",
        "c",
    )


def test_click_ids_of_the_message_are_used() -> None:
    attribution = attribute(Landing(HOME, None, "", {}, {"ttclid": "x", "gclid": ""}))
    assert attribution is not None
    assert (attribution.group, attribution.click_id) == ("Paid Social", "ttclid")


def test_query_may_come_without_the_url() -> None:
    attribution = attribute(Landing(HOME, "?gclid=1", ""))
    assert attribution is not None
    assert attribution.click_id == "gclid"


def test_every_click_id_is_attributed_to_a_group() -> None:
    for click in CLICK_IDS.values():
        attribution = attribute(Landing(f"{HOME}?{click.name}=1", None, ""))
        assert attribution is not None
        assert attribution.rule == f"click_id:{click.name}"
        assert attribution.group not in ("Unassigned", "Direct", "Referral"), click.name
        assert (GROUPS[attribution.group] in ("ads", "affiliate")) is click.paid, click.name


def test_attribution_values_are_bounded() -> None:
    long = "x" * 30_000
    attribution = attribute(Landing(f"{HOME}?utm_source={long}&utm_medium={long}", None, f"https://{long}.example/"))
    assert attribution is not None
    assert len(attribution.source or "") == VALUE_CHARS_MAX
    attribution = attribute(Landing(HOME, None, "https://" + "a." * 120 + "example/"))
    assert attribution is not None
    assert len(attribution.rule) <= 200


ODD = st.one_of(
    st.text(max_size=80),
    st.builds(
        "".join,
        st.lists(
            st.sampled_from(
                ["https://", "http://", "//", "@", ":", "[", "]", "%", "%00", "%ff", "?", "&", "=", "#", "utm_source",
                 "utm_medium=cpc", "gclid=1", "google.com", "www.", ".", "..", "xn--", "é", "\0", "\ud800", " ", "\\"]
            ),
            max_size=14,
        ),
    ),
)  # fmt: skip


@given(
    url=st.none() | ODD,
    search=st.none() | ODD,
    referrer=st.none() | ODD,
    campaign=st.dictionaries(st.sampled_from(["source", "medium", "campaign"]), ODD),
)
def test_any_landing_is_attributed_without_error(
    url: str | None, search: str | None, referrer: str | None, campaign: dict[str, str]
) -> None:
    attribution = attribute(Landing(url, search, referrer, campaign))
    if attribution is not None:
        assert attribution.group in GROUPS
        assert attribution.rule
        assert channel_of(attribution)
        for text in (
            attribution.source,
            attribution.medium,
            attribution.campaign,
            attribution.term,
            attribution.content,
        ):
            assert text is None or (text and "\0" not in text and len(text) <= VALUE_CHARS_MAX)


def test_host_of_url() -> None:
    hosts = {
        "https://example.com": "example.com",
        "HTTPS://EXAMPLE.COM./x": "example.com",
        "https://u:p@example.com:8443/x": "example.com",
        "https://a@b@example.com/": "example.com",
        "https://[2001:DB8::1]:80/": "[2001:db8::1]",
        "  https://example.com/": "example.com",
        "https://example.com\\@evil.example/": "example.com",
        "ftp://example.com/": "",
        "//example.com/": "",
        "example.com": "",
        "javascript:alert(1)//https://example.com": "",
        "https://": "",
        "https://?": "",
        "": "",
    }
    assert {url: host_of(url) for url in hosts} == hosts


def test_query_parameters_are_bounded() -> None:
    assert find_parameters("&".join(f"a{n}=1" for n in range(500)) + "&utm_source=x", {"utm_source"}) == {}
    assert find_parameters("a=1&b=%zz&c=%E4&d=+&b=2", {"b", "c", "d"}) == {"b": "%zz", "c": "\ufffd"}
