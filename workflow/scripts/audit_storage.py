"""Tell why the files are as large as they are, and whether their patches fit uint8 without loss.

Reads:  x and y of the three file splits.
Writes: storage and findings as JSON, and as CSV (split,row,kind) the rows whose values lie in 0..255 but are not whole.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pcam.audits import as_uint8, check_splits, findings, look
from pcam.facts import FILE_SPLITS, PATCH_BYTES
from pcam.files import write_csv, write_json
from pcam.hdf5 import PatchReader
from pcam.stage import run_stage

LAYOUTS = {h5py.h5d.COMPACT: "compact", h5py.h5d.CONTIGUOUS: "contiguous", h5py.h5d.CHUNKED: "chunked"}


def describe_storage(split: str, path: str, key: str) -> dict[str, Any]:
    """How one dataset lies on disk. `factor`: bytes on disk for one byte that uint8, uncompressed, would take."""
    with h5py.File(path, "r") as handle:
        dataset = handle[key]
        small = len(dataset) * (PATCH_BYTES if key == "x" else 1)
        told = {
            "split": split,
            "key": key,
            "file": Path(path).name,
            "patches": len(dataset),
            "dtype": str(dataset.dtype),
            "layout": LAYOUTS.get(dataset.id.get_create_plist().get_layout(), "other"),
            "chunks": list(dataset.chunks) if dataset.chunks else None,
            "compression": dataset.compression,
            "bytes_data": dataset.id.get_storage_size(),
        }
        width = dataset.dtype.itemsize
    size = Path(path).stat().st_size
    return {
        **told,
        "bytes_on_disk": size,
        "bytes_as_uint8": small,
        "factor": size / small,
        "cause": explain(width, told["compression"], size - told["bytes_data"], small),
    }


def explain(width: int, compression: str | None, overhead: int, small: int) -> str:
    """One sentence on where the size comes from."""
    stored = f"{width} bytes a value where one serves" if width > 1 else "one byte a value"
    packed = f"{compression} compression" if compression else "no compression"
    rest = f", plus {overhead:,} bytes of HDF5 structure that outweigh the data" if overhead > small else ""
    return f"{stored}, {packed}{rest}"


def unfit_rows(x_path: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows stored as float that do convert to uint8 without loss, and rows in 0..255 whose values are not whole."""
    lossless, fractional = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    with PatchReader(x_path) as reader:
        for start, patches in reader.chunks() if reader.dataset.dtype.kind == "f" else ():
            seen = look(patches)
            _, fits = as_uint8(patches, seen)
            inside = seen.finite & (seen.low >= 0) & (seen.high <= 255)
            lossless.append(start + np.flatnonzero(fits))
            fractional.append(start + np.flatnonzero(inside & ~fits))
    return np.concatenate(lossless), np.concatenate(fractional)


def audit_storage(
    x_files: Mapping[str, str],
    y_files: Mapping[str, str],
    findings_path: str,
    rows_path: str,
    *,
    rows_listed: int,
    provenance: Mapping[str, object],
) -> None:
    """Describe each file; count patches stored as float, and of them those that uint8 holds without loss."""
    splits = check_splits(x_files, y_files)
    files, found, table = [], [], []
    for split in FILE_SPLITS:
        n, labels = splits[split]
        files += [describe_storage(split, x_files[split], "x"), describe_storage(split, y_files[split], "y")]
        as_float = np.arange(n if files[-2]["dtype"].startswith("float") else 0)
        lossless, fractional = unfit_rows(x_files[split])
        found += findings("float_storage", split, as_float, labels, n, rows_listed, {"lossless": lossless})
        table += [(split, int(row), "fractional") for row in fractional]
    write_csv(rows_path, ("split", "row", "kind"), table)
    write_json(findings_path, {"provenance": provenance, "findings": found, "files": files})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        audit_storage(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_y"] for split in FILE_SPLITS},
            snakemake.output.findings,
            snakemake.output.rows,
            rows_listed=snakemake.params.rows_listed,
            provenance=provenance,
        )
