"""Where everything in a run lies: the only place where a run's paths are put together.

Names are relative to the run's folder and use `/`, so that they hold in a folder and in a bucket.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_SHARD = re.compile(r"(\d{4})-(\d{7})")


@dataclass(frozen=True, slots=True, order=True)
class ShardName:
    """The identity of a shard: its range, and its number within the range."""

    range_number: int
    number: int

    def __str__(self) -> str:
        """Return the form in which it stands in file names and rows."""
        return f"{self.range_number:04d}-{self.number:07d}"

    @classmethod
    def parse(cls, text: str) -> "ShardName":
        """Read `RRRR-SSSSSSS`, alone or within a file name; `ValueError` if there is none."""
        match = _SHARD.search(text)
        if match is None:
            raise ValueError(f"no shard name in {text!r}")
        return cls(int(match[1]), int(match[2]))


class LeasedRun:
    """Names of the leases of a run, of which one process at a time holds the highest."""

    LEASE = "_lease"

    @classmethod
    def lease(cls, number: int) -> str:
        """Return the name of a lease; the highest number holds."""
        return f"{cls.LEASE}/{number:07d}.json"


class LabellingRun(LeasedRun):
    """Names of the files of a labelling run, below DEST."""

    RECORD = "run.json"
    RECEIPT = "receipt.json"
    FORECAST = "forecast.json"
    """What `plan` said of the run before it began; the receipt compares it with what came."""
    FAILURES = "failures.parquet"
    REPORT = "report.html"
    PARTS_INDEX = "_parts.parquet"
    PREDICTIONS = "predictions"
    MANIFEST = "_manifest"
    BUNDLE = "_bundle"
    TEMPORARY = "_tmp"
    HISTORY = "_history"
    MARKS = "_marks"
    REASON = "reason.json"
    """In a folder of the history: why the run was opened again."""
    MOVES = "_moves.json"
    """What a repair is about to move into the history."""
    UPDATE = "_update"
    UPDATE_COMPLETE = "_update/complete.json"

    @classmethod
    def part(cls, shard: ShardName) -> str:
        """Return the name of a shard's rows."""
        return f"{cls.PREDICTIONS}/part-{shard}.parquet"

    @classmethod
    def manifest_chunk(cls, shard: ShardName) -> str:
        """Return the name of a shard's listing."""
        return f"{cls.MANIFEST}/shard-{shard}.parquet"

    @classmethod
    def mark(cls, shard: ShardName) -> str:
        """Return the name of the mark of a shard that is begun and not ended."""
        return f"{cls.MARKS}/{shard}"

    @classmethod
    def update(cls, name: str) -> str:
        """Return where a new file of the manifest lies before it takes its place."""
        return f"{cls.UPDATE}/{name}"

    @classmethod
    def history(cls, number: int, name: str) -> str:
        """Return where a file is kept that was replaced when the run was opened again."""
        return f"{cls.HISTORY}/{number:04d}/{name}"

    @classmethod
    def range_end(cls, range_number: int) -> str:
        """Return the name of the file that says that a range is listed to its end."""
        return f"{cls.MANIFEST}/end-{range_number:04d}.json"


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """Paths of the files of an evaluation."""

    folder: Path

    @property
    def metrics(self) -> Path:
        """Metrics on held-out images; written last."""
        return self.folder / "metrics.json"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.folder / "report.html"

    @property
    def plots(self) -> Path:
        """Each plot of the report as PNG."""
        return self.folder / "plots"


class TrainingRun(EvaluationRun):
    """Paths of the files of a training run, which ends in an evaluation."""

    __slots__ = ()
    HISTORY = "history.json"
    PROGRESS = "progress.json"

    @property
    def bundle(self) -> Path:
        """The best epoch's bundle."""
        return self.folder / "bundle"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, one folder each."""
        return self.folder / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.folder / "tensorboard"

    @property
    def config(self) -> Path:
        """The whole config of the run."""
        return self.folder / "config.json"

    @property
    def survey(self) -> Path:
        """What the first look at images found that are streamed."""
        return self.folder / "survey.safetensors"

    @property
    def history(self) -> Path:
        """A row an epoch."""
        return self.folder / self.HISTORY

    @property
    def progress(self) -> Path:
        """How far rank 0 is, while it trains under Ray."""
        return self.folder / self.PROGRESS


@dataclass(frozen=True, slots=True)
class SearchRun:
    """Paths of the files of a hyperparameter search."""

    folder: Path

    @property
    def spec(self) -> Path:
        """What the search is; written first."""
        return self.folder / "search.json"

    @property
    def lock(self) -> Path:
        """Held by the one process that searches."""
        return self.folder / ".lock"

    @property
    def trials_folder(self) -> Path:
        """A folder a trial."""
        return self.folder / "trials"

    def trial(self, number: int) -> "TrialRun":
        """Return the paths of a trial."""
        return TrialRun(self.trials_folder / f"{number:04d}")

    @property
    def trials(self) -> Path:
        """A row a trial."""
        return self.folder / "trials.parquet"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.folder / "report.html"

    @property
    def refit(self) -> Path:
        """The training run of the best trial's parameters."""
        return self.folder / "refit"

    @property
    def bundle(self) -> Path:
        """The best trial's bundle, once it is trained again."""
        return self.folder / "bundle"

    @property
    def epochs(self) -> Path:
        """How many epochs each trial has begun, where the search may train a number of them."""
        return self.folder / "epochs.json"

    @property
    def epochs_lock(self) -> Path:
        """Held by a worker that takes an epoch."""
        return self.folder / ".epochs.lock"

    @property
    def ray(self) -> Path:
        """Ray Tune's own files, while it runs."""
        return self.folder / "ray"


@dataclass(frozen=True, slots=True)
class TrialRun:
    """Paths of the files of one trial of a search."""

    folder: Path

    @property
    def record(self) -> Path:
        """What the trial is and how it ended; the driver writes it."""
        return self.folder / "trial.json"

    @property
    def lock(self) -> Path:
        """Held by the worker that trains it."""
        return self.folder / ".lock"

    @property
    def failure(self) -> Path:
        """Why it cannot be trained; its worker writes it."""
        return self.folder / "failure.json"

    @property
    def training(self) -> TrainingRun:
        """Its checkpoints and history."""
        return TrainingRun(self.folder)
