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
from app.registry.registry import Registry

keys_cli = typer.Typer(help="Make, list and revoke keys.", no_args_is_help=True)

_LINE_CHARS_MAX: Final = 500


class KeyKind(StrEnum):
    WRITE = "write"
    SECRET = "secret"


@keys_cli.command("create")
def create_key(
    kind: Annotated[KeyKind, typer.Argument(help="[bold]write[/bold] appends, [bold]secret[/bold] reads and defines.")],
    source: Annotated[str, typer.Option(help="Source of a write key; made if there is none yet.")] = "default",
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key. A secret key is shown this once: only its hash is kept."""

    async def create(registry: Registry) -> str:
        if kind is KeyKind.SECRET:
            key = await registry.keys.create("secret", None, name)
        elif source not in registry.access.current.sources:
            _, key = await registry.sources.create(source, name or source)
        else:
            key = await registry.keys.create("write", source, name)
        assert key.key is not None
        return key.key

    with open_migrated_database(load_settings(data, database_url)) as ready:
        ensure_workspace(ready, err)
        out.print(asyncio.run(run_with_registry(ready, create)), highlight=False)


@keys_cli.command("list")
def list_keys(data: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """List all keys, revoked ones too."""
    with open_migrated_database(load_settings(data, database_url)) as ready:
        keys = asyncio.run(run_with_registry(ready, lambda registry: registry.keys.list_all()))
    table = Table("id", "kind", "source", "name", "key", "created", "revoked", box=None, header_style="bold")
    for key in keys:
        table.add_row(
            key.id[:12],
            key.kind,
            key.source or "",
            key.name,
            key.hint if key.kind == "write" else f"{key.hint}…",
            rfc3339(key.created_at)[:19],
            "" if key.revoked_at is None else rfc3339(key.revoked_at)[:19],
        )
    # As wide as it needs to be: a shortened key is of no use, and a program may read this.
    Console(width=_LINE_CHARS_MAX).print(table)


@keys_cli.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(help="The key itself, or the beginning of its id from [bold]keys list[/bold].")],
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Revoke a key; every process follows within a second."""

    async def revoke(registry: Registry) -> None:
        await registry.keys.revoke(await _resolve_key_id(registry, key))

    with open_migrated_database(load_settings(data, database_url)) as ready:
        asyncio.run(run_with_registry(ready, revoke))
    out.print("Revoked.")


@keys_cli.command("rotate")
def rotate_signing_key(
    revoke: Annotated[bool, typer.Option("--revoke", help="Tokens that older secrets signed hold no more.")] = False,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Sign the tokens of visitors with a new secret; every process follows within a second. Pages notice nothing."""
    with open_migrated_database(load_settings(data, database_url)) as ready:
        asyncio.run(run_with_registry(ready, lambda registry: registry.keys.renew_signing_key(revoke=revoke)))
    out.print("Rotated.")


async def _resolve_key_id(registry: Registry, key: str) -> str:
    """The key that is meant, by its whole id. Raises NotFound or BadRequest."""
    if key.startswith(("wk_", "sk_")):
        return key
    matching_ids = [
        candidate.id for candidate in await registry.keys.list_all() if candidate.id.startswith(key.lower())
    ]
    if not matching_ids:
        raise NotFound("There is no such key.")
    if len(matching_ids) > 1:
        raise BadRequest("More than one key begins like this; give more of its id.")
    return matching_ids[0]
