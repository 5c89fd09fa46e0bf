"""Why a run ended: the words of the tag `compute.cause`.

They are a contract: other tools read them, so none is ever renamed.
"""

import enum


class Cause(str, enum.Enum):
    """One word for each reason; the README's table says what each means."""

    # the command's own
    EXIT_CODE = "ExitCode"
    MARKED_FAILED = "MarkedFailed"
    OOM_KILLED = "OOMKilled"
    KILLED = "Killed"
    # somebody's wish
    CANCELLED = "Cancelled"
    DELETED = "Deleted"
    TERMINATED = "Terminated"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    # the cluster's doing
    EVICTED = "Evicted"
    PREEMPTED = "Preempted"
    NODE_LOST = "NodeLost"
    NODE_SHUTDOWN = "NodeShutdown"
    # it could not start
    IMAGE_PULL_ERROR = "ImagePullError"
    INVALID_IMAGE_NAME = "InvalidImageName"
    CREATE_CONTAINER_CONFIG_ERROR = "CreateContainerConfigError"
    INIT_CONTAINER_FAILED = "InitContainerFailed"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    ADMISSION_DENIED = "AdmissionDenied"
    VOLUME_ERROR = "VolumeError"
    # what it needs could not be had
    ENVIRONMENT_ERROR = "EnvironmentError"
    SNAPSHOT_ERROR = "SnapshotError"
    DOWNLOAD_ERROR = "DownloadError"
    TRACKING_ERROR = "TrackingError"
    # ours
    SUBMIT_ERROR = "SubmitError"
    RUNNER_LOST = "RunnerLost"
    RUNNER_ERROR = "RunnerError"
    UNKNOWN = "Unknown"

    __str__ = str.__str__
