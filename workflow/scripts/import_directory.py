"""Bring files at hand into PCam's layout: plain files are linked, gzipped ones unpacked.

Reads: x and y per split as .h5 or .h5.gz, possibly behind links; test_y and the meta CSVs may be absent.
Writes: six .h5 files and three meta CSVs; a test_y that was not handed out becomes an unlabelled one.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from pcam.acquisition import decompress
from pcam.facts import FILE_SPLITS, META_COLUMNS
from pcam.files import InputError, read_csv, write_csv
from pcam.hdf5 import PatchReader, check_pair, write_labels
from pcam.stage import run_stage


def place(source: Path, target: Path) -> None:
    """Link `target` to the file behind `source`, or unpack it there when it is gzipped."""
    real = source.resolve()
    print(f"{target.name}: {real}")
    if source.suffix == ".gz":
        decompress(real, target, hdf5=True)
    else:
        target.unlink(missing_ok=True)
        os.symlink(real, target)


def import_directory(sources: Mapping[str, str], targets: Mapping[str, str]) -> None:
    """`sources` and `targets` map train_x, train_y, train_meta, … to paths; optional sources may be missing.

    Raises: InputError when a file is damaged or a pair does not fit together.
    """
    for key, target in targets.items():
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        if key in sources:
            place(Path(sources[key]), Path(target))
    for split in FILE_SPLITS:
        x, y, meta = (targets[f"{split}_{part}"] for part in ("x", "y", "meta"))
        if f"{split}_y" not in sources:
            with PatchReader(x) as patches:
                write_labels(y, None, len(patches))
            print(f"{split}: no labels at hand; its patches are audited and predicted, never scored")
        if f"{split}_meta" in sources:
            read_csv(meta, META_COLUMNS)
        else:
            write_csv(meta, ("", *META_COLUMNS), [])
        _, labels = check_pair(x, y)
        if labels is None and f"{split}_y" in sources:
            raise InputError(f"{sources[f'{split}_y']}: says it holds no labels; take it away, or give the labels")


if __name__ == "__main__":
    with run_stage(snakemake):
        import_directory(dict(snakemake.input.items()), dict(snakemake.output.items()))
