"""How many requests a replica works on at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from cifar_ray.serving.problems import busy


class Gate:
    """Lets `capacity` requests in, and turns the others away at once. For one event loop."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.inside = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place within the block; `Problem` 429 if there is none."""
        if self.inside >= self.capacity:
            raise busy("The service is working on as many requests as it can. Try again shortly.")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
