"""Pack the model with all that it needs to answer on a machine without network into one archive.

Reads: the champion in both forms, the cards and the pictures they show, the store of test and the predictions on it,
inference.py with what it imports, requirements.txt; wheels from a registry, or from a folder.
Writes: results/handover/bundle.tar.gz, and manifest.json beside it: digest and size of the archive and of each file.
"""

import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pcam.archives import pack
from pcam.bundle import (
    CHAMPION,
    FOLDER,
    PROGRAMS,
    chosen_rows,
    copy_into,
    listed,
    parts_of,
    seal_files,
    system_of,
    write_examples,
    write_guide,
    write_wheel_lists,
)
from pcam.files import InputError, file_digest, write_json
from pcam.predictions import read_predictions
from pcam.provenance import program_files
from pcam.publishing import check_links
from pcam.selftest import EXAMPLES, EXPECTED, WEIGHTS, answer
from pcam.sidecar import read_sidecar
from pcam.stage import run_stage, say
from pcam.store import open_store
from pcam.wheels import fetch_wheels

TEMPLATES = "workflow/handover"


def build_bundle(
    champion: Sequence[str],
    cards: Sequence[str],
    store_path: str,
    predictions_path: str,
    bundle_path: str,
    manifest_path: str,
    *,
    root: str,
    torch: bool,
    wheels: str | None,
    provenance: Mapping[str, object],
) -> None:
    """`champion`: weights.pt, then what lies beside it. `torch`: its wheels come too. `wheels`: a folder of wheels at
    hand, which pip takes instead of a registry.

    Raises: InputError when a file is missing or damaged, pip finds a wheel nowhere, or inference.py fails.
    """
    sidecar = read_sidecar(champion[0])
    if sidecar["threshold"] is None:
        raise InputError(f"{champion[0]}: no threshold was chosen for it; bundle results/champion/weights.pt")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / FOLDER
        (folder / "wheels").mkdir(parents=True)
        fetched = fetch_wheels(folder / "wheels", f"{root}/requirements.txt", torch=torch, source=wheels)
        write_wheel_lists(folder / "wheels", fetched, python)
        platform, glibc = system_of(fetched, sysconfig.get_platform())
        pictures = check_links(cards)
        copy_into(
            folder,
            {name: f"{root}/{name}" for name in (*program_files(), "LICENSE")}
            | {f"{CHAMPION}/{Path(path).name}": path for path in champion}
            | {Path(path).name: path for path in cards}
            | {f"assets/{Path(path).name}": path for path in pictures}
            | {name: f"{root}/{TEMPLATES}/{name}" for name in PROGRAMS},
        )
        commit, dirty = provenance.get("commit"), provenance.get("dirty")
        told = {
            "data": str(sidecar["data_source"]),
            "platform": platform,
            "glibc": f" with glibc {glibc} or newer" if glibc else "",
            "python": python,
            "wheels": ", ".join(f"{wheel.package} {wheel.version}" for wheel in fetched),
            "torch": " and torch" if torch else "; torch is not among them",
            "commit": f"{commit or 'none'}{' with uncommitted changes' if dirty else ''}",
        }
        write_guide(folder, f"{root}/{TEMPLATES}/README.md", told)
        predictions, store = read_predictions(predictions_path), open_store(store_path)
        if len(predictions.rows) != len(store):
            raise InputError(f"{predictions_path}: {len(predictions.rows)} patches, {store_path}: {len(store)}")
        write_examples(folder / EXAMPLES, store[chosen_rows(predictions.probabilities)])
        answer(folder, WEIGHTS, folder / EXPECTED)
        files = seal_files(folder)
        members = {f"{FOLDER}/{name}": path for name, path in listed(folder).items()}
        pack(bundle_path, members, [f"{FOLDER}/{name}" for name in PROGRAMS])
    size = Path(bundle_path).stat().st_size
    say(f"{bundle_path}: {len(files)} files, {size / 1e6:.1f} MB")
    document = {
        "file": bundle_path,
        "bytes": size,
        "sha256": file_digest(bundle_path),
        "folder": FOLDER,
        "files": files,
        "parts": parts_of(files),
        "wheels": [{"package": wheel.package, "version": wheel.version, "file": wheel.path.name} for wheel in fetched],
        "torch": torch,
        "python": python,
        "platform": platform,
        "glibc": glibc,
        "weights": sidecar["digests"].get("weights"),
        "provenance": provenance,
    }
    write_json(manifest_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        build_bundle(
            list(snakemake.input.champion),
            list(snakemake.input.cards),
            snakemake.input.store,
            snakemake.input.predictions,
            snakemake.output.bundle,
            snakemake.output.manifest,
            root=snakemake.params.root,
            torch=snakemake.params.torch,
            wheels=snakemake.params.wheels,
            provenance=provenance,
        )
