"""Text from elsewhere (MLflow, Kubernetes, a project) as it may be written to a terminal."""

import unicodedata


def plain(text: str) -> str:
    r"""`text` on one line, every character that a terminal would obey or hide written as its
    escape: ESC becomes `\x1b`.

    That covers control characters, the invisible ones that turn the direction of writing
    (CVE-2021-42574), lone surrogates, and line separators. Letters, marks, symbols and emoji of all
    scripts stay as they are.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()
