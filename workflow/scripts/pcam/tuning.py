"""Optuna as a pure function of finished trials: no database, no lock, the same proposals in every process."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from pcam.search_space import Space, is_active, ordered, searched_settings

LEAST_TRIALS = 4  # finished ones below which a share of the variation says nothing


@dataclass(frozen=True)
class FinishedTrial:
    """A trial of the first rung: what the search chose of its recipe; value None records a failed one."""

    number: int
    params: dict[str, Any]
    value: float | None


def finished_trials(space: Space, metric: str, sidecars: Sequence[Mapping[str, Any]]) -> list[FinishedTrial]:
    """`sidecars` in the order of the trials' numbers, failed ones among them."""
    return [
        FinishedTrial(number, searched_settings(space, sidecar["settings"]), value_of(sidecar, metric))
        for number, sidecar in enumerate(sidecars)
    ]


def value_of(sidecar: Mapping[str, Any], metric: str) -> float | None:
    """A training's score on valid; None when it failed, or when valid lacks a class."""
    value: float | None = None if sidecar["state"] == "failed" else sidecar["valid"][metric]
    return value


def best(values: Sequence[float | None], n: int) -> list[int]:
    """Places of the n highest values, best first; of equals the first proposed. Fewer where fewer are known."""
    known = [(-value, at) for at, value in enumerate(values) if value is not None]
    return [at for _, at in sorted(known)[:n]]


def distribution(name: str, parameter: Mapping[str, Any]) -> BaseDistribution:
    """Optuna's distribution of an entry of `search.space`."""
    match parameter["type"]:
        case "float":
            return FloatDistribution(parameter["low"], parameter["high"], log=parameter.get("log", False))
        case "int":
            return IntDistribution(
                parameter["low"], parameter["high"], log=parameter.get("log", False), step=parameter.get("step", 1)
            )
        case "categorical":
            return CategoricalDistribution(parameter["choices"])
        case kind:
            raise ValueError(f"search.space.{name}: no parameter type {kind!r}")


def propose(
    space: Space,
    base: Mapping[str, Any],
    seed: int,
    round_number: int,
    n: int,
    finished: Sequence[FinishedTrial],
) -> list[dict[str, Any]]:
    """The n proposals of a round: scrambled quasi-random in the first, TPE with constant liar from then on.

    A proposal holds the settings that are searched in it; of the others `base`, the base recipe, stays. The study is
    rebuilt in memory from `finished`, sorted by number: another order would give other proposals.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: distribution(name, space[name]) for name in ordered(space)}
    if round_number == 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            first = optuna.samplers.QMCSampler(scramble=True, seed=seed, warn_independent_sampling=False)
        study = optuna.create_study(direction="maximize", sampler=first)
        # A point of the sequence has a coordinate for every setting; those that its other coordinates put out of
        # play are dropped.
        points = [study.ask(distributions).params for _ in range(n)]
        return [searched_settings(space, {**base, **point}) for point in points]
    sampler = optuna.samplers.TPESampler(seed=seed + round_number, n_startup_trials=1, constant_liar=True)
    study = _study(distributions, finished, sampler)
    return [_suggest(study.ask(), space, base, distributions) for _ in range(n)]


def importance(
    space: Space, finished: Sequence[FinishedTrial], seed: int
) -> tuple[dict[str, float] | None, str | None]:
    """Share of the variation between trials that each setting explains (fANOVA), and why there is none, or not all.

    Settings that only some trials search have no share.
    """
    known = [trial for trial in finished if trial.value is not None]
    if len(known) < LEAST_TRIALS:
        return None, f"{len(known)} trials of the first rung finished; shares take {LEAST_TRIALS} or more"
    if len({trial.value for trial in known}) == 1:
        return None, "all trials of the first rung have the same value"
    everywhere = [name for name in ordered(space) if all(name in trial.params for trial in known)]
    varied = [name for name in everywhere if len({trial.params[name] for trial in known}) > 1]
    if not varied:
        return None, "no setting that every trial searches took more than one value"
    study = _study({name: distribution(name, space[name]) for name in space}, known, None)
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed), params=varied)
    left = sorted(set(space) - set(varied))
    return {name: float(shares[name]) for name in varied}, f"no share: {', '.join(left)}" if left else None


def _study(
    distributions: Mapping[str, BaseDistribution],
    finished: Sequence[FinishedTrial],
    sampler: optuna.samplers.BaseSampler | None,
) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in sorted(finished, key=lambda trial: trial.number):
        state = TrialState.FAIL if trial.value is None else TrialState.COMPLETE
        own = {name: distributions[name] for name in trial.params}
        study.add_trial(create_trial(state=state, params=trial.params, distributions=own, value=trial.value))
    return study


def _suggest(
    trial: optuna.Trial, space: Space, base: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> dict[str, Any]:
    """Settings one by one, each after the one it depends on."""
    for name, values in distributions.items():
        if is_active(space[name], {**base, **trial.params}):
            # What suggest_float and its like end in: they would ask for the distribution's parts.
            trial._suggest(name, values)
    return trial.params
