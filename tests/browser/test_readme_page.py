"""The HTML block of the README works when it is pasted into a page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import pytest

from tests.browser.running_segue import Segue
from tests.browser.shop_pages import Shop, flush, wait_until_ready
from tests.browser.static_site import Site
from tests.browser.visit import Visit
from tests.docs.curl_examples import curl_examples
from tests.docs.markdown import README, blocks

HOST = "http://localhost:8000"
KEY = "wk_..."


@pytest.fixture
def shop(segue: Segue, site: Site) -> Shop:
    return Shop(segue, site)


def test_pasted_snippet_of_the_readme_sends_and_shows(segue: Segue, shop: Shop, visit: Callable[..., Visit]) -> None:
    (html,) = (text for language, text in blocks(README) if language == "html")
    assert html.count(HOST) == 2
    assert html.count(KEY) == 1
    html = html.replace(HOST, segue.url).replace(KEY, shop.source.write_key)
    (definition,) = (example for example in curl_examples(README) if "big-spenders" in example.command)
    segue.post("/v1/segments", json.loads(shlex.split(definition.command)[-1]))
    guest = visit()
    page = guest.open(shop.site.page("/", f"<!doctype html><title>pasted</title>{html}"))
    wait_until_ready(page)
    flush(page)
    shop.wait_for_names("page_viewed")
    assert page.locator("p").is_hidden()
    page.evaluate("segue.track('Order Completed', {total: 42.5})")
    page.wait_for_selector("p:not([hidden])")
    assert guest.errors == []
