"""How a definition is refused: the path of the node, what is wrong there, and what to write instead.

Two passes. :func:`check_structure` walks the raw JSON without recursion, so that depth and size are bounded before
anything recurses, and settles which head each node has. The models of :mod:`app.rules.language.nodes` then check the
fields; :func:`to_invalid_definition` turns their first complaint into an :class:`InvalidDefinition`.
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
"""Operators whose operand may be read: a trait, or a value expression."""
ANNIVERSARIES_MAX: Final = 5
"""Anniversaries in one rule: when the next one begins is found by walking through years."""

_LEVELS_INSIDE_NODE: Final = 6
_VALUES_PER_NODE: Final = 20

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
    "plain_did": "what does not follow",
    "segment_in": "a segment",
    "journey_in": "a journey",
    "stage_in": "a stage",
    "trait_in": "a computed trait",
    "where_value": "a comparison",
    "during": "during",
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
"""What stands under a key of an object of some kind. Every other value is a plain one."""
_ITEM_KINDS: Final = {"rules": "rule", "stages": "stage_in", "steps": "step", "where": "where_value"}
"""What the items of a list or of a map are."""
_TAGGED: Final = frozenset((*_NODE_HEADS, "operand", "where_value", "during")) - {"plain_did"}
"""Kinds that a union of models reads: pydantic puts the option that it chose into the place of an error."""

_Location = tuple["_Location | None", str | int] | None
"""A place in the document as a chain (parent, key), so that going deeper costs nothing."""


def validation_error(message: str, remedy: str, *at: str | int) -> PydanticCustomError:
    """What a validator raises. ``at`` leads from the value it validates to the offending part."""
    return PydanticCustomError("refused", "{message}", {"message": message, "remedy": remedy, "at": at})


def suggest_similar(word: object, choices: Iterable[str]) -> str:
    """Return a question that names the most similar choice; "" if no choice is similar."""
    matches = get_close_matches(str(word)[:40], list(choices), 1, 0.7)
    return f"Did you mean {matches[0]}?" if matches else ""


def check_structure(data: object, path: str, kind: str, limits: Limits) -> None:
    """Refuse what no rule may contain: too deep, too large, unknown heads, null, NUL, numbers that are not finite.

    ``kind`` says what ``data`` is, in the words of ``_KIND_LABELS``. Works without recursion, in document order.
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
        stack.extend((child, place, child_depth, child_kind) for child, place, child_kind in reversed(children))


def _check_value(value: object, kind: str) -> None:
    """One value without what is inside it; raises what ``validation_error`` makes."""
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
    """Counts the values of a document and refuses it once it exceeds the limits."""

    def __init__(self, path: str, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._nodes = self._values = self._anniversaries = 0

    def count_value(self, kind: str, depth: int) -> None:
        is_node = kind in _NODE_HEADS
        self._values += 1
        self._nodes += is_node
        if kind == "stage_in":
            self._anniversaries = 0  # each stage has a rule of its own
        deepest = self._limits.rule_depth_levels_max + (0 if is_node else _LEVELS_INSIDE_NODE)
        if depth > deepest:
            self._refuse(f"it nests deeper than {deepest} levels")
        largest = self._limits.rule_nodes_max
        if self._nodes > largest or self._values > largest * _VALUES_PER_NODE:
            self._refuse(f"it is larger than {largest} nodes and {_VALUES_PER_NODE} values for each")

    def count_anniversaries(self, value: Mapping[object, object], kind: str) -> None:
        if kind in ("rule", "where_value") and "anniversary_within" in value:
            self._anniversaries += 1
            if self._anniversaries > ANNIVERSARIES_MAX:
                self._refuse(f"it asks for more than {ANNIVERSARIES_MAX} anniversaries")

    def _refuse(self, message: str) -> None:
        raise InvalidDefinition(self._path, message, "Move a part into its own segment.")


def _check_head(node: object, kind: str) -> None:
    heads = _NODE_HEADS[kind]
    listed_heads = f"Heads are {', '.join(heads)}."
    if not isinstance(node, Mapping):
        raise validation_error(f"{_KIND_LABELS[kind]} is an object with one head", listed_heads)
    node_heads = [key for key in node if key in heads]
    if len(node_heads) > 1:
        raise validation_error(
            f"the node has more than one head: {', '.join(node_heads)}",
            "Put each in a node of its own under all or any." if kind == "rule" else "Keep one of them.",
        )
    if node_heads:
        return
    elsewhere = next((key for key in node if key in HEADS or key in VALUE_HEADS), None)
    if elsewhere is not None:
        raise validation_error(
            f"{_KIND_LABELS[kind]} has no head {elsewhere}",
            _suggest_other_head(elsewhere, kind) or listed_heads,
            elsewhere,
        )
    guess = next(filter(None, (suggest_similar(key, heads) for key in node)), listed_heads)
    raise validation_error(f"{_KIND_LABELS[kind]} needs a head", guess)


def _suggest_other_head(head: str, kind: str) -> str:
    """The remedy for a head that belongs elsewhere."""
    if kind == "rule" and head == "count":
        return 'Use {"did": ...} with at_least, at_most, exactly or between.'
    if kind == "rule":
        return 'Use {"first": ...} or {"last": ...} with a window; instants are operands of after and before_date.'
    if kind in ("value", "reading") and head == "did":
        return 'To count touchpoints, use {"count": ...}.'
    if kind == "value" and head == "trait":
        return "A computed trait is worked out of touchpoints; use an aggregate, count, first_at or last_at."
    return ""


def _check_where_value(value: Mapping[object, object]) -> None:
    head = next((str(key) for key in value if key in _NODE_HEADS["reading"]), None)
    if head is not None:
        raise validation_error(
            f"{head} is no operator of a comparison",
            f'Say how to compare with it, such as {{"eq": {{"{head}": ...}}}}.',
            head,
        )


def _check_scalar(value: object) -> None:
    if value is None:
        raise validation_error("null says nothing", "Leave it out; for a missing value say exists: false.")
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
        raise validation_error("this is no JSON value", "Give text, a number, true, false, a list or an object.")


def _is_short(number: int | Decimal) -> bool:
    return (isinstance(number, int) or number.is_finite()) and count_digits(number) <= DIGITS_MAX


def _check_text(text: object, *at: str) -> None:
    if not isinstance(text, str):
        raise validation_error("the key is no text", "Keys of a JSON object are text.", *at)
    if "\0" in text or not _is_unicode(text):
        raise validation_error("the text holds NUL or a lone surrogate", "Remove that character.", *at)


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
    """A JSON pointer (RFC 6901) that is short and printable, whatever a client named its keys."""
    return "".join(f"/{_printable(step)}" for step in steps)


def _printable(step: str | int) -> str:
    text = str(step).encode("utf-8", "backslashreplace").decode()[:80]
    return text.replace("\0", "\\0").replace("~", "~0").replace("/", "~1")


_MESSAGES: Final = {
    "int_type": ("it must be a whole number", "Write it without quotes, point or exponent."),
    "string_type": ("it must be text", "Put it in quotes."),
    "bool_type": ("it must be true", "Write true, or leave it out."),
    "list_type": ("it must be a list", "Put the items in [ ]."),
    "dict_type": ("it must be an object", "Put the members in { }."),
    "model_type": ("it must be an object", "Put the members in { }."),
    "too_short": ("it is empty or too short", "Give all its items, or leave it out."),
    "greater_than_equal": ("the number is too small", "Give a larger one."),
    "less_than_equal": ("the number is too large", "Give a smaller one."),
    "string_too_short": ("the text is empty", "Give some text, or leave it out."),
}


def to_invalid_definition(
    error: ValidationError, path: str, kind: str, keys: Mapping[tuple[str, str], Sequence[str]]
) -> InvalidDefinition:
    """The first complaint of the models, at its JSON path. ``keys`` are those of each (kind, head)."""
    first = error.errors(include_url=False, include_input=False)[0]
    steps, place = _without_union_tags(first["loc"], kind)
    message, remedy, at = _describe_error(first, place, keys, steps)
    return InvalidDefinition(f"{path}{json_pointer([*steps, *at])}", message, remedy)


def _without_union_tags(loc: tuple[str | int, ...], kind: str) -> tuple[list[str | int], tuple[str, str]]:
    """``loc`` without the tags that pydantic puts into it where a union was decided; (kind, head) of the last one."""
    steps: list[str | int] = []
    place = (kind, "")
    tag_due = kind in _TAGGED
    for step in loc:
        if tag_due:
            kind, tag_due = _follow_union_tag(kind, str(step))
            place = (kind, str(step))
            continue
        steps.append(step)
        kind = _ITEM_KINDS.get(kind) or _CHILD_KINDS.get((kind, str(step)), "plain")
        tag_due = kind in _TAGGED
        if kind == "plain_did":
            place = (kind, "did")
        elif kind.endswith("_in"):
            place = (kind, "")
    return steps, place


def _follow_union_tag(kind: str, tag: str) -> tuple[str, bool]:
    """What a union has decided on, and whether that is a union in turn."""
    if kind == "operand":
        return ("reading", True) if tag == "reading" else ("plain", False)
    if kind == "reading":
        return ("reading", False) if tag == "trait" else ("value", True)
    return kind, False


def _describe_error(
    first: ErrorDetails, place: tuple[str, str], keys: Mapping[tuple[str, str], Sequence[str]], steps: list[str | int]
) -> tuple[str, str, tuple[str | int, ...]]:
    context = first.get("ctx", {})
    match first["type"]:
        case "refused":
            return context["message"], context["remedy"], context["at"]
        case "extra_forbidden":
            return *_describe_unknown_key(_printable(steps[-1]), place, keys), ()
        case "missing":
            return f"{steps[-1]} is missing", "Add it.", ()
        case "string_too_long" | "too_long":
            return f"it is longer than {context['max_length']}", "Shorten it.", ()
        case error_type if error_type in _MESSAGES:
            return *_MESSAGES[error_type], ()
        case _:
            return first["msg"], "See docs/rules.md.", ()


def _describe_unknown_key(
    key: str, place: tuple[str, str], keys: Mapping[tuple[str, str], Sequence[str]]
) -> tuple[str, str]:
    kind, head = place
    name = f"a {head} node" if kind == "rule" else _KIND_LABELS[kind]
    if kind == "value" and key in keys["where_value", "comparison"]:
        return f"{name} has no comparison", f'Compare where it is read: {{"{key}": {{"{head}": ...}}}} on a trait.'
    guess = suggest_similar(key, keys[place])
    return f"{name} has no key {key}", guess or "Correct or remove it; docs/rules.md lists the keys."
