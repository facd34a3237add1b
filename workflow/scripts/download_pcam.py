"""Download one file of the published PCam record, check its md5, unpack it.

Reads: the record below data.url.
Writes: the .h5 file or meta CSV under its published name; its .gz stays in a folder beside it, for the next time.
"""

from pathlib import Path

import pooch
import requests

from pcam.acquisition import decompress
from pcam.facts import MD5_GZ, MD5_H5, MD5_META
from pcam.files import InputError, file_digest
from pcam.stage import run_stage


def fetch(url: str, name: str, folder: Path, md5: str) -> Path:
    """The file `name` in `folder`, downloaded when it is not there with the right md5."""
    try:
        return Path(pooch.retrieve(f"{url}/{name}", known_hash=f"md5:{md5}", fname=name, path=folder, progressbar=True))
    except requests.RequestException as error:
        raise InputError(
            f"{url}/{name}: download failed ({type(error).__name__}); try again, what is there is kept"
        ) from None
    except ValueError as error:
        raise InputError(f"{url}/{name}: {' '.join(str(error).split())}; the server gave another file") from None


def download_pcam(target: str, *, url: str) -> None:
    """Raises: InputError when the download fails or a digest differs."""
    path = Path(target)
    if path.suffix == ".csv":
        fetch(url, path.name, path.parent, MD5_META[path.name])
        return
    packed = fetch(url, f"{path.name}.gz", path.parent / "downloads", MD5_GZ[f"{path.name}.gz"])
    decompress(packed, path)
    if (found := file_digest(path, "md5")) != MD5_H5[path.name]:
        path.unlink()
        raise InputError(f"{path}: md5 {found} after unpacking, not {MD5_H5[path.name]}; fetch it again")


if __name__ == "__main__":
    with run_stage(snakemake):
        download_pcam(snakemake.output[0], url=snakemake.params.url)
