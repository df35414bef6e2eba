"""Quarantine (dead letters): finds, patches, parses again and replays rejected messages."""
