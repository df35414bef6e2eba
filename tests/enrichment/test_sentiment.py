"""Sentiment estimates: clear cases, and texts that must get no estimate."""

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


def test_sentiment_estimate_has_all_fields() -> None:
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
def test_sentiment_of_clear_texts(text: str, sentiment: str, emotions: Any) -> None:
    estimate = estimate_sentiment(text)
    assert estimate is not None
    assert estimate["sentiment"] == sentiment
    assert set(estimate["emotions"]) == set(emotions)


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
def test_other_languages_and_short_texts_get_no_estimate(text: str) -> None:
    assert estimate_sentiment(text) is None


@settings(deadline=None)
@given(st.text(max_size=300) | st.lists(st.sampled_from(["not", "but", "very", "furious", "!", "'"])).map(" ".join))
def test_sentiment_accepts_any_text(text: str) -> None:
    estimate = estimate_sentiment(text)
    assert estimate is None or (-1 <= estimate["score"] <= 1 and len(estimate["words"]) <= WORDS_MAX)


def test_only_the_beginning_of_a_long_text_is_analysed() -> None:
    assert estimate_sentiment("This is fine. " * 200 + FURIOUS) == estimate_sentiment("This is fine. " * 200)


@pytest.mark.parametrize("missing", ["vaderSentiment", "py3langid"])
def test_no_estimate_without_the_libraries(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    _hide(monkeypatch, missing)
    assert not sentiment.is_installed()
    assert estimate_sentiment(FURIOUS) is None


def test_no_emotions_without_their_word_list(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "nrclex")
    estimate = estimate_sentiment(FURIOUS)
    assert estimate is not None
    assert "emotions" not in estimate
    assert (estimate["words"], estimate["by"]) == (["furious"], f"vaderSentiment {version('vaderSentiment')}")


def _hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(sentiment, "find_spec", lambda name: None if name == package else find_spec(name))


def test_sentiment_libraries_are_loaded_lazily() -> None:
    looked_at = (
        "import sys; import app.connectors.webhook_parser;"
        "sys.exit('vaderSentiment' in sys.modules or 'py3langid' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", looked_at], check=False).returncode == 0


@pytest.mark.parametrize("policy", ["private", "property", "none"])
def test_sentiment_is_estimated_before_the_text_is_removed(policy: Any) -> None:
    call = Call(id="m-1", event="ticket.created", text={"subject": "Help", "body": FURIOUS})
    message = decode_json(to_segment_message(call, policy, with_estimate=True))
    assert message["properties"]["estimate"]["sentiment"] == "negative"
    assert "estimate" not in str(decode_json(to_segment_message(call, policy)))


def test_text_of_an_agent_is_not_estimated() -> None:
    call = Call(id="m-1", event="ticket.replied_by_agent", text={"body": FURIOUS}, is_by_customer=False)
    assert "estimate" not in str(decode_json(to_segment_message(call, with_estimate=True)))
