"""Where a visit came from: a pure reading of landing URL, campaign and referrer, with the rule that decided."""

from app.acquisition.arrival import Acquisition, Landing, acquired, channel_of
from app.acquisition.groups import GROUPS

__all__ = ["GROUPS", "Acquisition", "Landing", "acquired", "channel_of"]
