"""Optuna as a pure function of finished trials: no database, no lock, the same proposals in every process."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState, create_trial


@dataclass(frozen=True)
class FinishedTrial:
    """A trial of an earlier round; value None records a failed one."""

    number: int
    params: dict[str, Any]
    value: float | None


def distributions(space: Mapping[str, Mapping[str, Any]]) -> dict[str, BaseDistribution]:
    """Optuna's distributions of `search.space`, in sorted order, because the sampler draws in that order."""
    built: dict[str, BaseDistribution] = {}
    for name, parameter in sorted(space.items()):
        match parameter["type"]:
            case "float":
                built[name] = FloatDistribution(parameter["low"], parameter["high"], log=parameter.get("log", False))
            case "int":
                built[name] = IntDistribution(
                    parameter["low"], parameter["high"], log=parameter.get("log", False), step=parameter.get("step", 1)
                )
            case "categorical":
                built[name] = CategoricalDistribution(parameter["choices"])
            case kind:
                raise ValueError(f"search.space.{name}: no parameter type {kind!r}")
    return built


def propose(
    space: Mapping[str, Mapping[str, Any]], seed: int, round_number: int, n: int, finished: Sequence[FinishedTrial]
) -> list[dict[str, Any]]:
    """The n proposals of a round: scrambled quasi-random in the first, TPE with constant liar from then on.

    The study is rebuilt in memory from `finished`, sorted by number: another order would give other proposals.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searched = distributions(space)
    sampler: optuna.samplers.BaseSampler
    if round_number == 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = optuna.samplers.QMCSampler(scramble=True, seed=seed, warn_independent_sampling=False)
    else:
        sampler = optuna.samplers.TPESampler(seed=seed + round_number, n_startup_trials=1, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in sorted(finished, key=lambda trial: trial.number):
        state = TrialState.FAIL if trial.value is None else TrialState.COMPLETE
        study.add_trial(create_trial(state=state, params=trial.params, distributions=searched, value=trial.value))
    return [study.ask(searched).params for _ in range(n)]
