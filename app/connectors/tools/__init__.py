"""Webhook adapters, one module for each vendor tool. Hides the payload format and the signature format of the tool.

Every module of this package must define ``CONNECTOR`` or ``CONNECTORS``; :data:`CONNECTORS` registers them.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from app.connectors.adapter import Connector


def _load_connectors() -> dict[str, Connector]:
    connectors: dict[str, Connector] = {}
    for info in iter_modules(__path__):
        module = import_module(f"{__name__}.{info.name}")
        for connector in getattr(module, "CONNECTORS", None) or (module.CONNECTOR,):
            if connector.key in connectors:
                raise ValueError(f"two connectors have the key {connector.key}")
            connectors[connector.key] = connector
    return dict(sorted(connectors.items()))


CONNECTORS: Final = _load_connectors()
