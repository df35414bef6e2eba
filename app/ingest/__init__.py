"""Ingestion of messages, up to COMMIT and the receipt; requests share transactions.

Start at :mod:`app.ingest.submit`, which all sources of messages use.
"""
