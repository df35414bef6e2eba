"""Client information: the IP address, user agent and country of the sender of a request."""

from __future__ import annotations

from starlette.requests import Request

from app.config import Settings
from app.enrichment.geoip import open_countries
from app.enrichment.user_agents import USER_AGENT_CHARS_MAX
from app.touchpoint import Peer


def read_client_info(request: Request, settings: Settings) -> Peer:
    """Return the sender of the request.

    The address is the one that a trusted proxy forwards (uvicorn's ``FORWARDED_ALLOW_IPS``), or else the connection's
    address.
    """
    address = request.client.host if request.client is not None else None
    user_agent = request.headers.get("user-agent")
    country = None
    if address is not None and settings.country_database is not None:
        country = open_countries(settings.country_database).country_of(address)
    return Peer(address, user_agent[:USER_AGENT_CHARS_MAX] if user_agent else None, country)
