"""Look at every patch once and keep what the audits of leakage and poison need.

Reads:  x of the three file splits.
Writes: a folder, as pcam.survey describes it.
"""

from collections.abc import Mapping

from pcam.facts import FILE_SPLITS
from pcam.stage import run_stage, say
from pcam.survey import survey_splits


def survey_patches(x_files: Mapping[str, str], folder: str, *, processes: int) -> None:
    """Survey all splits; the result does not depend on `processes`."""
    survey = survey_splits(x_files, folder, processes=processes)
    say(f"surveyed {len(survey):,} patches")


if __name__ == "__main__":
    with run_stage(snakemake):
        survey_patches(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            snakemake.output.survey,
            processes=snakemake.threads,
        )
