"""Accepting messages: from the parsed request to COMMIT and the receipt."""

from app.ingest.group_commit import Ingest, Receipt

__all__ = ["Ingest", "Receipt"]
