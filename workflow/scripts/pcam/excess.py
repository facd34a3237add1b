"""Does a slice lose more than chance allows? The capped log loss of its patches against that of their class.

A slice is not weak because it holds more of the class that the model finds harder: so losses are compared within each
class, and a slice's excess is the mean of what its patches lose beyond the mean of their class.
"""

import numpy as np

from pcam.metrics import log_losses

LOSS_CAP = float(np.log(100))  # a certainty of 99 % that is wrong: no single patch carries a slice
DRAWS = 9_999  # of each test; the least p is one in ten thousand
_CELLS = 2_000_000  # drawn numbers held at a time: 16 MB


def capped_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Log loss (N,) of each patch, LOSS_CAP at most."""
    return np.minimum(log_losses(labels, probabilities), LOSS_CAP)


def class_sizes(labels: np.ndarray) -> np.ndarray:
    """How many patches (2,) are of class 0 and 1."""
    return np.bincount(labels, minlength=2)


def deviations(labels: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loss minus its mean over the class (N,), and the variance of the losses of class 0 and 1, each (2,)."""
    out, variance = np.zeros(len(losses)), np.zeros(2)
    for label in (0, 1):
        mine = labels == label
        if mine.sum() > 1:
            out[mine] = losses[mine] - losses[mine].mean()
            variance[label] = losses[mine].var(ddof=1)
    return out, variance


def standardised(total: np.ndarray, counts: np.ndarray, sizes: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Sum of the deviations in a slice over its standard error when patches of a class are drawn at random.

    total (...), counts (...,2) of the slice's patches by class, sizes (2,) of the half's. 0 where there is no spread.
    """
    spread = (counts * (1 - counts / np.maximum(sizes, 1)) * variance).sum(axis=-1)
    return np.asarray(np.where(spread > 1e-12, total / np.sqrt(np.maximum(spread, 1e-12)), 0.0))


def exceeded_by_patch(
    off: np.ndarray, labels: np.ndarray, counts: np.ndarray, totals: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Chance (S,) that as many patches of each class, drawn at random, reach the sum of each slice or more.

    off (N,) deviations, labels (N,), counts (S,2) of patches by class, totals (S,). All slices see the same draws.
    """
    drawn = np.zeros((DRAWS, len(counts)))
    for label in (0, 1):
        mine = off[labels == label]
        most = max(1, _CELLS // max(len(mine), 1))
        for start in range(0, DRAWS, most):
            rows = min(most, DRAWS - start)
            mixed = rng.permuted(np.broadcast_to(mine, (rows, len(mine))), axis=1)
            for i, k in enumerate(counts[:, label].tolist()):
                drawn[start : start + rows, i] += mixed[:, :k].sum(axis=1)
    return np.asarray((1 + (drawn >= totals - 1e-9).sum(axis=0)) / (DRAWS + 1))
