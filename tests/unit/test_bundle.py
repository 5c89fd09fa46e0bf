"""A pod starts what was submitted and nothing else, and a credential is in the Secret alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.places import runner_zip
from mlflow_backend.places.kubernetes.objects import bundle
from mlflow_runner.contract.pins import digest
from mlflow_runner.contract.submission import Submission

SUBMISSION = Submission("r" * 32, "7", "http://mlflow:5000", "true", "/p", "/s", "/c")
FILES = st.dictionaries(st.text(min_size=1, max_size=8), st.binary(max_size=8), max_size=5)


def make(credentials=None, is_secret=False, submission=SUBMISSION):
    return bundle.make(
        runner_zip.build(), submission, b"code", credentials or {}, is_secret, b"nonce", "/pod-work"
    )


@given(first=FILES, second=FILES)
def test_two_folders_have_one_hash_only_if_they_are_the_same(first, second):
    assert (digest(first) == digest(second)) == (first == second)
    assert digest(dict(reversed(first.items()))) == digest(first)


def test_a_submission_with_a_credential_is_in_the_secret_and_one_without_is_not():
    open_, closed = make(), make(is_secret=True)
    assert set(open_.public) == {"runner.pyz", "snapshot.tar.gz", "run.json"} and not open_.secret
    assert set(closed.public) == {"runner.pyz", "snapshot.tar.gz"} and set(closed.secret) == {
        "run.json",
        "compute.nonce",
    }
    assert (
        "/mlflow/bundle/run.json" in open_.command and "/mlflow/secrets/run.json" in closed.command
    )


def test_a_secret_with_a_guessable_value_has_no_guessable_hash():
    first = bundle.make(b"r", SUBMISSION, None, {"A": b"1234"}, False, b"a" * 32, "/work")
    second = bundle.make(b"r", SUBMISSION, None, {"A": b"1234"}, False, b"b" * 32, "/work")
    assert first.command[-1] != second.command[-1]


@pytest.fixture
def start(tmp_path):
    """Start a pod's command with its folders below `tmp_path`; files of the ConfigMap and Secret as
    they lie there at that moment.
    """

    def run(made, change=lambda folder: None):
        places = {
            "/mlflow/bundle": tmp_path / "bundle",
            "/mlflow/secrets": tmp_path / "secrets",
            "/pod-work": tmp_path / "work",
        }
        for place in places.values():
            place.mkdir()
        for files, place in ((made.public, "/mlflow/bundle"), (made.secret, "/mlflow/secrets")):
            for name, content in files.items():
                (places[place] / name).write_bytes(content)
        change(tmp_path)
        words = made.command[1:]
        for place, folder in places.items():
            words = [word.replace(place, str(folder)) for word in words]
        words = [
            word.replace("/dev/termination-log", str(tmp_path / "termination-log"))
            for word in words
        ]
        return subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, cwd=tmp_path, timeout=60
        )

    return run


def replace(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def test_a_runner_that_was_replaced_does_not_run_and_the_termination_message_says_so(
    start, tmp_path
):
    evil = b"import sys; open('evil', 'w'); sys.exit(0)"
    ended = start(make(), replace("bundle/runner.pyz", evil))
    assert ended.returncode == 1 and not (tmp_path / "evil").exists()
    told = json.loads((tmp_path / "termination-log").read_text())
    assert (told["status"], told["cause"], told["exit_code"]) == ("FAILED", "RunnerError", 1)
    assert ended.stderr == f"[mlflow-compute] {told['message']}\n"


def test_a_submission_that_was_replaced_is_not_run(start, tmp_path):
    other = SUBMISSION._replace(command="touch evil").to_json().encode()
    ended = start(make(), replace("bundle/run.json", other))
    assert ended.returncode == 1 and not (tmp_path / "evil").exists()
    assert ended.stderr == (
        "[mlflow-compute] The run's description is not the one that was submitted. Submit again.\n"
    )


@pytest.mark.parametrize(
    ("name", "content"), [("LD_PRELOAD", b"/evil.so"), ("MLFLOW_TRACKING_TOKEN", b"theirs")]
)
def test_a_secret_with_other_or_further_values_is_not_read(start, name, content, tmp_path):
    made = make(
        {"MLFLOW_TRACKING_TOKEN": b"mine"},
        submission=SUBMISSION._replace(secrets_dirs=(str(tmp_path / "secrets"),)),
    )
    ended = start(made, replace(f"secrets/{name}", content))
    assert ended.returncode == 1
    assert ended.stderr == (
        "[mlflow-compute] The run's Secret is not the one that was submitted. Submit again.\n"
    )


def test_a_module_of_the_image_s_variables_does_not_stand_before_the_runner(
    start, tmp_path, monkeypatch
):
    folder = Path(tmp_path, "modules")
    folder.mkdir()
    (folder / "hashlib.py").write_text("raise SystemExit('taken from PYTHONPATH')")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    ended = start(make(), replace("bundle/run.json", b"{}"))
    assert "taken from PYTHONPATH" not in ended.stderr and ended.returncode == 1
