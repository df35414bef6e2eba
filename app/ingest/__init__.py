"""Ingestion of messages, up to COMMIT and the receipt. Hides how requests share transactions.

Start at :mod:`app.ingest.submit`, which all sources of messages use.
"""
