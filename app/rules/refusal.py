"""How a definition is refused: the path of the node, what is wrong there, and what to write instead.

Two passes. :func:`inspect` walks the raw JSON without recursion, so that depth and size are bounded before
anything recurses, and settles which head each node has. The models of :mod:`app.rules.language` then check the
fields; :func:`as_invalid_definition` turns their first complaint into an :class:`InvalidDefinition`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from app.config import Limits
from app.errors import InvalidDefinition
from app.rules.numbers import DIGITS_MAX, digits_written_out

HEADS: Final = ("all", "any", "not", "everyone", "did", "trait", "segment", "stage")
HEADS_LATER: Final = frozenset(
    {"first", "last", "sum", "avg", "min", "max", "distinct", "first_value", "last_value", "most_frequent"}
    | {"sequence", "regularly", "bucket", "count", "first_at", "last_at"}
)
KEYS_LATER: Final = {
    "did": frozenset({"during"}),
    "trait": frozenset({"held_for", "changed_within"}),
    "segment": frozenset({"for_at_least", "entered_within", "ever"}),
    "stage": frozenset({"for_at_least", "entered_within", "ever"}),
}
OPERATORS_LATER: Final = frozenset(
    {"matches", "any_of", "all_of", "none_of", "after", "before_date"}
    | {"within_last", "within_next", "anniversary_within"}
)

_LEVELS_INSIDE_NODE: Final = 6
_VALUES_PER_NODE: Final = 20
_KINDS: Final = {
    ("rule", "all"): "rules",
    ("rule", "any"): "rules",
    ("rule", "not"): "rule",
    ("segment", "rule"): "rule",
    ("journey", "stages"): "stages",
    ("stage", "rule"): "rule",
    ("rule", "where"): "where",
}
"""What stands under a key: which children are rules. Every other value is a plain one."""
_ITEM_KINDS: Final = {"rules": "rule", "stages": "stage"}

Where = tuple["Where | None", str | int] | None
"""A place in the document as a chain (parent, key), so that going deeper costs nothing."""


def refuse(message: str, remedy: str, *at: str | int) -> PydanticCustomError:
    """What a validator raises. ``at`` leads from the value it validates to the offending part."""
    return PydanticCustomError("refused", "{message}", {"message": message, "remedy": remedy, "at": at})


def refuse_later(what: str, remedy: str, *at: str | int) -> PydanticCustomError:
    return refuse(f"{what} is not available yet", remedy, *at)


def inspect(data: object, path: str, kind: str, limits: Limits) -> None:
    """Refuse what no rule may contain: too deep, too large, unknown heads, null, NUL, numbers that are not finite."""
    nodes = values = 0
    stack: list[tuple[object, Where, int, str]] = [(data, None, 0, kind)]
    while stack:
        value, where, depth, kind = stack.pop()
        values += 1
        nodes += kind == "rule"
        deepest = limits.rule_depth_levels_max + (0 if kind == "rule" else _LEVELS_INSIDE_NODE)
        if depth > deepest:
            raise InvalidDefinition(path, f"it nests deeper than {deepest} levels", "Move a part into its own segment.")
        if nodes > limits.rule_nodes_max or values > limits.rule_nodes_max * _VALUES_PER_NODE:
            raise InvalidDefinition(
                path,
                f"it is larger than {limits.rule_nodes_max} nodes and {_VALUES_PER_NODE} values for each",
                "Move a part into its own segment.",
            )
        if kind == "rule":
            _inspect_head(value, f"{path}{pointer(_steps(where))}")
        if isinstance(value, Mapping):
            for key in value:
                _inspect_text(key, f"{path}{pointer(_steps((where, str(key))))}")
            inner = [(value[key], (where, key), _KINDS.get((kind, key), "value")) for key in value]
        elif isinstance(value, list | tuple):
            inner = [(item, (where, index), _ITEM_KINDS.get(kind, "value")) for index, item in enumerate(value)]
        else:
            _inspect_scalar(value, f"{path}{pointer(_steps(where))}")
            continue
        stack.extend(
            (item, place, depth + (kind not in _ITEM_KINDS), inner_kind) for item, place, inner_kind in reversed(inner)
        )


def _inspect_head(node: object, path: str) -> None:
    if not isinstance(node, Mapping):
        raise InvalidDefinition(path, "a rule is an object with one head", f"Heads are {', '.join(HEADS)}.")
    heads = [key for key in node if key in HEADS or key in HEADS_LATER]
    if not heads:
        near = [match for key in node for match in get_close_matches(str(key)[:40], HEADS, 1, 0.7)]
        remedy = f"Did you mean {near[0]}?" if near else f"Heads are {', '.join(HEADS)}."
        raise InvalidDefinition(path, "the node has no head", remedy)
    later = next((head for head in heads if head in HEADS_LATER), None)
    if later is not None:
        raise InvalidDefinition(
            f"{path}/{later}", f"the head {later} is not available yet", f"Heads so far are {', '.join(HEADS)}."
        )
    if len(heads) > 1:
        raise InvalidDefinition(
            path,
            f"the node has more than one head: {', '.join(heads)}",
            "Put each in a node of its own under all or any.",
        )


def _inspect_scalar(value: object, path: str) -> None:
    if value is None:
        raise InvalidDefinition(path, "null says nothing", "Leave it out; for a missing value say exists: false.")
    if isinstance(value, str):
        _inspect_text(value, path)
    elif isinstance(value, bool):
        return
    elif isinstance(value, int | float | Decimal):
        if not math.isfinite(value) if isinstance(value, float) else not _is_short(value):
            raise InvalidDefinition(
                path, f"the number is not finite or needs more than {DIGITS_MAX} digits", "Give a smaller number."
            )
    else:
        raise InvalidDefinition(path, "this is no JSON value", "Give text, a number, true, false, a list or an object.")


def _is_short(number: int | Decimal) -> bool:
    return (isinstance(number, int) or number.is_finite()) and digits_written_out(number) <= DIGITS_MAX


def _inspect_text(text: object, path: str) -> None:
    if not isinstance(text, str):
        raise InvalidDefinition(path, "the key is no text", "Keys of a JSON object are text.")
    if "\0" in text or not _is_unicode(text):
        raise InvalidDefinition(path, "the text holds NUL or a lone surrogate", "Remove that character.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _steps(where: Where) -> Iterator[str | int]:
    chain: list[str | int] = []
    while where is not None:
        where, key = where
        chain.append(key)
    return reversed(chain)


def pointer(steps: Iterator[str | int] | Sequence[str | int]) -> str:
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


def as_invalid_definition(error: ValidationError, path: str, kind: str) -> InvalidDefinition:
    """The first complaint of the models, at its JSON path."""
    first = error.errors(include_url=False, include_input=False)[0]
    steps, head = _document_steps(first["loc"], kind)
    message, remedy, at = _complaint(first, head, steps)
    return InvalidDefinition(f"{path}{pointer([*steps, *at])}", message, remedy)


def _document_steps(loc: tuple[str | int, ...], kind: str) -> tuple[list[str | int], str]:
    """``loc`` without the tags that pydantic puts into it where a union was decided, and the head of the last node."""
    steps: list[str | int] = []
    head = kind
    rest = iter(loc)
    for step in rest:
        if kind == "rule" or kind == "where_value":
            if kind == "rule":
                head = str(step)
            kind = "node" if kind == "rule" else "value"
            continue
        steps.append(step)
        if kind in _ITEM_KINDS:
            kind = _ITEM_KINDS[kind]
        elif kind == "where":
            kind, head = "where_value", "where"
        else:
            kind = _KINDS.get(("rule" if kind == "node" else kind, str(step)), "value")
    return steps, head


def _complaint(first: ErrorDetails, head: str, steps: list[str | int]) -> tuple[str, str, tuple[str | int, ...]]:
    context = first.get("ctx", {})
    match first["type"]:
        case "refused":
            return context["message"], context["remedy"], context["at"]
        case "extra_forbidden":
            return *_unknown_key(_printable(steps[-1]), head), ()
        case "missing":
            return f"{steps[-1]} is missing", "Add it.", ()
        case "string_too_long" | "too_long":
            return f"it is longer than {context['max_length']}", "Shorten it.", ()
        case known if known in _MESSAGES:
            return *_MESSAGES[known], ()
        case _:
            return first["msg"], "See docs/rules.md.", ()


def _unknown_key(key: str, head: str) -> tuple[str, str]:
    later = KEYS_LATER.get(head, frozenset()) | (OPERATORS_LATER if head in ("trait", "where") else frozenset())
    if key in later:
        return f"{key} is not available yet", "Leave it out until it is; docs/rules.md lists what there is."
    place = head if head in ("segment", "journey", "stage", "where") else f"a {head} node"
    return f"{place} has no key {key}", "Correct or remove it; docs/rules.md lists the keys."
