"""The log channel: whatever a store refuses, and wherever the reporter is killed, no byte arrives
twice and none is lost unnoticed.
"""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_runner.contract.answers import Denied, Refused, TooLarge, Unavailable
from mlflow_runner.log.spool import SpoolWriter
from mlflow_runner.report.channel import MAX_REFUSALS
from mlflow_runner.report.files import Files
from mlflow_runner.report.log import MIN_PART_BYTES, PART_BYTES, Log


class Store:
    """Artifacts by name.

    Accepts bodies of at most `limit` bytes; each upload first raises the next of `faults`, if any.
    """

    def __init__(self, limit=PART_BYTES, faults=()):
        self.limit, self.faults = limit, list(faults)
        self.artifacts = {}
        self.largest = 0

    def upload(self, name, data):
        self.largest = max(self.largest, len(data))
        fault = self.faults.pop(0) if self.faults else None
        if fault:
            raise fault
        if len(data) > self.limit:
            raise TooLarge("PUT: 413")
        self.artifacts[name] = data

    def upload_file(self, name, path):
        with open(path, "rb") as file:
            self.upload(name, file.read())

    @property
    def log(self):
        return b"".join(self.artifacts[name] for name in sorted(self.artifacts))


def silent(text):
    """Ignore what the channel says."""


LINES = st.lists(
    st.binary(max_size=300).map(lambda data: data.replace(b"\n", b"") + b"\n"), max_size=40
)


@given(
    blocks=st.lists(LINES, max_size=4),
    limit=st.integers(MIN_PART_BYTES, 5000),
    restarts=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_a_log_arrives_once_and_in_order_wherever_the_reporter_is_restarted(
    tmp_path_factory, blocks, limit, restarts
):
    directory = tmp_path_factory.mktemp("log")
    writer, store, log = SpoolWriter(directory, 10_000_000), Store(limit), Log(directory, silent)
    for lines, restart in zip(blocks, restarts, strict=False):
        writer.append(b"".join(lines))
        assert log.attempt(store, closing=False)
        if restart:
            log = Log(directory, silent)
    assert log.attempt(store, closing=True)
    assert store.log == b"".join(line for lines in blocks for line in lines)
    assert log.missing() is None
    assert len({re.sub(r"\.\d{6}\.txt$", "", name) for name in store.artifacts}) <= 1


@given(
    faults=st.lists(
        st.sampled_from([None, Unavailable("away"), TooLarge("413"), Refused("405")]), max_size=12
    ),
    size=st.integers(0, 20_000),
)
def test_every_byte_is_in_the_log_or_in_the_count_of_those_that_are_missing(
    tmp_path_factory, faults, size
):
    directory = tmp_path_factory.mktemp("log")
    SpoolWriter(directory, 10_000_000).append(b"x" * size)
    store, log = Store(3000, faults), Log(directory, silent)
    for _ in range(len(faults) + 1):
        if log.attempt(store, closing=True) or log.given_up:
            break
    counted = int(log.missing().split()[0]) if log.missing() else 0
    assert len(store.log) + counted == size


def test_no_part_is_larger_than_half_a_megabyte_and_lines_stay_whole(tmp_path):
    text = b"".join(b"%d\n" % number for number in range(400_000))
    SpoolWriter(tmp_path, 10_000_000).append(text)
    store = Store()
    assert Log(tmp_path, silent).attempt(store, closing=True)
    assert store.log == text and store.largest <= PART_BYTES
    assert all(part.endswith(b"\n") for part in store.artifacts.values())


def test_parts_stay_small_for_a_server_that_took_no_large_one(tmp_path):
    writer, store = SpoolWriter(tmp_path, 10_000_000), Store(100_000)
    writer.append(b"x" * PART_BYTES)
    log = Log(tmp_path, silent)
    assert log.attempt(store, closing=False)
    store.largest = 0
    writer.append(b"y" * PART_BYTES)
    assert log.attempt(store, closing=True) and store.largest <= 100_000
    assert len(store.log) == 2 * PART_BYTES


def test_names_of_parts_sort_in_their_order(tmp_path):
    (tmp_path / "log.json").write_text(
        json.dumps({"stamp": "S", "number": 9999, "offset": 0, "part_bytes": MIN_PART_BYTES})
    )
    SpoolWriter(tmp_path, 10_000_000).append(b"a" * MIN_PART_BYTES + b"b")
    store = Store()
    assert Log(tmp_path, silent).attempt(store, closing=True)
    assert sorted(store.artifacts) == ["logs/S.009999.txt", "logs/S.010000.txt"]
    assert store.log.endswith(b"ab")


def test_a_channel_that_is_denied_gives_up_after_a_few_tries_and_says_it_once(tmp_path):
    said = []
    SpoolWriter(tmp_path, 10_000).append(b"12345")
    store, log = Store(faults=[Denied("PUT: 403")] * 10), Log(tmp_path, said.append)
    for _ in range(10):
        log.attempt(store, closing=False)
    assert len(store.faults) == 10 - MAX_REFUSALS
    assert said == ["could not upload the log, giving up: PUT: 403"]
    assert log.missing() == "5 bytes of the log are missing: PUT: 403"
    assert Log(tmp_path, silent).given_up, "a reporter that is started again does not begin again"


def test_one_refused_part_is_left_out_and_the_next_arrives(tmp_path):
    said = []
    writer, store, log = (
        SpoolWriter(tmp_path, 10_000),
        Store(faults=[Refused("PUT: 405")]),
        Log(tmp_path, said.append),
    )
    writer.append(b"lost\n")
    assert log.attempt(store, closing=False)
    writer.append(b"kept\n")
    assert log.attempt(store, closing=True)
    assert store.log == b"kept\n" and log.missing() == "5 bytes of the log are missing: PUT: 405"
    assert said == ["could not upload 5 bytes of the log: PUT: 405"]


def test_last_words_stand_behind_everything_else(tmp_path):
    SpoolWriter(tmp_path, 10_000).append(b"output\n")
    store, log = Store(), Log(tmp_path, silent)
    assert log.attempt(store, closing=True)
    log.append("FAILED, exit code 0")
    assert log.attempt(store, closing=True)
    assert store.log == b"output\n[mlflow-compute] FAILED, exit code 0\n" and log.missing() is None


@pytest.mark.parametrize("fault", [TooLarge("PUT: 413"), Refused("PUT: 405")])
def test_a_refused_file_is_dropped_and_named_and_the_next_one_is_sent(tmp_path, fault):
    said = []
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    store, files = (
        Store(faults=[fault]),
        Files(tmp_path, said.append, [("code/a", f"{tmp_path}/a"), ("code/b", f"{tmp_path}/b")]),
    )
    assert files.attempt(store, closing=False)
    assert store.artifacts == {"code/b": b"b"}
    assert files.missing() == f"code/a missing: {fault}"
    assert said == [f"could not upload code/a: {fault}"]


def test_files_are_sent_once_however_often_the_reporter_is_started(tmp_path):
    (tmp_path / "a").write_text("a")
    for _ in range(2):
        store = Store()
        assert Files(tmp_path, silent, [("code/a", f"{tmp_path}/a")]).attempt(store, closing=True)
    assert store.artifacts == {}


def test_a_file_that_cannot_be_read_any_more_is_named(tmp_path):
    files = Files(tmp_path, silent, [("code/a", f"{tmp_path}/none")])
    assert files.attempt(Store(), closing=True)
    assert files.missing() == "code/a missing: could not read none: No such file or directory"
