"""Background worker. Hides when due work runs and how it gives way to live ingestion."""
