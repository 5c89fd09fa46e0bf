"""What a project may do on this machine: run the builds of its packages, and pass on logins."""

from dataclasses import dataclass

from mlflow_backend.environment.urls import PORTS, Origin, host_of
from mlflow_backend.targets.target import Target


@dataclass(frozen=True)
class Permissions:
    """`builds`: whether the build backends of packages may run on this machine, which reveals the
    packages' requirements.

    Logins are sent to the hosts in the user's own settings, and to `credential_hosts` (HOST means
    HTTPS on its standard port; HOST:PORT any other port, and HTTP). None means every host.
    """

    builds: bool
    credential_hosts: tuple[str, ...] | None

    def lists(self, origin: Origin) -> bool:
        """Whether `credential_hosts` names the origin: one of HTTP with its port, such as
        `index.example:80`.
        """
        if self.credential_hosts is None:
            return True
        return any(_names(entry, origin) for entry in self.credential_hosts)


def _names(entry: str, origin: Origin) -> bool:
    host, port = host_of(entry)
    if port is None:
        return origin == ("https", host, PORTS["https"])
    return (origin.host, origin.port) == (host, port)


HERE = Permissions(builds=True, credential_hosts=None)
"""For a run on this machine, whose code runs as this user anyway."""


def of_target(target: Target) -> Permissions:
    """For a run in a cluster, whose code does not run on this machine."""
    return Permissions(target.allow_builds, target.credential_hosts)
