"""What the user has set for uv, pip and conda: which index counts, and which login goes to which host."""

import json
from pathlib import Path

import pytest

from mlflow_backend.environment import conda_channels, index_access
from mlflow_runner.submission import NETRC, RATTLER_AUTH


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder without any setting; a function that writes files into it."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)

    def write(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return {"XDG_CONFIG_HOME": str(tmp_path / ".config")}

    return write


def test_settings_of_pip_count_where_uv_has_none(home):
    config = "[global]\nindex-url = https://file.example/simple\nextra-index-url =\n    https://one.example/simple\n    https://two.example/simple\n"
    environ = home(_dot_config__pip__pip_dot_conf=config)
    env = index_access.for_uv(environ)
    assert env["UV_DEFAULT_INDEX"] == "https://file.example/simple"
    assert env["UV_INDEX"] == "https://one.example/simple https://two.example/simple"
    assert (
        index_access.for_uv({**environ, "PIP_INDEX_URL": "https://env.example/simple"})["UV_DEFAULT_INDEX"] == "https://env.example/simple"
    )
    own = index_access.for_uv({**environ, "UV_INDEX_URL": "https://uv.example/simple"})
    assert "UV_DEFAULT_INDEX" not in own and "UV_INDEX" not in own
    home(_dot_config__uv__uv_dot_toml='index-url = "https://uv.example/simple"\n')
    assert "UV_DEFAULT_INDEX" not in index_access.for_uv(environ)


def test_a_folder_of_this_machine_is_no_index(home):
    assert "UV_FIND_LINKS" not in index_access.for_uv({**home(), "UV_FIND_LINKS": "/opt/wheels"})
    assert index_access.for_uv({**home(), "UV_FIND_LINKS": "https://a.example/"})["UV_FIND_LINKS"] == "https://a.example/"


def test_a_host_gets_its_own_login_and_no_other(home):
    environ = home(
        _dot_config__uv__uv_dot_toml='[[index]]\nname = "team-x"\nurl = "https://b.example/simple"\n',
        _dot_netrc="machine c.example login carl password three\nmachine other.example login x password y\n",
        _dot_condarc="channel_alias: https://d.example/t/four\ncustom_channels: {own: 'https://eve:five@e.example'}\n",
    ) | {
        "UV_INDEX_URL": "https://ada:one%40@a.example/simple",
        "UV_INDEX_TEAM_X_USERNAME": "bob",
        "UV_INDEX_TEAM_X_PASSWORD": "two",
    }
    urls = [f"https://{name}.example/file" for name in "abcde"] + ["https://plain.example/x"]
    files = index_access.secrets(urls, environ=environ)
    assert files[NETRC].decode().splitlines() == [
        "machine a.example login ada password one@",
        "machine b.example login bob password two",
        "machine c.example login carl password three",
        "machine e.example login eve password five",
    ]
    assert json.loads(files[RATTLER_AUTH]) == {"d.example": {"CondaToken": "four"}}
    assert index_access.secrets(["https://plain.example/x"], environ=environ) == {}


def test_the_fingerprint_changes_with_the_index_and_holds_no_credential(home):
    environ = {**home(), "UV_DEFAULT_INDEX": "https://ada:secret@a.example/simple", "UV_INDEX_X_PASSWORD": "hidden"}
    found = index_access.fingerprint(environ)
    assert "secret" not in str(found) and "hidden" not in str(found)
    assert found != index_access.fingerprint({**environ, "UV_DEFAULT_INDEX": "https://b.example/simple"})
    assert found == index_access.fingerprint({**environ, "UV_DEFAULT_INDEX": "https://eve:other@a.example/simple"})


def test_only_a_bundle_of_the_users_own_travels(home, tmp_path):
    environ = home(own_dot_pem="x")
    assert index_access.own_ca_bundle({**environ, "SSL_CERT_FILE": str(tmp_path / "own.pem")}) == str(tmp_path / "own.pem")
    assert index_access.own_ca_bundle({**environ, "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}) is None
    home(_dot_condarc=f"ssl_verify: {tmp_path}/own.pem\n")
    assert index_access.own_ca_bundle(environ) == str(tmp_path / "own.pem")


@pytest.mark.parametrize(
    ("names", "urls"),
    [
        (("conda-forge", "nodefaults"), ("https://conda.anaconda.org/conda-forge",)),
        (("https://a.example/x/", "bioconda"), ("https://a.example/x", "https://conda.anaconda.org/bioconda")),
        (("defaults",), conda_channels.DEFAULTS),
        ((), ("https://conda.anaconda.org/conda-forge",)),
    ],
)
def test_channels_are_named_as_in_conda(home, names, urls):
    assert conda_channels.load(home()).urls(names) == urls


def test_condarc_says_where_channels_are(home):
    environ = home(_dot_condarc="channel_alias: https://mirror.example/\nchannels: [own, two]\ncustom_channels: {own: https://o.example}\n")
    settings = conda_channels.load(environ)
    assert settings.urls(()) == ("https://o.example/own", "https://mirror.example/two")
    assert conda_channels.load({**environ, **{"CONDARC": str(Path.home() / "x")}}).strict_priority


def test_credentials_leave_a_url():
    for url in ("https://ada:x@a.example/own/linux-64/f.conda", "https://a.example/t/token/own/linux-64/f.conda"):
        assert conda_channels.without_credentials(url) == "https://a.example/own/linux-64/f.conda"
