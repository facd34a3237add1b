"""Make one survey of those of its shards.

Reads:  the shards' folders, as pcam.survey describes them.
Writes: the folder that survey_patches writes of all patches, byte for byte.
"""

import shutil
from collections.abc import Sequence
from dataclasses import fields

from pcam.files import InputError, atomic_folder
from pcam.stage import run_stage, say
from pcam.survey import BUCKETS, Patches, open_survey, write_patches


def gather_survey(parts: Sequence[str], folder: str) -> None:
    """Shards in order. Raises: InputError when one is missing or damaged."""
    found = [open_survey(part) for part in parts]
    sizes = [sum(split) for split in zip(*(part.sizes for part in found), strict=True)]
    folders = [part.folder for part in found]
    columns = {field.name: [getattr(part.patches, field.name) for part in found] for field in fields(Patches)}
    del found  # `columns` alone holds the arrays, which write_patches lets go field by field
    with atomic_folder(folder) as work:
        for bucket in range(BUCKETS):
            name = f"anchors-{bucket:02d}.bin"
            with (work / name).open("wb") as joined:
                for part in folders:
                    try:
                        with (part / name).open("rb") as anchors:
                            shutil.copyfileobj(anchors, joined)
                    except FileNotFoundError:
                        raise InputError(f"{part / name}: no such file; survey the shard again") from None
        write_patches(work, sizes, columns)
    say(f"surveyed {sum(sizes):,} patches in {len(parts)} shards")


if __name__ == "__main__":
    with run_stage(snakemake):
        gather_survey(snakemake.input, snakemake.output[0])
