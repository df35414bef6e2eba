"""GA4's default channel groups by source, medium and campaign: its published rules for manual traffic, in their
order. Pure.

Three additions to GA4's rules: mail hosts are Email; chat hosts are Organic Social, as most of them are in GA4's list;
AI assistants are tested before the organic groups.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from app.enrichment.referrer_sites import Category, Site

Field = Literal["source", "medium", "campaign"]

DIRECT_SOURCE: Final = "(direct)"
DIRECT_MEDIUM: Final = "(none)"

GROUPS: Final = {
    "Direct": "web",
    "Cross-network": "ads",
    "Paid Shopping": "ads",
    "Paid Search": "ads",
    "Paid Social": "ads",
    "Paid Video": "ads",
    "Display": "ads",
    "Paid Other": "ads",
    "AI Assistant": "ai",
    "Organic Shopping": "shopping",
    "Organic Social": "social",
    "Organic Video": "video",
    "Organic Search": "search",
    "Email": "email",
    "Affiliates": "affiliate",
    "Referral": "referral",
    "Audio": "ads",
    "SMS": "sms",
    "Mobile Push Notifications": "push",
    "Unassigned": "web",
}
"""Channel of a touchpoint by channel group, in the order in which the groups are tested."""

PAID_GROUPS: Final = frozenset(name for name, channel in GROUPS.items() if channel == "ads") - {"Paid Other"}
"""Channel groups of paid traffic with a known kind of advertisement."""

_PAID_MEDIUM = re.compile(r".*cp.*|ppc|retargeting|paid.*")
_SHOPPING_CAMPAIGN = re.compile(r"(?:[^a-df-z]|^)shop|shopping")
_DISPLAY: Final = frozenset({"display", "banner", "expandable", "interstitial", "cpm"})
_SOCIAL: Final = frozenset({"social", "social-network", "social-media", "sm", "social network", "social media"})
_EMAIL: Final = frozenset({"email", "e-mail", "e_mail", "e mail"})
_REFERRAL: Final = frozenset({"referral", "app", "link"})
_NO_MEDIUM: Final = frozenset({"", DIRECT_MEDIUM, "(not set)"})
_PAID_GROUP_OF_CATEGORY: Final[dict[Category, str]] = {
    "search": "Paid Search",
    "social": "Paid Social",
    "chat": "Paid Social",
    "video": "Paid Video",
}


def classify_channel_group(source: str, medium: str, campaign: str, site: Site | None) -> tuple[str, Field]:
    """Return the channel group and the field that decided it; comparisons ignore case.

    ``site`` is the known site to which ``source`` refers, or None.
    """
    source, medium, campaign = source.lower(), medium.lower(), campaign.lower()
    category = site.category if site is not None else None
    if source == DIRECT_SOURCE and medium in _NO_MEDIUM:
        return "Direct", "source"
    if "cross-network" in campaign:
        return "Cross-network", "campaign"
    is_shopping = _SHOPPING_CAMPAIGN.search(campaign) is not None
    paid_group = _classify_paid(medium, category, is_shopping)
    return paid_group if paid_group is not None else _classify_unpaid(source, medium, category, is_shopping)


def _classify_paid(medium: str, category: Category | None, is_shopping: bool) -> tuple[str, Field] | None:
    is_paid = _PAID_MEDIUM.fullmatch(medium) is not None
    if is_paid and (category == "shopping" or is_shopping):
        return "Paid Shopping", "medium" if category == "shopping" else "campaign"
    if is_paid and category in _PAID_GROUP_OF_CATEGORY:
        return _PAID_GROUP_OF_CATEGORY[category], "medium"
    if medium in _DISPLAY:
        return "Display", "medium"
    return ("Paid Other", "medium") if is_paid else None


def _classify_unpaid(source: str, medium: str, category: Category | None, is_shopping: bool) -> tuple[str, Field]:
    if category == "ai" or medium == "ai-assistant":
        return "AI Assistant", "source" if category == "ai" else "medium"
    if category == "shopping" or is_shopping:
        return "Organic Shopping", "source" if category == "shopping" else "campaign"
    if category in ("social", "chat") or medium in _SOCIAL:
        return "Organic Social", "medium" if medium in _SOCIAL else "source"
    if category == "video" or "video" in medium:
        return "Organic Video", "medium" if "video" in medium else "source"
    if category == "search" or medium == "organic":
        return "Organic Search", "medium" if medium == "organic" else "source"
    if category == "mail" or source in _EMAIL or medium in _EMAIL:
        return "Email", "medium" if medium in _EMAIL else "source"
    if medium == "affiliate":
        return "Affiliates", "medium"
    if medium in _REFERRAL:
        return "Referral", "medium"
    if medium == "audio":
        return "Audio", "medium"
    if "sms" in (source, medium):
        return "SMS", "medium" if medium == "sms" else "source"
    if medium.endswith("push") or "mobile" in medium or "notification" in medium or source == "firebase":
        return "Mobile Push Notifications", "source" if source == "firebase" else "medium"
    return "Unassigned", "medium" if medium else "source"
