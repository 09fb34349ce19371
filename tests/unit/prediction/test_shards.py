"""Where the listing runs: in any process, any number of times, the same shards."""

import pickle
import shutil
from itertools import islice
from pathlib import Path

import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import StoreUnavailable
from cifar_ray.prediction.events import Listed
from cifar_ray.prediction.plan import Plan, Request, make_plan
from cifar_ray.prediction.shards import ListedShard, RunShards
from cifar_ray.runs import LabellingRun, ShardName


def plan_of(images: Path, out: Path) -> Plan:
    config = LabellingConfig(images_per_shard=10)
    return make_plan(Request(str(images), str(out), None, None, config, ExecutionRequest()))


def test_a_listing_that_is_repeated_elsewhere_gives_the_same_whatever_was_done_meanwhile(
    drawn_images: Path, tmp_path: Path
) -> None:
    plan = plan_of(drawn_images, tmp_path / "out")
    plan.store.write(LabellingRun.part(ShardName(0, 1)), b"")
    shards = RunShards.of(plan)
    listed = list(shards)
    assert listed == [
        ListedShard(ShardName(0, 0), 10, done=False),
        ListedShard(ShardName(0, 1), 10, done=True),
        ListedShard(ShardName(0, 2), 10, done=False),
    ]
    plan.store.write(LabellingRun.part(ShardName(0, 0)), b"")
    elsewhere: RunShards = pickle.loads(pickle.dumps(shards.only(0)))
    assert list(elsewhere.in_range(0)) == listed
    assert [shard.done for shard in RunShards.of(plan)] == [True, True, False]


def test_what_is_listed_is_counted_apart_from_what_an_earlier_run_did() -> None:
    listed = Listed().plus(128, done=False).plus(128, done=True).plus(512, done=False)
    assert listed == Listed(shards=2, images=640, shards_before=1, images_before=128)


@pytest.mark.parametrize("listed_before", [0, 1])
def test_a_listing_goes_on_when_the_disk_is_back_and_never_ends_while_it_is_away(
    drawn_images: Path, tmp_path: Path, listed_before: int
) -> None:
    images, away = tmp_path / "images", tmp_path / "away"
    shutil.copytree(drawn_images, images)
    plan = plan_of(images, tmp_path / "out")
    before = list(islice(RunShards.of(plan), listed_before))
    images.rename(away)
    with pytest.raises(StoreUnavailable, match="gone or empty"):
        list(RunShards.of(plan))
    images.mkdir()  # The mount point of an unplugged disk.
    with pytest.raises(StoreUnavailable, match="gone or empty"):
        list(RunShards.of(plan))
    assert not plan.store.exists(LabellingRun.range_end(0))
    images.rmdir()
    away.rename(images)
    listed = list(RunShards.of(plan))
    assert listed[:listed_before] == before
    assert len(listed) == 3
