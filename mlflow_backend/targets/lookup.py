"""Find the target that a run names: in the user's files, else in the cluster's own list."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_backend.errors import ClusterError, ConfigError, nearest
from mlflow_backend.targets.target import Target
from mlflow_backend.targets.targets_file import VARIABLE, Targets, load_files, overlay, search_path
from mlflow_backend.targets.validation import validate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedTarget:
    """A target with its name and the source that defines it."""

    name: str
    source: str
    target: Target


def find(
    name: str,
    overrides: Mapping[str, Any],
    from_cluster: Callable[[], Targets | None],
    project: Path | None,
    say: Callable[[str], None],
) -> NamedTarget:
    """The target `name` with the run's `overrides` of its fields.

    Files in the work tree of `project`, the folder of the project that is run, are not used; `say`
    gets a line for each of them. `from_cluster` is called only for a name that no file defines.
    Raises ConfigError that lists the existing names and the places that were searched.
    """
    files = load_files(project)
    sources: Sequence[Targets] = files.sources
    target = _find_in(sources, name)
    outage = ""
    if target is None:
        try:
            cluster = from_cluster()
            sources = [*sources, cluster] if cluster else sources
            target = _find_in(sources, name)
        except ClusterError as error:
            outage = f"; the cluster's list could not be read: {error}"
    if target is None:
        names = [existing for source in sources for existing in source.targets]
        places = ", ".join(source.source for source in sources) or (
            f"{search_path()[0]} and above, {search_path()[-1]}"
        )
        raise ConfigError(
            f"COMPUTE: there is no target '{name}' in {places}{outage}",
            code="UntrustedTarget" if files.refused else "UnknownTarget",
            hint="; ".join(
                [f"{nearest(name, names)} ({VARIABLE} can name another file)", *files.refused]
            ),
        )
    log.debug("target '%s' is that of %s", name, target.source)
    for line in files.refused:
        say(line)
    if not overrides:
        return target
    values = overlay(target.target.model_dump(exclude_unset=True), overrides)
    return NamedTarget(name, target.source, validate(Target, values, _describe_override))


def _describe_override(*path: int | str) -> str:
    return f"backend_config {'.'.join(map(str, path))}"


def _find_in(sources: Iterable[Targets], name: str) -> NamedTarget | None:
    return next(
        (
            NamedTarget(name, source.source, source.targets[name])
            for source in sources
            if name in source.targets
        ),
        None,
    )
