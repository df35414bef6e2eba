"""Finds text that is not plain English: in docstrings, comments, user-facing strings, test names and Markdown.

``python -m tests.docs.plain_english [PATH ...]`` prints each finding and, at the end, the share of docstrings and
comments that have one. The rules are words and openings that made this project's texts hard to read, and sentences of
more than 40 words. When the check was written, they marked 44 % of all docstrings and comments, and 1.5 to 3.2 % of
those of starlette, httpx, FastAPI, uvicorn and asyncpg.

The rules are a safety net: a text that passes can still be unclear. The check does not read strings of fewer than three
words, strings outside ``app/``, SQL with its comments, strings of JavaScript, HTML, CSS, JSON, TOML, YAML, the
Makefile, the Dockerfile and messages of commits.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path(__file__).parents[2]

SENTENCE_WORDS_MAX: Final = 40

Kind = Literal["docstring", "function", "comment", "string", "markdown", "name"]
"""``function`` is the docstring of a function; ``name`` is the name of a test, with spaces for underscores."""


@dataclass(frozen=True)
class Text:
    """One docstring, comment, string, test name or Markdown paragraph."""

    path: Path
    line: int
    kind: Kind
    content: str


@dataclass(frozen=True)
class Finding:
    """A rule that a text breaks, with the words that break it."""

    text: Text
    rule: str
    words: str

    def __str__(self) -> str:
        return f"{self.text.path}:{self.text.line}: {self.text.kind}: {self.rule}: {self.words!r}"


# ------------------------------------------------------------------------------------------ the rules

_WORDS: Final = {
    "anew": r"anew",
    "for ever": r"for ever\b",
    "a person without a name": r"nobody|somebody|anybody|whoever|whosoever",
    "possessive without a noun": r"(?<!\bof )(?:ours|theirs)\b|\bof (?:ours|theirs|hers)\b",
    "apart": r"apart(?! from\b)",
    "telling and saying": r"tells?|told|says|said|say (?:so|of|what|how|which|that|whether|anything|nothing|more|it)",
    "stands or lies": r"stands?(?! for\b)|stood(?! for\b)|lies|lay",
    "speaks of": r"(?:speaks?|spoken?|spoke) of",
    "believes": r"believe[sd]?|unbelieved",
    "news": r"news",
    "goes on": r"goes on|go on|went on",
    "is none": r"(?:is|are|was|were|be|has|have|had|as) (?-i:none)",
    "is no + noun": r"(?<!there )(?:is|are|was|were) no(?= \w)(?! (?:longer|more|need)\b)",
    "names none": r"names none",
    "vague number": r"so many(?! that\b)|some seconds|any more(?! than\b)",
    "that many": r"(?:that|so|as) many as (?:there|it|they)|that many|that much",
    "whatever": r"whatever|whichever|however (?:it|they|the|many|much|often|long|old|large|deep)",
    "makes of": r"(?:makes?|made|become|becomes|became|comes|came) of (?:it|them|that|what|this)",
    "alike": r"alike",
    "such thing": r"such things?",
    "clause as a noun": r"(?:of|for|to|from|by|with|in|than|into|at|on|about|after|before|over|between|all|else) what",
    "only what": r"(?:only|just|exactly|even|not) what",
    "taken for": r"(?:takes?|taken|took) for",
    "old word": r"hence|thereof|thereby|therein|whence|thence|wherefore|hither|henceforth|lest|nought|naught|ere",
    "old grammar": r"(?:need|dare) not|shall|ought",
}

_RULES: Final = {
    name: re.compile(rf"(?<![\w'-])(?:{pattern})(?![\w-])", re.IGNORECASE) for name, pattern in _WORDS.items()
}

_ENDS_IN_POSSESSIVE: Final = re.compile(
    r"(?<!\w')\b(?!(?:it|that|there|here|what|who|let)'s)\w+'s(?=\s*(?:[.,;:)!?]|$))", re.I
)

_CLAUSE_OPENING: Final = re.compile(
    r"(?:What|Which|Who|Whom|Whose|Where|When|Whether|Why|How|However|That|Than|Although|Though|Because|While|Until|As)\b"
    r"(?! (?:an? |the )?HTTP)"
)
_RELATIVE_OPENING: Final = re.compile(r"(?:What|Who|Whom|Whose|Which|Whatever)\b(?![^.]*\?)")
"""Openings of comments and strings; a question may begin so."""
_OF_OPENING: Final = re.compile(r"Of (?!course)\w+|By (?:an?|the|one|each|all|its|those|them|it)\b")
_NOUN_OPENING: Final = re.compile(
    r"(?:The|An?|One|Two|All|Each|Every|Its|Their|His|No|Not|None|This|These|Those|It|They|There|Nothing|Everything"
    r"|Only|Also|Same|Both|Some|Any|Such|So|For|In|On|At|From|To|With|Without|After|Before|Once|Here|Does|Is|Are|Has)\b"
)
_IMPERATIVES_IN_S: Final = frozenset({"Process", "Pass", "Access", "Address", "Compress", "Decompress", "Suppress"})
_THIRD_PERSON: Final = re.compile(
    r"([A-Z][a-z]+s)\b"
    r"(?= (?:the|an?|all|each|every|one|its|their|if|whether|when|in|to|from|for|until|what|how|:|`|\d))"
)

_OPENING_NAMES: Final = re.compile(
    r"test (?:what|which|who|whose|where|how|that|whatever|however|it|its|they|of|as(?! of)|one|there)\b"
)


def find(text: Text) -> Iterator[Finding]:
    """Yield the rules that the text breaks."""
    prose = _without_code(text.content)
    for name, rule in _RULES.items():
        if match := rule.search(prose):
            yield Finding(text, name, match[0])
    if text.kind == "name":
        if match := _OPENING_NAMES.match(prose):
            yield Finding(text, "opens with a clause", match[0])
        return
    if match := _ENDS_IN_POSSESSIVE.search(prose):
        yield Finding(text, "possessive without a noun", match[0])
    if text.kind in ("docstring", "function"):
        yield from _find_in_opening(text, prose)
    elif text.kind in ("comment", "string") and (match := _RELATIVE_OPENING.match(prose) or _OF_OPENING.match(prose)):
        yield Finding(text, "opens with a clause", match[0])
    for sentence in _sentences(prose):
        words = len(re.findall(r"[^\W\d_][\w'-]*", sentence))
        if words > SENTENCE_WORDS_MAX:
            yield Finding(text, f"sentence of {words} words", sentence[:60])


def _find_in_opening(text: Text, prose: str) -> Iterator[Finding]:
    for name, rule in (("opens with a clause", _CLAUSE_OPENING), ("opens with Of", _OF_OPENING)):
        if match := rule.match(prose):
            yield Finding(text, name, match[0])
            return
    if text.kind == "function" and text.path.parts[:1] == ("app",):
        third_person = _THIRD_PERSON.match(prose)
        if match := _NOUN_OPENING.match(prose):
            yield Finding(text, "a function's docstring opens with an imperative", match[0])
        elif third_person and third_person[1] not in _IMPERATIVES_IN_S:
            yield Finding(text, "a function's docstring opens with an imperative", third_person[1])


def _without_code(content: str) -> str:
    """Return the text with code, quotations, addresses and roles replaced by one word each."""
    content = re.sub(r"```.*?```", "", content, flags=re.DOTALL)
    content = re.sub(r"::\n\n(?:[ \t]+\S[^\n]*\n|\s*\n)+", ".\n\n", content)
    content = re.sub(r":\w+:`[^`]*`|``.*?``|`[^`]*`", "CODE", content, flags=re.DOTALL)
    content = re.sub(r"\{[^{}\n]*\}", "CODE", content)
    content = re.sub(r"https?://\S+", "CODE", content)
    content = re.sub(r"\]\([^)]*\)", "]", content)
    return re.sub(r"\"[^\"\n]{1,80}\"|“[^”]*”|«[^»]*»", "CODE", content)


def _sentences(prose: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n|\n\s*(?:[-*|+]|\d+\.|[A-Za-z_ ,]+:)\s|\||^\s*#.*$", prose, flags=re.MULTILINE):
        yield from re.split(r"(?<=[.!?])[\"')]*\s+|:\n", " ".join(paragraph.split()))


# ------------------------------------------------------------------------------------------ the texts

_SQL: Final = re.compile(
    r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|FROM|WHERE|VALUES|JOIN|UNION|ORDER BY|GROUP BY|RETURNING|SET"
    r"|LOCK|COPY|VACUUM|NOTIFY|LISTEN|REFERENCES|PRIMARY KEY|NOT NULL|COALESCE|LATERAL|WITH)\b"
)


def read_python(path: Path, source: str) -> Iterator[Text]:
    """Yield docstrings, comments, names of tests and, in ``app``, strings of at least three words.

    Directives for formatters and linters are skipped, and so are time formats such as ``%d %b %Y``.
    """
    tree = ast.parse(source)
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_property(node)
        for index, literal in _docstrings(node):
            docstrings.add(id(literal))
            kind: Kind = "function" if is_function and index == 0 else "docstring"
            yield Text(path, literal.lineno, kind, str(literal.value).strip())
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield Text(path, node.lineno, "name", node.name.replace("_", " "))
    yield from _read_comments(path, source)
    if path.parts[0] == "app":
        yield from _read_strings(path, tree, docstrings)


def _is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


def _docstrings(node: ast.AST) -> Iterator[tuple[int, ast.Constant]]:
    """Yield the string statements of a body with their position: docstrings and those under an attribute."""
    body = getattr(node, "body", None)
    for index, statement in enumerate(body if isinstance(body, list) else ()):
        literal = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
            yield index, literal


def _read_strings(path: Path, tree: ast.AST, docstrings: set[int]) -> Iterator[Text]:
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            content = "".join(str(part.value) if isinstance(part, ast.Constant) else "CODE" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in docstrings or id(node) in inside:
                continue
            content = node.value
        else:
            continue
        words = re.findall(r"(?<![\w\\%])[A-Za-z][a-z']*(?=[\s.,;:?!]|$)", content)
        if len(words) >= 3 and not _SQL.search(content):
            yield Text(path, node.lineno, "string", content.strip())


def _read_comments(path: Path, source: str) -> Iterator[Text]:
    """Yield comments; those on consecutive lines are one text."""
    block: list[str] = []
    start = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or re.match(r"#(?:!| -{5,}|:|\s*(?:noqa|type:|pragma|fmt:))", token.string):
            continue
        line, column = token.start
        content = re.sub(r"#\s*(?:noqa|type:\s*ignore)\S*(?:: ?\S+)?(?: -)?|^#+ ?", "", token.string)
        if block and line == last + 1 and not source.splitlines()[line - 1][:column].strip():
            block.append(content)
        else:
            if block:
                yield Text(path, start, "comment", "\n".join(block))
            block, start = [content], line
        last = line
    if block:
        yield Text(path, start, "comment", "\n".join(block))


def read_javascript(path: Path, source: str) -> Iterator[Text]:
    """Yield comments."""
    for match in re.finditer(r"/\*.*?\*/|(?:(?<=\s)|^)//[^\n]*(?:\n\s*//[^\n]*)*", source, re.DOTALL | re.MULTILINE):
        content = re.sub(r"^\s*(?://+|/\*+|\*+/?)\s?|\*/$", "", match[0], flags=re.MULTILINE)
        yield Text(path, source.count("\n", 0, match.start()) + 1, "comment", content.strip())


def read_markdown(path: Path, source: str) -> Iterator[Text]:
    """Yield paragraphs, list items, headings and table cells, without code blocks."""
    source = re.sub(
        r"^( *)```.*?^\1```", lambda match: "\n" * match[0].count("\n"), source, flags=re.DOTALL | re.MULTILINE
    )
    line = 1
    for block in re.split(r"(\n\s*\n|\n(?=\s*(?:[-*+]|\d+\.|\|) ?))", source):
        if block.strip():
            yield Text(path, line + block[: len(block) - len(block.lstrip())].count("\n"), "markdown", block.strip())
        line += block.count("\n")


_READERS: Final = {".py": read_python, ".js": read_javascript, ".ts": read_javascript, ".md": read_markdown}

_NOT_OURS: Final = ("app/browser/segue.js", "tests/docs/plain_english.py", "tests/docs/test_plain_english.py")
"""The built file, and the two files that must contain what they forbid."""


def list_files(places: Iterable[Path] = ()) -> list[Path]:
    """Return the readable files of the checkout, or those under ``places``, relative to its root."""
    chosen = list(places) or [
        *(ROOT / name for name in ("app", "bench", "console", "docs", "examples", "migrations", "tests")),
        *ROOT.glob("*.md"),
    ]
    files: set[Path] = set()
    for place in chosen:
        files |= {place} if place.is_file() else set(place.rglob("*"))
    relative = (file.resolve().relative_to(ROOT) for file in files if file.suffix in _READERS and file.is_file())
    return sorted(file for file in relative if str(file) not in _NOT_OURS and "node_modules" not in file.parts)


def read_texts(files: Iterable[Path]) -> Iterator[Text]:
    for file in files:
        yield from _READERS[file.suffix](file, (ROOT / file).read_text(encoding="utf-8"))


def main(arguments: list[str]) -> int:
    """Print findings and the share of docstrings and comments that have one; return 1 if there is any."""
    texts = list(read_texts(list_files(Path(argument).resolve() for argument in arguments)))
    marked: set[Text] = set()
    for text in texts:
        for finding in find(text):
            marked.add(text)
            print(finding)
    read = [text for text in texts if text.kind in ("docstring", "function", "comment")]
    unclear = sum(text in marked for text in read)
    print(f"{unclear} of {len(read)} docstrings and comments ({unclear / max(len(read), 1):.1%})", end="; ")
    print(f"{len(marked)} of {len(texts)} texts in all")
    return 1 if marked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
