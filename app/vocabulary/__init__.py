"""Names of events that several packages share."""
