"""What a search remembers: a file a trial, each replaced atomically. Ray's own state is not used.

    trials/0007/trial.json      parameters; how it ended, once it has      (the driver)
    trials/0007/history.json    a row an epoch                             (the trial's worker)
    trials/0007/checkpoints/    where it goes on from                      (the trial's worker)
    trials/0007/failure.json    why it cannot be trained                   (the trial's worker)
    epochs.json                 epochs that each trial began, if bounded   (the trials' workers)

A trial whose `trial.json` has ended is never touched again, whatever is killed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue, ValidationError

from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.config.search import SearchSpec
from cifar_ray.config.spaces import Parameters, apply
from cifar_ray.errors import InputError, of_exit_code, printable
from cifar_ray.runs import SearchRun
from cifar_ray.training.checkpoint import Progress
from cifar_ray.training.epoch import EpochRow
from cifar_ray.training.pipeline import is_done, write_json
from cifar_ray.training.search.budget import EpochBudget

State = Literal["running", "finished", "stopped", "budget", "failed"]
"""`stopped` by the scheduler; `budget` is a trial that the search's epochs did not suffice for."""
Row = dict[str, float]


class Exploit(FrozenConfig):
    """A trial of a population that went on from a better one, with other parameters."""

    epoch: int
    """Epochs that the trial had trained when it was given up."""
    donor: int
    donor_epoch: int
    before: Parameters
    after: Parameters
    seconds_before: float
    """That the trial had trained by then; rows of its own were replaced by the donor's."""
    seconds_taken_over: float
    """Of the donor's rows, with which `history` begins."""


class TrialRecord(FrozenConfig):
    """One trial: what it is, and how far it is or how it ended."""

    number: int
    parameters: Parameters
    """With a population, those it has now."""
    state: State = "running"
    error: str | None = None
    history: tuple[Row, ...] = ()
    """The rows of `history.json`."""
    exploits: tuple[Exploit, ...] = ()

    @property
    def best(self) -> Row | None:
        """The epoch whose checkpoint is kept: of the highest validation accuracy, then lowest loss.

        Trials are chosen by that accuracy alone.
        """
        rank = lambda row: (row["validation_accuracy"], -row["validation_loss"])  # noqa: E731
        return max(self.history, key=rank, default=None)

    @property
    def accuracy(self) -> float | None:
        """The highest validation accuracy."""
        return self.best["validation_accuracy"] if self.best else None

    @property
    def seconds(self) -> float:
        """Training time of this trial's own epochs, without validation."""
        seconds = sum(row["seconds"] for row in self.history)
        if not self.exploits:
            return seconds
        last = self.exploits[-1]
        return seconds - last.seconds_taken_over + last.seconds_before

    @property
    def epochs_trained(self) -> int:
        """Epochs of its own, given-up ones too, but not those that it took over."""
        own = taken_over = 0
        for exploit in self.exploits:
            own += exploit.epoch - taken_over
            taken_over = exploit.donor_epoch
        return own + max(0, len(self.history) - taken_over)

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state != "running"


@dataclass(slots=True)
class Records:
    """All trials of a search by number, in memory and on disk."""

    spec: SearchSpec
    trials: dict[int, TrialRecord]

    @property
    def run(self) -> SearchRun:
        """The paths."""
        return SearchRun(Path(self.spec.run))

    @property
    def epochs_trained(self) -> int:
        """Epochs over all trials, in all runs of the search."""
        return sum(trial.epochs_trained for trial in self.trials.values())

    @classmethod
    def load(cls, spec: SearchSpec) -> "Records":
        """Read what is there; `InputError` for a record that is none."""
        trials = {}
        for path in sorted(SearchRun(Path(spec.run)).trials_folder.glob("*/trial.json")):
            try:
                record = TrialRecord.model_validate_json(path.read_bytes())
            except ValidationError as error:
                raise InputError(
                    f"{printable(str(path))} is not of this version of cifar-ray, or is damaged. "
                    "Remove the folder that it lies in to run the trial again."
                ) from error
            trials[record.number] = record
        records = cls(spec, trials)
        for record in trials.values():
            if not record.has_ended:
                trials[record.number] = records._as_left(record)
        return records

    def begin(self, number: int, parameters: Parameters) -> None:
        """Note a trial that starts, or goes on."""
        if number not in self.trials:
            self._write(TrialRecord(number=number, parameters=parameters))

    def add_row(self, number: int, row: Row) -> None:
        """Note an epoch of a running trial, in memory; the worker has written it."""
        record = self.trials[number]
        if row in record.history:
            return  # told again by a worker that goes on: later rows still hold
        history = (*(r for r in record.history if r["epoch"] < row["epoch"]), row)
        self.trials[number] = record.model_copy(update={"history": history})

    def exploit(self, number: int, donor: int, donor_epoch: int, after: Parameters) -> None:
        """Note that a trial goes on from a checkpoint of its donor's, which may be further now."""
        record = self.trials[number]
        given = tuple(row for row in self.trials[donor].history if row["epoch"] < donor_epoch)
        exploit = Exploit(
            epoch=len(record.history),
            donor=donor,
            donor_epoch=donor_epoch,
            before=record.parameters,
            after=after,
            seconds_before=record.seconds,
            seconds_taken_over=sum(row["seconds"] for row in given),
        )
        update = {
            "parameters": after,
            "exploits": (*record.exploits, exploit),
            "history": given,
        }
        self._write(record.model_copy(update=update))

    def end(self, number: int, error: str | None = None) -> None:
        """Note how a trial ended: with `error`, with what its worker says, or by its epochs.

        Raises what its worker says if it is no fault of the trial's, which has not ended then.
        """
        record = self._with_history(self.trials[number])
        failure = self.run.trial(number).failure
        if error is None and failure.exists():
            told = json.loads(failure.read_text())
            if "exit_code" in told:
                raise of_exit_code(told["exit_code"], told["error"])
            error = told["error"]
        state: State = "failed"
        if error is None:
            refused = EpochBudget.of(self.spec, number).was_refused
            early: State = "budget" if refused else "stopped"
            state = "finished" if self._is_whole(record) else early
        self._write(record.model_copy(update={"state": state, "error": error}))

    def best(self) -> TrialRecord | None:
        """Return the trial of the highest validation accuracy; failed ones are not chosen."""
        scored = [t for t in self.trials.values() if t.history and t.state != "failed"]
        return max(scored, key=lambda t: (t.accuracy, -t.number), default=None)

    def write_parquet(self) -> None:
        """Write `trials.parquet`: a row a trial, in the order of their numbers."""
        path = self.run.trials
        temporary = path.with_name(f".{path.name}")
        pq.write_table(trials_table(self), temporary)
        temporary.replace(path)

    def _is_whole(self, record: TrialRecord) -> bool:
        """Tell whether it was trained to its end, which its recipe's own patience may be."""
        rows: tuple[Any, ...] = record.history
        progress = Progress(tuple(EpochRow(**row) for row in rows))
        return is_done(apply(self.spec.config, record.parameters), progress)

    def _with_history(self, record: TrialRecord) -> TrialRecord:
        """Take the rows from the worker's file: the driver may have been told of fewer."""
        path = self.run.trial(record.number).training.history
        if not path.exists():
            return record
        return record.model_copy(update={"history": tuple(json.loads(path.read_text()))})

    def _as_left(self, record: TrialRecord) -> TrialRecord:
        """Take the worker's rows, and undo an exploit if they do not begin with its donor's.

        An heir waits before it takes over the checkpoint: a kill leaves it with its own weights.
        """
        left = self._with_history(record)
        if not record.exploits or left.history[: len(record.history)] == record.history:
            return left
        *exploits, undone = record.exploits
        return left.model_copy(update={"parameters": undone.before, "exploits": tuple(exploits)})

    def _write(self, record: TrialRecord) -> None:
        path = self.run.trial(record.number).record
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record.model_dump(mode="json"))
        self.trials[record.number] = record


def trials_table(records: Records) -> pa.Table:
    """Return a row a trial: `parameter.FIELD` for every field, metrics, cost, error."""
    trials = [records.trials[number] for number in sorted(records.trials)]
    columns: dict[str, Any] = {
        "trial": pa.array([t.number for t in trials], pa.int32()),
        "state": pa.array([t.state for t in trials], pa.string()),
        "error": pa.array([t.error for t in trials], pa.string()),
    }
    for field in records.spec.space.fields:
        columns[f"parameter.{field}"] = _column([t.parameters[field] for t in trials])
    for name in ("validation_accuracy", "validation_loss", "train_loss", "epoch"):
        kind = pa.int32() if name == "epoch" else pa.float64()
        of_best = [t.best[name] if t.best else None for t in trials]
        columns["best_epoch" if name == "epoch" else name] = pa.array(of_best, kind)
    epochs = [records.spec.epochs_of(t.parameters) for t in trials]
    seconds = [t.seconds for t in trials]
    columns |= {
        "epochs": pa.array([len(t.history) for t in trials], pa.int32()),
        "epochs_planned": pa.array(epochs, pa.int32()),
        "seconds": pa.array(seconds, pa.float64()),
        "worker_seconds": pa.array(
            [s * records.spec.workers_per_trial for s in seconds], pa.float64()
        ),
        "exploits": pa.array([len(t.exploits) for t in trials], pa.int32()),
        "lineage": pa.array(
            [json.dumps([e.model_dump(mode="json") for e in t.exploits]) for t in trials],
            pa.string(),
        ),
    }
    return pa.table(columns)


def _column(values: list[JsonValue]) -> pa.Array:
    """Return values under their own type; of mixed ones, their JSON."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([json.dumps(value) for value in values], pa.string())
