"""How far a channel is, on disk: what a reporter that is started again goes on from."""

import json
import os
from typing import Any, Dict


class Progress:
    """A JSON object in the file `directory`/`name`.json, replaced atomically.

    A full disk costs only what a restart would need.
    """

    def __init__(self, directory, name: str):
        self._path = os.path.join(os.fspath(directory), f"{name}.json")
        try:
            with open(self._path) as file:
                found = json.load(file)
        except (OSError, ValueError):
            found = {}
        self._values: Dict[str, Any] = found if isinstance(found, dict) else {}

    def get(self, key: str, default: Any) -> Any:
        return self._values.get(key, default)

    def set(self, **values: Any) -> None:
        if all(self._values.get(key) == value for key, value in values.items()):
            return
        self._values.update(values)
        try:
            with open(self._path + ".tmp", "w") as file:
                json.dump(self._values, file)
            os.replace(self._path + ".tmp", self._path)
        except OSError:
            pass
