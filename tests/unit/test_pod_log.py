"""Each line of a pod's log is shown once, whatever breaks off, and only the runner's own last line
is taken for it.
"""

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.places.kubernetes.log import PodLog, end_line

END = end_line("r" * 32, "m4rk")
FIRST_S = 1_767_225_600


def stamped(number: int, text: bytes, decimals: int = 9) -> bytes:
    second = datetime.fromtimestamp(FIRST_S + number // 10, timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%S"
    )
    fraction = f".{number % 10}".ljust(decimals + 1, "0") if decimals else ""
    return f"{second}{fraction}Z ".encode() + text


@given(st.lists(st.tuples(st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"") + b"\n"), st.integers(1, 9)), max_size=12),
       st.lists(st.integers(0, 12), max_size=4))  # fmt: skip
def test_lines_that_come_again_after_a_connection_broke_are_shown_once(lines, breaks):
    log, shown = PodLog(END), []
    all_lines = [
        stamped(number + 1, text, decimals) for number, (text, decimals) in enumerate(lines)
    ]
    for stop in [*breaks, len(all_lines)]:
        shown += [text for line in all_lines[:stop] if (text := log.take(line)[0])]
    assert b"".join(shown) == b"".join(text for text, _ in lines)


@pytest.mark.parametrize(
    "line",
    [
        b"failed to create fsnotify watcher: too many open files\n",
        b"\xff\xfe no time\n",
        b"2026-13-99 x\n",
        b"\n",
        b"",
    ],
)
def test_a_line_without_a_time_is_shown_as_it_is(line):
    log = PodLog(END)
    assert log.take(line) == (line, False)
    assert log.since_s(0.0) is None


def test_a_line_of_the_kubelet_that_comes_with_every_attempt_is_shown_once():
    log, line = PodLog(END), b"unable to retrieve container logs for containerd://1\n"
    assert [log.take(item)[0] for item in (line, line, stamped(1, b"a\n"), line, b"other\n", line)] == [
        line, b"", b"a\n", b"", b"other\n", line,
    ]  # fmt: skip


@pytest.mark.parametrize("text", [
    b"[mlflow-compute] run " + b"r" * 32 + b" has ended\n",
    b"[mlflow-compute] run " + b"r" * 32 + b" has ended wrong\n",
    b"run " + b"r" * 32 + b" has ended m4rk, said the script\n",
])  # fmt: skip
def test_a_line_of_the_script_that_looks_like_the_last_one_hides_nothing(text):
    log = PodLog(END)
    assert log.take(stamped(1, text)) == (text, False)
    assert log.take(stamped(2, b"IMPORTANT\n")) == (b"IMPORTANT\n", False)


def test_the_runners_last_line_is_known_and_not_shown():
    assert PodLog(END).take(stamped(1, b"[mlflow-compute] " + END + b"\n")) == (b"", True)
    assert PodLog(end_line("r" * 32, "")).take(stamped(1, b"run has ended\n")) == (
        b"run has ended\n",
        False,
    )


@given(st.integers(0, 10**6), st.floats(-400, 10**6))
def test_a_log_is_asked_for_by_the_clusters_time_and_never_from_the_future(number, passed_s):
    log = PodLog()
    log.take(stamped(number, b"x\n"))
    since_s = log.since_s(FIRST_S + number // 10 + passed_s)
    assert since_s >= 1 and since_s >= passed_s
