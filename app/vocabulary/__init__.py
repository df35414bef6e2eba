"""Event names that several packages share. Hides which status words of tools mean the same. Pure."""
