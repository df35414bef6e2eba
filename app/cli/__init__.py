"""The command line. Hides how commands get a running, migrated database and a workspace with keys."""
