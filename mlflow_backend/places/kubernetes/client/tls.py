"""TLS as a kubeconfig describes it, without writing a private key to a file."""

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from typing import NamedTuple


class ClientCertificate(NamedTuple):
    """What the client presents to the server: PEM, each."""

    certificates: bytes
    key: bytes


def make_context(
    authorities: bytes | None, client: ClientCertificate | None, verify: bool
) -> ssl.SSLContext:
    """The context for one API server. `authorities`: the PEM of its CA, None for the system's.

    Raises ssl.SSLError (an OSError) for a certificate or key that OpenSSL cannot read.
    """
    context = ssl.create_default_context(
        cadata=authorities.decode("ascii", "replace") if authorities else None
    )
    # Python 3.13 rejects CA certificates without an authority key identifier, which older
    # installers create and kubectl accepts (kubernetes-client/python#2394).
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if client:
        with readable(client.certificates) as certificates, readable(client.key) as key:
            # the empty password keeps OpenSSL from asking for one on the terminal
            context.load_cert_chain(certificates, key, password="")
    return context


@contextlib.contextmanager
def readable(content: bytes) -> Iterator[str]:
    """A path from which `content` can be read inside the block: in memory on Linux, elsewhere a
    file in a folder of mode 0700.

    OpenSSL's Python interface takes keys by path only, and a file would remain when a signal ends
    the process.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("mlflow-compute")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pem")
        with open(path, "wb") as file:
            file.write(content)
        yield path
