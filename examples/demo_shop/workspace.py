"""Workspace setup for the demo shop: creates sources, keys, the journey and the segments through the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from examples.demo_shop.definitions import JOURNEY, SEGMENTS

PAGE: Final = "shop"
HELP_DESK: Final = "help-desk"
SETTINGS: Final = {"SEGUE_PUBLIC_TRAITS": '["first_name"]'}
"""Environment variables of Segue: the traits that a page may read."""

_SECONDS_MAX: Final = 30.0


@dataclass(frozen=True)
class Workspace:
    """Segue's URL and keys. The page receives only ``page_key``."""

    url: str
    secret_key: str = field(repr=False)
    page_key: str
    server_key: str = field(repr=False)
    help_desk_key: str = field(repr=False)


def prepare_workspace(url: str, secret_key: str, shop_origin: str) -> Workspace:
    """Create what the shop needs. Calling it again on the same data is safe. Raise httpx.HTTPError if Segue refuses."""
    secret = {"Authorization": f"Bearer {secret_key}"}
    with httpx.Client(base_url=url, headers=secret, timeout=_SECONDS_MAX) as api:
        _put(api, "/v1/sources", {"key": PAGE, "name": "Demo shop"})
        _put(api, "/v1/sources", {"key": HELP_DESK, "name": "Help desk of the shop", "default_channel": "support"})
        _put(api, "/v1/journeys", JOURNEY)
        for segment in SEGMENTS:
            _put(api, "/v1/segments", segment)
        return Workspace(
            url=url,
            secret_key=secret_key,
            page_key=_write_key(api, PAGE, origins=[shop_origin]),
            server_key=_write_key(api, PAGE, trust="server"),
            help_desk_key=_write_key(api, HELP_DESK, trust="server"),
        )


def _put(api: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """Create a resource, or replace it if its key exists."""
    response = api.post(path, json=body)
    if response.status_code == httpx.codes.CONFLICT and path != "/v1/sources":
        response = api.put(f"{path}/{body['key']}", json=body)
    if response.status_code != httpx.codes.CONFLICT:
        response.raise_for_status()


def _write_key(api: httpx.Client, source: str, **extra: Any) -> str:
    response = api.post("/v1/keys", json={"kind": "write", "source": source, "name": "demo-shop", **extra})
    return str(response.raise_for_status().json()["key"])
