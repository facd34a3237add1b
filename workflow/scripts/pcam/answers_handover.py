"""What the journal says of the offline bundle in question 9: its manifest, and what its verification found."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from pcam.binding import bare, count_of
from pcam.documents import Missing, is_measured
from pcam.rendering import code, in_markdown

VERIFY = "snakemake results/handover/verify.json"


def bundle_sentence(manifest: Any, champion: Any) -> Any:
    """What the archive is, where it runs, and whether it holds this run's champion."""
    if isinstance(manifest, Missing):
        return manifest
    glibc = f" with glibc {manifest.glibc} or newer" if manifest.glibc else ""
    text = (
        f"holds {count_of(manifest.files):,} files in {manifest.bytes / 1e6:.1f} MB, sha256 {manifest.sha256}, for "
        f"{manifest.platform}{glibc} and Python {manifest.python}, and needs no network there."
    )
    told = Markup("{} {}").format(code(manifest.file), in_markdown(text))
    weights = champion["digests"]["weights"]
    if bare(manifest.weights) != bare(weights):
        return told + Markup(" **It holds other weights than this run's champion**: `{}` makes it anew.").format(VERIFY)
    return told


def bundle_rows(manifest: Any) -> Any:
    parts = manifest.parts
    return parts if isinstance(parts, Missing) else [[entry.part, entry.files, entry.bytes] for entry in parts]


def bundle_wheels(manifest: Any) -> Any:
    if isinstance(manifest, Missing):
        return manifest
    return ", ".join(f"{wheel.package} {wheel.version}" for wheel in manifest.wheels)


def verification_sentence(manifest: Any, verdict: Any) -> Any:
    """Whether it was tried elsewhere, what kept the network away, and how far its answers were."""
    if isinstance(verdict, Missing) or isinstance(manifest, Missing):
        return Markup("**It was not tried elsewhere yet:** `{}` does that.").format(VERIFY)
    if bare(verdict.bundle) != bare(manifest.sha256):
        return Markup("**An earlier archive was tried elsewhere, and not this one:** `{}` does that.").format(VERIFY)
    network = (
        "with the network of this machine, which could not be kept away," if verdict.network else "without network"
    )
    kept = "though it could have been written to" if verdict.writable else "where it could not be written to"
    told = (
        f"{verdict.answers[form].n:,} answers of {form} differ by "
        f"{verdict.answers[form].largest_probability_difference:.1e} at most in their probability (allowed: "
        f"{verdict.tolerance:g}), and {verdict.answers[form].decisions_that_differ:,} decisions are other ones"
        for form in verdict.answers
    )
    how = f" ({verdict.how})" if is_measured(verdict.how) else ""
    return (
        f"Unpacked in another folder, {kept}, it installed into a fresh environment {network}{how} and passed its own "
        f"selftest; {'; '.join(told)}."
    )


def handover_answers(found: Mapping[str, Any]) -> dict[str, Any]:
    """All that the journal's template needs of the bundle."""
    manifest = found["planned bundle"]
    return {
        "bundle_sentence": bundle_sentence(manifest, found["champion"]),
        "bundle_table": bundle_rows(manifest),
        "bundle_wheels": bundle_wheels(manifest),
        "verification_sentence": verification_sentence(manifest, found["planned verification"]),
    }
