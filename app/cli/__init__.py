"""Command line. Hides how a command gets a running, migrated database and a workspace with keys."""
