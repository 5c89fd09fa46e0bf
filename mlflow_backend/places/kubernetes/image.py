"""Build and push the image of a docker_env project, only when its content changed (`mlflow run
--build-image`).
"""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow_backend.errors import ConfigError, ProjectError
from mlflow_backend.files.snapshot import Snapshot
from mlflow_backend.progress import Progress
from mlflow_backend.request.docker_env import CODE_DIR, DockerEnv

if TYPE_CHECKING:
    import docker as sdk

DOCKERFILE = f"FROM {{base}}\nCOPY code/ {CODE_DIR}/\nWORKDIR {CODE_DIR}\n"


def push(
    docker: DockerEnv,
    code: Snapshot,
    repository: str,
    auth: Mapping[str, str] | None,
    progress: Progress,
) -> str:
    """Build and push the image with the project, unless the registry has it; its name is
    `REPOSITORY@sha256:...`.

    Raises ConfigError without the docker SDK, a docker daemon or the base image, ProjectError when
    the image cannot be built or pushed.
    """
    try:
        import docker as sdk
    except ImportError:
        raise ConfigError(
            "--build-image needs the docker SDK",
            code="MissingTool",
            hint="pip install 'mlflow-compute[docker]'",
        ) from None
    try:
        client = sdk.from_env()
        base = _base(client, docker.image, progress)
    except sdk.errors.DockerException as error:
        raise ConfigError(
            f"--build-image: docker_env image {docker.image}: {_one_line(error)}",
            code="BuildFailed",
        ) from None
    tag = hashlib.sha256(f"{base.id} {code.sha256}".encode()).hexdigest()[:20]
    name = f"{repository}:{tag}"
    try:
        digest = _pushed_digest(client, name, auth)
        if digest is None:
            progress.waiting(f"building image {name}")
            client.images.build(
                fileobj=_context(docker.image, code), custom_context=True, tag=name, forcerm=True
            )
            digest = _push(client, repository, tag, auth, progress)
    except (sdk.errors.DockerException, sdk.errors.BuildError) as error:
        raise ProjectError(
            f"--build-image: {name}: {_one_line(error)}", code="BuildFailed"
        ) from None
    return f"{repository}@{digest}"


def _pushed_digest(
    client: "sdk.DockerClient", name: str, auth: Mapping[str, str] | None
) -> str | None:
    """The digest of the image in the registry; None if it has none, or does not answer: then the
    push fails.
    """
    import docker as sdk

    try:
        data = client.images.get_registry_data(name, auth_config=dict(auth) if auth else None)
    except sdk.errors.APIError:
        return None
    return str(data.id)


def _base(client: "sdk.DockerClient", image: str, progress: Progress) -> Any:
    """The docker SDK's image, pulled if this machine does not have it."""
    import docker as sdk

    try:
        return client.images.get(image)
    except sdk.errors.ImageNotFound:
        progress.waiting(f"pulling image {image}")
        return client.images.pull(image)


def _push(
    client: "sdk.DockerClient",
    repository: str,
    tag: str,
    auth: Mapping[str, str] | None,
    progress: Progress,
) -> str:
    """Push the image; its digest. Raises ProjectError."""
    progress.waiting(f"pushing image {repository}:{tag}")
    digest = None
    for line in client.images.push(
        repository, tag=tag, stream=True, decode=True, auth_config=dict(auth) if auth else None
    ):
        if "error" in line:
            raise ProjectError(
                f"--build-image: {repository}:{tag} cannot be pushed: {line['error']}",
                code="BuildFailed",
            )
        digest = line.get("aux", {}).get("Digest", digest)
    if digest is None:
        raise ProjectError(
            f"--build-image: {repository}:{tag}: the registry returned no digest",
            code="BuildFailed",
        )
    return str(digest)


def _context(base: str, code: Snapshot) -> io.BytesIO:
    """A build context: the Dockerfile, and the snapshot's project in the folder `code`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as context, tarfile.open(code.path) as snapshot:
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


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "explanation", None) or error).split())[:500]
