"""Name each file by its content: its digests, and which published PCam file it is, whatever its name says.

Reads:  x, y and meta of the three file splits; with audit.reference also checksums.json of an earlier run on files that
        were verified by md5, so that re-packed copies of them are named by their pixels.
Writes: checksums.json: digests, identity and confidence of every file, and findings. Published content of another split
        under a split's name is a swap; the same pixels under two splits' names are a finding too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pcam.audits import check_splits
from pcam.facts import FILE_SPLITS, SWAP, pcam_filename
from pcam.files import read_csv, write_json
from pcam.identity import KNOWN, Digests, Tables, digest_files, in_words, name_content, with_reference
from pcam.metrics import wilson_interval
from pcam.stage import run_stage

EXTENSION = {"x": "x.h5", "y": "y.h5", "meta": "meta.csv"}


def describe_file(
    split: str, key: str, path: str, digests: Digests, patches: int | None, labels: np.ndarray | None, tables: Tables
) -> dict[str, Any]:
    """One file of checksums.json; `patches` and `labels` are those of its pair, None when unknown."""
    counts = None if labels is None else (int((labels == 0).sum()), int((labels == 1).sum()))
    known = name_content(key, digests, patches, counts, tables)
    published = known.source == "published" and len(known.splits) == 1
    return {
        "split": split,
        "key": key,
        "file": Path(path).name,
        "bytes": Path(path).stat().st_size,
        "md5": digests.md5,
        "sha256": digests.sha256,
        "content_digest": digests.content,
        "patches": patches,
        "labels": None if counts is None else list(counts),
        "source": known.source,
        "content_of": list(known.splits),
        "confidence": known.confidence,
        "published_as": pcam_filename(known.splits[0], EXTENSION[key]) if published else None,
        "meaning": in_words(split, known),
    }


def finding(kind: str, split: str, files: list[dict[str, Any]], of: int, **more: list[str]) -> dict[str, Any]:
    """A finding of files: no class, no rows."""
    return {
        "kind": kind,
        "split": split,
        "class": None,
        "n": len(files),
        "of": of,
        "rate": len(files) / of,
        "interval": list(wilson_interval(len(files), of)),
        "rows": [],
        "files": [file["file"] for file in files],
        **more,
    }


def find_in_split(split: str, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is wrong, or right, with the files of one split, among the files of all."""
    mine = [file for file in files if file["split"] == split]
    named = [file for file in mine if file["published_as"]]
    swapped = [file for file in mine if file["content_of"] and split not in file["content_of"]]
    told = [f"{file['file']} is {file['meaning']}" for file in swapped]
    if any({split, *file["content_of"]} <= {"valid", "test"} for file in swapped):
        told.append(f"known of old: {SWAP}")
    pixels = [file for file in mine if file["key"] == "x"]
    twins = [
        f"{file['file']} holds the pixels of {other['file']}"
        for file in pixels
        for other in files
        if other["split"] != split and other["content_digest"] == file["content_digest"]
    ]
    return [
        finding("published_file", split, named, len(mine), confidence=[file["confidence"] for file in named]),
        finding("swapped_split", split, swapped, len(mine), told=told),
        finding("same_content", split, pixels if twins else [], len(pixels), told=twins),
    ]


def audit_checksums(
    x_files: Mapping[str, str],
    y_files: Mapping[str, str],
    meta_files: Mapping[str, str],
    reference: str | None,
    findings_path: str,
    *,
    processes: int,
    provenance: Mapping[str, object],
    known: Tables = KNOWN,
) -> None:
    """Digest and name every file; a meta file without a row (slides unknown) has no content to name.

    `processes` does not change the result.  Raises: InputError on a damaged file or a reference that is none.
    """
    if reference is not None:
        print(f"audit.reference: {Path(reference).resolve()}")
    tables = with_reference(known, reference)
    splits = check_splits(x_files, y_files)
    metas = {split: path for split, path in meta_files.items() if read_csv(path)}
    digests = digest_files(
        {path: splits[split][0] for split, path in x_files.items()},
        {path: splits[split][1] for split, path in y_files.items()},
        list(metas.values()),
        processes=processes,
    )
    files = []
    for split, pair in splits.items():
        files.append(describe_file(split, "x", x_files[split], digests[x_files[split]], *pair, tables))
        files.append(describe_file(split, "y", y_files[split], digests[y_files[split]], *pair, tables))
        if split in metas:
            files.append(describe_file(split, "meta", metas[split], digests[metas[split]], None, None, tables))
    found = [each for split in FILE_SPLITS for each in find_in_split(split, files)]
    write_json(findings_path, {"provenance": provenance, "findings": found, "files": files})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        audit_checksums(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_y"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_meta"] for split in FILE_SPLITS},
            snakemake.input.reference or None,
            snakemake.output.findings,
            processes=snakemake.threads,
            provenance=provenance,
        )
