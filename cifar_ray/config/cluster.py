"""What every cluster of ours has in common: versions, ports, places, and rules for cluster.yaml."""

from collections.abc import Iterator
from typing import Any

from cifar_ray import __version__
from cifar_ray.config.addresses import LOOPBACK

RAY_VERSION = "2.60.0"
PYTHON_VERSION = "3.11"
IMAGE = "cifar-ray"
CPU_TAG, GPU_TAG = f"{__version__}-cpu", f"{__version__}-gpu"

GCS_PORT = 6379
DASHBOARD_PORT = 8265
METRICS_PORT = 8080

TOKEN_MODE = "token"
TOKEN_FILE = "~/.ray/auth_token"
"""Where Ray looks for a token by itself, on every machine."""
TOKEN_SECRET, TOKEN_KEY = "cifar-ray-token", "auth_token"
"""Name of the secret in Kubernetes, and of its one entry."""

GPUS = {
    "g4dn": "T4",
    "g5": "A10G",
    "g6": "L4",
    "g6e": "L40S",
    "p4d": "A100",
    "p4de": "A100",
    "p5": "H100",
    "p5e": "H200",
    "p5en": "H200",
}
"""Families of AWS instances with NVIDIA GPUs, and Ray's name of the GPU."""
ACCELERATOR = "accelerator_type:"
OPEN_TO_ALL = ("0.0.0.0/0", "::/0")
KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
MAX_IDLE_MINUTES = 60


def complaints(config: dict[str, Any]) -> list[str]:
    """Return what our own rules have against a cluster.yaml that fits Ray's schema."""
    return [
        *_images(config),
        *_nodes(config),
        *_head(config),
        *_doors(config),
        *_commands(config),
        *_secrets(config, ""),
    ]


def _images(config: dict[str, Any]) -> Iterator[str]:
    nodes = config["available_node_types"]
    places = {"docker": config.get("docker") or {}}
    places |= {f"{name}.docker": node["docker"] for name, node in nodes.items() if "docker" in node}
    if "image" not in places["docker"]:
        yield "docker.image: name the image of this version, so that all nodes run the same code"
    for place, docker in places.items():
        for key in ("image", "head_image", "worker_image"):
            tag = docker.get(key, f":{CPU_TAG}").rpartition(":")[2]
            if tag not in (CPU_TAG, GPU_TAG):
                yield f"{place}.{key}: its tag is {tag}, this version's are {CPU_TAG} and {GPU_TAG}"


def _nodes(config: dict[str, Any]) -> Iterator[str]:
    for name, node in config["available_node_types"].items():
        settings, resources = node.get("node_config", {}), node.get("resources", {})
        family = str(settings.get("InstanceType", "")).partition(".")[0]
        named = [key.removeprefix(ACCELERATOR) for key in resources if key.startswith(ACCELERATOR)]
        if (resources.get("GPU") or named) and named != [GPUS.get(family)]:
            allowed = ", ".join(f"{gpu} on {kind}" for kind, gpu in GPUS.items())
            yield f"{name}: GPU {named} on {family or 'no InstanceType'}; known are {allowed}"
        if "IamInstanceProfile" not in settings:
            yield f"{name}: no IamInstanceProfile; nodes get rights from a role, not from keys"
        if not settings.get("TagSpecifications"):
            yield f"{name}: no TagSpecifications; without tags nobody knows whose machine it is"
        if not settings.get("BlockDeviceMappings"):
            yield f"{name}: no BlockDeviceMappings; the image's own disk is too small for models"


def _head(config: dict[str, Any]) -> Iterator[str]:
    head = config["available_node_types"][config["head_node_type"]]
    if head.get("resources", {}).get("CPU") != 0:
        yield "the head's resources: give CPU: 0, so that no work can take the cluster down with it"
    idle = config.get("idle_timeout_minutes", 0)
    if not 0 < idle <= MAX_IDLE_MINUTES:
        yield f"idle_timeout_minutes: {idle}; between 1 and {MAX_IDLE_MINUTES}, idle nodes cost"


def _doors(config: dict[str, Any]) -> Iterator[str]:
    for name, node in config["available_node_types"].items():
        if not node.get("node_config", {}).get("SecurityGroupIds"):
            # `_create_default_ssh_inbound_rules` of Ray 2.60, beside whatever the file gives.
            yield (
                f"{name}: no SecurityGroupIds; in a group that Ray's launcher makes, ssh is open "
                "to everybody"
            )
    group = config["provider"].get("security_group", {})
    for rule in group.get("IpPermissions", ()):
        ranges = [entry.get("CidrIp") for entry in rule.get("IpRanges", ())]
        ranges += [entry.get("CidrIpv6") for entry in rule.get("Ipv6Ranges", ())]
        for cidr in set(ranges) & set(OPEN_TO_ALL):
            port = rule.get("FromPort", "every port")
            yield f"provider.security_group: {port} is open to {cidr}, which is everybody"


def _commands(config: dict[str, Any]) -> Iterator[str]:
    options = " ".join(config.get("docker", {}).get("run_options", ()))
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [line for line in config.get(key, ()) if "ray start" in line]
        if not starts:
            yield f"{key}: no `ray start`; Ray's own default would start without a token"
        for line in starts:
            if f"RAY_AUTH_MODE={TOKEN_MODE}" not in f"{options} {line}":
                yield f"{key}: RAY_AUTH_MODE={TOKEN_MODE} is not set, so that anybody may run code"
            if "--head" in line and f"--dashboard-host={LOOPBACK}" not in line:
                yield f"{key}: the dashboard must say --dashboard-host={LOOPBACK}; take the tunnel"


def _secrets(value: object, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if str(key).lower() in KEYS:
                yield f"{place}{key}: no keys in this file; give the nodes a role"
            yield from _secrets(inner, f"{place}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner, place)
    elif isinstance(value, str) and any(f"{key}=" in value.lower() for key in KEYS):
        yield f"{place.rstrip('.')}: no keys in this file; give the nodes a role"
