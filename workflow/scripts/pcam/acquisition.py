"""Getting hold of PCam files: which are at hand, and unpacking them."""

import gzip
import shutil
import zlib
from pathlib import Path

from pcam.facts import FILE_SPLITS, pcam_filename
from pcam.files import InputError, atomic_path


def files_at_hand(directory: str | Path) -> dict[str, str]:
    """Paths of the files of a folder by role (train_x, train_y, train_meta, …), plain before gzipped.

    test_y and the meta CSVs are optional. Raises: InputError when the folder or a needed file is missing.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; set data.directory to the folder with the PCam files")
    found: dict[str, str] = {}
    for split in FILE_SPLITS:
        for part in ("x", "y"):
            plain = folder / pcam_filename(split, f"{part}.h5")
            candidates = [path for path in (plain, plain.with_suffix(".h5.gz")) if path.exists()]
            if candidates:
                found[f"{split}_{part}"] = str(candidates[0])
            elif (split, part) != ("test", "y"):
                raise InputError(f"{plain}: no such file, and none with .gz; data.directory needs it")
        meta = folder / pcam_filename(split, "meta.csv")
        if meta.exists():
            found[f"{split}_meta"] = str(meta)
    return found


def decompress(source: Path, target: Path) -> None:
    """Unpack a .gz file in blocks, atomically.

    Raises: InputError when it is truncated, damaged or no gzip file (an HTML page saved under that name).
    """
    try:
        with gzip.open(source, "rb") as packed, atomic_path(target) as temporary, temporary.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{source}: not a whole gzip file ({error}); fetch it again") from None
