"""The shop of ``make demo-web``: a page on another origin that changes with stage and segments, and says why."""
