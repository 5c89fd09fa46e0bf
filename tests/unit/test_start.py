"""What a runner reads at its start: its Submission and the files of Secrets."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_runner.contract.errors import RunnerError
from mlflow_runner.contract.submission import Submission
from mlflow_runner.run.start import main, read_folder, read_submission, set_variables
from mlflow_runner.run.termination import MOST_BYTES

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda item: st.lists(item, max_size=3) | st.dictionaries(
    st.sampled_from([*Submission._fields, "x"]), item, max_size=5), max_leaves=10)  # fmt: skip


@given(JSON)
def test_json_that_is_not_a_submission_gives_one_error(value):
    with pytest.raises(ValueError, match=r"."):
        Submission.from_json(json.dumps(value))


@pytest.mark.parametrize("text", ["7", "[]", "", "{", "{}", "[" * 100_000, '{"run_id": 1}'])
def test_an_invalid_description_gives_one_sentence(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunnerError, match=r"^The run's description is not valid: "):
        read_submission(str(tmp_path / "run.json"))


def test_files_of_a_secret_become_variables_whatever_bytes_they_hold(tmp_path, monkeypatch, capsys):
    files = {
        "A": "\u00e9".encode(),
        "B": b"\xff\xfe",
        "KEY.file": b"\0\1",
        "P12": b"a\0b",
        "run.json": b"{}",
        "compute.nonce": b"n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "..data").mkdir()
    assert read_folder(str(tmp_path)) == files
    for name in ("A", "B", "KEY", "P12"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    set_variables(str(tmp_path), read_folder(str(tmp_path)))
    added = {name: value for name, value in os.environ.items() if name not in before}
    for name in added:
        monkeypatch.delenv(name)
    assert added == {
        "A": "\u00e9",
        "B": os.fsdecode(b"\xff\xfe"),
        "KEY": str(tmp_path / "KEY.file"),
    }
    assert "P12: contains a NUL byte" in capsys.readouterr().err


def test_a_folder_that_is_not_mounted_holds_nothing(tmp_path):
    assert read_folder(str(tmp_path / "none")) == {}


@pytest.mark.parametrize("length", [300, 5000])
def test_a_start_that_fails_leaves_one_line_and_a_termination_message_that_the_kubelet_keeps(
    tmp_path, monkeypatch, capsys, length
):
    log, missing = tmp_path / "termination-log", "n" * length
    monkeypatch.setattr("mlflow_runner.run.start.TERMINATION_LOG", str(log))
    assert main([missing], 0.0) == 1
    reason = f"The run's description cannot be read: [Errno 36] File name too long: '{missing}'."
    assert capsys.readouterr().err == f"[mlflow-compute] {reason}\n"
    end = json.loads(log.read_text())
    assert log.stat().st_size <= MOST_BYTES and reason.startswith(end.pop("message"))
    assert end == {
        "status": "FAILED",
        "exit_code": 1,
        "cause": "RunnerError",
        "reported": False,
    }
