"""Text without the credentials of the URLs in it: for every line, tag and exception that people
read.
"""

import re

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
MOST_CLOSING = 3
HIDDEN = "***"
PLAIN_FRAGMENTS = ("egg", "subdirectory", "md5", "sha1", "sha256", "sha384", "sha512")


def redact(text: str) -> str:
    """`text` for people: without user, password, query and conda token (`/t/TOKEN/`) of each URL.

    `https://ada:secret@host/a?sig=x` becomes `https://host/a?***`. A login may hold every character
    but white space, also those that a URL would have to quote: all up to the last `@` of the word
    goes, unless a host's name (with a dot, or `localhost`) stands where a client looks for it. The
    time is linear in the length.
    """
    return _each_word(text, lambda word: _hide_rest(_drop_all_logins(word)))


def without_logins(text: str) -> str:
    """`text` for programs: each URL without user and password as RFC 3986 defines them, all else as
    it was.
    """
    return _each_word(text, _drop_logins)


def _each_word(text, change):
    if "://" not in text:
        return text
    return "".join(change(word) if "://" in word else word for word in SPACES.split(text))


def _drop_all_logins(word):
    last_at = word.rfind("@")

    def end_of_login(start, end):
        return start if last_at < start or _is_host(word, start, end) else last_at + 1

    return _drop(word, end_of_login)


def _drop_logins(word):
    return _drop(word, lambda start, end: max(start, word.rfind("@", start, end) + 1))


def _drop(word, end_of_login):
    """`end_of_login` tells for each authority (a range of `word`) where what is shown of it
    begins.
    """
    parts, done = [], 0
    while (found := word.find("://", done)) >= 0:
        start = found + 3
        match = AUTHORITY_END.search(word, start)
        end = match.start() if match else len(word)
        shown = end_of_login(start, end)
        parts += [word[done:start], word[shown:end]]
        done = max(shown, end)
    return "".join(parts) + word[done:]


def _is_host(word, start, end):
    return (
        bool(HOST.fullmatch(word, start, end))
        if end > start
        else word.endswith(LOCAL_SCHEMES, 0, start - 3)
    )


def _hide_rest(word):
    start = word.find("://") + 3
    rest, mark, query = word[start:].partition("?")
    rest = TOKEN_SEGMENT.sub(lambda match: match[1] + _hide(match[2]), rest)
    rest = PATH_PARAMETER.sub(lambda match: match[1] + _hide(match[2]), rest)
    rest, hash_mark, fragment = rest.partition("#")
    if hash_mark:
        rest += "#" + "&".join(map(_hide_value, fragment.split("&")))
    return word[:start] + rest + ("?" + _hide(query) if mark else "")


def _hide_value(field):
    name, equals, value = field.partition("=")
    return field if not equals or name in PLAIN_FRAGMENTS else name + "=" + _hide(value)


def _hide(secret):
    """Quotes and brackets that close around a URL stay, so that the text around it stays
    readable.
    """
    kept = secret[len(secret.rstrip(CLOSING)) :]
    return HIDDEN + kept[-MOST_CLOSING:]
