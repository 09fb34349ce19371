"""Two processes that train together on images that are streamed, without Ray: gloo between them."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingSpec, override
from cifar_ray.runs import TrainingRun
from cifar_ray.training.loop import EpochRow, Ranks
from cifar_ray.training.pipeline import Watcher, train
from cifar_ray.training.resume import open_run
from tests.drawing import draw_classes

SETTINGS = (
    "epochs=3",
    # Odd, so that one rank's share of a batch is larger than the other's.
    "batch_size=21",
    "validation_fraction=0.2",
    "augment.cutmix_alpha=1",
    "stream.enabled=true",
    "stream.buffer_mib=1",
)


class Stop(Exception):
    """Ends a training where a test wants it to end."""


def _rank(rank: int, spec: str, meeting: str, stop_after: int | None) -> None:
    distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)

    def on_epoch(row: EpochRow) -> None:
        # The checkpoint is rank 0's: the other one waits for it, as Ray Train lets it.
        distributed.barrier()
        if row.epoch + 1 == stop_after:
            raise Stop

    ranks = Ranks(rank, 2, DistributedDataParallel, distributed.all_reduce)
    try:
        train(TrainingSpec.model_validate_json(spec), ranks, Watcher(on_epoch=on_epoch))
    except Stop:
        return
    finally:
        distributed.destroy_process_group()


def train_in_two_processes(
    spec: TrainingSpec, folder: Path, stop_after: int | None = None
) -> TrainingRun:
    open_run(spec)
    meeting = folder / f"meeting-{len(list(folder.iterdir()))}"
    context = multiprocessing.get_context("spawn")
    arguments = (spec.model_dump_json(), str(meeting), stop_after)
    processes = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return TrainingRun(Path(spec.run))


@pytest.mark.timeout(900)  # six starts of PyTorch, perhaps on a busy machine
def test_two_ranks_that_were_stopped_go_on_to_the_weights_of_an_undisturbed_run(
    tmp_path: Path,
) -> None:
    draw_classes(tmp_path / "classes", each=30)
    red = tmp_path / "classes" / "red"
    (red / "11.png").write_bytes((red / "10.png").read_bytes())
    config = override(get_recipe("cnn-122k"), list(SETTINGS))
    whole, stopped = (
        TrainingSpec(
            config=config,
            data=str(tmp_path / "classes"),
            run=str(tmp_path / name),
            workers=2,
            code_version="0",
        )
        for name in ("whole", "stopped")
    )
    undisturbed = train_in_two_processes(whole, tmp_path)
    metrics = json.loads(undisturbed.metrics.read_text())
    assert metrics["accuracy"] == 1.0
    assert metrics["duplicates"]["copies"] == 1
    run = train_in_two_processes(stopped, tmp_path, stop_after=1)
    assert not run.metrics.exists()
    looked_at = run.survey.stat().st_mtime_ns
    train_in_two_processes(stopped, tmp_path)
    assert run.survey.stat().st_mtime_ns == looked_at
    ours, expected = (load_file(r.bundle / "model.safetensors") for r in (run, undisturbed))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    losses = [
        [row["train_loss"] for row in json.loads(r.history.read_text())] for r in (run, undisturbed)
    ]
    assert losses[0] == losses[1]
