"""Who moves an alias: the Git identity, and the AWS caller when there are credentials."""

import logging
from dataclasses import dataclass

from ..errors import ProjectError
from ..tracking.git import GitError, git

CONNECT_S, READ_S = 3, 5
NO_CREDENTIALS = "none"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Actor:
    """A person, as two systems know them.

    Args:
        git: `name <address>`.
        aws: ARN; `none` without credentials, `unknown (…)` when AWS could not be asked.
    """

    git: str
    aws: str


def actor() -> Actor:
    """Return who runs this.

    Raises:
        ProjectError: Git does not know them.
    """
    return Actor(_git_identity(), _aws_caller())


def _git_identity() -> str:
    try:
        # Without useConfigOnly, Git makes up a name of the account and the machine.
        found = git("-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT")
    except GitError as error:
        raise ProjectError(
            "Git does not know who you are, and the registry records who moves an alias",
            "git config user.name 'Your Name' && git config user.email you@example.org",
        ) from error
    return found.rsplit(" ", 2)[0]  # without the time and its zone


def _aws_caller() -> str:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            return NO_CREDENTIALS
        sts = session.client(
            "sts",
            region_name=session.region_name or "us-east-1",
            config=Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"total_max_attempts": 1}),
        )
        return str(sts.get_caller_identity()["Arn"])
    except (BotoCoreError, ClientError) as error:
        log.warning("AWS did not say who you are, and the record will say so: %s", error)
        return f"unknown ({type(error).__name__})"
