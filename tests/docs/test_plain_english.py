"""Docstrings, comments, user-facing strings, names of tests and documents are plain English."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

from tests.docs.plain_english import ROOT, Kind, Text, find, list_files, read_markdown, read_python, read_texts

UNCLEAR: Final[tuple[tuple[Kind, str], ...]] = (
    ("docstring", "What happens although nobody asks: time passes, definitions change, a projection is repeated."),
    ("function", "Raises SignatureRefused for what is none."),
    ("docstring", "Which is the status that this tool takes for an end of it: on others it would try for days."),
    ("comment", "More was to be kept than may be; whatever comes next, only the log can tell."),
    (
        "docstring",
        "However it is corrected, it has one id: its own, else the one that the original has by what it says.",
    ),
    (
        "comment",
        "Behind a proxy that is not believed all visitors are one address, and soon turned away: say so, once.",
    ),
    ("string", "The webhook is not shown to be its tool's"),
    ("string", "There is no such thing"),
    ("string", "say how many were not what the log says (it must be none)"),
    ("markdown", "Ask for the key before Customer.io's operations are taken apart, and tell leaving from joining"),
    ("comment", "say it anew"),
    ("docstring", "What every command stands on"),
    ("comment", "what nobody waits for holds no slot"),
    ("comment", "the tool's own where it tells"),
    ("comment", "It stays so for ever."),
    ("comment", "Somebody may have changed it."),
    ("comment", "Whoever calls it closes it."),
    ("docstring", "A word of ours."),
    ("docstring", "Their ids, and not theirs."),
    ("comment", "Both are kept apart."),
    ("comment", "as told"),
    ("comment", "what the header says"),
    ("comment", "Here stands the key."),
    ("comment", "The cause lies in the proxy."),
    ("comment", "It speaks of another customer."),
    ("comment", "A header that Segue believes."),
    ("comment", "There is news for the worker."),
    ("comment", "The flush goes on."),
    ("comment", "An address that is none."),
    ("comment", "It reads that many rows."),
    ("comment", "Whatever the client sends."),
    ("comment", "It depends on what it makes of it."),
    ("comment", "A union is no model."),
    ("comment", "SES names none."),
    ("comment", "Wait for so many requests."),
    ("comment", "SDKs wait some seconds."),
    ("comment", "It cannot be valid any more."),
    ("docstring", "Of a batch, the messages that were accepted."),
    ("comment", "Both servers answer alike."),
    ("comment", "The default, where there is none."),
    ("name", "test what is committed is acknowledged whatever counting does"),
)
"""Sentences that this project has contained, by the kind of text."""

PLAIN: Final[tuple[tuple[Kind, str], ...]] = (
    ("docstring", "Webhook signature verification."),
    ("docstring", "Group commit for ingested messages."),
    ("docstring", "Background worker: expires time-based truths, backfills definitions, creates monthly partitions."),
    ("function", "Decode base64; raise SignatureRefused if it is invalid."),
    ("comment", "Use the status that stops this tool from retrying."),
    ("function", "Return True if the state was truncated: the next message forces a replay from the log."),
    ("docstring", "Replay id: the corrected message's id, else the original's id, else the quarantine row's id."),
    ("comment", "Warn once if an untrusted proxy makes all visitors share one address (and one rate limit)."),
    ("string", "Webhook signature missing or invalid"),
    ("string", "Not found"),
    ("string", "Rebuild every customer from the log and report how many differed (expected: 0)"),
    ("name", "test refund counts only successful transactions"),
    ("comment", "There is no limit. It is no longer valid, and so many that none fits; any more than two are refused."),
    ("comment", "The value is None, and that's all. It's apart from the others; `*` stands for any path."),
)

VAGUE_NAMES: Final = frozenset(
    {
        "asked",
        "each",
        "found",
        "given",
        "kept",
        "known",
        "made",
        "met",
        "said",
        "seen",
        "served",
        "shown",
        "taken",
        "told",
    }
    | {"wanted"}
)


@pytest.mark.parametrize(("kind", "content"), UNCLEAR, ids=lambda value: value[:30])
def test_unclear_sentence_is_found(kind: Kind, content: str) -> None:
    assert list(find(Text(Path("app/example.py"), 1, kind, content)))


@pytest.mark.parametrize(("kind", "content"), PLAIN, ids=lambda value: value[:30])
def test_plain_sentence_passes(kind: Kind, content: str) -> None:
    assert list(find(Text(Path("app/example.py"), 1, kind, content))) == []


def test_sentence_of_more_than_40_words_is_found() -> None:
    sentence = " ".join(["word"] * 40)
    assert list(find(Text(Path("README.md"), 1, "markdown", f"{sentence}. {sentence}."))) == []
    (finding,) = find(Text(Path("README.md"), 1, "markdown", f"{sentence}. {sentence} word."))
    assert finding.rule == "sentence of 41 words"


def test_reader_yields_every_kind_of_python_text() -> None:
    source = '''"""Module."""

LIMIT = 3
"""Attribute."""
DAYS = ["%d %b %Y"]  # fmt: skip


def test_one():
    """Function."""
    # A comment
    # of two lines.
    raise ValueError("An error for users")


class C:
    """Class."""

    @property
    def p(self):
        """Property."""
'''
    texts = {(text.kind, text.content) for text in read_python(Path("app/example.py"), source)}
    assert texts == {
        ("docstring", "Module."),
        ("docstring", "Attribute."),
        ("function", "Function."),
        ("name", "test one"),
        ("comment", "A comment\nof two lines."),
        ("string", "An error for users"),
        ("docstring", "Class."),
        ("docstring", "Property."),
    }


def test_reader_skips_code_of_markdown_and_keeps_line_numbers() -> None:
    source = "# Title\n\nText.\n\n```sh\nmake what\n```\n\n- item\n- another\n"
    texts = [(text.line, text.content) for text in read_markdown(Path("README.md"), source)]
    assert texts == [(1, "# Title"), (3, "Text."), (9, "- item"), (10, "- another")]


def test_all_text_is_plain_english() -> None:
    findings = [str(finding) for text in read_texts(list_files()) for finding in find(text)]
    assert findings == []


def test_variables_have_meaningful_names() -> None:
    """A name such as ``found`` or ``each`` does not say what the value is."""
    vague = [
        f"{file}:{node.lineno}: {name}"
        for file in list_files()
        if file.suffix == ".py"
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.Name | ast.arg)
        for name in [node.arg if isinstance(node, ast.arg) else node.id if isinstance(node.ctx, ast.Store) else ""]
        if name in VAGUE_NAMES
    ]
    assert vague == []
