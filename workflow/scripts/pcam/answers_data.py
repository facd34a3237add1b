"""What the documents say of questions 1 to 4: tables and sentences that follow from the evidence.

Every function takes the evidence by name (see documents.open_evidence) and gives table rows or a sentence; where the
evidence is missing it gives the Missing, which renders as such.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import yaml

from pcam.documents import Missing, interval, is_measured, number, percent, plain, words
from pcam.facts import FILE_SPLITS
from pcam.settings import SCHEMA

Found = Mapping[str, Any]
Runs = Sequence[tuple[str, int]]  # variant, seed
Rows = list[list[Any]] | Missing

SPIKE = 10  # times the run's median norm


def class_name(label: int | None) -> str:
    return {0: "no tumour", 1: "tumour", None: "all (labels unknown)"}[label]


def partition(patches: Any) -> Rows:
    """Counts per file before and after cleaning."""
    if isinstance(patches, Missing):
        return patches
    rows = []
    for split in FILE_SPLITS:
        mine = [row for row in patches if row.split == split]
        kept = [row for row in mine if row.keep == 1]
        known = any(row.label is not None for row in mine)
        positives = [sum(row.label == 1 for row in some) if known else "unknown" for some in (mine, kept)]
        rows.append([split, len(mine), positives[0], len(kept), positives[1], len(mine) - len(kept)])
    return rows


def split_table(splits: Any) -> Rows:
    if isinstance(splits, Missing):
        return splits
    rows = []
    for name in ("train", "valid", "test", "unlabelled"):
        split = splits[name]
        if name != "unlabelled" or split.n:
            positives = split.positives if name != "unlabelled" else "unknown"
            rows.append([name, split.file, split.n, positives, split.slides or "none known", split.groups])
    return rows


def prior_shift(splits: Any) -> str:
    """How the share of tumour changes between train and test, and what that means."""
    parts = [splits[name] for name in ("train", "test")]
    if not all(is_measured(part.n) and part.n for part in parts):
        return ""
    train, test = (part.positives / part.n for part in parts)
    text = f"The share of tumour is {percent(train)} in train and {percent(test)} in test"
    if abs(train - test) < 0.05:
        return f"{text}: nearly the same."
    return f"{text}: the prior shifts, so probabilities learnt on one do not hold on the other unchanged."


def finding_rows(audit: Any, with_rows: bool) -> Rows:
    """One row per finding of at least one patch."""
    if isinstance(audit.findings, Missing):
        return audit.findings
    rows = []
    for found in audit.findings:
        if found.n:
            row = [words(found.kind), found.split, class_name(found["class"]), found.n, found.of]
            row += [percent(found.rate, 2), f"{percent(found.interval[0], 2)} to {percent(found.interval[1], 2)}"]
            rows.append([*row, ", ".join(map(str, found.rows[:8]))] if with_rows else row)
    return rows


def kinds_by_count(audit: Any) -> dict[str, int] | Missing:
    if isinstance(audit.findings, Missing):
        return audit.findings
    counts: dict[str, int] = {}
    for found in audit.findings:
        counts[found.kind] = counts.get(found.kind, 0) + found.n
    return counts


def audit_sentence(audit: Any, what: str) -> Any:
    counts = kinds_by_count(audit)
    if isinstance(counts, Missing):
        return counts
    present = [f"{words(kind)} {n:,}" for kind, n in counts.items() if n]
    absent = [words(kind) for kind, n in counts.items() if not n]
    text = f"Of {len(counts)} kinds of {what} looked for, {len(present)} were found"
    text += f" ({', '.join(present)} patches)." if present else "."
    return text + (f" Looked for and not found: {', '.join(absent)}." if absent else "")


def verdict_rows(verdicts: Any) -> Rows:
    if isinstance(verdicts, Missing):
        return verdicts
    return [[words(kind), verdicts[kind].verdict, verdicts[kind].reason] for kind in verdicts]


def kinds_judged(verdicts: Any, verdict: str) -> list[str]:
    return [words(kind) for kind in verdicts if verdicts[kind].verdict == verdict]


def score_rows(audit_score: Any) -> Rows:
    kinds = audit_score.kinds
    if isinstance(kinds, Missing):
        return kinds
    rows = []
    for kind in kinds:
        k = kinds[kind]
        row = [words(kind), k.planted, k.found, number(k.recall), interval(k.recall_interval)]
        rows.append([*row, number(k.precision), interval(k.precision_interval)])
    return rows


def storage_rows(storage: Any) -> Rows:
    if isinstance(storage.files, Missing):
        return storage.files
    return [
        [f.file, f.dtype, f.layout, " × ".join(map(str, f.chunks or ["none"])), f.compression or "none",
         f.bytes_on_disk, f.bytes_as_uint8, number(f.factor, 2), f.cause]
        for f in storage.files
    ]  # fmt: skip


def config_rows(config: Mapping[str, Any]) -> list[list[Any]]:
    """Every key of the config with its value and the schema's description."""
    rows: list[list[Any]] = []

    def walk(values: Mapping[str, Any], schema: Mapping[str, Any], at: str, inherited: str) -> None:
        order = list(schema.get("properties", values))
        for key, value in sorted(values.items(), key=lambda item: order.index(item[0])):
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
            below = below if isinstance(below, dict) else {}
            text = below.get("description", inherited)
            if isinstance(value, dict) and value:
                walk(value, below, f"{at}{key}.", text)
            else:
                rows.append([f"{at}{key}", plain(value), text])

    # Names and ids stand on the first page, once.
    walk({key: value for key, value in config.items() if key != "journal"}, yaml.safe_load(SCHEMA.read_text()), "", "")
    return rows


def risks(environment: Any, config: Mapping[str, Any]) -> list[Any]:
    """The risks that the configuration leaves, each checked."""
    if isinstance(environment, Missing):
        return [environment]
    commit, dirty = environment.git.commit, environment.git.dirty
    tree = "Working tree: clean."
    if commit is None:
        tree = "Working tree: no commit exists, so nothing names the code but its digests."
    elif dirty:
        tree = "Working tree: tracked files differ from the commit, which alone does not rebuild this run."
    unpinned, differing = environment.unpinned, environment.differing
    packages = f"Packages: {len(environment.packages)} direct ones, {len(unpinned)} without an exact pin"
    packages += f" ({', '.join(unpinned)})" if unpinned else ""
    packages += f"; {len(differing)} installed in another version than pinned" + (
        f" ({', '.join(differing)})." if differing else "."
    )
    places = [
        f"data.{key}" for key in ("root", "directory") if str(config["data"][key] or "").startswith(("/", "..", "~"))
    ]
    paths = (
        f"Paths that lead out of the repository: {', '.join(places)}; another machine needs its own."
        if places
        else "Paths: none in the config leads out of the repository."
    )
    variables = [name for name in environment.variables if environment.variables[name] is not None]
    return [
        tree,
        packages,
        paths,
        f"Environment variables that change speed or bits and were set: {', '.join(variables) or 'none'}.",
    ]


def gradient_rows(found: Found, runs: Runs) -> Rows:
    rows: list[list[Any]] = []
    for variant, seed in runs:
        steps = found[f"steps {variant} {seed}"]
        if isinstance(steps, Missing):
            return steps
        norms = [row.grad_norm for row in steps]
        top, middle = max(norms), median(norms)
        at = steps[norms.index(top)]
        rows.append(
            [
                variant,
                seed,
                len(norms),
                number(middle),
                number(top),
                number(top / middle, 1),
                int(at.step),
                int(at.epoch),
            ]
        )
    return rows


def spikes(found: Found, runs: Runs) -> int | Missing:
    rows = gradient_rows(found, runs)
    return rows if isinstance(rows, Missing) else sum(float(row[5]) > SPIKE for row in rows)


def pair_rows(leakage: Any) -> Rows:
    """Pairs of patches by where their two members stand."""
    pairs = leakage.pairs
    if isinstance(pairs, Missing):
        return pairs
    told = {
        kind: [f"{where.replace('-', ' and ')}: {pairs[kind][where]:,}" for where in pairs[kind] if pairs[kind][where]]
        for kind in pairs
    }
    return [[words(kind), "; ".join(parts) or "none"] for kind, parts in told.items()]


def seed_spread(seeds: Any) -> tuple[bool, float | None]:
    """Whether there are several seeds, and the mean standard error of the baseline's test ROC-AUC."""
    errors = seeds.baseline.test.roc_auc.standard_errors
    known = [error for error in errors if error is not None] if is_measured(errors) else []
    return is_measured(seeds.seeds) and len(seeds.seeds) > 1, fmean(known) if known else None


def data_answers(found: Found, config: Mapping[str, Any], runs: Runs) -> dict[str, Any]:
    """All that the journal's template needs for questions 1 to 4."""
    splits, storage, verdicts = found["splits"], found["storage"], found["verdicts"]
    files = [] if isinstance(storage.files, Missing) else storage.files
    variants = list(dict.fromkeys(variant for variant, _ in runs))
    several, error = seed_spread(found["seeds"])
    constant = [v for v in variants if {**config["train"], **config["variants"][v]}["schedule"] == "constant"]
    absent = kinds_by_count(found["poison"])
    return {
        "partition": partition(found["patches"]),
        "split_table": split_table(splits),
        "unknown_slides": any(splits[name].slides == 0 for name in FILE_SPLITS),
        "prior_shift": prior_shift(splits),
        "leakage_sentence": audit_sentence(found["leakage"], "leakage"),
        "leakage_table": finding_rows(found["leakage"], with_rows=False),
        "leakage_pairs": pair_rows(found["leakage"]),
        "many_seeds": several,
        "mean_error": error,
        "widest": max(files, key=lambda file: file.bytes_on_disk, default=None),
        "saved": sum(max(0, file.bytes_on_disk - file.bytes_as_uint8) for file in files if file.dtype != "uint8"),
        "storage_table": storage_rows(storage),
        "poison_sentence": audit_sentence(found["poison"], "poison"),
        "poison_table": finding_rows(found["poison"], with_rows=True),
        "not_found": ", ".join(words(kind) for kind, n in absent.items() if not n) if isinstance(absent, dict) else "",
        "verdict_table": verdict_rows(verdicts),
        "waived": ", ".join(kinds_judged(verdicts, "waived")),
        "score_table": score_rows(found["score"]) if "score" in found else [],
        "config_table": config_rows(config),
        "risks": risks(found["environment"], config),
        "variants": variants,
        "gradients": gradient_rows(found, runs),
        "spikes": spikes(found, runs),
        "constant_variant": constant[0] if constant and "baseline" not in constant else None,
    }
