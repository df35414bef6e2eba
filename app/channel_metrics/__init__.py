"""Daily metrics by channel. Hides how exported files are parsed and where their rows are stored."""
