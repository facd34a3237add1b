"""Choose the recipe that the search found: the best finished trial of the last rung that finished any.

Reads: the baseline's settings.json, weights.json of every trial, origin.json of those on later rungs.
Writes: settings.json of the variant `tuned`, trials.csv (the search as a table), recipe.json.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcam.files import read_json, write_csv, write_json
from pcam.search_space import Space, searched_settings
from pcam.stage import run_stage
from pcam.tuning import best, finished_trials, importance, value_of

COLUMNS = ("phase", "trial", "rung", "state", "value", "epochs")


def trial_rows(
    trials: Mapping[str, Mapping[str, Any]], origins: Mapping[str, Any], space: Space, metric: str
) -> list[Any]:
    """Lines of trials.csv, with a state as Optuna calls it; a setting that a trial does not search stays empty."""
    rows = []
    for name, sidecar in trials.items():
        phase, trial = name.split("/")
        failed, origin = sidecar["state"] == "failed", origins.get(name)
        settings = {} if name in origins and origin is None else searched_settings(space, sidecar["settings"])
        state = "FAIL" if failed else "COMPLETE"
        head = [phase, trial.partition("-")[2], rung_of(name), state, value_of(sidecar, metric)]
        sought = [settings.get(key) for key in sorted(space)]
        rows.append([*head, sidecar["settings"]["epochs"], *sought, origin, sidecar["reason"] if failed else None])
    return rows


def rung_of(name: str) -> int:
    """The rounds together are rung 0."""
    kind, _, number = name.partition("/")[0].partition("-")
    return 0 if kind == "round" else int(number)


def choose(values: Mapping[str, float | None]) -> str | None:
    """The best of the last rung that finished any; of equals the first. None when none has a value."""
    for rung in sorted({rung_of(name) for name in values}, reverse=True):
        names = [name for name in values if rung_of(name) == rung]
        for at in best([values[name] for name in names], 1):
            return names[at]
    return None


def select_recipe(
    base_path: str,
    sidecar_paths: Sequence[str],
    origin_paths: Sequence[str],
    tuned_path: str,
    trials_path: str,
    recipe_path: str,
    *,
    space: Space,
    metric: str,
    seed: int,
    provenance: Mapping[str, Any],
) -> None:
    """`sidecar_paths` are in the order of proposal, rung after rung.

    When no trial finished the tuned recipe is the baseline's, and recipe.json says so.
    """
    base = read_json(base_path)
    trials = {"/".join(Path(path).parts[-3:-1]): read_json(path) for path in sidecar_paths}
    origins = {"/".join(Path(path).parts[-3:-1]): read_json(path)["origin"] for path in origin_paths}
    values = {name: value_of(sidecar, metric) for name, sidecar in trials.items()}
    name = choose(values)
    if name is None:
        chosen, found = None, {}
        reason = f"none of the {len(trials)} trials has a {metric} on valid; the tuned recipe is the baseline's"
        print(reason)
    else:
        chosen = {"name": name, "value": values[name], "origin": origins.get(name, name)}
        found, reason = searched_settings(space, trials[name]["settings"]), None
        print(f"{name}, proposed as {chosen['origin']}: {metric} {values[name]:.4f} on valid; {found}")
    first = [sidecar for name, sidecar in trials.items() if rung_of(name) == 0]
    shares, shares_reason = importance(space, finished_trials(space, metric, first), seed)
    write_csv(trials_path, (*COLUMNS, *sorted(space), "origin", "reason"), trial_rows(trials, origins, space, metric))
    write_json(
        recipe_path,
        {
            "metric": metric,
            "chosen": chosen,
            "reason": reason,
            "settings": found,
            "importance": shares,
            "importance_reason": shares_reason,
            "searched": sorted(space),
            "provenance": provenance,
        },
    )
    write_json(tuned_path, {**base, **found})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        select_recipe(
            snakemake.input.base,
            snakemake.input.sidecars,
            snakemake.input.origins,
            snakemake.output.settings,
            snakemake.output.trials,
            snakemake.output.recipe,
            space=snakemake.params.space,
            metric=snakemake.params.metric,
            seed=snakemake.params.seed,
            provenance=provenance,
        )
