"""What `import mlops` offers to the team's package."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import mlops
import pytest
from mlops import cli

from .conftest import SKELETON


def test_names_are_none_of_the_submodules() -> None:
    modules = {module.name for module in pkgutil.iter_modules(mlops.__path__)}
    assert not modules & set(mlops.__all__)


@pytest.mark.parametrize("name", mlops.__all__)
def test_name_has_a_docstring_that_describes_its_arguments_and_errors(name: str) -> None:
    item = getattr(mlops, name)
    text = inspect.getdoc(item) or ""
    assert text.endswith((".", "`", ")")) or "\n" in text, text
    if inspect.isfunction(item):
        described = text.partition("Args:")[2]
        assert all(f"\n    {argument}: " in described for argument in inspect.signature(item).parameters), text


def test_names_for_editors_are_those_at_run_time() -> None:
    tree = ast.parse(Path(str(mlops.__file__)).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assigned = {
        name.id
        for node in block.body
        if isinstance(node, ast.Assign)
        for name in ast.walk(node.targets[0])
        if isinstance(name, ast.Name)
    }
    assert (imported - {None}) | assigned == set(mlops.__all__) == set(dir(mlops))


def test_names_are_all_used_by_a_team() -> None:
    teams = (SKELETON / "{{cookiecutter.package_name}}", Path(__file__).parent / "toy/flowers")
    texts = [path.read_text(encoding="utf-8") for team in teams for path in team.rglob("*.py")]
    imports = (node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom))
    used = {alias.name for node in imports if node.module == "mlops" for alias in node.names}
    assert used == set(mlops.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'mlops' has no attribute 'open_file'"):
        mlops.open_file  # noqa: B018


def test_import_of_the_command_line_needs_click_alone() -> None:
    """Each folder adds its verbs: what they need is imported when one is called."""
    code = "import sys, mlops.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=SKELETON, check=True, capture_output=True, text=True)
    plain = subprocess.run([sys.executable, "-c", code.replace("mlops.cli", "click")], capture_output=True, text=True)
    others = set(done.stdout.split()) - set(plain.stdout.split()) - sys.stdlib_module_names
    assert others == {"mlops"}


@pytest.mark.parametrize("folder", cli.FOLDERS)
def test_every_folder_adds_verbs(folder: str) -> None:
    groups = importlib.import_module(f"mlops.{folder}.cli").groups
    assert groups and all(cli.main.commands[group.name] is group for group in groups)
