"""The progress of a channel, on disk: where a restarted reporter continues."""

import json
import os
from typing import Any, Dict


class Progress:
    """A JSON object in the file `directory`/`name`.json, replaced atomically.

    On a full disk only a restart loses what it would have read.
    """

    def __init__(self, directory: str, name: str) -> None:
        self._path = os.path.join(directory, f"{name}.json")
        try:
            with open(self._path) as file:
                values = json.load(file)
        except (OSError, ValueError):
            values = {}
        self._values: Dict[str, Any] = values if isinstance(values, dict) else {}

    def get(self, key: str, default: Any) -> Any:
        """The value of `key` on disk, or `default`."""
        return self._values.get(key, default)

    def set(self, **values: Any) -> None:
        """Store the values; write only if one of them is new."""
        if all(self._values.get(key) == value for key, value in values.items()):
            return
        self._values.update(values)
        try:
            with open(self._path + ".tmp", "w") as file:
                json.dump(self._values, file)
            os.replace(self._path + ".tmp", self._path)
        except OSError:
            pass
