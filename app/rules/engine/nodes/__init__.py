"""Compiled rules: nodes that answer whether they hold at an instant, and until when nothing changes by itself."""
