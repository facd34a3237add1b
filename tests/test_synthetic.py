"""The embedded sample: same seed same bits, defects exactly as asked, and a label that colour does not give away."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pcam import synthetic
from pcam.attributes import ATTRIBUTES, measure_attributes
from pcam.facts import META_COLUMNS, hospital_of
from pcam.settings import SampleSettings
from pcam.synthetic import WEAK_SLICE, SampleSplit, choose_positions, synthesize

SMALL = SampleSettings(
    seed=7,
    train_patches=200,
    valid_patches=60,
    test_patches=60,
    train_slides=5,
    valid_slides=3,
    test_slides=3,
    faded_slides=2,
    train_positive_rate=0.167,
    non_finite_rate=0.03,
    out_of_range_rate=0.035,
    blackout_rate=0.075,
    washout_rate=0.065,
    duplicate_pairs=5,
    cross_split_pairs=6,
)
SPOILT = {"non_finite", "out_of_range", "blackout", "washout"}


@pytest.fixture(scope="module")
def small() -> dict[str, SampleSplit]:
    return synthesize(SMALL)


def rows_of(split: SampleSplit, kind: str) -> list[int]:
    return sorted(row for row, planted in split.planted if planted == kind)


def clean_rows(split: SampleSplit) -> list[int]:
    spoilt = {row for row, kind in split.planted if kind in SPOILT}
    return [row for row in range(len(split.y)) if row not in spoilt]


def groups_of_equal_rows(splits: dict[str, SampleSplit]) -> list[list[tuple[str, int]]]:
    """(split, row) of patches that hold the same values, NaN included, as groups of two or more."""
    groups = defaultdict(list)
    for name, split in splits.items():
        for row, patch in enumerate(split.x):
            groups[patch.astype(np.float32).tobytes()].append((name, row))
    return [group for group in groups.values() if len(group) > 1]


def test_same_settings_give_the_same_bits(small):
    again = synthesize(SMALL)
    for name, split in small.items():
        assert split.x.tobytes() == again[name].x.tobytes()
        assert split.y.tobytes() == again[name].y.tobytes()
        assert split.meta == again[name].meta
        assert split.planted == again[name].planted


def test_another_seed_gives_other_pixels(small):
    other = synthesize(replace(SMALL, seed=8))
    assert all(not np.array_equal(small[name].x, other[name].x) for name in small)


def test_arrays_have_pcams_shapes_and_the_storage_types_asked(small):
    for name, split in small.items():
        n = getattr(SMALL, f"{name}_patches")
        assert split.x.shape == (n, 96, 96, 3)
        assert split.x.dtype == (np.float32 if name == "train" else np.uint8)
        assert split.y.shape == (n,) and split.y.dtype == np.uint8
        assert len(split.meta) == n and all(tuple(line) == META_COLUMNS for line in split.meta)


@pytest.mark.parametrize(
    "rates",
    [
        {},
        {"non_finite_rate": 0.1, "out_of_range_rate": 0.01, "blackout_rate": 0.02, "washout_rate": 0.11},
        {"non_finite_rate": 0.0, "out_of_range_rate": 0.0, "blackout_rate": 0.005, "washout_rate": 0.0},
    ],
)
def test_each_defect_has_exactly_the_amount_asked_and_rows_of_its_own(rates):
    settings = replace(SMALL, **rates)
    train = synthesize(settings)["train"]
    with np.errstate(invalid="ignore"):
        found = {
            "non_finite": np.flatnonzero(~np.isfinite(train.x).all((1, 2, 3))).tolist(),
            "out_of_range": np.flatnonzero((train.x > 255).any((1, 2, 3))).tolist(),
            "blackout": np.flatnonzero((train.x == 0).all((1, 2, 3))).tolist(),
            "washout": np.flatnonzero((train.x == 255).all((1, 2, 3))).tolist(),
        }
    for kind, rows in found.items():
        assert len(rows) == round(getattr(settings, f"{kind}_rate") * settings.train_patches), kind
        assert rows == rows_of(train, kind), kind
    spoilt = [row for rows in found.values() for row in rows]
    assert len(spoilt) == len(set(spoilt))


def test_broken_values_are_few_and_of_the_documented_size(small):
    train = small["train"]
    for row in rows_of(train, "out_of_range"):
        assert set(train.x[row][train.x[row] > 255]) == {100_000.0}
        assert 20 <= (train.x[row] > 255).sum() <= 140
    for row in rows_of(train, "non_finite"):
        assert 1 <= np.isnan(train.x[row]).sum() <= 140


def test_train_has_the_positive_share_asked_and_the_other_splits_are_balanced_and_clean(small):
    assert small["train"].y.sum() == round(SMALL.train_positive_rate * SMALL.train_patches)
    for name in ("valid", "test"):
        assert small[name].y.sum() == len(small[name].y) // 2
        assert {kind for _, kind in small[name].planted} == {"cross_split_duplicate", WEAK_SLICE}


def test_planted_copies_are_pixel_identical_and_nothing_else_is(small):
    groups = groups_of_equal_rows(small)
    within, across = set(), set()
    for group in groups:
        count = Counter(name for name, _ in group)
        within |= {(name, row) for name, row in group if count[name] > 1}
        across |= set(group) if len(count) > 1 else set()
    assert within == {(name, row) for name in small for row in rows_of(small[name], "exact_duplicate")}
    assert across == {(name, row) for name in small for row in rows_of(small[name], "cross_split_duplicate")}
    assert len(rows_of(small["train"], "cross_split_duplicate")) == SMALL.cross_split_pairs
    assert [len(rows_of(small[name], "cross_split_duplicate")) for name in ("valid", "test")] == [3, 3]
    uniform = rows_of(small["train"], "blackout") + rows_of(small["train"], "washout")
    assert len(rows_of(small["train"], "exact_duplicate")) == 2 * SMALL.duplicate_pairs + len(uniform)


def test_a_single_blackout_is_no_duplicate():
    train = synthesize(replace(SMALL, blackout_rate=0.005, washout_rate=0.0, duplicate_pairs=0))["train"]
    assert len(rows_of(train, "blackout")) == 1
    assert rows_of(train, "exact_duplicate") == []


def test_copies_carry_their_sources_label(small):
    for group in groups_of_equal_rows(small):
        if not any(row in rows_of(small[name], "blackout") + rows_of(small[name], "washout") for name, row in group):
            assert len({int(small[name].y[row]) for name, row in group}) == 1


def test_patches_of_one_slide_overlap_pixel_for_pixel_on_the_grid(small):
    pairs = 0
    for split in small.values():
        crossing = set(rows_of(split, "cross_split_duplicate"))
        rows = [row for row in clean_rows(split) if row not in crossing]
        for k, a in enumerate(rows):
            for b in rows[k + 1 :]:
                first, second = split.meta[a], split.meta[b]
                dy, dx = (second[c] - first[c] for c in ("coord_y", "coord_x"))
                if first["wsi"] != second["wsi"] or max(abs(dy), abs(dx)) >= 96:
                    continue
                assert dy % 16 == 0 and dx % 16 == 0
                here = split.x[a][max(dy, 0) : 96 + min(dy, 0), max(dx, 0) : 96 + min(dx, 0)]
                there = split.x[b][max(-dy, 0) : 96 + min(-dy, 0), max(-dx, 0) : 96 + min(-dx, 0)]
                assert np.array_equal(here, there)
                pairs += (dy, dx) != (0, 0)
    assert pairs >= 20


def test_no_slide_stands_in_two_splits_and_both_hospitals_stand_in_each(small):
    slides = {name: {line["wsi"] for line in split.meta} for name, split in small.items()}
    assert [len(found) for found in slides.values()] == [5, 3 + 2, 3 + 2]  # and the faded ones
    assert len(set.union(*slides.values())) == 15
    for found in slides.values():
        assert {hospital_of(slide) for slide in found} == {"RUMC", "UMCU"}


def test_labels_agree_with_the_meta_and_normal_slides_hold_no_tumour(small):
    for split in small.values():
        crossing = set(rows_of(split, "cross_split_duplicate"))
        for row, line in enumerate(split.meta):
            assert bool(split.y[row]) == line["center_tumor_patch"]
            assert line["tumor_patch"] or not line["center_tumor_patch"]
            if "normal" in line["wsi"] and row not in crossing:
                assert not line["tumor_patch"]
        assert any(line["tumor_patch"] and not line["center_tumor_patch"] for line in split.meta)


@pytest.mark.parametrize("y,x", [(100, 100), (127, 64), (159, 200)])
def test_one_tumour_pixel_decides_by_the_centre_32(y, x):
    mask = np.zeros((320, 320), bool)
    mask[y, x] = True
    tissue = np.ones_like(mask)
    inside = [(i, j) for i in range(0, 240, 16) for j in range(0, 240, 16) if 32 <= y - i < 64 and 32 <= x - j < 64]
    lines = choose_positions(np.random.default_rng(0), tissue, mask, 15 * 15 - len(inside), len(inside), "slide")
    assert len(lines) == len({(line["coord_y"], line["coord_x"]) for line in lines}) == 15 * 15
    assert {(line["coord_y"], line["coord_x"]) for line in lines if line["center_tumor_patch"]} == set(inside)
    for line in lines:
        in_patch = 0 <= y - line["coord_y"] < 96 and 0 <= x - line["coord_x"] < 96
        assert line["tumor_patch"] == in_patch


def test_faded_slides_hold_a_tumour_and_a_normal_patch_each_and_train_holds_none(small):
    assert rows_of(small["train"], WEAK_SLICE) == []
    for name in ("valid", "test"):
        rows = rows_of(small[name], WEAK_SLICE)
        by_slide = defaultdict(list)
        for row in rows:
            by_slide[small[name].meta[row]["wsi"]].append(int(small[name].y[row]))
        assert [sorted(labels) for labels in by_slide.values()] == [[0, 1]] * SMALL.faded_slides
        assert all((line["wsi"] in by_slide) == (row in rows) for row, line in enumerate(small[name].meta))
        assert not set(rows) & set(rows_of(small[name], "cross_split_duplicate"))


def test_without_faded_slides_nothing_else_changes(small):
    plain = synthesize(replace(SMALL, faded_slides=0, valid_patches=56, test_patches=56))
    for name in ("valid", "test"):
        assert WEAK_SLICE not in {kind for _, kind in plain[name].planted}
        weak = rows_of(small[name], WEAK_SLICE)
        kept = {patch.tobytes() for row, patch in enumerate(small[name].x) if row not in weak}
        assert kept == {patch.tobytes() for patch in plain[name].x}


def test_faded_patches_have_pale_nuclei_and_most_of_their_eosin():
    split = synthesize(replace(SMALL, valid_patches=200, valid_slides=6, faded_slides=8, test_patches=32))["valid"]
    faded = np.isin(np.arange(200), rows_of(split, WEAK_SLICE))
    value = dict(zip(ATTRIBUTES, measure_attributes(split.x).T, strict=True))
    for name in ("haematoxylin", "nuclear_density"):
        assert np.quantile(value[name][faded], 0.9) < np.quantile(value[name][~faded], 0.1), name
    kept = {name: value[name][faded].mean() / value[name][~faded].mean() for name in ("haematoxylin", "eosin")}
    assert kept["haematoxylin"] < 0.6 and kept["eosin"] > 0.7


def test_no_clean_patch_is_textureless(small):
    for split in small.values():
        assert split.x[clean_rows(split)].std((1, 2, 3)).min() > 5


@pytest.mark.parametrize(
    "change",
    [
        {"blackout_rate": 0.6, "washout_rate": 0.6},
        {"duplicate_pairs": 150},
        {"cross_split_pairs": 130, "blackout_rate": 0.0},
        {"train_slides": 0},
        {"valid_slides": 260},
        {"faded_slides": 16},
    ],
)
def test_settings_that_cannot_be_met_are_refused_in_one_line(change):
    with pytest.raises(ValueError) as caught:
        synthesize(replace(SMALL, **change))
    assert "\n" not in str(caught.value)


def test_more_patches_than_a_slide_has_positions_are_refused(monkeypatch):
    monkeypatch.setattr(synthetic, "SIDE_PX", (448, 448))
    with pytest.raises(ValueError, match=r"camelyon16_train_tumor_\d{3} lacks positions for 100 tumour and 500 normal"):
        synthesize(replace(SMALL, train_patches=600, train_slides=1, train_positive_rate=1 / 6))


def test_the_colour_histogram_does_not_give_the_label_away():
    splits = synthesize(
        replace(
            SMALL,
            train_patches=800,
            valid_patches=300,
            test_patches=300,
            train_slides=16,
            valid_slides=8,
            test_slides=8,
        )
    )

    def histograms(split: SampleSplit) -> tuple[np.ndarray, np.ndarray]:
        rows = clean_rows(split)
        patches = split.x[rows].astype(np.uint8)
        counts = [[np.bincount(patch[..., c].ravel() >> 4, minlength=16) for c in range(3)] for patch in patches]
        return np.reshape(counts, (len(rows), 48)) / 9216, split.y[rows]

    colours, labels = histograms(splits["train"])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(colours, labels)
    for name in ("valid", "test"):
        colours, labels = histograms(splits[name])
        assert roc_auc_score(labels, model.decision_function(colours)) <= 0.80
