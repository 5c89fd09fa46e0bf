"""Whether the kernel's OOM killer has killed a process of this container."""

EVENTS = (
    ("/sys/fs/cgroup/memory.events", "oom_kill"),
    ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
)
"""cgroup v2 and v1, at the paths that a container sees (kernel: admin-guide/cgroup-v2.rst,
memory.events).
"""


def count_oom_kills() -> int:
    """The number of OOM kills so far; 0 where no counter exists.

    An exit code of 137 alone does not prove one.
    """
    for path, name in EVENTS:
        try:
            with open(path) as file:
                for line in file:
                    key, _, value = line.partition(" ")
                    if key == name:
                        return int(value)
        except (OSError, ValueError):
            continue
    return 0
