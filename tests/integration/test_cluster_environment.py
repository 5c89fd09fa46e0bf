"""Environments in pods: the same as here, made once per volume, with credentials where they are
needed and nowhere else.
"""

import base64
import json
import ssl
import subprocess
import uuid

import pytest
import trustme
from mlflow.exceptions import ExecutionException

from tests.bed.runs import THERE, job_of
from tests.bed.runs import failed_run_there as failed_run
from tests.bed.runs import run_here as run_here
from tests.bed.runs import run_there as run
from tests.bed.server import BIN
from tests.cluster import dev
from tests.packages.channel import SHORT
from tests.packages.index import add_wheel, serve

PIP = "- pip: [six==1.16.0, mlflow-skinny<3.18]\n"
LIST = """\
import importlib.metadata as m, json, os, sys
print("LISTED", json.dumps(sorted((d.name.lower(), d.version) for d in m.distributions())))
print("TOOLS", sorted(os.listdir(sys.prefix + "/bin"))[:40])
"""


@pytest.fixture
def reachable(cluster_access, channel):
    """The test channel under an address that pods can reach."""
    if not cluster_access.host:
        pytest.skip("pods of this cluster cannot reach this machine")
    with serve(channel.folder, name=cluster_access.host) as address:
        yield address


@pytest.fixture
def conda_project(project, reachable):
    def make(packages, more=PIP, command="python s.py"):
        text = (
            f"channels: ['{reachable}']\ndependencies:\n"
            + "".join(f"- {name}\n" for name in packages)
            + more
        )
        return project(command, conda_dot_yaml=text, s_dot_py=LIST)

    return make


@pytest.fixture
def tls(cluster_access, tmp_path, monkeypatch):
    """The certificate of this machine as pods call it, by an authority that `own.pem` holds."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "own.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(cluster_access.host).configure_cert(context)
    return context


@pytest.fixture
def claim(cluster_access, kubectl):
    """A PersistentVolumeClaim for a cache; it and its volume are gone afterwards."""
    name = f"cache-{uuid.uuid4().hex[:6]}"
    dev.make_volume(cluster_access, name)
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    if not dev.kubectl(cluster_access, "get", "storageclass", "-o", "name"):
        spec["storageClassName"] = ""
    text = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": spec,
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(text))
    yield name
    kubectl("delete", "jobs", "--all", "--wait=true")
    kubectl("delete", "pvc", name)
    kubectl("delete", "pv", f"mlflow-compute-{name}", "--ignore-not-found")


def listed(found):
    return [line for line in found.log.splitlines() if line.startswith((b"LISTED", b"TOOLS"))]


def test_a_run_here_and_a_pod_have_the_same_key_and_the_same_packages(
    cluster, conda_project, seen, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = conda_project([f"python={SHORT}", "beta", "tool"])
    here = seen(run_here(root, {}).run_id)
    there = seen(run(root).run_id)
    assert here.tags["compute.environment"] == there.tags["compute.environment"]
    assert len(listed(here)) == 2 and listed(here) == listed(there)
    assert {path.rpartition("/")[2] for path in there.artifacts("environment")} == {
        "conda-lock.yml",
        "pylock.toml",
    }
    assert there.artifact("environment/conda-lock.yml") == here.artifact(
        "environment/conda-lock.yml"
    )
    assert (
        there.metrics["compute/environment_conda_s"] > 0
        and there.metrics["compute/environment_pip_s"] > 0
    )


@pytest.mark.parametrize("per_user", [False, True])
def test_a_kept_cache_makes_the_second_run_warm(cluster, conda_project, seen, claim, per_user):
    cluster(cache={"claim": claim, "per_user": per_user})
    root = conda_project([f"python={SHORT}", "alpha"])
    first, second = seen(run(root).run_id), seen(run(root).run_id)
    assert b"building it from" in first.log and b"building it from" not in second.log
    assert listed(first) == listed(second)
    assert second.metrics["compute/environment_s"] < first.metrics["compute/environment_s"]


def test_ten_pods_at_once_make_a_new_environment_once(cluster, conda_project, seen, claim):
    cluster(cache={"claim": claim})
    root = conda_project([f"python={SHORT}", "beta"])
    runs = [run(root, {**THERE, "STREAM_OUTPUT": False}, synchronous=False) for _ in range(10)]
    assert all(one.wait() for one in runs)
    logs = [seen(one.run_id).log for one in runs]
    assert sum(log.count(b"building it from") for log in logs) == 1
    assert all(b"LISTED" in log for log in logs)


def test_a_run_cannot_change_the_environment_of_the_others(cluster, conda_project, seen, claim):
    cluster(cache={"claim": claim})
    command = (
        "touch $VIRTUAL_ENV/bin/x; rm $VIRTUAL_ENV/lib/python3*/site-packages/six.py; python s.py"
    )
    found = seen(run(conda_project([f"python={SHORT}"], command=command)).run_id)
    assert found.log.count(b"ermission denied") >= 2 and b'["six", "1.16.0"]' in found.log


def test_a_login_for_the_index_travels_as_a_secret_and_only_then(
    cluster, project, tmp_path, monkeypatch, seen, kubectl, cluster_access, tls
):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
    for name in ("own", "mlflow"):
        add_wheel(tmp_path / "private", name, "1.0")
    root = project(
        "env; cat /mlflow/secrets/MLFLOW_COMPUTE_NETRC* | wc -l",
        python_env_dot_yaml=f"python: {SHORT}\ndependencies: [own, mlflow]\n",
    )
    with serve(
        tmp_path / "private", login="ada:open-sesame", name=cluster_access.host, tls=tls
    ) as address:
        monkeypatch.setenv(
            "UV_DEFAULT_INDEX", f"{address.replace('://', '://ada:open-sesame@')}/simple"
        )
        found = seen(run(root).run_id)
    job = job_of(kubectl, found)
    secret = json.loads(kubectl("get", "secret", found.tags["compute.job"], "-o", "json"))
    netrc = base64.b64decode(secret["data"]["MLFLOW_COMPUTE_NETRC.file"]).decode()
    assert netrc == f"machine {cluster_access.host} login ada password open-sesame\n"
    assert (
        "open-sesame" not in json.dumps(job) + str(found.tags) and b"open-sesame" not in found.log
    )
    assert b"MLFLOW_COMPUTE_NETRC" not in found.log, "the command does not get it"
    assert b"open-sesame" not in found.artifact("environment/pylock.toml")


def test_a_login_stays_where_only_the_project_names_the_host(
    cluster, project, tmp_path, monkeypatch, kubectl, cluster_access, last_run, tls, capfd
):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
    (tmp_path / "netrc").write_text(
        f"machine {cluster_access.host} login ada password open-sesame\n"
    )
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("own", "mlflow"):
        add_wheel(tmp_path / "private", name, "1.0")
    with serve(
        tmp_path / "private", login="ada:open-sesame", name=cluster_access.host, tls=tls
    ) as address:
        text = f"python: {SHORT}\ndependencies: ['--index-url {address}/simple', own, mlflow]\n"
        root = project("true", python_env_dot_yaml=text)
        found = failed_run(root, last_run)
        place = address.removeprefix("https://")
        assert (
            f"the login for {place} is not sent, as the project names this host"
            in capfd.readouterr().err
        )
        assert (
            "open-sesame" not in kubectl("get", "secrets", "-o", "yaml")
            and found.cause == "EnvironmentError"
        )
        cluster(credential_hosts=[place])
        assert run(root).wait()


def test_an_authority_of_the_users_own_travels_along(
    cluster, project, tmp_path, monkeypatch, seen, cluster_access, tls
):
    for name in ("own", "mlflow"):
        add_wheel(tmp_path / "index", name, "1.0")
    root = project(
        "python -c 'import own; print(own.__version__)'",
        python_env_dot_yaml=f"python: {SHORT}\ndependencies: [own, mlflow]\n",
    )
    with serve(tmp_path / "index", name=cluster_access.host, tls=tls) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{address}/simple")
        with pytest.raises(ExecutionException, match="certificate"):
            run(root)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
        assert b"1.0\n" in seen(run(root).run_id).log


def test_a_pod_without_an_index_makes_what_its_cache_has_the_packages_for(
    cluster, project, tmp_path, monkeypatch, seen, claim, cluster_access
):
    cluster(cache={"claim": claim})
    for name in ("own", "other", "mlflow"):
        add_wheel(tmp_path / "index", name, "1.0")
    both = project(
        "true",
        name="both",
        python_env_dot_yaml=f"python: {SHORT}\ndependencies: [own, other, mlflow]\n",
    )
    one = project(
        "python -c 'import own'",
        name="one",
        python_env_dot_yaml=f"python: {SHORT}\ndependencies: [own, mlflow]\n",
    )
    with serve(tmp_path / "index", name=cluster_access.host) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{address}/simple")
        run(both)
        subprocess.run(
            [BIN / "mlflow-compute", "env", "lock", one, "--target", "dev-cluster"], check=True
        )
    found = seen(run(one).run_id)
    assert found.status == "FINISHED" and b"building it from 2 Python packages" in found.log


def test_a_cache_that_cannot_be_written_says_so(cluster, project, last_run):
    cluster(
        pod_template={
            "spec": {
                "volumes": [
                    {"name": "cache", "emptyDir": None, "configMap": {"name": "kube-root-ca.crt"}}
                ]
            }
        }
    )
    found = failed_run(
        project(
            "true", python_env_dot_yaml=f"python: {SHORT}\ndependencies: [six, mlflow-skinny]\n"
        ),
        last_run,
    )
    assert found.cause == "EnvironmentError" and "/mlflow/cache" in found.tags["compute.message"]


def test_a_target_for_another_platform_than_the_nodes(cluster, project, last_run):
    cluster(platform="linux-aarch64")
    found = failed_run(
        project(
            "true", python_env_dot_yaml=f"python: {SHORT}\ndependencies: [six, mlflow-skinny]\n"
        ),
        last_run,
    )
    assert (
        "is locked for linux-aarch64, but this machine is linux-64: set 'platform' in the target"
        in found.tags["compute.message"]
    )


def test_staged_packages_need_no_index_and_no_channel(
    cluster, project, channel, tmp_path, seen, cluster_access, monkeypatch
):
    add_wheel(tmp_path / "index", "mlflow", "1.0")
    asked: list[str] = []
    login = "ada:open-sesame"
    with (
        serve(
            channel.folder, name=cluster_access.host, asked=asked, login=login
        ) as channel_address,
        serve(
            tmp_path / "index", name=cluster_access.host, asked=asked, login=login
        ) as index_address,
    ):
        # without encryption: asked for
        hosts = [address.removeprefix("http://") for address in (channel_address, index_address)]
        cluster(stage_packages=True, credential_hosts=hosts)
        monkeypatch.setenv(
            "UV_DEFAULT_INDEX", f"{index_address.replace('://', f'://{login}@')}/simple"
        )
        (tmp_path / ".condarc").write_text(
            f"custom_channels: {{own: '{channel_address.replace('://', f'://{login}@')}/own'}}\n"
        )
        monkeypatch.setenv("CONDARC", str(tmp_path / ".condarc"))
        text = (
            f"channels: ['{channel_address}']\ndependencies: [python={SHORT}, beta, {{pip: "
            "[mlflow]}]\n"
        )
        submitted = run(
            project("python s.py", conda_dot_yaml=text, s_dot_py=LIST),
            {**THERE, "STREAM_OUTPUT": False},
            synchronous=False,
        )
        here = len(asked)
        assert submitted.wait() and here == len(asked), "the pod asked neither server"
    found = seen(submitted.run_id)
    assert b'["beta", "1.0"]' in found.log and b'["mlflow", "1.0"]' in found.log
    assert (
        b"downloading the packages from the run's artifacts" in found.log
        and found.metrics["compute/environment_fetch_s"] > 0
    )
