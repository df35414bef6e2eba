"""How messages sound: what is said of plain cases, and that nothing is said where nothing can be."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.connectors.adapter import Call, to_segment_message
from app.connectors.webhook_request import decode_json
from app.enrichment import sentiment
from app.enrichment.sentiment import NOTE, WORDS_MAX, estimate_sentiment

FURIOUS = "I am furious, this is the third time my parcel is late."


def test_what_is_said_of_a_message() -> None:
    assert estimate_sentiment(FURIOUS) == {
        "sentiment": "negative",
        "score": -0.5719,
        "emotions": {"anger": 1, "disgust": 1, "sadness": 1},
        "words": ["furious", "late"],
        "by": f"vaderSentiment {version('vaderSentiment')}, nrclex {version('nrclex')}",
        "note": NOTE,
    }


@pytest.mark.parametrize(
    ("text", "sentiment", "emotions"),
    [
        ("Thank you so much, you solved it!", "positive", {}),
        ("Where is my order?", "neutral", {}),
        ("I am so happy with this, it is wonderful", "positive", {"joy", "surprise"}),
        ("I\u2019m not happy with the broken product", "negative", {"anger", "fear", "sadness"}),
        ("It is not bad at all", "positive", {}),
        ("I am afraid that somebody has stolen my card, this is a nightmare", "negative", {"anger", "fear"}),
    ],
)
def test_plain_cases(text: str, sentiment: str, emotions: Any) -> None:
    found = estimate_sentiment(text)
    assert found is not None
    assert found["sentiment"] == sentiment
    assert set(found["emotions"]) == set(emotions)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n ",
        "hi",
        "furious!!!",
        "\U0001f621\U0001f621",
        "4711 0815",
        "Ich bin sehr wütend, das Paket ist immer noch nicht da.",
        "Die Lieferung war super, danke",
        "Estoy muy enfadado con su servicio",
        "Je suis déçu, le colis est cassé",
        "Mi pedido no ha llegado",
        "Πού είναι το δέμα μου;",
        "please die Rechnung an mich send",
    ],
)
def test_nothing_is_made_up_for_other_languages_and_scraps(text: str) -> None:
    assert estimate_sentiment(text) is None


@settings(deadline=None)
@given(st.text(max_size=300) | st.lists(st.sampled_from(["not", "but", "very", "furious", "!", "'"])).map(" ".join))
def test_any_text_is_looked_at(text: str) -> None:
    found = estimate_sentiment(text)
    assert found is None or (-1 <= found["score"] <= 1 and len(found["words"]) <= WORDS_MAX)


def test_a_long_text_is_looked_at_from_its_beginning() -> None:
    assert estimate_sentiment("This is fine. " * 200 + FURIOUS) == estimate_sentiment("This is fine. " * 200)


@pytest.mark.parametrize("missing", ["vaderSentiment", "py3langid"])
def test_without_the_libraries_nothing_is_said(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    _hide(monkeypatch, missing)
    assert not sentiment.is_installed()
    assert estimate_sentiment(FURIOUS) is None


def test_without_the_list_of_emotions_only_the_sentiment_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "nrclex")
    found = estimate_sentiment(FURIOUS)
    assert found is not None
    assert "emotions" not in found
    assert (found["words"], found["by"]) == (["furious"], f"vaderSentiment {version('vaderSentiment')}")


def _hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(sentiment, "find_spec", lambda name: None if name == package else find_spec(name))


def test_the_libraries_are_not_loaded_before_they_are_needed() -> None:
    looked_at = (
        "import sys; import app.connectors.webhook_parser;"
        "sys.exit('vaderSentiment' in sys.modules or 'py3langid' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", looked_at], check=False).returncode == 0


@pytest.mark.parametrize("policy", ["private", "property", "none"])
def test_a_customers_text_is_estimated_before_it_is_set_apart(policy: Any) -> None:
    call = Call(id="m-1", event="ticket.created", text={"subject": "Help", "body": FURIOUS})
    message = decode_json(to_segment_message(call, policy, with_estimate=True))
    assert message["properties"]["estimate"]["sentiment"] == "negative"
    assert "estimate" not in str(decode_json(to_segment_message(call, policy)))


def test_what_an_agent_writes_is_not_the_customers_mood() -> None:
    call = Call(id="m-1", event="ticket.replied_by_agent", text={"body": FURIOUS}, is_by_customer=False)
    assert "estimate" not in str(decode_json(to_segment_message(call, with_estimate=True)))
