"""Event names and status words that several packages share. Pure."""
