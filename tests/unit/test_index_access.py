"""What the user has set for uv, pip and conda: which index counts, and which login goes to which
host.
"""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.environment import toml_text
from mlflow_backend.environment.indexes import conda_channels, index_access, index_settings
from mlflow_backend.environment.permissions import HERE, Permissions
from mlflow_backend.errors import EnvironmentSpecError
from mlflow_runner.contract.submission import NETRC, RATTLER_AUTH

WORDS = st.sampled_from(
    [
        "https://a.example/",
        "https://u:p@a.example/simple",
        "x=https://[",
        "http://[",
        "=",
        "",
        "name",
    ]
)
VALUES = st.recursive(
    WORDS | st.booleans() | st.integers(0, 5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "name", "default", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
TOML = st.dictionaries(
    st.sampled_from(["index", "index-url", "extra-index-url", "find-links", "pip", "offline"]),
    VALUES,
    max_size=4,
)


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
    config = (
        "[global]\nindex-url = https://file.example/simple\nextra-index-url =\n    "
        "https://one.example/simple\n    https://two.example/simple\n"
    )
    environ = home(_dot_config__pip__pip_dot_conf=config)
    env = index_settings.for_uv(environ)
    assert env["UV_DEFAULT_INDEX"] == "https://file.example/simple"
    assert env["UV_INDEX"] == "https://one.example/simple https://two.example/simple"
    assert (
        index_settings.for_uv({**environ, "PIP_INDEX_URL": "https://env.example/simple"})[
            "UV_DEFAULT_INDEX"
        ]
        == "https://env.example/simple"
    )
    own = index_settings.for_uv({**environ, "UV_INDEX_URL": "https://uv.example/simple"})
    assert "UV_DEFAULT_INDEX" not in own and "UV_INDEX" not in own
    home(_dot_config__uv__uv_dot_toml='index-url = "https://uv.example/simple"\n')
    assert "UV_DEFAULT_INDEX" not in index_settings.for_uv(environ)


def test_a_folder_of_this_machine_is_no_index(home):
    assert "UV_FIND_LINKS" not in index_settings.for_uv({**home(), "UV_FIND_LINKS": "/opt/wheels"})
    assert (
        index_settings.for_uv({**home(), "UV_FIND_LINKS": "https://a.example/"})["UV_FIND_LINKS"]
        == "https://a.example/"
    )


USERS = (
    "[[index]]\nname = 'team-x'\nurl = "
    "'https://b.example/simple'\n[[index]]\nname='c'\nurl='https://c.example/simple'\n"
)
CLUSTER = Permissions(builds=False, credential_hosts=())


def sent(urls, environ, permissions=CLUSTER, own=()):
    """Hosts and their users (or tokens) as they travel, and the hosts whose login stays."""
    found = index_access.find(urls, own, permissions, environ)
    return {
        host: login.user if login.token is None else login.token
        for host, login in found.sent.items()
    }, found.withheld


def test_a_host_gets_its_own_login_and_no_other(home):
    environ = home(
        _dot_config__uv__uv_dot_toml=USERS,
        _dot_netrc="machine c.example login carl password three\nmachine other.example login x "
        "password y\n",
        _dot_condarc="channel_alias: https://d.example/t/four\ncustom_channels: {own: "
        "'https://eve:five@e.example'}\n",
    ) | {
        "UV_INDEX_URL": "https://ada:one%40@a.example/simple",
        "UV_INDEX_TEAM_X_USERNAME": "bob",
        "UV_INDEX_TEAM_X_PASSWORD": "two",
    }
    urls = [f"https://{name}.example/file" for name in "abcde"] + ["https://plain.example/x"]
    found = index_access.find(urls, (), CLUSTER, environ)
    assert found.withheld == ()
    files = found.files()
    assert files[NETRC].decode().splitlines() == [
        "machine a.example login ada password one@",
        "machine b.example login bob password two",
        "machine c.example login carl password three",
        "machine e.example login eve password five",
    ]
    basic = {
        "a": ("ada", "one@"),
        "b": ("bob", "two"),
        "c": ("carl", "three"),
        "e": ("eve", "five"),
    }
    assert json.loads(files[RATTLER_AUTH]) == {
        "d.example": {"CondaToken": "four"},
        **{
            f"{name}.example": {"BasicHTTP": {"username": user, "password": word}}
            for name, (user, word) in basic.items()
        },
    }
    assert index_access.find(["https://plain.example/x"], (), CLUSTER, environ).files() == {}


NETRC_TEXT = (
    "machine corp.example login ada password CORP\nmachine github.com login ada password "
    "ghp\ndefault login d password e\n"
)


@pytest.mark.parametrize(
    "url",
    ["https://corp.example/x.whl", "http://corp.example/x.whl", "http://corp.example:443/x.whl", "https://corp.example:8443/x.whl",
     "https://github.com/x/a.whl", "git+https://github.com/x/a"],
)  # fmt: skip
def test_a_login_does_not_go_where_a_project_says(home, url):
    """A lock or an environment file names hosts, schemes and ports; only the user's own settings
    count.
    """
    environ = home(_dot_netrc=NETRC_TEXT) | {"UV_INDEX_URL": "https://corp.example:9000/simple"}
    (found, withheld) = sent([url], environ)
    assert found == {} and len(withheld) == 1
    assert (
        withheld[0].startswith("the login for ")
        and "'credential_hosts' of the target" in withheld[0]
    )


def test_what_stays_is_said_with_the_entry_that_sends_it(home):
    environ = home(_dot_netrc=NETRC_TEXT) | {"UV_INDEX_URL": "https://corp.example/simple"}
    assert sent(["https://corp.example/x", "https://github.com/a", "https://x.example/"], environ) == (
        {"corp.example": "ada"},
        (("the login for github.com is not sent, as the project names this host and your own "
         "index settings do not: add 'github.com' to 'credential_hosts' of the target to send it"),),
    )  # fmt: skip
    assert sent(["https://corp.example/x", "http://corp.example/y"], environ) == (
        {},
        (("the login for corp.example is not sent, as HTTP is not encrypted: add "
         "'corp.example:80' to 'credential_hosts' of the target to send it anyway"),),
    )  # fmt: skip
    for entry in ("github.com", "github.com:443", "GitHub.com"):
        assert sent(["https://github.com/a"], environ, Permissions(False, (entry,))) == (
            {"github.com": "ada"},
            (),
        )
    assert sent(["http://corp.example/y"], environ, Permissions(False, ("corp.example:80",))) == (
        {"corp.example": "ada"},
        (),
    )
    for entry in ("corp.example", "corp.example:443", "http://corp.example", "corp.example:x"):
        assert sent(["http://corp.example/y"], environ, Permissions(False, (entry,)))[0] == {}


def test_a_default_entry_of_netrc_goes_nowhere(home):
    environ = home(_dot_netrc=NETRC_TEXT) | {"UV_INDEX_URL": "https://own.example/simple"}
    for permissions in (CLUSTER, HERE):
        assert sent(
            ["https://own.example/x", "https://evil.example/x", "https://default/x"],
            environ,
            permissions,
        ) == ({}, ())
    assert index_access.without_default(environ) == NETRC_TEXT.partition("default")[0].encode()
    assert (
        index_access.without_default(home(_dot_netrc="machine a.example login x password y\n"))
        is None
    )


def test_a_login_over_http_goes_to_this_machine_only(home):
    environ = home() | {
        "UV_INDEX": (
            "http://u:p@127.0.0.1:8000/simple http://u:p@localhost/ http://u:p@[::1]:1/ "
            "http://u:p@corp.example/simple"
        )
    }
    urls = [
        "http://127.0.0.1:8000/x",
        "http://localhost/x",
        "http://[::1]:1/x",
        "http://corp.example/x",
    ]
    found, withheld = sent(urls, environ)
    assert set(found) == {"127.0.0.1", "localhost", "::1"} and len(withheld) == 1
    assert set(sent(urls, environ, HERE)[0]) == {"127.0.0.1", "localhost", "::1", "corp.example"}


def test_a_login_of_the_project_goes_to_its_own_host(home):
    assert sent(["https://own.example/x"], home(), own=["https://p:q@own.example/simple"]) == (
        {"own.example": "p"},
        (),
    )
    assert sent(["https://other.example/x"], home(), own=["https://p:q@own.example/simple"]) == (
        {},
        (),
    )


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12),
)
def test_every_login_survives_the_way_to_the_runner(user, password):
    import netrc
    import tempfile

    user = "".join(letter for letter in user if letter.isprintable())
    files = index_access.Logins(
        {"a.example": index_access.Login(user, password), "b.example": index_access.Login("x", "y")}
    ).files()
    assert json.loads(files[RATTLER_AUTH])["a.example"] == {
        "BasicHTTP": {"username": user, "password": password}
    }
    if sys.version_info < (3, 11):
        return  # its netrc module cannot read quoted words, which uv can
    with tempfile.NamedTemporaryFile() as file:
        file.write(files[NETRC])
        file.flush()
        hosts = netrc.netrc(file.name).hosts
    assert hosts["b.example"] == ("x", "", "y")
    assert hosts["a.example"] == (user, "", password)


def test_variables_are_filled_in_for_hosts_that_a_login_may_go_to(home):
    environ = home() | {
        "U": "ada",
        "P": "s3",
        "EMPTY": "",
        "UV_INDEX_URL": "https://own.example/simple",
    }

    def fill(text, permissions=CLUSTER):
        return index_access.expand(text, permissions, "file", environ)

    assert fill("--index-url https://${U}:${P}@own.example/simple") == (
        "--index-url https://ada:s3@own.example/simple"
    )
    assert fill("six==1 ; x > '$U ${u} %P%'") == "six==1 ; x > '$U ${u} %P%'"
    listed = Permissions(False, ("other.example",))
    assert (
        fill("x @ git+https://${U}@other.example/x", listed)
        == "x @ git+https://ada@other.example/x"
    )
    assert fill("--index-url http://${P}.evil.example/", HERE) == (
        "--index-url http://s3.evil.example/"
    )
    for text in (
        "--index-url https://${U}@evil.example/",
        "-f https://${P}.evil.example/",
        "https://own.example:444/${P}",
        "http://own.example/${P}",
        "a-${U}",
    ):
        with pytest.raises(
            EnvironmentSpecError,
            match=r"variables are not filled in for .*'credential_hosts' of the target",
        ) as error:
            fill(text)
        assert "s3" not in str(error.value) and "ada" not in str(error.value)
    for name in ("MISSING", "EMPTY"):
        with pytest.raises(EnvironmentSpecError) as error:
            fill(f"--index-url https://${{{name}}}@own.example/simple")
        assert str(error.value) == f"file: the variable {name} is not set"


def test_variables_in_the_users_own_settings_are_filled_in(home):
    environ = home(
        _dot_config__pip__pip_dot_conf="[global]\nindex-url = https://${U}:${P}@a.example/simple\n",
        _dot_condarc="channels: ['https://${U}:${P}@c.example/own']\n",
    ) | {"U": "ada", "P": "s3"}
    assert index_settings.for_uv(environ)["UV_DEFAULT_INDEX"] == "https://ada:s3@a.example/simple"
    assert sent(["https://a.example/x", "https://c.example/x"], environ) == (
        {"a.example": "ada", "c.example": "ada"},
        (),
    )
    assert index_settings.default_index(environ) == "https://a.example/simple"


def test_uv_gets_what_it_needs_and_no_other_login(home):
    kept = {
        "PATH": "/bin", "HOME": "/home/ada", "LC_ALL": "C", "https_proxy": "http://proxy", "UV_INDEX_X_PASSWORD": "p", "SSL_CERT_DIR": "/certs", "SSL_CERT_FILE": "/own.pem",
        "SSH_AUTH_SOCK": "/agent", "UV_INDEX": "https://a.example/",
    }  # fmt: skip
    dropped = dict.fromkeys(
        ["MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "UV_PYTHON",
         "UV_PUBLISH_TOKEN", "UV_WORKING_DIR", "UV_CONFIG_FILE", "GIT_CONFIG_VALUE_0", "DATABASE_URL"], "x",
    )  # fmt: skip
    assert index_settings.for_uv(home() | kept | dropped) == home() | kept


def test_the_users_uv_toml_counts_before_the_machines(home, tmp_path):
    environ = home(
        _dot_config__uv__uv_dot_toml="offline = false\n[[index]]\nurl = "
        "'https://a.example/'\n[pip]\nno-binary = ['x']\n",
        xdg__uv__uv_dot_toml="offline = true\ncache-dir = '/c'\n[[index]]\nurl = "
        "'https://b.example/'\n",
    ) | {"XDG_CONFIG_DIRS": str(tmp_path / "xdg")}
    both = [{"url": "https://a.example/"}, {"url": "https://b.example/"}]
    merged = {"offline": False, "cache-dir": "/c", "index": both, "pip": {"no-binary": ["x"]}}
    assert index_settings.uv_config(environ) == merged
    assert index_settings.uv_config({**environ, "UV_NO_CONFIG": "1"}) == {}
    assert (
        index_settings.uv_config({**environ, "UV_CONFIG_FILE": str(tmp_path / "xdg/uv/uv.toml")})[
            "offline"
        ]
        is True
    )
    env, config = index_settings.without_building(
        {"UV_NO_BINARY_PACKAGE": "x", "PATH": "/"}, {**merged, "no-binary-package": ["y"]}
    )
    assert (env, config) == ({"PATH": "/"}, {**merged, "pip": {}})


@pytest.mark.parametrize(
    "files",
    [{"_dot_config__uv__uv_dot_toml": "index = ["}, {"_dot_config__pip__pip_dot_conf": "index-url"}, {"_dot_condarc": "channels: {a: b}"},
     {"_dot_condarc": "channels: [{a: b}]"}, {"_dot_condarc": "custom_channels: [a]"}, {"_dot_condarc": "ssl_verify: [a]"}, {"_dot_condarc": "- a"}],
)  # fmt: skip
def test_settings_that_cannot_be_read_are_named_in_one_line(home, files, tmp_path):
    environ = home(**files)
    with pytest.raises(EnvironmentSpecError) as error:
        index_settings.fingerprint(environ)
    assert str(error.value).startswith(f"{tmp_path}/") and "\n" not in str(error.value)


@given(TOML)
def test_no_content_of_uv_toml_is_a_traceback(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "uvconfig"
    (folder / "uv").mkdir(parents=True, exist_ok=True)
    (folder / "uv" / "uv.toml").write_text(toml_text.dump(content))
    environ = {"XDG_CONFIG_HOME": str(folder), "NETRC": str(folder / "none")}
    index_settings.default_index(environ)
    index_settings.fingerprint(environ)
    index_access.find(["https://a.example/x"], (), CLUSTER, environ)


def test_the_fingerprint_changes_with_the_index_and_holds_no_credential(home):
    environ = {
        **home(),
        "UV_DEFAULT_INDEX": "https://ada:secret@a.example/simple",
        "UV_INDEX_X_PASSWORD": "hidden",
    }
    found = index_settings.fingerprint(environ)
    assert "secret" not in str(found) and "hidden" not in str(found)
    assert found != index_settings.fingerprint(
        {**environ, "UV_DEFAULT_INDEX": "https://b.example/simple"}
    )
    assert found == index_settings.fingerprint(
        {**environ, "UV_DEFAULT_INDEX": "https://eve:other@a.example/simple"}
    )


def test_only_a_bundle_of_the_users_own_travels(home, tmp_path):
    environ = home(own_dot_pem="x")
    assert index_settings.own_ca_bundle(
        {**environ, "SSL_CERT_FILE": str(tmp_path / "own.pem")}
    ) == str(tmp_path / "own.pem")
    assert (
        index_settings.own_ca_bundle(
            {**environ, "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}
        )
        is None
    )
    home(_dot_condarc=f"ssl_verify: {tmp_path}/own.pem\n")
    assert index_settings.own_ca_bundle(environ) == str(tmp_path / "own.pem")


@pytest.mark.parametrize(
    ("names", "urls"),
    [
        (("conda-forge", "nodefaults"), ("https://conda.anaconda.org/conda-forge",)),
        (
            ("https://a.example/x/", "bioconda"),
            ("https://a.example/x", "https://conda.anaconda.org/bioconda"),
        ),
        (("defaults",), conda_channels.DEFAULTS),
        ((), ("https://conda.anaconda.org/conda-forge",)),
    ],
)
def test_channels_are_named_as_in_conda(home, names, urls):
    assert conda_channels.load(home()).urls(names) == urls


def test_condarc_says_where_channels_are(home):
    environ = home(
        _dot_condarc="channel_alias: https://mirror.example/\nchannels: [own, "
        "two]\ncustom_channels: {own: https://o.example}\n"
    )
    settings = conda_channels.load(environ)
    assert settings.urls(()) == ("https://o.example/own", "https://mirror.example/two")
    assert conda_channels.load(environ | {"CONDARC": str(Path.home() / "x")}).strict_priority


def test_credentials_leave_a_url():
    for url in (
        "https://ada:x@a.example/own/linux-64/f.conda",
        "https://a.example/t/token/own/linux-64/f.conda",
    ):
        assert conda_channels.without_credentials(url) == "https://a.example/own/linux-64/f.conda"
