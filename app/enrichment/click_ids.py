"""Click ids: URL parameters that ad servers, affiliate networks and mailers add to their links. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec


class ClickId(msgspec.Struct, frozen=True):
    """Source and medium that a click id implies.

    A ``paid`` click id is added only to advertisements; the others are added to any link, paid or not.
    """

    name: str
    source: str
    medium: str
    paid: bool


_PAID: Final = (
    ("gclid", "google", "cpc"),
    ("gbraid", "google", "cpc"),
    ("wbraid", "google", "cpc"),
    ("msclkid", "bing", "cpc"),
    ("yclid", "yandex", "cpc"),
    ("ymclid", "yandex", "cpc"),
    ("dclid", "doubleclick", "display"),
    ("ttclid", "tiktok", "cpc"),
    ("twclid", "x", "cpc"),
    ("li_fat_id", "linkedin", "cpc"),
    ("ScCid", "snapchat", "cpc"),
    ("rdt_cid", "reddit", "cpc"),
    ("qclid", "quora", "cpc"),
    ("dicbo", "outbrain", "display"),
    ("tblci", "taboola", "display"),
    ("irclickid", "impact", "affiliate"),
    ("awc", "awin", "affiliate"),
    ("cjevent", "cj", "affiliate"),
    ("ranSiteID", "rakuten advertising", "affiliate"),
    ("sscid", "shareasale", "affiliate"),
    ("tduid", "tradedoubler", "affiliate"),
)
_UNPAID: Final = (
    ("fbclid", "facebook", "referral"),
    ("igshid", "instagram", "referral"),
    ("igsh", "instagram", "referral"),
    ("epik", "pinterest", "referral"),
    ("srsltid", "google", "organic"),
    ("mc_eid", "mailchimp", "email"),
    ("mc_cid", "mailchimp", "email"),
    ("_hsenc", "hubspot", "email"),
    ("_hsmi", "hubspot", "email"),
    ("mkt_tok", "marketo", "email"),
    ("_kx", "klaviyo", "email"),
    ("ml_subscriber", "mailerlite", "email"),
    ("dm_i", "dotdigital", "email"),
    ("vero_id", "vero", "email"),
    ("bsft_clkid", "blueshift", "email"),
)

CLICK_IDS: Final = {
    row[0].lower(): ClickId(*row, paid) for rows, paid in ((_PAID, True), (_UNPAID, False)) for row in rows
}
"""Click ids by name in lower case, in order of precedence.

Paid click ids come first. Of the others, those that are usually added last come first, because they identify the latest
place of the link: a social network adds its click id to a link that was copied from a mail.
"""


def find_click_id(names: Iterable[str]) -> ClickId | None:
    """Return the click id with the highest precedence among the parameter names (lower case), or None."""
    present = {*names} & CLICK_IDS.keys()
    return next((click for name, click in CLICK_IDS.items() if name in present), None) if present else None
