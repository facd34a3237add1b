"""Which published PCam file a file is by its content, whatever its name says, and in words how sure that is.

Content digest of an x file, its pixel digest: the sha256 of the concatenated sha256 digests (32 bytes each) of its
patches, in row order. Of a patch are hashed its 27,648 values in C order: as uint8 when every one is a whole number in
0..255 (-0.0 is 0); otherwise all of them rounded to float32, little-endian, each NaN as 0x7fc00000 and -0.0 as 0.0.
Content digest of a y file: the sha256 of its labels in row order, one byte each.
Both are functions of the values alone; layout, chunks, compression and dtype do not enter.
"""

import hashlib
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pcam.audits import as_uint8, look
from pcam.facts import COURSE_LABEL_COUNTS, FILE_SPLITS, LABEL_COUNTS, MD5_H5, MD5_META, pcam_filename
from pcam.files import InputError, read_json
from pcam.hdf5 import PatchReader

T = TypeVar("T")
BLOCK = 256  # patches a task: 7 MB of uint8, 28 MB of float32
READ_BYTES = 1 << 20
BY_MD5 = "by md5"
SPLIT_OF = {pcam_filename(split, part): split for split in FILE_SPLITS for part in ("x.h5", "y.h5", "meta.csv")}


@dataclass(frozen=True)
class Tables:
    """What is known of published files.

    md5: file name of each md5.  counts: (source, split) to its negative and positive labels; source is "published" or
    "course".  contents: file name of each content digest, from an earlier run on files verified by md5.
    """

    md5: Mapping[str, str]
    counts: Mapping[tuple[str, str], tuple[int, int]]
    contents: Mapping[str, str]


KNOWN = Tables(
    md5={digest: name for name, digest in (MD5_H5 | MD5_META).items()},
    counts={
        **{("published", split): counts for split, counts in LABEL_COUNTS.items()},
        **{("course", split): counts for split, counts in COURSE_LABEL_COUNTS.items()},
    },
    contents={},
)


def with_reference(tables: Tables, path: str | None) -> Tables:
    """`tables` with the content digests of an earlier checksums.json, of the files that it named by md5.

    Raises: InputError when the file is missing, no such JSON, or names no file by md5.
    """
    if path is None:
        return tables
    files = read_json(path).get("files")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise InputError(f"{path}: holds no list of files; audit.reference needs a checksums.json of an earlier run")
    contents = {
        str(file["content_digest"]): str(file["published_as"])
        for file in files
        if file.get("confidence") == BY_MD5 and file.get("content_digest") and str(file.get("published_as")) in SPLIT_OF
    }
    if not contents:
        raise InputError(
            f"{path}: names no file by md5; audit.reference needs the checksums.json of a run on the published files"
        )
    return replace(tables, contents=contents)


@dataclass(frozen=True)
class Digests:
    """md5 and sha256 of a file's bytes, and its content digest (None for a meta file and unknown labels)."""

    md5: str
    sha256: str
    content: str | None


def file_digests(path: str) -> tuple[str, str]:
    """md5 and sha256 of a file's bytes, in one read."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    buffer = memoryview(bytearray(READ_BYTES))
    with Path(path).open("rb", buffering=0) as handle:
        while n := handle.readinto(buffer):
            md5.update(buffer[:n])
            sha256.update(buffer[:n])
    return md5.hexdigest(), sha256.hexdigest()


def patch_digests(patches: np.ndarray) -> bytes:
    """Concatenated sha256 digests of patches (N,96,96,3) of any dtype, as the head of this module defines them."""
    if patches.dtype == np.uint8:
        return b"".join(hashlib.sha256(patch.tobytes()).digest() for patch in patches)
    small, fits = as_uint8(patches, look(patches))
    shown = (small[i] if fits[i] else _canonical(patches[i]) for i in range(len(patches)))
    return b"".join(hashlib.sha256(patch.tobytes()).digest() for patch in shown)


def _canonical(patch: np.ndarray) -> np.ndarray:
    """float32 in which equal values have equal bytes."""
    with np.errstate(over="ignore"):  # beyond float32 is infinity
        values = patch.astype("<f4") + np.float32(0)  # -0.0 + 0.0 is 0.0
    values[np.isnan(values)] = np.float32(np.nan)
    return np.asarray(values, "<f4")


def _block_digests(path: str, start: int, stop: int) -> bytes:
    with PatchReader(path) as patches:
        return patch_digests(patches.read(start, stop))


def run_tasks(tasks: Sequence[Callable[[], T]], processes: int) -> list[T]:
    """Results in the order of the tasks, which must be picklable; the first error ends the work."""
    if processes == 1:
        return [task() for task in tasks]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def digest_files(
    x_files: Mapping[str, int], y_files: Mapping[str, np.ndarray | None], others: Sequence[str], *, processes: int
) -> dict[str, Digests]:
    """Digests by path. `x_files`: number of patches of each path; `y_files`: labels of each, None when unknown.

    Blocks of pixels are shared out over the processes while the bytes of whole files are hashed, so the result does
    not depend on `processes`.
    """
    # The largest file first: the md5 of one file cannot be divided and sets how long the whole takes.
    paths = sorted([*x_files, *y_files, *others], key=lambda path: -Path(path).stat().st_size)
    blocks = [(path, start, min(start + BLOCK, n)) for path, n in x_files.items() for start in range(0, n, BLOCK)]
    tasks: list[Callable[[], Any]] = [partial(file_digests, path) for path in paths]
    tasks += [partial(_block_digests, *block) for block in blocks]
    done = run_tasks(tasks, processes)
    contents: dict[str, str | None] = dict.fromkeys(others)
    for path in x_files:
        parts = [part for part, block in zip(done[len(paths) :], blocks, strict=True) if block[0] == path]
        contents[path] = hashlib.sha256(b"".join(parts)).hexdigest()
    for path, labels in y_files.items():
        contents[path] = None if labels is None else hashlib.sha256(labels.astype(np.uint8).tobytes()).hexdigest()
    return {path: Digests(md5, sha256, contents[path]) for path, (md5, sha256) in zip(paths, done, strict=False)}


@dataclass(frozen=True)
class Identity:
    """What a file is.

    source: "published", "course" or None.  splits: those whose content it may be, none when unknown.  confidence: how
    that is known.  note: what speaks against it.
    """

    source: str | None
    splits: tuple[str, ...]
    confidence: str | None
    note: str = ""


def name_content(
    key: str, digests: Digests, patches: int | None, counts: tuple[int, int] | None, tables: Tables
) -> Identity:
    """Name a file by the strongest evidence there is.

    `key`: "x", "y" or "meta".  `patches`, and `counts` of negative and positive labels (None when unknown): its pair's.
    """
    if digests.md5 in tables.md5:
        return Identity("published", (SPLIT_OF[tables.md5[digests.md5]],), BY_MD5)
    what = "pixel" if key == "x" else "label"
    if digests.content is not None and digests.content in tables.contents:
        split = SPLIT_OF[tables.contents[digests.content]]
        return Identity("published", (split,), f"by {what} digest of the reference")
    if patches is None:
        return Identity(None, (), None)
    for (source, split), known in tables.counts.items():
        if counts == known:
            differs = pcam_filename(split, f"{key}.h5") in tables.contents.values() and source == "published"
            note = f"its {what} digest is not that of the reference, so its content was changed" if differs else ""
            return Identity(source, (split,), "by label counts", note)
    shaped = [place for place, known in tables.counts.items() if sum(known) == patches]
    if shaped and counts is None and key == "x":
        splits = tuple(split for _, split in shaped)
        return Identity(shaped[0][0], splits, f"by shape only: {' or '.join(splits)}")
    if shaped and counts is not None:
        like = " and ".join(f"{source} {split}" for source, split in shaped)
        return Identity(None, (), None, f"{patches:,} patches as {like}, but {counts[0]:,}/{counts[1]:,} labels")
    return Identity(None, (), None)


def in_words(split: str, known: Identity) -> str:
    """What a file under the name of `split` is, as one phrase."""
    owner = "the published" if known.source == "published" else "the course's"
    if known.source is None:
        meaning = "not a published file"
    elif known.splits == (split,):
        meaning = f"{owner} file of this split, {known.confidence}"
    elif split in known.splits:
        meaning = f"{owner} {' or '.join(known.splits)} file, which shape alone does not tell"
    else:
        meaning = f"{owner} {' or '.join(known.splits)} file under the name of {split}, {known.confidence}"
    return f"{meaning} ({known.note})" if known.note else meaning
