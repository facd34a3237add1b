"""What a run will need: hours, from rates that were measured, and room on disk, from the number of patches."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pcam.acquisition import published_file
from pcam.facts import PATCH_BYTES, pcam_filename
from pcam.files import read_csv, read_json
from pcam.planned import Job
from pcam.settings import TUNED, Settings, TrainSettings

# Bytes a patch that the audits keep: anchors of the survey (at most 4 kB), features, embeddings, rows of tables.
AUDIT_BYTES = 6_000
# Bytes a patch that each training's predictions take, as the sample's tables do.
PREDICTED_BYTES = 64
# Bytes of a training's weights, states and tracked copies, and of report and figures: three times the sample's.
TRAINING_BYTES, DOCUMENT_BYTES = 12_000_000, 100_000_000
FLOAT_BYTES = 4
# What of an architecture its speed depends on.
SIZES = ("model", "width", "depth", "hidden")
# Names of the precisions in the config and in the benchmark's table.
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Rate:
    """Patches a second that a training goes through, the file it was measured by, and whether on the same partition."""

    patches_per_s: float
    basis: str
    there: bool


@dataclass(frozen=True)
class Need:
    """Seconds of a training, the file that its rate comes from, and whether that was measured on its partition."""

    seconds: float
    basis: str
    there: bool


@dataclass(frozen=True)
class Hours:
    """Hours of all jobs one after another, None where none has a measured rate; `unmeasured`: what has none."""

    hours: float | None
    bases: tuple[str, ...]
    unmeasured: tuple[str, ...]


def recipe_of(job: Job, settings: Settings) -> tuple[TrainSettings, int] | None:
    """Recipe and epochs of a training; of one whose recipe the search has yet to find, those of the base settings."""
    if job.rule == "train_seed":
        variant = job.wildcards["variant"]
        recipe = settings.train if variant == TUNED else settings.variant(variant)
        return recipe, recipe.epochs
    if job.rule == "train_trial":
        kind, _, number = job.wildcards["phase"].partition("-")
        rung = int(number) if kind == "rung" else 0
        return settings.train, int(settings.search.rungs[rung]["epochs"])
    return None


def named(job: Job) -> str:
    """A rule, and of a training the variant: what has a rate of its own."""
    return f"{job.rule} {job.wildcards['variant']}" if job.rule == "train_seed" else job.rule


def _rows(path: Path) -> int | None:
    """Rows of a table; None when it is not there."""
    try:
        with path.open() as handle:
            return sum(1 for _ in handle) - 1
    except OSError:
        return None


def _seconds(path: Path) -> float | None:
    """Seconds of a job by the file that Snakemake's benchmark keeps of it."""
    try:
        with path.open(newline="") as handle:
            return max(float(row["s"]) for row in csv.DictReader(handle, delimiter="\t"))
    except (OSError, ValueError, KeyError):
        return None


def trained_before(results: Path, pattern: str) -> Rate | None:
    """The slowest of the earlier trainings of `pattern`, such as train_seed/*/seed-*.

    The slowest, because one that was resumed has the seconds of its last part alone. Nothing tells on what device.
    """
    split = results / "splits" / "train.csv"
    patches = _rows(split)
    found = []
    for tsv in sorted((results / "benchmarks").glob(f"{pattern}.tsv")):
        if patches is None or tsv.stat().st_mtime < split.stat().st_mtime:
            continue  # it trained on an earlier split, of another N
        run = tsv.relative_to(results / "benchmarks").with_suffix("")
        folder = results / ("train" if run.parts[0] == "train_seed" else "search") / Path(*run.parts[1:])
        epochs, seconds = _rows(folder / "history.csv"), _seconds(tsv)
        if epochs and seconds:
            found.append(Rate(patches * epochs / seconds, str(tsv), there=False))
    return min(found, key=lambda rate: rate.patches_per_s, default=None)


def _model_benchmarked(results: Path, partition: str, recipe: TrainSettings) -> str | None:
    """Name in the benchmark of a partition of the model that has the recipe's size; None when it measured none such."""
    path = results / "benchmark" / f"partition-{partition}.json"
    measured = read_json(path).get("architectures") if path.is_file() else {}
    if not isinstance(measured, dict):  # of a benchmark by other code
        return None
    wanted = {key: getattr(recipe, key) for key in SIZES}
    return next((name for name, a in measured.items() if isinstance(a, dict) and wanted.items() <= a.items()), None)


def benchmarked(results: Path, partition: str, recipe: TrainSettings) -> Rate | None:
    """The training step by the benchmark of a partition, at the largest measured batch up to the recipe's."""
    path, precision = results / "benchmark" / "throughput.csv", PRECISIONS[recipe.precision]
    model = _model_benchmarked(results, partition, recipe)
    if model is None or not path.is_file():
        return None
    rows = [
        row
        for row in read_csv(path, ("partition", "model", "mode", "batch_size", "precision", "images_per_s"))
        if (row["partition"], row["model"], row["mode"]) == (partition, model, "loop") and row["images_per_s"]
        if row["precision"] in (precision, "fp32") and int(row["batch_size"]) <= recipe.batch_size
    ]
    if not rows:
        return None
    best = max(rows, key=lambda row: (row["precision"] == precision, int(row["batch_size"])))
    basis = f"{path}, {model}, batch size {best['batch_size']}, {best['precision']}"
    return Rate(float(best["images_per_s"]), basis, there=True)


def rate_of(job: Job, recipe: TrainSettings, results: Path) -> Rate | None:
    """A training's rate: of the partition's benchmark of a model of its size, or of its variant or trials before.

    What the search has yet to find has no size: only what ran before tells.
    """
    if job.rule == "train_trial":
        return trained_before(results, "train_trial/round-*/trial-*")
    variant = job.wildcards["variant"]
    partition = (job.partition or "") if job.queued else "local"
    there = None if variant == TUNED else benchmarked(results, partition, recipe)
    return there or trained_before(results, f"train_seed/{variant}/seed-*")


def training_seconds(job: Job, settings: Settings, patches: int | None, results: Path) -> Need | None:
    """None for jobs that do not train, and without rate or N."""
    recipe = recipe_of(job, settings)
    if recipe is None or patches is None or (rate := rate_of(job, recipe[0], results)) is None:
        return None
    return Need(recipe[1] * patches / rate.patches_per_s, rate.basis, rate.there)


def estimate_hours(jobs: Iterable[Job], settings: Settings, patches: int | None, results: Path) -> Hours:
    """`patches` are those of train. Jobs that do not train take what the slowest of their rule took before."""
    seconds, bases, unmeasured = 0.0, dict[str, None](), dict[str, None]()
    measured, folder = 0, results / "benchmarks"
    before: dict[str, float | None] = {}
    for job in jobs:
        if recipe_of(job, settings) is not None:
            told = training_seconds(job, settings, patches, results)
        else:
            if job.rule not in before:
                # Of a pass in shards, those of as many; a shard of another number takes another time.
                of = f"*-of-{settings.shards}" if job.rule.endswith("_shard") else "*"
                files = [f for glob in (f"{job.rule}.tsv", f"{job.rule}/**/{of}.tsv") for f in folder.glob(glob)]
                before[job.rule] = max((time for file in files if (time := _seconds(file))), default=None)
            spent = before[job.rule]
            told = None if spent is None else Need(spent, f"{folder} for the other jobs", there=False)
        if told is None:
            unmeasured[named(job)] = None
        else:
            seconds, measured = seconds + told.seconds, measured + 1
            bases[told.basis] = None
    return Hours(seconds / 3600 if measured else None, tuple(bases), tuple(unmeasured))


@dataclass(frozen=True)
class Room:
    """Bytes needed below a folder, and in words what they are for."""

    folder: str
    needed: int
    basis: str


def estimate_room(
    settings: Settings, patches: Mapping[str, int], unpacked: Sequence[int], jobs: Sequence[Job]
) -> list[Room]:
    """Room below data.root and below results/ for what the planned jobs make.

    patches: of each split. unpacked: bytes of each file that is unpacked.
    """
    total = sum(patches.values())
    rules = {job.rule for job in jobs}
    trainings = sum(job.rule in ("train_seed", "train_trial") for job in jobs)
    raw = sum(unpacked) if "import_directory" in rules else 0
    if "synthesize_sample" in rules:
        # The sample's train file holds floats, as the course's does.
        raw += (total + (FLOAT_BYTES - 1) * patches["train"]) * PATCH_BYTES
    for job in jobs:
        if job.rule == "download_pcam":
            file = published_file(pcam_filename(*job.wildcards["file"].split("_", 1)))
            raw += (file.size_bytes or 0) + file.unpacked_bytes
    store = total * PATCH_BYTES if "build_store" in rules else 0
    # Until shards are gathered, what they found is there twice.
    copies = 2 if "gather_survey" in rules else int("survey_patches" in rules)
    audits = copies * total * AUDIT_BYTES
    predicted = total * PREDICTED_BYTES * trainings
    return [
        Room(
            settings.data.root,
            raw + store + audits,
            f"{total:,} patches: files {raw / 1e9:.2f}, store {store / 1e9:.2f}, audits {audits / 1e9:.2f} GB",
        ),
        Room(
            "results",
            predicted + trainings * TRAINING_BYTES + DOCUMENT_BYTES,
            f"{trainings} trainings: states {trainings * TRAINING_BYTES / 1e9:.2f}, "
            f"predictions {predicted / 1e9:.2f}, documents {DOCUMENT_BYTES / 1e9:.2f} GB",
        ),
    ]
