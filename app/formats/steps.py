"""Long computations in small steps: between two of them, the caller may do something else. Pure."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import wraps
from typing import ParamSpec, TypeAlias, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

Steps: TypeAlias = Generator[None, None, _Result]
"""A computation that yields after each step, and returns its result."""


def at_once(function: Callable[_Arguments, Steps[_Result]]) -> Callable[_Arguments, _Result]:
    """Return a function that runs all steps and returns the result, for callers that no event loop waits for."""

    @wraps(function)
    def run(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        steps = function(*arguments, **options)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    return run
