"""Put one of the best trials of a rung on the next, where it trains again for longer.

Reads: the baseline's settings.json, weights.json of every trial of the rung before, origin.json of the promoted ones.
Writes: settings.json, origin.json: which trial of the first rung this is, or why the place stays empty.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcam.files import read_json, write_json
from pcam.stage import run_stage
from pcam.tuning import best, value_of


def trial_name(path: str) -> str:
    """`round-0/trial-2`: the folder of one of a trial's files."""
    return "/".join(Path(path).parts[-3:-1])


def promote_trial(
    base_path: str,
    sidecar_paths: Sequence[str],
    origin_paths: Sequence[str],
    settings_path: str,
    origin_path: str,
    *,
    place: int,
    epochs: int,
    metric: str,
    provenance: Mapping[str, Any],
) -> None:
    """`place`: 0 for the best trial. `sidecar_paths` are in the order of proposal, which decides between equals.

    `origin_paths`: one a sidecar, none below the second rung. A place that no finished trial is left for gets the base
    recipe, and its training ends at once.
    """
    sidecars = [read_json(path) for path in sidecar_paths]
    ranked = best([value_of(sidecar, metric) for sidecar in sidecars], len(sidecars))
    if place < len(ranked):
        at = ranked[place]
        recipe, name = sidecars[at]["settings"], trial_name(sidecar_paths[at])
        origin, reason = read_json(origin_paths[at])["origin"] if origin_paths else name, None
        print(f"{name}, number {place + 1} by {metric} on valid, goes on for {epochs} epochs")
    else:
        recipe, origin = read_json(base_path), None
        reason = f"nothing to promote: {len(ranked)} of the {len(sidecars)} trials of the rung before finished"
        print(reason)
    write_json(settings_path, {**recipe, "epochs": epochs})
    write_json(origin_path, {"origin": origin, "reason": reason, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        promote_trial(
            snakemake.input.base,
            snakemake.input.sidecars,
            snakemake.input.origins,
            snakemake.output.settings,
            snakemake.output.origin,
            place=int(snakemake.wildcards.trial),
            epochs=snakemake.params.epochs,
            metric=snakemake.params.metric,
            provenance=provenance,
        )
