"""A kubeconfig as kubectl reads it, and what of it is ever on disk."""

import json
import os
import signal
import ssl
import subprocess
import sys
import textwrap

import pytest
import trustme
import yaml

from mlflow_backend.errors import ClusterError, ClusterUnavailable
from mlflow_backend.places.kubernetes.client import kubeconfig as kubeconfigs
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.connect import connect
from tests.bed.apiserver import ApiServer, data, listing, refusal, write_kubeconfig

PLUGIN = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": "./plugin",
    "interactiveMode": "Never",
}
HINT = "set KUBECONFIG to a file that works with kubectl"


@pytest.fixture
def change(kubeconfig):
    """Change the content of the kubeconfig by a function."""

    def by(function):
        content = yaml.safe_load(kubeconfig.read_text())
        function(content)
        kubeconfig.write_text(yaml.safe_dump(content))

    return by


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority, tmp_path, monkeypatch):
    """An API server that wants a client certificate; the entries of a kubeconfig for it, as data."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = ApiServer(context)
    server.answers["list pods"] = [listing()]
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield server
    server.close()


@pytest.fixture
def certificate(authority):
    return authority.issue_cert("ada@example.com")


def user_of(certificate):
    return {
        "client-certificate-data": data(certificate.cert_chain_pems[0].bytes()),
        "client-key-data": data(certificate.private_key_pem.bytes()),
    }


def plugin(folder, text, name="plugin"):
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport json, os, sys\n{textwrap.dedent(text)}")
    path.chmod(0o755)


def credential(**status):
    return (
        f"print(json.dumps({{'apiVersion': {PLUGIN['apiVersion']!r}, 'kind': 'ExecCredential', "
        f"'status': {status!r}}}))\n"
    )


def test_a_named_context_needs_no_current_one(api, kubeconfig, change):
    change(lambda content: content.pop("current-context"))
    assert connect("test").context == "test"
    with pytest.raises(ClusterError) as raised:
        connect()
    assert str(raised.value) == (
        f"kubeconfig {kubeconfig}: has no current-context: name a context in the target "
        "('context', known: test)"
    )


def test_what_is_missing_is_named_with_what_there_is(kubeconfig, change, monkeypatch):
    where = f"kubeconfig {kubeconfig}"
    with pytest.raises(ClusterError) as raised:
        connect("prod")
    assert str(raised.value) == (f"{where}, context 'prod': has no context 'prod': known: test")
    change(lambda content: content["contexts"][0]["context"].update(user="ada"))
    with pytest.raises(ClusterError) as raised:
        connect("test")
    assert str(raised.value) == f"{where}, context 'test': has no user 'ada': known: test"
    change(lambda content: content["contexts"][0]["context"].update(cluster="lab"))
    with pytest.raises(ClusterError) as raised:
        connect("test")
    assert str(raised.value) == (f"{where}, context 'test': has no cluster 'lab': known: test")
    monkeypatch.setenv("KUBECONFIG", "/none/kubeconfig")
    with pytest.raises(ClusterError) as raised:
        connect()
    assert str(raised.value) == f"kubeconfig /none/kubeconfig: no such file: {HINT}"
    assert raised.value.code == "InvalidKubeconfig" and raised.value.hint == HINT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "a: [",
        "contexts: 5",
        "contexts: [{}]",
        "contexts: [5]",
        "current-context: test",
        "\0",
        "5",
    ],
)
def test_a_file_that_is_no_kubeconfig_is_one_line(kubeconfig, text):
    kubeconfig.write_text(text)
    with pytest.raises(ClusterError) as raised:
        connect("test")
    assert str(raised.value).startswith(
        f"kubeconfig {kubeconfig}, context 'test': "
    ) and "\n" not in str(raised.value)


def test_of_several_files_the_first_that_names_something_counts(api, tmp_path, monkeypatch):
    one = write_kubeconfig(
        tmp_path / "one", current=None, server="http://localhost:1", user={"token": "of one"}
    )
    two = write_kubeconfig(
        tmp_path / "two", server=api.url, user={"token": "of two"}, namespace="other"
    )
    three = write_kubeconfig(tmp_path / "three", name="third", current="third", server=api.url)
    monkeypatch.setenv(
        "KUBECONFIG", os.pathsep.join(map(str, (tmp_path / "none", one, two, three)))
    )
    found = kubeconfigs.log_in()
    assert (found.context, found.server, found.namespace) == ("test", "http://localhost:1", "n")
    assert kubeconfigs.log_in("third").server == api.url


def test_paths_are_relative_to_the_file_that_names_them(
    api, kubeconfig, change, tmp_path, monkeypatch
):
    (tmp_path / "token").write_text("from a file")
    change(lambda content: content["users"][0].update(user={"tokenFile": "token"}))
    monkeypatch.chdir("/")
    api.answers["list pods"] = [listing()]
    Cluster().list_objects("Pod", "a=b")
    assert api.calls[0].token == "from a file"


def test_a_plugin_gives_the_token_until_it_expires(api, kubeconfig, change, tmp_path):
    plugin(
        tmp_path,
        """
        import time
        number = len(open("%s/runs", "a+").seek(0) and "" or open("%s/runs").read())
        open("%s/runs", "a").write("x")
        past = number == 0
        info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
        token = f"{number} {sys.argv[1]} {os.environ['EXTRA']} {info['spec']['cluster']['server']}"
        status = {"token": token, "expirationTimestamp": "2020-01-01T00:00:00Z" if past else "2999-01-01T00:00:00Z"}
        print(json.dumps({"apiVersion": info["apiVersion"], "kind": "ExecCredential", "status": status}))
        """.replace("%s", str(tmp_path)),
    )
    entry = {
        **PLUGIN,
        "args": ["argument"],
        "env": [{"name": "EXTRA", "value": "more"}],
        "provideClusterInfo": True,
    }
    change(lambda content: content["users"][0].update(user={"exec": entry}))
    api.answers["list pods"] = [listing()]
    cluster = Cluster()
    for _ in range(3):
        cluster.list_objects("Pod", "a=b")
    assert [call.token for call in api.calls] == [f"1 argument more {api.url}"] * 3, (
        "the first token had expired when it came"
    )


def test_a_plugin_that_is_missing_is_named_with_its_entry(kubeconfig, change):
    for extra, hint in [
        ({}, "install it"),
        ({"installHint": ("See https://example.com/aws\nand more")}, "See https://example.com/aws"),
    ]:
        user = {"exec": {**PLUGIN, "command": "aws-none", **extra}}
        change(lambda content, user=user: content["users"][0].update(user=user))
        with pytest.raises(ClusterError) as raised:
            connect()
        assert str(raised.value) == (
            f"kubeconfig {kubeconfig}, user 'test': the credential plugin 'aws-none' is not "
            f"installed or not in PATH: {hint}"
        )
        assert raised.value.code == "MissingTool"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sys.exit('first line\\nthe SSO session has expired')", ("failed with exit code 1: the SSO "
                                                                 "session has expired: log in "
                                                                 "again with it")),
        ("sys.exit(3)", "failed with exit code 3: log in again with it"),
        ("print('s3cr3t')", "did not print an ExecCredential with a status: check its arguments"),
        ("print('{\"token\": \"s3cr3t\"}')", ("did not print an ExecCredential with a status: check "
                                             "its arguments")),
        (credential(), "returned neither a token nor a client certificate: log in again with it"),
        (credential(clientCertificateData="s3cr3t"), ("did not print an ExecCredential with a "
                                                     "status: check its arguments")),
        (credential(token="s3cr3t").replace("v1", "v1beta1"),
         ("returned the version client.authentication.k8s.io/v1beta1, but the kubeconfig requires "
         "client.authentication.k8s.io/v1: update the kubeconfig")),
    ],
)  # fmt: skip
def test_a_plugin_that_fails_is_one_line_without_its_answer(
    kubeconfig, change, tmp_path, text, says
):
    plugin(tmp_path, text)
    change(lambda content: content["users"][0].update(user={"exec": PLUGIN}))
    with pytest.raises(ClusterError) as raised:
        connect()
    assert str(raised.value) == (
        f"kubeconfig {kubeconfig}, user 'test': the credential plugin './plugin' {says}"
    )


def test_a_plugin_that_fails_later_may_work_again(api, kubeconfig, change, tmp_path):
    plugin(tmp_path, credential(token="t"))
    change(lambda content: content["users"][0].update(user={"exec": PLUGIN}))
    cluster = Cluster()
    plugin(tmp_path, "sys.exit('expired')")
    api.answers["get jobs"] = [refusal(401)]
    with pytest.raises(ClusterUnavailable, match=r"'\./plugin' failed with exit code 1: expired"):
        cluster.read_job("j")


@pytest.mark.parametrize("given", ["data", "files", "plugin"])
def test_certificates_are_shown_to_the_server_and_asked_of_it(
    tls, certificate, authority, tmp_path, given
):
    """The server refuses connections without a certificate of its CA."""
    cluster, user = (
        {"certificate-authority-data": data(authority.cert_pem.bytes())},
        user_of(certificate),
    )
    if given == "files":
        authority.cert_pem.write_to_path(tmp_path / "ca")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "certificate")
        certificate.private_key_pem.write_to_path(tmp_path / "key")
        cluster, user = (
            {"certificate-authority": "ca"},
            {"client-certificate": "certificate", "client-key": "key"},
        )
    if given == "plugin":
        pems = (
            certificate.cert_chain_pems[0].bytes().decode(),
            certificate.private_key_pem.bytes().decode(),
        )
        plugin(tmp_path, credential(clientCertificateData=pems[0], clientKeyData=pems[1]))
        user = {"exec": PLUGIN}
    write_kubeconfig(tmp_path / "kubeconfig", user=user, server=tls.url, **cluster)
    assert connect().list_objects("Pod", "a=b") == ([], "1")


def test_the_server_s_certificate_is_checked_unless_the_kubeconfig_says_otherwise(
    tls, certificate, authority, tmp_path
):
    def read(**cluster):
        write_kubeconfig(
            tmp_path / "kubeconfig", user=user_of(certificate), **{"server": tls.url, **cluster}
        )
        return Cluster().list_objects("Pod", "a=b")

    ours, foreign = data(authority.cert_pem.bytes()), data(trustme.CA().cert_pem.bytes())
    for wrong in ({}, {"certificate-authority-data": foreign}):
        with pytest.raises(ClusterError) as raised:
            read(**wrong)
        assert type(raised.value) is ClusterError, "repeating does not help"
        assert str(raised.value).endswith(
            "check 'certificate-authority' and the client certificate in the kubeconfig"
        )
    with pytest.raises(ClusterError) as raised:
        read(
            server=tls.url.replace("localhost", "127.0.0.1"), **{"certificate-authority-data": ours}
        )
    assert type(raised.value) is ClusterError
    address = {
        "server": tls.url.replace("localhost", "127.0.0.1"),
        "certificate-authority-data": ours,
        "tls-server-name": "localhost",
    }
    assert read(**address) == ([], "1")
    assert read(**{"insecure-skip-tls-verify": True}) == ([], "1")


@pytest.mark.parametrize("key", ["bm9uc2Vuc2U=", "%%%", ""])
def test_a_key_that_cannot_be_read_is_one_line_without_it(tls, certificate, tmp_path, key):
    write_kubeconfig(
        tmp_path / "kubeconfig",
        user={**user_of(certificate), "client-key-data": key},
        server=tls.url,
    )
    with pytest.raises(ClusterError) as raised:
        connect()
    assert str(raised.value).endswith(HINT) and (not key or key not in str(raised.value))


CLIENT = """
import os, sys
if sys.argv[1] == "without memfd":
    del os.memfd_create
folder = os.environ["TMPDIR"]
def watch(event, arguments):
    if event == "open" and str(arguments[0]).startswith(folder) and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        print("written", flush=True)
sys.addaudithook(watch)
from mlflow_backend.places.kubernetes.client.connect import connect
connect().list_objects("Pod", "a=b")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
@pytest.mark.parametrize("place", ["here", "without memfd"])
def test_a_process_that_is_killed_leaves_no_key_behind(
    tls, certificate, authority, tmp_path, how, place
):
    """On Linux nothing is written at any time; elsewhere nothing is left once the client has read
    its credentials.
    """
    write_kubeconfig(
        tmp_path / "kubeconfig",
        user=user_of(certificate),
        server=tls.url,
        **{"certificate-authority-data": data(authority.cert_pem.bytes())},
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, place],
        env={**os.environ, "TMPDIR": str(temporary)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = iter(process.stdout.readline, "")
    assert set(iter(lambda: next(said), "ready\n")) == (
        {"written\n"} if place == "without memfd" else set()
    )
    assert list(temporary.rglob("*")) == []
    if how:
        process.send_signal(how)
    process.communicate("")
    assert process.returncode == (-how if how and how != signal.SIGINT else process.returncode)
    assert list(temporary.rglob("*")) == []


def test_what_the_library_renews_itself_is_still_written_back_to_the_kubeconfig(
    api, kubeconfig, change, tmp_path
):
    plugin(
        tmp_path,
        "print(json.dumps({'credential': {'access_token': 'new', 'token_expiry': "
        "'2999-01-01T00:00:00Z'}}))",
        "gcloud",
    )
    provider = {
        "name": "gcp",
        "config": {
            "cmd-path": str(tmp_path / "gcloud"),
            "access-token": "old",
            "expiry": "2020-01-01T00:00:00Z",
        },
    }
    before = data(b"kept as it is")
    change(lambda content: content["users"][0].update(user={"auth-provider": provider}))
    change(
        lambda content: content["clusters"][0]["cluster"].update(
            {"certificate-authority-data": before}
        )
    )
    api.answers["list pods"] = [listing()]
    Cluster().list_objects("Pod", "a=b")
    assert api.calls[0].token == "new"
    content = yaml.safe_load(kubeconfig.read_text())
    assert content["users"][0]["user"]["auth-provider"]["config"]["access-token"] == "new"
    assert content["clusters"][0]["cluster"] == {
        "server": api.url,
        "certificate-authority-data": before,
    }


def test_in_a_pod_a_kubeconfig_that_names_a_context_goes_before_the_service_account(
    kubeconfig, change, monkeypatch
):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert connect().context == "test"
    change(lambda content: content.pop("current-context"))
    with pytest.raises(ClusterError, match="Service host/port is not set"):
        connect()


def test_the_credentials_are_nowhere_in_the_configuration_s_text(kubeconfig):
    login = kubeconfigs.log_in()
    assert "first" not in json.dumps(str(login))
