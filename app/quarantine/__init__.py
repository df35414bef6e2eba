"""Quarantine (dead letters). Hides how a rejected message is found, patched, parsed again and replayed once."""
