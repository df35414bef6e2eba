"""Merge of the metrics of two processes in Prometheus's text format."""

from __future__ import annotations

import re
from typing import Final

_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ", re.MULTILINE)
_FAMILY: Final = re.compile(r"^(?=# HELP )", re.MULTILINE)


def merge_processes(own: str, other: str, other_name: str) -> str:
    """Return both sets of metrics; each sample of ``other`` gets the label ``process`` with the value ``other_name``.

    Prometheus requires that all samples of one metric follow one header.
    """
    families = {_header_of(family): family for family in _FAMILY.split(own) if family}
    for family in _FAMILY.split(other):
        if not family:
            continue
        header, samples = _header_of(family), family[len(_header_of(family)) :]
        labelled = _SAMPLE.sub(lambda match: _add_label(match, other_name), samples)
        families[header] = families.get(header, header) + labelled
    return "".join(families.values())


def _header_of(family: str) -> str:
    """Return the lines HELP and TYPE."""
    return "".join(line for line in family.splitlines(keepends=True) if line.startswith("#"))


def _add_label(match: re.Match[str], process: str) -> str:
    name, labels = match.groups()
    return f'{name}{{{labels + "," if labels else ""}process="{process}"}} '
