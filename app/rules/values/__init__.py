"""Value types of rules: durations, calendar arithmetic, exact numbers and patterns. Pure functions."""
