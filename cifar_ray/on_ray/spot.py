"""On a spot machine of AWS: hear of its end two minutes ahead, and have Ray give it no more work.

`python -m cifar_ray.on_ray.spot HEAD:PORT` runs beside a worker's Ray, as cluster.yaml starts it.
What the node has in hand may still end; what does not is done again elsewhere. It ends once the
node is drained.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import ray
import requests
from ray._private import services
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated import autoscaler_pb2, gcs_pb2

from cifar_ray.errors import CifarRayError
from cifar_ray.on_ray.session import client_token

_REASONS: Any = autoscaler_pb2
_NODES: Any = gcs_pb2
METADATA = "http://169.254.169.254"
"""The instance metadata service, which a machine of AWS asks about itself."""
ACTION_PAGE, TOKEN_PAGE = "/latest/meta-data/spot/instance-action", "/latest/api/token"
TOKEN_SECONDS = 60
TIMEOUT_S = 2.0
POLL_S = 5.0
"""As often as AWS recommends."""
CALM = 404
"""What the page answers while no end is planned."""


def planned_end(metadata: str) -> datetime | None:
    """Return when this machine will be taken away; None if that is not planned, or nobody tells."""
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
    try:
        token = requests.put(metadata + TOKEN_PAGE, headers=lifetime, timeout=TIMEOUT_S)
        token.raise_for_status()
        headers = {"X-aws-ec2-metadata-token": token.text}
        told = requests.get(metadata + ACTION_PAGE, headers=headers, timeout=TIMEOUT_S)
        if told.status_code == CALM:
            return None
        told.raise_for_status()
        return datetime.fromisoformat(json.loads(told.text)["time"]).astimezone(UTC)
    except requests.RequestException:
        return None  # The next look, some seconds later, may be luckier.


def own_node(address: str) -> str:
    """Return the id of the worker's node on this machine; `CifarRayError` unless there is one."""
    host = services.get_node_ip_address()  # type: ignore[no-untyped-call]
    nodes = GcsClient(address=address).get_all_node_info()
    here: list[str] = [
        node_id.hex()
        for node_id, node in nodes.items()
        if node.state == _NODES.GcsNodeInfo.ALIVE
        and node.node_manager_address == host
        and not node.is_head_node
    ]
    if len(here) != 1:
        raise CifarRayError(f"{len(here)} workers of the cluster {address} are on {host}, not one.")
    return here[0]


def drain(address: str, node_id: str, end: datetime) -> None:
    """Have Ray give a node no more work; `CifarRayError` if it refuses."""
    accepted, reason = GcsClient(address=address).drain_node(
        node_id,
        _REASONS.DRAIN_NODE_REASON_PREEMPTION,
        "AWS takes this spot machine away.",
        int(1000 * end.timestamp()),
    )
    if not accepted:
        raise CifarRayError(f"Ray does not drain node {node_id}: {reason}")


def watch(
    address: str,
    node_id: str | None,
    metadata: str = METADATA,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Look until the end is planned, then drain this machine's node."""
    with client_token(address):
        while (end := planned_end(metadata)) is None:
            wait(POLL_S)
        drain(address, node_id or own_node(address), end)


def main() -> int:
    """Watch; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="HOST:PORT of the head")
    parser.add_argument("--node-id", help="default: this machine's only worker")
    parser.add_argument("--metadata", default=METADATA)
    options = parser.parse_args()
    try:
        watch(options.address, options.node_id, options.metadata)
    except (CifarRayError, ray.exceptions.RayError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
