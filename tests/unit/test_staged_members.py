"""Members of the archive of staged packages: files of packages and nothing else."""

import io
import tarfile

import pytest

from mlflow_runner.contract.errors import RunnerError
from mlflow_runner.contract.submission import Environment
from mlflow_runner.environment import Place
from mlflow_runner.environment.build import Build, Tools


@pytest.fixture
def unpack(tmp_path):
    """Unpack an archive with members of these names; what lies in the folder of staged packages
    then.
    """

    def fetch(names, kind=tarfile.REGTYPE):
        def write(_, path):
            with tarfile.open(path, "w") as tar:
                for name in names:
                    member = tarfile.TarInfo(name)
                    member.type, member.linkname = kind, "x"
                    tar.addfile(member, io.BytesIO())

        scratch = tmp_path / "scratch"
        scratch.mkdir()
        tools = Tools(str(tmp_path), str(scratch), None, print, write)
        Build(
            Environment("key", "linux-64", "3.11", "", packages="x.tar"),
            Place(str(tmp_path / "env")),
            tools,
        )._unpack_staged()
        return sorted(
            path.relative_to(scratch / "packages").as_posix()
            for path in scratch.rglob("*")
            if path.is_file()
        )

    return fetch


def test_packages_lie_in_the_folders_of_their_kind(unpack):
    names = ["conda/linux-64/a-1-0.conda", "python/torch-2.4.0+cu121-py3-none-any.whl"]
    assert unpack(names) == names


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/x",
        "python/../x",
        "python/..",
        "python/a/b",
        "conda/../b/x",
        "conda/x",
        "other/x",
        "python/.x",
    ],
)
def test_a_member_with_another_name_is_refused(unpack, name, tmp_path):
    with pytest.raises(RunnerError, match="a member that is no package"):
        unpack([name])
    assert not (tmp_path / "scratch" / "x").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
def test_a_member_that_is_not_a_file_is_refused(unpack, kind):
    with pytest.raises(RunnerError, match="a member that is no package"):
        unpack(["python/x"], kind)
