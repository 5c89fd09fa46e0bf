"""Certificates and kubeconfigs of the cluster, made once with openssl."""

import subprocess
import tempfile

from tests.cluster.debian.paths import API_SERVICE_IP, BIN, NODE, NODE_IP, PKI

SERVERS = {
    "apiserver": ("/CN=kube-apiserver",
                  f"IP:127.0.0.1,IP:{API_SERVICE_IP},IP:{NODE_IP},DNS:localhost,DNS:kubernetes.default.svc"),
    "kubelet": (f"/CN={NODE}", f"IP:{NODE_IP},DNS:{NODE}"),
}  # fmt: skip
USERS = {
    "admin": "/O=system:masters/CN=admin",
    "manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "node": f"/O=system:nodes/CN=system:node:{NODE}",
    "proxy": "/CN=system:kube-proxy",
    "submitter": "/O=mlflow-users/CN=ada",
}
"""The last one is a person with nothing but the Role of k8s/base/submitter.yaml."""


def make() -> None:
    if all((PKI / f"{user}.kubeconfig").exists() for user in USERS):
        return
    PKI.mkdir(parents=True, exist_ok=True)
    _openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-subj",
        "/CN=test",
        "-days",
        "3650",
    )
    _openssl("genrsa", "-out", "sa.key", "2048")
    _openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    for name, (subject, alternatives) in SERVERS.items():
        _issue(name, subject, alternatives)
    for name, subject in USERS.items():
        _issue(name, subject, f"DNS:{name}")
        _kubeconfig(name, "mlflow" if name == "submitter" else "default")


def _issue(name: str, subject: str, alternatives: str) -> None:
    _openssl(
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        f"{name}.key",
        "-out",
        f"{name}.csr",
        "-subj",
        subject,
    )
    with tempfile.NamedTemporaryFile("w") as extensions:
        extensions.write(f"subjectAltName={alternatives}\nextendedKeyUsage=serverAuth,clientAuth\n")
        extensions.flush()
        _openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                 "-out", f"{name}.crt", "-days", "3650", "-extfile", extensions.name)  # fmt: skip


def _kubeconfig(user: str, namespace: str) -> None:
    config = [str(BIN / "kubectl"), "config", "--kubeconfig", f"{user}.kubeconfig"]
    for arguments in (
        [
            "set-cluster",
            "test",
            "--server",
            "https://127.0.0.1:6443",
            "--certificate-authority",
            "ca.crt",
            "--embed-certs",
        ],
        [
            "set-credentials",
            user,
            "--client-certificate",
            f"{user}.crt",
            "--client-key",
            f"{user}.key",
            "--embed-certs",
        ],
        ["set-context", "test", "--cluster", "test", "--user", user, "--namespace", namespace],
        ["use-context", "test"],
    ):
        subprocess.run(config + arguments, cwd=PKI, check=True, capture_output=True)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=PKI, check=True, capture_output=True)
