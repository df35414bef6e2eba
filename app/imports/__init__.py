"""Files into the log, from the command line: how lines are read, which form a file has, the wizard, the way in."""
