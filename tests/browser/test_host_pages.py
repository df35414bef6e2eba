"""Host pages: strict policies, frames, other hosts, hostile content, and the data that pages cannot read."""

from __future__ import annotations

import base64
from collections.abc import Callable
from hashlib import sha256

import pytest
from playwright.sync_api import Response

from app.browser import snippet
from tests.browser.running_segue import Segue
from tests.browser.shop_pages import Shop, close_tab, flush, library, loader, wait_until_ready
from tests.browser.static_site import Site
from tests.browser.visit import Visit

MakeVisit = Callable[..., Visit]

RECORD_VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI));
"""


@pytest.fixture
def shop(segue: Segue, site: Site) -> Shop:
    return Shop(segue, site)


def test_snippet_works_under_a_strict_policy_with_trusted_types(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    script = loader(segue.url, shop.source.write_key, {"capture": True})
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}' {segue.url}; connect-src {segue.url}; "
        "require-trusted-types-for 'script'; base-uri 'none'"
    )
    body = '<p data-segue-segment="none" hidden>no</p><button>Click</button><script>window.evil = 1</script>'
    url = shop.site.page(
        "/",
        f"<!doctype html><title>strict</title><script>{script}</script>{library(segue.url)}{body}",
        {"Content-Security-Policy": policy},
    )
    guest = visit(scripts=(RECORD_VIOLATIONS,))
    page = guest.open(url)
    wait_until_ready(page)
    page.click("button")
    page.evaluate("() => { segue.track('Strict'); segue.identify('user-strict') }")
    flush(page)
    rows = shop.wait_for(lambda rows: {"Strict", "page_viewed"} <= {row["name"] for row in rows})
    assert page.evaluate("violations") == ["script-src-elem inline"], "only the page's own inline script is blocked"
    assert page.evaluate("window.evil") is None
    assert guest.errors == []
    assert {row["ids"]["anonymous_id"] for row in rows} == {page.evaluate("segue.user().anonymousId")}


def test_integrity_hash_of_the_pinned_version(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    """The browser runs the file if the hash matches, and refuses the file otherwise."""
    built = snippet()
    pages = []
    for path, integrity in (("/right", built.integrity), ("/wrong", "sha384-" + "A" * 64)):
        tag = (
            f'<script async src="{segue.url}/segue-{built.version}.js" integrity="{integrity}" '
            'crossorigin="anonymous" onerror="document.refused = 1"></script>'
        )
        script = loader(segue.url, shop.source.write_key, {"capture": False})
        pages.append(visit().open(shop.site.page(path, f"<!doctype html><script>{script}</script>{tag}")))
    wait_until_ready(pages[0])
    pages[1].wait_for_function("() => document.refused")
    pages[1].evaluate("segue.ready(() => { document.ran = 1 })")
    assert [page.evaluate("[document.refused, document.ran]") for page in pages] == [[None, None], [1, None]]


def test_snippet_adds_one_global(shop: Shop, visit: MakeVisit) -> None:
    plain = shop.site.page("/plain", "<!doctype html><title>plain</title>")
    guest = visit()
    names = "() => Object.getOwnPropertyNames(window)"
    before = set(guest.open(plain).evaluate(names))
    page = guest.open(shop.page("/", "<button>x</button>", capture=True))
    wait_until_ready(page)
    page.click("button")
    flush(page)
    assert set(page.evaluate(names)) - before == {"segue"}


def test_a_page_with_the_snippet_twice_sends_each_message_once(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    """A template and a file that it includes may both contain the snippet. The library still loads only once."""
    script = f"<script>{loader(segue.url, shop.source.write_key, {'capture': {'pages': True}})}</script>"
    page = visit().open(
        shop.page("/", capture={"pages": True}, head=script + library(segue.url), calls="segue.track('a')")
    )
    wait_until_ready(page)
    page.evaluate("segue.track('b')")
    page.wait_for_timeout(100)
    flush(page)
    shop.wait_for_names("page_viewed", "a", "b")


def test_snippet_contacts_no_other_host(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = guest.open(shop.page("/", "<button>x</button>", capture=True, personalize=True))
    wait_until_ready(page)
    page.click("button")
    page.evaluate("() => { segue.track('a'); segue.identify('user-asked'); segue.reset(); segue.track('b') }")
    flush(page)
    close_tab(page)
    assert guest.hosts == {f"localhost:{shop.site.port}", f"127.0.0.1:{segue.port}"}


@pytest.mark.parametrize("sandbox", [None, "allow-scripts"], ids=["frame", "sandboxed frame"])
def test_snippet_works_in_a_cross_origin_frame(shop: Shop, visit: MakeVisit, sandbox: str | None) -> None:
    """In a sandbox without allow-same-origin, storage is unavailable and the origin is null."""
    shop.page("/inner", "inner", capture={"pages": True})
    attribute = "" if sandbox is None else f'sandbox="{sandbox}"'
    inner = shop.site.at("frames.localhost") + "/inner"
    outer = shop.site.page("/outer", f'<!doctype html><title>outer</title><iframe {attribute} src="{inner}"></iframe>')
    guest = visit()
    guest.open(outer)
    rows = shop.wait_for_names("page_viewed")
    assert rows[0]["properties"]["path"] == "/inner"
    assert guest.errors == []


def test_snippet_works_over_plain_http(shop: Shop, visit: MakeVisit) -> None:
    """Without crypto.subtle the anonymous id is random, and personalization is unavailable."""
    shop.page("/", capture=False)
    guest = visit()
    page = guest.open(shop.site.at("shop.example.com") + "/")
    wait_until_ready(page)
    assert page.evaluate("typeof crypto.subtle") == "undefined"
    page.evaluate("segue.track('Plain')")
    flush(page)
    shop.wait_for_names("Plain")
    assert guest.errors == []


def test_snippet_works_with_modified_prototypes(shop: Shop, visit: MakeVisit) -> None:
    """Old libraries extend Array.prototype and Object.prototype, which must not change messages."""
    hostile = """
        Array.prototype.toJSON = function () { return "[" + this.join() + "]" };
        Object.prototype.extra = "added by the page";
        Array.prototype.extra = 1;
    """
    page = visit(scripts=(hostile,)).open(shop.page("/", capture=False))
    wait_until_ready(page)
    page.evaluate("() => { segue.track('Old page', { n: 1 }) }")
    flush(page)
    [row] = shop.wait_for_names("Old page")
    assert row["properties"]["n"] == 1


# ------------------------------------------------------------------------------------------- refused requests


READ = """async ([url, headers]) => {
    try { const response = await fetch(url, { headers }); return [response.status, await response.text()] }
    catch (error) { return [0, error.name] }
}"""


@pytest.mark.parametrize("path", ["/v1/customers/user-1", "/v1/segments", "/v1/keys", "/v1/sources", "/v1/quarantine"])
def test_a_secret_key_cannot_read_from_a_page(segue: Segue, site: Site, visit: MakeVisit, path: str) -> None:
    page = visit().open(site.page("/", ""))
    result = page.evaluate(READ, [segue.url + path, {"Authorization": f"Bearer {segue.secret_key}"}])
    assert result == [0, "TypeError"], "the preflight is refused"


def test_a_write_key_cannot_read(segue: Segue, site: Site, visit: MakeVisit) -> None:
    source = segue.source()
    page = visit().open(site.page("/", ""))
    for headers in ({}, {"Authorization": f"Bearer {source.write_key}"}):
        assert page.evaluate(READ, [segue.url + "/v1/segments", headers])[0] == 0


def test_a_secret_key_cannot_send_from_a_page(segue: Segue, site: Site, visit: MakeVisit) -> None:
    page = visit().open(site.page("/", ""))
    send = """async ([host, writeKey]) => {
        const body = JSON.stringify({ writeKey, batch: [{ type: "track", event: "Leaked", anonymousId: "a-1" }] });
        const response = await fetch(host + "/v1/b", { method: "POST", body });
        return [response.status, (await response.json()).code];
    }"""
    status, code = page.evaluate(send, [segue.url, segue.secret_key])
    assert (status, code) == (403, "forbidden")
    assert segue.database.fetch("SELECT FROM touchpoints WHERE name = 'Leaked'") == []


def test_a_key_works_only_on_its_origins(segue: Segue, site: Site, visit: MakeVisit) -> None:
    """A page of another origin can read the refusal. The snippet reports it once and stops."""
    shop = Shop(segue, site)
    key = segue.post(
        "/v1/keys", {"kind": "write", "source": shop.source.key, "name": "n", "origins": [site.at("own.localhost")]}
    )["key"]
    shop.source = shop.source._replace(write_key=key)
    shop.page("/", capture={"pages": True}, personalize=False)
    for host, expected in (("other.localhost", [403]), ("own.localhost", [200])):
        guest = visit()
        statuses: list[int] = []

        def record(response: Response, statuses: list[int] = statuses) -> None:
            if response.request.post_data:
                statuses.append(response.status)

        guest.context.on("response", record)
        page = guest.open(site.at(host) + "/")
        wait_until_ready(page)
        page.wait_for_timeout(150)
        flush(page)
        page.evaluate("segue.track('More')")
        flush(page)
        page.wait_for_timeout(50)
        assert set(statuses) == set(expected), host
    rows = shop.wait_for_names("page_viewed", "More")
    assert {row["context"]["page"]["url"] for row in rows} == {site.at("own.localhost") + "/"}


def test_messages_of_bots_are_quarantined(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    """A quarantined message of a bot can be replayed."""
    bot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html) Chrome/140.0.0.0 Safari/537.36"
    page = visit(user_agent=bot).open(shop.page("/", capture=False))
    wait_until_ready(page)
    page.evaluate("segue.track('Crawled')")
    flush(page)
    [row] = [row for row in segue.get("/v1/quarantine")["items"] if row["source"] == shop.source.key]
    assert row["code"] == "bot"
    assert shop.messages() == []
    segue.request("POST", f"/v1/quarantine/{row['id']}/replay")
    shop.wait_for_names("Crawled")


SCRIPTS = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "${alert(1)}{{constructor.constructor('alert(1)')()}}",
)


def test_scripts_in_messages_never_run(shop: Shop, visit: MakeVisit) -> None:
    """Scripts in names, properties, traits, ids, titles, hashes and attributes are stored as text and never run."""
    guest = visit(scripts=("window.ran = []; window.alert = (text) => ran.push(text);",))
    attributes = "".join(
        f'<p data-segue-segment="{escape(script)}" data-segue-stage="{escape(script)}" hidden>x</p>'
        for script in SCRIPTS
    )
    page = guest.open(shop.page("/", attributes + "<button>x</button>", capture=True, personalize=True))
    wait_until_ready(page)
    page.click("button")
    page.evaluate(
        """(scripts) => { for (const script of scripts) {
            document.title = script;
            history.pushState({}, "", "/?q=" + encodeURIComponent(script) + "#" + script);
            segue.page(script, script, { [script]: script });
            segue.track(script, { [script]: script, nested: { [script]: [script] } });
            segue.identify(script, { [script]: script, name: script });
            segue.group(script, { name: script });
        } }""",
        list(SCRIPTS),
    )
    flush(page)
    rows = shop.wait_for(lambda rows: sum(row["type"] == "group" for row in rows) == len(SCRIPTS))
    assert {row["name"] for row in rows if row["type"] == "track"} >= set(SCRIPTS)
    page.wait_for_timeout(100)
    assert page.evaluate("ran") == []
    assert guest.errors == []


def test_messages_cannot_pollute_prototypes(shop: Shop, visit: MakeVisit) -> None:
    page = visit().open(shop.page("/", capture=False))
    wait_until_ready(page)
    page.evaluate("""segue.track('Polluted', JSON.parse('{"__proto__": {"polluted": 1}, "a": 1}'))""")
    flush(page)
    shop.wait_for_names("Polluted")
    assert page.evaluate("({}).polluted") is None


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
