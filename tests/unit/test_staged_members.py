"""The archive of staged packages contains files of packages and nothing else."""

import io
import tarfile

import pytest

from mlflow_runner.contract.errors import RunnerError
from mlflow_runner.environment.build import unpack_staged


@pytest.fixture
def unpack(tmp_path):
    """Unpack an archive with members of these names; the files in the folder afterwards."""

    def unpack(names, kind=tarfile.REGTYPE):
        archive, folder = tmp_path / "packages.tar", tmp_path / "packages"
        with tarfile.open(archive, "w") as tar:
            for name in names:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "x"
                tar.addfile(member, io.BytesIO())
        unpack_staged(str(archive), str(folder))
        return sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )

    return unpack


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
    with pytest.raises(RunnerError, match="a member that is not a package"):
        unpack([name])
    assert [path.name for path in tmp_path.iterdir()] == ["packages.tar"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
def test_a_member_that_is_not_a_file_is_refused(unpack, kind):
    with pytest.raises(RunnerError, match="a member that is not a package"):
        unpack(["python/x"], kind)
