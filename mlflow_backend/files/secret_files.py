"""Files that look like secrets by their name, their folder or their content.

Each check takes linear time.
"""

import os
import re
from collections.abc import Iterator

HEAD_BYTES = 1_000_000
"""How much of a file is checked, from its start."""

NAMES = {
    ".env", ".envrc", ".netrc", "_netrc", ".pypirc", ".npmrc", ".pgpass", ".my.cnf",
    ".git-credentials", ".htpasswd", ".dockercfg",
    ".dockerconfigjson", ".boto", ".s3cfg", ".vault-token", ".databrickscfg", "kubeconfig",
    "kaggle.json", "credentials.tfrc.json",
    "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk",
    "application_default_credentials.json",
}  # fmt: skip
SUFFIXES = (".key", ".p12", ".pfx", ".ppk", ".jks", ".keystore", ".kubeconfig")
PREFIXES = (".env.",)
NOT_SECRET = {f".env.{word}" for word in ("example", "sample", "template", "dist")}
PLACES = (
    ".ssh/", ".aws/", ".azure/", ".config/gcloud/", ".gnupg/", ".kube/config",
    ".docker/config.json", ".mlflow/credentials",
    ".config/gh/hosts.yml", ".huggingface/token", ".cache/huggingface/token",
)  # fmt: skip
"""Where programs store credentials: a folder with all its files, or the end of a path."""

PEM = re.compile(rb"PRIVATE KEY(?: BLOCK)?-----")
PEM_BEGINNING = b"-----BEGIN "
PEM_LONGEST = 60
PEM_BODY = re.compile(rb"(?:\\[rn]|[\s\"'])*[A-Za-z0-9+/=]{20}")
AWS_KEY = b"aws_secret_access_key"
AWS_VALUE = re.compile(rb"[\"']?[ \t]*[=:][ \t]*[\"']?([^\s\"']+)")
AWS_LITERAL = re.compile(rb"\\?[\"']?\]?[ \t]*[=:,][ \t]*\\?[\"'][A-Za-z0-9/+=]{16}")
EXPRESSION = re.compile(rb"[$(\[{<%.]")
"""The start of a placeholder, which is replaced when the file is used."""
VALUE = re.compile(rb"[\"']?[ \t]*:[ \t]*[\"']?[^\s\"'{}\[\],|>]")
LONGEST_LINE = 200
KUBECONFIG_KEYS = (b"token", b"password", b"client-key-data", b"id-token", b"refresh-token")
CODE = (
    ".py",
    ".ipynb",
    ".r",
    ".rmd",
    ".jl",
    ".js",
    ".ts",
    ".go",
    ".java",
    ".scala",
    ".rs",
    ".rb",
    ".c",
    ".cpp",
    ".h",
)
"""Programs: code may name credentials, so only the text of a key makes it a secret."""


def is_secret(path: str, head: bytes) -> bool:
    """Whether a file looks like a secret; `path` has `/` as its separator, `head` is its start."""
    return (
        has_secret_name(path)
        or _has_private_key(head)
        or (_has_literal_key if path.lower().endswith(CODE) else _has_login)(head)
    )


def looks_secret(path: str, file: str | os.PathLike[str]) -> bool:
    """`is_secret` for a file of this machine. Raises OSError."""
    with open(file, "rb") as opened:
        return is_secret(path, opened.read(HEAD_BYTES))


def has_secret_name(path: str) -> bool:
    """Whether the path alone makes a file look like a secret."""
    path = path.lower()
    name = path.rpartition("/")[2]
    if name in NOT_SECRET or name.endswith(".pub"):
        return False
    if name in NAMES or name.startswith(PREFIXES) or name.endswith(SUFFIXES):
        return True
    return any(
        f"/{place}" in f"/{path}" if place.endswith("/") else f"/{path}".endswith(f"/{place}")
        for place in PLACES
    )


def _has_private_key(head: bytes) -> bool:
    """A key begins a line, or its text follows as in the JSON of a service account. Code that
    searches for keys has neither.
    """
    for match in PEM.finditer(head):
        begin = head.rfind(PEM_BEGINNING, max(0, match.start() - PEM_LONGEST), match.start())
        if begin >= 0 and (
            begin == 0
            or head[begin - 1 : begin] == b"\n"
            or PEM_BODY.match(head, match.end(), match.end() + PEM_LONGEST)
        ):
            return True
    return head.startswith(b"PuTTY-User-Key-File-")


def _has_literal_key(head: bytes) -> bool:
    return any(
        AWS_LITERAL.match(head, end, end + LONGEST_LINE) for end in _ends(head.lower(), AWS_KEY)
    )


def _has_login(head: bytes) -> bool:
    """An AWS key, a kubeconfig with a login, or a credentials file of Docker or gcloud."""
    values = (
        AWS_VALUE.match(head, end, end + LONGEST_LINE) for end in _ends(head.lower(), AWS_KEY)
    )
    if any(value and not EXPRESSION.search(value[1]) for value in values) or _has_value(
        head, b"client-key-data"
    ):
        return True
    if all(word in head for word in (b"clusters", b"users", b"contexts")) and any(
        _has_value(head, key) for key in KUBECONFIG_KEYS
    ):
        return True
    docker = b'"auths"' in head and any(
        _has_value(head, key) for key in (b"auth", b"identitytoken", b"password")
    )
    return docker or (b'"refresh_token"' in head and b'"client_secret"' in head)


def _has_value(head: bytes, key: bytes) -> bool:
    """`key: x` or `"key": "x"`, but not a longer key that ends with this one."""
    for end in _ends(head, key):
        start = end - len(key)
        before = head[start - 1 : start] if start else b"\n"
        if (
            not before.isalnum()
            and before not in (b"-", b"_")
            and VALUE.match(head, end, end + LONGEST_LINE)
        ):
            return True
    return False


def _ends(text: bytes, word: bytes) -> Iterator[int]:
    """The end of each occurrence of the word."""
    place = text.find(word)
    while place >= 0:
        yield place + len(word)
        place = text.find(word, place + len(word))
