"""Accepting messages: from the parsed request to COMMIT and the receipt."""

from app.ingest.group_commit import GroupCommit, Receipt

__all__ = ["GroupCommit", "Receipt"]
