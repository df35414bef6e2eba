"""Pagination parameters of list routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

DEFAULT_ITEMS = 100

Limit = Annotated[int, Query(ge=1, le=1_000, description="Maximum number of items on the page.")]
PageCursor = Annotated[str | None, Query(max_length=8_000, description="`next_cursor` of the previous page.")]
