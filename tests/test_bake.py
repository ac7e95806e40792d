"""Whatever is answered, the project is whole: the right files, each of them valid, nothing of the template left."""

import ast
import json
import re
import shutil
import tomllib
from itertools import combinations, product
from pathlib import Path

import pytest
from packaging.version import Version
from ruamel.yaml import YAML

from .conftest import TEMPLATE, Bake, BakedProject
from .links import dangling_links, links

PROMPTS = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
CHOICES: dict[str, list[str]] = {
    key: answers for key, answers in PROMPTS.items() if isinstance(answers, list) and not key.startswith("_")
}
SKELETON = TEMPLATE / "{{cookiecutter.project_slug}}"
PACKAGE = "{{cookiecutter.package_name}}"

# The only files that Jinja renders; of tests, the lines that import the package. All else reads as what it is.
RENDERED = {
    ".dvc/config",
    "LICENSE",
    "Makefile",
    "README.md",
    *(f"docs/{page}.md" for page in ("README", "consent", "data", "experiments", "json", "models")),
    *(f"docs/{page}.md" for page in ("reproduce", "trace", "training")),
    *(f"docs/{page}-walkthrough.md" for page in ("dataset", "healthcare", "lineage", "records", "sagemaker")),
    *(f"docs/{page}.md" for page in ("mlflow", "predictions", "records-athena", "sagemaker")),
    "data/consent.csv",
    "dvc.yaml",
    "params.yaml",
    "platform.yaml",
    "pyproject.toml",
}

# What the answers other than the default take away: {(prompt, answer): patterns of paths that are not there}.
TAKEN_AWAY = {
    ("compute", "local"): (
        *("mlops/compute/*", "mlops/compute/sandbox/*", "mlops/compute/sagemaker/*"),
        "mlops/compute/sagemaker/checks/*",
        *("aws/*", "Dockerfile", ".dockerignore", "docs/backends.md", "docs/jobs.md", "docs/sagemaker*.md"),
    ),
    ("serving", "no"): ("mlops/serving/*",),
    ("lineage", "dataset"): (
        *("mlops/audit/*", "mlops/optout/*", "docs/healthcare-*"),
        *(f"docs/{page}.md" for page in ("audits", "records-athena", "records-walkthrough")),
    ),
}

HOSTILE = {
    "apostrophe": "O'Connor's",
    "quotes": 'the "best" one',
    "triple-quotes": "\"\"\"'''",
    "backslash": "back\\slash \\n \\u0041 \\",
    "unicode": "Größe 数字 ✓ 🎉",
    "markup": "<b>x</b> & y --> <!--",
    "shell": "$(touch ran) `touch ran` ${x} $x; touch ran #",
    "yaml": "yes: {a: [1, *b]} # - | >",
    "format": "{x} %s %(x)s {0}",
    "jinja": "{{ '{{' }} 7 * 7 }} {{ '{%' }} x",
}


def combination_of(answers: dict[str, str]) -> str:
    """Name a combination for the test report."""
    return "-".join(answers.values()) or "defaults"


def pairs_of_choices() -> list[dict[str, str]]:
    """Return the defaults, and few answers to all prompts in which every choice meets every choice of every other."""
    prompts = list(combinations(CHOICES, 2))
    unmet = {((prompt, a), (other, b)) for prompt, other in prompts for a in CHOICES[prompt] for b in CHOICES[other]}
    whole = [dict(zip(CHOICES, answers, strict=True)) for answers in product(*CHOICES.values())]
    combinations_of_answers: list[dict[str, str]] = [{}]
    while unmet:
        best = max(whole, key=lambda answers: len(unmet & set(combinations(answers.items(), 2))))
        unmet -= set(combinations(best.items(), 2))
        combinations_of_answers.append(best)
    return combinations_of_answers


def expected_files(project: BakedProject, answers: dict[str, str]) -> set[str]:
    """Derive the files that a project must have: the skeleton's, without what the answers take away."""
    chosen = {key: choices[0] for key, choices in CHOICES.items()} | answers
    taken_away = [pattern for choice in chosen.items() for pattern in TAKEN_AWAY.get(choice, ())]
    return {".template.json"} | {
        path.replace(PACKAGE, project.package)
        for path in skeleton_files()
        if not any(Path(path).match(pattern.replace("PACKAGE", PACKAGE)) for pattern in taken_away)
    }


def skeleton_files() -> set[str]:
    """Return the paths of the skeleton's files, without what tools leave behind."""
    paths = (path.relative_to(SKELETON) for path in SKELETON.rglob("*") if path.is_file())
    left_behind = re.compile(r"__pycache__|\.\w+_cache")
    return {path.as_posix() for path in paths if not any(left_behind.fullmatch(part) for part in path.parts)}


def check_parses(path: Path) -> None:
    """Read a file as what its name says it is."""
    text = path.read_bytes().decode("utf-8")
    if path.suffix == ".py":
        ast.parse(text)
    elif path.suffix == ".toml":
        tomllib.loads(text)
    elif path.suffix in (".yaml", ".yml"):
        YAML().load(text)  # CloudFormation has tags of its own
    elif path.suffix == ".json":
        json.loads(text)


@pytest.mark.parametrize("answers", pairs_of_choices(), ids=combination_of)
def test_bake_every_pair_of_choices_has_exactly_its_files_and_all_parse(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)
    assert project.files() == expected_files(project, answers)
    for name in project.files():
        check_parses(project.path / name)
    pages = sorted(name for name in project.files() if name.endswith(".md"))
    assert dangling_links(project.path, pages) == []
    in_index = {f"docs/{link}" for link in links(project.path / "docs/README.md")}
    assert {page for page in pages if page.startswith("docs/")} <= in_index | {"docs/README.md"}


def test_links_of_the_template_s_own_pages_lead_somewhere() -> None:
    assert dangling_links(TEMPLATE, ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/benchmarks.md"]) == []


def test_bake_every_choice_has_a_text_in_prompts() -> None:
    texts = PROMPTS["__prompts__"]
    assert set(texts) == {key for key in PROMPTS if not key.startswith("_")}
    assert {key: [name for name in texts[key] if name != "__prompt__"] for key in CHOICES} == CHOICES


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_bake_hostile_text_arrives_as_it_is_and_breaks_nothing(bake: Bake, tmp_path: Path, text: str) -> None:
    prompts = ("project_name", "description", "author_name")
    project = bake(project_slug="hostile", package_name="hostile_model", **dict.fromkeys(prompts, text))
    for name in project.files():
        check_parses(project.path / name)
    assert project.run("git", "log", "--format=%s").stdout.count("\n") == 1
    assert list(tmp_path.rglob("ran")) == []
    assert rendered_by_cookiecutter(text) in (project.path / "LICENSE").read_text(encoding="utf-8")


def rendered_by_cookiecutter(text: str) -> str:
    """Return what cookiecutter makes of a default: given on its command line, an answer is rendered as Jinja."""
    from jinja2 import Environment

    return str(Environment(autoescape=False).from_string(text).render())  # noqa: S701 (text, not a web page)


def test_bake_slug_is_text_in_yaml(bake: Bake) -> None:
    slug = "e1-00"
    project = bake(project_slug=slug)
    platform = YAML(typ="safe").load((project.path / "platform.yaml").read_text(encoding="utf-8"))
    pipeline = YAML(typ="safe").load((project.path / "dvc.yaml").read_text(encoding="utf-8"))
    assert platform["project"] == slug
    assert list(pipeline["artifacts"]) == [slug]


def test_bake_aws_answers_are_where_they_belong(bake: Bake) -> None:
    uri = "https://mlflow.example.com"
    project = bake(s3_bucket="my-team-ml", aws_region="eu-central-1", mlflow_tracking_uri=uri)
    config = (project.path / ".dvc" / "config").read_text(encoding="utf-8")
    assert "s3://my-team-ml/digit-classifier" in config
    assert "eu-central-1" in config
    assert YAML(typ="safe").load((project.path / "platform.yaml").read_text(encoding="utf-8"))["tracking_uri"] == uri


@pytest.mark.parametrize("dataset", CHOICES["dataset"])
def test_bake_set_param_of_dvc_changes_one_line_of_params_yaml(bake: Bake, dataset: str) -> None:
    from dvc.utils.hydra import apply_overrides  # what `dvc exp run -S` does to the file

    path = bake(dataset=dataset).path / "params.yaml"
    written = path.read_text(encoding="utf-8")
    sections = YAML(typ="safe").load(written)
    keys = [f"{section}.{key}" for section in ("data", "split", "train") for key in sections[section]]
    for key in (*keys, "register.at_least.test_acc"):
        path.write_text(written, encoding="utf-8", newline="\n")
        apply_overrides(path, [f"{key}=12345678"])
        lines = zip(written.splitlines(), path.read_text(encoding="utf-8").splitlines(), strict=True)
        changed = [(old, new) for old, new in lines if old != new]
        assert len(changed) == 1, (key, changed)
        old, new = changed[0]
        assert f"{key.rpartition('.')[2]}: 12345678" in new
        assert new.partition("#")[2] == old.partition("#")[2], "its comment stays"


def test_bake_without_bucket_names_none(bake: Bake) -> None:
    assert "s3://" not in (bake().path / ".dvc" / "config").read_text(encoding="utf-8")


def test_bake_license_is_the_chosen_one(bake: Bake, tmp_path: Path) -> None:
    for license_name, words in {"MIT": "MIT License", "Proprietary": "All rights reserved"}.items():
        project = bake(license=license_name, project_slug=license_name.lower(), package_name="demo_model")
        text = (project.path / "LICENSE").read_text(encoding="utf-8")
        assert words in text
        assert "Copyright (c) The Digit Classifier authors" in text


def test_bake_leaves_no_template_text_no_crlf_and_no_caches(bake: Bake) -> None:
    project = bake()
    for name in project.files():
        content = (project.path / name).read_bytes()
        assert b"\r\n" not in content, name
        assert not re.search(rb"cookiecutter\.[a-z_]+ *[|}]", content), name
        is_page = name in ("mlops/optout/report.html", "mlops/lineage/page.html")  # templates of the project's own
        assert b"{%" not in content or is_page, name
        if not name.startswith((".github/", "mlops/", f"{project.package}/")):
            assert b"{{" not in content, name
    caches = [path for path in project.path.rglob("*cache*") if path.is_dir() or path.suffix != ".py"]
    assert [path for path in caches if path.name != "cache" and path.parts[-2] != ".dvc"] == []


def test_bake_from_a_used_working_tree_copies_no_bytecode(tmp_path: Path) -> None:
    from cookiecutter.main import cookiecutter

    template = tmp_path / "template"
    shutil.copytree(TEMPLATE, template, ignore=shutil.ignore_patterns(".git", ".venv", "demo", "*_cache"))
    stray = template / SKELETON.name / PACKAGE / "data" / "__pycache__"
    stray.mkdir(exist_ok=True)
    (stray / "old.cpython-311.pyc").write_bytes(b"\x00")
    path = Path(cookiecutter(str(template), no_input=True, default_config=True, output_dir=str(tmp_path)))
    assert list(path.rglob("__pycache__")) == []


def test_skeleton_has_jinja_only_where_it_is_allowed() -> None:
    for name in skeleton_files():
        text = (SKELETON / name).read_bytes().decode("utf-8", errors="ignore")
        if name in RENDERED:
            continue
        if name.startswith(
            (f"{PACKAGE}/", "mlops/", ".github/")
        ):  # copied as they are: braces there are Python's and GitHub's
            assert "cookiecutter." not in text, name
            continue
        lines = [line for line in text.splitlines() if re.search(r"\{\{|\{%|\{#", line)]
        if name.startswith("tests/") and name.endswith(".py"):
            allowed = re.compile(r"\s*(from|import) \{\{ cookiecutter\.package_name \}\}")
            lines = [line for line in lines if not allowed.match(line)]
        assert lines == [], name


def test_bake_lint_own_ruff_is_clean(bake: Bake) -> None:
    project = bake()
    project.run("ruff", "check", ".")
    project.run("ruff", "format", "--check", ".")


@pytest.mark.slow
def test_bake_lint_own_mypy_is_clean(bake: Bake) -> None:
    project = bake()
    project.run("mypy")
    assert project.run("git", "status", "--porcelain").stdout == "", "the tools' caches are ignored by Git"


def test_bake_own_tests_of_the_package_pass(bake: Bake) -> None:
    check_own_tests(
        bake(project_name="A Project's Own Tests", package_name="own_tests"), "--ignore=tests/test_pipeline.py"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"dataset": "cifar10", "compute": "local"},
        {"dataset": "folder", "compute": "local", "lineage": "dataset", "serving": "no"},
        {"lineage": "dataset", "serving": "no", "license": "Proprietary"},
    ],
    ids=combination_of,
)
def test_bake_own_tests_pass(bake: Bake, answers: dict[str, str]) -> None:
    check_own_tests(bake(**answers))


def check_own_tests(project: BakedProject, *arguments: str) -> None:
    """Run the project's own tests."""
    done = project.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, check=False)
    assert done.returncode == 0, done.stdout[-5000:]


def test_own_tests_are_few_enough_to_read() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (SKELETON / "tests").rglob("*.py")}
    assert sum(lines.values()) <= 1_000


def test_lock_pins_every_direct_dependency_and_no_host_or_path(bake: Bake) -> None:
    project = bake()
    lines = (project.path / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[\w.!]+", line)] == []
    assert lines == sorted(lines, key=lambda line: line.split("==")[0])
    metadata = tomllib.loads((project.path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = metadata["dependencies"] + metadata["optional-dependencies"]["dev"]
    direct = {re.split("[<>=]", name)[0].replace(".", "-") for name in wanted}
    assert direct <= {line.split("==")[0] for line in lines}
    pins = json.loads((project.path / "environment.json").read_text(encoding="utf-8"))
    assert {f"{name}=={version}" for name, version in pins.items()} <= set(lines)


def test_locks_of_template_and_project_agree(bake: Bake) -> None:
    own = dict(line.split("==") for line in (TEMPLATE / "requirements.lock").read_text(encoding="utf-8").split())
    baked = dict(line.split("==") for line in (bake().path / "requirements.lock").read_text(encoding="utf-8").split())
    assert {name: own[name] for name in own.keys() & baked} == {name: baked[name] for name in own.keys() & baked}


def test_template_has_one_version_whose_changes_are_listed() -> None:
    version = Version(PROMPTS["_version"])
    heading = "Unreleased" if version.is_devrelease else version.public
    assert f"\n## {heading}" in (TEMPLATE / "CHANGELOG.md").read_text(encoding="utf-8")


def test_pyproject_is_toml_before_it_is_rendered_and_its_packages_are_plain() -> None:
    """`update/` reads them in the template."""
    content = tomllib.loads((SKELETON / "pyproject.toml").read_text(encoding="utf-8"))
    packages = [*content["project"]["dependencies"], *content["tool"]["mlops"]["numeric"]]
    packages += content["project"]["optional-dependencies"]["dev"]
    assert [text for text in packages if "{" in text] == []
    for name in ("requirements.lock", "environment.json"):
        assert "{{" not in (SKELETON / name).read_text(encoding="utf-8")
