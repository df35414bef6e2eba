"""Published schemas of the rule language, in a form that client generators and the documentation page can handle.

The models of :mod:`app.rules.language` produce one schema for each head. Eight aggregates repeat the same forty
properties, and generators write code that does not compile if a schema and one of its properties share a name
(``Did.did``). This module merges the aggregates and names the nodes after their heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from pydantic import BaseModel

from app.rules.language.expressions import VALUES, Hours
from app.rules.language.nodes import RULES

Schemas = dict[str, Any]

REF_PREFIX: Final = "#/components/schemas/"

_AGGREGATE_RULE: Final = "AggregateRule"
_AGGREGATE_VALUE: Final = "AggregateValue"
_HOURS: Final = "HoursOfDay"

_EXAMPLES: Final[Schemas] = {
    "Rule": {"did": "Order Completed", "at_least": 2, "within": "30d"},
    "Value": {"avg": "total", "of": "Order Completed", "within": "365d"},
    "Reading": {"trait": "plan"},
}
"""Examples of the union types, which are not models and therefore cannot contain their own examples."""

_SHALLOW: Final[Schemas] = {
    "Rule": {
        "title": "Rule",
        "type": "object",
        "description": "A rule: one JSON object whose head key names the condition, such as `did`, `sum`, `trait`, "
        "`all` or `not`. See the [rules guide](docs/guides/rules); `/openapi.json` has the full schema.",
        "examples": [{"all": [{"did": "Order Completed", "within": "90d"}, {"trait": "plan", "eq": "pro"}]}],
    },
    "Value": {
        "title": "Value",
        "type": "object",
        "description": "A value computed from touchpoints, such as `sum`, `avg`, `count` or `last_at`. The [rules "
        "guide](docs/guides/rules) explains it; `/openapi.json` has the full schema.",
        "examples": [{"avg": "total", "of": "Order Completed", "within": "365d"}],
    },
}


def publish_rule_schemas(schemas: Schemas) -> None:
    """Merge the schemas of the aggregates in the JSON Schema of rules, and rename those of the nodes.

    Changes ``schemas`` in place.
    """
    value_models = [model for model in VALUES if "of" in model.model_fields]
    heads = {_head_of(model) for model in value_models}
    rule_models = [model for model in RULES if _head_of(model) in heads]
    renames = {model.__name__: _AGGREGATE_RULE for model in rule_models}
    renames |= {model.__name__: _AGGREGATE_VALUE for model in value_models}
    renames |= {model.__name__: f"{_head_of(model).title()}Rule" for model in RULES if model not in rule_models}
    renames[Hours.__name__] = _HOURS
    merged = {
        _AGGREGATE_RULE: _merge_aggregates(
            schemas, rule_models, "True when an aggregate over the matching touchpoints satisfies the comparison."
        ),
        _AGGREGATE_VALUE: _merge_aggregates(
            schemas, value_models, "An aggregate over the matching touchpoints in the window."
        ),
    }
    for name, published_name in renames.items():
        schema: Schemas = schemas.pop(name)
        content = merged.get(published_name, schema)
        schemas[published_name] = {**content, "title": published_name}
    for union in ("Rule", "Value"):
        options = [{"$ref": _rename_reference(option["$ref"], renames)} for option in schemas[union]["oneOf"]]
        schemas[union]["oneOf"] = [option for index, option in enumerate(options) if option not in options[:index]]
    for name, example in _EXAMPLES.items():
        schemas[name]["examples"] = [example]
    for node in iterate_nodes(schemas):
        if isinstance(node.get("$ref"), str):
            node["$ref"] = _rename_reference(node["$ref"], renames)


def replace_by_shallow_rules(schemas: Schemas) -> None:
    """Replace each recursive schema by the schema of a plain object. Changes ``schemas`` in place.

    Swagger UI expands each occurrence of a recursive schema: opening one operation took 51 seconds.
    """
    schemas.update(_SHALLOW)


def iterate_nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object inside parsed JSON, except those in examples, which are data."""
    if isinstance(value, dict):
        yield value
        for key, child in value.items():
            if key not in ("example", "examples"):
                yield from iterate_nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from iterate_nodes(child)


def _head_of(model: type[BaseModel]) -> str:
    head: str = model.head  # type: ignore[attr-defined]  # every node of the language has one
    return head


def _merge_aggregates(schemas: Schemas, models: Sequence[type[BaseModel]], description: str) -> Schemas:
    """Return one schema for models that differ only in their head. Raise ValueError if they have other differences."""
    heads: Schemas = {}
    examples: list[Any] = []
    shared: Schemas = {}
    for model in models:
        schema, head = schemas[model.__name__], _head_of(model)
        properties = dict(schema["properties"])
        heads[head] = {**properties.pop(head), "description": schema["description"]}
        examples += schema["examples"][:1]
        required = [name for name in schema["required"] if name != head]
        rest = {"properties": properties, "required": required, "additionalProperties": False}
        if shared and rest != shared:
            raise ValueError(f"{model.__name__} differs from the other aggregates in more than its head")
        shared = rest
    return {
        "type": "object",
        "description": f"{description} Its head is exactly one of {', '.join(heads)}.",
        "examples": examples,
        **shared,
        "properties": {**heads, **shared["properties"]},
        # The oneOf is inside allOf: if it is beside properties, generators use the oneOf as the whole schema.
        "allOf": [{"oneOf": [{"required": [head]} for head in heads]}],
    }


def _rename_reference(reference: str, renames: dict[str, str]) -> str:
    name = reference.removeprefix(REF_PREFIX)
    return REF_PREFIX + renames.get(name, name)
