"""Pairs of equal keys, found by sorting: the index that every search for leaks rests on."""

from collections.abc import Iterator

import numpy as np


def distinct(values: np.ndarray) -> np.ndarray:
    """np.unique by sorting, which for integers takes a fifth of the time of its hash table."""
    values = np.sort(values)
    return np.asarray(values[np.append(True, values[1:] != values[:-1])]) if len(values) else values


def equal_pairs(keys: np.ndarray, part: np.ndarray, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield index arrays i < j of equal keys: all pairs of a group of up to `limit` members.

    In a larger group only neighbours, and each member with the first one of every other part, so that the work stays
    linear and no member loses sight of a part. keys: (m,) ascending.  part: (m,) small integers, such as splits.
    """
    m = len(keys)
    if m == 0:
        return
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    sizes = np.diff(np.append(starts, m))
    size_at = np.repeat(sizes, sizes)
    for step in range(1, min(int(sizes.max()), limit + 1)):
        equal = keys[step:] == keys[:-step]
        i = np.flatnonzero(equal if step == 1 else equal & (size_at[step:] <= limit))
        yield i, i + step
    crowded = np.flatnonzero(size_at > limit)
    for one in np.unique(part[crowded]).tolist():
        first = np.repeat(np.minimum.reduceat(np.where(part == one, np.arange(m), m), starts), sizes)[crowded]
        other = (part[crowded] != one) & (first < m)
        a, b = crowded[other], first[other]
        yield np.minimum(a, b), np.maximum(a, b)
