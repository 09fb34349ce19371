"""A job on the cluster: its spec, and the function that the verb itself calls."""

import os
import signal
from pathlib import Path

from cifar_ray.cli import boundary, evaluate, predict, train, tune
from cifar_ray.cli.main import terminate
from cifar_ray.config.job import EvaluateJob, PredictJob, TrainJob, TuneJob, read_job
from cifar_ray.errors import InputError


def run(verb: str, path: str) -> int:
    """Do what a spec file says, and return the exit code that the command line would have."""
    # What `jobs stop` sends: the same as Ctrl-C.
    signal.signal(signal.SIGTERM, terminate)
    try:
        job = read_job(Path(path))
        # The folder that it came in may vanish: nodes on one machine share it, and each that gets a
        # task of ours makes it anew.
        os.chdir("/")
        if job.verb != verb:
            raise InputError(f"{path} is a spec of `{job.verb}`, not of `{verb}`.")
        match job:
            case PredictJob():
                predict.run_job(job)
            case TrainJob():
                train.run_job(job)
            case TuneJob():
                tune.run_job(job)
            case EvaluateJob():
                evaluate.run_job(job)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 -- the boundary of a job
        return boundary.report(error)
    return 0
