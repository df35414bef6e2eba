"""Command ``python -m app.openapi``: write ``openapi/openapi.json``, or compare it with ``--check``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from app.config import Settings
from app.main import create_app

OPENAPI_FILE: Final = Path(__file__).parents[1] / "openapi" / "openapi.json"


def render_document() -> str:
    return json.dumps(create_app(Settings.model_construct()).openapi(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    text = render_document()
    if "--check" not in sys.argv[1:]:
        OPENAPI_FILE.parent.mkdir(exist_ok=True)
        OPENAPI_FILE.write_text(text, encoding="utf-8")
    elif not OPENAPI_FILE.exists() or OPENAPI_FILE.read_text(encoding="utf-8") != text:
        sys.exit(f"openapi/{OPENAPI_FILE.name} is out of date; run `make openapi`.")


if __name__ == "__main__":
    main()
