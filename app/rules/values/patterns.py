"""RE2 patterns for the operator ``matches``, with limits on memory and program size."""

from __future__ import annotations

from typing import Any, Final

import re2

_PATTERN_MEMORY: Final = 1 << 20
_PROGRAM_SIZE_MAX: Final = 3_000
"""Limits for one pattern: memory in bytes, and program size in RE2 instructions. A definition with a larger pattern is
refused."""


def measure_pattern(pattern: str, *, fold: bool) -> int:
    """Return the number of RE2 instructions of the pattern."""
    return int(compile_pattern(pattern, fold=fold).programsize)


def find_pattern_error(text: str) -> str | None:
    """Return why ``matches`` cannot use the pattern, usually with RE2's message; ``None`` if it is valid."""
    try:
        sizes = [measure_pattern(text, fold=fold) for fold in (False, True)]
    except re2.error as error:
        reason = error.args[0]
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    except UnicodeEncodeError:
        return "it contains a lone surrogate, which is not a character"
    return "it is too complex" if max(sizes) > _PROGRAM_SIZE_MAX else None


def compile_pattern(text: str, *, fold: bool) -> Any:
    options = re2.Options()
    options.case_sensitive = not fold
    options.never_capture = True
    options.log_errors = False
    options.max_mem = _PATTERN_MEMORY
    return re2.compile(text, options)
