"""Name each file by its content: its digests, and which published PCam file it is, whatever its name says.

Reads:  x, y and meta of the three file splits.
Writes: digests and findings as JSON; the published valid and test split under each other's names are called a swap.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcam.audits import check_splits
from pcam.facts import FILE_SPLITS, MD5_H5, MD5_META, pcam_filename
from pcam.files import file_digest, read_csv, write_json
from pcam.metrics import wilson_interval
from pcam.stage import run_stage

PUBLISHED = {md5: name for name, md5 in (MD5_H5 | MD5_META).items()}
SPLIT_OF = {pcam_filename(split, part): split for split in FILE_SPLITS for part in ("x.h5", "y.h5", "meta.csv")}


def identify(split: str, path: str, published: Mapping[str, str] = PUBLISHED) -> dict[str, Any]:
    """Digests of one file, the published file of the same md5 (None for none), and in words what that says."""
    md5 = file_digest(path, "md5")
    name = published.get(md5)
    if name is None:
        meaning = "not a published file"
    elif SPLIT_OF[name] == split:
        meaning = "the published file of this split"
    else:
        meaning = f"the published {SPLIT_OF[name]} file under the name of {split}"
    return {
        "split": split,
        "file": Path(path).name,
        "bytes": Path(path).stat().st_size,
        "md5": md5,
        "sha256": file_digest(path, "sha256"),
        "published_as": name,
        "meaning": meaning,
    }


def finding(kind: str, split: str, names: list[str], of: int) -> dict[str, Any]:
    """A finding of files: no class, no rows."""
    return {
        "kind": kind,
        "split": split,
        "class": None,
        "n": len(names),
        "of": of,
        "rate": len(names) / of,
        "interval": list(wilson_interval(len(names), of)),
        "rows": [],
        "files": names,
    }


def audit_checksums(
    x_files: Mapping[str, str],
    y_files: Mapping[str, str],
    meta_files: Mapping[str, str],
    findings_path: str,
    *,
    provenance: Mapping[str, object],
) -> None:
    """Digest every file; a meta file without a row (slides unknown) has no content to identify."""
    check_splits(x_files, y_files)
    files: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for split in FILE_SPLITS:
        metas = [meta_files[split]] if read_csv(meta_files[split]) else []
        mine = [identify(split, path) for path in (x_files[split], y_files[split], *metas)]
        named = [file for file in mine if file["published_as"] is not None]
        swapped = [file["file"] for file in named if SPLIT_OF[file["published_as"]] != split]
        found.append(finding("published_file", split, [file["file"] for file in named], len(mine)))
        found.append(finding("swapped_split", split, swapped, len(mine)))
        files += mine
    write_json(findings_path, {"provenance": provenance, "findings": found, "files": files})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        audit_checksums(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_y"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_meta"] for split in FILE_SPLITS},
            snakemake.output.findings,
            provenance=provenance,
        )
