"""``python -m examples.cdnow``: run the demo and exit with status 1 if a count differs from the published one."""

from __future__ import annotations

import sys
import time

from rich.console import Console

from examples.cdnow.demo import run_demo


def main() -> int:
    console = Console()
    start = time.monotonic()
    outcome = run_demo(console)
    if not outcome.matches_published:
        console.print("[bold red]The counts differ from the published ones.[/bold red]")
        return 1
    console.print(f"[bold green]The counts match the published ones[/bold green] ({time.monotonic() - start:.0f} s).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
