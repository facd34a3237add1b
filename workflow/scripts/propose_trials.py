"""Propose the trials of one round from the trials of the rounds before it, failed ones included.

Reads: the baseline's settings.json, weights.json of every earlier trial.
Writes: one settings.json a trial.
"""

from collections.abc import Sequence
from dataclasses import asdict

from pcam.files import read_json, write_json
from pcam.search_space import Space
from pcam.settings import read_train_settings
from pcam.stage import run_stage
from pcam.tuning import finished_trials, propose


def propose_trials(
    base_path: str,
    finished_paths: Sequence[str],
    out_paths: Sequence[str],
    *,
    round_number: int,
    space: Space,
    seed: int,
    metric: str,
    epochs: int,
) -> None:
    """`finished_paths` are in the order of the trials' numbers; `out_paths` gets one recipe each."""
    base = asdict(read_train_settings(base_path))
    finished = finished_trials(space, metric, [read_json(path) for path in finished_paths])
    proposals = propose(space, base, seed, round_number, len(out_paths), finished)
    for path, proposal in zip(out_paths, proposals, strict=True):
        print(f"{path}: {proposal}")
        write_json(path, {**base, "epochs": epochs, **proposal})


if __name__ == "__main__":
    with run_stage(snakemake):
        propose_trials(
            snakemake.input.base,
            snakemake.input.finished,
            snakemake.output,
            round_number=snakemake.params.round_number,
            space=snakemake.params.space,
            seed=snakemake.params.seed,
            metric=snakemake.params.metric,
            epochs=snakemake.params.epochs,
        )
