"""Our rules for cluster.yaml: each fault is found, and nothing is wrong with the file as it is."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cifar_ray.config.cluster import complaints
from tests.conftest import REPOSITORY

Fault = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    return content


def test_the_file_as_it_is_keeps_the_rules(config: dict[str, Any]) -> None:
    assert complaints(config) == []


def node(config: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = config["available_node_types"][name]
    return found


def open_to(config: dict[str, Any], **ranges: list[dict[str, str]]) -> None:
    rule = {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", **ranges}
    config["provider"]["security_group"] = {"GroupName": "own", "IpPermissions": [rule]}


FAULTS: dict[str, tuple[Fault, str]] = {
    "an old image": (lambda c: c["docker"].update(image="r/cifar-ray:0.0.1-cpu"), "docker.image"),
    "an old image of a node type": (
        lambda c: node(c, "gpu")["docker"].update(worker_image="r/cifar-ray:latest"),
        "gpu.docker.worker_image",
    ),
    "no image": (lambda c: c["docker"].pop("image"), "docker.image"),
    "another GPU than the machine has": (
        lambda c: node(c, "gpu").update(resources={"GPU": 1, "accelerator_type:H100": 1}),
        "L4 on g6",
    ),
    "a GPU without a name": (lambda c: node(c, "gpu").update(resources={"GPU": 1}), "gpu: GPU"),
    "a machine without a GPU": (
        lambda c: node(c, "gpu")["node_config"].update(InstanceType="c7i.large"),
        "on c7i",
    ),
    "nobody's role": (lambda c: node(c, "cpu")["node_config"].pop("IamInstanceProfile"), "cpu: no"),
    "no tags": (lambda c: node(c, "cpu")["node_config"].pop("TagSpecifications"), "cpu: no Tag"),
    "no disk": (lambda c: node(c, "head")["node_config"].pop("BlockDeviceMappings"), "head: no"),
    "work on the head": (lambda c: node(c, "head").update(resources={"CPU": 4}), "CPU: 0"),
    "no end of idling": (lambda c: c.update(idle_timeout_minutes=100000), "idle_timeout"),
    "ssh for everybody": (lambda c: open_to(c, IpRanges=[{"CidrIp": "0.0.0.0/0"}]), "22 is"),
    "ssh for everybody's IPv6": (
        lambda c: open_to(c, Ipv6Ranges=[{"CidrIpv6": "::/0"}]),
        "everybody",
    ),
    "a group that the launcher makes": (
        lambda c: node(c, "cpu")["node_config"].pop("SecurityGroupIds"),
        "cpu: no SecurityGroupIds",
    ),
    "no token": (lambda c: c["docker"].update(run_options=[]), "RAY_AUTH_MODE"),
    "Ray's own start": (lambda c: c.pop("worker_start_ray_commands"), "without a token"),
    "a dashboard for all": (
        lambda c: c.update(head_start_ray_commands=["ray start --head --dashboard-host=0.0.0.0"]),
        "--dashboard-host=127.0.0.1",
    ),
    "keys": (lambda c: c["provider"].update(aws_access_key_id="AKIAFAKE"), "no keys"),
    "keys in a command": (
        lambda c: c.update(setup_commands=["export AWS_SECRET_ACCESS_KEY=x"]),
        "no keys",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name: str, config: dict[str, Any]) -> None:
    plant, said = FAULTS[name]
    faulty = copy.deepcopy(config)
    plant(faulty)
    found = complaints(faulty)
    assert found
    assert all(said in complaint for complaint in found)
