"""Lines of a stream, and how another thread ends a read."""

import socket
import threading

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.streams import Stop, blocks, lines
from tests.bed.apiserver import Answer, refusal


@given(st.lists(st.text("ab\n", max_size=6).map(str.encode)))
def test_lines_are_those_of_the_joined_blocks_however_they_are_cut(blocks):
    assert list(lines(blocks)) == b"".join(blocks).splitlines(keepends=True)


class Counted(bytes):
    """Bytes that count how many of them are copied into slices and sums."""

    copied = 0

    def __getitem__(self, part):
        Counted.copied += len(found := super().__getitem__(part))
        return found

    def __add__(self, other):
        Counted.copied += len(self) + len(other)
        return Counted(bytes(self) + bytes(other))

    def __radd__(self, other):
        Counted.copied += len(self) + len(other)
        return Counted(bytes(other) + bytes(self))


def test_a_line_of_40_mb_is_copied_twice_and_not_once_for_each_of_its_blocks():
    size, count = 65536, 640
    Counted.copied = 0
    (line,) = lines([Counted(b"x" * size)] * count)
    assert len(line) == size * count
    assert Counted.copied + len(line) <= 2 * size * count


def test_what_comes_without_chunks_is_read_as_it_comes():
    """As through a proxy that speaks HTTP/1.0: a watch that waits for 64 KiB sees no event."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, connections = listener.getsockname()[1], []

        def serve():
            connections.append(listener.accept()[0])
            connections[0].recv(4096)
            connections[0].sendall(b"HTTP/1.0 200 OK\r\n\r\nfirst\n")

        thread = threading.Thread(target=serve)
        thread.start()
        response = urllib3.PoolManager().request(
            "GET", f"http://127.0.0.1:{port}/", preload_content=False, timeout=20, retries=False
        )
        found = blocks(response)
        assert next(found) == b"first\n"
        thread.join()
        connections[0].close()
        assert list(found) == []


def test_a_read_ends_without_an_error_when_its_stop_or_the_one_above_is_set(api, cluster):
    for last in (False, True):
        stop = cluster.closing.child().child()
        ended = threading.Event()

        def watch(stop=stop, ended=ended):
            list(cluster.watch_objects("Job", "a", "1", 300, stop))
            ended.set()

        thread = cluster.start_thread(watch, "watch")
        api.until(lambda: api.watching == 1)
        (cluster.closing if last else stop).set()
        thread.join(10)
        assert ended.is_set()
        api.until(lambda: api.watching == 0)


def test_a_read_that_begins_after_its_stop_was_set_reads_nothing(api, cluster):
    stop = Stop()
    stop.set()
    api.answers["watch jobs"] = [Answer(stream=[{"type": "ADDED", "object": {}}])]
    assert list(cluster.watch_objects("Job", "a", "1", 300, stop)) == []
    assert stop.child().is_set()


def test_who_waits_for_a_repetition_is_woken_when_the_process_ends(api, kubeconfig):
    cluster = Cluster()
    api.answers["get jobs"] = [refusal(503, Retry_After="60")]
    raised = []

    def read():
        with pytest.raises(Exception, match="the process is exiting") as error:
            cluster.read_job("j")
        raised.append(error)

    thread = cluster.start_thread(read, "read")
    api.until(lambda: api.count("get jobs") == 1)
    cluster.close()
    thread.join(10)
    assert len(raised) == 1
