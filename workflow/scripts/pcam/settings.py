"""The config as frozen dataclasses. No field has a default: config/config.yaml holds every value, once.

`read_config` checks the config against workflow/schemas/config.schema.yaml and names the first mistake in one line.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import jsonschema
import yaml

from pcam.files import InputError, document_digest, read_json

SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "config.schema.yaml"


@dataclass(frozen=True)
class SampleSettings:
    seed: int
    train_patches: int
    valid_patches: int
    test_patches: int
    train_slides: int
    valid_slides: int
    test_slides: int
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
    epochs: int
    space: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ThresholdSettings:
    beta: float


@dataclass(frozen=True)
class SliceSettings:
    brightness_bins: int
    minimum_n: int


@dataclass(frozen=True)
class BenchmarkSettings:
    partitions: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    repeats: int
    images: int


@dataclass(frozen=True)
class TrackingSettings:
    experiment: str


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
    seeds: tuple[int, ...]
    variants: dict[str, dict[str, Any]]
    train: TrainSettings
    reproducibility: ReproducibilitySettings
    search: SearchSettings
    threshold: ThresholdSettings
    slices: SliceSettings
    benchmark: BenchmarkSettings
    tracking: TrackingSettings
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


def _mistake(error: jsonschema.ValidationError) -> str:
    """One line for one schema error: where, what value, what is allowed."""
    where = ".".join(str(part) for part in error.absolute_path) or "the config"
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(allowed))[0]
        return f"{where}: unknown key {unknown!r}; known are {', '.join(allowed)}"
    if error.validator == "required":
        return f"{where}: key {next(k for k in error.validator_value if k not in error.instance)!r} is missing"
    hint = error.schema.get("description", "")
    return f"{where}: {error.message}" + (f" ({hint})" if hint else "")


def _non_finite(value: Any, where: str = "") -> str | None:
    """Path of the first NaN or infinity: comparing with a bound does not catch them."""
    if isinstance(value, float) and not math.isfinite(value):
        return where
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = (_non_finite(child, f"{where}.{key}".lstrip(".")) for key, child in items)
    return next((path for path in found if path), None)


def _check(instance: Any, schema: Mapping[str, Any]) -> None:
    """Raises: InputError with the first mistake in one line."""
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(instance), key=lambda e: list(map(str, e.path)))
    if errors:
        raise InputError(" ".join(f"config: {_mistake(errors[0])}".split()))


def read_config(config: Mapping[str, Any]) -> Settings:
    """The merged config, checked.

    Raises: InputError, one line with key, value and what is allowed.
    """
    schema = yaml.safe_load(SCHEMA.read_text())
    _check(dict(config), schema)
    if path := _non_finite(dict(config)):
        raise InputError(f"config: {path}: nan and inf are no settings; give a finite number")
    settings = from_mapping(Settings, config)
    if settings.data.source == "directory" and settings.data.directory is None:
        raise InputError("config: data.directory is null; data.source directory needs the folder with the PCam files")
    if settings.search.train_seed not in settings.seeds:
        raise InputError(
            f"config: search.train_seed {settings.search.train_seed} is not one of seeds {list(settings.seeds)}"
        )
    check_space(settings.search.space, schema["properties"]["train"]["properties"])
    return settings


def check_space(space: Mapping[str, Mapping[str, Any]], recipe: Mapping[str, Any]) -> None:
    """Every value a trial could get must be valid in `recipe`, the schema of a training recipe.

    Raises: InputError when a searched name is no training setting, or a bound is reversed or out of its range.
    """
    for name, parameter in space.items():
        where = f"search.space.{name}"
        if name not in recipe:
            raise InputError(f"config: {where}: no such training setting; known are {', '.join(recipe)}")
        if "low" in parameter and parameter["low"] >= parameter["high"]:
            raise InputError(f"config: {where}: low {parameter['low']} is not below high {parameter['high']}")
        if parameter.get("log") and parameter["low"] <= 0:
            raise InputError(f"config: {where}: low {parameter['low']} has no logarithm; set it above 0 or drop log")
        if parameter.get("log") and parameter.get("step", 1) != 1:
            raise InputError(f"config: {where}: log and a step of {parameter['step']} exclude each other; drop one")
        if parameter["type"] == "float" and recipe[name].get("type") == "integer":
            raise InputError(f"config: {where}: {name} takes whole numbers; use type int")
        if recipe[name].get("type") == "number" and any(isinstance(c, int) for c in parameter.get("choices", ())):
            raise InputError(
                f"config: {where}: choices {parameter['choices']}: write {name} with a decimal point, as 0.0"
            )
        for value in parameter.get("choices", [parameter.get("low"), parameter.get("high")]):
            try:
                _check(value, recipe[name])
            except InputError as error:
                raise InputError(f"config: {where}: {str(error).partition('the config: ')[2]}") from None


def read_train_settings(path: str | Path) -> TrainSettings:
    """A recipe from its settings.json. Raises: InputError when it is missing or malformed."""
    return from_mapping(TrainSettings, read_json(path))


def settings_digest(settings: Any) -> str:
    """sha256 of a settings dataclass."""
    return document_digest(asdict(settings))
