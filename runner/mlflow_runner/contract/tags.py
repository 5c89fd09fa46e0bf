"""The tags of a run.

They are a contract: people and other tools read them, so none is ever renamed.
"""

TAG_TARGET = "compute.target"
TAG_JOB = "compute.job"
TAG_JOB_UID = "compute.job_uid"
TAG_NAMESPACE = "compute.namespace"
TAG_CONTEXT = "compute.context"
TAG_CLUSTER = "compute.cluster"
TAG_POD = "compute.pod"
TAG_ATTEMPT = "compute.attempt"
TAG_INDEX = "compute.index"
"""The completion index of the run's pod, where its Job has several runs."""
TAG_NODE = "compute.node"
TAG_IMAGE = "compute.image"
TAG_STATUS = "compute.status"
TAG_CAUSE = "compute.cause"
TAG_MESSAGE = "compute.message"
TAG_EXIT_CODE = "compute.exit_code"
TAG_SNAPSHOT = "compute.snapshot"
TAG_SUBMITTED = "compute.submitted"
TAG_ENVIRONMENT = "compute.environment"
TAG_LOG = "compute.log"
TAG_FILES = "compute.files"
"""What is missing of the log and of the files that are kept with the run, and why."""
TAG_PARENT = "mlflow.parentRunId"
"""MLflow's own: the run that a nested run is part of."""

END_TAGS = (TAG_STATUS, TAG_CAUSE, TAG_MESSAGE, TAG_EXIT_CODE)
"""Written in one call before the final status.

`compute.status` repeats that status: an end is believed only where both agree.
"""
