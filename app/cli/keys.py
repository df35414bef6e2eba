"""``segue keys``: create, list, revoke and rotate keys."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from app.cli.console import DatabaseUrl, DataDir, ensure_workspace, err, load_settings, open_migrated_database, out
from app.cli.runtime import run_with_registry
from app.errors import BadRequest, NotFound
from app.formats.timestamps import rfc3339
from app.registry.key_store import WriteKeyOptions
from app.registry.registry import Registry

keys_cli = typer.Typer(help="Create, list, revoke and rotate keys.", no_args_is_help=True)

_LINE_CHARS_MAX: Final = 500


class KeyKind(StrEnum):
    WRITE = "write"
    SECRET = "secret"


class KeyTrust(StrEnum):
    PUBLIC = "public"
    SERVER = "server"


@keys_cli.command("create")
def create_key(
    kind: Annotated[
        KeyKind,
        typer.Argument(
            help="[bold]write[/bold] keys only send messages, [bold]secret[/bold] keys read and configure everything."
        ),
    ],
    source: Annotated[str, typer.Option(help="Source of a write key; created if it does not exist.")] = "default",
    name: Annotated[str, typer.Option(help="Purpose of the key.")] = "",
    trust: Annotated[
        KeyTrust,
        typer.Option(help="[bold]public[/bold] write keys may be in pages, [bold]server[/bold] write keys must not."),
    ] = KeyTrust.PUBLIC,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Create a key and print it. A secret key is shown only once, because Segue stores only its hash."""

    async def create(registry: Registry) -> str:
        if kind is KeyKind.SECRET:
            key = await registry.keys.create("secret", None, name)
        elif source not in registry.access.current.sources and trust is KeyTrust.PUBLIC:
            _, key = await registry.sources.create(source, name or source)
        else:
            key = await registry.keys.create("write", source, name, WriteKeyOptions(trust=trust.value))
        assert key.key is not None
        return key.key

    with open_migrated_database(load_settings(data, database_url)) as ready:
        ensure_workspace(ready, err)
        out.print(asyncio.run(run_with_registry(ready, create)), highlight=False)


@keys_cli.command("list")
def list_keys(data: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """List all keys, including revoked ones."""
    with open_migrated_database(load_settings(data, database_url)) as ready:
        keys = asyncio.run(run_with_registry(ready, lambda registry: registry.keys.list_all()))
    table = Table(
        "id", "kind", "source", "name", "key", "created", "last used", "revoked", box=None, header_style="bold"
    )
    for key in keys:
        table.add_row(
            key.id[:12],
            key.kind,
            key.source or "",
            key.name,
            key.hint if key.kind == "write" else f"{key.hint}…",
            rfc3339(key.created_at)[:19],
            "" if key.last_used_at is None else rfc3339(key.last_used_at)[:16],
            "" if key.revoked_at is None else rfc3339(key.revoked_at)[:19],
        )
    # Do not fit the table to the terminal: a shortened key is useless, and programs may parse the output.
    Console(width=_LINE_CHARS_MAX).print(table)


@keys_cli.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(help="The key, or the first characters of its id from [bold]keys list[/bold].")],
    last: Annotated[
        bool,
        typer.Option("--last", help="Revoke the last secret key too, for example because it has leaked."),
    ] = False,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Revoke a key. Every process stops accepting it within a second.

    The last valid secret key is refused without [bold]--last[/bold], because the API is closed until you create another
    one with [bold]keys create secret[/bold].
    """

    async def revoke(registry: Registry) -> None:
        await registry.keys.revoke(await _resolve_key_id(registry, key), even_last=last)

    with open_migrated_database(load_settings(data, database_url)) as ready:
        asyncio.run(run_with_registry(ready, revoke))
    out.print("Revoked.")


@keys_cli.command("rotate")
def rotate_signing_key(
    revoke: Annotated[bool, typer.Option("--revoke", help="Also invalidate all tokens signed so far.")] = False,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Sign visitor tokens with a new secret. Every process uses it within a second; pages need no change."""
    with open_migrated_database(load_settings(data, database_url)) as ready:
        asyncio.run(run_with_registry(ready, lambda registry: registry.keys.renew_signing_key(revoke=revoke)))
    out.print("Rotated.")


async def _resolve_key_id(registry: Registry, key: str) -> str:
    """Return the full id of a key, given the key or the beginning of its id.

    Raise NotFound if no key matches, and BadRequest if several do.
    """
    if key.startswith(("wk_", "sk_")):
        return key
    matching_ids = [
        candidate.id for candidate in await registry.keys.list_all() if candidate.id.startswith(key.lower())
    ]
    if not matching_ids:
        raise NotFound("The key does not exist.")
    if len(matching_ids) > 1:
        raise BadRequest("Several keys have an id that begins with these characters; enter more of them.")
    return matching_ids[0]
