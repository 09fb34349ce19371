"""Training images that are read anew in each epoch: the same images, in a bounded shuffle."""

import io
import shutil
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingSpec, override
from cifar_ray.errors import InputError
from cifar_ray.models.bundle import Bundle
from cifar_ray.runs import TrainingRun
from cifar_ray.storage import open_store
from cifar_ray.training.batches import Batch, Batches
from cifar_ray.training.data import streaming, survey
from cifar_ray.training.data.dataset import decode_all, read_folder
from cifar_ray.training.data.sources import Data, geometry, load
from cifar_ray.training.data.split import digests, split_data
from cifar_ray.training.data.streaming import StreamedImages
from cifar_ray.training.data.survey import load_stream
from cifar_ray.training.loop import EpochRow, Ranks
from cifar_ray.training.pipeline import Watcher, train
from cifar_ray.training.place import RunPlace
from cifar_ray.training.resume import open_run
from tests.drawing import draw_classes

SETTINGS = ("epochs=2", "batch_size=7", "validation_fraction=0.2", "stream.enabled=true")
STATISTICS = ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
FORMS = ("folder", "tar", "parquet")


class Form(NamedTuple):
    """DATA in one of its forms, with a copy of an image in it."""

    name: str
    data: str


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "classes"
    draw_classes(root, each=20)
    shutil.copy(root / "red" / "05.png", root / "red" / "06.png")
    return root


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, classes: Path, tmp_path: Path) -> Form:
    paths = sorted(classes.glob("*/*.png"))
    if request.param == "tar":
        (tmp_path / "shards").mkdir()
        for number in range(2):
            with tarfile.open(tmp_path / "shards" / f"{number}.tar", "w") as tar:
                for path in paths[number * 30 : (number + 1) * 30]:
                    tar.add(path, f"{path.parent.name}-{path.name}")
                    header = tarfile.TarInfo(f"{path.parent.name}-{path.stem}.cls")
                    header.size = len(path.parent.name)
                    tar.addfile(header, io.BytesIO(path.parent.name.encode()))
        return Form("tar", str(tmp_path / "shards"))
    if request.param == "parquet":
        columns = [[p.read_bytes() for p in paths], [p.parent.name for p in paths]]
        table = pa.table(columns, ["image", "label"])
        pq.write_table(table, tmp_path / "data.parquet", row_group_size=17)
        return Form("parquet", str(tmp_path / "data.parquet"))
    return Form("folder", str(classes))


def spec_of(data: str, run: Path, *settings: str) -> TrainingSpec:
    config = override(get_recipe("cnn-122k"), [*SETTINGS, *settings])
    return TrainingSpec(config=config, data=data, run=str(run), code_version="0")


def streamed(data: str, run: Path, *settings: str, ranks: Ranks | None = None) -> Data:
    place = RunPlace(open_store(str(run)), run)
    return load_stream(spec_of(data, run, *settings), 32, place, ranks or Ranks())


def images_of(data: Data) -> StreamedImages:
    assert isinstance(data.train, StreamedImages)
    return data.train


def batches_of(data: Data, epoch: int = 0, rank: int = 0, of: int = 1) -> list[Batch]:
    config = override(get_recipe("cnn-122k"), [*SETTINGS])
    generator = torch.Generator().manual_seed(epoch)
    return list(Batches(config, STATISTICS, rank, of).epoch(epoch, data.train, generator))


def seen_in(batches: list[Batch]) -> list[bytes]:
    return [image.numpy().tobytes() for batch in batches for image in batch.inputs]


def test_images_are_those_of_memory_in_every_form(form: Form, tmp_path: Path) -> None:
    ours, expected = streamed(form.data, tmp_path / "run"), load(form.data, 32)
    assert (ours.name, ours.test) == (expected.name, None)
    assert ours.train.label_names == expected.train.label_names
    assert ours.train.size_range == expected.train.size_range
    everything = torch.arange(len(expected.train))
    assert torch.equal(ours.train.take(everything), expected.train.images)
    config = spec_of(form.data, tmp_path).config
    split, in_memory = split_data(ours, config), split_data(expected, config)
    assert split.duplicates == in_memory.duplicates
    assert split.duplicates.copies == 1
    assert isinstance(split.train, StreamedImages)
    assert torch.equal(split.train.labels, in_memory.train.labels)
    assert digests(split.train) == digests(in_memory.train)
    assert torch.equal(split.validation.images, in_memory.validation.images)
    for found, true in zip(split.train.statistics(), in_memory.train.statistics(), strict=True):
        assert found == pytest.approx(true, rel=1e-9)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(form: Form, tmp_path: Path) -> None:
    data = streamed(form.data, tmp_path / "run")
    first, again, second = batches_of(data), batches_of(data), batches_of(data, epoch=1)
    assert [batch.num_images for batch in first] == [7] * 8 + [4]
    assert seen_in(first) == seen_in(again)
    assert seen_in(first) != seen_in(second)
    assert sorted(seen_in(first)) == sorted(seen_in(second))
    assert len(set(seen_in(first))) == 59
    labels = torch.cat([batch.labels for batch in first])
    assert torch.bincount(labels).tolist() == [20, 20, 20]


def test_ranks_share_an_epoch_and_each_reads_its_own_images_alone(
    form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = streamed(form.data, tmp_path / "run")
    read: list[str] = []
    decode_chunk = streaming.decode_chunk

    def note(sources: Any, *rest: Any) -> list[str]:
        read.extend(name for name, _ in sources)
        return decode_chunk(sources, *rest)

    monkeypatch.setattr(streaming, "decode_chunk", note)
    ranks = [batches_of(data, rank=rank, of=2) for rank in range(2)]
    assert sorted(seen_in(ranks[0]) + seen_in(ranks[1])) == sorted(seen_in(batches_of(data)))
    for even, odd in zip(*ranks, strict=True):
        assert len(even.labels) + len(odd.labels) == even.num_images == odd.num_images
        assert 0 <= len(even.labels) - len(odd.labels) <= 1
    assert sorted(read[:60]) == sorted(read[60:]) == sorted(set(read))


def test_no_more_images_are_held_than_the_buffer_is_for(form: Form, tmp_path: Path) -> None:
    data = images_of(streamed(form.data, tmp_path / "run"))
    small = replace(data, buffer_images=10)
    order = small.order(torch.Generator().manual_seed(3))
    drawn = [indices for _, indices in small.shuffled(order, [7] * 8 + [4], torch.Generator())]
    place = {int(index): number for number, index in enumerate(order)}
    places = [[place[int(index)] for index in indices] for indices in drawn]
    for number, batch in enumerate(places):
        assert max(batch) < 10 + 7 * number
    assert sorted(chain(*places)) == list(range(60))
    assert places[0] != list(range(7))


def test_a_block_is_read_at_once_and_epochs_visit_them_in_orders_of_their_own(
    form: Form, tmp_path: Path
) -> None:
    data = images_of(streamed(form.data, tmp_path / "run"))
    sizes = torch.bincount(data.catalog.blocks).tolist()
    assert sizes == {"folder": [1] * 60, "tar": [30, 30], "parquet": [17, 17, 17, 9]}[form.name]
    orders = set()
    for epoch in range(8):
        order = data.order(torch.Generator().manual_seed(epoch)).tolist()
        blocks = [int(data.catalog.blocks[index]) for index in order]
        visited = [number for number, _ in groupby(blocks)]
        assert sorted(visited) == list(range(len(sizes)))
        orders.add(tuple(visited))
    assert len(orders) > 1


def test_long_shards_are_cut_into_blocks(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        for path in sorted(classes.glob("*/0?.png")):
            tar.add(path, f"{path.parent.name}-{path.name}")
            header = tarfile.TarInfo(f"{path.parent.name}-{path.stem}.cls")
            header.size = 1
            tar.addfile(header, io.BytesIO(b"1"))
    # Two headers, a time's fraction, and a block for the image; a header and a block for its label.
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 5 * 6 * tarfile.BLOCKSIZE)
    data = images_of(streamed(str(tmp_path / "d.tar"), tmp_path / "run"))
    assert torch.bincount(data.catalog.blocks).tolist() == [5] * 6


def start(spec: TrainingSpec, on_epoch: Callable[[EpochRow], None] = lambda row: None) -> Any:
    open_run(spec)
    return train(spec, Ranks(), Watcher(on_epoch=on_epoch))


def test_a_run_that_was_stopped_goes_on_to_the_same_weights_without_another_look(
    form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixing = () if form.name == "tar" else ("augment.cutmix_alpha=1", "augment.flip=alternate")
    whole = spec_of(form.data, tmp_path / "whole", "stream.buffer_mib=1", *mixing)
    metrics = start(whole)
    assert metrics["duplicates"]["copies"] == 1

    def interrupt(row: EpochRow) -> None:
        raise KeyboardInterrupt

    stopped = spec_of(form.data, tmp_path / "stopped", "stream.buffer_mib=1", *mixing)
    with pytest.raises(KeyboardInterrupt):
        start(stopped, interrupt)
    monkeypatch.setattr(survey, "_look", lambda *_: pytest.fail("it looks again"))
    start(stopped)
    ours, expected = (
        load_file(TrainingRun(Path(spec.run)).bundle / "model.safetensors")
        for spec in (stopped, whole)
    )
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    bundle = Bundle.load(TrainingRun(Path(whole.run)).bundle)
    assert bundle.spec.trained_on.image_width == (32, 40)


def test_images_that_changed_are_looked_at_again(tmp_path: Path) -> None:
    draw_classes(tmp_path / "classes", each=4)
    before = digests(streamed(str(tmp_path / "classes"), tmp_path / "run").train)
    other = (tmp_path / "classes" / "red" / "02.png").read_bytes()
    (tmp_path / "classes" / "red" / "03.png").write_bytes(other)
    after = digests(streamed(str(tmp_path / "classes"), tmp_path / "run").train)
    assert before[-2] != before[-1]
    assert after == [*before[:-1], before[-2]]


def test_what_ranks_find_is_put_together(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads stand for two processes; `add` waits for both, as theirs does."""
    monkeypatch.setattr(survey, "MEETING_IMAGES", 10)
    met = threading.Barrier(2, timeout=60)
    given: dict[int, Tensor] = {}
    found: dict[int, Data] = {}

    def add(rank: int, tensor: Tensor) -> None:
        given[rank] = tensor.clone()
        met.wait()
        total = given[0] + given[1]
        met.wait()
        tensor.copy_(total)

    def look(rank: int) -> None:
        ranks = Ranks(rank, 2, add=lambda tensor: add(rank, tensor))
        found[rank] = streamed(str(classes), tmp_path / "run", ranks=ranks)

    threads = [threading.Thread(target=look, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = images_of(streamed(str(classes), tmp_path / "alone"))
    for rank in range(2):
        assert torch.equal(images_of(found[rank]).catalog.digests, alone.catalog.digests)
        assert torch.equal(images_of(found[rank]).catalog.sums, alone.catalog.sums)


def test_images_that_cannot_be_decoded_are_named_before_training(tmp_path: Path) -> None:
    draw_classes(tmp_path / "classes", each=12)
    for number in range(11):
        (tmp_path / "classes" / "red" / f"{number:02}.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="11 images of DATA cannot be decoded") as told:
        streamed(str(tmp_path / "classes"), tmp_path / "run")
    assert "00.png: not_an_image" in str(told.value)
    assert "… and 1 more" in str(told.value)


@pytest.mark.parametrize("way", ["emptied", "taken away", "replaced"])
def test_an_image_that_is_another_than_before_is_told_and_not_trained_on(
    tmp_path: Path, way: str
) -> None:
    draw_classes(tmp_path / "classes", each=12)
    data = streamed(str(tmp_path / "classes"), tmp_path / "run")
    assert batches_of(data)
    path = tmp_path / "classes" / "red" / "03.png"
    if way == "emptied":
        path.write_bytes(b"")
    elif way == "taken away":
        path.unlink()
    else:
        Image.new("RGB", (90, 70)).save(path)
    with pytest.raises(InputError, match=r"03\.png of DATA was changed or taken away"):
        batches_of(data)


def test_held_out_images_that_do_not_fit_into_memory_are_told(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = streamed(str(classes), tmp_path / "run")
    free = type("Free", (), {"available": 12 * 32 * 32 * 3})
    monkeypatch.setattr(streaming.psutil, "virtual_memory", lambda: free)
    with pytest.raises(InputError, match=r"splits\.num_validation_images"):
        split_data(data, spec_of(str(classes), tmp_path).config)


def test_images_that_fit_nowhere_are_told_of_streaming(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_RAY_CACHE", str(tmp_path / "cache"))
    full = shutil.disk_usage(tmp_path)._replace(free=60 * 32 * 32 * 3 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    with pytest.raises(InputError, match=r"--set stream\.enabled=true"):
        decode_all(read_folder(str(classes)), geometry(32), memory_bytes=0)
    assert list((tmp_path / "cache" / "decoded").iterdir()) == []
