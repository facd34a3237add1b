"""Make the embedded SYNTHETIC SAMPLE: six files in PCam's layout, meta CSVs, and the truth of what was planted.

Reads: nothing.
Writes: x, y and meta per split; planted.csv (split, row, kind), which only score_audit may read.
"""

from collections.abc import Mapping

from pcam.facts import FILE_SPLITS, META_COLUMNS
from pcam.files import InputError, write_csv
from pcam.hdf5 import write_labels, write_patches
from pcam.settings import SampleSettings, from_mapping
from pcam.stage import run_stage
from pcam.synthetic import synthesize


def synthesize_sample(
    x_paths: Mapping[str, str],
    y_paths: Mapping[str, str],
    meta_paths: Mapping[str, str],
    planted_path: str,
    *,
    settings: SampleSettings,
) -> None:
    """Write the sample. Raises: InputError when the settings ask for what cannot be made."""
    try:
        splits = synthesize(settings)
    except ValueError as error:
        raise InputError(f"config: data.sample: {error}") from None
    for name, split in splits.items():
        write_patches(x_paths[name], split.x)
        write_labels(y_paths[name], split.y, len(split.y))
        rows = ([index, *(line[column] for column in META_COLUMNS)] for index, line in enumerate(split.meta))
        write_csv(meta_paths[name], ("", *META_COLUMNS), rows)
        print(f"{name}: {len(split.y)} patches, {int(split.y.sum())} positive, {split.x.dtype}")
    planted = [(name, row, kind) for name in FILE_SPLITS for row, kind in sorted(splits[name].planted)]
    write_csv(planted_path, ("split", "row", "kind"), planted)


if __name__ == "__main__":
    with run_stage(snakemake):
        synthesize_sample(
            {split: snakemake.output[f"{split}_x"] for split in FILE_SPLITS},
            {split: snakemake.output[f"{split}_y"] for split in FILE_SPLITS},
            {split: snakemake.output[f"{split}_meta"] for split in FILE_SPLITS},
            snakemake.output.planted,
            settings=from_mapping(SampleSettings, snakemake.params.sample),
        )
