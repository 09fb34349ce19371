"""What deploy/serve says is what the code has: names, ports, versions, options."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import cifar_ray
from cifar_ray.cli.main import app
from cifar_ray.config.addresses import SERVE_PORT, SERVICE_URL
from cifar_ray.config.bot import KEY_VARIABLE, TOKEN_VARIABLE
from cifar_ray.config.serving import Limits, ServiceConfig
from cifar_ray.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = REPOSITORY / "deploy" / "serve"
NOT_RUN = "# not run on a cluster"


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def service_configs() -> dict[str, Any]:
    ray_service = load("rayservice.yaml")
    return {
        "serve-config.yaml": load("serve-config.yaml"),
        "rayservice.yaml": yaml.safe_load(ray_service["spec"]["serveConfigV2"]),
    }


def test_each_file_says_at_its_head_that_it_was_not_run_on_a_cluster() -> None:
    files = sorted(FOLDER.iterdir())
    assert len(files) == 4
    for path in files:
        assert path.read_text().splitlines()[1] == NOT_RUN, path.name


@pytest.mark.parametrize("name", ["serve-config.yaml", "rayservice.yaml"])
def test_serve_configs_build_the_application_that_the_code_has(name: str) -> None:
    application_module = pytest.importorskip("cifar_ray.on_ray.serving.application")
    schema = pytest.importorskip("ray.serve.schema")
    content = service_configs()[name]
    schema.ServeDeploySchema.model_validate(content)
    assert content["http_options"]["port"] == SERVE_PORT
    (application,) = content["applications"]
    assert application["name"] == application_module.NAME
    module, _, function = application["import_path"].partition(":")
    assert module == application_module.__name__
    assert getattr(application_module, function) is application_module.from_arguments
    config = ServiceConfig.model_validate(application["args"])
    replica, counts = application["deployments"]
    assert replica["name"] == application_module.REPLICA
    assert counts["name"] == application_module.COUNTS
    wanted = application_module.ROOM_TO_REFUSE * Limits().requests
    assert replica["max_ongoing_requests"] == wanted
    assert replica["ray_actor_options"]["num_cpus"] == config.execution.threads


def test_ray_service_has_our_version_and_ray_s() -> None:
    cluster = load("rayservice.yaml")["spec"]["rayClusterConfig"]
    project = (REPOSITORY / "pyproject.toml").read_text()
    pinned = re.search(r'"ray\[[^]]+\]==(\d+\.\d+)\.\*', project)
    assert pinned is not None
    assert cluster["rayVersion"].startswith(f"{pinned[1]}.")
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == f"cifar-ray:{cifar_ray.__version__}"
    ports = {
        p["name"]: p["containerPort"]
        for p in groups[0]["template"]["spec"]["containers"][0]["ports"]
    }
    assert ports["serve"] == SERVE_PORT


@pytest.mark.parametrize("name", ["cifar-ray-serve.service", "cifar-ray-bot.service"])
def test_units_start_verbs_with_options_that_there_are(name: str) -> None:
    line = re.search(r"^ExecStart=(.+)$", (FOLDER / name).read_text(), re.MULTILINE)
    assert line is not None
    program, verb, *arguments = shlex.split(line[1])
    assert Path(program).name == "cifar-ray"
    group: Any = typer.main.get_command(app)
    command = group.commands[verb]
    command.make_context(verb, list(arguments))  # raises for an unknown option


@pytest.mark.parametrize("name", ["cifar-ray-serve.service", "cifar-ray-bot.service"])
def test_units_are_not_started_again_and_again_for_what_is_set_wrong(name: str) -> None:
    lines = (FOLDER / name).read_text().splitlines()
    assert "Restart=on-failure" in lines
    assert f"RestartPreventExitStatus={InputError.exit_code}" in lines


def test_the_bot_s_unit_asks_where_the_service_s_unit_answers() -> None:
    bot, service = ((FOLDER / f"cifar-ray-{n}.service").read_text() for n in ("bot", "serve"))
    assert f"--service {SERVICE_URL}" in bot
    assert f"--port {SERVE_PORT}" in service
    assert TOKEN_VARIABLE in bot
    assert KEY_VARIABLE in bot
    assert not re.search(r"^Environment=.*(TOKEN|KEY)", bot, re.MULTILINE)
