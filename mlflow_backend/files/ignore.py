"""Ignore files with git's rules (https://git-scm.com/docs/gitignore), in bounded time.

Matching `*` by backtracking can take exponential time. Here a pattern is split at its stars, and
each piece is matched at the first possible place. That suffices: if the rest matches after a later
place, it matches after the first one.
"""

import re
import string
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

MOST_BYTES = 1_000_000
LONGEST_PATTERN = 4096
"""The longest path on Linux: a longer pattern matches nothing."""
Token: TypeAlias = frozenset[int] | None
"""The bytes that match at one place; None for a star."""
STAR, ANY, SLASH = None, frozenset(range(256)), frozenset(b"/")
CLASSES = {
    "alnum": string.ascii_letters + string.digits, "alpha": string.ascii_letters, "blank": " \t",
    "digit": string.digits,
    "cntrl": "".join(map(chr, [*range(32), 127])), "graph": "".join(map(chr, range(33, 127))),
    "lower": string.ascii_lowercase,
    "print": "".join(map(chr, range(32, 127))), "punct": string.punctuation, "space": " \t\r\n",
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}  # fmt: skip


class Rules:
    """The patterns of one ignore file; paths are relative to its folder."""

    def __init__(self, data: bytes) -> None:
        self._names: dict[bytes, list[Pattern]] = {}
        self._paths: dict[bytes, list[Pattern]] = {}
        self._wild: list[Pattern] = []
        for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n")):
            pattern = _read(number, line.removesuffix(b"\r"))
            if pattern and pattern.literal is not None:
                (self._paths if pattern.is_path else self._names).setdefault(
                    pattern.literal, []
                ).append(pattern)
            elif pattern:
                self._wild.append(pattern)

    @property
    def cost(self) -> int:
        """The number of patterns that `match` tries one by one."""
        return len(self._wild)

    def match(self, path: bytes, is_folder: bool) -> "Pattern | None":
        """The last pattern that matches, which decides; None if none matches."""
        segments = path.split(b"/")
        literal = [*self._names.get(segments[-1], ()), *self._paths.get(path, ())]
        best = max(
            (pattern for pattern in literal if is_folder or not pattern.folders_only), default=None
        )
        for pattern in reversed(self._wild):
            if best and pattern.line < best.line:
                break
            if (is_folder or not pattern.folders_only) and pattern.matches(segments):
                return pattern
        return best


class Pattern(NamedTuple):
    """One line of an ignore file: it excludes the paths that match, or includes them if `negated`.

    `literal` is the text of a pattern without wildcards. For others `groups` are the parts between
    `**`, each a sequence of globs for consecutive names of a path.
    """

    line: int
    negated: bool
    folders_only: bool
    is_path: bool
    literal: bytes | None
    groups: "Sequence[Sequence[_Glob]]" = ()

    def matches(self, path: Sequence[bytes]) -> bool:
        """Whether the pattern, which has wildcards, matches the path, given as its names."""
        if not self.is_path:
            return self.groups[0][0].matches(path[-1])
        return _match_in_order(self.groups, path)


class _Glob:
    """A pattern for one name: pieces of fixed length with any text between them."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        pieces: list[list[frozenset[int]]] = [[]]
        for token in tokens:
            if token is None:
                pieces.append([])
            else:
                pieces[-1].append(token)
        self._length = sum(map(len, pieces))
        first, *others = pieces
        self._first, self._whole = _Piece(first), not others
        self._middle = [_Piece(piece) for piece in others[:-1] if piece]
        self._last = _Piece(others[-1] if others else [])

    def matches(self, name: bytes) -> bool:
        if len(name) < self._length or (self._whole and len(name) > self._length):
            return False
        end = len(name) - self._last.length
        if not (self._first.matches_at(name, 0) and self._last.matches_at(name, end)):
            return False
        place = self._first.length
        for piece in self._middle:
            place = piece.end_of_first(name, place, end)
            if place < 0:
                return False
        return True


class _Piece:
    """A sequence of sets of bytes."""

    def __init__(self, tokens: Sequence[frozenset[int]]) -> None:
        self.length = len(tokens)
        self._matcher: bytes | re.Pattern[bytes]
        if all(len(token) == 1 for token in tokens):
            self._matcher = bytes(next(iter(token)) for token in tokens)
        else:
            self._matcher = re.compile(b"".join(map(_class_text, tokens)), re.DOTALL)

    def matches_at(self, name: bytes, place: int) -> bool:
        if isinstance(self._matcher, bytes):
            return name.startswith(self._matcher, place)
        return bool(self._matcher.match(name, place))

    def end_of_first(self, name: bytes, start: int, end: int) -> int:
        """The end of the first match in this range; -1 without one."""
        if isinstance(self._matcher, bytes):
            place = name.find(self._matcher, start, end)
            return place + self.length if place >= 0 else -1
        match = self._matcher.search(name, start, end)
        return match.end() if match else -1


def _class_text(token: frozenset[int]) -> bytes:
    """The token as a regular expression."""
    if token == ANY:
        return b"."
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(token)) + b"]" if token else b"(?!)"


def _match_in_order(groups: Sequence[Sequence[_Glob]], path: Sequence[bytes]) -> bool:
    """Whether the path consists of matches of the groups with any number of folders between them,
    one for each `**`.

    A `**` at the end matches at least one name: `a/**` is everything in `a`, but not `a` itself.
    """
    first, *others = groups
    if not others:
        return len(path) == len(first) and _match_at(first, path, 0)
    *middle, last = others
    end = len(path) - max(len(last), 1)
    if sum(map(len, groups)) > len(path) or len(first) > end or not _match_at(first, path, 0):
        return False
    place = len(first)
    for group in middle:
        start = next(
            (at for at in range(place, end - len(group) + 1) if _match_at(group, path, at)), None
        )
        if start is None:
            return False
        place = start + len(group)
    return _match_at(last, path, len(path) - len(last))


def _match_at(group: Sequence[_Glob], path: Sequence[bytes], place: int) -> bool:
    return all(glob.matches(path[place + index]) for index, glob in enumerate(group))


def _read(number: int, line: bytes) -> Pattern | None:
    """The pattern of a line; None for a line without one, or with one that never matches, such as
    an unclosed bracket.
    """
    text = _without_trailing_spaces(line)
    if not text or text.startswith(b"#") or len(text) > LONGEST_PATTERN:
        return None
    negated = text.startswith(b"!")
    text = text[negated:]
    folders_only = text.endswith(b"/")
    text = text[: len(text) - folders_only]
    is_path = b"/" in text
    try:
        segments = _segments(text[text.startswith(b"/") :], is_path)
    except ValueError:
        return None
    tokens = [token for segment in segments for token in segment]
    if not tokens:
        return None
    if all(token is not None and len(token) == 1 for token in tokens):
        literal = b"/".join(
            bytes(next(iter(token)) for token in segment if token) for segment in segments
        )
        return Pattern(number, negated, folders_only, is_path, literal)
    return Pattern(number, negated, folders_only, is_path, None, _groups(segments, is_path))


def _without_trailing_spaces(line: bytes) -> bytes:
    """The line without spaces at its end, but for one after a backslash; git strips no other white
    space.
    """
    stripped = line.rstrip(b" ")
    backslashes = len(stripped) - len(stripped.rstrip(b"\\"))
    return stripped + b" " if backslashes % 2 and len(stripped) < len(line) else stripped


def _segments(text: bytes, is_path: bool) -> list[list[Token]]:
    """The tokens of each part between slashes. Raises ValueError."""
    segments: list[list[Token]] = [[]]
    for token in _tokens(text):
        if is_path and token == SLASH:
            segments.append([])
        else:
            segments[-1].append(token)
    return segments


def _groups(segments: list[list[Token]], is_path: bool) -> list[list[_Glob]]:
    groups: list[list[_Glob]] = [[]]
    for segment in segments:
        if is_path and len(segment) > 1 and all(token is STAR for token in segment):
            groups.append([])
        else:
            groups[-1].append(_Glob(segment))
    return groups


def _tokens(text: bytes) -> Iterator[Token]:
    place = 0
    while place < len(text):
        character = text[place : place + 1]
        place += 1
        if character == b"*":
            yield STAR
        elif character == b"?":
            yield ANY
        elif character == b"[":
            token, place = _bracket(text, place)
            yield token
        else:
            if character == b"\\":
                character, place = text[place : place + 1], place + 1
                if not character:
                    raise ValueError("a backslash at the end")
            yield frozenset(character)


def _bracket(text: bytes, place: int) -> tuple[frozenset[int], int]:
    """The bytes that `[...]` matches, never a slash, and the place after it; `place` is that after
    the `[`. See git's wildmatch.c.
    """
    negated = text[place : place + 1] in (b"!", b"^")
    place += negated
    members: set[int] = set()
    previous: int | None = None
    start = place
    while place == start or text[place : place + 1] != b"]":
        character = text[place : place + 1]
        if (
            character == b"-"
            and previous is not None
            and text[place + 1 : place + 2] not in (b"", b"]")
        ):
            last, place = _escaped(text, place + 1)
            members.update(range(previous, last + 1))
            previous = None
        elif name := _class_name(text, place):
            members.update(CLASSES[name].encode())
            previous, place = None, place + len(name) + 4
        else:
            previous, place = _escaped(text, place)
            members.add(previous)
    return (ANY - members if negated else frozenset(members)) - SLASH, place + 1


def _escaped(text: bytes, place: int) -> tuple[int, int]:
    place += text[place : place + 1] == b"\\"
    if place >= len(text):
        raise ValueError("an unclosed bracket")
    return text[place], place + 1


def _class_name(text: bytes, place: int) -> str | None:
    """`alpha` if `[:alpha:]` begins at `place`. Raises ValueError for an unknown class."""
    if text[place : place + 2] != b"[:":
        return None
    end = text.find(b"]", place + 2)
    if end < 0:
        raise ValueError("an unclosed bracket")
    if end < place + 3 or text[end - 1 : end] != b":":
        return None
    name = text[place + 2 : end - 1].decode("ascii", "replace")
    if name not in CLASSES:
        raise ValueError("no such class")
    return name
