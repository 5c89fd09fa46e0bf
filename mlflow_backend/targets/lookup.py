"""Find the target that a run names: in the user's files, else in the cluster's own list."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_backend.errors import ClusterError, ConfigError, nearest
from mlflow_backend.targets.target import Target
from mlflow_backend.targets.targets_file import VARIABLE, Targets, load_files, overlay, search_path
from mlflow_backend.targets.validation import validate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A target with the name and the place it was found under."""

    name: str
    source: str
    target: Target


def find(
    name: str,
    overrides: Mapping[str, Any],
    from_cluster: Callable[[], Targets | None],
    project: Path | None,
    say: Callable[[str], None],
) -> Found:
    """The target `name` with the run's `overrides` of its fields.

    No file of the work tree of `project`, the folder of the project that is run, is used; `say`
    gets a line for each file that is left out. `from_cluster` is called only for a name that no
    file defines. Raises ConfigError that lists the names there are and where they were looked for.
    """
    files = load_files(project)
    sources: Sequence[Targets] = files.sources
    found = _in(sources, name)
    trouble = ""
    if found is None:
        try:
            cluster = from_cluster()
            sources = [*sources, cluster] if cluster else sources
            found = _in(sources, name)
        except ClusterError as error:
            trouble = f"; the cluster's list could not be read: {error}"
    if found is None:
        known = [known for source in sources for known in source.targets]
        places = ", ".join(source.source for source in sources) or (
            f"{search_path()[0]} and above, {search_path()[-1]}"
        )
        refused = "".join(f"; {line}" for line in files.refused)
        raise ConfigError(
            f"COMPUTE: there is no target '{name}' in {places} (or name a file in {VARIABLE}); "
            f"{nearest(name, known)}{refused}{trouble}"
        )
    log.debug("target '%s' is that of %s", name, found.source)
    for line in files.refused:
        say(line)
    if not overrides:
        return found
    values = overlay(found.target.model_dump(exclude_unset=True), overrides)
    target = validate(Target, values, lambda path: f"backend_config {'.'.join(map(str, path))}")
    return Found(name, found.source, target)


def _in(sources, name) -> Found | None:
    return next(
        (
            Found(name, source.source, source.targets[name])
            for source in sources
            if name in source.targets
        ),
        None,
    )
