"""HTML pages: home page, API documentation and guides, with everything they load."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import tomllib
from html import unescape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from app import __version__
from app.api.site import guides
from app.api.site.layout import relative_root
from app.api.site.markdown import find_summary, render_markdown
from app.api.site.shared_content import SharedContent
from tests.support.running_app import RunningApp

ROOT = Path(__file__).parents[2]
ORIGIN = "http://segue.example.com"


async def test_pages_load_only_existing_addresses_of_this_server(service: RunningApp) -> None:
    checked: set[str] = set()
    for path in ("/", "/docs", "/docs/guides", "/docs/guides/rules", "/docs/guides/reference/http"):
        page = await service.client.get(path)
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        markup = re.sub(r"<pre.*?</pre>", "", page.text, flags=re.DOTALL)
        addresses = {urljoin(ORIGIN + path, unescape(link)) for link in re.findall(r'(?:src|href)="([^"]+)"', markup)}
        assert len(addresses) >= 4
        for address in addresses - checked:
            url = urlsplit(address)
            assert f"{url.scheme}://{url.netloc}" == ORIGIN, address
            response = await service.client.get(url.path)
            assert response.status_code == 200, address
            if url.fragment:
                assert f'id="{url.fragment}"' in response.text, address
        checked |= addresses


async def test_every_guide_is_served_with_working_links(service: RunningApp) -> None:
    names = guides.load_guides()
    assert {"website", "tools", "rules", "reference/http", "decisions/libraries"} <= set(names)
    for name in names:
        page = await service.client.get(f"/docs/guides/{name}")
        assert page.status_code == 200, name
        (body,) = re.findall(r'<main class="text">(.*)</main>', page.text, re.DOTALL)
        for address in re.findall(r'<(?:a href|img src)="([^"]+)"', body):
            url = urlsplit(urljoin(f"{ORIGIN}/docs/guides/{name}", unescape(address)))
            if url.netloc == "segue.example.com" and url.path != f"/docs/guides/{name}":
                assert url.path.removeprefix("/docs/guides/") in {*names, *guides.load_files()}, (name, address)


async def test_unknown_guides_are_not_found(service: RunningApp) -> None:
    for path in ("nothing", "../../pyproject.toml", "%2e%2e/%2e%2e/pyproject.toml", "rules.md"):
        assert (await service.client.get(f"/docs/guides/{path}")).status_code == 404, path


async def test_home_page_shows_name_and_version_and_no_other_fact(service: RunningApp) -> None:
    page = (await service.client.get("/")).text
    assert "Segue" in page
    assert f"Version {__version__}" in page
    assert not re.search(r"[ws]k_|postgres|127\.0\.0\.1|default", page)


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json", True),
        ("application/json, text/plain, */*", True),
        ("text/html;q=0.5, application/json", True),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/json;q=0.5, text/html", False),
        ("application/json;q=many", False),
        ("*/*", False),
        ("", False),
    ],
)
async def test_home_page_answers_json_to_clients_that_prefer_it(
    service: RunningApp, accept: str, is_json: bool
) -> None:
    response = await service.client.get("/", headers={"accept": accept})
    assert response.headers["vary"] == "Accept"
    assert response.headers["content-type"].startswith("application/json" if is_json else "text/html")
    if is_json:
        assert response.json() == {
            "name": "Segue",
            "version": __version__,
            "documentation": "/docs",
            "guides": "/docs/guides",
            "openapi": "/openapi.json",
            "health": "/readyz",
        }


@pytest.mark.parametrize(("path", "file"), [("/openapi.json", "openapi.json"), ("/docs/openapi.json", "page.json")])
async def test_documents_are_the_committed_files(service: RunningApp, path: str, file: str) -> None:
    response = await service.client.get(path)
    assert response.headers["content-encoding"] == "gzip"
    assert response.content == (ROOT / "openapi" / file).read_bytes()
    assert service.app.openapi_schema is None, "the document was built from the routes"


async def test_shared_content_is_built_once_for_concurrent_requests() -> None:
    content = SharedContent()
    builds = []

    def build() -> bytes:
        builds.append(threading.current_thread())
        return b"page"

    pages = await asyncio.gather(*(content.get("page", build) for _ in range(20)))
    assert all(page is pages[0] for page in pages)
    assert len(builds) == 1
    assert builds[0] is not threading.current_thread()


async def test_shared_content_is_built_again_after_a_failure() -> None:
    content = SharedContent()
    with pytest.raises(OSError, match="no disk"):
        await content.get("page", _fail)
    assert await content.get("page", lambda: b"page") == b"page"


def _fail() -> bytes:
    raise OSError("no disk")


async def test_assets_are_compressed_if_the_client_accepts_gzip(service: RunningApp) -> None:
    for name in ("swagger-ui-bundle.js", "site.css"):
        plain = await service.client.get(f"/docs/{name}", headers={"accept-encoding": "identity"})
        packed = await service.client.get(f"/docs/{name}", headers={"accept-encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert packed.content == plain.content


def test_relative_root_leads_to_the_home_page() -> None:
    for path in ("/", "/docs", "/docs/guides", "/docs/guides/rules", "/docs/guides/reference/http"):
        assert urljoin(f"{ORIGIN}/prefix{path}", relative_root(path)) == f"{ORIGIN}/prefix/"


def test_markdown_links_lead_to_pages_or_become_text() -> None:
    text = "[a](rules.md#heads) [b](../architecture.md) [c](../../app/main.py) [d](https://example.com/x) [e](#f)"
    html = render_markdown(text, "reference/http", {"reference/rules", "architecture"}, ()).html
    assert html == (
        '<p><a href="rules#heads">a</a> <a href="../architecture">b</a> <span>c</span> '
        '<a href="https://example.com/x">d</a> <a href="#f">e</a></p>\n'
    )


def test_markdown_escapes_html_and_highlights_code() -> None:
    html = render_markdown('<script>x</script>\n\n```json\n{"a": 1}\n```\n', "page", (), ()).html
    assert "<script>" not in html
    assert '<span class="nt">' in html


def test_repeated_headings_get_different_anchors() -> None:
    page = render_markdown("# Title\n\n## What `it` is\n\n## What `it` is\n", "page", (), ())
    assert [heading.anchor for heading in page.headings] == ["title", "what-it-is", "what-it-is-1"]


def test_summary_is_the_first_sentence() -> None:
    assert find_summary("# Title\n\nRules [say](a.md) who\nis in. More.\n") == "Rules say who is in."
    assert find_summary("# Title\n") == ""


@pytest.mark.slow
def test_wheel_contains_guides_and_assets(tmp_path: Path) -> None:
    """An installation without the checkout, such as the image, must serve the same pages."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    targets = {"app": "app", "docs": "app/docs", "openapi": "app/openapi_documents"}
    assert config["force-include"].items() >= {name: targets[name] for name in ("docs", "openapi")}.items()
    (tmp_path / "site" / "app").mkdir(parents=True)
    for name, target in targets.items():
        subprocess.run(["cp", "-R", f"{ROOT / name}/.", str(tmp_path / "site" / target)], check=True)
    code = (
        "from app.api.site import guides, routes; "
        "print(guides.find_directory(), len(guides.load_guides()), routes.find_documents_directory())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", capture_output=True, text=True, check=True
    )
    directory, count, documents = result.stdout.split()
    assert Path(documents) == tmp_path / "site" / "app" / "openapi_documents"
    assert Path(directory) == tmp_path / "site" / "app" / "docs"
    assert int(count) == len(guides.load_guides())
