"""Have one file of the published PCam record: what is at hand when it is the published one, else downloaded.

Reads: files of the published names (.h5, .h5.gz, CSV) in downloads/ and in data.directory, .h5.gz also beside the
       target (a .h5 there is the job's own output, which Snakemake deletes first); else the record below data.url.
Writes: a link under the published name. What it links to stands in downloads/ beside it, unpacked and checked: no
        output, because Snakemake deletes the outputs of a job before it runs again. A downloaded .gz goes once it is
        unpacked: keeping it would take 8 GB more to save what the .h5 already saves.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pcam.acquisition import Published, decompress, published_file, require_space, what_differs
from pcam.download import fetched
from pcam.files import InputError
from pcam.stage import run_stage, say


def at_hand(
    name: str, folders: Sequence[Path], digests: Mapping[str, str], size_bytes: int | None = None
) -> Path | None:
    """The first file of this name. Raises: InputError when it is not the published one; it is left as it is."""
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is not None and (problem := what_differs(path, digests, size_bytes)):
        raise InputError(f"{path}: {problem}; delete it, or take it away, to download the published file")
    return path


def link(source: Path, target: Path) -> None:
    """`target` becomes a link: relative to its own folder where possible, so that the folder can be moved."""
    inside = source.is_relative_to(target.parent)
    target.unlink(missing_ok=True)
    target.symlink_to(source.relative_to(target.parent) if inside else source.resolve())


def download_pcam(target: str, *, url: str, directory: str | None, published: Published) -> None:
    """Raises: InputError when the file cannot be had, or one at hand is not the published one."""
    path = Path(target)
    kept = path.parent / "downloads" / path.name
    folders = [kept.parent, path.parent]
    if directory is not None:
        if not Path(directory).is_dir():
            raise InputError(f"{directory}: no such folder; set data.directory to one with PCam files, or to null")
        folders.append(Path(directory))
    packed_md5 = published.unpacked_md5
    whole = at_hand(path.name, folders, {"md5": packed_md5} if packed_md5 else published.digests)
    if whole is not None:
        say(f"{path.name}: {whole} is the published file")
        if whole != path:
            link(whole, path)
        return
    packed = at_hand(published.name, folders, published.digests, published.size_bytes) if packed_md5 else None
    if packed is not None:
        say(f"{path.name}: unpacking {packed}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        require_space(kept.parent, published.unpacked_bytes, path.name)
        decompress(packed, kept, md5=packed_md5)
    else:
        with fetched(f"{url}/{published.name}", kept.parent, published) as part:
            say(f"{published.name}: whole and right" + (", unpacking" if packed_md5 else ""))
            if packed_md5:
                decompress(part, kept, md5=packed_md5)
            else:
                os.replace(part, kept)
    link(kept, path)


if __name__ == "__main__":
    with run_stage(snakemake):
        output = snakemake.output[0]
        download_pcam(
            output,
            url=snakemake.params.url,
            directory=snakemake.params.directory,
            published=published_file(Path(output).name),
        )
