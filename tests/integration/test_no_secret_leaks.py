"""No value of a secret is in anything that others can read: objects in Kubernetes, MLflow, logs,
errors, files.

A whole submit, against the real MLflow server and an API server that remembers what it gets; then
the pod's command is run on this machine from those objects alone.
"""

import base64
import json
import os
import stat
import subprocess
import urllib.parse
from pathlib import Path

import mlflow
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import ExecutionException

from mlflow_backend.places.kubernetes.objects import bundle, manifest
from tests.bed.kube_api import KubeApi
from tests.bed.runs import run_there
from tests.bed.server import BIN
from tests.packages.index import add_wheel, serve

ODD = st.text("abZ09'\"@/:?#[] %+=&;,.~!$\u00e9", max_size=6)
SECRETS = st.builds(
    lambda first, odd, last: (f"q{first:08x}", odd, f"z{last:08x}"),
    *[st.integers(0, 2**32 - 1), ODD, st.integers(0, 2**32 - 1)],
)
"""A word that is nowhere else, odd characters, and another such word: each of the words is looked
for.
"""
PLACES = (
    "tracking URI", "tracking password", "tracking token", "registry URI", "endpoint URL", "parameter login", "parameter token",
    "project default", "docker_env", "index of the user", "index of the project", "uv index", "credentials file",
)  # fmt: skip
EVERY = {place: (f"q{number:08x}", "'@/", f"z{number:08x}") for number, place in enumerate(PLACES)}
POD_PATHS = {
    (bundle, "BUNDLE_DIR"): "bundle", (manifest, "BUNDLE_DIR"): "bundle", (bundle, "SECRETS_DIR"): "secrets",
    (manifest, "SECRETS_DIR"): "secrets", (manifest, "WORK_DIR"): "work", (manifest, "CACHE_DIR"): "cache",
    (manifest, "PROJECT_DIR"): "work/unpacked/project", (manifest, "INPUTS_DIR"): "work/unpacked/inputs",
    (manifest, "LOCK_DIR"): "work/unpacked/environment", (manifest, "TERMINATION_LOG"): "termination-log",
}  # fmt: skip


class Scene:
    """One submit: the secrets by their place, what is set for it, and every text that it leaves."""

    def __init__(self, root: Path, secrets: dict, index: str, server, monkeypatch):
        self.root, self.secrets, self.server = root, secrets, server
        self.api = KubeApi()
        for name in ("home", "tmp", "project", "pod", "cwd"):
            (root / name).mkdir(parents=True)
        self._set_variables(index, monkeypatch)
        self._write_project(index)
        (root / "cwd/mlflow-compute.yaml").write_text(json.dumps({"targets": {"dev-cluster": {
            "context": "recorded", "image": "local/image:1", "allow_env": ["ASKED_TOKEN"], "pod_template": {"spec": {"hostNetwork": True}},
            "tracking_uri": self._tracking_uri,
        }}}))  # fmt: skip
        for (module, name), folder in POD_PATHS.items():
            monkeypatch.setattr(module, name, str(root / "pod" / folder))
        monkeypatch.chdir(root / "cwd")

    def value(self, place: str) -> str | None:
        return "".join(self.secrets[place]) if place in self.secrets else None

    def quoted(self, place: str) -> str:
        return urllib.parse.quote(self.value(place), safe="")

    def with_login(self, address: str, place: str) -> str:
        """The address with the secret of the place as its password, if there is one."""
        scheme, _, rest = address.partition("://")
        return f"{scheme}://ada:{self.quoted(place)}@{rest}" if place in self.secrets else address

    def _set_variables(self, index, monkeypatch) -> None:
        self._tracking_uri = address = self.with_login(self.server.uri, "tracking URI")
        variables = {
            "HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp"), "KUBECONFIG": str(self.root / "kubeconfig"),
            "XDG_CONFIG_HOME": str(self.root / "home/.config"), "XDG_CACHE_HOME": str(self.root / "home/.cache"),
            "MLFLOW_TRACKING_URI": address, "MLFLOW_TRACKING_PASSWORD": self.value("tracking password"),
            "MLFLOW_TRACKING_USERNAME": "ada" if "tracking password" in self.secrets else None,
            "MLFLOW_TRACKING_TOKEN": self.value("tracking token"), "ASKED_TOKEN": self.value("docker_env"),
            "UV_DEFAULT_INDEX": self.with_login(f"{index}/simple", "index of the user"),
        }  # fmt: skip
        for place, name in (
            ("registry URI", "MLFLOW_REGISTRY_URI"),
            ("endpoint URL", "MLFLOW_S3_ENDPOINT_URL"),
        ):
            variables[name] = (
                f"https://ada:{self.quoted(place)}@store.example.com"
                if place in self.secrets
                else None
            )
        if "uv index" in self.secrets:
            variables |= {
                "UV_INDEX": f"mine={index}/simple",
                "UV_INDEX_MINE_USERNAME": "ada",
                "UV_INDEX_MINE_PASSWORD": self.value("uv index"),
            }
        for name, value in variables.items():
            monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(
                name, raising=False
            )
        monkeypatch.setattr("tempfile.tempdir", None)
        mlflow.set_tracking_uri(address)
        self.api.write_kubeconfig(self.root / "kubeconfig")
        if "credentials file" in self.secrets:
            folder = self.root / "home/.mlflow"
            folder.mkdir(mode=0o700)
            text = (
                "[mlflow]\nmlflow_tracking_username = ada\nmlflow_tracking_password = "
                f"{self.value('credentials file').replace('%', '%%')}\n"
            )
            (folder / "credentials").write_text(text)

    def _write_project(self, index) -> None:
        project = self.root / "project"
        self.parameters = {}
        if "parameter login" in self.secrets:
            self.parameters["login"] = f"https://ada:{self.quoted('parameter login')}@example.com/x"
        if "parameter token" in self.secrets:
            self.parameters["token"] = (
                f"https://example.com/x?X-Amz-Signature={self.quoted('parameter token')}&version=3"
            )
        default = (
            f"https://ada:{self.quoted('project default')}@example.com"
            if "project default" in self.secrets
            else "none"
        )
        declared = {"login": "none", "token": "none", "default": default}
        head = {"name": "leak", "entry_points": {"main": {
            "parameters": {name: {"type": "string", "default": value} for name, value in declared.items()},
            "command": "python s.py {login} {token} {default}",
        }}}  # fmt: skip
        if "docker_env" in self.secrets:
            head["docker_env"] = {"image": "local/image:1", "environment": ["ASKED_TOKEN"]}
        else:
            line = "tiny==1.0"
            further = "index of the project"
            options = (
                [f"--extra-index-url {self.with_login(index, further)}/simple"]
                if further in self.secrets
                else []
            )
            (project / "python_env.yaml").write_text(
                json.dumps({"dependencies": [*options, line, "mlflow-skinny"]})
            )
        (project / "MLproject").write_text(json.dumps(head))
        (project / "s.py").write_text("print('ran')\n")

    def submit(self) -> str:
        """Submit; every text of an error that came."""
        try:
            self.run = run_there(
                self.root / "project", parameters=self.parameters, synchronous=False
            )
            return ""
        except ExecutionException as error:
            self.run = None
            texts, seen = [], error
            while seen:
                texts.append(str(seen))
                seen = seen.__cause__ or seen.__context__
            return "\n".join(texts)

    def start_pod(self) -> str:
        """Run the Job's command from what is in Kubernetes; what it prints, and its termination
        message.
        """
        pod = self.root / "pod"
        (job,) = [item for item in self.created if item["kind"] == "Job"]
        for item in self.created:
            for field, folder in (("binaryData", "bundle"), ("data", "secrets")):
                for name, content in item.get(field, {}).items():
                    (pod / folder).mkdir(mode=0o700, exist_ok=True)
                    (pod / folder / name).write_bytes(base64.b64decode(content))
        (pod / "work").mkdir(mode=0o700)  # a pod's own disk; its cache may be shared
        container = job["spec"]["template"]["spec"]["containers"][0]
        env = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            **{
                item["name"]: item["value"].replace("$$", "$")
                for item in container["env"]
                if "value" in item
            },
        }
        ended = subprocess.run(
            container["command"],
            env=env,
            cwd=pod,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        message = pod / "termination-log"
        return ended.stdout.decode(errors="replace") + (
            message.read_text() if message.exists() else ""
        )

    @property
    def created(self) -> list[dict]:
        """The objects that were created, not those that were only judged."""
        return [
            json.loads(text.partition("\n")[2])
            for text in self.api.requests
            if "dryRun" not in text.partition("\n")[0]
        ]

    def objects(self) -> str:
        """All that Kubernetes was told, but for the data of Secrets; what is base64 is read."""
        texts = []
        for text in self.api.requests:
            item = json.loads(text.partition("\n")[2])
            if item["kind"] == "Secret":
                item.pop("data", None)
            texts.append(json.dumps(item, ensure_ascii=False))
            texts += [
                base64.b64decode(value).decode(errors="replace")
                for value in item.get("binaryData", {}).values()
            ]
        return "\n".join(texts)

    def readable_files(self) -> str:
        """The content of all files that another user could read: not below a folder with the mode
        0700. The project is the user's own.
        """
        texts = []
        for folder, names, files in os.walk(self.root):
            names[:] = [
                name
                for name in names
                if stat.S_IMODE(os.lstat(Path(folder, name)).st_mode) & 0o077 and name != "project"
            ]
            own = (
                {"kubeconfig"}
                if Path(folder) == self.root
                else {"mlflow-compute.yaml"}
                if Path(folder) == self.root / "cwd"
                else set()
            )
            texts += [
                Path(folder, name).read_bytes().decode(errors="replace")
                for name in files
                if name not in own
            ]
        return "\n".join(texts)

    def kept_by_mlflow(self) -> str:
        """Its database and its artifacts."""
        files = [
            path
            for path in self.server.directory.rglob("*")
            if path.is_file() and path.name != "log"
        ]
        return "\n".join(path.read_bytes().decode(errors="replace") for path in files)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    add_wheel(folder, "tiny", "1.0")
    add_wheel(folder, "mlflow_skinny", "3.99")
    page = folder / "simple/mlflow_skinny"
    page.rename(folder / "simple/mlflow-skinny")
    with serve(folder) as address:
        yield address


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(secrets={place: secret for place, secret in EVERY.items() if place != "docker_env"})
@example(secrets=EVERY)
@given(secrets=st.dictionaries(st.sampled_from(PLACES), SECRETS, min_size=3))
def test_no_secret_is_in_anything_that_others_can_read(
    own_server, index, tmp_path_factory, capfd, secrets
):
    with pytest.MonkeyPatch.context() as monkeypatch:
        scene = Scene(tmp_path_factory.mktemp("scene"), secrets, index, own_server, monkeypatch)
        try:
            error = scene.submit()
            printed = scene.start_pod() if scene.run else ""
        finally:
            scene.api.close()
        out, err = capfd.readouterr()
        texts = {
            "objects in Kubernetes": scene.objects(), "error": error, "printed by the pod": printed, "printed here": out + err,
            "files": scene.readable_files(), "MLflow": scene.kept_by_mlflow(),
        }  # fmt: skip
        for place, (first, _, last) in secrets.items():
            for where, text in texts.items():
                at = max(text.find(first), text.find(last))
                assert at < 0, (
                    f"{place}: the secret is in {where}: {text[max(0, at - 200) : at + 100]}"
                )
        assert scene.run is None or "ran" in printed, printed
