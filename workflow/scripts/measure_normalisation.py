"""Measure mean and standard deviation per channel on the training split alone.

Reads: the training store.
Writes: normalisation.json, in 0..1 units.
"""

from collections.abc import Mapping

from pcam.files import InputError, write_json
from pcam.stage import run_stage
from pcam.store import channel_statistics, open_store


def measure_normalisation(store_path: str, out_path: str, *, provenance: Mapping[str, object]) -> None:
    """Raises: InputError when a channel has no variance, because nothing could be normalised by it."""
    store = open_store(store_path)
    mean, std = channel_statistics(store)
    if not min(std) > 0:
        raise InputError(f"{store_path}: a channel has one value throughout; these patches hold no tissue")
    write_json(out_path, {"mean": mean, "std": std, "n": len(store), "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        measure_normalisation(snakemake.input[0], snakemake.output[0], provenance=provenance)
