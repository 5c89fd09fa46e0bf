"""Safe reading of YAML from any source; the only module that parses YAML.

With PyYAML alone a small text can exhaust time and memory: aliases multiply ("billion laughs"),
nesting overflows the stack, and a number may be megabytes long.
"""

import itertools
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mlflow_backend.errors import ComputeError

MOST_BYTES = 50_000_000
MOST_DEPTH = 100
MOST_ALIASED = 10_000
"""The number of entries that aliases and merge keys may add to those of the text."""
LONGEST_NUMBER = 100
TOO_DEEP = f"is nested deeper than {MOST_DEPTH} levels"
NUMBERS = tuple(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp"))


class Document(NamedTuple):
    """A parsed text: its plain values, and its node tree with line numbers (None for an empty
    text).
    """

    content: Any
    root: yaml.Node | None


def read(path: Path, error: type[ComputeError], most_bytes: int = MOST_BYTES) -> str:
    """The text of the regular file `path`, UTF-8 with or without a byte order mark.

    Raises `error` with one line.
    """
    try:
        with open(
            path,
            "rb",
            opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)),
        ) as file:
            is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(most_bytes + 1) if is_regular else b""
    except OSError as failure:
        raise error(f"{path}: cannot be read: {failure.strerror}", code="UnreadableFile") from None
    if not is_regular:
        raise error(f"{path}: is not a regular file", code="UnreadableFile")
    if len(data) > most_bytes:
        raise error(f"{path}: is larger than {most_bytes / 1e6:.0f} MB", code="TooLarge")
    return decode(data, str(path), error)


def decode(data: bytes, source: str, error: type[ComputeError]) -> str:
    """The text of `data`, UTF-8. Raises `error` with the line that is not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = data.count(b"\n", 0, failure.start) + 1
        raise error(
            f"{source}, line {line}: is not UTF-8",
            code="InvalidFile",
            hint="save the file as UTF-8",
        ) from None


def parse(text: str, source: str, error: type[ComputeError], as_text: bool = False) -> Document:
    """The only document in `text`. With `as_text` every scalar is text: `3.10` is a version and not
    a number.

    Raises `error` with one line that names `source` (a file's path) and the line.
    """
    try:
        loader = (_TextLoader if as_text else _Loader)(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return Document(None, None)
            _check_size(root)
            return Document(loader.construct_document(root), root)
        finally:
            loader.dispose()
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None) or getattr(failure, "context_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = (
            getattr(failure, "problem", None) or getattr(failure, "reason", None) or str(failure)
        )
        raise error(
            f"{source}{line}: {' '.join(problem.split())}",
            code="InvalidFile",
            hint="correct the YAML",
        ) from None
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as failure:
        # `2024-13-01`, `!!bool x`
        raise error(
            f"{source}: a value does not match its type ({failure})",
            code="InvalidFile",
            hint="write it in quotes",
        ) from None


def line_of(root: yaml.Node | None, path: tuple[Any, ...]) -> int:
    """The line of the entry at `path` (keys and indexes), or of the innermost entry around it that
    the text contains.
    """
    line, node = 1, root
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


class _Limited(yaml.parser.Parser, yaml.composer.Composer):
    """Limits the recursion of the composer, which has one call for each level."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            event = self.peek_event()  # type: ignore[no-untyped-call]  # types-PyYAML has no types
            raise yaml.composer.ComposerError(None, None, TOO_DEEP, event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Loader(_Limited, yaml.SafeLoader):
    pass


class _TextLoader(_Limited, yaml.BaseLoader):
    pass


def _check_size(root: yaml.Node) -> None:
    """Measure what aliases add, in number and in depth, following each of them once.

    Raises YAMLError above the limits.
    """
    measured: dict[int, tuple[int, int] | None] = {}

    def measure(node: yaml.Node) -> tuple[int, int]:
        """The number of nodes and of levels below `node`; its recursion is as deep as the text is
        nested.
        """
        if id(node) in measured:
            size_and_depth = measured[id(node)]
            if size_and_depth is None:
                raise _refuse("an alias refers to an entry that contains it", node)
            return size_and_depth
        measured[id(node)] = None
        if (
            isinstance(node, yaml.ScalarNode)
            and node.tag in NUMBERS
            and len(node.value) > LONGEST_NUMBER
        ):
            raise _refuse("a number is too long: write it in quotes", node)
        size, depth = 1, 0
        for child in _children(node):
            child_size, child_depth = measure(child)
            size, depth = size + child_size, max(depth, child_depth)
        if size > len(measured) + MOST_ALIASED:
            raise _refuse(f"aliases add more than {MOST_ALIASED} entries", node)
        if depth >= MOST_DEPTH:
            raise _refuse(TOO_DEEP, node)
        measured[id(node)] = size, depth + 1
        return size, depth + 1

    measure(root)


def _children(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return itertools.chain.from_iterable(node.value)
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _refuse(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, problem, node.start_mark)
