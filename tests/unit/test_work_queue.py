"""The controller's queue: every key is looked at once for any number of reasons, and by one worker
at a time.
"""

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.controller.work import MAX_BACKOFF_S, WorkQueue


def take(queue, timeout_s=5.0):
    """The next key, or None when none comes in time."""
    found = []
    worker = threading.Thread(target=lambda: found.append(queue.take()), daemon=True)
    worker.start()
    worker.join(timeout_s)
    return found[0] if found else None


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_a_key_that_is_added_often_is_taken_once(keys):
    queue = WorkQueue()
    for key in keys:
        queue.add(key)
    assert {queue.take() for _ in set(keys)} == set(keys)
    assert len(queue) == len(set(keys)), "taken and not given back"


def test_a_key_comes_when_it_is_due_and_an_earlier_time_goes_before_a_later_one():
    queue = WorkQueue()
    queue.add("late", 30)
    queue.add("soon", 0.2)
    queue.add("late", 0.1)
    began = time.monotonic()
    assert (queue.take(), queue.take()) == ("late", "soon")
    assert 0.2 <= time.monotonic() - began < 10


def test_a_key_is_with_one_worker_at_a_time_and_comes_again_when_it_became_due_meanwhile():
    queue = WorkQueue()
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    assert take(queue, 0.3) is None  # that worker waits on
    queue.add("b")
    time.sleep(0.1)
    queue.done("b")
    queue.done("a")
    assert take(queue) == "a"


def test_failures_wait_longer_each_time_until_one_success():
    queue = WorkQueue()
    waits = [queue.add_failed("a") for _ in range(12)]
    assert waits[:3] == [0.5, 1.0, 2.0] and max(waits) == MAX_BACKOFF_S
    queue.done("a")
    assert queue.add_failed("a") == 0.5


def test_failures_are_counted_until_one_success():
    queue = WorkQueue()
    assert queue.failures("a") == 0
    queue.add_failed("a")
    queue.add_failed("a")
    queue.done("a", failed=True)
    assert queue.failures("a") == 2
    queue.done("a")
    assert queue.failures("a") == 0
