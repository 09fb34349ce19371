from pathlib import Path

from cifar_ray.config.search import NUM_RANDOM_FIRST, random_parameters
from cifar_ray.training.search.proposals import TpeProposals, importance
from cifar_ray.training.search.record import Records, TrialRecord
from tests.unit.training.search.recorded import ended, row, spec_of

BEST_RATE = 0.01


def accuracy(rate: float) -> float:
    """Return an accuracy that depends on the learning rate alone."""
    return 0.9 - abs(rate - BEST_RATE) / (rate + BEST_RATE)


def run(proposals: TpeProposals, numbers: range) -> list[TrialRecord]:
    """Propose, measure and learn, one trial after another."""
    trials = []
    for number in numbers:
        parameters = proposals.propose(number, None)
        rate = float(str(parameters["optimizer.learning_rate"]))
        rows = tuple(row(epoch, accuracy(rate)) for epoch in range(4))
        record = TrialRecord(number=number, parameters=parameters, state="finished", history=rows)
        proposals.learn(record)
        trials.append(record)
    return trials


def test_tpe_begins_with_the_planned_trials_and_then_nears_the_optimum(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, search="tpe", num_trials=40)
    trials = run(TpeProposals(Records.load(spec)), range(40))
    for number in range(NUM_RANDOM_FIRST):
        assert trials[number].parameters == random_parameters(spec, number)
    first = sorted(trial.accuracy or 0.0 for trial in trials[:NUM_RANDOM_FIRST])
    last = sorted(trial.accuracy or 0.0 for trial in trials[-NUM_RANDOM_FIRST:])
    assert last[5] > first[5] + 0.1


def test_a_resumed_search_knows_what_it_had_learnt(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, search="tpe", num_trials=60)
    records = Records.load(spec)
    trials = run(TpeProposals(records), range(30))
    resumed = TpeProposals(Records(spec, {trial.number: trial for trial in trials}))
    first = sorted(trial.accuracy or 0.0 for trial in trials[:NUM_RANDOM_FIRST])
    after = sorted(trial.accuracy or 0.0 for trial in run(resumed, range(30, 40)))
    assert after[5] > first[5] + 0.1
    assert {str(t.parameters) for t in trials}.isdisjoint(
        str(resumed.propose(number, None)) for number in range(40, 50)
    )


def test_a_trial_that_was_under_way_keeps_its_parameters(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, search="tpe", num_trials=60)
    known = random_parameters(spec, 1000)
    proposals = TpeProposals(Records.load(spec))
    assert proposals.propose(20, known) == known


def test_trials_that_failed_or_were_stopped_teach_too(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, search="tpe", num_trials=60)
    proposals = TpeProposals(Records.load(spec))
    given = ("failed", "stopped", "failed", "budget", "budget")
    for number, state in enumerate(given):
        parameters = proposals.propose(number, None)
        rows = () if number in (2, 4) else (row(0, 0.5),)
        record = TrialRecord.model_validate(
            {"number": number, "parameters": parameters, "state": state, "history": rows}
        )
        proposals.learn(record)
    states = [trial.state.name for trial in proposals.study.trials]
    assert states == ["FAIL", "PRUNED", "FAIL", "PRUNED", "FAIL"]


def test_importance_finds_the_field_that_matters(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path))
    for number in range(16):
        rate = 10 ** (-4 + 3 * number / 15)
        ended(records, number, rate, [accuracy(rate)])
    shares = importance(records)
    assert shares is not None
    assert next(iter(shares)) == "optimizer.learning_rate"
    assert shares["optimizer.learning_rate"] > 0.8


def test_importance_is_not_made_up_from_too_little(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path))
    for number in range(5):
        ended(records, number, 0.01 + number / 100, [0.5])
    assert importance(records) is None
