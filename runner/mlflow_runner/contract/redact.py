"""Removes the credentials from the URLs in a text: applied to every line, tag and exception that
people read.
"""

import re
from typing import Callable

SPACES = re.compile(r"([ \t\r\n\v\f]+)")
AUTHORITY_END = re.compile(r"[/?#]")
HOST = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9-]*\.[A-Za-z0-9.-]+|localhost|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"
)
LOCAL_SCHEMES = ("file", "sqlite")
TOKEN_SEGMENT = re.compile(r"(/t/)([^/#]+)")
PATH_PARAMETER = re.compile(r"(;[^=;/#]*=)([^;/#]+)")
"""As in `https://host/a;token=x/b` (RFC 3986, 3.3) and `sqlserver://host;user=ada;password=x`."""
CLOSING = "\"'`>)]},;:."
MAX_CLOSING = 3
HIDDEN = "***"
PLAIN_FRAGMENTS = ("egg", "subdirectory", "md5", "sha1", "sha256", "sha384", "sha512")


def redact(text: str) -> str:
    """`text` for people: each URL without its user, password, query and conda token (`/t/TOKEN/`).

    `https://ada:secret@host/a?sig=x` becomes `https://host/a?***`. A login may contain any
    character but white space, including those that a URL must quote: everything up to the last `@`
    of the word is removed, unless a host name (with a dot, or `localhost`) stands where a client
    expects it. The time is linear in the length.
    """
    return _map_urls(text, lambda word: _hide_secrets(_drop_all_logins(word)))


def without_logins(text: str) -> str:
    """`text` for programs: each URL without user and password as RFC 3986 defines them, everything
    else unchanged.
    """
    return _map_urls(text, _drop_logins)


def _map_urls(text: str, change: Callable[[str], str]) -> str:
    if "://" not in text:
        return text
    return "".join(change(word) if "://" in word else word for word in SPACES.split(text))


def _drop_all_logins(word: str) -> str:
    last_at = word.rfind("@")

    def find_host(start: int, end: int) -> int:
        return start if last_at < start or _is_host(word, start, end) else last_at + 1

    return _drop(word, find_host)


def _drop_logins(word: str) -> str:
    return _drop(word, lambda start, end: max(start, word.rfind("@", start, end) + 1))


def _drop(word: str, find_host: Callable[[int, int], int]) -> str:
    """`find_host` gets the range of each authority in `word` and returns where its host begins."""
    parts, done = [], 0
    while (scheme_end := word.find("://", done)) >= 0:
        start = scheme_end + 3
        match = AUTHORITY_END.search(word, start)
        end = match.start() if match else len(word)
        host = find_host(start, end)
        parts += [word[done:start], word[host:end]]
        done = max(host, end)
    return "".join(parts) + word[done:]


def _is_host(word: str, start: int, end: int) -> bool:
    return (
        bool(HOST.fullmatch(word, start, end))
        if end > start
        else word.endswith(LOCAL_SCHEMES, 0, start - 3)
    )


def _hide_secrets(word: str) -> str:
    """`word` without the secrets of its path, query and fragment."""
    start = word.find("://") + 3
    rest, mark, query = word[start:].partition("?")
    rest = TOKEN_SEGMENT.sub(lambda match: match[1] + _hide(match[2]), rest)
    rest = PATH_PARAMETER.sub(lambda match: match[1] + _hide(match[2]), rest)
    rest, hash_mark, fragment = rest.partition("#")
    if hash_mark:
        rest += "#" + "&".join(map(_hide_value, fragment.split("&")))
    return word[:start] + rest + ("?" + _hide(query) if mark else "")


def _hide_value(field: str) -> str:
    name, equals, value = field.partition("=")
    return field if not equals or name in PLAIN_FRAGMENTS else name + "=" + _hide(value)


def _hide(secret: str) -> str:
    """The placeholder, followed by the quotes and brackets that close around the URL: they keep the
    text around it readable.
    """
    closing = secret[len(secret.rstrip(CLOSING)) :]
    return HIDDEN + closing[-MAX_CLOSING:]
