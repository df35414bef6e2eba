"""Benchmark page: a product category with 1,500 elements, whose only scripts start and call the library.

The page runs the library's loader half a second after it has loaded, and makes calls after a key press. Both set a mark
in the trace, so that the cost of the page itself can be excluded.
"""

from __future__ import annotations

from typing import Final

CARDS: Final = 119
ELEMENTS: Final = 1_500
"""Number of elements in the document, which each visit checks."""

QUIET_MS: Final = 500
KEY: Final = "F8"
"""Key that starts the calls. It is pressed as real input, because a debugger command would run a script in the page."""
CALL_EVERY_MS: Final = 10
EVENT: Final = "Bench Clicked"

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; color: #222 }
header, footer { background: #f4f1ec; padding: 16px 32px }
nav ul, footer ul { display: flex; gap: 16px; list-style: none; padding: 0; flex-wrap: wrap }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 20px; padding: 32px }
article { border: 1px solid #ddd; border-radius: 6px; padding: 12px }
article:hover { box-shadow: 0 2px 8px #0003 }
figure { margin: 0; height: 120px; background: linear-gradient(135deg, #cdb, #789) }
.price { font-weight: 600 } .old { text-decoration: line-through; color: #888 }
form { display: flex; gap: 8px } button { cursor: pointer }
"""


def render_page(loader: str, call: str, calls: int) -> str:
    """Return the HTML of the page.

    ``loader`` is JavaScript that starts the library. ``call`` is JavaScript that sends EVENT with the number ``n``.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Hats - the shop</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>
<body>
<header><h1>Hats</h1><nav><ul>{_links("department", 12)}</ul></nav>
<form action="/search"><label>Search <input name="q"></label><button>Go</button></form></header>
<main>{"".join(map(_card, range(CARDS)))}</main>
<footer><ul>{_links("about", 14)}</ul><p>Prices include VAT.</p></footer>
<script>{_script(loader, call, calls)}</script>
</body></html>"""


def _card(number: int) -> str:
    return (
        f'<article id="hat-{number}" data-sku="H{number:04}"><a href="/hats/{number}"><figure></figure>'
        f"<h2>Hat no. {number}</h2></a><p>A hat of <b>felt</b> for days of rain.</p>"
        f'<p class="price">{20 + number % 37}.50 <span class="old">{30 + number % 37}.00</span></p>'
        f"<ul><li>S</li><li>M</li></ul><button>Add to cart</button></article>"
    )


def _links(name: str, count: int) -> str:
    return "".join(f'<li><a href="/{name}/{number}">{name} {number}</a></li>' for number in range(count))


def _script(loader: str, call: str, calls: int) -> str:
    return f"""
addEventListener("load", () => setTimeout(() => {{
  performance.mark("begin");
  {loader}
}}, {QUIET_MS}));
// A click must not leave the page.
addEventListener("click", (event) => event.preventDefault());
addEventListener("keydown", (event) => {{
  if (event.key !== "{KEY}") return;
  performance.mark("calls");
  let n = 0;
  const costs = (window.costs = []);
  const timer = setInterval(() => {{
    const start = performance.now();
    {call};
    costs.push(performance.now() - start);
    if (++n === {calls}) clearInterval(timer);
  }}, {CALL_EVERY_MS});
}});
"""
