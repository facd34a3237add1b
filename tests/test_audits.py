"""Policy and gate: what follows from what the audits found; and bad files stop every audit with one line."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from audit_checksums import audit_checksums
from audit_data import DROP, PROVENANCE, Data
from audit_leakage import audit_leakage
from audit_poison import audit_poison
from audit_storage import audit_storage
from conftest import ROOT
from gate_audit import gate_audit
from survey_patches import survey_patches

from pcam import policy
from pcam.facts import FILE_SPLITS
from pcam.files import InputError, read_csv, read_json, write_json
from pcam.hdf5 import write_labels, write_patches
from pcam.poison import POISON_KINDS


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


# ---- policy


def line(split: str, row: int, kind: str, partners: str = "", content: str = "") -> dict[str, str]:
    return {"split": split, "row": str(row), "kind": kind, "group": "", "partner_splits": partners, "content": content}


def gone(lines: list[dict[str, str]], **actions: str) -> set[tuple[str, int]]:
    _, dropped = policy.flagged_and_dropped(lines, {**DROP, **actions})
    return set().union(*dropped.values())


def test_poison_goes_from_train_and_valid_and_from_test_only_where_it_is_no_picture_at_all() -> None:
    for kind in (*POISON_KINDS, "fractional"):
        lines = [line(split, 3, kind) for split in FILE_SPLITS]
        from_test = {("test", 3)} if kind in {"non_finite", "out_of_range", "fractional"} else set()
        assert gone(lines, **{kind: "drop"}) == {("train", 3), ("valid", 3)} | from_test
        assert gone(lines, **{kind: "keep"}) == set()


def test_of_exact_duplicates_the_first_of_each_set_and_split_stays() -> None:
    lines = [line("train", row, "exact_duplicate", "train", "0") for row in (9, 4, 11)]
    lines += [line("train", row, "exact_duplicate", "train", "1") for row in (2, 5)]
    lines += [line(split, row, "exact_duplicate", split, "0") for split in ("valid", "test") for row in (7, 8)]
    assert gone(lines) == {("train", 9), ("train", 11), ("train", 5), ("valid", 8)}


@pytest.mark.parametrize("kind", policy.LEAKS)
def test_of_a_pair_across_splits_the_earlier_one_goes(kind: str) -> None:
    lines = [
        *(line("train", 0, kind, "valid"), line("valid", 0, kind, "train")),
        *(line("train", 1, kind, "test"), line("test", 1, kind, "train")),
        *(line("valid", 2, kind, "test"), line("test", 2, kind, "valid")),
        *(line("train", 3, kind, "train;valid"), line("valid", 3, kind, "train;valid")),
    ]
    assert gone(lines) == {("train", 0), ("train", 1), ("valid", 2), ("train", 3)}


def test_a_set_of_copies_never_loses_its_last_one_to_the_rule_for_copies() -> None:
    lines = [line("train", row, "exact_duplicate", "train", "0") for row in (1, 2, 3)]
    suspect = [line("train", 1, "label_suspect")]
    assert gone([*lines, *suspect], label_suspect="drop") == {("train", 1), ("train", 3)}
    assert gone([*lines, *suspect]) == {("train", 2), ("train", 3)}


def test_overlaps_within_one_split_stay() -> None:
    assert gone([line(split, row, "overlap", split) for split in FILE_SPLITS for row in (0, 1)]) == set()


def test_conflicting_labels_all_go_but_for_test() -> None:
    lines = [line(split, row, "label_conflict", "train") for split in FILE_SPLITS for row in (0, 1)]
    assert gone(lines) == {("train", 0), ("train", 1), ("valid", 0), ("valid", 1)}


def test_the_table_holds_every_patch_with_its_defects_in_fixed_order(data: Data) -> None:
    train = data.x["train"].astype(np.float32)
    train[[0, 2]] = 0
    train[4] = data.x["test"][5]
    train[5] = train[4]
    data.x["train"] = train
    data.write().audit()
    verdicts = data.judge()
    assert data.defects() == {
        ("train", 0): "blackout;exact_duplicate",
        ("train", 2): "blackout;exact_duplicate",
        ("train", 4): "label_conflict;exact_duplicate;cross_split_duplicate",
        ("train", 5): "label_conflict;exact_duplicate;cross_split_duplicate",
        ("test", 5): "label_conflict;cross_split_duplicate",
    }
    assert data.dropped() == {("train", 0), ("train", 2), ("train", 4), ("train", 5)}
    table = read_csv(data.result("patches.csv"))
    assert [(line["split"], int(line["row"])) for line in table] == [(s, i) for s in FILE_SPLITS for i in range(12)]
    assert [line["label"] for line in table[:2]] == ["0", "1"]
    assert {kind: v["verdict"] for kind, v in verdicts.items() if kind != "provenance"} == {
        **{kind: "pass" for kind in ("published_file", "swapped_split", "same_content", "emptied_class")},
        **{kind: "pass" for kind in (*policy.DEFECTS, *policy.OF_SPLITS)},
        **{kind: "unknown" for kind in ("slide_overlap", "coordinate_overlap")},
        **{kind: "repaired" for kind in ("float_storage", "blackout", "label_conflict")},
        **{kind: "repaired" for kind in ("exact_duplicate", "cross_split_duplicate")},
    }
    assert (verdicts["blackout"]["n"], verdicts["blackout"]["dropped"]) == (2, 2)
    assert verdicts["blackout"]["reason"] == "2 of 36 patches (train 2); 2 dropped (train 2)"
    assert "2 dropped (train 2); 1 stay, flagged (test 1" in verdicts["label_conflict"]["reason"]
    duplicates = verdicts["exact_duplicate"]
    assert (duplicates["n"], duplicates["dropped"]) == (4, 2)
    assert duplicates["reason"].endswith("2 dropped (train 2); 2 dropped for another defect")
    gate_audit(data.result("verdicts.json"), data.result("gate.json"), provenance=PROVENANCE)
    gate = read_json(data.result("gate.json"))
    assert gate["open"] is True and gate["kinds"]["blackout"] == "repaired" and gate["provenance"] == PROVENANCE


def test_blank_patches_take_no_tissue_with_them(data: Data) -> None:
    data.x["train"][0] = 0
    data.x["test"][0] = 0
    data.write().audit()
    data.judge({**DROP, "blackout": "keep"}, {"blackout": "a test"})
    assert data.dropped() == {("train", 0)}


def test_keep_needs_a_waiver_and_an_absent_action_fails(data: Data) -> None:
    data.x["train"][0] = 255
    data.write().audit()
    assert data.judge({**DROP, "washout": "keep"})["washout"]["verdict"] == "fail"
    waived = data.judge({**DROP, "washout": "keep"}, {"washout": "glass is real", "overlap": "none there"})
    assert waived["washout"]["verdict"] == "waived" and "glass is real" in waived["washout"]["reason"]
    assert waived["overlap"]["verdict"] == "pass"
    assert data.dropped() == set()
    without = {kind: action for kind, action in DROP.items() if kind != "washout"}
    failed = data.judge(without, {"washout": "a reason alone is no action"})["washout"]
    assert failed["verdict"] == "fail" and "audit.policy has no entry" in failed["reason"]


@pytest.mark.parametrize(
    ("split", "value", "verdict"),
    [
        ("train", 0.5, "repaired"),
        ("train", np.nan, "repaired"),
        ("valid", 1e5, "repaired"),
        ("test", np.nan, "repaired"),
        ("test", 0.5, "repaired"),
    ],
)
def test_float_storage_is_repaired_only_when_every_kept_patch_fits_uint8(
    data: Data, split: str, value: float, verdict: str
) -> None:
    data.x[split] = data.x[split].astype(np.float32)
    data.x[split][3, 8, 8, 1] = value
    data.write().audit()
    assert data.judge()["float_storage"]["verdict"] == verdict
    unfit = data.judge({**DROP, "fractional": "keep"}, {"fractional": "a test"})["float_storage"]
    assert unfit["verdict"] == ("fail" if value == 0.5 else verdict)
    assert data.judge({**DROP, "float_storage": "keep"})["float_storage"]["verdict"] == "fail"
    waived = data.judge({**DROP, "float_storage": "keep"}, {"float_storage": "a test"})
    assert waived["float_storage"]["verdict"] == "waived"


def test_a_policy_that_empties_a_class_fails(data: Data) -> None:
    data.x["train"][[1, 3, 5, 7, 9, 11]] = 0
    data.write().audit()
    verdict = data.judge()["emptied_class"]
    assert verdict["verdict"] == "fail" and "train class 1" in verdict["reason"]


def test_an_action_that_a_kind_does_not_have_is_refused(data: Data) -> None:
    data.write().audit()
    with pytest.raises(InputError, match=r"audit\.policy\.blackout is 'convert'; allowed are drop and keep"):
        data.judge({**DROP, "blackout": "convert"})


def test_the_gate_names_every_failed_kind_and_writes_nothing(data: Data) -> None:
    data.x["train"][0] = 255
    data.x["valid"][1] = 0
    data.write().audit()
    data.judge({**DROP, "washout": "keep", "blackout": "keep"})
    with pytest.raises(InputError) as caught:
        gate_audit(data.result("verdicts.json"), data.result("gate.json"), provenance=PROVENANCE)
    told = str(caught.value)
    assert "\n" not in told and "2 of " in told
    for kind in ("washout", "blackout"):
        assert f"audit.policy.{kind}: drop" in told and f"audit.waive.{kind}" in told
    assert not Path(data.result("gate.json")).exists()


def test_a_suspicion_is_kept_without_a_waiver_and_a_proof_is_not() -> None:
    found = {("train", 3)}
    for kind in policy.DEFECTS:
        told = policy.judge_patches(kind, found, set(), set(), 10, {**DROP, kind: "keep"}, {})
        assert told["verdict"] == ("kept" if kind in policy.SUSPICIONS else "fail"), kind


def test_what_concerns_whole_splits_is_told_in_words() -> None:
    by_class = [
        {"split": "train", "kind": "blackout", "n": [40, 2], "of": [500, 400], "depends": True},
        {"split": "train", "kind": "washout", "n": [4, 4], "of": [500, 400], "depends": False},
    ]
    shifts = [
        {"kind": "prior_shift", "splits": ["train", "valid"], "found": True, "effect": 0.333},
        {"kind": "covariate_shift", "splits": ["train", "valid"], "found": None, "effect": None},
    ]
    told = policy.found_in_splits(by_class, shifts)
    assert told["class_dependent_damage"] == ["blackout in train: 40 of 500 of class 0 and 2 of 400 of class 1"]
    assert told["prior_shift"] == ["train and valid: difference in the share of tumour 0.333"]
    assert told["covariate_shift"] == []
    assert policy.judge_splits("prior_shift", told["prior_shift"], shifts, DROP, {})["verdict"] == "kept"
    assert policy.judge_splits("class_dependent_damage", [], shifts, DROP, {})["verdict"] == "pass"
    untold = policy.judge_splits("covariate_shift", [], shifts, DROP, {})
    assert untold["verdict"] == "unknown" and "train and valid" in untold["reason"]


def test_what_could_not_be_looked_for_everywhere_does_not_pass(data: Data) -> None:
    data.meta["train"] = [("a", 200 * k, 0) for k in range(12)]
    data.write().audit()
    labels = {"train": "none claimed", "valid": "cannot tell", "test": "unlabelled"}
    write_json(data.result("labels.json"), {"splits": {split: {"verdict": told} for split, told in labels.items()}})
    verdicts = data.judge()
    for kind, told in (("slide_overlap", "known slides"), ("label_suspect", "labels or a model")):
        assert verdicts[kind]["verdict"] == "unknown"
        assert "in valid, test: no " + told in verdicts[kind]["reason"], verdicts[kind]
    gate_audit(data.result("verdicts.json"), data.result("gate.json"), provenance=PROVENANCE)


# ---- who may know the truth


def test_no_audit_knows_the_truth_or_the_policy() -> None:
    scripts = ROOT / "workflow" / "scripts"
    told = ("audits", "survey", "leakage", "overlaps", "duplicates", "slides", "poison", "stamps", "rectangles")
    sources = [*scripts.glob("audit_*.py"), *(scripts / "pcam" / f"{name}.py" for name in told)]
    others = [scripts / "apply_policy.py", scripts / "gate_audit.py", scripts / "pcam" / "policy.py"]
    assert all("planted.csv" not in path.read_text() for path in (*sources, *others))
    assert all(word not in path.read_text() for path in sources for word in ("waive", "import policy", "pcam.policy"))
    rules = (ROOT / "workflow" / "rules" / "audit.smk").read_text().split("\nrule ")
    audit_rules = [rule for rule in rules if rule.startswith("audit_")]
    assert len(audit_rules) == 6
    assert all(word not in rule for rule in audit_rules for word in ("planted.csv", "TRUTH", "policy", "waive"))


# ---- bad input


def spoil_truncated(data: Data) -> None:
    path = Path(data.path("valid", "x.h5"))
    path.write_bytes(path.read_bytes()[:100_000])


def spoil_html(data: Data) -> None:
    Path(data.path("train", "x.h5")).write_text("<!DOCTYPE html><html>quota exceeded</html>")


def spoil_key(data: Data) -> None:
    with h5py.File(data.path("train", "x.h5"), "w") as handle:
        handle["images"] = data.x["train"]


def spoil_shape(data: Data) -> None:
    write_patches(data.path("test", "x.h5"), data.x["test"][:, :64])


def spoil_dtype(data: Data) -> None:
    write_patches(data.path("test", "x.h5"), data.x["test"].astype(np.int32))


def spoil_labels(data: Data) -> None:
    write_labels(data.path("valid", "y.h5"), np.arange(12), 12)


def spoil_length(data: Data) -> None:
    write_labels(data.path("valid", "y.h5"), np.arange(11) % 2, 11)


def spoil_class(data: Data) -> None:
    write_labels(data.path("train", "y.h5"), np.zeros(12), 12)


def spoil_missing(data: Data) -> None:
    Path(data.path("test", "y.h5")).unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_truncated, "valid_x.h5: not a readable HDF5 file"),
        (spoil_html, "train_x.h5: not a readable HDF5 file"),
        (spoil_key, "no dataset 'x'; it holds images"),
        (spoil_shape, "x has shape"),
        (spoil_dtype, "x has dtype int32"),
        (spoil_labels, "label 2 in row 2"),
        (spoil_length, "11 labels for the 12 patches"),
        (spoil_class, "every label is 0"),
        (spoil_missing, "test_y.h5: no such file"),
    ],
)
def test_a_bad_file_stops_each_audit_with_one_line_and_leaves_nothing(data: Data, spoil, told: str) -> None:
    data.write()
    spoil(data)
    pair = data.paths("x.h5"), data.paths("y.h5")
    out = data.result("findings.json"), data.result("rows.csv")
    alone = {"processes": 1, "provenance": PROVENANCE}
    listed, metas = {"rows_listed": 5, **alone}, data.paths("meta.csv")
    more = {audit_storage: [], audit_poison: ["no survey", "no rows"], audit_leakage: [metas, "no survey"]}
    for audit, between in more.items():
        with pytest.raises(InputError) as caught:
            audit(*pair, *between, *out, **listed)
        assert told in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError):
        audit_checksums(*pair, metas, None, out[0], **alone)
    if spoil in (spoil_truncated, spoil_html, spoil_key, spoil_shape, spoil_dtype):
        with pytest.raises(InputError, match=told.partition(" ")[0]):
            survey_patches(data.paths("x.h5"), str(data.folder / "results" / "survey"), processes=1)
    assert not Path(data.result("")).exists()


def test_a_verdict_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.json"
    path.write_text("{")
    with pytest.raises(InputError, match="not a JSON file"):
        gate_audit(str(path), str(tmp_path / "gate.json"), provenance=PROVENANCE)
    write_json(path, {"blackout": {"verdict": "unheard of", "reason": "?"}, "provenance": {}})
    with pytest.raises(InputError, match="blackout"):
        gate_audit(str(path), str(tmp_path / "gate.json"), provenance=PROVENANCE)
