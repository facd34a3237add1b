"""Attributes are functions of one patch and measure what they are called; an embedding is what the last layer sees."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from embed_patches import embed_patches
from measure_attributes import measure_attributes as measure_store

from pcam.attributes import (
    ATTRIBUTES,
    PIXEL_UM,
    STAINS,
    UNITS,
    measure_attributes,
    nucleus_places,
    open_attributes,
    stain_rows,
)
from pcam.checkpoint import save_checkpoint
from pcam.damage import blurred, jpeg
from pcam.files import InputError
from pcam.guard import PROPERTIES, measure_patches
from pcam.model import Architecture, Embedder, build_model
from pcam.preprocess import Preprocessing, normalise
from pcam.settings import read_config

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
AREA_MM2 = (96 * PIXEL_UM / 1000) ** 2


def value(patch: np.ndarray, name: str) -> float:
    return float(measure_attributes(patch[None])[0, ATTRIBUTES.index(name)])


def tissue(*nuclei: tuple[int, int], eosin: float = 0.15, haematoxylin: float = 0.9, radius: int = 4) -> np.ndarray:
    """A patch of plain pink tissue with round nuclei around these places (row, column)."""
    stains = np.array(list(STAINS.values()))
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    rows, columns = np.mgrid[:96, :96]
    blue = np.zeros((96, 96))
    for y, x in nuclei:
        blue[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = haematoxylin
    density = blue[..., None] * stains[0] + np.full((96, 96, 1), eosin) * stains[1]
    return np.round(256 * 10**-density - 1).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    """Noisy patches of different colour and light."""
    rng = np.random.default_rng(0)
    return rng.integers(rng.integers(0, 120, (150, 1, 1, 3)), 256, (150, 96, 96, 3)).astype(np.uint8)


def test_every_attribute_has_a_unit_and_the_schema_knows_the_same_names():
    assert list(UNITS) == list(ATTRIBUTES)
    ranges = yaml.safe_load(SCHEMA.read_text())["properties"]["slices"]["properties"]["ranges"]
    assert ranges["additionalProperties"]["properties"]["attribute"]["enum"] == list(ATTRIBUTES)


@pytest.mark.parametrize(
    ("one", "told"),
    [
        ({"attribute": "beauty", "low": 1}, r"slices\.ranges\.own\.attribute: 'beauty' is not one of \['brightness'"),
        ({"attribute": "eosin", "low": 2, "high": 1}, r"slices\.ranges\.own: low 2 is not below high 1"),
        ({"attribute": "eosin", "low": 1, "high": 1}, r"slices\.ranges\.own: low 1 is not below high 1"),
    ],
)
def test_a_range_that_cannot_be_is_refused_in_one_line(one, told):
    config = {**CONFIG, "slices": {**CONFIG["slices"], "ranges": {"own": one}}}
    with pytest.raises(InputError, match=told) as error:
        read_config(config)
    assert "\n" not in str(error.value)


def test_a_patch_alone_has_the_same_bits_as_among_others(patches):
    together = measure_attributes(patches)
    assert together.dtype == np.float32 and together.shape == (150, len(ATTRIBUTES))
    assert np.isfinite(together).all()
    for at in (0, 63, 64, 149):
        assert np.array_equal(measure_attributes(patches[at : at + 1])[0], together[at])
    assert np.array_equal(measure_attributes(patches[::-1])[::-1], together)
    assert measure_attributes(patches[:0]).shape == (0, len(ATTRIBUTES))


def test_what_the_guard_measures_too_has_its_values(patches):
    shared = [name for name in ATTRIBUTES if name in PROPERTIES]
    assert shared == ["brightness", "contrast", "saturation", "sharpness", "block_edges"]
    mine = measure_attributes(patches)[:, [ATTRIBUTES.index(name) for name in shared]]
    assert np.array_equal(mine, measure_patches(patches)[:, [PROPERTIES.index(name) for name in shared]])


def test_stains_are_found_in_the_amounts_that_were_mixed():
    rows = stain_rows()
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1)
    for amounts in ((0.3, 0.0), (0.0, 0.4), (0.5, 0.2)):
        density = np.array(amounts) @ rows[:2]
        patch = np.broadcast_to(np.round(256 * 10**-density - 1), (96, 96, 3)).astype(np.uint8)
        assert [value(patch, name) for name in STAINS] == pytest.approx(amounts, abs=0.01)


def test_tissue_is_what_has_colour():
    patch = np.full((96, 96, 3), 240, np.uint8)
    assert value(patch, "tissue_fraction") == 0
    patch[:24] = tissue()[:24]
    assert value(patch, "tissue_fraction") == pytest.approx(0.25)
    assert value(np.zeros((96, 96, 3), np.uint8), "tissue_fraction") == 0


def test_nuclei_are_counted_one_by_one():
    places = [(16, 20), (16, 60), (48, 40), (70, 75), (80, 12)]
    for n in range(len(places) + 1):
        assert value(tissue(*places[:n]), "nuclear_density") * AREA_MM2 == pytest.approx(n)


def test_a_crowd_of_nuclei_is_denser_than_a_few_and_pale_or_even_tissue_has_none():
    crowd = tissue(*((y, x) for y in range(8, 96, 12) for x in range(8, 96, 12)), radius=3)
    few = tissue(*((y, x) for y in range(16, 96, 32) for x in range(16, 96, 32)), radius=3)
    assert value(crowd, "nuclear_density") * AREA_MM2 == pytest.approx(64)
    assert value(few, "nuclear_density") * AREA_MM2 == pytest.approx(9)
    assert value(tissue((48, 48), haematoxylin=0.05), "nuclear_density") == 0
    assert value(tissue((48, 48), radius=80), "nuclear_density") == 0  # a patch of even haematoxylin is no nucleus
    assert nucleus_places(np.zeros((1, 48, 48), np.float32)).sum() == 0


def test_a_fold_raises_its_share_and_nuclei_do_not():
    """Where tissue lies double its density is twice as high."""
    rng = np.random.default_rng(0)
    patch = tissue(*rng.integers(0, 96, (30, 2)), eosin=0.35, haematoxylin=0.5)
    assert value(patch, "fold_fraction") == 0
    folded = patch.copy()
    folded[:, 36:72] = (256 * ((patch[:, 36:72] + 1.0) / 256) ** 2.5 - 1).clip(0, 255).astype(np.uint8)
    assert value(folded, "fold_fraction") == pytest.approx(36 / 96)
    for level in (0, 30, 250):
        assert value(np.full_like(patch, level), "fold_fraction") == 0


def test_blur_and_jpeg_show_in_their_attributes():
    rng = np.random.default_rng(0)
    patch = tissue(*rng.integers(0, 96, (60, 2)))
    patch = np.clip(patch + rng.normal(0, 6, patch.shape), 0, 255).astype(np.uint8)
    assert value(blurred(1.5)(rng, patch), "sharpness") < value(patch, "sharpness") - 0.2
    assert value(jpeg(20, 2)(rng, patch), "block_edges") > value(patch, "block_edges") + 0.2


def test_the_stage_streams_a_store_in_its_order(tmp_path, patches, monkeypatch):
    np.save(tmp_path / "store.npy", patches)
    monkeypatch.setattr("measure_attributes.CHUNK", 40)
    measure_store(str(tmp_path / "store.npy"), str(tmp_path / "a.npy"))
    assert np.array_equal(open_attributes(tmp_path / "a.npy", 150), measure_attributes(patches))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_foreign_or_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.npy"
    with pytest.raises(InputError, match="no such file"):
        open_attributes(path)
    np.save(path, np.zeros((3, len(ATTRIBUTES)), np.float32))
    with pytest.raises(InputError, match="attributes of 3 patches where 4 are expected"):
        open_attributes(path, 4)
    np.save(path, np.zeros((3, 2), np.float32))
    with pytest.raises(InputError, match=r"holds float32 \(3, 2\), not"):
        open_attributes(path)
    path.write_bytes(b"no array")
    with pytest.raises(InputError, match="not a file of attributes"):
        open_attributes(path)


PREPROCESSING = Preprocessing((0.7, 0.5, 0.7), (0.2, 0.2, 0.2))


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize(("model", "size"), [("resnet", 32), ("resnet50", 64), ("mlp", 4)])
def test_the_last_layer_turns_the_embedding_into_the_logit(tmp_path: Path, patches, model, size, tta):
    torch.manual_seed(0)
    architecture: Architecture = {"model": model, "width": {"resnet": 4, "resnet50": 2}.get(model, 4), "depth": 1,
                                  "hidden": 8, "dropout": 0.5, "tta": tta}  # fmt: skip
    classifier = build_model(architecture).eval()
    document = {"architecture": architecture, "preprocessing": asdict(PREPROCESSING), "threshold": 0.5,
                "digests": {}, "data_source": "sample"}  # fmt: skip
    save_checkpoint(tmp_path / "w.pt", tmp_path / "w.json", classifier, document)
    np.save(tmp_path / "s.npy", patches[:70])
    embed_patches(str(tmp_path / "w.pt"), str(tmp_path / "s.npy"), str(tmp_path / "e.npy"), threads=1)
    embedded = np.load(tmp_path / "e.npy")
    assert embedded.dtype == np.float32 and embedded.shape == (70, size)
    last = Embedder(classifier).last
    with torch.inference_mode():
        logits = classifier(normalise(torch.from_numpy(patches[:70]), PREPROCESSING))
        again = last(torch.from_numpy(embedded)).squeeze(1)
    assert again.numpy() == pytest.approx(logits.numpy(), abs=1e-4)
    assert not last._forward_pre_hooks
