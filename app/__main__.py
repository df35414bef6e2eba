"""``python -m app`` and the console script ``segue``."""

from __future__ import annotations

from app.cli.commands import main

if __name__ == "__main__":
    main()
