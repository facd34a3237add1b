"""The config as frozen dataclasses. No field has a default: config/config.yaml holds every value, once.

`read_config` checks the config against workflow/schemas/config.schema.yaml and names the first mistake in one line.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pcam.files import InputError, document_digest, read_json
from pcam.schema import check_ranges, check_schema, check_values, config_schema
from pcam.search_space import check_rungs, check_space, read_space

TUNED = "tuned"  # the variant whose recipe comes out of the search


@dataclass(frozen=True)
class SampleSettings:
    seed: int
    train_patches: int
    valid_patches: int
    test_patches: int
    train_slides: int
    valid_slides: int
    test_slides: int
    faded_slides: int
    train_positive_rate: float
    non_finite_rate: float
    out_of_range_rate: float
    blackout_rate: float
    washout_rate: float
    duplicate_pairs: int
    cross_split_pairs: int


@dataclass(frozen=True)
class DataSettings:
    source: str
    directory: str | None
    root: str
    url: str
    test_fraction: float
    split_seed: int
    sample: SampleSettings

    @property
    def label(self) -> str:
        """What every figure, document and checkpoint says of its data."""
        return {"sample": "SYNTHETIC SAMPLE", "directory": "PCam files at hand", "pcam": "PatchCamelyon"}[self.source]


@dataclass(frozen=True)
class ScoreSettings:
    patches: int
    rates: tuple[float, ...]
    repeats: int
    seed: int


@dataclass(frozen=True)
class LabelSettings:
    folds: int
    level: float
    least_rate: float
    rates: tuple[float, ...]
    plantings: int
    seed: int


@dataclass(frozen=True)
class ShiftSettings:
    patches: int
    folds: int
    permutations: int
    level: float
    seed: int


@dataclass(frozen=True)
class FoldSettings:
    folds: int
    seeds: int
    partitions: int


@dataclass(frozen=True)
class AuditSettings:
    rows_listed: int
    reference: str | None
    policy: dict[str, str]
    waive: dict[str, str]
    score: ScoreSettings
    labels: LabelSettings
    shift: ShiftSettings


@dataclass(frozen=True)
class TrainSettings:
    """One training recipe: what `results/**/settings.json` holds."""

    model: str
    width: int
    depth: int
    hidden: int
    dropout: float
    augment: bool
    tta: bool
    ema: float
    label_smoothing: float
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    weight_decay: float
    precision: str
    compile: bool
    workers: int
    threads: int


@dataclass(frozen=True)
class ReproducibilitySettings:
    fingerprint: str | None
    patches: int
    epochs: int


@dataclass(frozen=True)
class SearchSettings:
    rounds: int
    trials: int
    seed: int
    train_seed: int
    metric: str
    rungs: tuple[dict[str, int], ...]
    space: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ThresholdSettings:
    rule: str
    beta: float
    sensitivity: float
    missed_cost: float


@dataclass(frozen=True)
class EvaluationSettings:
    level: float
    resamples: int
    least_groups: int
    ece_bins: int
    seed: int
    coverage_draws: int


@dataclass(frozen=True)
class DeploymentSettings:
    patches: int
    false_alarm_rate: float


@dataclass(frozen=True)
class SliceSettings:
    quantiles: int
    ranges: dict[str, dict[str, Any]]
    minimum_n: int
    level: float


@dataclass(frozen=True)
class DiscoverySettings:
    candidates: int
    minimum_n: int
    clusters: int
    level: float
    seed: int


@dataclass(frozen=True)
class BenchmarkSettings:
    partitions: tuple[str, ...]
    models: dict[str, dict[str, Any]]
    precisions: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    repeats: int
    images: int
    seconds: float


@dataclass(frozen=True)
class TrackingSettings:
    experiment: str
    uri: str | None
    timeout_s: float


@dataclass(frozen=True)
class HandoverSettings:
    torch: bool
    wheels: str | None


@dataclass(frozen=True)
class JournalSettings:
    group_number: str | None
    members: tuple[str, ...]
    repository: str | None
    base_setup: str | None


@dataclass(frozen=True)
class Settings:
    data: DataSettings
    audit: AuditSettings
    folds: FoldSettings
    shards: int
    seeds: tuple[int, ...]
    variants: dict[str, dict[str, Any]]
    train: TrainSettings
    reproducibility: ReproducibilitySettings
    search: SearchSettings
    threshold: ThresholdSettings
    evaluation: EvaluationSettings
    deployment: DeploymentSettings
    slices: SliceSettings
    discovery: DiscoverySettings
    benchmark: BenchmarkSettings
    tracking: TrackingSettings
    run: str | None
    handover: HandoverSettings
    journal: JournalSettings

    def variant(self, name: str) -> TrainSettings:
        """The base recipe with what the variant changes."""
        return from_mapping(TrainSettings, {**asdict(self.train), **self.variants[name]})


T = TypeVar("T")


def from_mapping(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build a settings dataclass, nested ones too.

    Raises: InputError on an unknown or missing key.
    """
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise InputError(f"settings: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    if missing := sorted(known - set(values)):
        raise InputError(f"settings: key {missing[0]!r} is missing")
    built: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints[name]
        if is_dataclass(hint):
            value = from_mapping(hint, value)  # type: ignore[arg-type]
        elif isinstance(value, list):
            value = tuple(value)
        elif hint is float and isinstance(value, int):
            value = float(value)
        built[name] = value
    return kind(**built)


def read_config(config: Mapping[str, Any]) -> Settings:
    """The merged config, checked.

    Raises: InputError, one line with key, value and what is allowed.
    """
    schema = config_schema()
    check_values(config)
    check_schema(dict(config), schema)
    search = {**config["search"], "space": read_space(config["search"]["space"])}
    settings = from_mapping(Settings, {**config, "search": search})
    if settings.data.source == "directory" and settings.data.directory is None:
        raise InputError("config: data.directory is null; data.source directory needs the folder with the PCam files")
    if settings.search.train_seed not in settings.seeds:
        raise InputError(
            f"config: search.train_seed {settings.search.train_seed} is not one of seeds {list(settings.seeds)}"
        )
    if TUNED in settings.variants:
        raise InputError(f"config: variants.{TUNED}: the search's own recipe has this name; choose another")
    check_ranges(settings.slices.ranges)
    check_rungs(settings.search.rungs, settings.search.rounds * settings.search.trials)
    check_space(settings.search.space, schema["properties"]["train"]["properties"])
    return settings


def read_train_settings(path: str | Path) -> TrainSettings:
    """A recipe from its settings.json. Raises: InputError when it is missing or malformed."""
    return from_mapping(TrainSettings, read_json(path))


def settings_digest(settings: Any) -> str:
    """sha256 of a settings dataclass."""
    return document_digest(asdict(settings))
