"""What happens to the artifact store, which need not be where the tracking server is: the status of
a run does not depend on it.
"""

import pytest

from tests.bed.runs import Seen, wait_for

LONG = "seq -f 'line %.0f of many, filled up to a good length for a line of a log' 1 40000"


@pytest.mark.parametrize("status", [403, 413, 500, 507, "cut"])
def test_an_artifact_store_that_does_not_take_files(faults, proxy, status):
    """The command runs to its end, which is told at once; the log stays in the pod."""
    proxy.artifacts = status
    faults.check(
        f"artifact store answers {status}",
        faults.start("exit 3", tracking_uri=proxy.uri),
        "FAILED",
        "ExitCode",
    )


def test_an_artifact_store_that_hangs(faults, proxy):
    proxy.artifacts = "hang"
    faults.check(
        "artifact store hangs",
        faults.start("true", tracking_uri=proxy.uri),
        "FINISHED",
        None,
        timeout_s=120,
    )


@pytest.mark.parametrize("limit", [1_000_000, 100_000])
def test_a_proxy_with_a_limit_for_bodies(faults, proxy, limit):
    """nginx takes 1 MB unless told otherwise."""
    proxy.body_limit = limit
    started = faults.start(LONG, tracking_uri=proxy.uri)
    faults.check(f"proxy takes bodies of at most {limit // 1000} kB", started, "FINISHED", None)
    for watched in started:
        wait_for(lambda one=watched: b"line 40000 of many" in Seen(one.id).log, timeout_s=60)
        assert Seen(watched.id).log.count(b" of many") == 40_000


def test_an_artifact_store_that_comes_back(faults, proxy):
    started = faults.start("echo begun; sleep 8; echo whole", tracking_uri=proxy.uri)
    for watched in started:
        wait_for(lambda one=watched: Seen(one.id).status == "RUNNING", timeout_s=60)
    proxy.artifacts = 503
    wait_for(lambda: any(call.endpoint.endswith(".txt") for call in proxy.calls), timeout_s=60)
    proxy.artifacts = None
    faults.check("artifact store away for a while", started, "FINISHED", None)
    assert all(b"begun\nwhole\n" in Seen(watched.id).log for watched in started)
