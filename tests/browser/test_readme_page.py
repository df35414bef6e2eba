"""The HTML block of the README works when it is pasted into a page."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.running_segue import Segue
from tests.browser.shop_pages import Shop, flush, wait_until_ready
from tests.browser.static_site import Site
from tests.browser.visit import Visit
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
    segment = f"readme-{shop.source.key}"
    html = html.replace('data-segue-segment="cart-abandoners"', f'data-segue-segment="{segment}"')
    rule = {"did": "Product Added", "within": "7d"}
    segue.post("/v1/segments", {"key": segment, "rule": rule, "public": True})
    guest = visit()
    page = guest.open(shop.site.page("/", f"<!doctype html><title>pasted</title>{html}"))
    wait_until_ready(page)
    flush(page)
    shop.wait_for_names("page_viewed")
    assert page.locator("p").is_hidden()
    page.evaluate("segue.track('Product Added')")
    page.wait_for_selector("p:not([hidden])")
    assert guest.errors == []
