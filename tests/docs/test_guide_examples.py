"""The first curl example of each guide succeeds against a new workspace."""

from __future__ import annotations

import re

import httpx
import pytest

from app.config import Settings
from app.main import create_app
from app.postgres.pool import FrozenClock, open_pool
from app.registry.bootstrap import bootstrap
from tests.docs.curl_examples import build_request
from tests.docs.markdown import ROOT, blocks
from tests.support.tool_fixture import NOW

GUIDES = (
    "architecture.md",
    "data-quality.md",
    "rules.md",
    "shops.md",
    "support.md",
    "surveys-and-social.md",
    "tools.md",
)


@pytest.mark.parametrize("name", GUIDES)
async def test_first_example_succeeds(name: str, settings: Settings) -> None:
    assert settings.database_url is not None
    pool = await open_pool(settings.database_url, 1)
    async with pool.acquire() as connection:
        keys = await bootstrap(connection)
    await pool.close()
    assert keys is not None
    example = next(block.text for block in blocks(ROOT / "docs" / name) if block.language == "sh")
    app = create_app(settings, clock=FrozenClock(NOW), worker=False)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        for command in re.split(r"^(?=curl )", example, flags=re.MULTILINE)[1:]:
            command = command.replace("$WRITE_KEY", keys.write_key).replace("$SECRET_KEY", keys.secret_key)
            response = await client.send(build_request(client, command))
            assert response.is_success, response.text
