"""Attribution of visits: click ids and UTM parameters take precedence over the referrer, and the referrer over
"direct". Pure.

A visit arrives from outside. A page view that follows another page of the same site is not an arrival, unless its
URL has campaign parameters or a click id.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from app.enrichment.channel_groups import DIRECT_MEDIUM, DIRECT_SOURCE, GROUPS, PAID_GROUPS, classify_channel_group
from app.enrichment.click_ids import CLICK_IDS, ClickId, find_click_id
from app.enrichment.referrer_sites import Site, find_site, find_site_by_name, is_same_site
from app.enrichment.urls import VALUE_CHARS_MAX, clean_value, find_parameters, host_of, query_of

_UTM: Final = {
    "utm_source": "source",
    "utm_medium": "medium",
    "utm_campaign": "campaign",
    "utm_term": "term",
    "utm_content": "content",
}
_URL_PARAMETERS: Final = frozenset((*_UTM, *CLICK_IDS))
_SEARCH_TERMS: Final = ("q", "query", "p", "wd", "word", "text", "keyword", "keywords", "search_query")
_MEDIUM_OF_SITE: Final = {"search": "organic", "mail": "email", "ai": "ai-assistant", "display": "display"}
_NOTHING: Final[Mapping[str, str]] = {}
_RULE_CHARS_MAX: Final = 200


class Landing(msgspec.Struct, frozen=True):
    """Page URL, referrer and campaign of a message, unvalidated; None if absent.

    The keys of ``campaign`` are source, medium, campaign, term and content; those of ``click_ids`` are the names of URL
    parameters.
    """

    url: str | None = None
    search: str | None = None
    referrer: str | None = None
    campaign: Mapping[str, str] = _NOTHING
    click_ids: Mapping[str, str] = _NOTHING


class Attribution(msgspec.Struct, frozen=True, omit_defaults=True):
    """Attribution as stored in ``context.acquisition``.

    ``group`` is one of GROUPS, and ``rule`` is the rule that determined the attribution.
    """

    group: str
    rule: str
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    term: str | None = None
    content: str | None = None
    click_id: str | None = None


def attribute(landing: Landing) -> Attribution | None:
    """Return the attribution of a visit; None if it did not arrive from outside or nothing is known about it."""
    query = query_of(landing.url or "") or landing.search
    if not query and not landing.campaign and not landing.click_ids:  # True for most pages.
        return _attribute_by_referrer(landing, {})
    parameters = find_parameters(query or "", _URL_PARAMETERS)
    tags = {tag: parameters[name] for name, tag in _UTM.items() if name in parameters}
    for name in _UTM.values():
        if name in landing.campaign and (text := clean_value(landing.campaign[name])):
            tags[name] = text
    clicks = {name.lower() for name, value in landing.click_ids.items() if value} | parameters.keys()
    return _attribute_by_tags_or_click(tags, find_click_id(clicks)) or _attribute_by_referrer(landing, tags)


def channel_of(attribution: Attribution) -> str:
    """Return the channel of a touchpoint with this attribution."""
    if attribution.group == "Organic Social" and _is_chat(attribution.source):
        return "chat"
    return GROUPS[attribution.group]


def _attribute_by_tags_or_click(tags: dict[str, str], click: ClickId | None) -> Attribution | None:
    """Attribute by UTM parameters and click id; return None if neither contains a source or medium."""
    if click is None and not tags.keys() & {"source", "medium"}:
        return None
    by_tags = _attribute_by_tags(tags, click)
    if click is None or not click.paid:
        return by_tags
    # A paid click id takes precedence over UTM parameters, unless these belong to another paid group.
    by_click = _attribute_by_click(tags, click)
    return by_tags if by_tags.group in PAID_GROUPS and by_tags.group != by_click.group else by_click


def _attribute_by_tags(tags: dict[str, str], click: ClickId | None) -> Attribution:
    if click is not None and not tags.keys() & {"source", "medium"}:
        return _attribute_by_click(tags, click)
    source = tags.get("source") or (click.source if click else "")
    medium = tags.get("medium") or (click.medium if click and not click.paid else "")
    group, field = classify_channel_group(source, medium, tags.get("campaign", ""), find_site_by_name(source))
    rule = f"utm:{field}" if field in tags or click is None else f"click_id:{click.name}"
    return _build_attribution(group, rule, source.lower(), medium.lower(), tags, click)


def _attribute_by_click(tags: dict[str, str], click: ClickId) -> Attribution:
    group, _ = classify_channel_group(
        click.source, click.medium, tags.get("campaign", ""), find_site_by_name(click.source)
    )
    return _build_attribution(group, f"click_id:{click.name}", click.source, click.medium, tags, click)


def _attribute_by_referrer(landing: Landing, tags: dict[str, str]) -> Attribution | None:
    """Attribute by the referrer, or as direct if there is no referrer."""
    referrer = landing.referrer or ""
    host = host_of(referrer)
    if not host:
        return _attribute_without_referrer(landing, tags)
    if landing.url and (own_host := host_of(landing.url)) and is_same_site(host, own_host):
        return None
    site, untagged = _attribute_by_host(host)
    if site is not None and site.category == "through":
        return None
    if site is not None and site.category == "search" and "term" not in tags and "?" in referrer:
        tags = tags | _find_search_term(referrer)
    if not tags:
        return untagged
    source, medium = untagged.source or "", untagged.medium or ""
    group, field = classify_channel_group(source, medium, tags.get("campaign", ""), site)
    rule = "utm:campaign" if field == "campaign" else untagged.rule
    return _build_attribution(group, rule, source, medium, tags)


@lru_cache(maxsize=4096)
def _attribute_by_host(host: str) -> tuple[Site | None, Attribution]:
    """Return the site of a referring host, and its attribution without any UTM parameters."""
    site = find_site(host)
    if site is None:
        source, medium, came_from = host.removeprefix("www.")[:VALUE_CHARS_MAX], "referral", f"site:{host}"
    else:
        source, medium = site.name, _MEDIUM_OF_SITE.get(site.category, "referral")
        came_from = f"{site.category}:{site.host}"
    group, _ = classify_channel_group(source, medium, "", site)
    return site, _build_attribution(group, f"referrer:{came_from}"[:_RULE_CHARS_MAX], source, medium, {})


def _attribute_without_referrer(landing: Landing, tags: dict[str, str]) -> Attribution | None:
    if tags.get("campaign"):
        group, _ = classify_channel_group("", "", tags["campaign"], None)
        return _build_attribution(group, "utm:campaign", "", "", tags)
    if landing.url is None and landing.referrer is None:
        return None
    return _build_attribution("Direct", "direct", DIRECT_SOURCE, DIRECT_MEDIUM, tags)


def _find_search_term(referrer: str) -> dict[str, str]:
    terms = find_parameters(query_of(referrer), _SEARCH_TERMS)
    return next(({"term": terms[name]} for name in _SEARCH_TERMS if name in terms), {})


def _build_attribution(
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
    site = find_site_by_name(source) if source else None
    return site is not None and site.category == "chat"
