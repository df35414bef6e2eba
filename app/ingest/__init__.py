"""Accepting messages: from the parsed request to COMMIT and the receipt."""

from app.ingest.accept import Ingest, Receipt

__all__ = ["Ingest", "Receipt"]
