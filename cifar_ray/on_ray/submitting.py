"""From the spec of a job to the job: what the cluster cannot reach is refused or uploaded, and one
command never runs twice at a time.

A job's name is `<verb>-<digest of its spec>-<n>`. While the newest job of a digest lives, the same
command finds it; after its end n grows. Ray refuses a name that it has seen, so that a request
which is sent twice, by a retry or by two people, starts one job.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cifar_ray
from cifar_ray.config.job import (
    DIGEST_CHARACTERS,
    SPEC_NAME,
    EvaluateJob,
    Job,
    TrainJob,
    TuneJob,
    is_local,
)
from cifar_ray.errors import InputError, printable
from cifar_ray.models.opening import open_bundle
from cifar_ray.models.torchvision_table import PREFIX
from cifar_ray.on_ray.jobs import DESTINATION, DIGEST, VERB, VERSION, JobRow, Jobs
from cifar_ray.prediction.run_bundle import upload_bundle

PACKAGE = Path(cifar_ray.__file__).parent
LOCK = "requirements.lock"
UNPACKED = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
"""Where a node unpacks what was shipped; Ray fills it in."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that was started, or found."""

    job_id: str
    started: bool
    """False if it lives since an earlier submission of the same command."""


@dataclass(frozen=True, slots=True)
class Submitter:
    """Submits to one cluster."""

    jobs: Jobs
    ship_code: bool = False
    shared_path: bool = False
    """Every node has SOURCE and DEST under the same local paths."""

    def submit(self, job: Job) -> Submission:
        """Start the job, or find the one that runs.

        Raises `InputError` for what the cluster cannot reach, and while another job writes to the
        same DEST.
        """
        job = self._reachable(job)
        name = f"{job.verb}-{job.digest[:DIGEST_CHARACTERS]}"
        rows = self.jobs.rows()
        numbers = [int(row.id.rpartition("-")[2]) for row in rows if _is_numbered(row.id, name)]
        newest = f"{name}-{max(numbers, default=0)}"
        if any(row.id == newest and row.alive for row in rows):
            return Submission(newest, started=False)
        _refuse_rivals(rows, job)
        job_id = f"{name}-{max(numbers, default=0) + 1}"
        metadata = {
            VERSION: job.code_version,
            VERB: job.verb,
            DIGEST: job.digest,
            DESTINATION: job.destination,
        }
        with self._packed(job) as runtime_env:
            # `exec`, so that the signal that stops a job reaches Python and not a shell.
            command = f"exec python jobs/{job.verb}.py {SPEC_NAME}"
            return Submission(job_id, self.jobs.submit(command, job_id, runtime_env, metadata))

    def _reachable(self, job: Job) -> Job:
        """Check places, and upload a local model beside DEST."""
        destination = self._place("--out", job.destination)
        if isinstance(job, TrainJob):
            data = job.data if job.data == "cifar10" else self._place("DATA", job.data)
            weights = None if job.weights is None else self._place("--weights", job.weights)
            return job.model_copy(
                update={"data": data, "destination": destination, "weights": weights}
            )
        if isinstance(job, TuneJob):
            data = job.data if job.data == "cifar10" else self._place("DATA", job.data)
            return job.moved(data, destination)
        if isinstance(job, EvaluateJob):
            data = job.data if job.data == "cifar10" else self._place("DATA", job.data)
            bundles = tuple(_model(place, destination) for place in job.bundles)
            return job.model_copy(
                update={"data": data, "destination": destination, "bundles": bundles}
            )
        model = None if job.model is None else _model(job.model, destination)
        source = self._place("SOURCE", job.source)
        return job.model_copy(update={"source": source, "destination": destination, "model": model})

    def _place(self, name: str, place: str) -> str:
        if not is_local(place):
            return place
        if not self.shared_path:
            raise InputError(
                f"{name} {printable(place)} lies on this machine, which the cluster cannot reach. "
                "Give a place that every node reaches (s3://…), or --shared-path if it is a "
                "network disk that every node has under this path."
            )
        return str(Path(place.removeprefix("file://")).expanduser().absolute())

    @contextmanager
    def _packed(self, job: Job) -> Iterator[dict[str, Any]]:
        """Give the runtime environment: the spec, what reads it, and with `ship_code` the code."""
        with tempfile.TemporaryDirectory(prefix="cifar-ray-job-") as folder:
            root = Path(folder)
            (root / SPEC_NAME).write_bytes(job.to_bytes())
            (root / "jobs").mkdir()
            shutil.copy(_entry_point(job.verb), root / "jobs")
            runtime_env: dict[str, Any] = {"working_dir": str(root)}
            if self.ship_code:
                runtime_env["pip"] = {"packages": [f"-r {UNPACKED}/{_ship(root)}"]}
            yield runtime_env


def _is_numbered(job_id: str, name: str) -> bool:
    head, _, number = job_id.rpartition("-")
    return head == name and number.isdecimal()


def _refuse_rivals(rows: list[JobRow], job: Job) -> None:
    rival = next((row for row in rows if row.alive and row.destination == job.destination), None)
    if rival is not None:
        raise InputError(
            f"Job {rival.id} writes to --out {printable(job.destination)} and differs from this "
            f"one. Wait for it, stop it (cifar-ray jobs stop {rival.id}), or give another --out."
        )


def _model(bundle: str, destination: str) -> str:
    """Return where the cluster finds a model: beside DEST, if it is on this machine."""
    if bundle.startswith(PREFIX) or not is_local(bundle):
        return bundle
    parent, _, name = destination.rstrip("/").rpartition("/")
    if not name or parent.endswith(":/"):
        raise InputError(
            f"--out {printable(destination)}: name a folder in it, beside which the model can lie."
        )
    return upload_bundle(open_bundle(bundle.removeprefix("file://")), parent)


def _entry_point(verb: str) -> Path:
    """Return `jobs/VERB.py`: within an installed package, beside it in a clone."""
    places = (PACKAGE / "jobs", PACKAGE.parent / "jobs")
    return next(path for place in places if (path := place / f"{verb}.py").is_file())


def _ship(root: Path) -> str:
    """Copy package and lock; return the lock's name there.

    The name has the lock's digest, since Ray keeps an environment for as long as its description
    stays the same.
    """
    lock = PACKAGE.parent / LOCK
    if not lock.is_file():
        raise InputError(
            f"--ship-code needs a clone of cifar-ray, with its {LOCK}; this is an installed "
            f"package. Install cifar-ray {cifar_ray.__version__} on the cluster's nodes instead."
        )
    shutil.copytree(PACKAGE, root / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:DIGEST_CHARACTERS]
    name = f"requirements-{digest}.txt"
    shutil.copy(lock, root / name)
    return name
