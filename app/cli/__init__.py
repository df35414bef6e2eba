"""Command line interface. Hides how a command starts and migrates a database and creates the first keys."""
