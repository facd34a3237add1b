"""The scorer counts right: what a stub audit misses or makes up is what the score says; the picture shows it."""

import gzip
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from plot_score import limit_of, plot_score, rows_of
from score_audit import SCORED, alarms_of_audit, score_audit
from test_config import CONFIG, merged

from pcam.damage import COPIES, DAMAGES
from pcam.facts import FILE_SPLITS, pcam_filename
from pcam.files import InputError, read_json, write_csv, write_json
from pcam.hdf5 import PatchReader, read_labels, write_labels, write_patches
from pcam.planting import Planted, Unit, plant
from pcam.scoring import NOT_REACHED, Alarms, flagged, limit, limits, records, score_sample, tally, true_by_pixels
from pcam.settings import read_config
from pcam.synthetic import draw_slide

PROVENANCE = {"rule": "test"}
REAL = Path(os.environ.get("PCAM_SAMPLE", ROOT.parent / "shared" / "data" / "pcam-sample"))
SIZES = {"train": 150, "valid": 60, "test": 60}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Distinct patches of drawn tissue in files, a table of patches that calls some of them defective."""
    folder = tmp_path_factory.mktemp("score")
    image = draw_slide(np.random.default_rng(3), "RUMC", "tumor", 2048)[0]
    tiles = image[: 96 * 21, : 96 * 21].reshape(21, 96, 21, 96, 3).swapaxes(1, 2).reshape(-1, 96, 96, 3)
    parts = dict(zip(FILE_SPLITS, np.split(tiles, np.cumsum(list(SIZES.values())))[:3], strict=True))
    x, y, lines = {}, {}, []
    for split, patches in parts.items():
        x[split], y[split] = (str(folder / f"{split}_{part}.h5") for part in "xy")
        write_patches(x[split], patches)
        write_labels(y[split], (np.arange(SIZES[split]) % 2).astype(np.uint8), SIZES[split])
        lines += [(split, row, row % 2, 1, "blackout" if row == 7 else "") for row in range(SIZES[split])]
    write_csv(folder / "patches.csv", ("split", "row", "label", "keep", "defects"), lines)
    return {"x": x, "y": y, "patches": str(folder / "patches.csv"), "folder": folder}


def score(data: dict, audit: Callable, name: str = "score.json", planted: str | None = None, **changed: object) -> dict:
    path = data["folder"] / name
    settings = {"patches": 500, "rates": (0.01, 0.02), "repeats": 1, "seed": 4, "canvas": False}
    score_audit(
        data["x"], data["y"], data["patches"], planted, str(path), scratch=str(data["folder"] / "scratch"),
        audit=audit, provenance=PROVENANCE, **{**settings, **changed},
    )  # fmt: skip
    return read_json(path)


def line_of(document: dict, kind: str, variant: str | None = None, level: float | None = None,
            rate: float | None = None) -> dict:  # fmt: skip
    (found,) = [
        line
        for line in document["planted"]
        if (line["kind"], line["variant"], line["level"], line["rate"]) == (kind, variant, level, rate)
    ]
    return found


def read_all(x_files: dict, y_files: dict) -> tuple[dict, dict]:
    x = {}
    for split, path in x_files.items():
        with PatchReader(path) as reader:
            x[split] = reader.read(0, len(reader))
    return x, {split: read_labels(path) for split, path in y_files.items()}


def black(x_files: dict, y_files: dict, folder: Path) -> Alarms:
    """Finds black patches, and nothing else."""
    x, _ = read_all(x_files, y_files)
    rows = {(s, int(row)) for s in FILE_SPLITS for row in np.flatnonzero((x[s] == 0).all(axis=(1, 2, 3)))}
    return Alarms({"blackout": rows})


def test_what_an_audit_finds_and_misses_is_counted(data: dict) -> None:
    document = score(data, black)
    n = sum(SIZES.values()) - len(FILE_SPLITS)  # row 7 of each split is not clean
    planted = round(0.01 * n) + round(0.02 * n)
    whole = line_of(document, "blackout")
    assert (whole["planted"], whole["found"], whole["true_positives"]) == (planted, planted, planted)
    assert (whole["recall"], whole["precision"], whole["false_on_clean"]) == (1.0, 1.0, 0)
    assert whole["recall_interval"][0] < 1 == whole["recall_interval"][1]
    assert line_of(document, "blackout", rate=0.02)["planted"] == round(0.02 * n)
    washout = line_of(document, "washout")
    assert (washout["planted"], washout["found"], washout["recall"], washout["precision"]) == (planted, 0, 0.0, None)
    parts = [line_of(document, "blackout", name) for name in ("black", "black_class_0")]
    assert sum(part["planted"] for part in parts) == planted
    assert {part["precision"] for part in parts} == {part["found"] for part in parts} == {None}
    assert not (data["folder"] / "scratch").exists() or not list((data["folder"] / "scratch").iterdir())


def test_a_false_alarm_lowers_precision_alone_and_is_told_by_where_it_fell(data: dict) -> None:
    def careless(x_files: dict, y_files: dict, folder: Path) -> Alarms:
        x, _ = read_all(x_files, y_files)
        found = black(x_files, y_files, folder).flags["blackout"]
        white = {(s, int(row)) for s in FILE_SPLITS for row in np.flatnonzero((x[s] == 255).all(axis=(1, 2, 3)))}
        with PatchReader(data["x"]["train"]) as reader:
            before = reader.read(0, len(reader))
        untouched = [row for row in range(len(x["valid"])) if ("valid", row) not in found | white]
        assert len(before) and untouched
        return Alarms({"blackout": found | white | {("valid", untouched[0])}})

    document = score(data, careless, "careless.json", rates=(0.02,))
    whole, white = line_of(document, "blackout"), line_of(document, "washout")["planted"]
    assert whole["recall"] == 1.0
    assert whole["false_on_planted"] >= white and whole["false_on_clean"] + whole["false_on_planted"] == white + 1
    assert whole["precision"] == (whole["found"] - white - 1) / whole["found"]


def test_a_miss_in_one_variant_lowers_its_recall_and_its_kind_s(data: dict) -> None:
    def blind(x_files: dict, y_files: dict, folder: Path) -> Alarms:
        _, y = read_all(x_files, y_files)
        found = black(x_files, y_files, folder).flags["blackout"]
        return Alarms({"blackout": {(split, row) for split, row in found if y[split][row] == 1}})

    document = score(data, blind, "blind.json", rates=(0.03,), repeats=4)
    assert line_of(document, "blackout", "black_class_0")["recall"] == 0.0
    assert 0 < line_of(document, "blackout")["recall"] < 1
    by = {(found["kind"], found["by"]): found["limit"] for found in document["limits"] if found["variant"] is None}
    assert by["blackout", "rate"] == NOT_REACHED


def test_the_score_is_the_same_bits_each_time(data: dict) -> None:
    assert score(data, black, "one.json") == score(data, black, "two.json")
    assert score(data, black, "three.json", seed=5) != score(data, black, "one.json")


def test_the_audit_is_given_two_folders_of_files_and_nothing_of_the_truth(data: dict) -> None:
    def curious(x_files: dict, y_files: dict, folder: Path) -> Alarms:
        names = sorted(path.name for path in folder.iterdir())
        assert names == sorted(Path(p).name for p in (*x_files.values(), *y_files.values()))
        return Alarms({})

    assert all(not line["true_positives"] for line in score(data, curious, "curious.json")["planted"])


def planted_by_hand(*patches: np.ndarray) -> Planted:
    empty = np.zeros((1, 96, 96, 3), np.uint8)
    return Planted({"train": np.stack(patches), "valid": empty + 1, "test": empty + 2}, (), {})


Y = {"train": np.array([0, 1, 0, 1], np.uint8), "valid": np.array([0], np.uint8), "test": None}
NOISE = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("kind", "copy", "true"),
    [
        ("exact_duplicate", NOISE[0], True),
        ("exact_duplicate", NOISE[1], False),
        ("rotated_duplicate", np.rot90(NOISE[0][::-1]), True),
        ("rotated_duplicate", NOISE[0], False),
        ("label_conflict", np.rot90(NOISE[0]), True),
        ("label_conflict", NOISE[1], False),
        ("cross_split_duplicate", NOISE[0], False),
        ("near_duplicate", NOISE[0], False),
    ],
)
def test_an_alarm_on_what_nobody_planted_is_false_only_if_the_pixels_differ(
    kind: str, copy: np.ndarray, true: bool
) -> None:
    planted = planted_by_hand(NOISE[0], copy, NOISE[2], NOISE[2] + 1)
    rows = {("train", 0), ("train", 1)}
    assert true_by_pixels(kind, Alarms({kind: rows}), planted.x, Y) == (rows if true else set())
    counts: defaultdict = defaultdict(Counter)
    tally(planted, Alarms({kind: rows}), Y, 0.1, counts)
    (line,) = [line for line in records(counts) if line["rate"] is None]
    assert (line["found"], line["false_on_clean"]) == (2, 0 if true else 2)
    assert line["precision"] == (1.0 if true else 0.0) and line["recall"] is None


def test_an_overlap_is_true_by_its_shared_pixels_and_a_planted_one_is_found_by_its_pair() -> None:
    other = NOISE[1].copy()
    other[:80, :] = NOISE[0][16:, :]
    planted = planted_by_hand(NOISE[0], other, NOISE[2], NOISE[2] + 1)
    pair, a, b = ("train", 0), ("train", 0), ("train", 1)
    unit = Unit("overlap", "pasted", 80, (a, b))
    planted = Planted(planted.x, (unit,), {"overlap": 1})
    assert pair == a
    for shift, named, hits, false in ((16, True, 2, 0), (17, True, 2, 0), (16, False, 0, 0)):
        alarms = Alarms({"overlap": {a, b}}, [(a, b, shift, 0)] if named else [])
        counts: defaultdict = defaultdict(Counter)
        tally(planted, alarms, Y, 0.1, counts)
        whole = counts["overlap", None, None, None]
        assert (whole["true_positives"], whole["false_on_clean"] + whole["false_on_planted"]) == (hits, false)
    stranger = Alarms({"overlap": {("train", 2), ("train", 3)}}, [(("train", 2), ("train", 3), 5, 5)])
    assert true_by_pixels("overlap", stranger, planted.x, Y) == set()
    counts = defaultdict(Counter)
    tally(planted, stranger, Y, 0.1, counts)
    assert counts["overlap", None, None, None]["false_on_clean"] == 2


def test_a_limit_is_the_faintest_amount_from_which_on_nothing_is_missed() -> None:
    assert limit([(0.01, 1.0), (0.002, 0.95), (0.001, 0.5)], "low") == 0.002
    assert limit([(0.01, 1.0), (0.002, 0.5), (0.001, 1.0)], "low") == 0.01
    assert limit([(60, 0.2), (95, 0.9)], "low") == NOT_REACHED
    assert limit([(3, 1.0), (10, 0.96), (20, 0.1)], "high") == 10


def test_limits_are_told_by_rate_and_by_level(data: dict) -> None:
    document = score(data, black, "levels.json", rates=(0.01, 0.03), repeats=2)
    told = {(found["kind"], found["variant"], found["level"]): found for found in document["limits"]}
    assert told["blackout", None, None]["limit"] == 0.01 and told["blackout", None, None]["tried"] == [0.01, 0.03]
    assert told["near_duplicate", "jpeg_444", None]["by"] == "quality"
    assert told["near_duplicate", "brighter", None]["direction"] == "up to"
    assert told["trigger", "moving_flat", 6]["by"] == "rate"
    assert limits(document["planted"]) == document["limits"]


def test_the_sample_s_own_truth_is_scored_beside(data: dict) -> None:
    path = str(data["folder"] / "planted.csv")
    write_csv(path, ("split", "row", "kind"), [("train", 7, "blackout"), ("valid", 3, "blackout")])
    kinds = score(data, black, "sample.json", planted=path, rates=(0.01,))["kinds"]
    assert set(kinds) >= set(SCORED) and "overlap" not in kinds
    assert (kinds["blackout"]["planted"], kinds["blackout"]["found"], kinds["blackout"]["true_positives"]) == (2, 3, 1)
    assert score(data, black, "other.json", rates=(0.01,))["kinds"] == {}


def test_the_score_of_the_sample_counts_what_was_missed_and_what_was_made_up(tmp_path: Path) -> None:
    write_csv(tmp_path / "planted.csv", ("split", "row", "kind"), [("train", row, "blackout") for row in range(4)])
    found = [("train", row, 0, 0, "blackout;exact_duplicate" if row else "") for row in range(6)]
    write_csv(tmp_path / "patches.csv", ("split", "row", "label", "keep", "defects"), found)
    kinds = score_sample(str(tmp_path / "planted.csv"), flagged(str(tmp_path / "patches.csv")), SCORED)
    blackout = kinds["blackout"]
    assert (blackout["planted"], blackout["found"], blackout["true_positives"]) == (4, 5, 3)
    assert (blackout["recall"], blackout["precision"]) == (0.75, 0.6)
    assert blackout["recall_interval"][0] < 0.75 < blackout["recall_interval"][1]
    assert kinds["exact_duplicate"]["recall"] is None and kinds["exact_duplicate"]["precision"] == 0
    assert kinds["washout"]["precision"] is None and "overlap" not in kinds


def test_the_thorough_config_is_valid_and_plants_more() -> None:
    thorough = yaml.safe_load((ROOT / "config" / "thorough.yaml").read_text())
    plain, more = (read_config(config).audit.score for config in (CONFIG, merged(CONFIG, thorough)))
    assert len(more.rates) * more.repeats > len(plain.rates) * plain.repeats and min(more.rates) < min(plain.rates)


# ---- the real audit

EXACT = ("non_finite", "out_of_range", "blackout", "washout", "constant", "exact_duplicate", "cross_split_duplicate",
         "rotated_duplicate")  # fmt: skip


def test_the_real_audit_finds_every_exact_kind_and_raises_no_false_alarm_of_one(data: dict) -> None:
    document = score(data, partial(alarms_of_audit, processes=1), "real.json", rates=(0.01, 0.02, 0.03), canvas=True)
    for kind in EXACT:
        line = line_of(document, kind)
        assert line["planted"] >= 15 and (line["recall"], line["precision"]) == (1.0, 1.0), line
    assert line_of(document, "overlap")["precision"] == 1.0
    planted = {v.kind for v in (*DAMAGES, *COPIES)} | {"overlap", "trigger"}
    assert {line["kind"] for line in document["planted"] if line["planted"]} == planted


def test_the_score_does_not_depend_on_processes_and_needs_no_test_labels(data: dict, tmp_path: Path) -> None:
    write_labels(tmp_path / "test_y.h5", None, SIZES["test"])
    unlabelled = {**data, "y": {**data["y"], "test": str(tmp_path / "test_y.h5")}}
    one, two = (
        score(unlabelled, partial(alarms_of_audit, processes=n), f"processes-{n}.json", rates=(0.03,)) for n in (1, 2)
    )
    assert one == two
    assert line_of(one, "label_conflict")["recall"] == 1.0


@pytest.mark.slow
def test_on_real_tissue_the_figures_of_the_issue_hold(tmp_path: Path) -> None:
    """2,000 real patches: exact kinds to the row, triggers in 1 % of a class, near copies and overlaps."""
    if not REAL.is_dir():
        pytest.skip(f"no real patches at {REAL}; set PCAM_SAMPLE to a folder with PCam files")
    files: dict[str, dict[str, str]] = {"x": {}, "y": {}}
    for split in FILE_SPLITS:
        for key, of_key in files.items():
            of_key[split] = str(tmp_path / pcam_filename(split, f"{key}.h5"))
            with gzip.open(REAL / f"{pcam_filename(split, f'{key}.h5')}.gz") as packed:
                Path(of_key[split]).write_bytes(packed.read())
    base = alarms_of_audit(files["x"], files["y"], tmp_path, processes=2)
    assert not any(base.flags[kind] for kind in (*EXACT, "trigger", "near_duplicate", "label_conflict"))
    _, labels = read_all(files["x"], files["y"])
    defects = {patch: kind for kind, rows in base.flags.items() for patch in rows}
    lines = [(s, row, "", 1, defects.get((s, row), "")) for s in FILE_SPLITS for row in range(len(labels[s]))]
    write_csv(tmp_path / "patches.csv", ("split", "row", "label", "keep", "defects"), lines)
    real = {**files, "patches": str(tmp_path / "patches.csv"), "folder": tmp_path}
    document = score(real, partial(alarms_of_audit, processes=2), patches=2000, rates=(0.01, 0.02), repeats=5, seed=1)
    for kind in EXACT:
        assert (line_of(document, kind)["recall"], line_of(document, kind)["precision"]) == (1.0, 1.0), kind
    for kind, least in (("near_duplicate", 0.99), ("overlap", 0.99), ("label_conflict", 0.98)):
        assert line_of(document, kind)["recall"] >= least and line_of(document, kind)["precision"] >= 0.99, kind
    for rate in (0.01, 0.02):
        assert line_of(document, "trigger", rate=rate)["recall"] >= 0.95


# ---- the picture


def test_the_picture_shows_kinds_variants_and_limits_and_the_caption_what_follows(data: dict, tmp_path: Path) -> None:
    document = score(data, black, "drawn.json", rates=(0.01, 0.03))
    rows = rows_of(document["planted"])
    names = [(row["kind"], row["variant"], row["level"]) for row in rows]
    assert names.count(("blackout", None, None)) == 1 and ("trigger", "moving_flat", 12) in names
    (blackout,) = [row for row in rows if row["kind"] == "blackout" and row["variant"] is None]
    assert limit_of(blackout, document["limits"]) == "from 1 % planted"
    png, caption = tmp_path / "a.png", tmp_path / "a.txt"
    for _ in range(2):
        plot_score(str(data["folder"] / "drawn.json"), str(png), str(caption), label="SYNTHETIC SAMPLE")
    assert png.stat().st_size > 10_000
    text = caption.read_text()
    assert "both 1.00 for 1 of" in text and "SYNTHETIC SAMPLE" in text and "lowest recall is 0.000" in text
    assert "False alarms: 0 on patches left clean, 0 on" in text


def test_a_score_of_another_form_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "score.json", {"kinds": {}})
    with pytest.raises(InputError, match=r"score\.json: no score of planted defects"):
        plot_score(str(tmp_path / "score.json"), str(tmp_path / "a.png"), str(tmp_path / "a.txt"), label="x")
    assert not (tmp_path / "a.png").exists()


def test_planted_copies_of_one_another_are_no_false_alarms_of_their_kind() -> None:
    x = {
        split: np.random.default_rng(i).integers(0, 256, (60, 96, 96, 3), np.uint8)
        for i, split in enumerate(FILE_SPLITS)
    }
    y = {split: (np.arange(60) % 2).astype(np.uint8) for split in FILE_SPLITS}
    planted = plant(np.random.default_rng(0), x, y, rate=0.03, canvas=False)
    conflicts = [unit for unit in planted.units if unit.kind == "label_conflict" and unit.variant == "jpeg"]
    rows = {patch for unit in conflicts for patch in unit.patches}
    counts: defaultdict = defaultdict(Counter)
    tally(planted, Alarms({"near_duplicate": rows}), y, 0.03, counts)
    whole = counts["near_duplicate", None, None, None]
    assert rows and whole["false_on_clean"] == whole["false_on_planted"] == 0 and whole["true_positives"] == 0
