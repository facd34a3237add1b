"""Test rows that leak are found in the right file, and figures with and without them carry intervals that hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare_leaking_rows import LEAST_OF_CLASS, compare, compare_leaking_rows, leaking_rows

from pcam.files import InputError, read_json, write_csv, write_json
from pcam.metrics import roc_auc, roc_auc_error, roc_auc_interval
from pcam.predictions import Predictions

LEAKS = [
    ("test", 3, "overlap", "train;test"),
    ("test", 3, "exact_duplicate", "test"),  # within test: no leak
    ("test", 5, "cross_split_duplicate", "valid"),
    ("test", 6, "overlap", "test"),
    ("valid", 3, "overlap", "valid"),
    ("valid", 4, "overlap", "train"),
    ("valid", 5, "overlap", "test"),
]
DRAWS = 300


def write_leaks(path: Path) -> str:
    write_csv(path, ("split", "row", "kind", "partner_splits"), LEAKS)
    return str(path)


def drawn(n: int, seed: int, lift: np.ndarray | float = 0.0) -> Predictions:
    """Predictions of n patches, every second one positive; `lift` raises the score of positives."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    logits = rng.normal(labels * (1.0 + np.asarray(lift)), 1.0)
    return Predictions(np.arange(n), labels, 1 / (1 + np.exp(-logits)))


def test_only_partners_in_files_that_train_or_validate_leak(tmp_path: Path) -> None:
    path = write_leaks(tmp_path / "leaks.csv")
    assert leaking_rows(path, "test") == {3: {"overlap"}, 5: {"cross_split_duplicate"}}
    # A test split carved from valid keeps groups whole, so a partner within valid is on its own side.
    assert leaking_rows(path, "valid") == {4: {"overlap"}}


def test_one_seed_gives_delong_s_own_interval() -> None:
    run = drawn(80, 1)
    told = compare([run], np.arange(80) < 30)
    assert told["all"]["roc_auc"] == roc_auc(run.labels, run.probabilities)
    assert told["all"]["interval"] == pytest.approx(list(roc_auc_interval(run.labels, run.probabilities)))
    assert told["leaking"]["n"] + told["without"]["n"] == 80


def test_equal_seeds_say_no_more_than_one() -> None:
    run = drawn(80, 1)
    once, twice = (compare(runs, np.arange(80) < 30) for runs in ([run], [run, run]))
    assert twice["without"]["interval"] == pytest.approx(once["without"]["interval"])
    assert twice["difference"]["interval"] == pytest.approx(once["difference"]["interval"])


def test_the_difference_s_interval_covers_the_truth() -> None:
    """Leaking rows that are as hard as the others change nothing: about 95 of 100 intervals hold 0."""
    leaking = np.arange(200) < 60
    told = [compare([drawn(200, seed)], leaking)["difference"]["interval"] for seed in range(DRAWS)]
    assert np.mean([low <= 0 <= high for low, high in told]) == pytest.approx(0.95, abs=0.04)


def test_easy_leaks_lower_the_figure_when_they_go() -> None:
    leaking = np.arange(400) < 160
    told = compare([drawn(400, seed, np.where(leaking, 3.0, 0.0)) for seed in range(2)], leaking)
    assert told["difference"]["interval"][1] < 0
    assert told["leaking"]["roc_auc"] > told["without"]["roc_auc"]


@pytest.mark.parametrize(
    ("labels", "leaking", "part", "reason"),
    [
        ([0, 1] * 20, [False] * 40, "leaking", "no patch"),
        ([0] * 20 + [1] * 20, [True] * 20 + [False] * 20, "without", "one class only"),
        ([0, 1] * 20, [True] * 30 + [False] * 10, "without", f"fewer than {LEAST_OF_CLASS} patches of a class"),
    ],
)
def test_a_part_without_a_figure_says_why(labels: list, leaking: list, part: str, reason: str) -> None:
    run = Predictions(np.arange(40), np.array(labels), np.linspace(0, 1, 40))
    told = compare([run], np.array(leaking))
    assert (told[part]["roc_auc"], told[part]["interval"], told[part]["reason"]) == (None, None, reason)
    expected = "no row leaks" if part == "leaking" else reason
    assert told["difference"] == {"value": None, "interval": None, "reason": expected}


def write_predictions(path: Path, run: Predictions, first: int = 0) -> str:
    rows = zip(run.rows + first, run.labels, np.zeros(len(run.rows)), run.probabilities, strict=True)
    write_csv(path, ("row", "label", "logit", "probability"), rows)
    return str(path)


def run_rule(folder: Path, paths: list[str], file: str = "test") -> dict[str, Any]:
    write_json(folder / "splits.json", {"test": {"file": file}})
    compare_leaking_rows(
        paths, write_leaks(folder / "leaks.csv"), str(folder / "splits.json"), str(folder / "out.json"),
        variants=["baseline", "mlp"], seeds=[0, 1], provenance={},
    )  # fmt: skip
    return read_json(str(folder / "out.json"))


def test_the_file_counts_rows_of_the_file_that_test_comes_from(tmp_path: Path) -> None:
    runs = [drawn(60, seed) for seed in range(4)]
    paths = [write_predictions(tmp_path / f"{i}.csv", run) for i, run in enumerate(runs)]
    told = run_rule(tmp_path, paths)
    assert (told["n"], told["n_leaking"], told["by_kind"]) == (60, 2, {"cross_split_duplicate": 1, "overlap": 1})
    assert list(told["variants"]) == ["baseline", "mlp"]
    seeds = [roc_auc(run.labels, run.probabilities) for run in runs[2:]]
    assert told["variants"]["mlp"]["all"]["roc_auc"] == pytest.approx(np.mean(seeds))
    carved = run_rule(tmp_path, paths, "valid")
    assert (carved["n_leaking"], carved["partners_in"]) == (1, ["train"])


def test_predictions_of_other_rows_are_refused(tmp_path: Path) -> None:
    paths = [write_predictions(tmp_path / f"{i}.csv", drawn(60, i), first=i // 3) for i in range(4)]
    with pytest.raises(InputError, match=r"3\.csv: its rows are not those of"):
        run_rule(tmp_path, paths)


def test_the_error_is_the_sum_of_what_patches_add() -> None:
    run = drawn(50, 3)
    inside = np.arange(50) < 40
    told = compare([run], ~inside)["without"]
    own = roc_auc_interval(run.labels[inside], run.probabilities[inside])
    assert told["interval"] == pytest.approx(list(own))
    assert roc_auc_error(run.labels[inside], run.probabilities[inside]) > 0
