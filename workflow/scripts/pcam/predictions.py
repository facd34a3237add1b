"""Tables of predictions, for every stage that evaluates: row, label, logit, probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcam.files import InputError, read_csv


@dataclass(frozen=True)
class Predictions:
    """Rows of the source file, labels 0/1 and probabilities of the positive class, each (N,)."""

    rows: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def read_predictions(path: str | Path) -> Predictions:
    """Predictions of a labelled split.

    Raises: InputError when the file is missing, empty, unlabelled, or a probability lies outside 0..1.
    """
    table = read_csv(path, ("row", "label", "probability"))
    if not table:
        raise InputError(f"{path}: holds no prediction; predict the split again")
    unlabelled = sum(line["label"] == "" for line in table)
    if unlabelled:
        raise InputError(f"{path}: {unlabelled} of {len(table)} patches have no label; an evaluation needs them all")
    try:
        rows = np.array([int(line["row"]) for line in table], np.int64)
        labels = np.array([int(line["label"]) for line in table], np.int64)
        probabilities = np.array([float(line["probability"]) for line in table], np.float64)
    except (ValueError, TypeError, OverflowError) as error:  # None: a line that is cut short
        raise InputError(f"{path}: {str(error)[:160]}; predict the split again") from None
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise InputError(f"{path}: a probability lies outside 0 to 1; predict the split again")
    return Predictions(rows, labels, probabilities)


def read_with_table(
    path: str | Path, rows_path: str | Path, columns: Sequence[str] = ()
) -> tuple[Predictions, list[dict[str, str]]]:
    """Predictions of a labelled split and the split's table, line by line of the same patches.

    Raises: InputError when they are of other rows, or the table lacks one of `columns`.
    """
    told, table = read_predictions(path), read_csv(rows_path, ("row", *columns))
    if [line["row"] for line in table] != [str(row) for row in told.rows]:
        raise InputError(f"{path}: its rows are not those of {rows_path}; predict the split again")
    return told, table


def read_logits(path: str | Path) -> np.ndarray:
    """Logits float64 (N,) of a prediction table, untempered.

    Raises: InputError when the file is missing or a logit is no number.
    """
    try:
        return np.array([float(line["logit"]) for line in read_csv(path, ("logit",))], np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {str(error)[:160]}; predict the split again") from None
