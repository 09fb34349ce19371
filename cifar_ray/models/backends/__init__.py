from cifar_ray.models.backends.base import Backend, Outputs, Pending
from cifar_ray.models.backends.resolve import open_backend, resolve_execution

__all__ = ["Backend", "Outputs", "Pending", "open_backend", "resolve_execution"]
