"""What each error code and each cause means, and what to do: the text of `mlflow-compute explain`
and of docs/errors.md, which `python -m mlflow_backend.explanations` prints.

Other programs read the codes and causes, so none is ever renamed.
"""

from typing import Literal, TypeAlias

from mlflow_runner.contract.causes import Cause

Code: TypeAlias = Literal[
    "AlreadyExists",
    "ArtifactsUnreachable",
    "BuildFailed",
    "ClusterForbidden",
    "ClusterRefused",
    "ClusterUnavailable",
    "ConflictingSettings",
    "CredentialInText",
    "FileChanged",
    "GitFailed",
    "IndexDenied",
    "IndexUnavailable",
    "InUse",
    "InvalidCommand",
    "InvalidFile",
    "InvalidKubeconfig",
    "InvalidLock",
    "InvalidParameter",
    "InvalidRequirement",
    "InvalidValue",
    "LoginFailed",
    "MissingSetting",
    "MissingTool",
    "NoSolution",
    "NotFound",
    "SecretFile",
    "SolverFailed",
    "TooLarge",
    "TrackingDenied",
    "TrackingRefused",
    "TrackingUnavailable",
    "TrackingUnreachable",
    "UnknownCluster",
    "UnknownField",
    "UnknownTarget",
    "UnreadableFile",
    "UnsupportedCluster",
    "UnsupportedRequirement",
    "UntrustedTarget",
    "UnusableFile",
    "UnwritableFile",
    "WrongOwner",
]

EXPLANATIONS: dict[Code, str] = {
    "AlreadyExists": (
        "The cluster already has an object with the name that this run needs. Submit again: the "
        "next run gets another name."
    ),
    "ArtifactsUnreachable": (
        "The experiment stores artifacts in a folder of one machine, which the pods do not have. "
        "Use an experiment of a server that serves artifacts, or mount the folder in the pods with "
        "'pod_template' in the target."
    ),
    "BuildFailed": (
        "The image of a docker_env project could not be built or pushed. Run `docker build` and "
        "`docker push` by hand to see more of the output."
    ),
    "ClusterForbidden": (
        "The API server denies this call to your user. Ask an administrator of the namespace to "
        "bind the Role mlflow-compute-submitter to you."
    ),
    "ClusterRefused": (
        "The API server, a quota, a policy or an admission webhook rejected the request. The "
        "message is the server's own; the same request is rejected again until the target, the "
        "quota or the policy changes."
    ),
    "ClusterUnavailable": (
        "The API server did not answer, or is overloaded. Check the address in the kubeconfig and "
        "the VPN, and repeat the command."
    ),
    "ConflictingSettings": ("Two settings exclude each other. The message names both; remove one."),
    "CredentialInText": (
        "A credential stands where everyone who can read the run would read it. Move it to the "
        "place that the message names, such as an environment variable or a Secret."
    ),
    "FileChanged": (
        "A file changed while it was being read. Save your files, stop the program that writes "
        "them, or exclude it in .mlflowignore, and submit again."
    ),
    "GitFailed": (
        "Git could not fetch the project. Run `git clone` on the same address to see whether the "
        "address, the version or the credentials are wrong."
    ),
    "IndexDenied": (
        "A package index or channel rejected the credentials, or needs some and none are "
        "configured. Set them where pip, uv or conda would read them."
    ),
    "IndexUnavailable": (
        "A package index or channel did not answer. Check its address and your proxy, and repeat "
        "the command."
    ),
    "InUse": ("A run uses this environment. Wait for the run to end, or cancel it."),
    "InvalidCommand": (
        "The command of an entry point cannot be filled in. Write {name} for a parameter, and {{ "
        "and }} for braces."
    ),
    "InvalidFile": (
        "A file is not valid YAML, JSON or TOML, or does not have the structure that its kind "
        "requires. The message names the file and the line or key."
    ),
    "InvalidKubeconfig": (
        "The kubeconfig cannot be read, or the context that the target names is incomplete. Check "
        "it with `kubectl config view` and `kubectl get pods`."
    ),
    "InvalidLock": (
        "A lock file cannot be used: it is damaged, was edited by hand, or was written by a tool "
        "that this version does not know. Write it again with `mlflow-compute env lock`."
    ),
    "InvalidParameter": (
        "A parameter is missing, unknown, or has a value that its type does not allow. `mlflow run "
        "-P name=value` sets it."
    ),
    "InvalidRequirement": (
        "An entry of an environment file cannot be parsed. The message names the file and the "
        "entry, and shows the form that is expected."
    ),
    "InvalidValue": (
        "A setting has a value of the wrong type, or one that is out of range. The message names "
        "the setting and the values that it takes."
    ),
    "LoginFailed": (
        "Your credentials are missing, expired or rejected. Log in again with the tool that your "
        "cluster or server uses."
    ),
    "MissingSetting": (
        "A setting that this run needs is missing. The message says where to set it."
    ),
    "MissingTool": (
        "A program or package that this run needs is not installed on this machine. The message "
        "names it."
    ),
    "NoSolution": (
        "No set of package versions satisfies all requirements on the platform of the target. The "
        "message is the solver's explanation; loosen one of the requirements that it names."
    ),
    "NotFound": (
        "A file, project, run, experiment or namespace of this name does not exist. The message "
        "names where it was looked for."
    ),
    "SecretFile": (
        "A file that would travel with the run looks like a credential. Exclude it in "
        ".mlflowignore, or allow it explicitly as the message says."
    ),
    "SolverFailed": (
        "The solver ended for another reason than conflicting requirements. The message is its "
        "last line; MLFLOW_COMPUTE_DEBUG=1 shows all of its output."
    ),
    "TooLarge": (
        "A file or archive exceeds a limit. The message names the largest parts; exclude what the "
        "run does not need in .mlflowignore, or pass data as a parameter of type path or uri."
    ),
    "TrackingDenied": (
        "The tracking server rejected your credentials, or you lack the permission. Check "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
    ),
    "TrackingRefused": (
        "The tracking server rejected a call. The message is its own; the same call is rejected "
        "again."
    ),
    "TrackingUnavailable": (
        "The tracking server did not answer, or answered with a temporary error. Check "
        "MLFLOW_TRACKING_URI, and repeat the command."
    ),
    "TrackingUnreachable": (
        "The pods of the cluster cannot use this tracking URI: it is a file, a database, or an "
        "address of your machine. Set MLFLOW_TRACKING_URI to a server that the cluster reaches, or "
        "set 'tracking_uri' in the target."
    ),
    "UnknownCluster": (
        "No context of the kubeconfig leads to the cluster of this run or target. Add a context "
        "for it, or correct 'context' in the target."
    ),
    "UnknownField": (
        "A field or key has no meaning here, most often because of a typing error. The message "
        "suggests the nearest known name."
    ),
    "UnknownTarget": (
        "No targets file has a target of this name. `mlflow-compute targets` lists the targets and "
        "the files they come from."
    ),
    "UnreadableFile": (
        "The operating system does not let this file be read. Check its permissions, and that it "
        "is a regular file."
    ),
    "UnsupportedCluster": (
        "The cluster's version of Kubernetes is too old, or one of its features is missing."
    ),
    "UnsupportedRequirement": (
        "An entry of an environment file is valid for its own tool but cannot be locked or "
        "installed on the cluster. The message says what to write instead."
    ),
    "UntrustedTarget": (
        "A targets file that other users may have written is not used, as a target decides where "
        "your credentials are sent. Read the file, and allow it with `mlflow-compute targets allow "
        "FILE`."
    ),
    "UnusableFile": (
        "A file cannot travel with the run: it is a link that leads out of the project, a device, "
        "or has a name that other systems cannot store."
    ),
    "UnwritableFile": (
        "The operating system does not let this file or folder be written. Check its permissions "
        "and the free space of its disk, or choose another folder."
    ),
    "WrongOwner": (
        "An object of the cluster does not belong to the run whose tags name it. It is left "
        "unchanged; find out who wrote the tags."
    ),
}

CAUSES: dict[Cause, str] = {
    Cause.EXIT_CODE: (
        "The command exited with a code other than 0, or was killed by a signal. `mlflow-compute "
        "logs RUN` shows its output."
    ),
    Cause.MARKED_FAILED: "The script marked the run FAILED, and its command exited with code 0.",
    Cause.OOM_KILLED: (
        "The container, or one process in it, exceeded its memory limit. Raise 'memory' in the "
        "target, or process less data at a time."
    ),
    Cause.KILLED: "The container was killed from outside, and nothing shows by whom.",
    Cause.CANCELLED: "A user cancelled the run, or marked it KILLED in MLflow.",
    Cause.DELETED: "The run's Job or its pod was deleted.",
    Cause.TERMINATED: (
        "The pod was stopped, and no client, command or controller has found out yet whether its "
        "Job goes on, or why it stopped. `mlflow-compute settle RUN` does."
    ),
    Cause.DEADLINE_EXCEEDED: "The run took longer than the 'deadline' of its target.",
    Cause.EVICTED: (
        "The node ran short of memory or disk, or was drained. With 'retries' in the target the "
        "run starts again on another node."
    ),
    Cause.PREEMPTED: (
        "A pod of higher priority took the place of this one. With 'retries' in the target the run "
        "starts again."
    ),
    Cause.NODE_LOST: (
        "The node stopped answering. With 'retries' in the target the run starts again on another "
        "node."
    ),
    Cause.NODE_SHUTDOWN: (
        "The node was shut down. With 'retries' in the target the run starts again on another node."
    ),
    Cause.IMAGE_PULL_ERROR: (
        "The image could not be pulled. Check its name, and whether the namespace has the "
        "registry's credentials ('image_pull_secrets' in the target)."
    ),
    Cause.INVALID_IMAGE_NAME: "The name of the image is not valid. Correct 'image' in the target.",
    Cause.CREATE_CONTAINER_CONFIG_ERROR: (
        "The container could not be created, most often because a Secret or ConfigMap that the "
        "target's pod_template names does not exist."
    ),
    Cause.INIT_CONTAINER_FAILED: "An init container of the target's pod_template failed.",
    Cause.UNSCHEDULABLE: (
        "No node could take the pod within 'start_timeout'. The message says what was missing."
    ),
    Cause.QUOTA_EXCEEDED: "The namespace's quota was used up for longer than 'start_timeout'.",
    Cause.ADMISSION_DENIED: (
        "Pod Security, an admission policy or a webhook rejected the pod. The message is the "
        "cluster's own."
    ),
    Cause.VOLUME_ERROR: "A volume could not be mounted. The message is the cluster's own.",
    Cause.ENVIRONMENT_ERROR: (
        "The packages of the run's environment could not be downloaded or installed in the pod."
    ),
    Cause.SNAPSHOT_ERROR: "The project's code could not be downloaded or unpacked in the pod.",
    Cause.DOWNLOAD_ERROR: "A parameter of type path or uri could not be downloaded in the pod.",
    Cause.TRACKING_ERROR: (
        "The tracking server rejected the credentials or the run that the pod was given."
    ),
    Cause.SUBMIT_ERROR: (
        "The client stopped in the middle of the submit: nothing is running. Submit again."
    ),
    Cause.RUNNER_LOST: (
        "The process that runs the command was killed, and could not say how it ended."
    ),
    Cause.RUNNER_ERROR: "An error in the runner itself. Please report it with the run's log.",
    Cause.UNKNOWN: "The run ended, and nothing that is left of it says why.",
}


def texts() -> dict[str, str]:
    """The text for each code and each cause."""
    return {str(word): text for word, text in (*EXPLANATIONS.items(), *CAUSES.items())}


def explain(word: str) -> str | None:
    """The text for a code or a cause, in any case; None for another word."""
    return {name.lower(): text for name, text in texts().items()}.get(word.lower())


def document() -> str:
    """The whole of docs/errors.md."""
    sections = [
        "# Errors and causes",
        (
            "`mlflow-compute explain WORD` prints the text for one of these words. `--json` and "
            "the exception (`mlflow_backend.errors.ComputeError`, the `__cause__` of what "
            "`mlflow.projects.run` raises) have the fields `code`, `message`, `hint` and `doc`. No "
            "word is ever renamed."
        ),
        "## Error codes: a command or a submit that failed",
        _table({str(code): text for code, text in EXPLANATIONS.items()}),
        "## Causes: why a run ended (the tag `compute.cause`)",
        _table({str(cause): text for cause, text in CAUSES.items()}),
    ]
    return "\n\n".join(sections)


def _table(texts: dict[str, str]) -> str:
    rows = [f"| `{word}` | {text} |" for word, text in texts.items()]
    return "\n".join(["| word | meaning, and what to do |", "| --- | --- |", *rows])


if __name__ == "__main__":
    print(document())
