"""Unpack the bundle elsewhere, install it where there is no network and nothing can be written into it, and compare.

What is run is what its README says, as it says it.

Reads: results/handover/bundle.tar.gz and its manifest.
Writes: results/handover/verify.json: what kept the network away, what was installed, how far the answers are from those
expected. A bundle that fails leaves none.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcam.archives import unpack
from pcam.bundle import FOLDER, contents, filled_in, guide_commands
from pcam.files import InputError, file_digest, read_json, write_json
from pcam.sandbox import Sandbox, run_bare, seal
from pcam.selftest import EXPECTED, TOLERANCE, WEIGHTS, Comparison, compare, example_inputs
from pcam.sidecar import read_sidecar
from pcam.stage import run_stage, say
from pcam.wheels import canonical

FRAME = 2048  # bytes of a member's header and padding, at most
PACKAGES = "import json; from importlib.metadata import distributions as d; "
PACKAGES += "print(json.dumps({x.metadata['Name']: x.version for x in d()}))"


def read_manifest(path: str) -> dict[str, Any]:
    """Raises: InputError when it is missing or lacks what a manifest has."""
    manifest = read_json(path)
    for key, kind in (("sha256", str), ("files", list), ("wheels", list), ("torch", bool)):
        if not isinstance(manifest.get(key), kind):
            raise InputError(f"{path}: {key} is {manifest.get(key)!r:.80}; rule build_bundle writes it anew")
    for entry in manifest["files"]:
        if not isinstance(entry, dict) or type(entry.get("bytes")) is not int or "file" not in entry:
            raise InputError(f"{path}: files holds {entry!r:.80}; rule build_bundle writes it anew")
    return manifest


def unpacked(bundle_path: str, manifest: Mapping[str, Any], folder: Path) -> Path:
    """The bundle's own folder, its content that of the manifest. Raises: InputError where it is not, as unpack does."""
    if file_digest(bundle_path) != manifest["sha256"]:
        raise InputError(f"{bundle_path}: is not the archive of its manifest; rule build_bundle makes both anew")
    limit = sum(entry["bytes"] + FRAME for entry in manifest["files"]) + 100_000  # tar fills its last record
    unpack(bundle_path, folder, limit)
    root = folder / FOLDER
    found = contents(root) if root.is_dir() else []
    if found != manifest["files"]:
        off = next((entry["file"] for entry in manifest["files"] if entry not in found), "a file that it does not list")
        raise InputError(f"{bundle_path}: differs from its manifest in {off}; rule build_bundle makes both anew")
    return root


def run_in(sandbox: Sandbox, home: Path, what: str, *command: str) -> str:
    """What it says. Raises: InputError when it fails."""
    done = run_bare(sandbox.command(*command), home)
    print(f"$ {what}\n{done.stdout}")
    if done.returncode != 0:
        raise InputError(
            f"{what} ends with {done.returncode}: {' '.join((done.stdout.strip() or 'no word')[-300:].split())}"
        )
    return done.stdout


def check_packages(packages: Mapping[str, str], manifest: Mapping[str, Any]) -> None:
    """Raises: InputError when a wheel of the manifest is not installed, or in another version."""
    for wheel in manifest["wheels"]:
        if packages.get(wheel["package"]) != wheel["version"]:
            found = packages.get(wheel["package"])
            raise InputError(
                f"{wheel['package']}: {found or 'nothing'} is installed, not {wheel['version']} of the bundle"
            )


def compared(sandbox: Sandbox, home: Path, python: str, weights: str, threshold: float) -> Comparison:
    """The answers of one form of the weights against those expected.

    Raises: InputError when they are others, or inference.py fails.
    """
    answers = home / f"{Path(weights).suffix[1:]}.csv"
    run_in(sandbox, home, f"inference.py {weights}", python, "inference.py", weights, *example_inputs(sandbox.folder),
           "--device", "cpu", "--format", "csv", "--output", str(answers))  # fmt: skip
    told = compare(sandbox.folder / EXPECTED, answers, threshold)
    if not told.passed:
        raise InputError(f"{weights}: {told}; the bundle answers otherwise than where it was built")
    return told


def verify_bundle(bundle_path: str, manifest_path: str, verdict_path: str, *, provenance: Mapping[str, object]) -> None:
    """Raises: InputError when the archive is not that of the manifest, is not safe, does not install, or answers
    otherwise.
    """
    manifest = read_manifest(manifest_path)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / "home"
        home.mkdir()
        root = unpacked(bundle_path, manifest, Path(temporary) / "unpacked")
        sandbox = seal(root)
        target = str(home / "environment")
        python = f"{target}/bin/python"
        for line in guide_commands(root):
            run_in(sandbox, home, line, "sh", "-c", filled_in(line, target))
        told = json.loads(run_in(sandbox, home, "the packages", python, "-c", PACKAGES))
        packages = {canonical(name): version for name, version in told.items()}
        check_packages(packages, manifest)
        threshold = float(read_sidecar(root / WEIGHTS)["threshold"])
        forms = [WEIGHTS.removesuffix("pt") + "onnx", *([WEIGHTS] if manifest["torch"] else [])]
        answers = {Path(form).name: compared(sandbox, home, python, form, threshold) for form in forms}
        unchanged = contents(root) == manifest["files"]
    if not unchanged:
        raise InputError(f"{bundle_path}: installing or answering changed its files; neither may write there")
    network = "could not be kept away" if sandbox.network else "none"
    say(f"{bundle_path}: installs and answers as expected; network: {network} ({sandbox.how})")
    document = {
        "bundle": manifest["sha256"],
        "passed": True,
        "network": sandbox.network,
        "writable": sandbox.writable,
        "how": sandbox.how,
        "packages": dict(sorted(packages.items())),
        "answers": {
            name: {
                "n": told.n,
                "largest_probability_difference": told.difference,
                "decisions_that_differ": told.changed,
            }
            for name, told in answers.items()
        },
        "tolerance": TOLERANCE,
        "provenance": provenance,
    }
    write_json(verdict_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        verify_bundle(snakemake.input.bundle, snakemake.input.manifest, snakemake.output[0], provenance=provenance)
