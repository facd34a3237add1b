"""Score the audit: plant defects of every kind at several rates into clean patches, run the real audit, count.

Reads:  x and y of the three file splits; the table of patches, which says what is clean; with the embedded sample also
        planted.csv, the truth about the sample itself, which no audit sees.
Writes: score.json. `kinds`: the audit of the sample against planted.csv, empty for other data. `planted`: a line for
        each kind, variant, level and rate with recall, precision and Wilson intervals. `limits`: detection limits.
        `before`: how many patches the audit flags in the data as they are. `method`: what was planted into what.
"""

import itertools
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from pcam.facts import FILE_SPLITS, pcam_filename
from pcam.files import write_json
from pcam.hdf5 import read_labels, write_labels, write_patches
from pcam.leakage import PIXEL_KINDS, find_leakage
from pcam.planting import VISIBLE, plant, read_clean
from pcam.poison import POISON_KINDS, find_poison
from pcam.scoring import REACHED, Alarms, Tallies, flagged, limits, records, score_sample, tally
from pcam.stage import run_stage, say
from pcam.survey import survey_splits

# Kinds of which the sample holds none but the planted ones. Overlaps come with how its patches are cut.
SCORED = (*POISON_KINDS, *(kind for kind in PIXEL_KINDS if kind != "overlap"))
# A doubt about a label, or about a slide, says nothing against the pixels. And nearly every patch of PCam shares tissue
# with some other, so a planted overlap counts as found by its own pair, and any other is judged by its pixels.
CLEAN = ("", "label_suspect", "overlap", "slide_overlap", "coordinate_overlap")

Audit = Callable[[Mapping[str, str], Mapping[str, str], Path], Alarms]


def alarms_of_audit(x_files: Mapping[str, str], y_files: Mapping[str, str], folder: Path, *, processes: int) -> Alarms:
    """The audit as it runs on any data: survey, leakage, poison."""
    survey = survey_splits(x_files, folder / "survey", processes=processes)
    known = (read_labels(y_files[split]) for split in FILE_SPLITS)
    sizes = zip(known, survey.sizes, strict=True)
    labels = np.concatenate([np.full(n, -1, np.int8) if y is None else y.astype(np.int8) for y, n in sizes])
    leakage = find_leakage(survey, labels, x_files, processes=processes)
    poison = find_poison(survey, labels, leakage.group, x_files, processes=processes)
    name = [(FILE_SPLITS[split], row) for split, row in zip(survey.split.tolist(), survey.row.tolist(), strict=True)]
    flags = {
        kind: {name[i] for i in np.flatnonzero(mask).tolist()} for kind, mask in (poison.flags | leakage.flags).items()
    }
    copies = defaultdict(list)  # an overlap is told once for all patches of the same pixels
    for i, first in enumerate(leakage.content.tolist()):
        copies[first].append(name[i])
    overlaps = [
        (one, other, dy, dx)
        for a, b, dy, dx in leakage.overlaps.tolist()
        for one, other in itertools.product(copies[a], copies[b])
    ]
    return Alarms(flags, overlaps)


def score_audit(
    x_files: Mapping[str, str],
    y_files: Mapping[str, str],
    patches_path: str,
    planted_path: str | None,
    score_path: str,
    *,
    patches: int,
    rates: tuple[float, ...],
    repeats: int,
    seed: int,
    canvas: bool,
    scratch: str,
    audit: Audit,
    provenance: Mapping[str, object],
) -> None:
    """Plant, audit and count, `repeats` times at each rate; planted files stand below `scratch` while they are needed.

    patches: most clean patches used of each split.  canvas: also plant overlaps cut from drawn slides.
    """
    before = flagged(patches_path)
    clean = set().union(*(before.get(kind, set()) for kind in CLEAN))
    clean -= set().union(*(rows for kind, rows in before.items() if kind not in CLEAN))
    x, y = read_clean(x_files, y_files, clean, patches, seed)
    counts: Tallies = defaultdict(Counter)
    asked: Counter[str] = Counter()
    units: Counter[str] = Counter()
    for repeat in range(repeats):
        for number, rate in enumerate(rates):
            planted = plant(np.random.default_rng([seed, repeat, number]), x, y, rate=rate, canvas=canvas)
            Path(scratch).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".score-", dir=scratch) as folder:
                there = {
                    part: {s: f"{folder}/{pcam_filename(s, part)}" for s in FILE_SPLITS} for part in ("x.h5", "y.h5")
                }
                for split in FILE_SPLITS:
                    write_patches(there["x.h5"][split], planted.x[split])
                    write_labels(there["y.h5"][split], y[split], len(x[split]))
                alarms = audit(there["x.h5"], there["y.h5"], Path(folder))
            tally(planted, alarms, y, rate, counts)
            asked.update(planted.asked)
            units.update(unit.kind for unit in planted.units)
            say(f"planting {repeat + 1} of {repeats} at rate {rate:g}: {len(planted.units)} defects, audited")
    lines = records(counts)
    document = {
        "kinds": score_sample(planted_path, before, SCORED) if planted_path else {},
        "planted": lines,
        "limits": limits(lines),
        "before": {kind: len(rows) for kind, rows in sorted(before.items()) if kind},
        "method": {
            "patches": {split: len(x[split]) for split in FILE_SPLITS},
            "clean": len(clean),
            "rates": list(rates),
            "repeats": repeats,
            "seed": seed,
            "visible": VISIBLE,
            "limit_recall": REACHED,
            "units_asked": dict(asked),
            "units_planted": dict(units),
        },
        "provenance": provenance,
    }
    write_json(score_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        score_audit(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_y"] for split in FILE_SPLITS},
            snakemake.input.patches,
            snakemake.input.get("planted"),
            snakemake.output.score,
            patches=snakemake.params.patches,
            rates=tuple(snakemake.params.rates),
            repeats=snakemake.params.repeats,
            seed=snakemake.params.seed,
            canvas=snakemake.params.canvas,
            scratch=snakemake.params.scratch,
            audit=partial(alarms_of_audit, processes=snakemake.threads),
            provenance=provenance,
        )
