"""Write the full recipe of a variant, so that the DAG sees its settings as a file.

Reads: nothing but the config.
Writes: settings.json with every field of TrainSettings.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pcam.files import write_json
from pcam.settings import TrainSettings, from_mapping
from pcam.stage import run_stage


def resolve_variant(out_path: str, *, recipe: Mapping[str, Any]) -> None:
    write_json(out_path, asdict(from_mapping(TrainSettings, recipe)))


if __name__ == "__main__":
    with run_stage(snakemake):
        resolve_variant(snakemake.output[0], recipe=snakemake.params.recipe)
