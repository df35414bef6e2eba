"""Value types of rules. Hides the arithmetic of durations, calendars and exact numbers, and the syntax of patterns."""
