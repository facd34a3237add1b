"""Folds against seeds: what is planted in either comes out, and folds that leak flatter."""

from pathlib import Path

import numpy as np
import pytest
from compare_folds import compare_folds, decompose

from pcam.features import FEATURES
from pcam.files import InputError, read_json, write_csv
from pcam.settings import FoldSettings

SETTINGS = FoldSettings(folds=4, seeds=3, partitions=3)


def compared(folder: Path, units: np.ndarray, labels: np.ndarray, features: np.ndarray, column: str = "group") -> dict:
    folder.mkdir(exist_ok=True)
    lines = [(i, int(labels[i]), *((u, "") if column == "slide" else ("", u))) for i, u in enumerate(units.tolist())]
    write_csv(folder / "train.csv", ("row", "label", "slide", "group"), lines)
    np.save(folder / "features.npy", features.astype(np.float32))
    paths = (str(folder / name) for name in ("train.csv", "features.npy", "folds.json"))
    compare_folds(*paths, settings=SETTINGS, provenance={"rule": "test"})
    return read_json(folder / "folds.json")


def leaking(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of four near-copies with one label that the picture hardly tells: knowing a copy is knowing the label."""
    rng = np.random.default_rng(seed)
    units, labels = np.repeat(np.arange(100), 4), np.repeat(rng.integers(0, 2, 100), 4)
    features = rng.normal(size=(100, FEATURES))[units] + rng.normal(scale=0.2, size=(400, FEATURES))
    features[:, :5] += 0.3 * (2 * labels[:, None] - 1)
    return units, labels, features


@pytest.mark.parametrize("column", ["group", "slide"])
def test_random_folds_through_leaking_groups_flatter(tmp_path: Path, column: str) -> None:
    document = compared(tmp_path, *leaking(0), column)
    optimism = document["optimism_of_random_folds"]
    assert optimism["mean"] > 0.1 and optimism["interval"][0] > 0.05 and len(optimism["values"]) == 3
    assert document["schemes"]["grouped"]["units"] == 100 and document["schemes"]["random"]["units"] == 400
    assert ("no slide" in document["grouped_by"]) == (column == "group")


def test_without_groups_there_is_no_optimism(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    features = rng.normal(size=(400, FEATURES)) + 0.3 * labels[:, None]
    document = compared(tmp_path, np.full(400, ""), labels, features)
    assert document["optimism_of_random_folds"]["values"] == [0.0, 0.0, 0.0]


def test_every_fit_is_told_and_no_group_is_split(tmp_path: Path) -> None:
    document = compared(tmp_path, *leaking(2))
    for scheme in document["schemes"].values():
        # Three seeds on the folds of the first partition, one on those of the two others.
        assert len(scheme["fits"]) == 4 * 3 + 2 * 4 and scheme["reason"] is None
        first = [fit for fit in scheme["fits"] if fit["partition"] == 0 and fit["seed"] == 0]
        assert sum(fit["n"] for fit in first) == document["n"] == 400
        assert len({fit["roc_auc"] for fit in scheme["fits"] if fit["partition"] == fit["fold"] == 0}) > 1
    assert all(fit["n"] % 4 == 0 for fit in document["schemes"]["grouped"]["fits"])
    assert "bootstrap" in document["seed_varies"]


def test_variances_of_folds_and_seeds_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    errors = np.full((200, 50), 0.02)
    between = 0.8 + rng.normal(scale=0.03, size=(200, 1))
    found = decompose(between + rng.normal(scale=0.01, size=(200, 50)), errors)
    assert found["between_seeds"]["sd"] == pytest.approx(0.01, rel=0.05)
    assert found["between_folds_without_seeds_sd"] == pytest.approx(0.03, rel=0.15)
    low, high = found["between_folds"]["interval"]
    assert low < 0.03 < high and found["between_folds"]["degrees_of_freedom"] == 199
    assert found["expected_from_patches_sd"] == pytest.approx(0.02)
    # Folds that do not differ: their means still do, by the seeds, and that is taken off.
    still = decompose(0.8 + rng.normal(scale=0.01, size=(200, 50)), errors)
    assert still["between_folds_without_seeds_sd"] < 0.002


def test_too_few_groups_are_a_reason_and_no_failure(tmp_path: Path) -> None:
    _, labels, features = leaking(4)
    document = compared(tmp_path, np.zeros(400, np.int64), labels, features)
    assert "too few units" in document["schemes"]["grouped"]["reason"]
    assert document["schemes"]["grouped"]["spread"] is None and document["schemes"]["random"]["spread"] is not None
    assert document["optimism_of_random_folds"] is None


def test_folds_of_one_class_each_are_a_reason_and_no_failure(tmp_path: Path) -> None:
    _, _, features = leaking(5)
    units = np.repeat(np.arange(4), 100)
    document = compared(tmp_path, units, units % 2, features)
    assert document["schemes"]["grouped"]["reason"] == "fewer than two folds hold both classes"
    assert document["schemes"]["random"]["reason"] is None and document["optimism_of_random_folds"] is None


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        compared(tmp_path / name, *leaking(6))
    assert (tmp_path / "one" / "folds.json").read_bytes() == (tmp_path / "two" / "folds.json").read_bytes()


def test_mistakes_are_named_in_one_line(tmp_path: Path) -> None:
    units, labels, features = leaking(7)
    with pytest.raises(InputError, match=r"features.npy: 399 patches, but .*train.csv has row 399; rebuild it"):
        compared(tmp_path, units, labels, features[:-1])
    with pytest.raises(InputError, match=r"train.csv: one class only; folds need both"):
        compared(tmp_path, units, np.zeros(400, np.int64), features)
