"""Message enrichment: attribution, channel, device, country, sentiment. Hides reference lists and their precedence."""

from app.enrichment.attribution import Attribution, Landing, attribute, channel_of
from app.enrichment.channel_groups import GROUPS

__all__ = ["GROUPS", "Attribution", "Landing", "attribute", "channel_of"]
