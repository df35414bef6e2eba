"""Validation errors of definitions: each has the path of the node, the reason, and a remedy.

Validation has two passes. First, :func:`check_structure` walks the raw JSON. It does not recurse, so it can limit depth
and size before any recursive code runs, and it checks that each node has one head. Then the models of
:mod:`app.rules.language.nodes` check the fields; :func:`to_invalid_definition` turns their first error into an
:class:`InvalidDefinition`.

Both passes need to know the role of each object in a definition. This role is its *kind*: ``rule``, ``value`` (a value
expression), ``reading`` (an operand that is a trait or a value expression), ``step``, ``segment_in`` and so on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from app.config import Limits
from app.errors import InvalidDefinition
from app.rules.values.decimals import DIGITS_MAX, count_digits

AGGREGATES: Final = ("sum", "avg", "min", "max", "distinct", "first_value", "last_value", "most_frequent")
HEADS: Final = (
    *("all", "any", "not", "everyone", "did", "first", "last"),
    *AGGREGATES,
    *("sequence", "regularly", "trait", "segment", "stage", "bucket"),
)
"""Heads of rules."""
VALUE_HEADS: Final = (*AGGREGATES, "count", "first_at", "last_at")
"""Heads of value expressions."""
STEP_HEADS: Final = ("did", "not")
OPERAND_OPERATORS: Final = (
    *("eq", "ne", "gt", "gte", "lt", "lte", "contains", "not_contains", "starts_with", "ends_with"),
    *("after", "before_date"),
)
"""Operators whose operand may be a trait or a value expression."""
ANNIVERSARIES_MAX: Final = 5
"""Maximum number of ``anniversary_within`` in one rule, because the engine searches year by year for each next
anniversary."""

_LEVELS_INSIDE_NODE: Final = 6
VALUES_PER_NODE: Final = 20

_NODE_HEADS: Final = {
    "rule": HEADS,
    "value": VALUE_HEADS,
    "reading": ("trait", *VALUE_HEADS),
    "step": STEP_HEADS,
    "plain_did": ("did",),
}
_KIND_LABELS: Final = {
    "rule": "a rule",
    "value": "a value expression",
    "reading": "an operand",
    "step": "a step",
    "plain_did": "the node under `not`",
    "segment_in": "a segment",
    "journey_in": "a journey",
    "stage_in": "a stage",
    "trait_in": "a computed trait",
    "where_value": "a comparison",
    "during": "`during`",
}
_CHILD_KINDS: Final = {
    ("rule", "all"): "rules",
    ("rule", "any"): "rules",
    ("rule", "not"): "rule",
    ("rule", "sequence"): "steps",
    ("step", "not"): "plain_did",
    ("segment_in", "rule"): "rule",
    ("stage_in", "rule"): "rule",
    ("journey_in", "stages"): "stages",
    ("trait_in", "value"): "value",
    **{(kind, "where"): "where" for kind in _NODE_HEADS},
    **{(kind, "during"): "during" for kind in _NODE_HEADS},
    **{(kind, operator): "operand" for kind in ("rule", "where_value") for operator in OPERAND_OPERATORS},
}
"""(kind of an object, key) -> kind of the value under that key. Every other value is a plain value."""
_ITEM_KINDS: Final = {"rules": "rule", "stages": "stage_in", "steps": "step", "where": "where_value"}
"""Kind of a list or map -> kind of its items."""
_TAGGED: Final = frozenset((*_NODE_HEADS, "operand", "where_value", "during")) - {"plain_did"}
"""Kinds that a tagged union parses: pydantic adds the tag of the chosen model to the location of an error."""

_Location = tuple["_Location | None", str | int] | None
"""Location in the document as a linked list (parent, key): a child location takes constant time and memory."""


def validation_error(message: str, remedy: str, *at: str | int) -> PydanticCustomError:
    """Return the error for a validator to raise. ``at`` is the path from the validated value to the invalid part."""
    return PydanticCustomError("refused", "{message}", {"message": message, "remedy": remedy, "at": at})


def suggest_similar(word: object, choices: Iterable[str]) -> str:
    """Return "Did you mean ...?" with the most similar choice; "" if no choice is similar."""
    matches = get_close_matches(str(word)[:40], list(choices), 1, 0.7)
    return f"Did you mean `{matches[0]}`?" if matches else ""


def quote_all(words: Iterable[str]) -> str:
    """Return the words in backticks, separated by commas."""
    return ", ".join(f"`{word}`" for word in words)


def check_structure(data: object, path: str, kind: str, limits: Limits) -> None:
    """Check depth, size and heads, and refuse null, NUL characters and numbers that are not finite.

    ``path`` is the JSON path of ``data`` and ``kind`` its kind (a key of ``_KIND_LABELS``). Values are checked in
    document order, without recursion. Raises :class:`InvalidDefinition` for the first error.
    """
    size_guard = _SizeGuard(path, limits)
    stack: list[tuple[object, _Location, int, str]] = [(data, None, 0, kind)]
    while stack:
        value, location, depth, kind = stack.pop()
        if kind == "operand" and isinstance(value, Mapping):
            kind = "reading"
        size_guard.count_value(kind, depth)
        try:
            _check_value(value, kind)
        except PydanticCustomError as error:
            context = error.context or {}
            error_path = json_pointer([*_path_steps(location), *context["at"]])
            raise InvalidDefinition(f"{path}{error_path}", context["message"], context["remedy"]) from None
        if isinstance(value, Mapping):
            size_guard.count_anniversaries(value, kind)
            children = [(value[key], (location, key), _child_kind(kind, key)) for key in value]
        elif isinstance(value, list | tuple):
            children = [(item, (location, index), _ITEM_KINDS.get(kind, "plain")) for index, item in enumerate(value)]
        else:
            continue
        child_depth = depth + (kind not in ("rules", "stages"))
        stack.extend((child, child_at, child_depth, child_kind) for child, child_at, child_kind in reversed(children))


def _check_value(value: object, kind: str) -> None:
    """Check one value without its children; raise a ``validation_error``."""
    if kind in _NODE_HEADS:
        _check_head(value, kind)
    elif kind == "where_value" and isinstance(value, Mapping):
        _check_where_value(value)
    if isinstance(value, Mapping):
        for key in value:
            _check_text(key, str(key))
    elif not isinstance(value, list | tuple):
        _check_scalar(value)


def _child_kind(kind: str, key: object) -> str:
    return "where_value" if kind == "where" else _CHILD_KINDS.get((kind, str(key)), "plain")


class _SizeGuard:
    """Counts the values of a document, and refuses the document when it exceeds the limits."""

    def __init__(self, path: str, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._nodes = self._values = self._anniversaries = 0

    def count_value(self, kind: str, depth: int) -> None:
        is_node = kind in _NODE_HEADS
        self._values += 1
        self._nodes += is_node
        if kind == "stage_in":
            self._anniversaries = 0  # The limit is for one rule, and each stage has its own rule.
        deepest = self._limits.rule_depth_levels_max + (0 if is_node else _LEVELS_INSIDE_NODE)
        if depth > deepest:
            self._refuse(f"the rule nests deeper than {deepest} levels")
        largest = self._limits.rule_nodes_max
        if self._nodes > largest or self._values > largest * VALUES_PER_NODE:
            self._refuse(f"the rule is larger than {largest} nodes or {largest * VALUES_PER_NODE} values")

    def count_anniversaries(self, value: Mapping[object, object], kind: str) -> None:
        if kind in ("rule", "where_value") and "anniversary_within" in value:
            self._anniversaries += 1
            if self._anniversaries > ANNIVERSARIES_MAX:
                self._refuse(f"the rule has more than {ANNIVERSARIES_MAX} `anniversary_within`")

    def _refuse(self, message: str) -> None:
        raise InvalidDefinition(self._path, message, "Move a part into a segment and refer to it.")


def _check_head(node: object, kind: str) -> None:
    heads = _NODE_HEADS[kind]
    listed_heads = f"Use one of {quote_all(heads)}."
    if not isinstance(node, Mapping):
        raise validation_error(f"{_KIND_LABELS[kind]} must be an object with one head", listed_heads)
    node_heads = [key for key in node if key in heads]
    if len(node_heads) > 1:
        raise validation_error(
            f"the node has more than one head: {quote_all(node_heads)}",
            "Put each in its own node, under `all` or `any`." if kind == "rule" else "Keep one of them.",
        )
    if node_heads:
        return
    elsewhere = next((key for key in node if key in HEADS or key in VALUE_HEADS), None)
    if elsewhere is not None:
        raise validation_error(
            f"{_KIND_LABELS[kind]} cannot have the head `{elsewhere}`",
            _suggest_other_head(elsewhere, kind) or listed_heads,
            elsewhere,
        )
    guess = next(filter(None, (suggest_similar(key, heads) for key in node)), listed_heads)
    raise validation_error(f"{_KIND_LABELS[kind]} needs a head", guess)


def _suggest_other_head(head: str, kind: str) -> str:
    """Return the remedy for a head that is valid only in another kind of node; "" for the general remedy."""
    if kind == "rule" and head == "count":
        return 'Use {"did": ...} with `at_least`, `at_most`, `exactly` or `between`.'
    if kind == "rule":
        return 'Use {"first": ...} or {"last": ...} with a window, or put it under `after` or `before_date` of a trait.'
    if kind in ("value", "reading") and head == "did":
        return 'To count touchpoints, use {"count": ...}.'
    if kind == "value" and head == "trait":
        return "A computed trait is computed from touchpoints; use an aggregate, `count`, `first_at` or `last_at`."
    return ""


def _check_where_value(value: Mapping[object, object]) -> None:
    head = next((str(key) for key in value if key in _NODE_HEADS["reading"]), None)
    if head is not None:
        raise validation_error(
            f"`{head}` is not an operator of a comparison",
            f'Put it under an operator, such as {{"eq": {{"{head}": ...}}}}.',
            head,
        )


def _check_scalar(value: object) -> None:
    if value is None:
        raise validation_error(
            "null is not allowed", "Leave the key out; to test for a missing value, use `exists: false`."
        )
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, bool):
        return
    elif isinstance(value, int | float | Decimal):
        if not math.isfinite(value) if isinstance(value, float) else not _is_short(value):
            raise validation_error(
                f"the number is not finite or needs more than {DIGITS_MAX} digits", "Give a smaller number."
            )
    else:
        raise validation_error(
            "the value is not a JSON value", "Give text, a number, true, false, a list or an object."
        )


def _is_short(number: int | Decimal) -> bool:
    return (isinstance(number, int) or number.is_finite()) and count_digits(number) <= DIGITS_MAX


def _check_text(text: object, *at: str) -> None:
    if not isinstance(text, str):
        raise validation_error("the key is not text", "Put it in quotes.", *at)
    if "\0" in text or not _is_unicode(text):
        raise validation_error("the text contains NUL or a lone surrogate", "Remove that character.", *at)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _path_steps(location: _Location) -> Iterator[str | int]:
    chain: list[str | int] = []
    while location is not None:
        location, key = location
        chain.append(key)
    return reversed(chain)


def json_pointer(steps: Iterator[str | int] | Sequence[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) of the steps.

    Clients choose the keys, so long keys are cut and unprintable characters are escaped.
    """
    return "".join(f"/{_printable(step)}" for step in steps)


def _printable(step: str | int) -> str:
    text = str(step).encode("utf-8", "backslashreplace").decode()[:80]
    return text.replace("\0", "\\0").replace("~", "~0").replace("/", "~1")


_MESSAGES: Final = {
    "int_type": ("the value must be a whole number", "Write it without quotes, decimal point or exponent."),
    "string_type": ("the value must be text", "Put it in quotes."),
    "bool_type": ("the value must be true or false", "Write true or false without quotes, or leave the key out."),
    "list_type": ("the value must be a list", "Put the items in [ ]."),
    "dict_type": ("the value must be an object", "Put the fields in { }."),
    "model_type": ("the value must be an object", "Put the fields in { }."),
    "too_short": ("the value is empty or has too few items", "Give all its items, or leave the key out."),
    "greater_than_equal": ("the number is too small", "Give a larger number."),
    "less_than_equal": ("the number is too large", "Give a smaller number."),
    "string_too_short": ("the text is empty", "Give some text, or leave the key out."),
}


def to_invalid_definition(
    error: ValidationError, path: str, kind: str, keys: Mapping[tuple[str, str], Sequence[str]]
) -> InvalidDefinition:
    """Convert the first error of the models; ``keys`` maps (kind, head) to the allowed keys."""
    first = error.errors(include_url=False, include_input=False)[0]
    steps, owner = _without_union_tags(first["loc"], kind)
    message, remedy, at = _describe_error(first, owner, keys, steps)
    return InvalidDefinition(f"{path}{json_pointer([*steps, *at])}", message, remedy)


def _without_union_tags(loc: tuple[str | int, ...], kind: str) -> tuple[list[str | int], tuple[str, str]]:
    """Remove the union tags that pydantic adds to ``loc``. Also return (kind, head) of the innermost object."""
    steps: list[str | int] = []
    owner = (kind, "")
    tag_due = kind in _TAGGED
    for step in loc:
        if tag_due:
            kind, tag_due = _follow_union_tag(kind, str(step))
            owner = (kind, str(step))
            continue
        steps.append(step)
        kind = _ITEM_KINDS.get(kind) or _CHILD_KINDS.get((kind, str(step)), "plain")
        tag_due = kind in _TAGGED
        if kind == "plain_did":
            owner = (kind, "did")
        elif kind.endswith("_in"):
            owner = (kind, "")
    return steps, owner


def _follow_union_tag(kind: str, tag: str) -> tuple[str, bool]:
    """Return the kind that the tag selects, and whether that kind is itself a tagged union."""
    if kind == "operand":
        return ("reading", True) if tag == "reading" else ("plain", False)
    if kind == "reading":
        return ("reading", False) if tag == "trait" else ("value", True)
    return kind, False


def _describe_error(
    first: ErrorDetails, owner: tuple[str, str], keys: Mapping[tuple[str, str], Sequence[str]], steps: list[str | int]
) -> tuple[str, str, tuple[str | int, ...]]:
    context = first.get("ctx", {})
    match first["type"]:
        case "refused":
            return context["message"], context["remedy"], context["at"]
        case "extra_forbidden":
            return *_describe_unknown_key(_printable(steps[-1]), owner, keys), ()
        case "missing":
            return f"`{steps[-1]}` is missing", "Add it.", ()
        case "string_too_long" | "too_long" as error_type:
            unit = "characters" if error_type == "string_too_long" else "items"
            return f"the value has more than {context['max_length']} {unit}", "Shorten it.", ()
        case error_type if error_type in _MESSAGES:
            return *_MESSAGES[error_type], ()
        case _:
            return first["msg"], "See docs/rules.md.", ()


def _describe_unknown_key(
    key: str, owner: tuple[str, str], keys: Mapping[tuple[str, str], Sequence[str]]
) -> tuple[str, str]:
    kind, head = owner
    name = f"a `{head}` node" if kind == "rule" else _KIND_LABELS[kind]
    if kind == "value" and key in keys["where_value", "comparison"]:
        return (
            f"{name} cannot contain a comparison",
            f'Use it as an operand instead, such as {{"trait": ..., "{key}": {{"{head}": ...}}}}.',
        )
    guess = suggest_similar(key, keys[owner])
    return f"{name} has no key `{key}`", guess or "Correct or remove it; docs/rules.md lists the keys."
