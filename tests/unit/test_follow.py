"""Following a run's output shows each line once and changes nothing."""

import pytest

from mlflow_backend.errors import ClusterError, ClusterUnavailable
from mlflow_backend.places.kubernetes.follow import follow
from mlflow_backend.supervision.record import RunRecord
from tests.bed.objects import MemoryNamespace, failed, job, pod

RUN = RunRecord(
    "r",
    "RUNNING",
    {"compute.job": "j", "compute.job_uid": "uid-of-j", "compute.cluster": "uid-of-n"},
    0.0,
)
T = "2026-01-01T00:00:0{}.{}Z {}\n"


class Scripted(MemoryNamespace):
    """Gives one log after the other; before each but the first something happens.

    `asked` holds pod and `since` of each.
    """

    def __init__(self, *steps):
        super().__init__()
        self.steps, self.asked = list(steps), []
        self.closing.set()  # its waits return at once

    def now_s(self):
        return 1767225600.0 + 60  # 2026-01-01T00:01:00Z

    def follow_log(self, pod, since_s):
        self.asked.append((pod, since_s))
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        lines, then = step
        yield from (line.encode() for line in lines)
        then(self)


def ends(namespace):
    mine = namespace.jobs["j"]
    namespace.add(failed(mine))
    namespace.pods[:] = [pod(mine, "Failed")]


def stays(namespace):
    pass


def followed(namespace):
    mine = job("j", "r")
    mine["metadata"]["annotations"] = {"mlflow-compute/mark": "m4rk"}
    namespace.add(mine, pod(mine))
    written = []
    follow(namespace, RUN, written.append)
    assert namespace.deleted == [] and not namespace.steps
    return b"".join(written).decode()


def test_a_log_that_breaks_is_taken_up_behind_the_last_line_shown():
    first = [T.format(0, 1, "a"), T.format(1, 1, "b")]
    again = [T.format(1, 1, "b"), T.format(1, 2, "c")]
    namespace = Scripted((first, stays), (again, ends), ([T.format(1, 2, "c")], stays))
    assert followed(namespace) == "a\nb\nc\n"
    assert namespace.asked == [("j-x", None), ("j-x", 61), ("j-x", 61)]


def test_lines_without_a_time_and_the_runners_own_last_line():
    lines = [
        "failed to watch: too many open files\n",
        T.format(0, 1, "a"),
        T.format(0, 2, "[mlflow-compute] run r has ended m4rk"),
    ]
    fake = T.format(0, 3, "run r has ended")
    assert followed(Scripted(([*lines, fake], ends), ([], stays))) == (
        "failed to watch: too many open files\na\nrun r has ended\n"
    )


def test_an_outage_is_waited_for_and_a_refusal_is_not():
    outage = Scripted(
        ([T.format(0, 1, "a")], stays),
        ClusterUnavailable("away"),
        ([T.format(0, 2, "b")], ends),
        ([], stays),
    )
    assert followed(outage) == "a\nb\n"
    with pytest.raises(ClusterError, match="forbidden"):
        followed(Scripted(ClusterError("forbidden")))


def test_a_job_that_is_gone_has_nothing_to_follow():
    written = []
    follow(MemoryNamespace(), RUN, written.append)
    assert written == []
