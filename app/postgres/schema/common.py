"""Metadata and column types that all tables share."""

from __future__ import annotations

from sqlalchemy import DateTime, MetaData

metadata = MetaData()

Instant = DateTime(timezone=True)
