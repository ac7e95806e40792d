"""Refuse answers that would fail later: before anything is written, each with its rule and an example."""

import json
import keyword
import re
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

# Answers are data: `tojson` leaves no quote, newline or non-ASCII character that could end this literal.
ANSWERS = json.loads(r'{{ cookiecutter | tojson }}')  # fmt: skip

FREE_TEXT = ("project_name", "description", "author_name")
SLUG_MAX = 32  # SageMaker allows 63 characters for a job's name: slug, stage, digest and attempt share them.

# Folders and files that Windows keeps for its devices, with or without an extension.
RESERVED_ON_WINDOWS = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}

# What YAML reads as a value and not as a name.
WORDS_OF_YAML = {"false", "n", "no", "null", "off", "on", "true", "y", "yes"}

# A package at the project's root goes before everything installed, and shares the root with these folders.
FOLDERS = {"aws", "data", "demo", "docs", "hooks", "mlops", "models", "reports", "test", "tests"}
# As one text: a list would take a line for each name.
DEPENDENCIES = """
    alembic boto3 botocore celery click cloudpickle cookiecutter cruft cryptography docker dulwich dvc dvc_data
    dvc_http dvc_objects dvc_render dvc_s3 dvc_task dvclive fastapi filelock flask fsspec funcy git gto hydra
    hypothesis jinja2 joblib kombu matplotlib mlflow mypy networkx numpy omegaconf opentelemetry orjson
    packaging pandas pathspec pil pip pip_tools piptools platformdirs pluggy psutil pyarrow pydantic pygit2
    pytest requests rich ruamel ruff s3fs s3transfer safetensors sagemaker sagemaker_mlflow scikit_learn scipy
    scmrepo setuptools sklearn skops sqlalchemy sqltrie starlette sympy tabulate tomlkit torch torchvision tqdm
    triton typer urllib3 uvicorn werkzeug wheel yaml yarl
"""

REGION = r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}"
ROLE_ARN = r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+"
MLFLOW_ARN = r"arn:aws[a-z-]*:sagemaker:" + REGION + r":\d{12}:mlflow-(app|tracking-server)/[A-Za-z0-9-]+"


def problems(answers: dict[str, str]) -> Iterator[str]:
    """Yield the rule that each bad answer breaks, as `key 'answer': rule, for example …`."""
    checks = {
        **dict.fromkeys(FREE_TEXT, free_text),
        "project_slug": slug,
        "package_name": package,
        "aws_region": region,
        "s3_bucket": bucket,
        "sagemaker_role_arn": role,
        "mlflow_tracking_uri": tracking_uri,
    }
    for key, check in checks.items():
        rule = check(answers[key])
        if rule:
            yield f"{key} {answers[key]!r}: {rule}"


def free_text(text: str) -> str | None:
    """Return the broken rule of a name or description: one line, not empty."""
    if not text.strip():
        return "must not be empty, for example 'Digit Classifier'"
    if not text.isprintable():
        return "must be one line of printable characters, for example 'Digit Classifier'"
    return None


def slug(name: str) -> str | None:
    """Return the broken rule of the folder's name: good on every system, in Git tags, MLflow and SageMaker."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > SLUG_MAX:
        return (
            "must be lowercase letters, digits and single hyphens, begin with a letter"
            f" and have at most {SLUG_MAX} characters, for example 'digit-classifier'"
        )
    if name in WORDS_OF_YAML:
        return f"is read as a value in YAML files, for example '{name}-model' is not"
    if name in RESERVED_ON_WINDOWS:
        return f"is a device's name on Windows and can't be a folder there, for example '{name}-model' can"
    return None


def package(name: str) -> str | None:
    """Return the broken rule of the package's name: one that `python -m` finds, and that hides nothing else."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > SLUG_MAX:
        return (
            "must be lowercase letters, digits and single underscores, begin with a letter"
            f" and have at most {SLUG_MAX} characters, for example 'digit_classifier'"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return f"is a word of the Python language, for example '{name}_model' is not"
    if name in sys.stdlib_module_names:
        return f"would hide Python's own module {name}, for example '{name}_model' would not"
    if name in DEPENDENCIES.split():
        return f"would hide the package {name}, which the project needs, for example 'my_{name}' would not"
    if name in FOLDERS or name in RESERVED_ON_WINDOWS:
        return f"is already taken by a folder of the project or of the system, for example '{name}_model' is free"
    return None


def region(name: str) -> str | None:
    """Return the broken rule of the AWS region."""
    if not re.fullmatch(REGION, name):
        return "must be the code of an AWS region, for example 'eu-central-1'"
    return None


def bucket(name: str) -> str | None:
    """Return the broken rule of the bucket's name; blank is allowed.

    Source: "General purpose bucket naming rules" of the Amazon S3 User Guide.
    """
    formed = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name) and ".." not in name
    address = re.fullmatch(r"\d+(\.\d+){3}", name)
    reserved = name.startswith(("xn--", "sthree-", "amzn-s3-demo-")) or name.endswith(
        ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
    )
    if name and (not formed or address or reserved):
        return (
            "must be the bare name of a bucket, without s3:// or a path: 3 to 63 lowercase letters, digits, hyphens"
            " and single dots, and nothing that AWS keeps for itself; for example 'my-team-ml', or blank"
        )
    return None


def role(arn: str) -> str | None:
    """Return the broken rule of the role's ARN; blank is allowed."""
    if arn and not re.fullmatch(ROLE_ARN, arn, re.ASCII):
        return "must be the ARN of an IAM role, for example 'arn:aws:iam::123456789012:role/SageMakerJobs', or blank"
    return None


def tracking_uri(uri: str) -> str | None:
    """Return the broken rule of the tracking URI; blank is allowed."""
    if not uri or re.fullmatch(MLFLOW_ARN, uri):
        return None
    try:
        url = urlsplit(uri)
        formed = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # an address or a port that is none
        formed = False
    formed = formed and re.fullmatch(r"[!-~]+", uri) is not None and not re.search(r"[\"'<>\\^`{|}]", uri)
    if not formed:
        return (
            "must be a URL or the ARN of an MLflow App or tracking server, for example 'https://mlflow.example.com'"
            " or 'arn:aws:sagemaker:eu-central-1:123456789012:mlflow-app/app-ABC123', or blank"
        )
    if url.username or url.password:
        return (
            "must not hold a password, which Git would keep: give it in MLFLOW_TRACKING_USERNAME"
            " and MLFLOW_TRACKING_PASSWORD, for example 'https://mlflow.example.com'"
        )
    return None


broken_rules = list(problems(ANSWERS))
if broken_rules:
    print("No project was made. Please answer again:", *broken_rules, sep="\n  ", file=sys.stderr)
    sys.exit(1)
