"""Errors are shown in their own colours, and what is said of them is in the patches or is not said."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from measure_errors import LOOKED_AT, NEAR, SHOWN, measure_errors
from PIL import Image
from plot_error_patterns import plot_error_patterns
from show_errors import show_errors

from pcam.attention import CELLS, PLACES, STRIDE_PX, centre_share, exchanged, occlusion_map
from pcam.attributes import ATTRIBUTES, measure_attributes
from pcam.checkpoint import save_checkpoint
from pcam.errors import borderline, contrast, find_patterns, in_words, telling, wrong_answers
from pcam.files import InputError, read_json, write_csv, write_json
from pcam.intervals import Groups
from pcam.model import Architecture, build_model
from pcam.montage import MARGIN_PX, PITCH_PX, SCALE, SIDE_PX
from pcam.preprocess import Preprocessing
from pcam.settings import EvaluationSettings
from pcam.slices import Answers
from pcam.store import write_store

RULES = EvaluationSettings(level=0.95, resamples=50, least_groups=30, ece_bins=5, seed=0, coverage_draws=20)
LEVEL = 0.05
PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CPU = torch.device("cpu")


def answers(labels: np.ndarray, probabilities: np.ndarray, groups: Groups | None = None) -> Answers:
    return Answers(np.asarray(labels), np.asarray(probabilities, float), 0.5, groups)


def test_a_claim_whose_test_gives_no_interval_is_told_without_one() -> None:
    row = {"attribute": "haematoxylin", "difference": -0.72, "low": None, "high": None, "p": 0.001, "claimed": True}
    told = in_words("missed", {"errors": 13, "correct": 20, "note": None, "contrasts": [row]}, 0.95)
    assert told.endswith("(haematoxylin by −0.72 sd, no interval)")
    told = in_words("missed", {"errors": 13, "correct": 20, "contrasts": [{**row, "low": -1.0, "high": -0.4}]}, 0.9)
    assert told.endswith("(haematoxylin by −0.72 sd, 90 % interval −1.00 to −0.40)")


def test_errors_come_the_most_confident_first_and_doubtful_answers_by_their_distance() -> None:
    told = answers(np.array([0, 0, 1, 1, 1]), np.array([0.6, 0.9, 0.3, 0.1, 0.9]))
    alarms, missed = wrong_answers(told)
    assert (alarms.tolist(), missed.tolist()) == ([1, 0], [3, 2])
    assert borderline(told, 2).tolist() == [0, 2]


def test_the_attributes_told_of_a_patch_are_those_furthest_from_the_usual() -> None:
    reference = np.random.default_rng(0).normal(size=(500, len(ATTRIBUTES)))
    reference[:, 0] = 3.0  # all alike: no distance can be told
    patch = np.zeros((1, len(ATTRIBUTES)))
    patch[0, [2, 5]] = 4.0, -7.0
    (told,) = telling(patch, reference)
    assert list(told) == [ATTRIBUTES[5], ATTRIBUTES[2]]
    assert told[ATTRIBUTES[5]] == pytest.approx(-7, abs=1) and told[ATTRIBUTES[2]] == pytest.approx(4, abs=1)


# --- Patterns


def split_of(n: int, seed: int, rate: float = 0.2, slides: int = 0) -> tuple[Answers, np.ndarray]:
    """Answers wrong at random, and attributes that know nothing of it: normal, skewed, mostly zero, by slide."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    wrong = rng.random(n) < rate
    attributes = rng.normal(size=(n, len(ATTRIBUTES)))
    attributes[:, 1::4] = rng.exponential(size=attributes[:, 1::4].shape)
    attributes[:, 2::4] = (rng.random(attributes[:, 2::4].shape) < 0.1) * rng.random(attributes[:, 2::4].shape)
    groups = None
    if slides:
        ids = rng.integers(0, slides, n)
        groups = Groups(ids, "slide")
        attributes[:, ::3] += rng.normal(size=(slides, attributes[:, ::3].shape[1]))[ids]
        # Slides differ in how often they are wrong, too.
        wrong = rng.random(n) < rng.beta(2, 2 / rate - 2, slides)[ids]
    return answers(labels, np.where(labels == wrong, 0.2, 0.8), groups), attributes


def claims(found: dict) -> list[tuple[str, str]]:
    return [(kind, row["attribute"]) for kind in found for row in found[kind]["contrasts"] or () if row["claimed"]]


@pytest.mark.parametrize(("slides", "by"), [(0, "patch"), (60, "slide")])
def test_planted_paleness_of_missed_tumours_is_found_with_its_sign_and_nothing_else(slides: int, by: str) -> None:
    told, attributes = split_of(600, 4, slides=slides)
    at = ATTRIBUTES.index("haematoxylin")
    attributes[:, at] = np.random.default_rng(9).normal(0.3, 0.05, 600)
    attributes[told.wrong & told.tumour, at] -= 0.06
    found = find_patterns(told, attributes, RULES, LEVEL)
    assert claims(found) == [("missed", "haematoxylin")]
    missed = found["missed"]
    row = next(row for row in missed["contrasts"] if row["claimed"])
    assert row["low"] < -1.2 < row["high"] < 0
    assert row["errors_mean"] < row["correct_mean"] and row["p_corrected"] <= LEVEL
    assert missed["by"] == by and missed["errors"] == int(np.sum(told.wrong & told.tumour))
    assert "missed tumours are weaker in haematoxylin (haematoxylin by −" in missed["words"]
    assert found["alarms"]["words"].endswith("no attribute was shown to differ")


@pytest.mark.parametrize("slides", [0, 60])
def test_where_errors_are_like_right_answers_little_is_claimed(slides: int) -> None:
    draws = 200
    wrong = sum(bool(claims(find_patterns(*split_of(300, seed, slides=slides), RULES, LEVEL))) for seed in range(draws))
    assert wrong / draws <= LEVEL + 2.33 * np.sqrt(LEVEL * (1 - LEVEL) / draws)


@pytest.mark.parametrize(("skewed", "shift", "least"), [(False, 0.5, 0.95), (True, 1.5, 0.91)])
def test_the_interval_of_a_contrast_holds_what_is_planted(skewed: bool, shift: float, least: float) -> None:
    """Where values are skewed the sd of 150 patches is itself uncertain, and a little less is held."""
    rng, held, draws, wrong = np.random.default_rng(1), 0, 400, np.arange(300) < 150
    for _ in range(draws):
        values = rng.exponential(size=300) if skewed else rng.normal(size=300)
        found = contrast(values + shift * wrong, wrong, ~wrong, None, RULES)
        assert found is not None
        held += found.low <= shift <= found.high
    assert held / draws >= least - 2.33 * np.sqrt(least * (1 - least) / draws)


def test_too_few_errors_and_attributes_without_spread_are_not_compared_and_say_why() -> None:
    told, attributes = split_of(400, 0)
    few = np.flatnonzero(told.wrong & told.tumour)[9:]
    told.probabilities[few] = 0.9
    attributes[told.labels == 0, 4] = 1.0
    found = find_patterns(told, attributes, RULES, LEVEL)
    assert found["missed"]["contrasts"] is None and "only 9 errors, at least 10" in found["missed"]["reason"]
    assert "not compared" in found["missed"]["words"]
    row = found["alarms"]["contrasts"][4]
    assert (row["difference"], row["p"], row["claimed"]) == (None, None, False) and "all alike" in row["note"]


# --- What the model looked at


class Reads(torch.nn.Module):
    """The logit is a sum over one square of the red channel, as a decisive place would make it."""

    def __init__(self, top: int, left: int, weight: float) -> None:
        super().__init__()
        self.top, self.left, self.weight = top, left, weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x[:, 0, self.top : self.top + 12, self.left : self.left + 12].mean((1, 2))


@pytest.mark.parametrize(("top", "left"), [(0, 0), (36, 60), (84, 84)])
@pytest.mark.parametrize("weight", [2.0, -2.0])
def test_the_map_points_at_the_square_that_decides(top: int, left: int, weight: float) -> None:
    patch = np.random.default_rng(0).integers(90, 110, (96, 96, 3)).astype(np.uint8)
    patch[top : top + 12, left : left + 12, 0] = 250
    effects = occlusion_map(Reads(top, left, weight), patch, PLAIN, CPU)
    assert effects.shape == (CELLS, CELLS)
    at = np.unravel_index(np.abs(effects).argmax(), effects.shape)
    assert at == (top // STRIDE_PX, left // STRIDE_PX) and np.sign(effects[at]) == np.sign(weight)


def test_squares_are_exchanged_for_tissue_that_lies_apart_and_the_rest_stays() -> None:
    rows, columns = np.mgrid[:96, :96]
    patch = np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8)
    for number, changed in enumerate(exchanged(patch)):
        row, column = divmod(number % PLACES**2, PLACES)
        inside = np.zeros((96, 96), bool)
        inside[row * 12 : row * 12 + 24, column * 12 : column * 12 + 24] = True
        assert np.array_equal(changed[~inside], patch[~inside])
        moved = np.abs(changed[inside].astype(int) - patch[inside])[:, :2]
        assert moved.min() >= 36 and np.all(moved == moved[0])


def test_a_blind_model_looks_at_nothing_and_a_share_of_nothing_is_none() -> None:
    patch = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    effects = occlusion_map(Reads(0, 0, 0.0), patch, PLAIN, CPU)
    assert not effects.any() and centre_share(effects) is None
    assert centre_share(np.ones((CELLS, CELLS))) == pytest.approx(1 / 9)


def architecture(name: str) -> Architecture:
    return {"model": name, "width": 4, "depth": 1, "hidden": 4, "dropout": 0.0, "tta": False}


@pytest.mark.parametrize("name", ["resnet", "resnet50", "mlp"])
def test_every_model_can_be_looked_into(name: str) -> None:
    torch.manual_seed(0)
    patch = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    effects = occlusion_map(build_model(architecture(name)).eval(), patch, PLAIN, CPU)
    assert np.all(np.isfinite(effects)) and effects.any()


# --- Files and pictures


@dataclass
class Case:
    """A test split on disk: raw file, store, table, attributes, a checkpoint and its answers."""

    root: Path
    raw: np.ndarray
    rows: np.ndarray
    labels: np.ndarray

    def path(self, name: str) -> str:
        return str(self.root / name)

    def measure(self) -> dict:
        names = {"predictions": "p.csv", "weights": "weights.pt", "sidecar": "weights.json", "store": "test.npy",
                 "rows": "rows.csv", "attributes": "a.npy", "attributes_valid": "a.npy"}  # fmt: skip
        paths = {role: self.path(name) for role, name in names.items()}
        out = self.path("errors.json")
        measure_errors(paths, out, rules=RULES, level=LEVEL, threads=1, provenance={"rule": "a_test"})
        return read_json(out)

    def show(self) -> None:
        names = ("errors", "attention")
        pngs, captions = ({n: self.path(n + end) for n in names} for end in (".png", ".txt"))
        show_errors(self.path("errors.json"), self.path("test.npy"), pngs, captions, label="A TEST")


N = 80


@pytest.fixture
def case(tmp_path: Path) -> Case:
    rng = np.random.default_rng(5)
    raw = rng.integers(0, 256, (N + 10, 96, 96, 3)).astype(np.uint8)
    rows = np.sort(rng.choice(N + 10, N, replace=False))
    with h5py.File(tmp_path / "x.h5", "w") as handle:
        handle["x"] = raw
    write_store(tmp_path / "test.npy", tmp_path / "x.h5", rows)
    labels = np.arange(N) % 2
    probabilities = np.clip(0.25 + 0.5 * labels + rng.normal(0, 0.25, N), 0.01, 0.99)
    slides = [f"camelyon16_train_tumor_{60 + i % 30:03}" for i in range(N)]
    write_csv(tmp_path / "rows.csv", ("row", "label", "slide", "group"),
              zip(rows.tolist(), labels.tolist(), slides, [""] * N, strict=True))  # fmt: skip
    write_csv(tmp_path / "p.csv", ("row", "label", "logit", "probability"),
              zip(rows.tolist(), labels.tolist(), [0.0] * N, probabilities.tolist(), strict=True))  # fmt: skip
    np.save(tmp_path / "a.npy", measure_attributes(raw[rows]).astype(np.float32))
    torch.manual_seed(0)
    document = {"architecture": architecture("mlp"), "preprocessing": {"mean": PLAIN.mean, "std": PLAIN.std},
                "threshold": 0.5, "digests": {}, "data_source": "x"}  # fmt: skip
    save_checkpoint(tmp_path / "weights.pt", tmp_path / "weights.json", build_model(architecture("mlp")), document)
    return Case(tmp_path, raw, rows, labels)


def found_in(picture: np.ndarray, patch: np.ndarray) -> bool:
    """Whether a picture holds a patch pixel for pixel at its whole-number scale, in any line of the montage."""
    large = patch.repeat(SCALE, 0).repeat(SCALE, 1)
    for left in range(MARGIN_PX, picture.shape[1] - SIDE_PX + 1, PITCH_PX):
        strip = picture[:, left : left + SIDE_PX]
        tops = np.flatnonzero((strip[: len(strip) - SIDE_PX + 1] == large[0]).all(axis=(1, 2)))
        if any(np.array_equal(strip[top : top + SIDE_PX], large) for top in tops):
            return True
    return False


def test_every_patch_shown_has_the_very_pixels_of_the_raw_file(case: Case) -> None:
    document = case.measure()
    case.show()
    with h5py.File(case.root / "x.h5") as handle:
        raw = handle["x"][:]
    picture = np.asarray(Image.open(case.root / "errors.png").convert("RGB"))
    shown = [told for kind in document["shown"].values() for told in kind]
    assert len(shown) > 2 * NEAR
    for told in shown:
        assert found_in(picture, raw[told["row"]])
    # The same search finds no patch that is not shown, and none whose colours are a single level off.
    assert not any(found_in(picture, raw[row]) for row in set(case.rows) - {told["row"] for told in shown})
    off = raw[shown[0]["row"]].copy()
    off[50, 50, 1] ^= 1
    assert not found_in(picture, off)
    attention = np.asarray(Image.open(case.root / "attention.png").convert("RGB"))
    for told in document["attention"]["maps"]:
        assert found_in(attention, raw[told["row"]])


def test_the_document_lists_errors_with_what_is_known_of_them(case: Case) -> None:
    document = case.measure()
    alarms = document["shown"]["false_positives"]
    assert len(alarms) == min(SHOWN, document["counts"]["false_positives"])
    assert [told["probability"] for told in alarms] == sorted((told["probability"] for told in alarms), reverse=True)
    for kind, label in (("false_positives", 0), ("false_negatives", 1)):
        for told in document["shown"][kind]:
            assert case.rows[told["place"]] == told["row"] and told["label"] == label and told["right"] is False
            assert list(told["attributes"]) == list(ATTRIBUTES) and len(told["telling"]) == 2
            assert told["hospital"] == ("RUMC" if int(told["slide"][-3:]) <= 70 else "UMCU")
    maps = [told["kind"] for told in document["attention"]["maps"]]
    assert maps.count("false_positives") == maps.count("false_negatives") == LOOKED_AT
    assert case.measure() == document


def test_the_caption_states_the_counts_and_the_picture_exists_without_errors(case: Case) -> None:
    document = case.measure()
    case.show()
    plot_error_patterns(case.path("errors.json"), case.path("c.png"), case.path("c.txt"), label="A TEST")
    caption = (case.root / "errors.txt").read_text()
    assert f"tumour on {document['counts']['false_positives']} of 40 patches without one" in caption
    said = (case.root / "c.txt").read_text()
    assert all(pattern["words"][1:] in said for pattern in document["patterns"].values())
    for kind in document["shown"]:
        document["shown"][kind] = []
    document["attention"]["maps"] = []
    write_json(case.root / "errors.json", document)
    case.show()
    assert Image.open(case.root / "errors.png").size[0] > 0


def of_other_rows(case: Case) -> None:
    table = (case.root / "rows.csv").read_text().splitlines()
    (case.root / "rows.csv").write_text("\n".join([table[0], *table[:0:-1]]) + "\n")


def without_threshold(case: Case) -> None:
    path = case.root / "weights.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "threshold": None}))


def of_fewer_patches(case: Case) -> None:
    np.save(case.root / "test.npy", case.raw[:3])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (of_other_rows, "rows are not those of"),
        (without_threshold, "threshold is null"),
        (of_fewer_patches, "3 patches for the 80"),
    ],
)
def test_files_that_do_not_belong_together_are_refused_in_one_line(
    case: Case, spoil: Callable[[Case], None], told: str
) -> None:
    spoil(case)
    with pytest.raises(InputError, match=told) as caught:
        case.measure()
    assert "\n" not in str(caught.value)
