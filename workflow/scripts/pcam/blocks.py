"""Work over the rows of x files: in blocks on several processes, or patch by patch at random."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from pcam.hdf5 import PatchReader

T = TypeVar("T")
BLOCK = 1024  # patches a task: 28 MB of uint8, 113 MB of float32
CACHED = 1024  # patches kept where a file cannot be memory-mapped: 28 MB


def in_order(work: Callable[..., T], tasks: Iterable[tuple[Any, ...]], *, processes: int) -> Iterator[T]:
    """Yield work(*task) for every task, in order whatever `processes` is; few results wait at a time.

    `work` must be picklable (a function of a module, or a partial of one) and opens its files itself: no HDF5 handle
    crosses a fork.
    """
    if processes == 1:
        for task in tasks:
            yield work(*task)
        return
    waiting: deque[Future[T]] = deque()
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        for task in tasks:
            waiting.append(pool.submit(work, *task))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def map_blocks(
    work: Callable[[str, int, int], T],
    x_files: Mapping[str, str],
    *,
    processes: int,
    block: int = BLOCK,
    rows: range | None = None,
) -> Iterator[tuple[str, int, T]]:
    """Yield (split, first row, work(path, first row, last row + 1)) for every block of every file, as in_order does.

    rows: those of all files one after the other to work over; None, all.
    """
    tasks, before = [], 0
    for split, path in x_files.items():
        with PatchReader(path) as patches:
            n = len(patches)
        first, end = (0, n) if rows is None else (min(max(at - before, 0), n) for at in (rows.start, rows.stop))
        tasks += [(split, path, start, min(start + block, end)) for start in range(first, end, block)]
        before += n
    results = in_order(work, (task[1:] for task in tasks), processes=processes)
    for (split, _, start, _), result in zip(tasks, results, strict=True):
        yield split, start, result


@contextmanager
def patch_access(x_files: Mapping[str, str]) -> Iterator[Callable[[int], np.ndarray]]:
    """Access to one patch, (96,96,3) in its file's dtype, by its index over all splits one after the other.

    Contiguous files are memory-mapped; of others the latest patches are kept.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(PatchReader(path)) for path in x_files.values()]
        maps = [reader.mapped() for reader in readers]
        ends = np.cumsum([len(reader) for reader in readers]).tolist()

        @lru_cache(maxsize=CACHED)
        def read(at: int, row: int) -> np.ndarray:
            return readers[at].read(row, row + 1)[0]

        def fetch(index: int) -> np.ndarray:
            at = next(k for k, end in enumerate(ends) if index < end)
            row = index - (ends[at - 1] if at else 0)
            mapped = maps[at]
            return mapped[row] if mapped is not None else read(at, row)

        yield fetch
