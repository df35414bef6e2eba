"""CMP: what the operators mean, as functions of the value read.

A missing value is ``None``, because null is missing. Every negative operator is the exact complement of its
positive one, also for missing values and operands; any other comparison with something missing is false. Numbers
are ``int``, ``Decimal`` or ``Fraction`` and compare exactly.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

import re2

from app.rules.engine import calendar, dates
from app.rules.engine.calendar import Length
from app.rules.engine.decimals import Number, as_number
from app.rules.engine.json_equality import key_of

Test = Callable[[Any], bool]
"""Takes the value read, ``None`` where it is missing."""

_PATTERN_MEMORY: Final = 1 << 20
_PROGRAM_SIZE_MAX: Final = 3_000
"""Bytes, and instructions, that RE2 may use for one pattern; one that needs more is refused where it is defined."""

MATCHED_BYTES_MAX: Final = 8_192
"""A longer text matches no pattern: with the size of its program this bounds the work of one match."""

_ORDERS: Final = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
_POSITIVE_OF: Final = {"ne": "eq", "not_in": "in_", "not_contains": "contains", "none_of": "any_of"}


class Dynamic:
    """An operand that is worked out when it is asked for: another trait, or a value expression."""

    __slots__ = ()


class Asking(NamedTuple):
    """What an answer depends on beside the value: now, the zone, and the values of dynamic operands."""

    t: int
    zone: str
    operand: Callable[[Any], Any]
    """Takes a ``Dynamic``, gives its value as at ``t``, ``None`` where it is missing."""


class Compared:
    """All the operators of one comparison; all of them must hold."""

    __slots__ = ("_operators", "dynamics", "static")

    def __init__(self, operators: Sequence[_Operator]) -> None:
        self._operators = tuple(operators)
        self.dynamics: tuple[Dynamic, ...] = tuple(
            one.operand
            for one in operators
            if isinstance(one, _Resolved | _Against) and isinstance(one.operand, Dynamic)
        )
        tests = [one.test for one in operators if isinstance(one, _Static)]
        self.static: Test | None = _all(tests) if len(tests) == len(operators) else None
        """The whole comparison, where nothing in it depends on anything but the value."""

    def holds(self, value: Any, asking: Asking) -> bool:
        return all(one.holds(value, asking) for one in self._operators)

    def next_check(self, value: Any, asking: Asking) -> int | None:
        """Nothing changes before this instant, later than ``asking.t``, unless the value or an operand does.

        It may be early. ``None`` where time alone changes nothing.
        """
        changes = []
        for one in self._operators:
            change = one.next_change(value, asking)
            if change is None and not one.holds(value, asking):
                return None
            changes.append(change)
        return min((change for change in changes if change is not None), default=None)

    def uses_zone(self, values_may_be_dates: bool = True) -> bool:
        """Whether the answer can depend on the zone; ``values_may_be_dates``: a value may be a date without a zone."""
        return any(one.uses_zone(values_may_be_dates) for one in self._operators)


def compile_comparison(operators: Mapping[str, Any], *, ignore_case: bool = False) -> Compared:
    """``operators``: field names of the schema, so ``in_``, with plain operands, lengths as text, or a ``Dynamic``."""
    return Compared([_operator(name, operand, fold=ignore_case) for name, operand in operators.items()])


def program_size(pattern: str, *, fold: bool) -> int:
    """How many instructions the pattern takes."""
    return int(_pattern(pattern, fold=fold).programsize)


def check_pattern(text: str) -> str | None:
    """Why ``matches`` cannot use the pattern, in the words of RE2; ``None`` where it can."""
    try:
        sizes = [program_size(text, fold=fold) for fold in (False, True)]
    except re2.error as error:
        reason = error.args[0]
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    except UnicodeEncodeError:
        return "half of a surrogate pair is no character"
    return "it repeats or lists too much" if max(sizes) > _PROGRAM_SIZE_MAX else None


# -------------------------------------------------------------------------------------------- operators


class _Operator:
    __slots__ = ()

    def holds(self, value: Any, asking: Asking) -> bool:
        raise NotImplementedError

    def next_change(self, value: Any, asking: Asking) -> int | None:  # noqa: ARG002 - most have nothing to do with time
        """The first instant after ``asking.t`` at which time alone makes the truth differ, exactly."""
        return None

    def uses_zone(self, values_may_be_dates: bool) -> bool:  # noqa: ARG002 - only dates have to do with zones
        return False


class _Static(_Operator):
    """An operator that looks at the value alone."""

    __slots__ = ("test",)

    def __init__(self, test: Test) -> None:
        self.test = test

    def holds(self, value: Any, asking: Asking) -> bool:  # noqa: ARG002
        return self.test(value)


class _Resolved(_Operator):
    """An operator with a dynamic operand, compiled anew for each value of it."""

    __slots__ = ("fold", "name", "negative", "operand")

    def __init__(self, name: str, operand: Dynamic, *, fold: bool) -> None:
        self.name, self.negative = _POSITIVE_OF.get(name, name), name in _POSITIVE_OF
        self.operand, self.fold = operand, fold

    def holds(self, value: Any, asking: Asking) -> bool:
        operand = asking.operand(self.operand)
        positive = operand is not None and _test(self.name, operand, fold=self.fold)(value)
        return positive is not self.negative


class _Against(_Operator):
    """``after`` and ``before_date``: strictly later, or earlier, than the operand."""

    __slots__ = ("_read", "compare", "operand")

    def __init__(self, compare: Callable[[int, int], bool], operand: str | Dynamic) -> None:
        self.compare, self.operand = compare, operand
        self._read = None if isinstance(operand, Dynamic) else dates.read(operand)

    def holds(self, value: Any, asking: Asking) -> bool:
        found = dates.as_instant(value, asking.zone)
        if found is None:
            return False
        bound = dates.read(asking.operand(self.operand)) if isinstance(self.operand, Dynamic) else self._read
        if isinstance(bound, date):
            bound = calendar.start_of_day(bound, asking.zone)
        return bound is not None and self.compare(found, bound)

    def uses_zone(self, values_may_be_dates: bool) -> bool:
        return values_may_be_dates or isinstance(self._read, date) or isinstance(self.operand, Dynamic)


class _Timed(_Operator):
    """An operator whose truth changes while time passes."""

    __slots__ = ("length",)

    def __init__(self, length: Length) -> None:
        self.length = length

    def uses_zone(self, values_may_be_dates: bool) -> bool:
        return values_may_be_dates or not self.length.exact


class _WithinLast(_Timed):
    __slots__ = ()

    def holds(self, value: Any, asking: Asking) -> bool:
        found = dates.as_instant(value, asking.zone)
        return found is not None and found <= asking.t < calendar.add(found, self.length, asking.zone)

    def next_change(self, value: Any, asking: Asking) -> int | None:
        found = dates.as_instant(value, asking.zone)
        if found is None:
            return None
        instants = (found, calendar.add(found, self.length, asking.zone))
        return next((instant for instant in instants if instant > asking.t), None)


class _WithinNext(_Timed):
    __slots__ = ()

    def holds(self, value: Any, asking: Asking) -> bool:
        found = dates.as_instant(value, asking.zone)
        return found is not None and self._reaches(found, asking.t, asking.zone)

    def next_change(self, value: Any, asking: Asking) -> int | None:
        found = dates.as_instant(value, asking.zone)
        if found is None or found <= asking.t:
            return None
        now = self._reaches(found, asking.t, asking.zone)
        instants = sorted({*calendar.crossings(found, self.length, asking.zone), found})
        later = (instant for instant in instants if instant > asking.t)
        return next((instant for instant in later if self._reaches(found, instant, asking.zone) is not now), None)

    def _reaches(self, found: int, t: int, zone: str) -> bool:
        return t < found <= calendar.add(t, self.length, zone)


class _AnniversaryWithin(_Timed):
    __slots__ = ()

    def holds(self, value: Any, asking: Asking) -> bool:
        return dates.anniversary(value, self.length, asking.t, asking.zone)[0]

    def next_change(self, value: Any, asking: Asking) -> int | None:
        return dates.anniversary(value, self.length, asking.t, asking.zone)[1]

    def uses_zone(self, values_may_be_dates: bool) -> bool:  # noqa: ARG002 - anniversaries are local days
        return True


def _operator(name: str, operand: Any, *, fold: bool) -> _Operator:
    match name:
        case "after":
            return _Against(operator.gt, operand)
        case "before_date":
            return _Against(operator.lt, operand)
        case "within_last":
            return _WithinLast(calendar.length(operand))
        case "within_next":
            return _WithinNext(calendar.length(operand))
        case "anniversary_within":
            return _AnniversaryWithin(calendar.length(operand))
    if isinstance(operand, Dynamic):
        return _Resolved(name, operand, fold=fold)
    if name in _POSITIVE_OF:
        return _Static(_not(_test(_POSITIVE_OF[name], operand, fold=fold)))
    return _Static(_test(name, operand, fold=fold))


# ----------------------------------------------------------------------------- tests of the value alone


def _test(name: str, operand: Any, *, fold: bool) -> Test:
    """The test of a positive operator. An operand of a kind that the operator has no use for matches nothing."""
    match name:
        case "eq":
            return _equals(operand, fold=fold)
        case "in_":
            return _is_one_of(operand, fold=fold)
        case "contains":
            return _contains(operand, fold=fold)
        case "any_of":
            return _has_any(operand, fold=fold)
        case "all_of":
            return _has_all(operand, fold=fold)
        case "starts_with":
            return _on_text(str.startswith, operand, fold=fold)
        case "ends_with":
            return _on_text(str.endswith, operand, fold=fold)
        case "matches":
            return _matches(operand, fold=fold)
        case "exists":
            return (lambda value: value is not None) if operand else (lambda value: value is None)
        case "between":
            above = _ordered(operator.ge, operand[0], fold=fold)
            below = _ordered(operator.le, operand[1], fold=fold)
            return lambda value: above(value) and below(value)
        case _:
            return _ordered(_ORDERS[name], operand, fold=fold)


def _all(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


def _not(test: Test) -> Test:
    return lambda value: not test(value)


def _never(value: Any) -> bool:  # noqa: ARG001
    return False


def _equals(operand: Any, *, fold: bool) -> Test:
    if isinstance(operand, bool):
        return lambda value: value is operand
    if isinstance(operand, list | dict):
        key = key_of(operand)
        return lambda value: isinstance(value, list | dict) and key_of(value) == key
    if not isinstance(operand, str):
        return lambda value: value == operand and type(value) is not bool
    if not fold:
        return lambda value: bool(value == operand)
    folded = operand.casefold()
    return lambda value: isinstance(value, str) and value.casefold() == folded


def _is_one_of(operands: Sequence[str | Number | bool], *, fold: bool) -> Test:
    flags = frozenset(item for item in operands if isinstance(item, bool))
    others = frozenset(
        item.casefold() if fold and isinstance(item, str) else item for item in operands if not isinstance(item, bool)
    )

    def test(value: Any) -> bool:
        if type(value) is str:
            return (value.casefold() if fold else value) in others
        if type(value) is bool:
            return value in flags
        return isinstance(value, int | Decimal | Fraction) and value in others

    return test


def _has_any(operands: Sequence[str | Number | bool], *, fold: bool) -> Test:
    is_one_of = _is_one_of(operands, fold=fold)
    return lambda value: any(is_one_of(item) for item in value) if isinstance(value, list) else is_one_of(value)


def _has_all(operands: Sequence[str | Number | bool], *, fold: bool) -> Test:
    def key(item: Any) -> Any:
        return item.casefold() if fold and isinstance(item, str) else key_of(item)

    wanted = frozenset(key(operand) for operand in operands)

    def test(value: Any) -> bool:
        items = value if isinstance(value, list) else [value]
        return wanted <= {key(item) for item in items if not isinstance(item, list | dict)}

    return test


def _contains(operand: Any, *, fold: bool) -> Test:
    is_element = _equals(operand, fold=fold)
    is_part = _on_text(str.__contains__, operand, fold=fold)
    return lambda value: any(is_element(item) for item in value) if isinstance(value, list) else is_part(value)


def _on_text(question: Callable[[str, str], bool], operand: Any, *, fold: bool) -> Test:
    if not isinstance(operand, str):
        return _never
    if not fold:
        return lambda value: isinstance(value, str) and question(value, operand)
    folded = operand.casefold()
    return lambda value: isinstance(value, str) and question(value.casefold(), folded)


def _matches(operand: str, *, fold: bool) -> Test:
    search = _pattern(operand, fold=fold).search
    # As bytes, because RE2 counts in bytes and would translate positions that nobody asks for.

    def test(value: Any) -> bool:
        if not isinstance(value, str) or len(value) > MATCHED_BYTES_MAX:
            return False
        text = value.encode(errors="replace")
        return len(text) <= MATCHED_BYTES_MAX and search(text) is not None

    return test


def _pattern(text: str, *, fold: bool) -> Any:
    options = re2.Options()
    options.case_sensitive = not fold
    options.never_capture = True
    options.log_errors = False
    options.max_mem = _PATTERN_MEMORY
    return re2.compile(text, options)


def _number(value: Any) -> Number | Fraction | None:
    return value if type(value) is Fraction else as_number(value)


def _ordered(compare: Callable[[Any, Any], bool], operand: Any, *, fold: bool) -> Test:
    bound = _number(operand)
    if bound is not None:

        def test_number(value: Any) -> bool:
            number = _number(value)
            return number is not None and compare(number, bound)

        return test_number
    if not isinstance(operand, str):
        return _never
    key = operand.casefold() if fold else operand

    def test_text(value: Any) -> bool:
        return isinstance(value, str) and as_number(value) is None and compare(value.casefold() if fold else value, key)

    return test_text
