"""Which files look like secrets."""

import pytest

from mlflow_backend.files.secret_files import is_secret

KEY = b"-----BEGIN RSA " + b"PRIVATE KEY-----"
TEXT = b"MIIEpAIBAAKCAQEA7bq2n1fHk9"
AWS = b"AWS_SECRET_" + b"ACCESS_KEY"
KUBECONFIG = (
    b"apiVersion: v1\nclusters: []\ncontexts: []\nkind: Config\nusers:\n- name: ada\n  user:\n    "
)


@pytest.mark.parametrize(
    "path",
    [
        ".env", ".env.local", "deep/.envrc", ".npmrc", ".pypirc", ".pgpass", ".netrc", "_netrc", ".git-credentials", "id_rsa",
        "conf/ID_ED25519", "tls.key", "a.p12", "a.pfx", "kubeconfig", "dev.kubeconfig", ".ssh/config", "home/.ssh/known_hosts",
        ".aws/credentials", "x/.config/gcloud/legacy/a.json", ".kube/config", ".docker/config.json", ".mlflow/credentials", ".gnupg/a",
    ],
)  # fmt: skip
def test_names_and_places_of_secrets(path):
    assert is_secret(path, b"")


@pytest.mark.parametrize(
    "path",
    ["train.py", ".env.example", ".env.template", "id_rsa.pub", "config.json", "docker/config.json", "config", "kube/config", "environment",
     "keys.txt", "monkey", "token", "a.sshx/b", "gcloud/a", "x.ssh/b"],
)  # fmt: skip
def test_names_that_only_resemble_them(path):
    assert not is_secret(path, b"")


@pytest.mark.parametrize(
    "head",
    [
        KEY + b"\n" + TEXT,
        b"\n" + KEY + b"\n",
        b"x" * 900_000 + b"\n" + KEY + b"\n",
        b'{"type": "service_account", "private_key": "' + KEY + b"\\n" + TEXT + b'\\n"}',
        b"key: |\n    " + KEY + b"\n    " + TEXT,
        b"-----BEGIN PGP " + b"PRIVATE KEY BLOCK-----\n",
        b"PuTTY-User-Key-File-2: ssh-rsa\n",
        b"export " + AWS + b"=abc\n",
        AWS.lower() + b" = wJalrXUtnFEMI/K7MDENG\n",
        b'{"' + AWS + b'": "wJalrXUtnFEMI"}',
        b"users:\n- client-key-data: x\n",
        KUBECONFIG + b"token: abc",
        KUBECONFIG + b"client-key-data: abc",
        b'{"clusters": [], "contexts": [], "users": [{"user": {"token": "abc"}}]}',
        b'{"auths": {"ghcr.io": {"auth": "YWRhOnB3"}}}',
        (
            b'{"client_id": "x", "client_secret": "y", "refresh_token": "z", "type": '
            b'"authorized_user"}'
        ),
    ],
)
def test_contents_of_secrets(head):
    assert is_secret("file", head) and is_secret("conf/a.json", head)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"find lines with " + KEY + b" in them",
        AWS + b"=$OTHER\n",
        AWS + b": ${{ secrets.X }}\n",
        AWS + b"=\n",
        b"the variable " + AWS + b" is read",
        KUBECONFIG + b"tokenFile: /x",
        KUBECONFIG + b"exec: {command: aws}",
        b'{"auths": {}}',
        b"-----BEGIN PUBLIC KEY-----\n" + TEXT,
        b"token: abc\n",
    ],
)
def test_contents_that_only_resemble_them(head):
    assert not is_secret("file", head)


@pytest.mark.parametrize(
    "text",
    [
        b"s3 = boto3.client('s3', " + AWS.lower() + b"=secret)",
        b"s3 = client(\n    " + AWS.lower() + b"=os.environ['X'],\n)",
        b"def login(" + AWS.lower() + b": str = None):",
        b"if b'" + KEY + b"' in data:",
        b'{"clusters": c, "contexts": d, "users": [{"token": token}]}',
    ],
)
def test_a_program_that_handles_secrets_is_none(text):
    assert not is_secret("train.py", text)


@pytest.mark.parametrize(
    "text",
    [
        b"s3 = client(" + AWS.lower() + b"='wJalrXUtnFEMI/K7MDENG/bPxRfiCY')",
        b'os.environ["' + AWS + b'"] = "wJalrXUtnFEMI/K7MDENG/bPxRfiCY"',
        b'os.environ.setdefault("' + AWS + b'", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY")',
        b'   "os.environ[\\"' + AWS + b'\\"] = \\"wJalrXUtnFEMI/K7MDENG/bPxRfiCY\\"\\n"',
        b"PEM = '''\n" + KEY + b"\n" + TEXT,
    ],
)
def test_a_program_with_a_secret_in_it_is_one(text):
    assert is_secret("train.py", text) and is_secret("notebook.ipynb", text)


@pytest.mark.timeout(60)  # a quadratic one needs hours
@pytest.mark.parametrize(
    "part", [b"\n", b" \n", b"-", b"PRIVATE KEY-----", b"-----BEGIN ", AWS, AWS + b"=", b"token", b"clusters users contexts token: ", b'"auths"auth']
)  # fmt: skip
@pytest.mark.parametrize("path", ["file", "a.py"])
def test_no_content_takes_long(path, part):
    is_secret(path, part * (1_000_000 // len(part)))
