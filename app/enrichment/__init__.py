"""Where a visit came from: a pure reading of landing URL, campaign and referrer, with the rule that decided."""

from app.enrichment.attribution import Attribution, Landing, attribute, channel_of
from app.enrichment.channel_groups import GROUPS

__all__ = ["GROUPS", "Attribution", "Landing", "attribute", "channel_of"]
