"""Show the patches that stood in the batches of the steps whose gradient norm stands out most.

Reads: results/dynamics/spikes.csv and spikes.json, the table and the store of the training split.
Writes: results/assets/spikes.png and its caption.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pcam.documents import counted
from pcam.facts import PATCH_SHAPE
from pcam.figures import drawing, grid_size_in, outline, patch_grid, undefined_note, write_caption
from pcam.files import InputError, read_csv, read_json
from pcam.stage import run_stage
from pcam.store import open_store

COLUMNS = 8
LINES = 2  # rows of patches for each step
STEPS = 3
BELOW = "largest deviation, below the limit"

Row = Mapping[str, str]


def chosen_steps(steps: Sequence[Row]) -> list[Row]:
    """The steps to show, the most outstanding first: spikes where there are any, else what comes nearest to one."""
    ranked = sorted(steps, key=lambda step: (-int(step["above_limit"]), -float(step["z"])))
    spikes = [step for step in ranked if step["above_limit"] == "1"]
    return spikes[:STEPS] or ranked[:1]


def heading_of(step: Row) -> str:
    what = "spike" if step["above_limit"] == "1" else BELOW
    return (
        f"{step['variant']} seed {step['seed']}, step {int(step['step']):,}, epoch {step['epoch']}: {what}, gradient "
        f"norm {float(step['grad_norm']):.3g}, {float(step['ratio']):.1f} × its neighbourhood, z {float(step['z']):.1f}"
    )


def rows_of(step: Row) -> list[str]:
    """File rows of a step's batch, the hardest first, then in the order of the batch."""
    rows = step["rows"].split()
    return [step["hardest_row"], *(row for row in rows if row != step["hardest_row"])]


def told(steps: Sequence[Row], shown: Sequence[Row], runs: Sequence[Mapping[str, Any]], level: float) -> list[str]:
    """What the caption states."""
    spikes = [step for step in steps if step["above_limit"] == "1"]
    many = f"{counted(len(runs), 'run')} of {sum(run['steps'] for run in runs):,} steps in all"
    chance = f"(chance that a run of lognormal norms shows one: {100 * level:g} %; heavier tails show more)"
    if not shown:
        return [f"No step of {many} has the neighbours it takes to judge it."]
    first = shown[0]
    if not spikes:
        return [
            f"In {many} no step's gradient norm is a spike {chance}; shown is the {BELOW}: {first['variant']} seed "
            f"{first['seed']}, step {int(first['step']):,}, z {float(first['z']):.1f}.",
            "Framed: the patch with the largest loss of its batch.",
        ]
    with_spike = len({(step["variant"], step["seed"]) for step in spikes})
    share = float(first["hardest_loss"]) / (float(first["loss"]) * len(first["rows"].split()))
    which = "it" if len(spikes) == 1 else f"the largest {len(shown)}" if len(spikes) > len(shown) else "all"
    return [
        f"{counted(len(spikes), 'spike')} of the gradient norm in {with_spike} of {many} {chance}; "
        f"shown: {which}, up to {COLUMNS * LINES} patches of a batch, as they are stored; framed: the patch with the "
        "largest loss of its batch.",
        f"In {'the' if len(spikes) == 1 else 'the largest'} spike the gradient norm is {float(first['ratio']):.1f} "
        f"times its neighbourhood's, the rise is largest in layer {first['layer']}, and row {first['hardest_row']} "
        f"gives {100 * share:.0f} % of the batch's loss.",
    ]


def show_spikes(
    csv_path: str, json_path: str, table_path: str, store_path: str, png: str, caption: str, *, label: str
) -> None:
    """Draw the batches. Raises: InputError when table and store differ in length or lack a row."""
    steps, document = read_csv(csv_path, ("step", "rows", "hardest_row", "above_limit")), read_json(json_path)
    table, store = read_csv(table_path, ("row", "label")), open_store(store_path)
    if len(table) != len(store):
        raise InputError(f"{store_path}: {len(store)} patches for the {len(table)} rows of {table_path}; rebuild it")
    place = {line["row"]: at for at, line in enumerate(table)}
    shown = chosen_steps(steps)
    grid: list[tuple[str, list[tuple[np.ndarray, str]]]] = []
    framed = []
    for step in shown:
        rows = rows_of(step)
        if strangers := [row for row in rows if row not in place]:
            raise InputError(f"{csv_path}: row {strangers[0]} is not in {table_path}; find the spikes again")
        framed.append(len(grid))
        for start in range(0, min(len(rows), COLUMNS * LINES), COLUMNS):
            some = rows[start : min(start + COLUMNS, COLUMNS * LINES)]
            texts = [f"row {row}\nlabel {table[place[row]]['label']}" for row in some]
            if start == 0:
                texts[0] += f", loss {float(step['hardest_loss']):.2f}"
            patches = [np.asarray(store[place[row]]) for row in some]
            grid.append((heading_of(step) if start == 0 else "", list(zip(patches, texts, strict=True))))
    with drawing(png, label, *grid_size_in(len(grid), COLUMNS)) as figure:
        if not grid:
            undefined_note(empty := figure.subplots(), "no step to judge")
            empty.set_axis_off()
        drawn = patch_grid(figure, grid) if grid else []
        for line in framed:
            outline(drawn[line][0], 0, 0, *PATCH_SHAPE[:2])
    write_caption(caption, told(steps, shown, document["runs"], document["level"]), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        show_spikes(
            snakemake.input.csv,
            snakemake.input.json,
            snakemake.input.rows,
            snakemake.input.store,
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
