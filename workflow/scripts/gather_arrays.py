"""Make one array of those of its shards: features, attributes or embeddings.

Reads:  .npy of each shard, (n,D).
Writes: .npy (N,D), rows in the order of the shards, byte for byte what one job writes of all rows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.lib.format import open_memmap

from pcam.files import InputError, atomic_path
from pcam.stage import run_stage


def open_part(path: str) -> np.ndarray:
    """Memory-mapped, where there is anything to map."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # numpy parses the head as Python, and raises whatever damaged text leads it into
        raise InputError(f"{path}: not an array ({' '.join(str(error).split())[:160]}); rebuild it") from None


def gather_arrays(parts: Sequence[str], out_path: str) -> None:
    """Shards in order, in bounded memory. Raises: InputError when one is missing, damaged or of another kind."""
    arrays = [open_part(part) for part in parts]
    kind = (arrays[0].dtype, arrays[0].shape[1:])
    for part, array in zip(parts, arrays, strict=True):
        if (array.dtype, array.shape[1:]) != kind:
            raise InputError(f"{part}: holds {array.dtype} {array.shape}, not what {parts[0]} holds; rebuild it")
    with atomic_path(out_path) as temporary:
        out = open_memmap(temporary, mode="w+", dtype=kind[0], shape=(sum(map(len, arrays)), *kind[1]))
        start = 0
        for array in arrays:
            out[start : start + len(array)] = array
            start += len(array)
        out.flush()
        del out
    print(f"{start} rows of {len(parts)} shards")


if __name__ == "__main__":
    with run_stage(snakemake):
        gather_arrays(snakemake.input, snakemake.output[0])
