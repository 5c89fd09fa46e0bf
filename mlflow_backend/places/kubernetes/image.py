"""Build and push the image of a docker_env project, only when its content is new (`mlflow run
--build-image`).
"""

import hashlib
import io
import tarfile
from collections.abc import Mapping

from mlflow_backend.errors import ConfigError, ProjectError
from mlflow_backend.files.snapshot import Snapshot
from mlflow_backend.progress import Progress
from mlflow_backend.request.docker_env import CODE_DIR, DockerEnv

DOCKERFILE = f"FROM {{base}}\nCOPY code/ {CODE_DIR}/\nWORKDIR {CODE_DIR}\n"


def push(
    docker: DockerEnv,
    taken: Snapshot,
    repository: str,
    auth: Mapping[str, str] | None,
    progress: Progress,
) -> str:
    """The image with the project in it as `REPOSITORY@sha256:...`, in the registry.

    Raises ConfigError without the docker SDK or a docker daemon, ProjectError when the image cannot
    be built or pushed.
    """
    try:
        import docker as sdk
    except ImportError:
        raise ConfigError(
            "--build-image needs the docker SDK: pip install 'mlflow-compute[docker]'"
        ) from None
    try:
        client = sdk.from_env()
        base = _base(client, docker.image, progress)
    except sdk.errors.DockerException as error:
        raise ConfigError(
            f"--build-image: docker_env image {docker.image}: {_one_line(error)}"
        ) from None
    tag = hashlib.sha256(f"{base.id} {taken.sha256}".encode()).hexdigest()[:20]
    name = f"{repository}:{tag}"
    try:
        try:
            found = client.images.get_registry_data(name, auth_config=dict(auth) if auth else None)
            return f"{repository}@{found.id}"
        except sdk.errors.APIError:
            pass  # not there, or the registry does not say: the push will tell
        progress.waiting(f"building image {name}")
        client.images.build(
            fileobj=_context(docker.image, taken), custom_context=True, tag=name, forcerm=True
        )
        return f"{repository}@{_push(client, repository, tag, auth, progress)}"
    except (sdk.errors.DockerException, sdk.errors.BuildError) as error:
        raise ProjectError(f"--build-image: {name}: {_one_line(error)}") from None


def _base(client, image: str, progress: Progress):
    import docker as sdk

    try:
        return client.images.get(image)
    except sdk.errors.ImageNotFound:
        progress.waiting(f"pulling image {image}")
        return client.images.pull(image)


def _push(
    client, repository: str, tag: str, auth: Mapping[str, str] | None, progress: Progress
) -> str:
    progress.waiting(f"pushing image {repository}:{tag}")
    digest = None
    for line in client.images.push(
        repository, tag=tag, stream=True, decode=True, auth_config=dict(auth) if auth else None
    ):
        if "error" in line:
            raise ProjectError(
                f"--build-image: {repository}:{tag} cannot be pushed: {line['error']}"
            )
        digest = line.get("aux", {}).get("Digest", digest)
    if digest is None:
        raise ProjectError(f"--build-image: {repository}:{tag}: the registry gave no digest")
    return digest


def _context(base: str, taken: Snapshot) -> io.BytesIO:
    """A build context: the Dockerfile, and the snapshot's project in the folder `code`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as context, tarfile.open(taken.path) as snapshot:
        text = DOCKERFILE.format(base=base).encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        context.addfile(entry, io.BytesIO(text))
        for member in snapshot:
            if member.name.startswith("project/"):
                member.name = "code/" + member.name.removeprefix("project/")
                context.addfile(member, snapshot.extractfile(member) if member.isfile() else None)
    buffer.seek(0)
    return buffer


def _one_line(error) -> str:
    return " ".join(str(getattr(error, "explanation", None) or error).split())[:500]
