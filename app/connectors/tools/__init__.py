"""The tools whose webhooks we read, one module each; a module that names a ``TOOL`` or ``TOOLS`` is found by itself."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from app.connectors.adapter import Tool


def _found() -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for info in iter_modules(__path__):
        module = import_module(f"{__name__}.{info.name}")
        for tool in getattr(module, "TOOLS", None) or (module.TOOL,):
            if tool.key in tools:
                raise ValueError(f"two tools are called {tool.key}")
            tools[tool.key] = tool
    return dict(sorted(tools.items()))


TOOLS: Final = _found()
