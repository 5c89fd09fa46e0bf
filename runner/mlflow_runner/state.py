"""What the supervisor tells the reporter: one small JSON file, replaced atomically."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Dict, Optional

FILE_NAME = "state.json"


@dataclass
class State:
    """How far the run is. `phases` are durations in seconds; `status` is set once it has ended."""

    started: bool = False
    status: Optional[str] = None
    exit_code: Optional[int] = None
    cause: Optional[str] = None
    message: Optional[str] = None
    node: Optional[str] = None
    image: Optional[str] = None
    phases: Dict[str, float] = field(default_factory=dict)

    def write(self, directory) -> None:
        path = Path(directory) / FILE_NAME
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self)))
        os.replace(temporary, path)

    @staticmethod
    def read(directory) -> "State":
        """The last state written; a fresh one before the first."""
        try:
            return State(**json.loads((Path(directory) / FILE_NAME).read_text()))
        except FileNotFoundError:
            return State()
