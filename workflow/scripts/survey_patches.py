"""Look at every patch once and keep what the audits of leakage and poison need.

Reads:  x of the three file splits.
Writes: a folder, as pcam.survey describes it.
"""

from collections.abc import Mapping

from pcam.facts import FILE_SPLITS
from pcam.files import InputError
from pcam.shards import shard_rows
from pcam.stage import run_stage, say
from pcam.survey import count_patches, survey_splits


def survey_patches(x_files: Mapping[str, str], folder: str, *, processes: int, shard: str | None = None) -> None:
    """Survey all splits, or a shard of their patches; the result does not depend on `processes`.

    Raises: InputError when a file is missing or damaged, or the shard is left without a patch.
    """
    total = count_patches(x_files)
    rows = shard_rows(shard, total)
    if not rows:
        raise InputError(f"config: shards: too many for {total} patches; set {total} at most")
    survey = survey_splits(x_files, folder, processes=processes, rows=rows)
    say(f"surveyed {len(survey):,} patches")


if __name__ == "__main__":
    with run_stage(snakemake):
        survey_patches(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            snakemake.output.survey,
            processes=snakemake.threads,
            shard=snakemake.wildcards.get("scatteritem"),
        )
