"""What runs the workers of a labelling run: as asked for, or what starts sooner here."""

from typing import TYPE_CHECKING, Literal

from cifar_ray.cli.display import counted_workers
from cifar_ray.config.machine import usable_cores
from cifar_ray.errors import InputError

if TYPE_CHECKING:
    from cifar_ray.config.labelling import RunOptions
    from cifar_ray.prediction.engine import Engine
    from cifar_ray.prediction.plan import Plan

RAY_REPAYS_CORES = 32
"""From so many cores on, one driver that starts processes is no longer the better engine."""


def choose_engine(plan: "Plan", options: "RunOptions") -> tuple["Engine", str]:
    """Return the engine, and the line that says which it is and why."""
    cores = usable_cores()
    kind, reason = choose_kind(options, cores)
    if kind == "ray":
        from cifar_ray.on_ray.prediction import RayEngine

        number = (
            "as many workers as fit"
            if options.workers is None
            else counted_workers(options.workers)
        )
        ray_engine = RayEngine(options.workers, options.store_timeout_s, options.address)
        return ray_engine, f"Ray engine ({reason}), {number}."
    from cifar_ray.prediction.arrow_alone import keep_pandas_out
    from cifar_ray.prediction.local import LocalEngine

    keep_pandas_out()
    num_workers = options.workers or max(1, cores // plan.record.execution.threads)
    local_engine = LocalEngine(
        plan.store.uri, plan.source.reference, num_workers, options.store_timeout_s
    )
    return local_engine, f"Local engine ({reason}), {counted_workers(num_workers)}."


def choose_kind(options: "RunOptions", cores: int) -> tuple[Literal["local", "ray"], str]:
    """Return the kind of engine for a machine with so many cores, and why.

    `InputError` for a dashboard of an engine that has none.
    """
    if options.engine == "local" and options.dashboard:
        raise InputError("--dashboard is Ray's, and the local engine has none: leave one out.")
    if options.engine != "auto":
        return options.engine, "as asked"
    if options.dashboard:
        return "ray", "for its dashboard"
    if options.address:
        return "ray", f"address {options.address}"
    if cores >= RAY_REPAYS_CORES:
        return "ray", f"{cores} cores"
    return "local", f"{cores} cores do not repay the start of Ray"
