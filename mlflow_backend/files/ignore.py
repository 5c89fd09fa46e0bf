"""Ignore files, read as git reads them (https://git-scm.com/docs/gitignore), in time that no
pattern can make long.

Every way of matching `*` by trying again can be made exponential. Here a pattern is cut at its
stars, and each piece is taken at the first place where it fits, which is enough: if any place fits,
the first one does.
"""

import re
import string
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MOST_BYTES = 1_000_000
LONGEST_PATTERN = 4096
"""The longest path that Linux takes: a longer pattern fits nothing."""
STAR, ANY, SLASH = "*", frozenset(range(256)), frozenset(b"/")
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
    """The patterns of one ignore file; the paths that `match` takes are relative to its folder."""

    def __init__(self, data: bytes):
        self._names: dict[bytes, list[Pattern]] = {}
        self._paths: dict[bytes, list[Pattern]] = {}
        self._wild: list[Pattern] = []
        for index, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n")):
            pattern = _read(index, line.removesuffix(b"\r"))
            if pattern and pattern.literal is not None:
                (self._paths if pattern.is_path else self._names).setdefault(
                    pattern.literal, []
                ).append(pattern)
            elif pattern:
                self._wild.append(pattern)

    @property
    def cost(self) -> int:
        """How many patterns a name is compared with, one after the other."""
        return len(self._wild)

    def match(self, path: bytes, is_folder: bool) -> "Pattern | None":
        """The last pattern that fits, which decides; None: no pattern speaks of the path."""
        segments = path.split(b"/")
        found = [*self._names.get(segments[-1], ()), *self._paths.get(path, ())]
        best = max(
            (pattern for pattern in found if is_folder or not pattern.folders_only), default=None
        )
        for pattern in reversed(self._wild):
            if best and pattern.index < best.index:
                break
            if (is_folder or not pattern.folders_only) and pattern.fits(segments):
                return pattern
        return best


class Pattern(NamedTuple):
    """One line of a file: what it fits is ignored, or taken back in if it is `negated`. `literal`
    is its text without wildcards.

    Else `groups` are the parts between `**`, each a row of globs for as many names of a path.
    """

    index: int
    negated: bool
    folders_only: bool
    is_path: bool
    literal: bytes | None
    groups: "Sequence[Sequence[_Glob]]" = ()

    def fits(self, path: Sequence[bytes]) -> bool:
        return (
            _fit_in_order(self.groups, path) if self.is_path else self.groups[0][0].fits(path[-1])
        )


class _Glob:
    """A pattern for one name: pieces of fixed length, with any text where a star stood between
    them.
    """

    def __init__(self, tokens: Sequence):
        pieces: list[list] = [[]]
        for token in tokens:
            if token is STAR:
                pieces.append([])
            else:
                pieces[-1].append(token)
        self._length = sum(map(len, pieces))
        first, *others = pieces
        self._first, self._whole = _Piece(first), not others
        self._middle = [_Piece(piece) for piece in others[:-1] if piece]
        self._last = _Piece(others[-1] if others else [])

    def fits(self, name: bytes) -> bool:
        if len(name) < self._length or (self._whole and len(name) > self._length):
            return False
        end = len(name) - self._last.length
        if not (self._first.fits_at(name, 0) and self._last.fits_at(name, end)):
            return False
        place = self._first.length
        for piece in self._middle:
            place = piece.end_of_first(name, place, end)
            if place < 0:
                return False
        return True


class _Piece:
    """Bytes, and sets of bytes, one after the other."""

    def __init__(self, tokens: Sequence[frozenset[int]]):
        self.length = len(tokens)
        self._text = (
            bytes(next(iter(token)) for token in tokens)
            if all(len(token) == 1 for token in tokens)
            else None
        )
        self._regex = (
            re.compile(b"".join(map(_class, tokens)), re.S) if self._text is None else None
        )

    def fits_at(self, name: bytes, place: int) -> bool:
        return (
            name.startswith(self._text, place)
            if self._regex is None
            else bool(self._regex.match(name, place))
        )

    def end_of_first(self, name: bytes, start: int, end: int) -> int:
        """Where the first place in this range that fits ends; -1 without one."""
        if self._regex is None:
            place = name.find(self._text, start, end)
            return place + self.length if place >= 0 else -1
        found = self._regex.search(name, start, end)
        return found.end() if found else -1


def _class(token: frozenset[int]) -> bytes:
    if token == ANY:
        return b"."
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(token)) + b"]" if token else b"(?!)"


def _fit_in_order(groups: Sequence[Sequence[_Glob]], path: Sequence[bytes]) -> bool:
    """Whether the path is the groups one after the other, with any number of folders where a `**`
    stood between them.

    At the end it stands for one name at least: `a/**` is all that is in `a`, not `a` itself.
    """
    first, *others = groups
    if not others:
        return len(path) == len(first) and _fit_at(first, path, 0)
    *middle, last = others
    end = len(path) - max(len(last), 1)
    if sum(map(len, groups)) > len(path) or len(first) > end or not _fit_at(first, path, 0):
        return False
    place = len(first)
    for group in middle:
        found = next(
            (at for at in range(place, end - len(group) + 1) if _fit_at(group, path, at)), None
        )
        if found is None:
            return False
        place = found + len(group)
    return _fit_at(last, path, len(path) - len(last))


def _fit_at(group: Sequence[_Glob], path: Sequence[bytes], place: int) -> bool:
    return all(glob.fits(path[place + index]) for index, glob in enumerate(group))


def _read(index: int, line: bytes) -> Pattern | None:
    """The pattern of a line; None where it has none, or one that fits nothing, as with a bracket
    that is never closed.
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
    if all(token is not STAR and len(token) == 1 for token in tokens):
        literal = b"/".join(bytes(next(iter(token)) for token in segment) for segment in segments)
        return Pattern(index, negated, folders_only, is_path, literal)
    return Pattern(index, negated, folders_only, is_path, None, _groups(segments, is_path))


def _without_trailing_spaces(line: bytes) -> bytes:
    """A space after a backslash stays; git strips no other white space."""
    stripped = line.rstrip(b" ")
    backslashes = len(stripped) - len(stripped.rstrip(b"\\"))
    return stripped + b" " if backslashes % 2 and len(stripped) < len(line) else stripped


def _segments(text: bytes, is_path: bool) -> list[list]:
    """The tokens of each part between slashes: STAR, or the set of bytes that may stand there.
    Raises ValueError.
    """
    segments: list[list] = [[]]
    for token in _tokens(text):
        if is_path and token == SLASH:
            segments.append([])
        else:
            segments[-1].append(token)
    return segments


def _groups(segments: list[list], is_path: bool) -> list[list[_Glob]]:
    groups: list[list[_Glob]] = [[]]
    for segment in segments:
        if is_path and len(segment) > 1 and all(token is STAR for token in segment):
            groups.append([])
        else:
            groups[-1].append(_Glob(segment))
    return groups


def _tokens(text: bytes) -> Iterator:
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
    """The set of bytes that `[...]` stands for, never a slash, and where it ends; `place` is behind
    the `[`. As git's wildmatch.c.
    """
    negated = text[place : place + 1] in (b"!", b"^")
    place += negated
    members: set[int] = set()
    previous, start = None, place
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
        raise ValueError("a bracket that is not closed")
    return text[place], place + 1


def _class_name(text: bytes, place: int) -> str | None:
    """`alpha` where `[:alpha:]` stands. Raises ValueError for a name that is no class."""
    if text[place : place + 2] != b"[:":
        return None
    end = text.find(b"]", place + 2)
    if end < 0:
        raise ValueError("a bracket that is not closed")
    if end < place + 3 or text[end - 1 : end] != b":":
        return None
    name = text[place + 2 : end - 1].decode("ascii", "replace")
    if name not in CLASSES:
        raise ValueError("no such class")
    return name
