"""Tests of the client information: address, user agent, and country from a local database."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from app.config import Settings
from app.enrichment.geoip import Countries
from app.http.client_info import read_client_info
from app.main import create_app
from app.touchpoint import Peer
from tests.support.geoip_database import write

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "country.mmdb"
    write(
        path,
        {
            "203.0.113.0/24": {"country": {"iso_code": "NL"}},
            "198.51.100.0/24": {"country_code": "pt"},
            "192.0.2.0/25": {"country": {"iso_code": "too long"}},
            "2001:db8::/32": {"country": {"iso_code": "BR"}},
        },
    )
    return path


def test_country_lookup(database: Path) -> None:
    countries = Countries(database)
    expected = {
        "203.0.113.9": "NL",
        "198.51.100.1": "PT",
        "2001:db8:1::9": "BR",
        "192.0.2.1": None,
        "192.0.2.200": None,
        "10.0.0.1": None,
        "no address": None,
        "": None,
    }
    assert {address: countries.country_of(address) for address in expected} == expected


def test_invalid_database_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.mmdb").write_bytes(b"not a database")
    with pytest.raises(ValueError, match=r"x\.mmdb is not a country database"):
        Countries(tmp_path / "x.mmdb")


async def test_service_does_not_start_if_the_country_database_is_missing(settings: Settings) -> None:
    with_database = settings.model_copy(update={"country_database": settings.data_dir / "missing.mmdb"})
    app = create_app(with_database, worker=False)
    with pytest.raises(FileNotFoundError):
        async with app.router.lifespan_context(app):
            pass


def request(address: str | None, **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "client": (address, 1) if address else None, "headers": raw})


def test_client_info_of_a_request(database: Path) -> None:
    settings = Settings()
    assert read_client_info(request("203.0.113.9", user_agent=CHROME), settings) == Peer("203.0.113.9", CHROME, None)
    assert read_client_info(request(None), settings) == Peer(None, None, None)
    assert read_client_info(request("203.0.113.9", user_agent="x" * 9_000), settings).user_agent == "x" * 512
    with_database = Settings.model_validate({"country_database": database})
    assert read_client_info(request("203.0.113.9", user_agent=CHROME), with_database).country == "NL"
    assert read_client_info(request("203.0.113.9", x_forwarded_for="198.51.100.1"), with_database).country == "NL"
    assert read_client_info(request(None), with_database).country is None


async def test_page_view_is_stored_with_country_and_truncated_address(
    settings: Settings, database: Path, start
) -> None:  # type: ignore[no-untyped-def]
    with_database = settings.model_copy(update={"country_database": database})
    async with start(with_database) as service:
        transport = httpx.ASGITransport(app=service.app, client=("203.0.113.77", 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://segue.example.com") as visitor:
            page = {"type": "page", "userId": "u", "context": {"library": {"name": "segue.js"}}}
            response = await visitor.post(
                "/v1/p", json=page | {"writeKey": service.keys.write_key}, headers={"User-Agent": CHROME}
            )
            assert response.json()["accepted"] == 1
        [touchpoint] = (await service.ask("/v1/customers/u/touchpoints"))["items"]
        assert touchpoint["context"]["location"] == {"country": "NL"}
        assert touchpoint["context"]["ip"] == "203.0.113.0"
        assert touchpoint["context"]["client"]["browser"] == "Chrome"
        rule = {"did": "page_viewed", "where": {"context.location.country": "NL"}}
        assert (await service.tell("POST", "/v1/segments/preview", {"rule": rule}))["count"] == 1
