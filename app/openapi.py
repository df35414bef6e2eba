"""Command ``python -m app.openapi``: write the documents in ``openapi/``, or compare them with ``--check``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from app.api.openapi_document import build_page_document
from app.config import Settings
from app.main import create_app

DIRECTORY: Final = Path(__file__).parents[1] / "openapi"
OPENAPI_FILE: Final = DIRECTORY / "openapi.json"
"""The API's contract. ``/openapi.json`` serves it as it is."""
PAGE_FILE: Final = DIRECTORY / "page.json"
"""The document that the page ``/docs`` renders."""


def render_documents() -> dict[Path, str]:
    document = create_app(Settings.model_construct()).openapi()
    return {OPENAPI_FILE: _render(document), PAGE_FILE: _render(build_page_document(document))}


def _render(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    documents = render_documents()
    if "--check" not in sys.argv[1:]:
        DIRECTORY.mkdir(exist_ok=True)
        for file, text in documents.items():
            file.write_text(text, encoding="utf-8")
        return
    for file, text in documents.items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            sys.exit(f"openapi/{file.name} is out of date; run `make openapi`.")


if __name__ == "__main__":
    main()
