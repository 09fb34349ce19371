"""A sealed run taken up again: its failed images retried, or what is new in its source."""

from collections.abc import Callable

from cifar_ray.prediction.plan import Plan
from cifar_ray.prediction.receipt import Receipt, read_receipt
from cifar_ray.prediction.renewal.history import Reason, last_reopening, reopen
from cifar_ray.prediction.renewal.update import update_manifest
from cifar_ray.runs import LabellingRun


def renew(
    plan: Plan,
    reason: Reason,
    run: Callable[[], Receipt],
    say: Callable[[str], None],
    still_ours: Callable[[], None] = lambda: None,
) -> Receipt:
    """Finish the run if it is open, open it again for `reason`, and finish that.

    `run` labels and seals what is open; `say` is told what was found; `still_ours` is called before
    the listing is replaced, and raises if DEST is another run's by now. Killed anywhere, the same
    call goes on.
    """
    sealed, latest = read_receipt(plan.store), last_reopening(plan.store)
    going_on = sealed is None and latest is not None and latest.reason == reason
    if sealed is None and not going_on:
        sealed = run()
    if reason == "update" and not plan.store.exists(LabellingRun.UPDATE_COMPLETE):
        changes = update_manifest(plan, still_ours)
        say(
            f"{changes.new:,} new images, {changes.changed:,} changed, {changes.removed:,} removed."
        )
    elif reason == "retry-failed" and sealed is not None:
        if not sealed.num_failed:
            say("No image has failed; nothing to do.")
            return sealed
        reopen(plan.store, reason)
        say(f"{sealed.num_failed:,} failed images are read again.")
    return run()
