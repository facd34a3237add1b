"""Show the champion's wrong answers on test, the most confident first, with row, probability and slide.

Reads: results/champion/predict/test.csv, results/champion/weights.json, results/splits/test.csv, the store of test.
Writes: results/assets/errors.png and its caption.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pcam.figures import drawing, grid_size_in, numbers, patch_grid, undefined_note, write_caption
from pcam.files import InputError, read_csv, read_json
from pcam.stage import run_stage
from pcam.store import open_store

COLUMNS = 8
LINES = 2  # rows of patches for each kind of error

Row = Mapping[str, str]


def wrong_answers(predictions: Sequence[Row], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions of false positives and of false negatives, the most confident first."""
    probabilities, labels = numbers(predictions, "probability"), numbers(predictions, "label")
    called = probabilities >= threshold
    positives, negatives = np.flatnonzero(called & (labels == 0)), np.flatnonzero(~called & (labels == 1))
    return (
        positives[np.argsort(-probabilities[positives], kind="stable")],
        negatives[np.argsort(probabilities[negatives], kind="stable")],
    )


def short(slide: str) -> str:
    """A slide's name without the part that all names share."""
    return slide.removeprefix("camelyon16_").removeprefix("train_").removeprefix("test_")


def show_errors(
    predictions_path: str, sidecar_path: str, rows_path: str, store_path: str, png: str, caption: str, *, label: str
) -> None:
    """Draw both montages. Raises: InputError when table, split and store do not hold the same patches."""
    predictions = read_csv(predictions_path, ("row", "label", "probability"))
    rows = read_csv(rows_path, ("row", "slide"))
    store = open_store(store_path)
    if [row["row"] for row in predictions] != [row["row"] for row in rows] or len(rows) != len(store):
        raise InputError(f"{predictions_path}: its rows are not those of {rows_path} and {store_path}; predict again")
    threshold = read_json(sidecar_path).get("threshold")
    if threshold is None:
        raise InputError(f"{sidecar_path}: threshold is null; choose_threshold has to come first")
    false_positives, false_negatives = wrong_answers(predictions, threshold)

    def example(at: int) -> tuple[np.ndarray, str]:
        slide = short(rows[at]["slide"])
        text = f"row {rows[at]['row']}, p {float(predictions[at]['probability']):.3f}"
        return np.asarray(store[at]), f"{text}\n{slide}" if slide else text

    shown = []
    for heading, positions in (
        ("False positives: called tumour, none there", false_positives),
        ("False negatives: tumour missed", false_negatives),
    ):
        for line in range(LINES):
            part = positions[line * COLUMNS : (line + 1) * COLUMNS]
            if len(part):
                shown.append(
                    (f"{heading}, {len(positions):,} in all" if line == 0 else "", [example(int(i)) for i in part])
                )
    with drawing(png, label, *grid_size_in(len(shown), COLUMNS)) as figure:
        if shown:
            patch_grid(figure, shown)
        else:
            undefined_note(figure.subplots(), "no wrong answer on test")
    labels = numbers(predictions, "label")
    with_tumour = int((labels == 1).sum())
    sentences = [
        f"At the threshold {threshold:.3f} the champion calls tumour on {len(false_positives):,} of "
        f"{len(labels) - with_tumour:,} patches without one and misses {len(false_negatives):,} of {with_tumour:,} "
        "with one;",
        f"shown are the most confident of each, up to {LINES * COLUMNS}, with row, probability and slide where known.",
    ]
    write_caption(caption, sentences, label)


if __name__ == "__main__":
    with run_stage(snakemake):
        show_errors(
            snakemake.input.predictions,
            snakemake.input.sidecar,
            snakemake.input.rows,
            snakemake.input.store,
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
