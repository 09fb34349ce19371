"""What a replica counts, and how the counts of several replicas become one page for Prometheus."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a replica counted since it started; plain data, to be sent to another process."""

    families: tuple[Metric, ...]


class ServiceMetrics:
    """The counts of one replica."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "cifar_ray_requests", "Requests.", ["route", "code"], registry=self._registry
        )
        self.seconds = Histogram(
            "cifar_ray_request_seconds",
            "Time from a request's first byte to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.images = Counter(
            "cifar_ray_images", "Images answered.", ["model", "status"], registry=self._registry
        )
        self.batches = Histogram(
            "cifar_ray_batch_images",
            "Images in a batch.",
            ["model"],
            buckets=BATCHES,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "cifar_ray_requests_in_flight", "Requests worked on.", registry=self._registry
        )

    def snapshot(self) -> Snapshot:
        """Return the counts as they are now."""
        return Snapshot(tuple(self._registry.collect()))


class _Sums(Collector):
    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self._snapshots = list(snapshots)

    def collect(self) -> Iterator[Metric]:
        """Give each family once, its samples summed over the replicas."""
        families: dict[str, Metric] = {}
        sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for snapshot in self._snapshots:
            for family in snapshot.families:
                families.setdefault(family.name, family)
                values = sums.setdefault(family.name, {})
                for sample in family.samples:
                    if not sample.name.endswith("_created"):
                        key = (sample.name, tuple(sample.labels.items()))
                        values[key] = values.get(key, 0.0) + sample.value
        for name, family in families.items():
            total = Metric(name, family.documentation, family.type)
            for (sample_name, labels), value in sums[name].items():
                total.add_sample(sample_name, dict(labels), value)
            yield total


def render(snapshots: Sequence[Snapshot]) -> bytes:
    """Return the sums of all snapshots in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Sums(snapshots))
    return generate_latest(registry)
