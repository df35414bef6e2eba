"""The demo's side of Segue: a source for the page, one for the help desk, and the definitions, made through the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from examples.demo_shop.definitions import JOURNEY, SEGMENTS

PAGE: Final = "shop"
HELP_DESK: Final = "help-desk"
SETTINGS: Final = {"SEGUE_PUBLIC_TRAITS": '["first_name"]'}
"""What Segue is told at its start: the declared traits that a page may read."""

_SECONDS_MAX: Final = 30.0


@dataclass(frozen=True)
class Workspace:
    """Where Segue answers, and with which keys. The page gets ``page_key`` and nothing else."""

    url: str
    secret_key: str = field(repr=False)
    page_key: str
    help_desk_key: str


def prepare(url: str, secret_key: str, shop_origin: str) -> Workspace:
    """Define what the shop needs; may be done again on the same data. Raises httpx.HTTPError."""
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
            help_desk_key=_write_key(api, HELP_DESK),
        )


def _put(api: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """Make it, or, where its key is taken, make it so."""
    answer = api.post(path, json=body)
    if answer.status_code == httpx.codes.CONFLICT and path != "/v1/sources":
        answer = api.put(f"{path}/{body['key']}", json=body)
    if answer.status_code != httpx.codes.CONFLICT:
        answer.raise_for_status()


def _write_key(api: httpx.Client, source: str, **extra: Any) -> str:
    made = api.post("/v1/keys", json={"kind": "write", "source": source, "name": "demo-web", **extra})
    return str(made.raise_for_status().json()["key"])
