"""Demo shop of ``make demo-web``: pages that change with the visitor's stage and segments, and explain why."""
