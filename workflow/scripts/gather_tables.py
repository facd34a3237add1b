"""Make one table of those of its shards.

Reads:  a CSV of each shard, and in its log what computed it.
Writes: their common header, then their lines in order: byte for byte what one job writes of all rows. The log names the
devices of the shards, for what tells of the table's origin.
"""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pcam import provenance
from pcam.files import InputError, atomic_path
from pcam.stage import device_of, run_stage


def gather_tables(parts: Sequence[str], out_path: str) -> None:
    """Shards in order, in bounded memory. Raises: InputError when one is missing or has another header."""
    with atomic_path(out_path) as temporary, temporary.open("wb") as out, ExitStack() as stack:
        header = None
        for part in parts:
            try:
                lines = stack.enter_context(Path(part).open("rb"))
            except FileNotFoundError:
                raise InputError(f"{part}: no such file") from None
            own = lines.readline()
            if header is None:
                header = own
                out.write(header)
            if own != header:
                raise InputError(f"{part}: its header is not that of {parts[0]}; predict the split again")
            shutil.copyfileobj(lines, out)
    print(f"{len(parts)} shards")


def name_devices(parts: Sequence[str], logs: Sequence[str]) -> str | None:
    """What computed the shards, by their logs, " and " between several; None where no shard has a row.

    A shard without rows computes nothing and has no say.
    """
    devices = {}
    for part, log in zip(parts, logs, strict=True):
        with Path(part).open("rb") as lines:
            if sum(1 for _, line in zip(range(2), lines, strict=False)) == 2:
                devices[device_of(log)] = None
    return " and ".join(devices) or None


if __name__ == "__main__":
    with run_stage(snakemake):
        gather_tables(snakemake.input, snakemake.output[0])
        if (devices := name_devices(snakemake.input, snakemake.params.logs)) is not None:
            provenance.computed_on(devices)
