"""Country of an IP address, from a local database that the operator provides. Makes no network calls."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import maxminddb

_CODE_CHARS = 2


class Countries:
    """Reader of a country database (.mmdb): GeoLite2-Country, DB-IP Lite or one of ip-location-db."""

    def __init__(self, path: Path) -> None:
        """Open the file; raise OSError if it cannot be read, ValueError if it is not a country database."""
        try:
            self._reader = maxminddb.open_database(path)
        except maxminddb.InvalidDatabaseError as error:
            raise ValueError(f"{path} is not a country database: {error}") from None

    def country_of(self, address: str) -> str | None:
        """Return the ISO 3166 code, such as ``NL``; None if the address is invalid or not in the database."""
        try:
            record = self._reader.get(address)
        except (ValueError, maxminddb.InvalidDatabaseError):
            return None
        return _find_country_code(record)


@lru_cache(maxsize=4)
def open_countries(path: Path) -> Countries:
    return Countries(path)


def _find_country_code(record: Any) -> str | None:
    """Return the code from a record ``{"country": {"iso_code": "NL"}}`` or ``{"country_code": "NL"}``."""
    if not isinstance(record, dict):
        return None
    country = record.get("country")
    code = country.get("iso_code") if isinstance(country, dict) else record.get("country_code")
    return code.upper() if isinstance(code, str) and len(code) == _CODE_CHARS else None
