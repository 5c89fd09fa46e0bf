"""The runner: one MLflow run's command, from unpacked code to reported end.

The same code runs as PID 1 of a pod and as a child process of the client. It needs a Python >= 3.9
and nothing else. It imports MLflow only where the tracking server or the artifact store cannot be
reached over plain HTTP (see `tracking`), and never before the user's command has started.
"""

VERSION = "0.1.0"
"""The version of the package: the zip that travels has no metadata."""
