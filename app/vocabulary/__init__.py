"""Event names that several packages share. Hides which status words of tools have the same meaning. Pure."""
