"""A job asks for its AWS credentials as in SageMaker; nobody else gets them."""

import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import TokenRetrievalError
from mlops.compute.sandbox import credentials
from mlops.errors import ProjectError

SECRET = {"AccessKeyId": "AKIATEST", "SecretAccessKey": "a secret", "Token": ""}


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the credentials of whoever runs the tests."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def test_serve_gives_them_to_clients_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in credentials.serve(lambda: SECRET).items():
        monkeypatch.setenv(name, value)
    served = boto3.Session().get_credentials()
    assert served is not None
    assert served.get_frozen_credentials()[:2] == ("AKIATEST", "a secret")


def test_serve_refuses_who_does_not_know_the_token() -> None:
    address = credentials.serve(lambda: SECRET)["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(address)


def test_find_takes_those_that_dvc_would_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = {"access_key_id": "AKIADVC", "secret_access_key": "of DVC"}
    assert credentials.find(configured)()["SecretAccessKey"] == "of DVC"
    (tmp_path / "credentials").write_text(
        "[team]\naws_access_key_id = AKIATEAM\naws_secret_access_key = of the team\n", encoding="utf-8"
    )
    assert credentials.find({"profile": "team"})()["AccessKeyId"] == "AKIATEAM"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the environment")
    assert credentials.find({})() == {"AccessKeyId": "AKIAENV", "SecretAccessKey": "of the environment", "Token": ""}


def test_find_after_a_login_has_ended_says_how_to_log_in(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile team]\nsso_session = office\nsso_account_id = 123456789012\nsso_role_name = dev\n"
        "[sso-session office]\nsso_region = us-east-1\nsso_start_url = https://example.org\n",
        encoding="utf-8",
    )
    with pytest.raises(ProjectError, match=r"session has ended\nFix: aws sso login --sso-session office"):
        credentials.find({"profile": "team"})


def test_serve_says_that_a_login_has_ended_meanwhile(capfd: pytest.CaptureFixture[str]) -> None:
    def ask() -> dict[str, str]:
        raise TokenRetrievalError(provider="sso", error_msg="Token has expired and refresh failed")

    variables = credentials.serve(ask)
    token = {"Authorization": variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"]}
    address = urllib.request.Request(variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"], headers=token)
    with pytest.raises(urllib.error.HTTPError, match="500") as refused:
        urllib.request.urlopen(address)
    assert b"session has ended" in refused.value.read()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("remote", [{}, {"profile": "nobody"}], ids=["none", "unknown-profile"])
def test_find_without_any_says_where_to_get_them(remote: dict[str, str]) -> None:
    with pytest.raises(ProjectError, match="aws configure"):
        credentials.find(remote)
