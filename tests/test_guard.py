"""The guard stays silent on sound patches at the stated rate and speaks up on every planted shift."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from scipy import stats
from watch_drift import watch_drift

from pcam.checkpoint import save_checkpoint
from pcam.damage import Damage, blurred, channels, jpeg, scaled
from pcam.deployment import stain_scaled
from pcam.drift import fit, units_of
from pcam.files import InputError, read_json, write_csv, write_json
from pcam.guard import ARRAYS, PROPERTIES, STATISTICS, Guard, measure_patches, read_guard, watched_values
from pcam.hdf5 import PatchReader
from pcam.intervals import Groups
from pcam.model import Architecture, build_model
from pcam.settings import SampleSettings, from_mapping
from pcam.sidecar import read_sidecar
from pcam.synthetic import synthesize

REAL = Path(os.environ.get("PCAM_SAMPLE", ROOT.parent / "shared" / "data" / "pcam-sample"))
SAMPLE = {
    **yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["data"]["sample"],
    **{"train_patches": 40, "train_slides": 4, "duplicate_pairs": 0, "cross_split_pairs": 0},
    **{f"{kind}_rate": 0.0 for kind in ("non_finite", "out_of_range", "blackout", "washout")},
}
STRONG: dict[str, Damage] = {
    "haematoxylin halved": stain_scaled("haematoxylin", 0.5),
    "haematoxylin and half": stain_scaled("haematoxylin", 1.5),
    "eosin halved": stain_scaled("eosin", 0.5),
    "eosin and half": stain_scaled("eosin", 1.5),
    "darker": scaled(0.5),
    "brighter": scaled(1.5),
    "blurred": blurred(2.0),
    "jpeg": jpeg(30, 2),
    "channels turned round": channels((2, 1, 0)),
}


def clusters(rng: np.random.Generator, units: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of made-up slides that differ from each other as much as the patches of one do, and their slides."""
    ids = np.repeat(np.arange(units), each)
    values = rng.normal(size=(units, len(STATISTICS)))[ids] + rng.normal(size=(len(ids), len(STATISTICS)))
    return 100 + values, ids


def fitted(values: np.ndarray, units: np.ndarray, *, false_alarm_rate: float, seed: int = 0) -> Guard:
    """The guard of slides `units`, with tumour in every second patch."""
    labels = np.arange(len(values)) % 2
    return fit(values, labels, Groups(units, "slide"), false_alarm_rate=false_alarm_rate, seed=seed)


def answered(patches: np.ndarray) -> np.ndarray:
    """Statistics of the patches, with answers that have nothing to do with them: what is tested is the pixels' side."""
    return watched_values(patches, np.random.default_rng(len(patches)).random(len(patches)))


@pytest.fixture(scope="module")
def sample() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Patches and slides of the sample's valid and test."""
    drawn = synthesize(from_mapping(SampleSettings, SAMPLE))
    return {
        split: (
            np.asarray(drawn[split].x),
            np.unique([line["wsi"] for line in drawn[split].meta], return_inverse=True)[1],
        )
        for split in ("valid", "test")
    }


# ---- what it measures


def test_properties_of_a_patch_do_not_depend_on_its_neighbours() -> None:
    patches = np.random.default_rng(0).integers(0, 256, (70, 96, 96, 3), dtype=np.uint8)
    whole = measure_patches(patches)
    assert whole.shape == (70, len(PROPERTIES)) and np.isfinite(whole).all()
    assert np.allclose(measure_patches(patches[66:]), whole[66:], rtol=1e-5)


def test_plain_patches_have_finite_properties() -> None:
    plain = np.stack([np.full((96, 96, 3), level, np.uint8) for level in (0, 127, 255)])
    found = measure_patches(plain)
    assert np.isfinite(found).all() and found[:, 0].tolist() == [0, 127, 255]
    assert np.all(found[:, PROPERTIES.index("sharpness")] == 0)


@pytest.mark.parametrize(
    ("name", "damage", "rises"),
    [
        ("brightness", scaled(0.7), False),
        ("sharpness", blurred(1.0), False),
        ("block_edges", jpeg(50, 0), True),
        ("red_contrast", channels((2, 1, 0)), False),
        ("red_absorption", stain_scaled("haematoxylin", 1.5), True),
        ("saturation", lambda rng, patch: np.repeat(patch[..., 1:2], 3, axis=2), False),
        ("contrast", lambda rng, patch: patch // 2 + 64, False),
    ],
)
def test_each_property_answers_to_what_it_is_named_after(sample: dict, name: str, damage: Damage, rises: bool) -> None:
    patches = sample["valid"][0][:40]
    rng, at = np.random.default_rng(0), PROPERTIES.index(name)
    before, after = (measure_patches(p)[:, at] for p in (patches, np.stack([damage(rng, p) for p in patches])))
    assert np.mean((after > before) == rises) > 0.8


# ---- false alarms


@pytest.mark.parametrize(
    ("units", "each", "size"),
    [
        (24, 8, 64),
        pytest.param(512, 1, 64, marks=pytest.mark.slow),
        pytest.param(128, 8, 32, marks=pytest.mark.slow),
        pytest.param(128, 8, 256, marks=pytest.mark.slow),
    ],
)
def test_sound_sets_raise_alarms_at_no_more_than_the_stated_rate(units: int, each: int, size: int) -> None:
    rate, repeats = 0.1, 300
    rng = np.random.default_rng(units + size)
    alarms = 0
    for seed in range(repeats // 25):
        guard = fitted(*clusters(rng, units, each), false_alarm_rate=rate, seed=seed)
        alarms += sum(guard.check(clusters(rng, size // each, each)[0]).alarm for _ in range(25))
    low, high = stats.binom.interval(0.998, repeats, rate)
    assert alarms <= high
    if units > 100:  # not by being deaf: with few slides the room for chance is wide on purpose
        assert alarms >= low / 2


def test_taking_patches_of_a_slide_as_independent_would_raise_more() -> None:
    rng, alarms = np.random.default_rng(0), 0
    for seed in range(4):
        values, _ = clusters(rng, 64, 8)
        guard = fitted(values, np.arange(len(values)), false_alarm_rate=0.1, seed=seed)
        alarms += sum(guard.check(clusters(rng, 8, 8)[0]).alarm for _ in range(25))
    assert alarms > 50


def test_a_lower_rate_gives_wider_limits_and_larger_sets_narrower_ones() -> None:
    values, units = clusters(np.random.default_rng(0), 64, 4)
    strict, loose = (fitted(values, units, false_alarm_rate=rate, seed=0) for rate in (0.01, 0.2))
    assert np.all(strict.most >= loose.most) and np.all(strict.least <= loose.least)
    assert np.all(np.diff(strict.most - strict.least, axis=0)[2:] < 0)


def test_the_same_patches_give_the_same_guard() -> None:
    values, units = clusters(np.random.default_rng(0), 20, 4)
    documents = [fitted(values, units, false_alarm_rate=0.05, seed=3).as_document() for _ in range(2)]
    assert documents[0] == documents[1]


# ---- what it catches


def caught(guard: Guard, patches: np.ndarray, damage: Damage) -> bool:
    rng = np.random.default_rng(0)
    return guard.check(answered(np.stack([damage(rng, patch) for patch in patches]))).warns


def test_every_strong_shift_of_the_sample_is_caught_and_its_sound_test_is_not(sample: dict) -> None:
    (valid, units), (test, _) = sample["valid"], sample["test"]
    guard = fitted(answered(valid), units, false_alarm_rate=0.01, seed=0)
    assert not guard.check(answered(test)).warns
    chosen = test[np.random.default_rng(0).choice(len(test), 200, replace=False)]
    assert not guard.check(answered(chosen)).warns
    # The sample's ten slides differ in eosin by as much as half of it, from two hospitals: only more can be told apart.
    strong = {name: damage for name, damage in STRONG.items() if "eosin" not in name}
    strong["eosin threefold"] = stain_scaled("eosin", 3.0)
    assert [name for name, damage in strong.items() if not caught(guard, chosen, damage)] == []


def test_every_strong_shift_of_real_tissue_is_caught_and_sound_sets_are_not(
    tmp_path: Path, unpacked: Callable[[str], np.ndarray]
) -> None:
    valid, test = unpacked("valid"), unpacked("test")
    guard = fitted(answered(valid), np.arange(len(valid)), false_alarm_rate=0.01, seed=0)
    assert [name for name, damage in STRONG.items() if not caught(guard, test[:200], damage)] == []
    # Train's patches never took part. Drawn sets overlap, so they are fewer than their number says: a wide bound.
    sound = answered(unpacked("train"))
    rng = np.random.default_rng(0)
    alarms = sum(guard.check(sound[rng.choice(len(sound), 64, replace=False)]).warns for _ in range(200))
    assert alarms <= stats.binom.ppf(0.9999, 200, 0.03)


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[[str], np.ndarray]:
    if not REAL.is_dir():
        pytest.skip(f"no real patches: {REAL} is absent; set PCAM_SAMPLE to a folder of PCam files")

    def read(split: str) -> np.ndarray:
        path = tmp_path / f"{split}.h5"
        path.write_bytes(gzip.decompress((REAL / f"camelyonpatch_level_2_split_{split}_x.h5.gz").read_bytes()))
        with PatchReader(path) as reader:
            return reader.read(0, len(reader))

    return read


def test_one_foreign_patch_among_sound_ones_is_strange(sample: dict) -> None:
    valid, units = sample["valid"]
    guard = fitted(answered(valid), units, false_alarm_rate=0.01, seed=0)
    patches = np.concatenate([valid[:9], np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)])
    verdict = guard.check(answered(patches))
    assert (verdict.strange, verdict.first_strange) == (1, 9)
    alone = guard.check(answered(patches[9:]))
    assert alone.warns and alone.n == 1


def test_a_verdict_tells_property_distance_limit_and_share(sample: dict) -> None:
    valid, units = sample["valid"]
    guard = fitted(answered(valid), units, false_alarm_rate=0.01, seed=0)
    verdict = guard.check(answered((valid // 3).astype(np.uint8)))
    worst = verdict.worst
    assert verdict.warns and worst.distance < worst.limit < 0 and worst.outside > 0.9
    for told in (worst.statistic, "below", f"{worst.distance:.2f}", f"{worst.limit:.2f}", f"of {len(valid):,} patches"):
        assert told in verdict.sentence()


# ---- the answers, and patches that come in parts


def with_answers(rng: np.random.Generator, n: int, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of patches whose pixels are all alike by chance, with answers that tell tumour well; and labels."""
    labels = (rng.random(n) < prior).astype(int)
    answers = np.where(labels == 1, rng.beta(4, 2, n), rng.beta(2, 4, n))
    return np.column_stack([rng.normal(size=(n, len(PROPERTIES))), answers]), labels


@pytest.fixture
def answering() -> Guard:
    values, labels = with_answers(np.random.default_rng(0), 600, 0.5)
    return fit(values, labels, Groups(np.arange(600), "slide"), false_alarm_rate=0.01, seed=0)


@pytest.mark.parametrize("prior", [0.1, 0.167, 0.9])
def test_another_share_of_tumour_raises_the_alarm_and_is_estimated_while_the_pixels_look_right(
    answering: Guard, prior: float
) -> None:
    values, labels = with_answers(np.random.default_rng(1), 400, prior)
    verdict = answering.check(values)
    assert verdict.alarm and not verdict.warns and verdict.answers.alarm
    assert verdict.share == pytest.approx(labels.mean(), abs=0.1)
    told = verdict.conclusion()
    assert told.startswith("ALARM: the pixels raise none, so another share of tumour is one explanation")
    assert f"about {100 * verdict.share:.0f} % against {100 * answering.prior:.0f} %" in told


def test_the_same_share_of_tumour_raises_none_and_the_conclusion_says_so(answering: Guard) -> None:
    verdict = answering.check(with_answers(np.random.default_rng(1), 400, 0.5)[0])
    assert not verdict.alarm and verdict.conclusion().startswith(
        "no alarm: no difference from validation was found (400 patches)"
    )
    assert "the limits allow 1 % of sound sets an alarm (sets of whole slides, drawn from 600 slides)" in (
        verdict.conclusion()
    )


def test_the_conclusion_tells_pixels_alone_and_pixels_with_answers(answering: Guard) -> None:
    values = with_answers(np.random.default_rng(1), 400, 0.5)[0]
    values[:, 0] += 2
    assert answering.check(values).conclusion().startswith("ALARM: brightness lies above")
    values[:, -1] = 0.9
    told = answering.check(values).conclusion()
    assert told.startswith("ALARM: brightness lies above") and "the answers changed" in told


def test_answers_that_tell_nothing_of_the_class_give_no_share() -> None:
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.normal(size=(100, len(PROPERTIES))), rng.random(100)])
    order = np.argsort(values[:, -1])
    labels = np.zeros(100, int)
    labels[order[:50]] = 1  # the lower the answer, the likelier tumour
    guard = fit(values, labels, Groups(np.arange(100), "slide"), false_alarm_rate=0.01, seed=0)
    verdict = guard.check(values)
    assert verdict.share is None and "a share that the answers do not tell" in verdict.tumour_sentence()
    assert verdict.as_document()["answers"]["share"] is None


def test_patches_in_parts_give_the_verdict_of_the_whole(answering: Guard) -> None:
    values = with_answers(np.random.default_rng(1), 300, 0.3)[0]
    values[[130, 250], 2] = 1e4
    whole = answering.check(values)
    tally = answering.tally(values[:100]) + answering.tally(values[100:200]) + answering.tally(values[200:])
    parts = answering.verdict(tally)
    assert (parts.n, parts.strange, parts.first_strange) == (300, 2, 130) == (whole.n, whole.strange, 130)
    for one, other in zip(parts.readings, whole.readings, strict=True):
        assert one.statistic == other.statistic and one.alarm == other.alarm
        assert [one.here, one.distance, one.outside] == pytest.approx([other.here, other.distance, other.outside])


def test_the_table_has_a_line_for_each_statistic_and_marks_the_alarms(answering: Guard) -> None:
    values = with_answers(np.random.default_rng(1), 400, 0.1)[0]
    heading, *lines = answering.check(values).table()
    assert [line.split()[0] for line in lines] == list(STATISTICS) and "chance allows" in heading
    assert [line.split()[-1] for line in lines] == ["no"] * len(PROPERTIES) + ["ALARM"]
    assert f"{values[:, -1].mean():.3f}" in lines[-1] and f"{answering.mean[-1]:.3f}" in lines[-1]


# ---- the rule and its file


def test_what_limits_hold_for_is_told() -> None:
    assert "drawn from 5 slides" in units_of(Groups(np.arange(5), "slide"))[1]
    units, told = units_of(Groups(np.array([0, 0, 1, 1, 1, 2]), "slide"))
    assert units.tolist() == list(range(6)) and "too few slides (3)" in told
    units, told = units_of(Groups(np.array([0, 0, 1, 2, 3]), "leak group"))
    assert units.tolist() == [0, 0, 1, 2, 3] and "slides are unknown" in told
    units, told = units_of(Groups(np.array([0, 0, 1]), "leak group"))
    assert units.tolist() == [0, 1, 2] and "too few leak groups (2)" in told


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with an untrained checkpoint and its guard."""
    torch.manual_seed(0)
    architecture = Architecture(model="mlp", width=4, depth=1, hidden=4, dropout=0.0, tta=False)
    document = {
        "architecture": architecture,
        "preprocessing": {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.2, 0.2]},
        "threshold": 0.5,
        "digests": {},
        "data_source": "test",
    }
    save_checkpoint(tmp_path / "weights.pt", tmp_path / "weights.json", build_model(architecture), document)
    np.save(tmp_path / "valid.npy", np.random.default_rng(0).integers(0, 256, (12, 96, 96, 3), dtype=np.uint8))
    rows = [(row, row % 2, f"slide {row // 2}", "") for row in range(12)]
    write_csv(tmp_path / "valid.csv", ("row", "label", "slide", "group"), rows)
    answers = [(row, row % 2, 0.3 + 0.4 * (row % 2) + row / 100) for row in range(12)]
    write_csv(tmp_path / "predict.csv", ("row", "label", "probability"), answers)
    fit_made(tmp_path)
    return tmp_path


def fit_made(folder: Path) -> None:
    names = ("weights.pt", "predict.csv", "valid.npy", "valid.csv", "guard.json")
    paths = [str(folder / name) for name in names]
    watch_drift(*paths, false_alarm_rate=0.05, seed=0, provenance={"rule": "a_test"})


def test_a_guard_is_read_as_it_was_written(made: Path) -> None:
    document = read_json(made / "guard.json")
    assert (document["n"], document["units"], document["false_alarm_rate"]) == (12, 6, 0.05)
    guard = read_guard(made / "guard.json", read_sidecar(made / "weights.pt"))
    assert guard.as_document() == {name: document[name] for name in ("statistics", *vars(guard))}
    assert guard.classes == pytest.approx([0.35, 0.76]) and guard.prior == 0.5
    assert all(isinstance(getattr(guard, name), np.ndarray) for name in ARRAYS)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("weights", "0" * 64, "belongs to other weights"),
        ("preprocessing", {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}, "restore the sidecar"),
        ("statistics", ["brightness"], "not a guard of this version"),
        ("temperature", 2.0, "was made for temperature 2.0, the checkpoint's sidecar says None"),
        ("classes", [0.5], "classes of another shape"),
        ("prior", None, "not a guard of this version"),
        ("median", "much", "not a guard of this version"),
        ("median", [None] * len(STATISTICS), "median holds a value that is not finite"),
        ("far", [9.0], "far of another shape"),
        ("least", [[0.0]], "least of another shape"),
        ("least", [[99.0] * len(STATISTICS)] * 4, "a limit most is not above least"),
        ("sizes", None, "not a guard of this version"),
        ("sizes", [], "sizes is no list of numbers"),
        ("sizes", [2, 4, 8, 16], "sizes do not ascend from 1"),
        ("sizes", [1, 4, 2, 8], "sizes do not ascend from 1"),
        ("preprocessing", "none", "preprocessing holds no mean and std"),
    ],
)
def test_a_foreign_or_damaged_guard_is_refused_in_one_line(made: Path, key: str, value: object, said: str) -> None:
    write_json(made / "guard.json", {**read_json(made / "guard.json"), key: value})
    with pytest.raises(InputError, match=said) as error:
        read_guard(made / "guard.json", read_sidecar(made / "weights.pt"))
    assert "\n" not in str(error.value) and "guard.json" in str(error.value)


@pytest.mark.parametrize("groups", [1, 2])
def test_few_leak_groups_leave_patches_as_units_and_the_guard_says_so(made: Path, groups: int) -> None:
    rows = [(row, row % 2, "", f"group {row % groups}") for row in range(12)]
    write_csv(made / "valid.csv", ("row", "label", "slide", "group"), rows)
    fit_made(made)
    document = read_json(made / "guard.json")
    assert document["units"] == 12 and f"too few leak groups ({groups})" in document["holds_for"]
    read_guard(made / "guard.json", read_sidecar(made / "weights.pt"))


def test_units_are_counted_among_the_patches_drawn(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watch_drift.PATCHES", 4)  # of 12 patches on 4 slides, one of which holds most
    rows = [(row, row % 2, f"slide {max(0, row - 8)}", "") for row in range(12)]
    write_csv(made / "valid.csv", ("row", "label", "slide", "group"), rows)
    fit_made(made)
    document = read_json(made / "guard.json")
    assert document["n"] == document["units"] == 4 and "too few slides" in document["holds_for"]


def test_a_store_of_other_rows_is_refused(made: Path) -> None:
    np.save(made / "valid.npy", np.zeros((11, 96, 96, 3), np.uint8))
    with pytest.raises(InputError, match="11 patches for 12 rows"):
        fit_made(made)


def test_answers_to_other_patches_and_to_one_class_are_refused(made: Path) -> None:
    columns = ("row", "label", "probability")
    write_csv(made / "predict.csv", columns, [(row, row % 2, 0.5) for row in range(11)])
    with pytest.raises(InputError, match=r"predict.csv: its rows are not those of .*valid.csv"):
        fit_made(made)
    write_csv(made / "predict.csv", columns, [(row, 1, 0.5) for row in range(12)])
    with pytest.raises(InputError, match="patches of one class only; a guard needs both"):
        fit_made(made)
