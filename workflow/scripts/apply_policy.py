"""Decide, by the policy of the config, which patches are kept and how each kind of defect is judged.

Reads:  y of the three file splits; findings of the audits of checksums, storage, poison, shift, leakage and labels;
        rows of         those of poison, storage, leakage and labels.
Writes: one line for every patch (split,row,label,keep,defects), and a verdict for every kind looked for.
"""

from collections.abc import Mapping, Sequence

from pcam import policy as rules
from pcam.facts import FILE_SPLITS
from pcam.files import read_csv, read_json, write_csv, write_json
from pcam.hdf5 import read_labels
from pcam.stage import run_stage


def apply_policy(
    y_files: Mapping[str, str],
    checksums_path: str,
    storage_path: str,
    poison_path: str,
    shift_path: str,
    leakage_path: str,
    labels_path: str,
    rows_paths: Sequence[str],
    patches_path: str,
    verdicts_path: str,
    *,
    policy: Mapping[str, str],
    waive: Mapping[str, str],
    provenance: Mapping[str, object],
) -> None:
    """Join the audits' rows into one line a patch, and judge each kind."""
    rules.check_actions(policy)
    files = [file for file in read_json(storage_path)["files"] if file["key"] == "x"]
    labels: dict[rules.Patch, str] = {}
    for file in files:
        known = read_labels(y_files[file["split"]])
        for row in range(file["patches"]):
            labels[file["split"], row] = "" if known is None else str(known[row])

    rows = [row for path in rows_paths for row in read_csv(path, ("split", "row", "kind"))]
    flagged, dropped = rules.flagged_and_dropped(rows, policy)
    gone = set().union(*dropped.values())
    verdicts = rules.judge_files(read_json(checksums_path)["findings"], waive)
    verdicts["float_storage"] = rules.judge_storage(files, rules.unfit(files, flagged) - gone, policy, waive)
    for kind in rules.DEFECTS:
        found = flagged[kind], dropped[kind], gone
        verdicts[kind] = rules.judge_patches(kind, *found, len(labels), policy, waive)
    verdicts |= rules.judge_unlooked(verdicts, read_json(leakage_path)["method"], read_json(labels_path)["splits"])
    shifts = read_json(shift_path)["findings"]
    told = rules.found_in_splits(read_json(poison_path)["by_class"], shifts)
    for kind in rules.OF_SPLITS:
        verdicts[kind] = rules.judge_splits(kind, told[kind], shifts, policy, waive)
    verdicts["emptied_class"] = rules.judge_classes(labels, gone)

    defects = rules.defects_of(flagged)
    table = ((*patch, label, int(patch not in gone), defects.get(patch, "")) for patch, label in labels.items())
    write_csv(patches_path, ("split", "row", "label", "keep", "defects"), table)
    write_json(verdicts_path, {**verdicts, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        apply_policy(
            {split: snakemake.input[f"{split}_y"] for split in FILE_SPLITS},
            snakemake.input.checksums,
            snakemake.input.storage,
            snakemake.input.poison,
            snakemake.input.shift,
            snakemake.input.leakage,
            snakemake.input.labels,
            [snakemake.input[f"{audit}_rows"] for audit in ("poison", "storage", "leakage", "labels")],
            snakemake.output.patches,
            snakemake.output.verdicts,
            policy=snakemake.params.policy,
            waive=snakemake.params.waive,
            provenance=provenance,
        )
