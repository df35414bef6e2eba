"""Durations, calendar arithmetic, decimals and patterns. Hides how each is parsed and computed. Pure."""
