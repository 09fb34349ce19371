"""`verify` against runs in which something was damaged after they were sealed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import InputError, Unfinished, VerificationFailed
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.manifest import DamagedListing, Manifest
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.plan import Plan, Request, make_plan
from cifar_ray.prediction.sealing import unfit_parts
from cifar_ray.prediction.shards import RunShards
from cifar_ray.prediction.sources import find_source
from cifar_ray.prediction.verification.repair import finish_begun, repair
from cifar_ray.prediction.verification.replay import replay
from cifar_ray.prediction.verification.verify import Verified, verify
from cifar_ray.storage import FolderStore
from tests.drawing import draw_folder

SHARD = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    draw_folder(root, count=40)
    (root / "empty.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("notes")
    return root


def plan_of(images: Path, out: Path) -> Plan:
    config = LabellingConfig(images_per_shard=SHARD)
    return make_plan(Request(str(images), str(out), None, None, config, ExecutionRequest()))


def run(images: Path, out: Path) -> None:
    plan = plan_of(images, out)
    label(plan, LocalEngine(str(out), plan.source.reference, 1, 1.0), 1.0, lambda progress: None)


@pytest.fixture(scope="module")
def sealed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "out"
    run(images, out)
    return out


@pytest.fixture
def out(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "out"))


def look(out: Path) -> Verified:
    return verify(FolderStore(out), lambda rows: None)


def files(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if path.is_file())


def test_a_run_as_it_was_sealed_has_no_differences(out: Path) -> None:
    verified = look(out)
    assert verified.differences == ()
    assert (verified.rows, verified.parts) == (41, 6)


def flip(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 0x01
    path.write_bytes(data)


def names_of(sealed_run: Path) -> list[str]:
    return [str(path.relative_to(sealed_run)) for path in files(sealed_run)]


def said(out: Path) -> str:
    """Return what `verify` says, whether it found a run to look at or not."""
    try:
        differences = look(out).differences
    except VerificationFailed as error:
        return str(error)
    return " ".join(f"{found.where} {found.what}" for found in differences)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_a_flipped_bit_anywhere_is_found_and_the_file_or_shard_named(
    out: Path, sealed: Path, share: float
) -> None:
    for name in names_of(sealed):
        flip(out / name, share)
        shard = Path(name).stem.removeprefix("part-").removeprefix("shard-")
        words = said(out)
        assert shard in words or Path(name).name in words, (name, words)
        shutil.copy(sealed / name, out / name)
    assert look(out).differences == ()


def test_every_missing_file_is_missed(out: Path, sealed: Path) -> None:
    for name in names_of(sealed):
        (out / name).unlink()
        if name == "run.json":
            with pytest.raises(VerificationFailed, match=r"run\.json is missing"):
                look(out)
        elif name == "receipt.json":
            # As if the run had been killed before it was written: predict writes it again.
            with pytest.raises(Unfinished):
                look(out)
        else:
            assert look(out).differences, name
        shutil.copy(sealed / name, out / name)


PART = "predictions/part-0000-{:07d}.parquet"
CHUNK = "_manifest/shard-0000-{:07d}.parquet"


def swap(out: Path, form: str) -> None:
    first, second = out / form.format(1), out / form.format(2)
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def double(out: Path, form: str) -> None:
    shutil.copy(out / form.format(1), out / form.format(6))


def swap_labels(out: Path, form: str) -> None:
    """Give two rows of a part each other's labels, in a part that is otherwise as it should be."""
    path = out / form.format(1)
    table = pq.read_table(path)
    names = ["label", "label_id", "confidence", "top_labels", "top_scores"]
    order = [1, 0, *range(2, table.num_rows)]
    for name in names:
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), table[name].take(order))
    pq.write_table(table, path)


@pytest.mark.parametrize("form", [PART, CHUNK], ids=["parts", "chunks"])
@pytest.mark.parametrize("damage", [swap, double])
def test_swapped_and_doubled_files_are_found_and_repair_leaves_the_run_as_it_was(
    images: Path, out: Path, sealed: Path, damage: Callable[[Path, str], None], form: str
) -> None:
    damage(out, form)
    verified = look(out)
    assert any(
        "0000-0000001" in found.where or "0000006" in found.where for found in verified.differences
    )
    repair(FolderStore(out), verified)
    with pytest.raises(Unfinished):
        look(out)
    run(images, out)
    assert look(out).differences == ()
    for part in sorted((sealed / "predictions").iterdir()):
        assert (out / "predictions" / part.name).read_bytes() == part.read_bytes()


def test_repair_does_only_the_bad_part_again(images: Path, out: Path, sealed: Path) -> None:
    good = out / PART.format(3)
    before = good.stat().st_mtime_ns
    flip(out / PART.format(2), 0.5)
    repair(FolderStore(out), look(out))
    run(images, out)
    assert good.stat().st_mtime_ns == before
    assert (out / PART.format(2)).read_bytes() == (sealed / PART.format(2)).read_bytes()
    kept = out / "_history" / "0001" / PART.format(2)
    assert kept.read_bytes() != (sealed / PART.format(2)).read_bytes()


class Killed(BaseException):
    """The process ends here."""


class MortalStore(FolderStore):
    """Is killed after so many files were moved."""

    def __init__(self, root: Path, moves_left: int) -> None:
        super().__init__(root)
        self.moves_left = moves_left

    def move(self, name: str, to: str) -> None:
        if not self.moves_left:
            raise Killed
        self.moves_left -= 1
        super().move(name, to)


def state(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in names_of(out)}


@pytest.mark.parametrize("finish", ["predict", "verify --repair"])
def test_a_repair_that_is_killed_anywhere_is_finished_before_anything_is_taken_for_good(
    images: Path, out: Path, tmp_path: Path, finish: str
) -> None:
    flip(out / PART.format(1), 0.3)
    (out / CHUNK.format(3)).write_bytes(b"")
    verified = look(out)
    whole = Path(shutil.copytree(out, tmp_path / "whole"))
    repair(FolderStore(whole), verified)
    num_moves = len(list((whole / "_history").rglob("*.*"))) - 1
    assert num_moves == 9  # The part, three chunks, the end, the receipt, and what follows.
    for moves_left in range(num_moves):
        killed = Path(shutil.copytree(out, tmp_path / str(moves_left)))
        with pytest.raises(Killed):
            repair(MortalStore(killed, moves_left), verified)
        if finish == "predict":
            plan_of(images, killed)
        else:
            finish_begun(FolderStore(killed))
        assert state(killed) == state(whole)


def test_a_gap_in_the_listing_is_neither_listed_over_nor_sealed(images: Path, out: Path) -> None:
    (out / "receipt.json").unlink()
    (out / CHUNK.format(2)).unlink()
    plan = plan_of(images, out)
    with pytest.raises(DamagedListing, match=r"shard-0000-0000002.* is missing"):
        list(RunShards.of(plan))
    with pytest.raises(DamagedListing, match="is missing"):
        unfit_parts(plan.store, plan.record, Manifest(plan.store, SHARD))


def test_damage_in_any_column_is_seen_in_a_part_that_no_digest_is_known_of(out: Path) -> None:
    (out / "receipt.json").unlink()
    (out / "_parts.parquet").unlink()
    part = out / PART.format(1)
    whole = part.read_bytes()
    rows = pq.read_metadata(part).row_group(0)
    for column in map(rows.column, range(rows.num_columns)):
        start = column.dictionary_page_offset or column.data_page_offset
        data = bytearray(whole)
        data[start + column.total_compressed_size - 1] ^= 0x01  # the end of its last page
        part.write_bytes(data)
        found = verify(FolderStore(out), lambda rows: None, open_too=True).differences
        name = column.path_in_schema
        assert [difference.where for difference in found] == ["0000-0000001"], name


def test_a_damaged_run_that_is_not_sealed_is_repaired_too(
    images: Path, out: Path, sealed: Path
) -> None:
    (out / "receipt.json").unlink()
    assert verify(FolderStore(out), lambda rows: None, open_too=True).differences == ()
    flip(out / PART.format(1), 0.3)  # In a column, of which the footer says nothing.
    (out / PART.format(5)).unlink()
    (out / CHUNK.format(3)).unlink()
    cut = out / CHUNK.format(4)
    cut.write_bytes(cut.read_bytes()[:-100])
    (out / "_manifest" / "end-0000.json").write_bytes(b"{")
    store = FolderStore(out)
    verified = verify(store, lambda rows: None, open_too=True)
    assert [found.where for found in verified.differences] == [
        "_manifest/end-0000.json",
        "0000-0000001",
        "0000-0000003",
        "0000-0000004",
    ]
    repair(store, verified)
    run(images, out)
    assert look(out).differences == ()
    for part in sorted((sealed / "predictions").iterdir()):
        assert (out / "predictions" / part.name).read_bytes() == part.read_bytes()


def test_replay_finds_labels_that_are_not_their_files(images: Path, out: Path) -> None:
    source = find_source(str(images))
    store = FolderStore(out)
    assert replay(store, source, 100, seed=0) == []
    one, other = pq.read_table(out / PART.format(1))["top_scores"].to_pylist()[:2]
    assert abs(one[0] - other[0]) > 0.01
    swap_labels(out, PART)
    found = replay(store, source, 100, seed=0)
    assert found
    assert all("0000-0000001" in difference.where for difference in found)


def test_replay_finds_a_file_that_was_replaced(images: Path, out: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(images, tmp_path / "moved"))
    victim = sorted(moved.rglob("*.jpg"))[0]
    data = bytearray(victim.read_bytes())
    data[-3] ^= 0x10
    status = victim.stat()
    victim.write_bytes(data)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = replay(FolderStore(out), find_source(str(moved)), 100, seed=0)
    assert [difference.where.split(", ")[1] for difference in found] == [
        str(victim.relative_to(moved))
    ]


def test_a_receipt_with_other_numbers_is_found(out: Path) -> None:
    receipt = json.loads((out / "receipt.json").read_text())
    receipt["listed"] += 1
    (out / "receipt.json").write_text(json.dumps(receipt))
    assert {found.where for found in look(out).differences} == {"receipt.json"}


def test_a_folder_without_a_run_and_an_open_run_are_said_to_be_so(
    out: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="holds no labelling run"):
        look(tmp_path / "nothing")
    (out / "receipt.json").unlink()
    with pytest.raises(Unfinished, match="not sealed"):
        look(out)
