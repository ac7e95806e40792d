"""Who moves an alias: Git must know, AWS may."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlops.errors import ProjectError
from mlops.registry.promotion import identity

ARN = "arn:aws:sts::123456789012:assumed-role/Trainer/ada"
ANSWER = f"""<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>{ARN}</Arn><UserId>AROA:ada</UserId><Account>123456789012</Account></GetCallerIdentityResult>
<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>"""


class Sts(http.server.BaseHTTPRequestHandler):
    """Says who calls, to those who sign."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        known = b"Action=GetCallerIdentity" in body and "Credential=AKIDEXAMPLE/" in self.headers["Authorization"]
        self.send_response(200 if known else 403)
        self.end_headers()
        self.wfile.write(ANSWER.encode() if known else b"<ErrorResponse/>")

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that knows no Git identity and no AWS credentials."""
    for name in ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL"):
        monkeypatch.delenv(f"GIT_{name}", raising=False)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION", "DEFAULT_REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.delenv("EMAIL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ada(tmp_path: Path) -> None:
    """Git knows Ada."""
    (tmp_path / "gitconfig").write_text("[user]\nname = Ada Byron\nemail = ada@example.org\n", encoding="utf-8")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS credentials, and no network to AWS."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")


@pytest.fixture
def sts(credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An STS that answers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sts) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


@pytest.mark.parametrize("config", ["", "[user]\nname = Ada\n", "[user]\nemail = ada@example.org\n"])
def test_identity_unknown_to_git_is_refused_with_the_fix(tmp_path: Path, config: str) -> None:
    (tmp_path / "gitconfig").write_text(config, encoding="utf-8")
    with pytest.raises(ProjectError, match="git config user.name 'Your Name' && git config user.email"):
        identity()


def test_identity_without_credentials_is_known_by_git(ada: None) -> None:
    assert identity() == ("Ada Byron <ada@example.org>", "none")


def test_identity_with_credentials_is_known_by_aws_too(ada: None, sts: None) -> None:
    assert identity() == ("Ada Byron <ada@example.org>", ARN)


def test_identity_when_aws_does_not_answer_is_unknown_and_said(
    ada: None, credentials: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert identity()[1] == "unknown (EndpointConnectionError)"
    assert "AWS did not say who you are" in caplog.text


def test_identity_whom_aws_refuses_is_unknown_and_said(
    ada: None, sts: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOTHER")
    assert identity()[1] == "unknown (ClientError)"
    assert "AWS did not say who you are" in caplog.text


def test_identity_with_a_profile_that_is_not_there_is_unknown_and_said(
    ada: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "gone")
    assert identity()[1] == "unknown (ProfileNotFound)"
    assert "gone" in caplog.text
