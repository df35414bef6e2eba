"""Ingestion: from the messages of a request to COMMIT and the receipt. Hides how requests share transactions.

Start at :mod:`app.ingest.submit`: every entrance goes through it.
"""
