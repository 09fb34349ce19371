"""A door that Ray Serve opens by itself, shut.

Each replica listens for other deployments, over gRPC with pickled requests and without a token, on
every address of the machine (Ray 2.60: `[::]` is written into its source, and no setting changes
it). Requests of ours do not come that way; so it listens on the node's own address alone, which in
an embedded Ray is loopback.
"""

from typing import Any

import ray
from ray.serve._private import replica as _replica

EVERYWHERE = "[::]"
replica: Any = _replica
_add_port = replica.add_port_to_grpc_server


def listen_on_node_address() -> None:
    """Have this process's replica listen on its node's address; to be called as it is made."""
    replica.add_port_to_grpc_server = _on_node_address


def _on_node_address(server: object, address: str) -> int:
    node = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    port: int = _add_port(server, address.replace(EVERYWHERE, node))
    return port
