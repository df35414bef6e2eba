"""Baseline service: a typical FastAPI application with pydantic models and SQLAlchemy's async session.

It stores each event once and answers after COMMIT, as Segue does. It has no identities, stages, segments, channels or
clock-skew correction. It runs one INSERT for each event and one transaction for each request, which is faster than one
transaction for each event. Run it with ``python -m bench.baseline.service``; it reads DATABASE_URL and PORT.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import asyncpg
import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from pydantic import BaseModel, Field
from sqlalchemy import DateTime, Index
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Event(Base):
    __tablename__ = "events"
    __table_args__ = (Index("events_of_user", "user_id", "event", "timestamp"),)

    message_id: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    event: Mapped[str | None]
    user_id: Mapped[str | None]
    anonymous_id: Mapped[str | None]
    timestamp: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    properties: Mapped[dict[str, Any]] = mapped_column(JSONB)
    context: Mapped[dict[str, Any]] = mapped_column(JSONB)


class EventIn(BaseModel):
    type: str = "track"
    message_id: str = Field(alias="messageId", max_length=255)
    event: str | None = Field(None, max_length=200)
    user_id: str | None = Field(None, alias="userId", max_length=255)
    anonymous_id: str | None = Field(None, alias="anonymousId", max_length=255)
    timestamp: datetime
    properties: dict[str, Any] = {}
    context: dict[str, Any] = {}


class BatchIn(BaseModel):
    batch: list[EventIn]


class Receipt(BaseModel):
    success: bool = True
    accepted: int
    duplicate: int
    rejected: int = 0
    projected: bool = True
    """Always true: the load generator expects this field, which Segue also returns, in every response."""


engine = create_async_engine(
    "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(os.environ["DATABASE_URL"]), pool_size=10
)
sessions = async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    del app
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def authorized(credentials: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
    if not credentials.username:
        raise HTTPException(401)


Authorized = Depends(authorized)


@app.post("/v1/track", dependencies=[Authorized])
async def track(event: EventIn) -> Receipt:
    async with sessions.begin() as session:
        accepted = await store(session, event)
    return Receipt(accepted=accepted, duplicate=1 - accepted)


@app.post("/v1/batch", dependencies=[Authorized])
async def batch(batch: BatchIn) -> Receipt:
    async with sessions.begin() as session:
        accepted = sum([await store(session, event) for event in batch.batch])
    return Receipt(accepted=accepted, duplicate=len(batch.batch) - accepted)


async def store(session: AsyncSession, event: EventIn) -> int:
    """Store an event. Return 1, or 0 if the event is already stored."""
    statement = (
        insert(Event)
        .values(**event.model_dump(), received_at=datetime.now(UTC))
        .on_conflict_do_nothing()
        .returning(Event.message_id)
    )
    return 0 if await session.scalar(statement) is None else 1


@app.get("/livez")
async def livez() -> dict[str, bool]:
    return {"live": True}


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
