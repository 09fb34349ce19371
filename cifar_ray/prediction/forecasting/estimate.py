"""From a survey and a trial to a forecast: what the whole store costs, with 90 % intervals.

An image's own stages are estimated by the stratified mean of the sample (W. G. Cochran, "Sampling
Techniques", 3rd ed., chapter 5); the model's batches, the rows and the parts are counted, and cost
what they cost on trial. An interval allows for three things, as if they were independent: images
that were not drawn, a machine that is not equally fast all the time (a prediction interval over the
rounds, by Student's t), and what a trial does not show.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev, variance

from cifar_ray.config.labelling import SourceReference
from cifar_ray.config.prices import Prices
from cifar_ray.prediction.forecasting.forecast import Estimate, Forecast
from cifar_ray.prediction.forecasting.gauge import STAGES, Round
from cifar_ray.prediction.forecasting.survey import Survey
from cifar_ray.prediction.forecasting.trial import Trial
from cifar_ray.prediction.sources import Entry
from cifar_ray.prediction.sources.base import UNKNOWN_SIZE
from cifar_ray.storage import S3_SCHEME

CONFIDENCE = 0.90
QUANTILE = (1 + CONFIDENCE) / 2
NORMAL = NormalDist().inv_cdf(QUANTILE)
UNSEEN = 0.05
"""Standard deviation, as a share of the whole, of what a trial does not show."""
ONCE = 0.15
"""The same for start and end, of which a trial sees few: they depend on the disk's caches too."""
LISTED_A_PAGE = 1000
LISTS_A_PART, GETS_A_PART, PUTS_A_PART = 1, 10, 3
"""In DEST, from its line in the manifest to the receipt; large parts take some more reads."""
Sample = dict[int, list[Entry]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants to know it for."""

    workers: int
    threads: int
    """Cores that each worker has."""
    destination: str | None = None
    prices: Prices | None = None
    deadline_hours: float | None = None


def forecast(survey: Survey, sample: Sample, trial: Trial, asked: Asked) -> Forecast:
    """Extrapolate."""
    record = trial.record
    scaled = _Scaled(survey, sample, trial)
    cpu_s = scaled.cpu_s(asked.workers)
    hours = scaled.hours(asked.workers)
    gpu_hours = hours.times(asked.workers) if record.execution.device == "cuda" else None
    requests = _requests(survey, record.source, asked.destination)
    read_bytes = scaled.read_bytes()
    money = None
    if asked.prices is not None:
        rented = hours.times(asked.workers * asked.threads)
        money = _money(asked.prices, rented, gpu_hours, requests, read_bytes)
    return Forecast(
        source=record.source.uri,
        bundle=record.bundle,
        device=record.execution.device,
        workers=asked.workers,
        sample=scaled.num_sampled,
        measured_side_by_side=len(trial.rounds[0]),
        rounds=len(trial.rounds),
        found=survey.found,
        skipped=dict(sorted(survey.skipped.items())),
        listed=survey.listed,
        parts=len(survey.shards),
        requests=requests,
        read_bytes=read_bytes,
        written_bytes=scaled.written_bytes(),
        stage_cpu_seconds=scaled.stages(asked.workers),
        cpu_hours=cpu_s.times(1 / 3600),
        hours=hours,
        gpu_hours=gpu_hours,
        money=money,
        currency=asked.prices.currency if asked.prices else None,
        deadline_hours=asked.deadline_hours,
        workers_for_deadline=_workers_for(scaled, asked.deadline_hours),
    )


@dataclass(frozen=True, slots=True)
class _Unit:
    """What a round says of the parts that a run is made of; CPU seconds."""

    batch_s: float
    row_s: float
    """Beside an image's own stages: Python between them, its row, its share of the part."""
    shard_s: float
    """Beside its rows."""

    @classmethod
    def of(cls, measured: Round) -> "_Unit":
        """Solve what a shard with the whole sample and one with a single image say together."""
        images = [image.seconds for image in measured.images]
        batch_s = measured.batches_s / measured.num_batches
        further = measured.shard_s - measured.single_s - sum(images[1:])
        further -= (measured.num_batches - 1) * batch_s
        row_s = further / (len(images) - 1) if len(images) > 1 else 0.0
        return cls(batch_s, row_s, measured.single_s - images[0] - batch_s - row_s)


class _Scaled:
    """Sums over the whole store."""

    def __init__(self, survey: Survey, sample: Sample, trial: Trial) -> None:
        self.survey = survey
        self.trial = trial
        self.all_rounds = [one for round_ in trial.rounds for one in round_]
        self.strata = list(_strata(survey, sample))
        self.num_sampled = sum(len(entries) for entries in sample.values())
        self.sampling_variance = self._sampling_variance()
        size = trial.record.execution.batch_size
        self.num_batches = sum(math.ceil(rows / size) for rows in survey.shards)
        self.cpu_works: list[float] = []
        """What grows with the store, by each round: CPU seconds of all workers together."""
        self.wall_works: list[float] = []
        """Seconds that one worker alone would take for it."""
        for round_ in trial.rounds:
            work = fmean(self._work_s(one) for one in round_)
            slowness = sum(one.wall_s for one in round_) / sum(one.shard_s for one in round_)
            self.cpu_works.append(work)
            self.wall_works.append(slowness * work)

    def cpu_s(self, workers: int) -> Estimate:
        """CPU seconds of driver and workers."""
        fixed = self.survey.cpu_seconds + self._start_s(workers) + self.trial.sealing.cpu_s
        return self._interval(self.cpu_works, 1.0, fixed)

    def hours(self, workers: int) -> Estimate:
        """How long so many workers take; those elsewhere are taken to be as fast as those here."""
        trial, survey = self.trial, self.survey
        fixed = trial.worker.wall_s + trial.sealing.wall_s
        share = makespan(survey.shards, workers) / survey.listed
        works = [share * work for work in self.wall_works]
        found = self._interval(works, fmean(works) / fmean(self.cpu_works), fixed)
        # A listing that is slower than the workers keeps them waiting.
        least = survey.seconds + fixed
        bounds = {name: max(least, seconds) for name, seconds in found.model_dump().items()}
        return Estimate(**bounds).times(1 / 3600)

    def read_bytes(self) -> Estimate:
        """What is fetched: listed, but where only reading tells a size."""
        costs = self.all_rounds[0].images
        known = sum(s.image_bytes for bits, s in self.survey.strata.items() if bits != UNKNOWN_SIZE)
        if UNKNOWN_SIZE not in self.survey.strata:
            return Estimate.exact(known)
        number = self.survey.strata[UNKNOWN_SIZE].images
        # Sorted by bits, it is the first stratum.
        (first, *_) = self.strata
        sizes = [float(costs[at].num_bytes) for at in first.places]
        error = math.sqrt(_variance(sizes, number))
        return Estimate.around(number * fmean(sizes), NORMAL * error).plus(known)

    def written_bytes(self) -> Estimate:
        """The rows; what a part takes beside them is counted with the sample's."""
        part = fmean(one.part_bytes for one in self.all_rounds)
        return Estimate.exact(round(part / self.num_sampled * self.survey.listed))

    def stages(self, workers: int) -> dict[str, float]:
        """CPU seconds by stage; they add up to what is expected, but for rounding at zero."""
        units = [_Unit.of(one) for one in self.all_rounds]
        trial, survey = self.trial, self.survey
        rows_s = survey.listed * fmean(unit.row_s for unit in units)
        parts_s = len(survey.shards) * fmean(unit.shard_s for unit in units)
        images = {
            stage: fmean(self._over_images(one, stage) for one in self.all_rounds)
            for stage in STAGES
        }
        return {
            "list": survey.cpu_seconds,
            **images,
            "model": self.num_batches * fmean(unit.batch_s for unit in units),
            "write": max(0.0, rows_s + parts_s),
            "start": self._start_s(workers),
            "end": trial.sealing.cpu_s,
        }

    def _start_s(self, workers: int) -> float:
        """CPU seconds of driver and workers; one without a shard is not started."""
        started = min(workers, len(self.survey.shards))
        return self.trial.driver_cpu_s + started * self.trial.worker.cpu_s

    def _work_s(self, one: Round) -> float:
        unit, survey = _Unit.of(one), self.survey
        images = self._over_images(one, "seconds")
        rows = survey.listed * unit.row_s + len(survey.shards) * unit.shard_s
        return images + self.num_batches * unit.batch_s + rows

    def _over_images(self, one: Round, stage: str) -> float:
        return sum(
            stratum.images * fmean(getattr(one.images[at], stage) for at in stratum.places)
            for stratum in self.strata
        )

    def _interval(self, works: Sequence[float], scale: float, fixed: float) -> Estimate:
        """Return the interval of the next run; `scale` is from CPU seconds to the unit of work."""
        number, expected = len(works), fmean(works) + fixed
        # Start and end take longer, too, while a machine is slow.
        pace = stdev(works) / fmean(works) * math.sqrt(1 + 1 / number)
        rounds = student_quantile(number - 1) * pace * expected
        sampling = NORMAL * scale * math.sqrt(self.sampling_variance)
        unseen = NORMAL * math.hypot(UNSEEN * expected, ONCE * fixed)
        return Estimate.around(expected, math.hypot(rounds, sampling, unseen))

    def _sampling_variance(self) -> float:
        costs = [
            fmean(one.images[at].seconds for one in self.all_rounds)
            for at in range(self.num_sampled)
        ]
        return sum(
            _variance([costs[at] for at in stratum.places], stratum.images)
            for stratum in self.strata
        )


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a stratum's images stand in the sample, and how many there are in the store."""

    images: int
    places: range


def _strata(survey: Survey, sample: Sample) -> Iterator[_Places]:
    at = 0
    for bits, entries in sample.items():
        yield _Places(survey.strata[bits].images, range(at, at + len(entries)))
        at += len(entries)


def _variance(values: Sequence[float], number: int) -> float:
    """Return the variance of an estimated sum over `number` images, of which these were drawn."""
    drawn = len(values)
    if drawn == number or drawn < 2:
        return 0.0
    return number * (number - drawn) * variance(values) / drawn


def student_quantile(freedom: int) -> float:
    """Return Student's t below which 95 % lie; within 0.2 % from 4 degrees of freedom on.

    M. Abramowitz, I. A. Stegun, "Handbook of Mathematical Functions", 26.7.5.
    """
    z, v = NORMAL, freedom
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3


def makespan(shards: Sequence[int], workers: int) -> int:
    """Return how many images the last worker to end has labelled, if each takes the next shard."""
    loads = [0] * min(workers, len(shards))
    for rows in shards:
        heapq.heapreplace(loads, loads[0] + rows)
    return max(loads, default=0)


def _workers_for(scaled: _Scaled, deadline_hours: float | None) -> int | None:
    """Return the least number of workers whose whole interval ends before the deadline."""
    if deadline_hours is None:
        return None
    low, high = 1, len(scaled.survey.shards)
    if scaled.hours(high).high > deadline_hours:
        return None
    while low < high:
        middle = (low + high) // 2
        if scaled.hours(middle).high <= deadline_hours:
            high = middle
        else:
            low = middle + 1
    return low


def _requests(survey: Survey, source: SourceReference, destination: str | None) -> dict[str, int]:
    requests: dict[str, int] = {}
    if source.uri.startswith(S3_SCHEME):
        requests["list"] = math.ceil(survey.found / LISTED_A_PAGE)
    if source.in_bucket:
        requests["get"] = survey.listed
    if (destination or "").startswith(S3_SCHEME):
        requests["get"] = requests.get("get", 0) + GETS_A_PART * len(survey.shards)
        requests["put"] = PUTS_A_PART * len(survey.shards)
        requests["list"] = requests.get("list", 0) + LISTS_A_PART * len(survey.shards)
    return requests


def _money(
    prices: Prices,
    core_hours: Estimate,
    gpu_hours: Estimate | None,
    requests: dict[str, int],
    read_bytes: Estimate,
) -> Estimate:
    writes = requests.get("put", 0) + requests.get("list", 0)
    known = (prices.get_1000 * requests.get("get", 0) + prices.put_1000 * writes) / 1000
    terms = [core_hours.times(prices.cpu_hour), read_bytes.times(prices.transfer_gb / 1e9)]
    if gpu_hours is not None:
        terms.append(gpu_hours.times(prices.gpu_hour))
    return Estimate(
        low=sum(term.low for term in terms),
        expected=sum(term.expected for term in terms),
        high=sum(term.high for term in terms),
    ).plus(known)
