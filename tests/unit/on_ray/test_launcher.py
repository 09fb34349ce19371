"""`cluster check`: Ray's schema and our rules, offline; and the token that `up` makes."""

import copy
import stat
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

if find_spec("ray") is None:
    pytest.skip("Ray has no package for this platform", allow_module_level=True)

from ray.autoscaler._private.aws import config as aws

from cifar_ray.errors import InputError
from cifar_ray.on_ray import launcher
from tests.conftest import REPOSITORY

CLUSTER = REPOSITORY / "cluster.yaml"


def test_our_file_fits() -> None:
    launcher.check(CLUSTER)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("idle_timeout_minutes: 10", "idle_timeout_minutes: -1", "idle_timeout_minutes"),
        ("max_workers: 24", "max_worker: 24", "max_worker"),
        ("head_node_type: head", "head_node_type: nowhere", "one of `available_node_types`"),
        ("provider:", "providers:", "provider is missing"),
        ("SecurityGroupIds: *groups", "KeyName: mine", "ssh is open to everybody"),
        ("cluster_name: cifar-ray", "cluster_name: [", "is no YAML"),
    ],
)
def test_a_fault_is_told_without_a_network(old: str, new: str, said: str, tmp_path: Path) -> None:
    text = CLUSTER.read_text()
    assert old in text
    path = tmp_path / "cluster.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=said):
        launcher.check(path)


def test_the_launcher_makes_no_security_group_of_its_own_for_our_file() -> None:
    """It would be open on port 22 to the world, and making it would need an account."""
    config = yaml.safe_load(CLUSTER.read_text())
    asked = copy.deepcopy(config)
    assert aws._configure_security_group(asked) == config
    rules = aws._create_default_inbound_rules(["sg-own"])
    assert {"CidrIp": "0.0.0.0/0"} in [ip for rule in rules for ip in rule.get("IpRanges", ())]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        launcher.check(tmp_path / "cluster.yaml")


def test_the_token_is_made_once_and_for_this_user_alone(tmp_path: Path) -> None:
    path = launcher.ensure_token(tmp_path / "ray" / "token")
    made = path.read_text()
    assert len(made) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert launcher.ensure_token(path).read_text() == made


def test_the_commands_are_those_of_ray_s_launcher() -> None:
    assert launcher.command("up", CLUSTER)[-3:] == ["up", "--yes", str(CLUSTER)]
    assert launcher.command("dashboard", CLUSTER)[-3:] == ["--port", "8265", str(CLUSTER)]
