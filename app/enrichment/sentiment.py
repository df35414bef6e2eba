"""How a message sounds: an estimate from lists of words, of English texts only. Pure, but for the lists it loads once.

Needs what ``segue[estimates]`` installs (py3langid, vaderSentiment); emotions need ``segue[emotions]`` (NRCLex) too,
whose list of words is free for research only. Without them there is no estimate, and none for a text that is not surely
English: a list of English words finds "die" and "war" in German.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Final

ESTIMATED: Final = "on"
"""What a source's option ``estimate`` says where this is wanted."""
TEXT_CHARS_MAX: Final = 2_000
"""Of a text that is looked at: what follows is mostly what is answered to, and looking takes 2 us a character."""
WORDS_MAX: Final = 20
NOTE: Final = "an estimate, from words alone: irony and what was meant are not seen"

_ENGLISH: Final = "en"
_CONFIDENCE_MIN: Final = 0.9
"""Two words in capitals are no language yet; a short sentence is."""
_POSITIVE: Final = 0.05
"""From where VADER's authors call a text positive, and below its opposite negative."""
_EMOTIONS: Final = frozenset({"anger", "disgust", "fear", "joy", "sadness", "surprise"})
_NEGATION_REACHES: Final = 3
"""Words."""
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def is_installed() -> bool:
    return find_spec("vaderSentiment") is not None and find_spec("py3langid") is not None


def estimate_sentiment(text: str) -> dict[str, Any] | None:
    """``{"sentiment", "score", "emotions", "words", "by", "note"}``; None for what is not surely English, or unknown.

    ``score`` is from -1 to 1. ``emotions`` counts words of each; it is left out where their list is not installed.
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
    """(how many words stand for each emotion, which words). Not behind a negation, where nothing can be said."""
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
    """Takes most of a second, once."""
    langid = import_module("py3langid.langid")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


@cache
def _load_vader() -> Any:
    return import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()


@cache
def _describe_library(library: str) -> str:
    return f"{library} {version(library)}"
