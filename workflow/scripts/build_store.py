"""Write the patches of one split as uint8 that can be memory-mapped.

Reads: the split's table of rows, the x file it refers to.
Writes: the store, rows in the table's order.
"""

import numpy as np

from pcam.files import read_csv
from pcam.stage import run_stage
from pcam.store import write_store


def build_store(rows_path: str, x_path: str, store_path: str) -> None:
    """Raises: InputError when a row does not convert to uint8 without loss."""
    rows = np.array([int(line["row"]) for line in read_csv(rows_path, ("row",))], np.int64)
    write_store(store_path, x_path, rows)
    print(f"{store_path}: {len(rows)} patches of {x_path}")


if __name__ == "__main__":
    with run_stage(snakemake):
        build_store(snakemake.input.rows, snakemake.input.x, snakemake.output[0])
