"""Train one recipe with one seed, on train alone, and score it on valid. Resumes by itself after a kill.

Reads: settings.json, the stores and tables of train and valid, normalisation.json.
Writes: weights.pt, weights.json, history.csv (a row an epoch), steps.csv and layers.csv (a row a step).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pcam.live import Live, live_of
from pcam.recipe import Outputs, train_recipe
from pcam.stage import run_stage, say_for


def train_seed(
    settings_path: str,
    stores: Mapping[str, str],
    tables: Mapping[str, str],
    normalisation_path: str,
    outputs: Outputs,
    *,
    seed: int,
    data_label: str,
    name: str,
    provenance: Mapping[str, Any],
    live: Live | None = None,
) -> None:
    """Raises: InputError when there is too little data or memory, or the training diverges."""
    train_recipe(
        settings_path,
        stores,
        tables,
        normalisation_path,
        outputs,
        seed=seed,
        data_label=data_label,
        report=partial(say_for, name),
        provenance=provenance,
        live=live,
    )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        train_seed(
            snakemake.input.settings,
            {split: snakemake.input[split] for split in ("train", "valid")},
            {split: snakemake.input[f"{split}_rows"] for split in ("train", "valid")},
            snakemake.input.normalisation,
            Outputs(**dict(snakemake.output.items())),
            seed=snakemake.params.seed,
            data_label=snakemake.params.data_label,
            name=" ".join([snakemake.rule, *map(str, snakemake.wildcards)]),
            provenance=provenance,
            # Not a parameter: where a training reports to makes no other training.
            live=live_of(snakemake.config["tracking"], "/".join(Path(snakemake.output.weights).parts[-3:-1])),
        )
