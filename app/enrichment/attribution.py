"""How a visit came about: click ids and UTM before the referrer, the referrer before "direct". Pure.

Only what comes from outside is an arrival: a page that is reached from another page of the same site is none, unless
its URL says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from app.enrichment.channel_groups import BOUGHT, DIRECT_MEDIUM, DIRECT_SOURCE, GROUPS, channel_group_of
from app.enrichment.click_ids import CLICK_IDS, ClickId, first_of
from app.enrichment.referrer_sites import Site, same_site, site_named, site_of
from app.enrichment.urls import VALUE_CHARS_MAX, cleaned, host_of, parameters, query_of

_UTM: Final = {
    "utm_source": "source",
    "utm_medium": "medium",
    "utm_campaign": "campaign",
    "utm_term": "term",
    "utm_content": "content",
}
_OF_URL: Final = frozenset((*_UTM, *CLICK_IDS))
_SEARCH_TERMS: Final = ("q", "query", "p", "wd", "word", "text", "keyword", "keywords", "search_query")
_MEDIUM_OF_SITE: Final = {"search": "organic", "mail": "email", "ai": "ai-assistant", "display": "display"}
_NOTHING: Final[Mapping[str, str]] = {}
_RULE_CHARS_MAX: Final = 200


class Landing(msgspec.Struct, frozen=True):
    """What a message says of how its page was reached; each may be anything, and None where it is not said.

    ``campaign`` has the names of this module (source, medium, campaign, term, content), ``click_ids`` those of URLs.
    """

    url: str | None = None
    search: str | None = None
    referrer: str | None = None
    campaign: Mapping[str, str] = _NOTHING
    click_ids: Mapping[str, str] = _NOTHING


class Attribution(msgspec.Struct, frozen=True, omit_defaults=True):
    """As it is stored in ``context.acquisition``. ``group`` is one of GROUPS; ``rule`` says what decided."""

    group: str
    rule: str
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    term: str | None = None
    content: str | None = None
    click_id: str | None = None


def attribute(landing: Landing) -> Attribution | None:
    """How the visit came about; None where it did not come from outside, or nothing is said of it."""
    query = query_of(landing.url or "") or landing.search
    if not query and not landing.campaign and not landing.click_ids:  # most pages
        return _referred(landing, {})
    said = parameters(query or "", _OF_URL)
    tags = {ours: said[name] for name, ours in _UTM.items() if name in said}
    for name in _UTM.values():
        if name in landing.campaign and (text := cleaned(landing.campaign[name])):
            tags[name] = text
    clicks = {name.lower() for name, value in landing.click_ids.items() if value} | said.keys()
    return _tagged(tags, first_of(clicks)) or _referred(landing, tags)


def channel_of(acquisition: Attribution) -> str:
    """The channel of a touchpoint that arrives so."""
    if acquisition.group == "Organic Social" and _is_chat(acquisition.source):
        return "chat"
    return GROUPS[acquisition.group]


def _tagged(tags: dict[str, str], click: ClickId | None) -> Attribution | None:
    """By UTM and click id; None where neither says where the visit came from."""
    if click is None and not tags.keys() & {"source", "medium"}:
        return None
    by_tags = _by_tags(tags, click)
    if click is None or not click.paid:
        return by_tags
    # A click that was paid for is believed before tags, unless these say as what else it was bought.
    by_click = _by_click(tags, click)
    return by_tags if by_tags.group in BOUGHT and by_tags.group != by_click.group else by_click


def _by_tags(tags: dict[str, str], click: ClickId | None) -> Attribution:
    if click is not None and not tags.keys() & {"source", "medium"}:
        return _by_click(tags, click)
    source = tags.get("source") or (click.source if click else "")
    medium = tags.get("medium") or (click.medium if click and not click.paid else "")
    group, field = channel_group_of(source, medium, tags.get("campaign", ""), site_named(source))
    rule = f"utm:{field}" if field in tags or click is None else f"click_id:{click.name}"
    return _acquisition(group, rule, source.lower(), medium.lower(), tags, click)


def _by_click(tags: dict[str, str], click: ClickId) -> Attribution:
    group, _ = channel_group_of(click.source, click.medium, tags.get("campaign", ""), site_named(click.source))
    return _acquisition(group, f"click_id:{click.name}", click.source, click.medium, tags, click)


def _referred(landing: Landing, tags: dict[str, str]) -> Attribution | None:
    """By the referrer, or for want of one."""
    referrer = landing.referrer or ""
    host = host_of(referrer)
    if not host:
        return _unreferred(landing, tags)
    if landing.url and (here := host_of(landing.url)) and same_site(host, here):
        return None
    site, plain = _by_host(host)
    if site is not None and site.category == "through":
        return None
    if site is not None and site.category == "search" and "term" not in tags and "?" in referrer:
        tags = tags | _search_term(referrer)
    if not tags:
        return plain
    source, medium = plain.source or "", plain.medium or ""
    group, field = channel_group_of(source, medium, tags.get("campaign", ""), site)
    rule = "utm:campaign" if field == "campaign" else plain.rule
    return _acquisition(group, rule, source, medium, tags)


@lru_cache(maxsize=4096)
def _by_host(host: str) -> tuple[Site | None, Attribution]:
    """What coming from a host says by itself."""
    site = site_of(host)
    if site is None:
        source, medium, came_from = host.removeprefix("www.")[:VALUE_CHARS_MAX], "referral", f"site:{host}"
    else:
        source, medium = site.name, _MEDIUM_OF_SITE.get(site.category, "referral")
        came_from = f"{site.category}:{site.host}"
    group, _ = channel_group_of(source, medium, "", site)
    return site, _acquisition(group, f"referrer:{came_from}"[:_RULE_CHARS_MAX], source, medium, {})


def _unreferred(landing: Landing, tags: dict[str, str]) -> Attribution | None:
    if tags.get("campaign"):
        group, _ = channel_group_of("", "", tags["campaign"], None)
        return _acquisition(group, "utm:campaign", "", "", tags)
    if landing.url is None and landing.referrer is None:
        return None
    return _acquisition("Direct", "direct", DIRECT_SOURCE, DIRECT_MEDIUM, tags)


def _search_term(referrer: str) -> dict[str, str]:
    asked = parameters(query_of(referrer), _SEARCH_TERMS)
    return next(({"term": asked[name]} for name in _SEARCH_TERMS if name in asked), {})


def _acquisition(
    group: str, rule: str, source: str, medium: str, tags: dict[str, str], click: ClickId | None = None
) -> Attribution:
    return Attribution(
        group=group,
        rule=rule,
        source=source or None,
        medium=medium or None,
        campaign=tags.get("campaign"),
        term=tags.get("term"),
        content=tags.get("content"),
        click_id=click.name if click is not None else None,
    )


def _is_chat(source: str | None) -> bool:
    site = site_named(source) if source else None
    return site is not None and site.category == "chat"
