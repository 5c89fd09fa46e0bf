"""Whether the kernel has killed a process of this container because its memory was used up."""

EVENTS = (
    ("/sys/fs/cgroup/memory.events", "oom_kill"),
    ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
)
"""cgroup v2 and v1, as a container sees its own (kernel: admin-guide/cgroup-v2.rst,
memory.events).
"""


def oom_kills() -> int:
    """How often it has so far; 0 where no counter exists.

    An exit code of 137 alone proves nothing.
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
