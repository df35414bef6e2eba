"""The reference pages list exactly the settings, limits, codes, routes, commands and metrics of the code."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import httpx
import typer
from fastapi import FastAPI
from pydantic.fields import FieldInfo

from app.api.collect import SHORT_ROUTES
from app.cli.commands import cli
from app.config import JUNK_IDS, Limits, Settings
from app.errors import NotFound, Overloaded, RejectionCode, SegueError
from app.formats.email_phone import REASONS
from app.formats.segment_message import ID_UNUSABLE, UNUSABLE
from app.http.connection_limits import STALLED_SECONDS_MAX, Refusal
from app.http.problems import add_problem_handlers
from app.main import create_app
from app.observability.metrics import Metrics, Step
from app.touchpoint import STRENGTH
from app.tracking_plan.check import WARNING as BROKEN_PLAN
from tests.docs.markdown import README, REFERENCE, ROOT, blocks, in_first_column, prose, read, rows

ERRORS = REFERENCE / "errors.md"
SETTINGS = REFERENCE / "settings.md"
HTTP = REFERENCE / "http.md"
OPERATIONS = REFERENCE / "operations.md"
IDENTITIES = REFERENCE / "identities.md"


def environment_value(default: Any) -> str:
    """Return a default as it would be written into the environment."""
    if default is None:
        return "unset"
    return "`[]`" if default == () else f"`{default}`"


def source_of(package: str) -> str:
    return "\n".join(read(file) for file in sorted((ROOT / "app" / package).glob("*.py")))


def variable(name: str) -> str:
    return "DATABASE_URL" if name == "database_url" else f"SEGUE_{name.upper()}"


def test_limits_are_those_of_the_code() -> None:
    listed = [row for row in rows(SETTINGS) if row[0].strip("`") in Limits.model_fields]
    assert listed == [
        [f"`{name}`", environment_value(field.default), field.description]
        for name, field in Limits.model_fields.items()
    ]


def test_settings_are_those_of_the_code() -> None:
    fields = {variable(name): field for name, field in Settings.model_fields.items() if name != "limits"}
    listed = {row[0].strip("`"): row[1:] for row in rows(SETTINGS) if row[0].strip("`") in fields}
    assert list(listed) == list(fields)
    for name, field in fields.items():
        default = (
            "a [list](identities.md#junk)"
            if name in ("SEGUE_JUNK_IDS", "SEGUE_JUNK_PATTERNS")
            else environment_value(field.default)
        )
        assert listed[name] == [default, field.description], name


def test_mentioned_variables_exist() -> None:
    variables = {variable(name) for name in (*Settings.model_fields, *Limits.model_fields)}
    for page in (README, ROOT / "docs" / "architecture.md", *REFERENCE.glob("*.md")):
        assert set(re.findall(r"\bSEGUE_[A-Z_]+\b(?! and)", read(page))) - {"SEGUE_"} <= variables, page.name


def test_every_setting_has_a_description() -> None:
    fields: list[FieldInfo] = [*Settings.model_fields.values(), *Limits.model_fields.values()]
    assert all(field.description for field in fields if Limits not in (field.annotation, *get_args(field.annotation)))


def test_bounds_without_a_setting() -> None:
    from app.enrichment.channel import CHANNEL_CHARS_MAX
    from app.projection.fold import TRAITS_BYTES_MAX
    from app.rules.engine.definition_compiler import LEVELS_MAX

    listed = [row[1] for row in rows(SETTINGS) if row[0][0] != "`" and row[1][0].isdigit()]
    assert [text.split()[0] for text in listed] == [
        f"{bound:,}" for bound in (TRAITS_BYTES_MAX, LEVELS_MAX, CHANNEL_CHARS_MAX)
    ]


def test_rejection_codes_in_order_of_precedence() -> None:
    codes = list(RejectionCode)
    listed = [row for row in rows(ERRORS) if row[0].strip("`") in codes and row[-1] in ("yes", "no")]
    assert [(row[0], row[1], row[-1]) for row in listed] == [
        (f"`{code}`", code.meaning, "yes" if code.is_retryable else "no") for code in codes
    ]
    assert all(row[2] for row in listed), "a code without advice"


def test_warning_codes_and_conflicting_twin_are_listed() -> None:
    from app.ingest.event_log import CONFLICTING_TWIN

    assert f"`{CONFLICTING_TWIN}`" in read(ERRORS)
    warnings = set(re.findall(r"_warn\([\w,\s]+,\s*\"(\w+)\"", source_of("formats")))
    assert warnings
    warnings |= {*UNUSABLE.values(), ID_UNUSABLE, BROKEN_PLAN}
    listed = {row[0].strip("`"): row[1:] for row in rows(ERRORS) if len(row) == 3 and row[0].startswith("`")}
    assert set(listed) == warnings
    assert all(all(cells) for cells in listed.values()), "a warning without meaning or advice"


async def test_error_codes_statuses_and_titles() -> None:
    listed = {row[0].strip("`"): row[1:] for row in rows(ERRORS) if len(row) == 5 and row[1].isdigit()}
    classes: list[type[SegueError]] = [SegueError, *_subclasses(SegueError)]
    expected = {error.code: [str(error.status), error.title] for error in classes}
    for problem in await _problems_of_the_framework():
        expected.setdefault(problem["code"], [str(problem["status"]), problem["title"]])
        assert expected[problem["code"]] == [str(problem["status"]), problem["title"]]
    assert {code: cells[:2] for code, cells in listed.items()} == expected
    assert all(all(cells) for cells in listed.values()), "an error without a cause or advice"
    assert {"method_not_allowed", "invalid_parameter", "not_found"} <= set(expected)
    assert "Retry-After" in Overloaded().headers


async def _problems_of_the_framework() -> list[dict[str, Any]]:
    """Return the responses to an unknown path, a wrong method and an invalid parameter.

    FastAPI sends them without calling a handler.
    """
    app = FastAPI()
    add_problem_handlers(app)

    @app.get("/item")
    async def read_item(limit: int) -> int:
        return limit

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://segue.example.com") as client:
        responses = [await client.get("/none"), await client.post("/item"), await client.get("/item?limit=x")]
    return [response.json() for response in responses]


def _subclasses(base: type[SegueError]) -> list[type[SegueError]]:
    return [error for direct in base.__subclasses__() for error in (direct, *_subclasses(direct))]


def test_shown_problem_has_the_fields_of_problems() -> None:
    (shape,) = (json.loads(text) for language, text in blocks(ERRORS) if language == "json")
    assert shape == NotFound(shape["message"]).to_problem()


def test_routes_are_those_of_the_code() -> None:
    paths = create_app(Settings.model_construct()).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert {name for name in in_first_column(HTTP) if "/" in name} == routes


def test_short_forms_of_routes_are_listed() -> None:
    assert f"`{' '.join(sorted(SHORT_ROUTES.values(), key=list(SHORT_ROUTES.values()).index))}`" in read(HTTP)


def test_commands_are_those_of_the_code() -> None:
    listed = {name.removesuffix(" FILE") for name in in_first_column(OPERATIONS) if name.startswith("segue ")}
    assert listed == {f"segue {command}" for command in _commands(typer.main.get_command(cli))}


def _commands(command: Any, path: str = "") -> list[str]:
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        return [path]
    return [name for key, child in subcommands.items() for name in _commands(child, f"{path} {key}".strip())]


def test_metrics_are_those_of_the_code() -> None:
    exposed = dict(re.findall(r"^# TYPE (\w+) (\w+)$", Metrics().render().decode(), re.MULTILINE))
    exposed = {name: kind for name, kind in exposed.items() if not name.endswith("_created")}
    assert {row[0].strip("`"): row[1] for row in rows(OPERATIONS) if row[0].startswith("`segue_")} == exposed


def test_steps_of_ingestion_are_listed() -> None:
    timed = re.findall(r"\.time_step\(\"(\w+)\"\)", source_of("ingest"))
    assert sorted(timed) == sorted(get_args(Step))
    (row,) = (row for row in rows(OPERATIONS) if row[0] == "`segue_step_seconds`")
    assert f"of ingestion: {', '.join(get_args(Step))}" in row[2]


def test_identity_kinds_junk_ids_and_caps_are_listed() -> None:
    assert set(STRENGTH) <= in_first_column(IDENTITIES)
    ranks = {
        row[0].strip("`"): int(row[1].split(",")[0])
        for row in rows(IDENTITIES)
        if row[1][:1].isdigit() and len(row) == 4
    }
    assert {kind: rank for kind, rank in ranks.items() if kind in STRENGTH} == STRENGTH
    junk_lists = [json.loads(text) for language, text in blocks(IDENTITIES) if language == "json" and text[0] == "["]
    assert [tuple(junk_ids) for junk_ids in junk_lists] == [JUNK_IDS]
    for name in ("anonymous_ids_per_customer_max", "contact_ids_per_customer_max", "other_ids_per_customer_max"):
        default = f"{Settings.model_fields[name].default:,}"
        assert [default, f"`{variable(name)}`"] in [row[1:] for row in rows(IDENTITIES)]


def test_reasons_for_unusable_contacts_are_listed() -> None:
    listed = [row for row in rows(IDENTITIES) if row[0].strip("`") in REASONS]
    assert listed == [[f"`{reason}`", meaning] for reason, meaning in REASONS.items()]


def test_refusals_of_clients_are_those_of_the_code() -> None:
    """Each reason is listed with existing limits, and with an error that has this status and code."""
    reasons = get_args(Refusal)
    listed = [row for row in rows(OPERATIONS) if row[0].strip("`") in reasons and len(row) == 4]
    assert [row[0].strip("`") for row in listed] == list(reasons)
    errors = {error.code: error.status for error in _subclasses(SegueError)}
    limits = {variable(name) for name in (*Settings.model_fields, *Limits.model_fields)}
    for _, _, limit, answer in listed:
        assert set(re.findall(r"SEGUE_\w+", limit)) <= limits
        for status, code in re.findall(r"(\d{3}) `(\w+)`", answer):
            assert errors[code] == int(status)
    [stalled] = [row for row in listed if row[0] == "`stalled`"]
    assert f"{STALLED_SECONDS_MAX:.0f} seconds" in stalled[1]


def test_definitions_of_a_new_workspace_are_listed() -> None:
    from app.registry.default_definitions import JOURNEYS, SEGMENTS, TRAITS

    for definition in (*JOURNEYS, *SEGMENTS, *TRAITS):
        assert f"`{definition['key']}`" in prose(HTTP)
