"""Estimates the sentiment of English texts from word lists. Pure, except that it loads the lists once.

Requires ``segue[estimates]`` (py3langid, vaderSentiment). Emotions also require ``segue[emotions]`` (NRCLex), whose
word list is free for research only. Without these packages there is no estimate. Texts that are not clearly English get
no estimate either, because English word lists misread other languages: "die" and "war" are harmless in German.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Final

ESTIMATED: Final = "on"
"""Value of a source's option ``estimate`` that turns the estimate on."""
TEXT_CHARS_MAX: Final = 2_000
"""Maximum number of characters of a text that are analysed. One character takes 2 us.

The rest of a longer text is mostly a quotation of earlier messages.
"""
WORDS_MAX: Final = 20
NOTE: Final = "estimated from single words; irony and context are not recognised"

_ENGLISH: Final = "en"
_CONFIDENCE_MIN: Final = 0.9
"""Minimum probability, from 0 to 1, that a text is English.

A short English sentence reaches it, but two words in capitals do not.
"""
_POSITIVE: Final = 0.05
"""Minimum score of a positive text, as recommended by VADER; a negative text has at most the negative of this."""
_EMOTIONS: Final = frozenset({"anger", "disgust", "fear", "joy", "sadness", "surprise"})
_NEGATION_REACHES: Final = 3
"""Number of words after a negation that do not count as emotions, because the negation reverses them."""
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def is_installed() -> bool:
    return find_spec("vaderSentiment") is not None and find_spec("py3langid") is not None


def estimate_sentiment(text: str) -> dict[str, Any] | None:
    """Return ``{"sentiment", "score", "emotions", "words", "by", "note"}``, or None if there is no estimate.

    ``score`` is from -1 to 1. ``emotions`` counts the words of each emotion; it is absent if NRCLex is not installed.
    """
    text = text[:TEXT_CHARS_MAX].replace("\u2019", "'").strip()
    if not text or not is_installed() or not _is_english(text):
        return None
    vader = _load_vader()
    score = float(vader.polarity_scores(text)["compound"])
    words = _WORD.findall(text.lower())
    lexicon_words = [word for word in words if word in vader.lexicon]
    result: dict[str, Any] = {
        "sentiment": "positive" if score >= _POSITIVE else "negative" if score <= -_POSITIVE else "neutral",
        "score": score,
        "by": _describe_library("vaderSentiment"),
        "note": NOTE,
    }
    if find_spec("nrclex") is not None:
        counts, emotion_words = _count_emotions(words)
        result["emotions"] = counts
        result["by"] += f", {_describe_library('nrclex')}"
        lexicon_words += emotion_words
    return {**result, "words": list(dict.fromkeys(lexicon_words))[:WORDS_MAX]}


def _count_emotions(words: list[str]) -> tuple[dict[str, int], list[str]]:
    """Return the number of words per emotion, and all words with an emotion. Negated words are not counted."""
    negated = import_module("vaderSentiment.vaderSentiment").negated
    reader = import_module("nrclex").NRCLex()
    reader.load_token_list(
        word for place, word in enumerate(words) if not negated(words[max(0, place - _NEGATION_REACHES) : place])
    )
    counts = {
        emotion: reader.raw_emotion_scores[emotion] for emotion in _EMOTIONS if emotion in reader.raw_emotion_scores
    }
    emotion_words = [word for word, stands_for in reader.affect_dict.items() if not _EMOTIONS.isdisjoint(stands_for)]
    return dict(sorted(counts.items())), emotion_words


def _is_english(text: str) -> bool:
    language, sureness = _load_language_identifier().classify(text)
    return bool(language == _ENGLISH and sureness >= _CONFIDENCE_MIN)


@cache
def _load_language_identifier() -> Any:
    """Load the language identifier once, because loading takes almost a second."""
    langid = import_module("py3langid.langid")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


@cache
def _load_vader() -> Any:
    return import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()


@cache
def _describe_library(library: str) -> str:
    return f"{library} {version(library)}"
