"""The tokens of the text form, and what a parser by recursive descent asks of them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

DEEPEST = 100  # blocks, lists and parentheses within one another

T = TypeVar("T")


class ParseError(Exception):
    """Text that is not IR, and where: `path`, `line` and `col` (from 1), `message`, `source` (the line)."""

    def __init__(self, path: str, line: int, col: int, message: str, source: str) -> None:
        super().__init__(message)
        self.path, self.line, self.col, self.message, self.source = path, line, col, message, source

    def __str__(self) -> str:
        caret = "".join("\t" if c == "\t" else " " for c in self.source[: self.col - 1]) + "^"
        return f"{self.path}:{self.line}:{self.col}: error: {self.message}\n{self.source}\n{caret}"


class Token(NamedTuple):
    kind: str
    text: str
    at: int
    fresh: bool  # first on its line


_TOKEN = re.compile(
    r"""
    (?P<space>\s+ | (?<!\S)//[^\n]*)
  | (?P<value>(?<![\w)])%(?:[\w.]+|"(?:[^"\\\n]|\\.)*"))
  | (?P<symbol>@sha256:[0-9a-f]+ | @(?:[\w.]+|"(?:[^"\\\n]|\\.)*"))
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)
  | (?P<name>[A-Za-z_][\w.]*)
  | (?P<punct>->|//|[-+*%(){}=:,;&\[\]])
    """,
    re.X,
)
_KINDS = {"value": "a value like %x", "symbol": "a name like @f", "string": "a string", "name": "a name"}


def error_at(path: str, text: str, at: int, message: str) -> ParseError:
    start = text.rfind("\n", 0, at) + 1
    source = text[start:].split("\n", 1)[0]
    return ParseError(path, text.count("\n", 0, at) + 1, at - start + 1, message, source)


def nearest(word: str, words: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(words), 1)
    return f" (did you mean {found[0]}?)" if found else ""


class Tokens:
    """Those of a text, of which `token` is the next; ParseError where it is not what a rule expects."""

    def __init__(self, text: str, path: str) -> None:
        self.text, self.path = text, path
        self.pos = self.depth = 0
        self.tokens: list[Token] = []
        self.tokenize()

    def tokenize(self) -> None:
        at, end, fresh = 0, 0, True
        while at < len(self.text):
            m = _TOKEN.match(self.text, at)
            if m is None:
                what = "unterminated string" if '"' in self.text[at : at + 2] else "unexpected character"
                raise error_at(self.path, self.text, at, f"{what} {self.text[at]!r}")
            kind = str(m.lastgroup)
            if kind != "space":
                self.tokens.append(Token(kind, m[0], at, fresh))
                fresh, end = False, m.end()
            elif "\n" in m[0]:
                fresh = True
            at = m.end()
        self.tokens.append(Token("end", "", end, fresh))

    @property
    def token(self) -> Token:
        return self.tokens[self.pos]

    def fail(self, message: str, at: Token | None = None) -> ParseError:
        return error_at(self.path, self.text, (at or self.token).at, message)

    def peek(self, text: str, ahead: int = 0) -> bool:
        token = self.tokens[min(self.pos + ahead, len(self.tokens) - 1)]
        return token.text == text and token.kind != "string"

    def accept(self, text: str) -> bool:
        if self.peek(text):
            self.pos += 1
            return True
        return False

    def expect(self, text: str) -> Token:
        token = self.token
        if not self.accept(text):
            raise self.fail(f"expected {text}, found {token.text or 'the end of the text'}")
        return token

    def take(self, kind: str) -> Token:
        token = self.token
        if token.kind != kind:
            raise self.fail(f"expected {_KINDS[kind]}, found {token.text or 'the end of the text'}")
        self.pos += 1
        return token

    def listed(self, item: Callable[[], T], close: str) -> list[T]:
        """Items between commas up to and including `close`; a comma may stand before it."""
        out: list[T] = []
        while not self.accept(close):
            out.append(item())
            if not self.accept(","):
                self.expect(close)
                break
        return out

    def deeper(self, rule: Callable[[], T]) -> T:
        if self.depth >= DEEPEST:
            raise self.fail(f"nested deeper than {DEEPEST}")
        self.depth += 1
        result = rule()
        self.depth -= 1
        return result

    def unquoted(self, token: Token, skip: int = 0) -> str:
        """The text of a string, or of a name that may be quoted, behind `skip` characters."""
        text = token.text[skip:]
        if not text.startswith('"'):
            return text
        try:
            return str(json.loads(text))
        except ValueError:
            raise self.fail(f"cannot read the string {text}", token) from None
