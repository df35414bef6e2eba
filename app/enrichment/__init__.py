"""Where a visit came from: a pure reading of landing URL, campaign and referrer, with the rule that decided."""

from app.enrichment.attribution import Acquisition, Landing, acquired, channel_of
from app.enrichment.channel_groups import GROUPS

__all__ = ["GROUPS", "Acquisition", "Landing", "acquired", "channel_of"]
