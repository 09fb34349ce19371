"""Which parameters to try next: planned ones, or those that Optuna's TPE proposes.

J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NeurIPS 2011). A trial that was
stopped early counts with the accuracy that it had then, below all that have reached more epochs.
"""

import warnings
from collections.abc import Iterable

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from cifar_ray.config.distributions import Choice, Distribution
from cifar_ray.config.search import NUM_RANDOM_FIRST, planned
from cifar_ray.config.spaces import Parameters, Space
from cifar_ray.training.search.record import Records, TrialRecord

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TpeProposals:
    """Proposes parameters by number, and learns from trials that have ended."""

    def __init__(self, records: Records) -> None:
        self.spec = records.spec
        self.first = planned(self.spec)
        self.study = _study(
            # Not the numbers again that were drawn before the search was resumed.
            TPESampler(
                seed=self.spec.seed + len(records.trials),
                n_startup_trials=NUM_RANDOM_FIRST,
                constant_liar=True,
            )
        )
        self.asked: dict[int, optuna.Trial] = {}
        ended = [record for record in records.trials.values() if record.has_ended]
        self.study.add_trials(frozen(self.spec.space, ended))

    def propose(self, number: int, known: Parameters | None) -> Parameters:
        """Return the parameters of a trial; `known` ones of a trial that was under way."""
        if known is None and number < len(self.first):
            known = self.first[number]
        distributions = optuna_distributions(self.spec.space)
        if known is not None:
            self.study.enqueue_trial(_to_optuna(self.spec.space, known))
        trial = self.asked[number] = self.study.ask(distributions)
        return known if known is not None else _from_optuna(self.spec.space, trial.params)

    def learn(self, record: TrialRecord) -> None:
        """Take account of a trial that has ended."""
        trial = self.asked.pop(record.number)
        for row in record.history:
            trial.report(row["validation_accuracy"], int(row["epoch"]))
        value = record.accuracy if record.state == "finished" else None
        self.study.tell(trial, value, state=_optuna_state(record))


def frozen(space: Space, records: Iterable[TrialRecord]) -> list[optuna.trial.FrozenTrial]:
    """Return trials that have ended as Optuna knows them."""
    return [
        optuna.trial.create_trial(
            state=_optuna_state(record),
            value=record.accuracy if record.state == "finished" else None,
            params=_to_optuna(space, record.parameters),
            distributions=optuna_distributions(space),
            intermediate_values={
                int(row["epoch"]): row["validation_accuracy"] for row in record.history
            },
        )
        for record in records
    ]


def _optuna_state(record: TrialRecord) -> TrialState:
    if record.state == "finished":
        return TrialState.COMPLETE
    # Of a trial for which no epoch was left, nothing is known.
    return TrialState.PRUNED if record.state != "failed" and record.history else TrialState.FAIL


def importance(records: Records) -> dict[str, float] | None:
    """Return each field's share of the variance of validation accuracy, the largest first.

    By fANOVA over a random forest: F. Hutter et al., "An Efficient Approach for Assessing
    Hyperparameter Importance" (ICML 2014), with each trial's best accuracy, however many epochs
    it was given. None for fewer than four trials, or equal ones.
    """
    space = records.spec.space
    scored = [
        trial.model_copy(update={"state": "finished"})
        for trial in records.trials.values()
        if trial.history and trial.state != "failed"
    ]
    if len(scored) < 4 or len({trial.accuracy for trial in scored}) < 2:
        return None
    study = _study(None)
    study.add_trials(frozen(space, scored))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {field: float(share) for field, share in shares.items()}


def optuna_distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the space as Optuna knows it; of choices, the numbers of their values."""
    return {field: _optuna_distribution(given) for field, given in space.fields.items()}


def _optuna_distribution(given: Distribution) -> BaseDistribution:
    if isinstance(given, Choice):
        return CategoricalDistribution(range(len(given.values)))
    if given.is_integer:
        return IntDistribution(int(given.low), int(given.high), log=given.is_log)
    return FloatDistribution(given.low, given.high, log=given.is_log)


def _to_optuna(space: Space, parameters: Parameters) -> dict[str, object]:
    return {
        field: given.values.index(parameters[field])
        if isinstance(given, Choice)
        else parameters[field]
        for field, given in space.fields.items()
    }


def _from_optuna(space: Space, params: dict[str, int | float]) -> Parameters:
    return {
        field: given.values[int(params[field])] if isinstance(given, Choice) else params[field]
        for field, given in space.fields.items()
    }


def _study(sampler: TPESampler | None) -> optuna.Study:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.create_study(direction="maximize", sampler=sampler)
