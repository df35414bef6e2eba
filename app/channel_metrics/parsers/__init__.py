"""Parsers for files of daily metrics. Hides the columns, dates and number formats of each tool.

Each module is one format; a module that defines ``KIND`` is registered in :data:`METRIC_FORMATS`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from app.channel_metrics.parsers.metric import MetricFormat


def _load_formats() -> dict[str, MetricFormat]:
    modules = (import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__))
    return {kind.key: kind for module in modules if (kind := getattr(module, "KIND", None)) is not None}


METRIC_FORMATS: Final = _load_formats()
