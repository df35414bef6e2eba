"""The tools whose webhooks we read, one module each: any that defines ``CONNECTOR`` or ``CONNECTORS`` is found here."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from app.connectors.adapter import Connector


def _found() -> dict[str, Connector]:
    tools: dict[str, Connector] = {}
    for info in iter_modules(__path__):
        module = import_module(f"{__name__}.{info.name}")
        for tool in getattr(module, "CONNECTORS", None) or (module.CONNECTOR,):
            if tool.key in tools:
                raise ValueError(f"two tools are called {tool.key}")
            tools[tool.key] = tool
    return dict(sorted(tools.items()))


CONNECTORS: Final = _found()
