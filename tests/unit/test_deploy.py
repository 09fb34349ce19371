"""deploy/: every tag, port, version, name and command is the code's own, or the lock's."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifar_ray import __version__
from cifar_ray.config import cluster
from cifar_ray.config.addresses import LOOPBACK
from tests.conftest import REPOSITORY
from tests.required import require
from tests.unit.cli.parsed import parse

DEPLOY = REPOSITORY / "deploy"
FILES = sorted(
    path for path in DEPLOY.rglob("*") if path.is_file() and DEPLOY / "serve" not in path.parents
)
MANIFESTS = [path for path in FILES if path.suffix == ".yaml"]
LOCKED = dict(
    re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (REPOSITORY / "requirements.lock").read_text(), re.M)
)
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
NOT_RUN = "not run on a cluster"


def walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf with the nearest key above it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from walk(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner, key)
    else:
        yield key, value


def leaves(*names: str) -> list[tuple[str, Any]]:
    found = [leaf for path in MANIFESTS for leaf in walk(yaml.safe_load(path.read_text()))]
    return [(key, value) for key, value in found if key in names]


@pytest.mark.parametrize("path", [*FILES, REPOSITORY / "cluster.yaml"], ids=lambda path: path.name)
def test_the_head_says_that_nobody_has_run_it(path: Path) -> None:
    assert NOT_RUN in path.read_text()[:200]


def test_images_are_those_of_this_version() -> None:
    tags = {value.rpartition(":")[2] for _, value in leaves("image")}
    assert tags == {cluster.CPU_TAG, cluster.GPU_TAG}
    assert set(re.findall(r"cifar-ray:(\S+)", DOCKERFILE)) == {cluster.CPU_TAG, cluster.GPU_TAG}
    assert set(re.findall(r"^FROM .* AS (cpu|gpu)$", DOCKERFILE, re.M)) == {"cpu", "gpu"}


def test_versions_are_those_of_the_lock() -> None:
    assert LOCKED["ray"] == cluster.RAY_VERSION
    assert leaves("rayVersion") == [("rayVersion", cluster.RAY_VERSION)]
    pins = dict(re.findall(r"\b(uv|torch|torchvision)==([0-9.]+)", DOCKERFILE))
    assert pins == {name: LOCKED[name] for name in ("uv", "torch", "torchvision")}
    bases = re.findall(r"^FROM python:(\d+\.\d+)\.\d+-slim-bookworm", DOCKERFILE, re.M)
    assert set(bases) == {cluster.PYTHON_VERSION}


def test_the_image_for_cpus_leaves_out_pytorch_and_cuda_and_nothing_else() -> None:
    command = re.search(r"sed -E '([^']+)'", DOCKERFILE)
    assert command is not None
    lock = (REPOSITORY / "requirements.lock").read_text()
    kept = subprocess.run(
        ["sed", "-E", command[1]], input=lock, capture_output=True, text=True, check=True
    ).stdout
    names = set(re.findall(r"^([a-z0-9-]+)==", kept, re.M))
    gone = set(LOCKED) - names
    assert {"torch", "torchvision", "triton"} <= gone
    others = gone - {"torch", "torchvision", "triton"}
    assert all(name.startswith(("nvidia-", "cuda-")) for name in others)
    assert not any(name.startswith(("nvidia-", "cuda-")) for name in names)
    # No hash is left without its package.
    assert kept.count("--hash=") == lock.count("--hash=") - sum(
        lock.split(f"\n{name}==")[1].split("\n" + next_name(lock, name))[0].count("--hash=")
        for name in gone
    )


def next_name(lock: str, name: str) -> str:
    names = re.findall(r"^[a-z0-9-]+==", lock, re.M)
    place = names.index(f"{name}==")
    return names[place + 1] if place + 1 < len(names) else "\0"


def test_ports_are_the_code_s() -> None:
    ours = {cluster.GCS_PORT, cluster.DASHBOARD_PORT, cluster.METRICS_PORT}
    used = {value for _, value in leaves("containerPort")}
    assert used == ours
    allowed = {value for _, value in leaves("port") if isinstance(value, int)}
    assert allowed == {cluster.DASHBOARD_PORT, cluster.METRICS_PORT, 53, 443}
    metrics = {value for _, value in leaves("metrics-export-port")}
    assert metrics == {str(cluster.METRICS_PORT)}


def test_cluster_yaml_uses_the_same_ports_and_the_token_s_place() -> None:
    text = (REPOSITORY / "cluster.yaml").read_text()
    assert f"--port={cluster.GCS_PORT}" in text
    assert f"--dashboard-port={cluster.DASHBOARD_PORT}" in text
    assert text.count(f"--metrics-export-port={cluster.METRICS_PORT}") == 2
    mounts = yaml.safe_load(text)["file_mounts"]
    assert mounts == {cluster.TOKEN_FILE.replace("~", "/home/ray"): cluster.TOKEN_FILE}


def test_the_secret_is_named_and_no_value_stands_anywhere() -> None:
    assert leaves("secretName") == [("secretName", cluster.TOKEN_SECRET)]
    text = (DEPLOY / "kuberay" / "raycluster.yaml").read_text()
    assert f"generic {cluster.TOKEN_SECRET} --from-literal={cluster.TOKEN_KEY}=" in text
    assert leaves("mode") == [("mode", cluster.TOKEN_MODE)]
    for path in FILES:
        assert re.findall(r"AKIA|aws_secret|\b[0-9a-f]{40,}\b", path.read_text(), re.I) == []


def pods() -> Iterator[dict[str, Any]]:
    spec = yaml.safe_load((DEPLOY / "kuberay" / "raycluster.yaml").read_text())["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        yield group["template"]["spec"]


def test_every_container_is_limited_and_shut() -> None:
    assert len(list(pods())) == 3
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"] == container["resources"]["requests"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert re.search(r"^USER 1000$", DOCKERFILE, re.M)


def entrypoints() -> list[list[str]]:
    return [shlex.split(value) for _, value in leaves("entrypoint")]


@pytest.mark.parametrize("command", entrypoints(), ids=lambda command: command[1])
def test_the_command_of_a_job_is_one_that_we_take(command: list[str]) -> None:
    program, verb, *arguments = command
    assert program == "cifar-ray"
    assert parse(verb, *arguments).verb == verb


def test_commands_of_containers_run_in_a_bare_environment() -> None:
    found = re.findall(r"^(?:HEALTHCHECK .*)?CMD (\[.*\])$", DOCKERFILE, re.M)
    assert len(found) == 2
    # A job itself needs its cluster and its bucket; another test reads its options.
    jobs_asked = [[*command, "--help"] for command in entrypoints()]
    assert jobs_asked
    bare = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}
    for program, *arguments in (*map(json.loads, found), *jobs_asked):
        assert program in SCRIPTS
        command = [sys.executable, "-m", "cifar_ray", *arguments]
        done = subprocess.run(command, env=bare, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert json.loads(found[0]) == ["cifar-ray", "--version"]
    assert __version__ in cluster.CPU_TAG


def exported() -> set[str]:
    from cifar_ray.on_ray.metrics import names

    return {
        *(f"ray_{name}_total" for name in names.COUNTERS),
        *(f"ray_{name}" for name in names.GAUGES),
        *(f"ray_{name}_bucket" for name in names.HISTOGRAMS),
    }


def test_rules_and_panels_ask_for_metrics_that_there_are() -> None:
    pytest.importorskip("ray")
    rules = (DEPLOY / "prometheus" / "rules.yaml").read_text()
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    asked = set(re.findall(r"ray_cifar_\w+", rules))
    shown = {name for panel in panels for name in re.findall(r"ray_cifar_\w+", str(panel))}
    assert asked <= exported()
    assert shown == exported()
    recorded = set(re.findall(r"record: (\S+)", rules))
    assert set(re.findall(r"\bcifar:\w+", rules)) == recorded


def test_prometheus_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    require("prometheus", promtool, "there is no promtool")
    command = [str(promtool), "check", "rules", str(DEPLOY / "prometheus" / "rules.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_own_nodes_are_started_as_the_code_expects_them() -> None:
    text = (REPOSITORY / "docs" / "own-nodes.md").read_text()
    starts = re.findall(r"^ray start .*$", text, re.M)
    assert len(starts) == 2
    head, worker = starts
    assert f"--port={cluster.GCS_PORT} " in head
    assert f"--dashboard-host={LOOPBACK} --dashboard-port={cluster.DASHBOARD_PORT}" in head
    assert f"--address=head:{cluster.GCS_PORT} " in worker
    assert all(line.endswith(f"--metrics-export-port={cluster.METRICS_PORT}") for line in starts)
    assert text.count(f"RAY_AUTH_MODE={cluster.TOKEN_MODE}") == 3
    assert cluster.TOKEN_FILE in text
    tags = set(re.findall(r"cifar-ray:([0-9][^ ]*)", text))
    assert tags == {cluster.CPU_TAG}


def test_every_verb_that_the_documents_name_is_there() -> None:
    from typer.main import get_command

    from cifar_ray.cli.main import app

    known = get_command(app).list_commands(None)  # type: ignore[attr-defined, arg-type]
    for name in ("docs/own-nodes.md", "SECURITY.md", "cluster.yaml"):
        text = (REPOSITORY / name).read_text()
        verbs = set(re.findall(r"(?:^|`)cifar-ray ([a-z]+)", text, re.M))
        assert verbs
        assert verbs <= set(known), name
