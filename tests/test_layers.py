"""What each layer may load. The contracts in pyproject.toml hold who may import whom."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cifar_ray
from tests.conftest import REPOSITORY

PACKAGE = Path(cifar_ray.__file__).parent
CLI_FILES = sorted((PACKAGE / "cli").glob("**/*.py"))
HEAVY = (
    *("torch", "torchvision", "ray", "numpy", "pyarrow", "openvino", "pandas", "PIL", "simplejpeg"),
    *("safetensors", "boto3", "botocore", "matplotlib", "sklearn", "scipy", "tensorboard"),
)
DEEPER = ("images", "models", "training", "prediction", "on_ray")

# Refuses the modules named in its arguments, then imports everything but on_ray.
IMPORT_WITHOUT = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import cifar_ray

def names(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name == "cifar_ray.on_ray":
            continue
        yield module.name
        if module.ispkg:
            yield from names(importlib.import_module(module.name))

for name in names(cifar_ray):
    importlib.import_module(name)
    print(name)
"""


def run_python(*args: str) -> str:
    done = subprocess.run([sys.executable, "-c", *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["cifar_ray", "cifar_ray.config", "cifar_ray.cli.main"])
def test_import_answers_at_once(module: str) -> None:
    loaded = run_python(f"import sys, {module}; print(*sys.modules)").split()
    ours = [f"cifar_ray.{name}" for name in DEEPER]
    assert [name for name in (*HEAVY, *ours) if name in loaded] == []


@pytest.mark.parametrize("module", ["prediction", "worker", "shards", "placing"])
def test_labelling_on_ray_waits_for_nothing_of_training(module: str) -> None:
    # Seconds of each start: `ray.data` brings pandas and is all that may be heavy.
    loaded = run_python(f"import sys, cifar_ray.on_ray.{module}; print(*sys.modules)").split()
    slow = ("torch", "torchvision", "matplotlib", "sklearn", "scipy", "cifar_ray.training")
    assert [name for name in slow if name in loaded] == []


def test_every_module_outside_on_ray_imports_without_ray() -> None:
    imported = run_python(IMPORT_WITHOUT, "ray").split()
    assert {"cifar_ray.cli", "cifar_ray.models", "cifar_ray.prediction"} <= set(imported)


def module_level_imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports when it is loaded."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} is a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo.extend(ast.iter_child_nodes(node))


def is_light(name: str) -> bool:
    """Tell whether a file of cli may import `name` before a command runs."""
    if name == "cifar_ray.__version__":
        return True
    top = name.partition(".")[0]
    ours = ("cifar_ray.cli", "cifar_ray.config", "cifar_ray.errors")
    return (
        top in sys.stdlib_module_names
        or top in ("typer", "rich")
        or any(f"{name}.".startswith(f"{allowed}.") for allowed in ours)
    )


@pytest.mark.parametrize("path", CLI_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_cli_reaches_deeper_only_inside_a_command(path: Path) -> None:
    assert [name for name in module_level_imports(path) if not is_light(name)] == []


@pytest.mark.parametrize(
    ("source", "heavy"),
    [
        ("import torch", ["torch"]),
        (
            "try:\n    from cifar_ray.models import registry\nfinally:\n    pass",
            ["cifar_ray.models.registry"],
        ),
        ("def predict() -> None:\n    import torch", []),
        ("if TYPE_CHECKING:\n    import torch", []),
        ("import json, typer\nfrom cifar_ray.config.recipes import RECIPES", []),
        ("from cifar_ray import __version__, training", ["cifar_ray.training"]),
        ("from cifar_ray.configuration import x", ["cifar_ray.configuration.x"]),
    ],
)
def test_the_check_of_cli_sees_what_it_is_for(
    source: str, heavy: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "command.py"
    path.write_text(source)
    assert [name for name in module_level_imports(path) if not is_light(name)] == heavy


def lint_imports(tmp_path: Path, importer: str, line: str) -> tuple[int, str]:
    """Hold the project's contracts against a package of empty layers with one import in it."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    layers = ("", "cli", "config", "images", "models", "on_ray", "prediction", "training")
    for layer in layers:
        folder = tmp_path / "cifar_ray" / layer
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
        (folder / "part.py").touch()
    (tmp_path / "cifar_ray" / "errors.py").touch()
    (tmp_path / "cifar_ray" / importer / "part.py").write_text(f"{line}\n")
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
    ]
    done = subprocess.run(
        [*command, "--no-cache", "--no-logo"], cwd=tmp_path, capture_output=True, text=True
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("importer", "line", "broken"),
    [
        ("training", "from cifar_ray.prediction import part", "Dependencies run one way"),
        ("prediction", "from cifar_ray.on_ray import part", "Dependencies run one way"),
        ("images", "from cifar_ray.models import part", "Dependencies run one way"),
        ("prediction", "def run():\n    import ray.data", "Only on_ray imports ray"),
        ("cli", "import ray", "Only on_ray imports ray"),
        ("models", "from rich import print", "Only cli speaks to a terminal"),
        ("config", "import torch", "What a run is loads nothing heavy"),
    ],
)
def test_contracts_refuse_a_wrong_import(
    importer: str, line: str, broken: str, tmp_path: Path
) -> None:
    code, text = lint_imports(tmp_path, importer, line)
    assert code == 1
    assert f"{broken} BROKEN" in text


@pytest.mark.parametrize(
    ("importer", "line"),
    [
        ("on_ray", "import ray.data\nfrom cifar_ray.prediction import part"),
        ("cli", "import rich\ndef predict():\n    from cifar_ray.on_ray import part"),
    ],
)
def test_contracts_allow_what_the_design_allows(importer: str, line: str, tmp_path: Path) -> None:
    code, text = lint_imports(tmp_path, importer, line)
    assert code == 0, text
