"""Health checks, metrics, and failures of the database."""

from __future__ import annotations

import re
from typing import Any

import asyncpg
import pytest

from app.background.worker import Worker
from app.config import Settings
from app.observability.metrics import Metrics
from tests.support.running_app import RunningApp, run_worker, track


async def test_livez_and_readyz_report_a_healthy_server(service: RunningApp) -> None:
    assert (await service.client.get("/livez")).json() == {"live": True}
    assert (await service.client.get("/readyz")).json() == {
        "ready": True, "database": True, "migrations": True, "writable": True, "reason": None,
        "background": None, "sweep_lag_seconds": 0.0,
    }  # fmt: skip


async def test_readyz_fails_without_migrations_or_database(service: RunningApp) -> None:
    pool = service.app.state.services.pool
    revision = await pool.fetchval("SELECT version_num FROM alembic_version")
    await pool.execute("UPDATE alembic_version SET version_num = 'older'")
    response = await service.client.get("/readyz")
    assert (response.status_code, response.json()["migrations"], response.json()["ready"]) == (503, False, False)
    # Another test reuses this database, and a server refuses to migrate a database with an unknown revision.
    await pool.execute("UPDATE alembic_version SET version_num = $1", revision)
    pool.terminate()
    response = await service.client.get("/readyz")
    assert (response.status_code, response.json()["database"], response.json()["ready"]) == (503, False, False)
    assert (await service.client.get("/livez")).status_code == 200


async def test_readyz_reports_a_read_only_database(service: RunningApp, settings: Settings) -> None:
    services = service.app.state.services
    name = await services.pool.fetchval("SELECT current_database()")
    await services.pool.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        await services.pool.expire_connections()
        response = await service.client.get("/readyz")
        assert (response.status_code, response.json()["ready"], response.json()["writable"]) == (503, False, False)
        assert (response.json()["database"], response.json()["reason"]) == (True, "read_only")
    finally:
        connection = await asyncpg.connect(settings.database_url)
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await connection.close()


async def test_readyz_writes_at_most_every_few_seconds(service: RunningApp) -> None:
    """A load balancer that asks often must not load the database."""
    pool = service.app.state.services.pool
    written = "SELECT temp_files FROM pg_stat_database WHERE datname = current_database()"

    async def ask() -> int:
        assert (await service.client.get("/readyz")).status_code == 200
        await pool.execute("SELECT pg_stat_force_next_flush()")
        files: int = await pool.fetchval(written)
        return files

    await service.client.get("/readyz")
    await pool.expire_connections()  # The statistics of a connection are complete when it ends.
    assert max([await ask() for _ in range(10)]) <= 2


async def test_metrics_count_messages_and_requests(service: RunningApp) -> None:
    await service.send(track("Product Viewed"), {"type": "track", "userId": "u"}, expected=1)
    await service.ask("/v1/customers/user-1")
    await service.ask("/v1/customers/nobody%2Felse", 404)
    await service.client.get("/nowhere/else")
    response = await service.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = response.text.splitlines()
    for line in (
        'segue_messages_total{outcome="accepted"} 1.0',
        'segue_rejections_total{code="missing_event"} 1.0',
        'segue_requests_total{method="POST",route="/v1/batch",status="200"} 1.0',
        'segue_requests_total{method="GET",route="/v1/customers/{customer}",status="200"} 1.0',
        'segue_requests_total{method="GET",route="/v1/customers/{customer}",status="404"} 1.0',
        'segue_requests_total{method="GET",route="(none)",status="404"} 1.0',
        "segue_queue_bytes 0.0",
    ):
        assert line in lines, line
    for name in ("segue_step_seconds_bucket", "segue_flush_messages_sum", "segue_sweep_lag_seconds",
                 "segue_fills_pending", "segue_pool_connections_used"):  # fmt: skip
        assert name in response.text
    assert "user-1" not in response.text
    assert "nobody" not in response.text


async def test_metrics_estimate_the_backfill_time(settings: Settings, start: Any) -> None:
    """The metric is positive while a backfill with a measured speed runs, and 0 otherwise."""

    def eta(text: str) -> float:
        (line,) = re.findall(r"^segue_fill_eta_seconds (.+)$", text, re.MULTILINE)
        return float(line)

    async with start(settings.model_copy(update={"fill_customers_max": 3})) as service:
        await service.send(*[track("e", f"user-{n}") for n in range(12)])
        await run_worker(service)
        assert eta((await service.client.get("/metrics")).text) == 0
        await service.tell("POST", "/v1/segments", {"key": "s", "rule": {"did": "e"}}, 201)
        services = service.app.state.services
        worker = Worker(services.pool, services.registry, services.settings, services.clock, Metrics())
        assert await worker.fill()
        assert await worker.fill()
        fill = (await service.ask("/v1/segments/s"))["fill"]
        assert 0 < fill["customers_filled"] < 12
        text = (await service.client.get("/metrics")).text
        assert 0 < eta(text) == pytest.approx(fill["eta_seconds"])
        assert f"segue_fills_pending {12 - fill['customers_filled']}.0" in text
        await run_worker(service)
        assert eta((await service.client.get("/metrics")).text) == 0


async def test_two_applications_have_separate_metrics(settings: Settings, start: Any) -> None:
    async with start(settings) as one, start(settings) as other:
        await one.send(track("e"))
        assert "accepted" not in (await other.client.get("/metrics")).text


async def test_unreachable_database_is_answered_with_503(service: RunningApp) -> None:
    """The status must be 503, because SDKs drop their messages on others.

    This includes requests whose key cannot be checked.
    """
    service.app.state.services.pool.terminate()
    for response in (
        await service.client.get("/v1/customers/user-1", headers=service.secret),
        await service.client.get("/v1/segments", headers=service.secret),
        await service.client.post("/v1/track", json={**track("e"), "writeKey": "wk_unknown"}),
        await service.client.post("/v1/track", json={**track("e"), "writeKey": service.keys.write_key}),
    ):
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
