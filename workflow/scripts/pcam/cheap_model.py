"""A model for audits: logistic regression on cheap features, its folds dealt so that no tissue stands on both sides."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

# Chosen on planted flips: from .005 to .05 the ranking hardly moves, on the sample and on 2,000 real patches alike.
INVERSE_REGULARISATION = 0.03
MAXIMUM_ITERATIONS = 1000
FIT_LIMIT = 20_000  # patches a fit sees at most: what a few hundred coefficients need, in bounded time and memory
_CHUNK = 65_536  # rows predicted at a time


def joined_units(slides: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Unit (N,), numbered from 0, of each patch: equal slides and equal groups belong together, also in chains.

    slides and groups are arrays of str (N,) in which "" stands for unknown; a patch without either is its own unit.
    """
    n, nodes, links = len(slides), len(slides), []
    for keys in (slides, groups):
        known = np.flatnonzero(keys != "")
        names, number = np.unique(keys[known], return_inverse=True)
        links.append(np.stack([known, nodes + number]))
        nodes += len(names)
    rows, columns = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(nodes, nodes))
    component = connected_components(graph, directed=False)[1][:n]
    return np.unique(component, return_inverse=True)[1]


def deal_folds(units: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold (N,) of each patch; units stay whole.

    Units with more tumour than the average and the others are dealt apart, large ones first, equal ones in a seeded
    order, so that folds resemble each other in size and classes.
    """
    _, units = np.unique(units, return_inverse=True)
    size = np.bincount(units)
    tumour = np.bincount(units, weights=labels) > labels.mean() * size
    order = np.lexsort((np.random.default_rng(seed).permutation(len(size)), -size))
    fold = np.empty(len(size), np.int64)
    for kind in (True, False):
        mine = order[tumour[order] == kind]
        turn = np.arange(len(mine)) % folds
        fold[mine] = turn if kind else folds - 1 - turn  # the two kinds begin at opposite ends
    return fold[units]


def can_be_folded(labels: np.ndarray, fold: np.ndarray) -> bool:
    """Whether there are two folds at least, and both classes outside each of them."""
    numbers = np.unique(fold)
    return len(numbers) > 1 and all(len(np.unique(labels[fold != k])) == 2 for k in numbers)


@dataclass(frozen=True)
class CheapModel:
    mean: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    intercept: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Log odds of tumour (N,), float64, of features (N,F)."""
        out = np.empty(len(features))
        with threadpool_limits(1):
            for start in range(0, len(features), _CHUNK):
                part = (features[start : start + _CHUNK] - self.mean) / self.scale
                out[start : start + _CHUNK] = part @ self.coefficients + self.intercept
        return out


def fit_cheap(features: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> CheapModel:
    """The regression on these rows of features (N,F), standardised, and labels (N,); the rows hold both classes."""
    from sklearn.linear_model import LogisticRegression  # here, as in pcam.metrics

    if len(rows) > FIT_LIMIT:
        rows = np.sort(np.random.default_rng(0).choice(rows, FIT_LIMIT, replace=False))
    known = features[rows].astype(np.float64)
    mean, spread = known.mean(axis=0), known.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    with threadpool_limits(1):  # another number of BLAS threads may sum in another order
        fitted = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAXIMUM_ITERATIONS).fit(
            (known - mean) / scale, labels[rows]
        )
    return CheapModel(mean, scale, fitted.coef_[0], float(fitted.intercept_[0]))


def out_of_fold(features: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Log odds of tumour (N,) of each patch from a model that saw no patch of its fold."""
    logits = np.empty(len(labels))
    for k in np.unique(fold):
        model = fit_cheap(features, labels, np.flatnonzero(fold != k))
        logits[fold == k] = model.logits(features[fold == k])
    return logits
