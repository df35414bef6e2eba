"""Evaluation of comparison operators, such as ``eq`` and ``within_last``.

A missing or null value is ``None``. Each negative operator is the exact opposite of its positive operator, also for
missing values and operands. Every other comparison with a missing value is false. Numbers are ``int``, ``Decimal`` or
``Fraction`` and are compared without rounding.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from app.rules.engine import dates
from app.rules.engine.json_equality import equality_key
from app.rules.values import calendar
from app.rules.values.calendar import Length
from app.rules.values.decimals import Number, as_number
from app.rules.values.patterns import compile_pattern

ValueTest = Callable[[Any], bool]
"""Predicate of a value; ``None`` is a missing value."""

MATCHED_BYTES_MAX: Final = 8_192
"""Maximum length of a text to match, in bytes. A longer text does not match any pattern. Together with the limit on the
size of patterns, this limits the time of one match."""

_ORDERS: Final = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
_POSITIVE_OF: Final = {"ne": "eq", "not_in": "in_", "not_contains": "contains", "none_of": "any_of"}


class DynamicOperand:
    """An operand that is computed during evaluation: a trait or a value expression."""

    __slots__ = ()


class ComparisonContext(NamedTuple):
    """Inputs of a comparison in addition to the value: the current instant, the timezone, and dynamic operands."""

    t: int
    zone: str
    resolve_operand: Callable[[Any], Any]
    """Returns the value of a ``DynamicOperand`` at ``t``; ``None`` if it is missing."""


class CompiledComparison:
    """The operators of one comparison. A value satisfies the comparison if it satisfies all of them."""

    __slots__ = ("_operators", "dynamic_operands", "static_test")

    def __init__(self, operators: Sequence[_Operator]) -> None:
        self._operators = tuple(operators)
        self.dynamic_operands: tuple[DynamicOperand, ...] = tuple(
            compiled.operand
            for compiled in operators
            if isinstance(compiled, _DynamicOperator | _DateOperator) and isinstance(compiled.operand, DynamicOperand)
        )
        tests = [compiled.test for compiled in operators if isinstance(compiled, _StaticOperator)]
        self.static_test: ValueTest | None = _all_of(tests) if len(tests) == len(operators) else None
        """Predicate for the whole comparison, if it depends on the value alone; else ``None``."""

    def holds(self, value: Any, context: ComparisonContext) -> bool:
        return all(compiled.holds(value, context) for compiled in self._operators)

    def next_check_at(self, value: Any, context: ComparisonContext) -> int | None:
        """Return an instant after ``context.t`` before which the result stays the same for this value and operands.

        The instant may be early. ``None`` means that time alone never changes the result.
        """
        changes = []
        for compiled in self._operators:
            change = compiled.next_change_at(value, context)
            if change is None and not compiled.holds(value, context):
                return None
            changes.append(change)
        return min((change for change in changes if change is not None), default=None)

    def uses_zone(self, values_may_be_dates: bool = True) -> bool:
        """Return whether the result can depend on the timezone.

        ``values_may_be_dates`` is true if the value may be a date without a timezone.
        """
        return any(compiled.uses_zone(values_may_be_dates) for compiled in self._operators)


def compile_comparison(operators: Mapping[str, Any], *, ignore_case: bool = False) -> CompiledComparison:
    """Compile operators, keyed by field name (``in_`` for ``in``), with plain or dynamic operands, or length texts."""
    return CompiledComparison(
        [_compile_operator(name, operand, fold=ignore_case) for name, operand in operators.items()]
    )


# -------------------------------------------------------------------------------------------- operators


class _Operator:
    __slots__ = ()

    def holds(self, value: Any, context: ComparisonContext) -> bool:
        raise NotImplementedError

    def next_change_at(self, value: Any, context: ComparisonContext) -> int | None:  # noqa: ARG002 - most operators do not depend on time
        """Return the exact instant after ``context.t`` at which time alone first changes the result; ``None`` for
        never."""
        return None

    def uses_zone(self, values_may_be_dates: bool) -> bool:  # noqa: ARG002 - only dates depend on timezones
        return False


class _StaticOperator(_Operator):
    """An operator that depends on the value alone."""

    __slots__ = ("test",)

    def __init__(self, test: ValueTest) -> None:
        self.test = test

    def holds(self, value: Any, context: ComparisonContext) -> bool:  # noqa: ARG002
        return self.test(value)


class _DynamicOperator(_Operator):
    """An operator with a dynamic operand. Its test is compiled in each evaluation, for the current operand."""

    __slots__ = ("fold", "name", "negative", "operand")

    def __init__(self, name: str, operand: DynamicOperand, *, fold: bool) -> None:
        self.name, self.negative = _POSITIVE_OF.get(name, name), name in _POSITIVE_OF
        self.operand, self.fold = operand, fold

    def holds(self, value: Any, context: ComparisonContext) -> bool:
        operand = context.resolve_operand(self.operand)
        positive = operand is not None and _compile_test(self.name, operand, fold=self.fold)(value)
        return positive is not self.negative


class _DateOperator(_Operator):
    """``after`` (strictly later than the operand) and ``before_date`` (strictly earlier)."""

    __slots__ = ("_bound", "compare", "operand")

    def __init__(self, compare: Callable[[int, int], bool], operand: str | DynamicOperand) -> None:
        self.compare, self.operand = compare, operand
        self._bound = None if isinstance(operand, DynamicOperand) else dates.parse_date_value(operand)

    def holds(self, value: Any, context: ComparisonContext) -> bool:
        instant = dates.read_instant(value, context.zone)
        if instant is None:
            return False
        bound = self._bound
        if isinstance(self.operand, DynamicOperand):
            bound = dates.parse_date_value(context.resolve_operand(self.operand))
        if isinstance(bound, date):
            bound = calendar.start_of_day(bound, context.zone)
        return bound is not None and self.compare(instant, bound)

    def uses_zone(self, values_may_be_dates: bool) -> bool:
        return values_may_be_dates or isinstance(self._bound, date) or isinstance(self.operand, DynamicOperand)


class _TimeDependentOperator(_Operator):
    """An operator whose result changes with time."""

    __slots__ = ("length",)

    def __init__(self, length: Length) -> None:
        self.length = length

    def uses_zone(self, values_may_be_dates: bool) -> bool:
        return values_may_be_dates or not self.length.is_exact


class _WithinLast(_TimeDependentOperator):
    __slots__ = ()

    def holds(self, value: Any, context: ComparisonContext) -> bool:
        instant = dates.read_instant(value, context.zone)
        return instant is not None and instant <= context.t < calendar.add(instant, self.length, context.zone)

    def next_change_at(self, value: Any, context: ComparisonContext) -> int | None:
        instant = dates.read_instant(value, context.zone)
        if instant is None:
            return None
        changes = (instant, calendar.add(instant, self.length, context.zone))
        return next((change for change in changes if change > context.t), None)


class _WithinNext(_TimeDependentOperator):
    __slots__ = ()

    def holds(self, value: Any, context: ComparisonContext) -> bool:
        instant = dates.read_instant(value, context.zone)
        return instant is not None and self._is_within(instant, context.t, context.zone)

    def next_change_at(self, value: Any, context: ComparisonContext) -> int | None:
        instant = dates.read_instant(value, context.zone)
        if instant is None or instant <= context.t:
            return None
        is_within = self._is_within(instant, context.t, context.zone)
        crossings = sorted({*calendar.length_crossings(instant, self.length, context.zone), instant})
        later = (crossing for crossing in crossings if crossing > context.t)
        return next((t for t in later if self._is_within(instant, t, context.zone) is not is_within), None)

    def _is_within(self, instant: int, t: int, zone: str) -> bool:
        return t < instant <= calendar.add(t, self.length, zone)


class _AnniversaryWithin(_TimeDependentOperator):
    __slots__ = ()

    def holds(self, value: Any, context: ComparisonContext) -> bool:
        return dates.check_anniversary(value, self.length, context.t, context.zone)[0]

    def next_change_at(self, value: Any, context: ComparisonContext) -> int | None:
        return dates.check_anniversary(value, self.length, context.t, context.zone)[1]

    def uses_zone(self, values_may_be_dates: bool) -> bool:  # noqa: ARG002 - anniversaries are local days
        return True


def _compile_operator(name: str, operand: Any, *, fold: bool) -> _Operator:
    match name:
        case "after":
            return _DateOperator(operator.gt, operand)
        case "before_date":
            return _DateOperator(operator.lt, operand)
        case "within_last":
            return _WithinLast(calendar.parse_length(operand))
        case "within_next":
            return _WithinNext(calendar.parse_length(operand))
        case "anniversary_within":
            return _AnniversaryWithin(calendar.parse_length(operand))
        case _:
            pass
    if isinstance(operand, DynamicOperand):
        return _DynamicOperator(name, operand, fold=fold)
    if name in _POSITIVE_OF:
        return _StaticOperator(_negate(_compile_test(_POSITIVE_OF[name], operand, fold=fold)))
    return _StaticOperator(_compile_test(name, operand, fold=fold))


# ---------------------------------------------------------------------- predicates of the value alone


def _compile_test(name: str, operand: Any, *, fold: bool) -> ValueTest:
    """Return the predicate of a positive operator; it is always false if the operand has an unsuitable type."""
    match name:
        case "eq":
            return _equality_test(operand, fold=fold)
        case "in_":
            return _membership_test(operand, fold=fold)
        case "contains":
            return _contains_test(operand, fold=fold)
        case "any_of":
            return _any_of_test(operand, fold=fold)
        case "all_of":
            return _all_of_test(operand, fold=fold)
        case "starts_with":
            return _text_test(str.startswith, operand, fold=fold)
        case "ends_with":
            return _text_test(str.endswith, operand, fold=fold)
        case "matches":
            return _pattern_test(operand, fold=fold)
        case "exists":
            return (lambda value: value is not None) if operand else (lambda value: value is None)
        case "between":
            above = _order_test(operator.ge, operand[0], fold=fold)
            below = _order_test(operator.le, operand[1], fold=fold)
            return lambda value: above(value) and below(value)
        case _:
            return _order_test(_ORDERS[name], operand, fold=fold)


def _all_of(tests: Sequence[ValueTest]) -> ValueTest:
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


def _negate(test: ValueTest) -> ValueTest:
    return lambda value: not test(value)


def _never(value: Any) -> bool:  # noqa: ARG001
    return False


def _equality_test(operand: Any, *, fold: bool) -> ValueTest:
    if isinstance(operand, bool):
        return lambda value: value is operand
    if isinstance(operand, list | dict):
        key = equality_key(operand)
        return lambda value: isinstance(value, list | dict) and equality_key(value) == key
    if not isinstance(operand, str):
        return lambda value: value == operand and type(value) is not bool
    if not fold:
        return lambda value: bool(value == operand)
    folded = operand.casefold()
    return lambda value: isinstance(value, str) and value.casefold() == folded


def _membership_test(operands: Sequence[str | Number | bool], *, fold: bool) -> ValueTest:
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


def _any_of_test(operands: Sequence[str | Number | bool], *, fold: bool) -> ValueTest:
    is_one_of = _membership_test(operands, fold=fold)
    return lambda value: any(is_one_of(item) for item in value) if isinstance(value, list) else is_one_of(value)


def _all_of_test(operands: Sequence[str | Number | bool], *, fold: bool) -> ValueTest:
    def key(item: Any) -> Any:
        return item.casefold() if fold and isinstance(item, str) else equality_key(item)

    operand_keys = frozenset(key(operand) for operand in operands)

    def test(value: Any) -> bool:
        items = value if isinstance(value, list) else [value]
        return operand_keys <= {key(item) for item in items if not isinstance(item, list | dict)}

    return test


def _contains_test(operand: Any, *, fold: bool) -> ValueTest:
    is_element = _equality_test(operand, fold=fold)
    is_part = _text_test(str.__contains__, operand, fold=fold)
    return lambda value: any(is_element(item) for item in value) if isinstance(value, list) else is_part(value)


def _text_test(compare: Callable[[str, str], bool], operand: Any, *, fold: bool) -> ValueTest:
    if not isinstance(operand, str):
        return _never
    if not fold:
        return lambda value: isinstance(value, str) and compare(value, operand)
    folded = operand.casefold()
    return lambda value: isinstance(value, str) and compare(value.casefold(), folded)


def _pattern_test(operand: str, *, fold: bool) -> ValueTest:
    search = compile_pattern(operand, fold=fold).search
    # Search bytes, because RE2 works on bytes: for text it would also convert match positions, which are not needed.

    def test(value: Any) -> bool:
        if not isinstance(value, str) or len(value) > MATCHED_BYTES_MAX:
            return False
        text = value.encode(errors="replace")
        return len(text) <= MATCHED_BYTES_MAX and search(text) is not None

    return test


def _exact_number(value: Any) -> Number | Fraction | None:
    return value if type(value) is Fraction else as_number(value)


def _order_test(compare: Callable[[Any, Any], bool], operand: Any, *, fold: bool) -> ValueTest:
    bound = _exact_number(operand)
    if bound is not None:

        def test_number(value: Any) -> bool:
            number = _exact_number(value)
            return number is not None and compare(number, bound)

        return test_number
    if not isinstance(operand, str):
        return _never
    key = operand.casefold() if fold else operand

    def test_text(value: Any) -> bool:
        return isinstance(value, str) and as_number(value) is None and compare(value.casefold() if fold else value, key)

    return test_text
