"""Text from other sources (MLflow, Kubernetes, a project), made safe for a terminal."""

import unicodedata


def plain(text: str) -> str:
    r"""`text` on one line, with escapes for the characters that a terminal executes or hides: ESC
    becomes `\x1b`.

    These are control characters, invisible characters that change the direction of writing
    (CVE-2021-42574), lone surrogates, and line separators. Letters, marks, symbols and emoji of all
    scripts are unchanged.
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()
