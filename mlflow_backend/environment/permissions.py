"""What locking and running a project may do with this machine: run the builds of its packages, and
hand on logins.
"""

from dataclasses import dataclass

from mlflow_backend.environment.urls import PORTS, Origin, host_of
from mlflow_backend.targets.target import Target


@dataclass(frozen=True)
class Permissions:
    """`builds`: whether the build backends of packages may run on this machine to learn what the
    packages need.

    Logins go to hosts that the user's own settings name, and to `credential_hosts` (HOST for HTTPS
    on its standard port, HOST:PORT for another one, and for HTTP); with None to every host that a
    login is for.
    """

    builds: bool
    credential_hosts: tuple[str, ...] | None

    def lists(self, asked: Origin) -> bool:
        """Whether `credential_hosts` names the origin.

        HTTP counts only with its port, such as `index.example:80`.
        """
        if self.credential_hosts is None:
            return True
        return any(_names(entry, asked) for entry in self.credential_hosts)


def _names(entry: str, asked: Origin) -> bool:
    host, port = host_of(entry)
    return (
        asked == Origin("https", host, PORTS["https"])
        if port is None
        else (asked.host, asked.port) == (host, port)
    )


HERE = Permissions(builds=True, credential_hosts=None)
"""For a run on this machine: its code runs as this user in any case."""


def of_target(target: Target) -> Permissions:
    """For a run in a cluster, where the project's code is not meant to run on this machine."""
    return Permissions(target.allow_builds, target.credential_hosts)
