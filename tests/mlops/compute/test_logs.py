"""What a job printed, and no credential in it."""

import pytest
from mlops.compute.sagemaker.follow import mask_secrets


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("epoch 3: loss 0.2", "epoch 3: loss 0.2"),
        ("key AKIAIOSFODNN7EXAMPLE.", "key ****."),
        ("ASIAIOSFODNN7EXAMPLE", "****"),
        ("aws_secret_access_key=abc/def+1 and more", "aws_secret_access_key=**** and more"),
        ("AWS_SESSION_TOKEN=abc", "AWS_SESSION_TOKEN=****"),
        ("GET https://me:secret@example.org/x", "GET https://example.org/x"),
    ],
)
def test_mask_secrets_credentials_are_not_shown(line: str, shown: str) -> None:
    assert mask_secrets(line) == shown
