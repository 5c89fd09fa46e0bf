"""The lock files as rattler and uv need them on this machine: text in, text out.

uv caches the wheels of an index by the index's address. If a lock does not name the index (the
field `index` is optional), uv downloads a file again for each environment, unless the server allows
caching it (uv 0.13).
"""

import re
from urllib.parse import unquote, urlsplit

DEFAULT = "https://pypi.org/simple"
"""uv's own default."""


def with_index(text: str, index: str = DEFAULT) -> str:
    """The PEP 751 lock with `index` set for every package of an index that does not name it.

    It only decides under which name the cache stores a file: addresses and hashes are in the lock.
    """
    head, *blocks = re.split(r"^(?=\[\[packages\]\])", text, flags=re.M)
    return head + "".join(_with_index(block, index) for block in blocks)


def _with_index(block: str, index: str) -> str:
    own = block.partition("\n[")[0]  # sub-tables have fields of their own
    if re.search(r"^(index|vcs|directory|archive)\s*=", own, re.M) or re.search(
        r"^\[packages\.(vcs|directory|archive)\]", block, re.M
    ):
        return block
    return block.replace("\n", f'\nindex = "{index}"\n', 1)


def staged_python(text: str, folder: str) -> str:
    """The PEP 751 lock with every file read from `folder`/python instead of its address.

    A path is not quoted as an address is (`%2B` in
    torch-2.4.0%2Bcu121-cp311-cp311-linux_x86_64.whl).
    """
    return re.sub(
        r'\burl = "([^"]*)"', lambda match: f'path = "{folder}/python/{_file_name(match[1])}"', text
    )


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def staged_conda(text: str, folder: str) -> str:
    """The conda-lock.yml with every file read from `folder`/conda instead of its address."""
    return re.sub(
        r"^(  url:) .*/([^/\n]+/[^/\n]+)$", rf"\1 file://{folder}/conda/\2", text, flags=re.M
    )
