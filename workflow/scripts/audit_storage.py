"""Tell why the files are as large as they are, what uint8 would save, and whether their patches fit it without loss.

Reads:  x and y of the three file splits.
Writes: storage and findings as JSON, and as CSV (split,row,kind) the rows whose values lie in 0..255 but are not whole.
"""

from collections.abc import Mapping

import numpy as np

from pcam.audits import check_splits, findings
from pcam.blocks import map_blocks
from pcam.facts import FILE_SPLITS
from pcam.files import write_csv, write_json
from pcam.stage import run_stage
from pcam.storage import Block, describe_dataset, explain, measure_block, savings


def audit_storage(
    x_files: Mapping[str, str],
    y_files: Mapping[str, str],
    findings_path: str,
    rows_path: str,
    *,
    rows_listed: int,
    processes: int,
    provenance: Mapping[str, object],
) -> None:
    """Account for each file's bytes; count patches stored as float, and of them those that uint8 holds without loss.

    `processes` does not change the result.
    """
    splits = check_splits(x_files, y_files)
    blocks: dict[str, list[Block]] = {split: [] for split in FILE_SPLITS}
    for split, _, block in map_blocks(measure_block, x_files, processes=processes):
        blocks[split].append(block)
    files, found, table = [], [], []
    for split in FILE_SPLITS:
        n, labels = splits[split]
        patches, targets = describe_dataset(x_files[split], "x"), describe_dataset(y_files[split], "y")
        as_float = np.arange(n if patches["dtype"].startswith("float") else 0)
        lossless = np.concatenate([block.lossless for block in blocks[split]])
        saved = savings(patches, [chunk for block in blocks[split] for chunk in block.gzipped])
        cause = explain(patches, len(lossless) if len(as_float) else None)
        files.append({"split": split, **patches, "cause": cause, **saved})
        files.append({"split": split, **targets, "cause": explain(targets, None)})
        found += findings("float_storage", split, as_float, labels, n, rows_listed, {"lossless": lossless})
        table += [(split, int(row), "fractional") for block in blocks[split] for row in block.fractional]
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
            processes=snakemake.threads,
            provenance=provenance,
        )
