"""Patterns of ``matches``: RE2, bounded in memory and in the size of its program. Pure."""

from __future__ import annotations

from typing import Any, Final

import re2

_PATTERN_MEMORY: Final = 1 << 20
_PROGRAM_SIZE_MAX: Final = 3_000
"""Bytes, and instructions, that RE2 may use for one pattern; one that needs more is refused where it is defined."""


def measure_pattern(pattern: str, *, fold: bool) -> int:
    """How many instructions the pattern takes."""
    return int(compile_pattern(pattern, fold=fold).programsize)


def find_pattern_error(text: str) -> str | None:
    """Why ``matches`` cannot use the pattern, in the words of RE2; ``None`` where it can."""
    try:
        sizes = [measure_pattern(text, fold=fold) for fold in (False, True)]
    except re2.error as error:
        reason = error.args[0]
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    except UnicodeEncodeError:
        return "half of a surrogate pair is no character"
    return "it repeats or lists too much" if max(sizes) > _PROGRAM_SIZE_MAX else None


def compile_pattern(text: str, *, fold: bool) -> Any:
    options = re2.Options()
    options.case_sensitive = not fold
    options.never_capture = True
    options.log_errors = False
    options.max_mem = _PATTERN_MEMORY
    return re2.compile(text, options)
