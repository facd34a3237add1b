"""What a training's steps tell: which gradient norms stand out, what an epoch's median hides, what a schedule is worth.

A norm is judged on its logarithm, which around its running median is close to normal, with next to no memory from one
step to the next. `describe_run` measures for every run what would show otherwise: steps as far below as a spike is
above, and the correlation of neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.ndimage import median_filter
from scipy.special import stdtrit

from pcam.files import InputError, finite_or_none, read_csv
from pcam.metrics import t_interval, wilson_interval

# Steps on each side that a step is compared with. The median of 51 adds about 1.5 % to the noise of a step, and the
# rise or fall of a learning rate over hundreds of steps is a straight line to it, which two equal sides take out.
NEIGHBOURS = 25
LEAST_NEIGHBOURS = 5  # the first and the last steps have no two sides and are not judged
# Steps whose median absolute deviation is the scale: its noise is 8 %, and it follows a run whose spread changes.
SCALE_STEPS = 201
TO_SIGMA = 1.4826  # of a normal variable, the median absolute deviation times this is the standard deviation
# The ratio to a scale from n deviations follows Student's t. A median absolute deviation is as sure as a standard
# deviation of .367 n degrees of freedom (Rousseeuw and Croux 1993: relative variance 1.361 / n). That is an average,
# and the smallest of many scales decides: with .28 the simulated chance of a false alarm is the one asked for, LEVEL.
FREEDOM = 0.28
# Chance that a run of lognormal norms without a spike is said to have one. Simulated at least 1,200 times: .002 at 24
# steps, .006 at 60, .008 to .013 from 150 to 5,000; `false_alarms` measures it for the length of each run.
LEVEL = 0.01
NULL_RUNS, NULL_RUNS_OF_LONG, LONG = 500, 100, 10_000
STEPS_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "hardest_row", "hardest_loss")
KEYS = ("step", "epoch")  # columns of layers.csv that are no layer

Run = tuple[str, int]  # variant, seed


@dataclass(frozen=True)
class Deviations:
    """How far each value (n,) lies from its neighbourhood.

    expected: running median, float64 (n,); z: log ratio to it in standard deviations, (n,); both NaN where a value was
    not judged, for want of neighbours or of spread. limit: the z above which a value is a spike; NaN when none was
    judged.
    """

    expected: np.ndarray
    z: np.ndarray
    limit: float

    @property
    def judged(self) -> int:
        return int(np.isfinite(self.z).sum())

    @property
    def ranked(self) -> np.ndarray:
        """Positions of the judged values, the most outstanding first."""
        known = np.flatnonzero(np.isfinite(self.z))
        return known[np.argsort(-self.z[known], kind="stable")]

    @property
    def spikes(self) -> np.ndarray:
        """Positions above the limit, the most outstanding first."""
        return self.ranked[: int((self.z > self.limit).sum())]

    @property
    def below(self) -> int:
        """Values as far below as a spike is above: the false alarms that the data themselves show."""
        return int((self.z < -self.limit).sum())


def running_median(values: np.ndarray, neighbours: int) -> np.ndarray:
    """Median (n,) of each value and as many on its left as on its right; NaN at the ends.

    Towards the ends the sides get shorter together: one longer side would take a slope for a deviation.
    """
    n = len(values)
    sides = np.minimum(np.arange(n), np.arange(n)[::-1])
    medians = np.full(n, np.nan)
    if n > 2 * neighbours:
        whole = slice(neighbours, n - neighbours)
        medians[whole] = median_filter(values, 2 * neighbours + 1)[whole]
    for at in np.flatnonzero((sides >= LEAST_NEIGHBOURS) & (sides < neighbours)):
        medians[at] = np.median(values[at - sides[at] : at + sides[at] + 1])
    return medians


def running_scale(residuals: np.ndarray, steps: int) -> np.ndarray:
    """Standard deviation (n,) around 0 of the `steps` residuals around each, by their median absolute value.

    Towards the ends the window stays as long and lies to one side.
    """
    distances = np.abs(residuals)
    half = steps // 2
    if len(distances) <= 2 * half + 1:
        return np.full(len(distances), TO_SIGMA * np.median(distances))
    medians = median_filter(distances, 2 * half + 1)
    medians[:half], medians[-half:] = medians[half], medians[-half - 1]
    return np.asarray(TO_SIGMA * medians)


def find_deviations(values: np.ndarray, level: float = LEVEL) -> Deviations:
    """Judge positive values (n,), in their order, against their neighbourhood.

    `level`: chance that any of them is above the limit when all are lognormal around a smooth course.
    """
    logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    centre = running_median(logs, NEIGHBOURS)
    known = np.isfinite(centre)
    z = np.full(len(logs), np.nan)
    limit = np.nan
    if known.any():
        residuals = logs[known] - centre[known]
        scale = running_scale(residuals, SCALE_STEPS)
        with np.errstate(divide="ignore", invalid="ignore"):
            z[known] = np.where(scale > 0, residuals / scale, np.nan)
        freedom = FREEDOM * min(SCALE_STEPS, int(known.sum()))
        limit = -float(stdtrit(freedom, level / int(known.sum())))
    return Deviations(np.exp(centre), z, limit)


def false_alarms(n: int, runs: int | None = None) -> dict[str, Any]:
    """Share of simulated runs of n lognormal steps, without a spike, in which one is found, with its 95 % interval."""
    runs = runs or (NULL_RUNS if n <= LONG else NULL_RUNS_OF_LONG)
    rng = np.random.default_rng((n, runs))
    found = sum(len(find_deviations(np.exp(rng.standard_normal(n))).spikes) > 0 for _ in range(runs))
    return {"runs": runs, "with_spike": found, "rate": found / runs, "interval": list(wilson_interval(found, runs))}


@dataclass(frozen=True)
class Steps:
    """steps.csv as arrays (n,): step, epoch and hardest_row int64, the others float64."""

    step: np.ndarray
    epoch: np.ndarray
    loss: np.ndarray
    learning_rate: np.ndarray
    grad_norm: np.ndarray
    hardest_row: np.ndarray
    hardest_loss: np.ndarray


def read_steps(path: str) -> Steps:
    """Raises: InputError when the file is missing, empty or lacks a column."""
    table = read_csv(path, STEPS_COLUMNS)
    if not table:
        raise InputError(f"{path}: no step; train again")
    whole = ("step", "epoch", "hardest_row")
    return Steps(
        **{name: np.array([(int if name in whole else float)(row[name]) for row in table]) for name in STEPS_COLUMNS}
    )


def read_layers(path: str) -> dict[str, np.ndarray]:
    """Gradient norm float64 (n,) of each layer, in the model's order. Raises: InputError when the file is missing."""
    table = read_csv(path, KEYS)
    return {
        name: np.array([float(row[name]) for row in table]) for name in (table[0] if table else ()) if name not in KEYS
    }


def by_epoch(epochs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the epochs, and median and largest of the values (n,) of each."""
    numbers = np.unique(epochs)
    parts = [values[epochs == number] for number in numbers]
    return numbers, np.array([np.median(part) for part in parts]), np.array([part.max() for part in parts])


def compare_granularity(epochs: np.ndarray, norms: np.ndarray) -> dict[str, Any]:
    """What is left of the steps' gradient norms (n,) when an epoch keeps its median, or its largest, alone.

    The same test looks for spikes in each; None where there are too few epochs to judge.
    """
    numbers, medians, largest = by_epoch(epochs, norms)
    at = int(np.argmax(norms))
    own = float(medians[np.searchsorted(numbers, epochs[at])])
    told = {name: find_deviations(values) for name, values in (("median", medians), ("largest", largest))}
    return {
        "epochs": len(numbers),
        "largest": {"step": at, "epoch": int(epochs[at]), "grad_norm": float(norms[at]), "epoch_median": own,
                    "ratio": float(norms[at]) / own if own else None},
        "spread_of_steps": float(norms.max() / norms.min()) if norms.min() > 0 else None,
        "spread_of_medians": float(medians.max() / medians.min()) if medians.min() > 0 else None,
        "spikes_in_epoch_medians": len(told["median"].spikes) if told["median"].judged else None,
        "spikes_in_epoch_largest": len(told["largest"].spikes) if told["largest"].judged else None,
    }  # fmt: skip


def describe_layers(epochs: np.ndarray, layers: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Of each layer the median gradient norm in the first and in the last epoch, and its share of the squared norm."""
    total = np.maximum(sum(norms**2 for norms in layers.values()), np.finfo(np.float64).tiny)
    return {
        layer: {
            "first_epoch": float(np.median(norms[epochs == epochs[0]])),
            "last_epoch": float(np.median(norms[epochs == epochs[-1]])),
            "share": float(np.median(norms**2 / total)),
        }
        for layer, norms in layers.items()
    }


def correlation(values: np.ndarray, others: np.ndarray) -> float | None:
    """Pearson's correlation of the pairs (n,) without NaN; None where it is undefined."""
    both = np.isfinite(values) & np.isfinite(others)
    if both.sum() < 3 or np.ptp(values[both]) == 0 or np.ptp(others[both]) == 0:
        return None
    return float(np.corrcoef(values[both], others[both])[0, 1])


@dataclass(frozen=True)
class Judged:
    """One run: its steps, each layer's gradient norm (n,), and how norm, loss and the layers' norms deviate."""

    steps: Steps
    layers: Mapping[str, np.ndarray]
    norm: Deviations
    loss: Deviations
    by_layer: Mapping[str, Deviations]


def judge_run(steps: Steps, layers: Mapping[str, np.ndarray]) -> Judged:
    by_layer = {layer: find_deviations(norms) for layer, norms in layers.items()}
    return Judged(steps, layers, find_deviations(steps.grad_norm), find_deviations(steps.loss), by_layer)


def describe_run(run: Judged) -> dict[str, Any]:
    """What spikes.json says of one run."""
    steps, found = run.steps, run.norm
    return {
        "steps": len(steps.step),
        "judged": found.judged,
        "limit": finite_or_none(found.limit),
        "spikes": len(found.spikes),
        "below": found.below,
        "largest_z": float(found.z[found.ranked[0]]) if found.judged else None,
        "median": float(np.median(steps.grad_norm)),
        "correlation_with_next": correlation(found.z[:-1], found.z[1:]),
        # How far the norm of a batch follows how hard it is.
        "correlation_with_loss": correlation(found.z, run.loss.z),
        **compare_granularity(steps.epoch, steps.grad_norm),
        "layers": describe_layers(steps.epoch, run.layers),
    }


def compare_batches(deviations: Mapping[Run, np.ndarray], seen: Mapping[Run, np.ndarray]) -> dict[str, Any]:
    """Correlation of the z (n,) of every two runs over the steps that both have.

    `same`: pairs that saw the same rows (n,batch) in the same order, as runs of one seed and batch size do;
    `other`: pairs of two seeds. What the two share in the one case and not in the other is the batch.
    """
    pairs: dict[str, list[dict[str, Any]]] = {"same": [], "other": []}
    for one, other in combinations(deviations, 2):
        n = min(len(deviations[one]), len(deviations[other]))
        same = np.array_equal(seen[one][:n], seen[other][:n])
        if same or one[1] != other[1]:
            found = correlation(deviations[one][:n], deviations[other][:n])
            pairs["same" if same else "other"].append(
                {"runs": [list(one), list(other)], "steps": n, "correlation": found}
            )
    return pairs


def recurring(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Patches that are the hardest of several of these steps (rows of spikes.csv), the most frequent first."""
    places: dict[int, list[dict[str, Any]]] = {}
    for step in steps:
        at = {name: step[name] for name in ("variant", "seed", "step")}
        places.setdefault(step["hardest_row"], []).append(at)
    often = sorted((row for row in places if len(places[row]) > 1), key=lambda row: (-len(places[row]), row))
    return [{"row": row, "steps": places[row]} for row in often]


def paired_difference(values: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    """Differences seed by seed (others taken from values), their mean, Student's 95 % interval, and what it says.

    `told_apart`: whether the interval leaves out 0; None with one pair, or where all differences are one number.
    """
    differences = np.subtract(values, others)
    n = len(differences)
    bounds = t_interval(differences.tolist(), differences=True) if len(set(differences.tolist())) > 1 else None
    interval = list(bounds) if bounds else None
    return {
        "differences": differences.tolist(),
        "mean": float(differences.mean()),
        "interval": interval,
        "n": n,
        "told_apart": None if interval is None else not interval[0] <= 0 <= interval[1],
    }
