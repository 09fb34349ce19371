"""What a verb makes of its arguments when it is submitted, kept in place of being sent."""

from cifar_ray.cli import job_specs, jobs
from cifar_ray.config.job import Job


class Kept(job_specs.Submit):
    job: Job

    def __init__(self) -> None:
        pass

    def __call__(self, job: Job) -> None:
        self.job = job


def parse(verb: str, *arguments: str) -> Job:
    kept = Kept()
    jobs._parse(verb, list(arguments), kept)
    return kept.job
