"""What a slice that nobody named is made of, and what the champion does on it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.special import logit

from pcam.attributes import ATTRIBUTES, UNITS, WORDS, open_attributes
from pcam.excess import capped_losses, deviations
from pcam.files import InputError
from pcam.intervals import Groups, estimate_area, estimate_proportion, read_groups
from pcam.metrics import LEAST_PROBABILITY, roc_auc
from pcam.predictions import read_with_table
from pcam.settings import EvaluationSettings

SAME = 0.5  # Jaccard overlap above which two slices are one
EXAMPLES = 6  # patches shown of each slice
LOOKS = 2  # attributes that say what a slice looks like
COMPONENTS = 32  # of the embedding
CHUNK = 4096  # patches whose activations are held at a time: 32 MB at 2,048 each


def open_embedding(path: str | Path, n: int) -> np.ndarray:
    """float32 (n,D), memory-mapped read-only: activations of the champion for each patch of a store.

    Raises: InputError when the file is missing, is none of rule embed_patches, or not of `n` patches.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a file of activations ({error}); rebuild it") from None
    if found.dtype != np.float32 or found.ndim != 2 or len(found) != n:
        raise InputError(f"{path}: holds {found.dtype} {found.shape}, not float32 ({n}, D); rebuild it")
    return found


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Number of the nearest centre (K,D) of each point (N,D); of equals the first."""
    return np.asarray(np.argmin((centres**2).sum(axis=1) - 2 * points @ centres.T, axis=1))


@dataclass(frozen=True)
class Tail:
    """Patches whose attribute lies below an edge (side "low") or not below it (side "high")."""

    attribute: str
    side: str
    edge: float

    def members(self, attributes: np.ndarray) -> np.ndarray:
        """bool (N,) of attributes float32 (N,len(ATTRIBUTES))."""
        below = attributes[:, ATTRIBUTES.index(self.attribute)] < np.float32(self.edge)
        return below if self.side == "low" else ~below

    def words(self) -> str:
        return f"{self.attribute.replace('_', ' ')} {'below' if self.side == 'low' else 'from'} {self.edge:.4g}"


@dataclass(frozen=True)
class Cluster:
    """Patches whose embedding lies nearest to this centre of all, centres (K,D)."""

    number: int
    centres: np.ndarray

    def members(self, embedding: np.ndarray) -> np.ndarray:
        """bool (N,) of embedding float32 (N,D)."""
        return np.asarray(nearest(embedding, self.centres) == self.number)

    def words(self) -> str:
        return f"embedding cluster {self.number + 1} of {len(self.centres)}"


@dataclass(frozen=True)
class Slice:
    """One or two tails, or one cluster."""

    parts: tuple[Tail | Cluster, ...]

    def members(self, attributes: np.ndarray, embedding: np.ndarray) -> np.ndarray:
        """bool (N,) of attributes float32 (N,len(ATTRIBUTES)) and embedding float32 (N,D) of the same patches."""
        masks = [part.members(attributes if isinstance(part, Tail) else embedding) for part in self.parts]
        return np.asarray(np.logical_and.reduce(masks))

    def words(self) -> str:
        return " and ".join(part.words() for part in self.parts)

    def as_document(self, seen: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Keys as JSON holds them; seen: how it looks, which is said of a cluster, as its number says nothing."""
        tails = [part for part in self.parts if isinstance(part, Tail)]
        return {
            "words": self.words() if tails else f"{self.words()}: {'; '.join(one['words'] for one in seen)}",
            "looks": list(seen),
            "kind": "attributes" if tails else "embedding cluster",
            "conditions": [{**vars(tail), "unit": UNITS[tail.attribute]} for tail in tails],
        }


@dataclass(frozen=True)
class Part:
    """Patches of a split or of half of it: what slices are made of, and what the champion answers.

    rows of the source file, labels 0/1 and probabilities, each (N,); groups of them; attributes float32
    (N,len(ATTRIBUTES)); embedding float32 (N,D).
    """

    rows: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    groups: Groups
    attributes: np.ndarray
    embedding: np.ndarray

    @property
    def losses(self) -> np.ndarray:
        """Capped log loss (N,) of each patch."""
        return capped_losses(self.labels, self.probabilities)

    def at(self, places: np.ndarray) -> "Part":
        """The patches at these places, or those where a mask is true."""
        arrays = {name: value[places] for name, value in vars(self).items() if name != "groups"}
        return Part(groups=Groups(self.groups.ids[places], self.groups.noun), **arrays)

    def members(self, found: Slice) -> np.ndarray:
        """bool (N,): which patches lie in a slice."""
        return found.members(self.attributes, self.embedding)

    def groups_of(self, found: Slice) -> int:
        """How many groups hold patches of a slice."""
        return len(np.unique(self.groups.ids[self.members(found)]))


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two slices, bool (N,), share more than half of their union."""
    return bool((one & other).sum() > SAME * (one | other).sum())


def read_part(paths: Mapping[str, str]) -> Part:
    """One split. Raises: InputError when predictions, table, attributes and embedding are not of the same patches."""
    told, _ = read_with_table(paths["predictions"], paths["rows"])
    groups = read_groups(paths["rows"])
    n = len(told.rows)
    attributes, embedding = open_attributes(paths["attributes"], n), open_embedding(paths["embedding"], n)
    return Part(told.rows, told.labels, told.probabilities, groups, np.asarray(attributes), embedding)


def free_of_answer(fitted: Part, *others: Part) -> tuple[Part, ...]:
    """The parts with an embedding float32 (N,COMPONENTS at most) that says nothing of the answer, fitted on the first.

    What logit and certainty explain linearly is taken out of each activation: else a cluster would gather the patches
    that the model is unsure of, and be weak in every model. The rest, each activation in its own standard deviations,
    is cut to its principal components: a distance over thousands of activations is mostly noise, and costs the time
    and the memory of them all. No label is used.
    """
    inverse = np.linalg.pinv(_design(fitted)).astype(np.float32)
    weights = sum(inverse[:, at] @ fitted.embedding[at] for at in _chunks(len(fitted.rows)))
    square = np.zeros((fitted.embedding.shape[1],) * 2)
    for freed in _freed(fitted, weights):
        square += freed.T @ freed
    scale = np.sqrt(np.maximum(np.diag(square) / len(fitted.rows), 1e-12))
    count = len(square)
    axes = eigh(square / np.outer(scale, scale), subset_by_index=(max(0, count - COMPONENTS), count - 1))[1]
    onto = (axes / scale[:, None]).astype(np.float32)
    return tuple(
        replace(part, embedding=np.concatenate([freed @ onto for freed in _freed(part, weights)]))
        for part in (fitted, *others)
    )


def _design(part: Part) -> np.ndarray:
    logits = logit(np.clip(part.probabilities, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
    return np.stack([np.ones(len(logits)), logits, np.abs(logits)], axis=1)


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, n, CHUNK))


def _freed(part: Part, weights: np.ndarray) -> Iterator[np.ndarray]:
    """The embedding less what the answer explains of it, float32 (n,D), chunk by chunk."""
    design = _design(part).astype(np.float32)
    return (part.embedding[at] - design[at] @ weights for at in _chunks(len(part.rows)))


def _figure(value: float) -> str:
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}").replace("-", "−")


def looks(part: Part, found: Slice) -> list[dict[str, Any]]:
    """The attributes in which a slice is furthest from the rest of a part, in sd of the rest, the furthest first."""
    inside = part.members(found)
    told: list[tuple[float, dict[str, Any]]] = []
    for name, values in zip(ATTRIBUTES, part.attributes.T.astype(np.float64), strict=True):
        spread = float(values[~inside].std())
        if inside.any() and spread > 0:
            here, there = float(values[inside].mean()), float(values[~inside].mean())
            word = WORDS[name][int(here > there)]
            said = f"{word} ({name.replace('_', ' ')} {_figure(here)} against {_figure(there)})"
            off = (here - there) / spread
            told.append((abs(off), {"attribute": name, "unit": UNITS[name], "inside": here, "rest": there,
                                    "difference_sd": off, "words": said}))  # fmt: skip
    return [line for _, line in sorted(told, key=lambda one: -one[0])[:LOOKS]]


def describe(part: Part, found: Slice, threshold: float, rules: EvaluationSettings) -> dict[str, Any]:
    """What the champion does on the slice and on the rest of a part; what is undefined is null with its reason."""
    inside = part.members(found)
    wrong = (part.probabilities >= threshold) != (part.labels == 1)
    shares = [estimate_proportion(wrong & one, one, part.groups, rules).as_document() for one in (inside, ~inside)]
    groups = Groups(part.groups.ids[inside], part.groups.noun)
    area = estimate_area("roc_auc", part.labels[inside], part.probabilities[inside], groups, rules)
    excess = deviations(part.labels, part.losses)[0]
    return {
        "n": int(inside.sum()),
        "positives": int(part.labels[inside].sum()),
        "missed": int(np.sum(wrong & inside & (part.labels == 1))),
        "false_alarms": int(np.sum(wrong & inside & (part.labels == 0))),
        "error_rate": shares[0],
        "rest_error_rate": shares[1],
        "excess_loss": float(excess[inside].mean()) if inside.any() else None,
        "roc_auc": area.as_document(),
    }


def hidden(part: Part, inside: np.ndarray) -> dict[str, float | None]:
    """ROC-AUC of the whole split, and without the patches inside (N,): what the one figure says of the slice."""
    labels, probabilities = part.labels, part.probabilities
    whole, without = roc_auc(labels, probabilities), roc_auc(labels[~inside], probabilities[~inside])
    return {"all": whole, "without": without,
            "change": None if whole is None or without is None else without - whole}  # fmt: skip


def examples(part: Part, inside: np.ndarray) -> list[dict[str, Any]]:
    """The patches inside (N,) that cost the most, with their place in the split."""
    places = np.flatnonzero(inside)
    worst = places[np.argsort(-part.losses[places], kind="stable")[:EXAMPLES]]
    return [
        {"place": int(i), "row": int(part.rows[i]), "label": int(part.labels[i]),
         "probability": float(part.probabilities[i])}
        for i in worst
    ]  # fmt: skip
