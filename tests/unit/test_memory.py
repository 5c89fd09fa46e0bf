"""The counter of OOM kills, as cgroup v2 and v1 write it."""

import pytest

from mlflow_runner.processes import memory

V2 = "low 0\nhigh 4\nmax 9\noom 3\noom_kill 2\noom_group_kill 1\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"


@pytest.mark.parametrize(
    ("v2", "v1", "count"),
    [
        (V2, None, 2),
        (None, V1, 5),
        (V2, V1, 2),
        (None, None, 0),
        ("max 9\n", V1, 5),
        ("oom_kill many\n", V1, 5),
        ("", "", 0),
    ],
)
def test_the_first_counter_that_exists_counts(tmp_path, monkeypatch, v2, v1, count):
    paths = [tmp_path / "memory.events", tmp_path / "memory.oom_control"]
    for path, text in zip(paths, (v2, v1), strict=True):
        if text is not None:
            path.write_text(text)
    monkeypatch.setattr(memory, "EVENTS", tuple((str(path), "oom_kill") for path in paths))
    assert memory.count_oom_kills() == count
