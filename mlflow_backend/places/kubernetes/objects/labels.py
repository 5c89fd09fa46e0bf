"""The names by which objects in a cluster are found again.

They are a contract: Jobs of earlier versions carry them.
"""

PREFIX = "mlflow-compute"
MANAGED_BY = "app.kubernetes.io/managed-by"
RUN = f"{PREFIX}/run-id"
CLIENT = f"{PREFIX}/client"
EXPERIMENT = f"{PREFIX}/experiment-id"
START_TIMEOUT = f"{PREFIX}/start-timeout"
"""Annotation of a Job: the target's `start_timeout` in seconds, for processes that settle the run
and do not know its target.
"""
TOPOLOGY = f"{PREFIX}/topology"
"""Annotation of a Job that has several pods or runs: `KIND/SIZE`, the text of a Topology."""
MARK = f"{PREFIX}/mark"
"""Annotation of a Job: the random word at the end of its runner's last line."""
OURS = f"{MANAGED_BY}={PREFIX}"
"""Selects all that this package has made."""
