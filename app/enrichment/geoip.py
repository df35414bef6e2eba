"""The country of an address, from a local database where the operator has one. Never a network call."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import maxminddb

_CODE_CHARS = 2


class Countries:
    """A .mmdb file, opened once: GeoLite2-Country and DB-IP Lite, and the plain ones of ip-location-db."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`OSError` or :class:`ValueError` where there is no such database."""
        try:
            self._reader = maxminddb.open_database(path)
        except maxminddb.InvalidDatabaseError as error:
            raise ValueError(f"{path} is no country database: {error}") from None

    def country_of(self, address: str) -> str | None:
        """The ISO 3166 code, such as ``NL``; None for what is no public address, or is not in the database."""
        try:
            record = self._reader.get(address)
        except (ValueError, maxminddb.InvalidDatabaseError):
            return None
        return _find_country_code(record)


@lru_cache(maxsize=4)
def open_countries(path: Path) -> Countries:
    return Countries(path)


def _find_country_code(record: Any) -> str | None:
    """``{"country": {"iso_code": "NL"}}``, or ``{"country_code": "NL"}``."""
    if not isinstance(record, dict):
        return None
    country = record.get("country")
    code = country.get("iso_code") if isinstance(country, dict) else record.get("country_code")
    return code.upper() if isinstance(code, str) and len(code) == _CODE_CHARS else None
