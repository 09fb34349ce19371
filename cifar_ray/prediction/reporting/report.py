"""`report.html`: one page about a finished run, which needs no other file and runs no script.

The page forbids itself scripts and requests.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from cifar_ray.config.labelling import RunRecord
from cifar_ray.models.bundle_spec import BundleSpec
from cifar_ray.pages import page_environment
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.receipt import Receipt
from cifar_ray.prediction.reporting.tally import NUM_BINS, Place, Tally, tally_failures, tally_rows
from cifar_ray.prediction.reporting.thumbnails import Picture, pictures
from cifar_ray.prediction.sources import Source
from cifar_ray.storage import Store

TEMPLATE = "report.html.jinja"
MAX_BARS = 20
MAX_SHEETS = 8
MAX_KINDS = 30


@dataclass(frozen=True, slots=True)
class Speed:
    """What the run's last command did: earlier ones may have labelled a part before it."""

    images: int
    image_bytes: int
    seconds: float
    """Of wall time, the start of the workers included."""
    stage_seconds: Mapping[str, float]
    """Of all workers together."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar with its name; `share` of the longest one is its length."""

    name: str
    number: float
    share: float


@dataclass(frozen=True, slots=True)
class Sheet:
    """Examples of a label."""

    label: str
    pictures: list[Picture]


def report_page(
    store: Store,
    source: Source,
    record: RunRecord,
    spec: BundleSpec,
    receipt: Receipt,
    speed: Speed,
) -> bytes:
    """Return the page."""
    tally = tally_rows(store, len(spec.labels))
    show = partial(
        pictures, store, Manifest(store, record.config.images_per_shard), source.fetcher()
    )
    sheets, doubtful = _contact_sheet(show, tally, spec)
    page: str = (
        page_environment("cifar_ray.prediction.reporting")
        .get_template(TEMPLATE)
        .render(
            source=source.reference.uri,
            destination=store.uri,
            record=record,
            spec=spec,
            receipt=receipt,
            labels=_label_bars(tally, spec),
            num_labels=len(spec.labels),
            num_given=int((tally.labels > 0).sum()),
            bins=_bins(tally),
            causes=tally_failures(store),
            skipped=bars(receipt.skipped, MAX_KINDS),
            sheets=sheets,
            doubtful=doubtful,
            speed=speed,
            stages=bars(speed.stage_seconds, MAX_BARS),
        )
    )
    return page.encode()


def bars(numbers: Mapping[str, float], limit: int) -> list[Bar]:
    """Return bars, the longest first; those beyond `limit` are one bar, at the end."""
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    longest = ordered[0][1] if ordered else 0
    rest = sum(number for _, number in ordered[limit:])
    shown = ordered[:limit]
    if rest:
        shown.append((f"{len(ordered) - limit} others", rest))
    return [Bar(name, number, min(1.0, number / (longest or 1))) for name, number in shown]


def _label_bars(tally: Tally, spec: BundleSpec) -> list[Bar]:
    numbers = dict(zip(spec.labels, tally.labels.tolist(), strict=True))
    if len(numbers) > MAX_BARS:
        numbers = {name: number for name, number in numbers.items() if number}
    return bars(numbers, MAX_BARS)


def _bins(tally: Tally) -> list[Bar]:
    numbers = tally.score_bins.tolist()
    longest = max(numbers)
    return [
        Bar(f"{at / NUM_BINS:.2f}–{(at + 1) / NUM_BINS:.2f}", number, number / (longest or 1))
        for at, number in enumerate(numbers)
    ]


def _contact_sheet(
    show: Callable[[Iterable[Place]], dict[Place, Picture]], tally: Tally, spec: BundleSpec
) -> tuple[list[Sheet], list[Picture]]:
    """Return examples of the most frequent labels, and the images that the model doubted most."""
    frequent = sorted(range(len(spec.labels)), key=lambda label: -tally.labels[label])[:MAX_SHEETS]
    examples = {label: tally.examples[label].places() for label in frequent}
    doubtful = tally.doubtful.places()
    found = show({place for places in (*examples.values(), doubtful) for place in places})
    sheets = [
        Sheet(spec.labels[label], [found[place] for place in places if place in found])
        for label, places in examples.items()
    ]
    return (
        [sheet for sheet in sheets if sheet.pictures],
        [found[place] for place in doubtful if place in found],
    )
