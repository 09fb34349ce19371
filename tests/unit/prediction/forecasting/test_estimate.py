"""Forecasts from costs that are known: what comes out is what was put in, and intervals hold it."""

import random
from collections.abc import Callable
from functools import partial
from statistics import fmean

import pytest
from scipy import stats

from cifar_ray.config.execution import Execution
from cifar_ray.config.labelling import (
    BundleReference,
    LabellingConfig,
    RunRecord,
    SourceReference,
)
from cifar_ray.config.prices import Prices
from cifar_ray.prediction.forecasting.estimate import (
    PUTS_A_PART,
    Asked,
    forecast,
    makespan,
    student_quantile,
)
from cifar_ray.prediction.forecasting.forecast import Forecast
from cifar_ray.prediction.forecasting.gauge import ImageCost, Round
from cifar_ray.prediction.forecasting.survey import SAMPLE, Survey, survey
from cifar_ray.prediction.forecasting.trial import Cost, Trial
from cifar_ray.prediction.manifest import shard_size
from cifar_ray.prediction.sources import Entry
from cifar_ray.prediction.sources.base import UNKNOWN_SIZE
from cifar_ray.runs import ShardName
from tests.unit.prediction.listed import ListedSource

BATCH = 16
BATCH_S, ROW_S, SHARD_S = 0.02, 0.0002, 0.005
DRIVER_S, START, SEALING = 3.0, Cost(4.0, 5.0), Cost(1.0, 1.5)
WAITING = 1.25
"""Wall seconds a second of CPU."""
Speed = Callable[[], float]


def record(uri: str = "/photos", device: str = "cpu") -> RunRecord:
    execution = Execution(
        backend="torch",
        precision="float32",
        device=device,
        batch_size=BATCH,
        threads=1,
        decoder="pillow",
        decoder_scaling=False,
        versions={},
        instruction_set="none",
    )
    kind = "s3" if uri.startswith("s3://") else "folder"
    return RunRecord(
        code_version="0",
        created_at="2026-01-01T00:00:00+00:00",
        config=LabellingConfig(),
        execution=execution,
        bundle=BundleReference(id="some", digest="0" * 64),
        source=SourceReference(kind=kind, uri=uri),
    )


def store_of(number: int, seed: int) -> list[Entry]:
    """Images of very different sizes: many small ones, some large."""
    rng = random.Random(seed)
    spread = rng.uniform(0.3, 1.6)
    centre = rng.uniform(7, 11)
    return [
        Entry(f"{at:06}.jpg", "1", int(rng.lognormvariate(centre, spread)) + 200)
        for at in range(number)
    ]


def true_costs(entries: list[Entry], seed: int) -> dict[str, float]:
    """CPU seconds of each image: they grow with its size, but not by it alone."""
    rng = random.Random(seed)
    return {
        entry.key: (5e-5 + 4e-8 * entry.size_bytes) * rng.lognormvariate(0, 0.35)
        for entry in entries
    }


def measured(sample: list[Entry], costs: dict[str, float], speed: float) -> Round:
    images = tuple(
        ImageCost(0.0, 0.0, speed * costs[entry.key], 0.0, max(0, entry.size_bytes))
        for entry in sample
    )
    num_batches = -(-len(sample) // BATCH)
    single = images[0].seconds + speed * (BATCH_S + ROW_S + SHARD_S)
    shard = sum(image.seconds for image in images)
    shard += speed * (num_batches * BATCH_S + len(sample) * ROW_S + SHARD_S)
    return Round(
        start_s=START.cpu_s,
        images=images,
        num_batches=num_batches,
        batches_s=speed * num_batches * BATCH_S,
        shard_s=shard,
        single_s=single,
        wall_s=WAITING * shard,
        part_bytes=100 * len(sample),
    )


def trial_of(seen: Survey, costs: dict[str, float], speed: Speed, **place: str) -> Trial:
    sample = [entry for stratum in seen.sample().values() for entry in stratum]
    rounds = []
    for _ in range(6):
        factor = speed()
        rounds.append(tuple(measured(sample, costs, factor) for _ in range(2)))
    return Trial(record(**place), DRIVER_S, START, SEALING, tuple(rounds))


def work_s(seen: Survey, costs: dict[str, float]) -> float:
    num_batches = sum(-(-rows // BATCH) for rows in seen.shards)
    rows_s = seen.listed * ROW_S + len(seen.shards) * SHARD_S
    return sum(costs.values()) + num_batches * BATCH_S + rows_s


def steady() -> float:
    return 1.0


def forecast_of(seen: Survey, trial: Trial, asked: Asked | None = None) -> Forecast:
    return forecast(seen, seen.sample(), trial, asked or Asked(workers=2, threads=1))


def test_quantiles_are_student_s() -> None:
    for freedom in (4, 5, 9, 19):
        assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.95, freedom), rel=2e-3)


def test_a_small_store_is_measured_whole() -> None:
    entries = store_of(30, seed=1)
    costs = true_costs(entries, seed=1)
    seen = survey(ListedSource(entries), images_per_shard=8)
    found = forecast_of(seen, trial_of(seen, costs, steady))
    true_s = work_s(seen, costs) + DRIVER_S + 2 * START.cpu_s + SEALING.cpu_s + seen.cpu_seconds
    assert found.cpu_hours.expected * 3600 == pytest.approx(true_s)
    assert sum(found.stage_cpu_seconds.values()) == pytest.approx(true_s)
    # 30 images in parts of 8: each of two workers has two parts, the second one 8 + 6 images.
    wall_s = WAITING * work_s(seen, costs) * 16 / 30 + START.wall_s + SEALING.wall_s
    assert found.hours.expected * 3600 == pytest.approx(wall_s)
    assert (found.listed, found.parts, found.gpu_hours, found.money) == (30, 4, None, None)
    assert found.read_bytes.expected == sum(entry.size_bytes for entry in entries)
    assert found.written_bytes.expected == 30 * 100


def test_a_worker_that_finds_no_shard_is_not_started_and_costs_nothing() -> None:
    entries = store_of(30, seed=1)
    seen = survey(ListedSource(entries), images_per_shard=10)
    trial = trial_of(seen, true_costs(entries, seed=1), steady)
    one, three, many = (forecast_of(seen, trial, Asked(n, 1)).cpu_hours for n in (1, 3, 40))
    assert 3600 * (three.expected - one.expected) == pytest.approx(2 * START.cpu_s)
    assert many == three


def test_intervals_hold_what_they_say_in_stores_of_all_kinds_and_are_narrow() -> None:
    held = 0
    for seed in range(20):
        rng = random.Random(seed)
        entries = store_of(rng.choice((300, 1000, 10_000)), seed)
        costs = true_costs(entries, seed)
        seen = survey(ListedSource(entries), None, seed)
        found = forecast_of(seen, trial_of(seen, costs, partial(rng.gauss, 1.0, 0.05)))
        fixed_s = DRIVER_S + 2 * START.cpu_s + SEALING.cpu_s
        true_h = (rng.gauss(1.0, 0.05) * work_s(seen, costs) + fixed_s) / 3600
        held += found.cpu_hours.low <= true_h <= found.cpu_hours.high
        if len(entries) >= 10_000:
            assert found.cpu_hours.high <= 1.3 * found.cpu_hours.expected
    assert held >= 16


def test_an_interval_that_ignores_how_the_machine_varies_would_not_hold() -> None:
    """The harness above goes red for a forecast that is too sure of itself."""
    held = 0
    for seed in range(20):
        rng = random.Random(seed)
        entries = store_of(1000, seed)
        costs = true_costs(entries, seed)
        seen = survey(ListedSource(entries), None, seed)
        found = forecast_of(seen, trial_of(seen, costs, steady))
        fixed_s = DRIVER_S + 2 * START.cpu_s + SEALING.cpu_s
        true_h = rng.gauss(1.0, 0.5) * (work_s(seen, costs) + fixed_s) / 3600
        held += found.cpu_hours.low <= true_h <= found.cpu_hours.high
    assert held < 16


def test_a_restless_machine_has_wider_intervals() -> None:
    entries = store_of(3000, seed=3)
    costs = true_costs(entries, seed=3)
    seen = survey(ListedSource(entries), None)
    speeds = iter((0.7, 1.3) * 3)
    quiet = forecast_of(seen, trial_of(seen, costs, steady)).cpu_hours
    restless = forecast_of(seen, trial_of(seen, costs, lambda: next(speeds))).cpu_hours
    assert restless.high - restless.low > 2 * (quiet.high - quiet.low)
    assert restless.expected == pytest.approx(quiet.expected)


def test_sizes_that_nobody_knows_are_estimated_too() -> None:
    entries = [Entry(f"{at}", "1", UNKNOWN_SIZE) for at in range(1000)]
    seen = survey(ListedSource(entries), None)
    trial = trial_of(seen, dict.fromkeys((entry.key for entry in entries), 0.001), steady)
    sized = tuple(
        tuple(
            Round(
                **{**_fields(one), "images": tuple(i._replace(num_bytes=500) for i in one.images)}
            )
            for one in round_
        )
        for round_ in trial.rounds
    )
    found = forecast_of(seen, Trial(trial.record, DRIVER_S, START, SEALING, sized))
    assert found.read_bytes.expected == 500 * 1000


def _fields(one: Round) -> dict[str, object]:
    return {name: getattr(one, name) for name in Round.__dataclass_fields__}


def test_money_is_workers_as_long_as_they_run_and_requests_and_bytes() -> None:
    entries = store_of(30, seed=5)
    costs = true_costs(entries, seed=5)
    seen = survey(ListedSource(entries, uri="s3://bucket/photos"), images_per_shard=8)
    trial = trial_of(seen, costs, steady, uri="s3://bucket/photos", device="cuda")
    prices = Prices(cpu_hour=0.04, gpu_hour=0.5, get_1000=1.0, put_1000=10.0, transfer_gb=100.0)
    found = forecast_of(seen, trial, Asked(3, 4, prices=prices))
    assert found.gpu_hours is not None
    assert found.money is not None
    assert found.gpu_hours.expected == pytest.approx(3 * found.hours.expected)
    assert found.requests == {"list": 1, "get": 30}
    rented = found.hours.expected * 3 * (4 * 0.04 + 0.5)
    read = sum(entry.size_bytes for entry in entries) / 1e9 * 100
    assert found.money.expected == pytest.approx(rented + 0.03 + 0.01 + read)
    assert found.money.low < found.money.expected < found.money.high
    kept = forecast_of(seen, trial, Asked(3, 4, "s3://bucket/labels"))
    assert kept.requests["put"] == PUTS_A_PART * found.parts
    assert kept.requests["get"] > 30


def test_a_deadline_asks_for_the_least_workers_that_surely_meet_it() -> None:
    entries = store_of(4000, seed=6)
    costs = true_costs(entries, seed=6)
    seen = survey(ListedSource(entries), images_per_shard=100)
    trial = trial_of(seen, costs, steady)
    hours = {n: forecast_of(seen, trial, Asked(n, 1)).hours.high for n in (1, 2, 3, 4, 40)}
    found = forecast_of(seen, trial, Asked(1, 1, deadline_hours=hours[3]))
    assert found.workers_for_deadline == 3
    never = forecast_of(seen, trial, Asked(1, 1, deadline_hours=hours[40] * 0.99))
    assert never.workers_for_deadline is None


def test_the_last_worker_decides_how_long_it_takes() -> None:
    assert makespan([4, 4, 4], 1) == 12
    assert makespan([4, 4, 4], 2) == 8
    assert makespan([1, 1, 8], 3) == makespan([1, 1, 8], 30) == 8
    assert makespan([], 2) == 0


def test_the_sample_has_some_of_each_size_and_most_of_what_costs_most() -> None:
    entries = [Entry(f"s{at:05}", "1", 1000) for at in range(5000)]
    entries += [Entry(f"t{at:05}", "1", 500_000) for at in range(50)]
    entries += [Entry("huge", "1", 30_000_000)]
    seen = survey(ListedSource(entries), None)
    sizes = {bits: len(drawn) for bits, drawn in seen.sample().items()}
    assert sizes[(1000).bit_length()] >= 50
    assert sizes[(500_000).bit_length()] >= 40
    assert sizes[(30_000_000).bit_length()] == 1
    assert sum(sizes.values()) <= SAMPLE + 5 * len(sizes)
    again = survey(ListedSource(entries), None)
    assert again.sample() == seen.sample()
    assert survey(ListedSource(entries), None, seed=1).sample() != seen.sample()


def test_every_image_of_a_stratum_is_as_likely_to_be_drawn() -> None:
    entries = [Entry(f"{at:04}", "1", 1000) for at in range(1000)]
    drawn = [
        int(entry.key)
        for seed in range(30)
        for entry in survey(ListedSource(entries), None, seed).sample()[10]
    ]
    assert len(drawn) == 30 * SAMPLE
    assert fmean(drawn) == pytest.approx(499.5, abs=12)


def test_shards_are_counted_as_the_manifest_cuts_them() -> None:
    entries = [Entry(f"{at:05}", "1", 1000) for at in range(3000)]
    seen = survey(ListedSource(entries), None)
    sizes = [shard_size(ShardName(0, number), None) for number in range(len(seen.shards))]
    assert seen.shards[:-1] == sizes[:-1]
    assert sum(seen.shards) == seen.listed == seen.found == 3000
