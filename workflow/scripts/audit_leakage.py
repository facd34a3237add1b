"""Find patches that stand in the data more than once: pixel-identical ones, and ones that show the same tissue.

Reads:  x and y of the three file splits.
Writes: findings, counts of pairs and sizes of groups as JSON, and every leaking row as CSV
        (split,row,kind,group,partner_splits,content): `group` is the component over identity and overlap, `content`
        the number of the set of pixel-identical patches, both over all splits and empty where there is none.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import lru_cache

import numpy as np

from pcam import audits
from pcam.facts import FILE_SPLITS, GRID_PX
from pcam.files import write_csv, write_json
from pcam.hdf5 import PatchReader
from pcam.stage import run_stage

COLUMNS = ("split", "row", "kind", "group", "partner_splits", "content")
CACHED = 1024  # patches kept while pairs are compared: 28 MB
SURVEYED = 256  # patches surveyed at a time: the working memory of the block hashes


def survey_patches(readers: Mapping[str, PatchReader]) -> tuple[list[bytes], np.ndarray, np.ndarray, np.ndarray]:
    """What one pass keeps: each patch's digest, whether it is blank, its blocks' hashes, which blocks are textured.

    No block of a patch that uint8 cannot hold counts as textured.
    """
    digests: list[bytes] = []
    parts: list[tuple[np.ndarray, ...]] = []
    for reader in readers.values():
        for _, patches in reader.chunks(SURVEYED):
            seen = audits.look(patches)
            small, lossless = audits.as_uint8(patches, seen)
            digests += [audits.content_digest(data) for data in audits.contents(patches, small, lossless)]
            textured = (audits.block_texture(small) >= audits.TEXTURE_STD) & lossless[:, None]
            parts.append((seen.uniform, audits.block_hashes(small), textured))
    blank, hashes, textured = (np.concatenate(column) for column in zip(*parts, strict=True))
    return digests, blank, hashes, textured


def patch_fetcher(readers: Mapping[str, PatchReader]) -> Callable[[int], tuple[np.ndarray, bytes]]:
    """Access to one patch by its index over all splits: as uint8, and its content."""
    ends = np.cumsum([len(reader) for reader in readers.values()])

    @lru_cache(maxsize=CACHED)
    def fetch(index: int) -> tuple[np.ndarray, bytes]:
        at = int(np.searchsorted(ends, index, side="right"))
        reader = readers[FILE_SPLITS[at]]
        row = index - int(ends[at]) + len(reader)
        patches = reader.read(row, row + 1)
        small, lossless = audits.as_uint8(patches, audits.look(patches))
        return small[0], next(audits.contents(patches, small, lossless))

    return fetch


def verified(first: np.ndarray, content_of: Callable[[int], bytes]) -> np.ndarray:
    """`first` without the patches whose pixels differ from the first of their digest."""
    first = first.copy()
    copies = np.flatnonzero(first != np.arange(len(first)))
    for i in copies[np.argsort(first[copies], kind="stable")].tolist():
        if content_of(i) != content_of(int(first[i])):
            first[i] = i
    return first


def numbered(sets: np.ndarray) -> list[int | None]:
    """For each patch the number of its set when that has two members or more; sets are counted from 0 in order."""
    _, inverse, counts = np.unique(sets, return_inverse=True, return_counts=True)
    number = np.cumsum(counts > 1) - 1
    return [int(number[i]) if counts[i] > 1 else None for i in inverse]


def audit_leakage(
    x_files: Mapping[str, str],
    y_files: Mapping[str, str],
    findings_path: str,
    rows_path: str,
    *,
    rows_listed: int,
    provenance: Mapping[str, object],
) -> None:
    """Look for duplicates, conflicting labels and shared tissue within and across splits."""
    splits = audits.check_splits(x_files, y_files)
    sizes = [splits[split][0] for split in FILE_SPLITS]
    with ExitStack() as stack:
        readers = {split: stack.enter_context(PatchReader(x_files[split])) for split in FILE_SPLITS}
        digests, blank, hashes, textured = survey_patches(readers)
        fetch = patch_fetcher(readers)
        first = verified(audits.first_of_content(digests), lambda i: fetch(i)[1])
        usable = textured & (first == np.arange(len(first)))[:, None]
        overlaps = audits.find_overlaps(hashes, usable, lambda i: fetch(i)[0])

    at = np.repeat(np.arange(len(sizes)), sizes)
    row = np.concatenate([np.arange(size) for size in sizes])
    named = [(split, i) for split in FILE_SPLITS for i in range(splits[split][0])]
    labels = np.concatenate([np.full(n, -1) if known is None else known for n, known in splits.values()])
    leaks = audits.find_leaks(at, labels, blank, first, overlaps)
    content = numbered(first)
    group = [None if number < 0 else number for number in leaks.group.tolist()]

    found, table = [], []
    for kind, flagged in leaks.flags.items():
        for number, split in enumerate(FILE_SPLITS):
            mine = flagged & (at == number)
            extra = {"of_which_blank": row[mine & blank]} if kind.endswith("duplicate") else {}
            n, known = splits[split]
            found += audits.findings(kind, split, row[mine], known, n, rows_listed, extra)
        for i in np.flatnonzero(flagged).tolist():
            partners = ";".join(name for bit, name in enumerate(FILE_SPLITS) if leaks.partners[kind][i] >> bit & 1)
            table.append((*named[i], kind, group[i], partners, content[i]))
    names = [f"{one}-{other}" for k, one in enumerate(FILE_SPLITS) for other in FILE_SPLITS[k:]]
    group_sizes = np.bincount(np.bincount(leaks.group[leaks.group >= 0]))
    document = {
        "provenance": provenance,
        "findings": found,
        "method": {
            "grid_px": GRID_PX,
            "largest_shift_px": GRID_PX * (audits.SIDE - 1),
            "texture_std": audits.TEXTURE_STD,
            "patches_with_texture": int(textured.any(axis=1).sum()),
        },
        "pairs": {
            kind: dict(zip(names, m[np.triu_indices(3)].tolist(), strict=True)) for kind, m in leaks.pairs.items()
        },
        "group_sizes": {str(size): int(group_sizes[size]) for size in np.flatnonzero(group_sizes)},
        "examples": [
            {"a": named[a], "b": named[b], "shift_px": [dy * GRID_PX, dx * GRID_PX]}
            for a, b, dy, dx in overlaps[:rows_listed].tolist()
        ],
    }
    write_csv(rows_path, COLUMNS, table)
    write_json(findings_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        audit_leakage(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_y"] for split in FILE_SPLITS},
            snakemake.output.findings,
            snakemake.output.rows,
            rows_listed=snakemake.params.rows_listed,
            provenance=provenance,
        )
