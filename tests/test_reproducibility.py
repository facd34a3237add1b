"""Twins agree to the bit and a planted difference is named; each control switched off parts two trainings."""

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import audit_determinism as audit_script
import numpy as np
import pytest
import torch
import yaml
from audit_determinism import audit_determinism
from plain_text import read_plainly
from plot_determinism import plot_determinism
from predict_seed import predict_seed
from training_files import make_inputs, outputs
from twin_run import twin_run

from pcam import training
from pcam.answers_reproducibility import reproducibility_answers
from pcam.binding import unmarked
from pcam.checkpoint import load_tensors, save_tensors, tensors_digest
from pcam.determinism_audit import (
    ALL_CONTROLS,
    Trace,
    compare_traces,
    in_fresh_process,
    judge,
    observable,
    plan_trials,
    short_recipe,
)
from pcam.documents import Source, open_evidence
from pcam.files import InputError, read_csv, read_json, write_csv, write_json, write_text
from pcam.recipe import train_recipe
from pcam.rendering import in_markdown
from pcam.settings import read_train_settings
from pcam.twin import CAUSES, compare_fingerprints, read_fingerprint
from workflow import planned_jobs, snakemake, succeeded

read_plainly(globals())

SPLITS = ("train", "valid")
PROVENANCE = {"rule": "train_seed", "code": "c", "device": "a CPU", "commit": None, "dirty": None}


def train_and_predict(inputs: Path, folder: Path, rule: str) -> None:
    tables = {split: str(inputs / f"{split}.csv") for split in SPLITS}
    stores = {split: str(inputs / f"{split}.npy") for split in SPLITS}
    train_recipe(
        str(inputs / "settings.json"), stores, tables, str(inputs / "normalisation.json"), outputs(folder),
        seed=3, data_label="test", report=lambda line: None, provenance={**PROVENANCE, "rule": rule},
    )  # fmt: skip
    predict_seed(str(folder / "weights.pt"), stores["valid"], tables["valid"], str(folder / "valid.csv"), threads=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training and its twin."""
    folder = tmp_path_factory.mktemp("twins")
    make_inputs(folder / "in")
    train_and_predict(folder / "in", folder / "first", "train_seed")
    train_and_predict(folder / "in", folder / "twin", "train_twin")
    return folder


@pytest.fixture
def twins(trained: Path, tmp_path: Path) -> Path:
    """A copy of the two, for a test to change."""
    for name in ("in", "first", "twin"):
        (tmp_path / name).mkdir()
        for path in (trained / name).glob("[!.]*"):
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    return tmp_path


def compare(folder: Path, fingerprint: Path | None = None) -> dict[str, Any]:
    twin_run(
        outputs(folder / "first"), outputs(folder / "twin"),
        (str(folder / "first" / "valid.csv"), str(folder / "twin" / "valid.csv")),
        {split: str(folder / "in" / f"{split}.csv") for split in SPLITS},
        str(folder / "in" / "normalisation.json"), str(fingerprint) if fingerprint else None,
        str(folder / "twin.json"), str(folder / "fingerprint.json"), variant="baseline", provenance=PROVENANCE,
    )  # fmt: skip
    return read_json(folder / "twin.json")


def change_cell(path: Path, row: int, column: str) -> None:
    """The next representable number in one cell of a table."""
    rows = read_csv(path)
    rows[row][column] = repr(float(np.nextafter(float(rows[row][column]), np.inf)))
    write_csv(path, list(rows[0]), (line.values() for line in rows))


def test_twins_give_the_same_bits(twins: Path) -> None:
    found = compare(twins)
    assert found["same_bits"] is True and found["first_difference"] is None
    assert found["verdict"] == "the same bits, with equal versions, device, data, config and code"
    assert found["jobs"] == {"first": "train_seed", "twin": "train_twin"}
    assert found["weights"]["first"] == found["weights"]["twin"]
    weights = sum(tensor.numel() for tensor in load_tensors(twins / "first" / "weights.pt").values())
    assert found["compared"]["weights"]["values"] == weights
    assert found["compared"]["losses"]["values"] == 20
    assert found["compared"]["predictions"]["values"] == 3 * 16


def test_a_fingerprint_does_not_depend_on_where_the_run_lies(twins: Path) -> None:
    compare(twins)
    here = twins / "fingerprint.json"
    assert str(twins) not in here.read_text() and os.getcwd() not in here.read_text()
    moved = twins / "another" / "place"
    make_inputs(moved / "in")
    for name, rule in (("first", "train_seed"), ("twin", "train_twin")):
        train_and_predict(moved / "in", moved / name, rule)
    told = compare(moved, here)["teammate"]
    assert told["same_bits"] is True and told["differences"] == []


def test_one_bit_in_one_weight_is_found(twins: Path) -> None:
    path = twins / "twin" / "weights.pt"
    state = load_tensors(path)
    name = "head.weight"
    state[name][0, 1] = torch.nextafter(state[name][0, 1], torch.tensor(torch.inf))
    save_tensors(path, state)
    with pytest.raises(InputError, match=r"weights\.pt: not the weights that its sidecar describes"):
        compare(twins)
    sidecar = read_json(twins / "twin" / "weights.json")
    sidecar["digests"]["weights"] = tensors_digest(state)
    write_json(twins / "twin" / "weights.json", sidecar)
    found = compare(twins)
    assert found["verdict"].startswith("other bits in weights; unexplained: versions, device, data")
    weights = found["compared"]["weights"]
    assert weights["differing"] == 1 and 0 < weights["largest_difference"] < 1e-6
    assert found["first_difference"]["tensor"] == name
    assert [kind for kind, told in found["compared"].items() if not told["equal"]] == ["weights"]


def test_a_loss_in_step_3_is_found_with_its_place_and_size(twins: Path) -> None:
    change_cell(twins / "twin" / "steps.csv", 3, "loss")
    change_cell(twins / "twin" / "steps.csv", 7, "grad_norm")
    found = compare(twins)
    assert not found["same_bits"] and found["verdict"].startswith("other bits in losses, steps; unexplained")
    first = found["first_difference"]
    assert (first["in"], first["step"], first["epoch"], first["column"]) == ("losses", 3, 1, "loss")
    assert first["size"] == abs(float(first["first"]) - float(first["twin"])) > 0
    assert (found["compared"]["losses"]["differing"], found["compared"]["steps"]["differing"]) == (1, 2)


def test_a_prediction_is_found_and_so_is_one_that_is_missing(twins: Path) -> None:
    change_cell(twins / "twin" / "valid.csv", 5, "logit")
    found = compare(twins)
    assert found["verdict"].startswith("other bits in predictions;")
    assert (found["first_difference"]["row"], found["first_difference"]["column"]) == (105, "logit")
    rows = read_csv(twins / "first" / "valid.csv")
    write_csv(twins / "twin" / "valid.csv", list(rows[0]), (line.values() for line in rows[:-1]))
    found = compare(twins)
    assert found["compared"]["predictions"]["differing"] == 3
    assert found["first_difference"]["row"] == 115 and found["first_difference"]["size"] is None


def test_a_twin_trained_on_another_device_is_explained(twins: Path) -> None:
    change_cell(twins / "twin" / "history.csv", 0, "valid_loss")
    sidecar = read_json(twins / "twin" / "weights.json")
    sidecar["runtime"]["device"]["processor"] = "another processor"
    write_json(twins / "twin" / "weights.json", sidecar)
    verdict = compare(twins)["verdict"]
    assert verdict.startswith("other bits in history; the first difference is device (processor: ")
    assert verdict.endswith(" here, another processor there)")


# Of each cause a key, and another value of it.
PLANTED = {
    "versions": ("torch", "1.0.0"),
    "device": ("instruction_sets", ["mmx"]),
    "data": ("train_rows", "f00"),
    "config": ("settings", {"learning_rate": 0.5}),
    "code": ("digest", "f00"),
}


def plant(fingerprint: dict[str, Any], cause: str) -> None:
    key, value = PLANTED[cause]
    old = fingerprint[cause][key]
    fingerprint[cause][key] = {**old, **value} if isinstance(value, dict) else value


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("same_bits", [True, False])
def test_a_teammate_s_run_is_compared_and_the_first_cause_named(twins: Path, cause: str, same_bits: bool) -> None:
    compare(twins)
    theirs = read_json(twins / "fingerprint.json")
    for later in CAUSES[CAUSES.index(cause) :]:
        plant(theirs, later)
    if not same_bits:
        theirs["hashes"]["losses"] = "0" * 64
    write_json(twins / "theirs.json", theirs)
    told = compare(twins, twins / "theirs.json")["teammate"]
    assert told["same_bits"] is same_bits
    beginning = "the same bits, although something differs; the first is" if same_bits else "other bits in losses;"
    assert told["verdict"].startswith(beginning)
    assert f" {cause} ({PLANTED[cause][0]}" in told["verdict"]
    assert told["first_difference"]["cause"] == cause
    assert [name for name in CAUSES if name in {d["cause"] for d in told["differences"]}] == list(
        CAUSES[CAUSES.index(cause) :]
    )


def test_other_bits_without_a_cause_are_called_unexplained(twins: Path) -> None:
    compare(twins)
    here = read_json(twins / "fingerprint.json")
    there = copy.deepcopy(here)
    assert compare_fingerprints(here, there)["verdict"].startswith("the same bits, with equal versions")
    there["hashes"]["weights"] = "0" * 64
    told = compare_fingerprints(here, there)
    assert told["verdict"] == "other bits in weights; unexplained: versions, device, data, config and code are equal"
    assert told["equal"] == {"weights": False, "losses": True, "predictions": True}


@pytest.mark.parametrize(
    "content",
    [None, "{", "[]", "{}", '{"hashes": {}, "versions": 3}', "not a key"],
    ids=["missing", "damaged", "list", "empty", "number", "no hash"],
)
def test_a_fingerprint_that_is_none_gives_one_line(twins: Path, content: str | None) -> None:
    path = twins / "theirs.json"
    if content == "not a key":
        compare(twins)
        document = read_json(twins / "fingerprint.json")
        del document["hashes"]["losses"]
        content = json.dumps(document)
    if content is not None:
        write_text(path, content)
    with pytest.raises(InputError, match=re.escape(str(path))) as error:
        read_fingerprint(path)
    assert "\n" not in str(error.value)
    assert "set reproducibility.fingerprint to the fingerprint.json" in str(error.value)


def test_the_config_s_fingerprint_is_an_input_and_a_missing_one_stops_the_run(tmp_path: Path) -> None:
    config, theirs = tmp_path / "mine.yaml", tmp_path / "theirs.json"
    config.write_text(yaml.safe_dump({"reproducibility": {"fingerprint": str(theirs)}}))
    target = "results/reproducibility/twin.json"
    done = snakemake(tmp_path / "work", "--dry-run", target, config=config)
    assert done.returncode != 0
    assert f"reproducibility.fingerprint: {theirs}: no such file; give a teammate's fingerprint.json" in done.stdout
    assert "Traceback" not in done.stdout
    theirs.write_text("{}")
    jobs = planned_jobs(succeeded(snakemake(tmp_path / "work", "--dry-run", target, config=config)))
    assert [str(theirs) in job.inputs for job in jobs if job.rule == "twin_run"] == [True]
    twin = next(job for job in jobs if job.rule == "train_twin")
    assert not [path for path in twin.inputs if "test" in path]


# The audit of determinism.

CONTROLS = {
    "global seeds", "sampler generator", "worker seeding", "deterministic kernels", "thread count",
    "augmentation generator", "autotuner", "mixed precision",
}  # fmt: skip


def trace(**changes: Any) -> Trace:
    same = {"losses": [0.7, 0.6, 0.5, 0.4], "grad_norms": [1.0, 2.0, 3.0, 4.0], "weights": np.ones(3, np.float32),
            "digest": "d", "device": "cpu", "device_name": "a CPU"}  # fmt: skip
    return Trace(**{**same, **changes})


def run_audit(folder: Path, inputs: Path) -> dict[str, Any]:
    audit_determinism(
        str(inputs / "settings.json"), str(inputs / "train.npy"), str(inputs / "train.csv"),
        str(inputs / "normalisation.json"), str(folder / "determinism.csv"), str(folder / "determinism.json"),
        seed=0, patches=32, epochs=1, provenance=PROVENANCE,
    )  # fmt: skip
    return read_json(folder / "determinism.json")


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train here: starting processes takes longer than what they train. The slow test starts them."""
    monkeypatch.setattr(audit_script, "in_fresh_process", lambda function, *arguments: function(*arguments))


def check_audit(found: dict[str, Any], table: list[dict[str, str]]) -> None:
    """What the audit must show on a CPU, or it is broken."""
    rows = {row["control"]: row for row in found["controls"]}
    assert set(rows) == {ALL_CONTROLS, *CONTROLS} and next(iter(rows)) == ALL_CONTROLS
    assert rows[ALL_CONTROLS]["diverged"] is False and rows[ALL_CONTROLS]["weight_difference"] == 0
    assert found["audit_holds"] is True, found["sentence"]
    assert sum(row["diverged"] for row in rows.values()) >= 4
    drawn = ("global seeds", "sampler generator", "worker seeding", "augmentation generator", "mixed precision")
    for control in drawn:
        assert rows[control]["diverged"] is True and rows[control]["first_step"] is not None, control
        assert rows[control]["loss_difference"] > 0 and rows[control]["weight_difference"] > 0, control
    assert rows["autotuner"]["observable"] == "not observable on this device"
    assert [row["control"] for row in table] == list(rows)
    assert {row["diverged"] for row in table} == {"yes", "no"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="these expectations are a CPU's")
def test_controls_switched_off_part_two_trainings_and_all_on_do_not(
    trained: Path, tmp_path: Path, in_this_process: None
) -> None:
    found = run_audit(tmp_path, trained / "in")
    check_audit(found, read_csv(tmp_path / "determinism.csv"))
    assert {run["weights"] for run in found["traces"][ALL_CONTROLS].values()} == {
        run["weights"] for run in found["traces"]["autotuner"].values()
    }


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="these expectations are a CPU's")
def test_in_fresh_processes_it_is_the_same(trained: Path, tmp_path: Path) -> None:
    check_audit(run_audit(tmp_path, trained / "in"), read_csv(tmp_path / "determinism.csv"))


def test_a_source_that_no_control_covers_breaks_the_audit_which_says_so_and_ends_well(
    trained: Path, tmp_path: Path, in_this_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "seed_dropout", lambda *arguments: torch.seed())
    found = run_audit(tmp_path, trained / "in")
    assert found["audit_holds"] is False
    assert "with all controls on, so a control is missing" in found["sentence"]


def test_an_audit_that_sees_less_than_four_divergences_says_it_is_broken() -> None:
    def rows(*diverged: bool) -> list[dict[str, Any]]:
        return [{"diverged": one, "first_step": 2} for one in diverged]

    assert judge(rows(False, True, True, True, True, False))[0] is True
    holds, sentence = judge(rows(False, True, True, True, False, False))
    assert holds is False and sentence.startswith("only 3 of 5 controls")
    assert judge(rows(True, True, True, True, True, True)) == (
        False, "two trainings parted at step 2 with all controls on, so a control is missing"
    )  # fmt: skip


def test_the_first_step_that_parts_is_told_whatever_parts() -> None:
    assert compare_traces(trace(), trace()) == {
        "diverged": False, "first_step": None, "steps": 4, "weight_difference": 0.0, "loss_difference": 0.0
    }  # fmt: skip
    later = compare_traces(trace(), trace(losses=[0.7, 0.6, 0.5, float(np.nextafter(0.4, 1))]))
    assert later["diverged"] is True and later["first_step"] == 3 and later["loss_difference"] > 0
    norm = compare_traces(trace(), trace(grad_norms=[1.0, 2.5, 3.0, 4.0]))
    assert (norm["first_step"], norm["loss_difference"]) == (1, 0.0)
    last = compare_traces(trace(), trace(weights=np.array([1, 1, 3], np.float32), digest="other"))
    assert (last["diverged"], last["first_step"], last["weight_difference"]) == (True, 3, 2.0)


def test_what_a_device_lacks_is_told_from_what_was_not_seen() -> None:
    assert observable("autotuner", False, "cpu") == "not observable on this device"
    assert observable("autotuner", False, "cuda") == "nothing seen"
    assert observable("thread count", False, "cuda") == "not observable on this device"
    assert observable("thread count", False, "cpu") == "nothing seen"
    assert observable("deterministic kernels", True, "cpu") == "yes"


def test_the_audit_s_recipe_gives_every_control_something_to_control(trained: Path) -> None:
    base = read_train_settings(trained / "in" / "settings.json")
    quiet = {**vars(base), "dropout": 0.0, "augment": False, "workers": 0, "batch_size": 512}
    recipe = short_recipe(type(base)(**quiet), patches=32, epochs=1)
    assert recipe.dropout > 0 and recipe.augment and recipe.workers > 0 and recipe.batch_size == 4
    for trial in plan_trials(recipe):
        first, second = trial.arms
        if trial.control in ("thread count", "mixed precision"):
            assert first.recipe != second.recipe and first.controls == second.controls
        else:
            assert first == second and (
                trial.control == ALL_CONTROLS or first.controls != plan_trials(recipe)[0].arms[0].controls
            )


def _refuse() -> None:
    raise InputError("file: value; way out")


def _die() -> None:
    os.kill(os.getpid(), 9)


def test_a_fresh_process_hands_on_its_mistake_and_its_death() -> None:
    with pytest.raises(InputError, match="file: value; way out"):
        in_fresh_process(_refuse)
    with pytest.raises(RuntimeError, match="exit code -9"):
        in_fresh_process(_die)
    assert in_fresh_process(os.getpid) != os.getpid()


# The figure and the journal's answers.


def summary(diverged: bool = True) -> dict[str, Any]:
    losses = [0.7, 0.6, 0.5]
    others = [0.7, 0.61, 0.5] if diverged else losses
    row = {"state_a": "on", "state_b": "on", "steps": 3, "device": "a CPU", "runs": 2}
    on = {**row, "control": ALL_CONTROLS, "observable": "reference", "diverged": False, "first_step": None,
          "weight_difference": 0.0, "loss_difference": 0.0}  # fmt: skip
    off = {**on, "control": "thread count", "state_a": "1", "state_b": "2", "observable": "yes", "diverged": True,
           "first_step": 1, "weight_difference": 2.5e-7, "loss_difference": 0.01}  # fmt: skip
    hidden = {**on, "control": "autotuner", "observable": "not observable on this device"}
    runs = {name: {"a": {"losses": losses}, "b": {"losses": losses}} for name in (ALL_CONTROLS, "autotuner")}
    runs["thread count"] = {"a": {"losses": losses}, "b": {"losses": others}}
    return {"controls": [on, off if diverged else {**on, "control": "thread count"}, hidden], "traces": runs,
            "audit_holds": diverged, "sentence": "one of two parted", "torch_device": "cpu", "seed": 0, "patches": 32,
            "recipe": {"model": "resnet", "width": 4, "epochs": 1, "dropout": 0.2}}  # fmt: skip


@pytest.mark.parametrize("diverged", [True, False])
def test_the_figure_says_what_could_not_be_observed_and_whether_the_audit_holds(tmp_path: Path, diverged: bool) -> None:
    write_json(tmp_path / "s.json", summary(diverged))
    plot_determinism(str(tmp_path / "s.json"), str(tmp_path / "a.png"), str(tmp_path / "a.txt"), label="TEST")
    caption = (tmp_path / "a.txt").read_text()
    assert "one of two parted" in caption and "Not observable on this device: autotuner." in caption
    assert ("The audit does not hold." in caption) is not diverged
    assert (tmp_path / "a.png").stat().st_size > 10_000


def answers(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """The answers from these documents; those that are left out are missing."""
    sources = {name: Source(str(folder / f"{name}.json"), name) for name in ("determinism_runs", "twin", "fingerprint")}
    sources["determinism"] = Source(str(folder / "determinism.csv"), "audit_determinism")
    for name, document in found.items():
        if name == "determinism":
            write_csv(sources[name].path, list(document[0]), (row.values() for row in document))
        else:
            write_json(sources[name].path, document)
    return reproducibility_answers({name: open_evidence(source) for name, source in sources.items()})


def test_the_journal_tells_effects_sizes_and_a_broken_audit_in_bold(tmp_path: Path) -> None:
    document = summary()
    table = [{**row, "diverged": "yes" if row["diverged"] else "no"} for row in document["controls"]]
    told = answers(tmp_path, {"determinism_runs": document, "determinism": table})
    effects = {row[0]: row[2] for row in told["control_table"]}
    assert effects["thread count"] == "part at step 1 (1 against 2); losses up to 1.0e-02, weights up to 2.5e-07 apart"
    assert effects["autotuner"].endswith("not observable on this device")
    assert effects[ALL_CONTROLS] == "the same bits in all 3 steps and in the weights"
    assert told["controls_sentence"].endswith("One of two parted.") and "**" not in told["controls_sentence"]
    assert "was not measured on this device" in told["gpu_sentence"]
    broken = answers(tmp_path, {"determinism_runs": {**document, "audit_holds": False}})
    assert "**The audit does not hold: one of two parted.**" in broken["controls_sentence"]
    for name in ("source_table", "hash_table", "twin_table", "teammate_sentence"):
        assert unmarked(str(told[name])).startswith("missing: "), name


def test_the_journal_tells_the_twin_s_verdict_and_where_it_parts(twins: Path, tmp_path: Path) -> None:
    change_cell(twins / "twin" / "steps.csv", 3, "loss")
    compare(twins)
    theirs = read_json(twins / "fingerprint.json")
    found = {"fingerprint": theirs, "twin": compare(twins)}
    told = answers(tmp_path / "a", found)
    text = " ".join(map(str, map(in_markdown, told["twin_sentences"])))
    assert "jobs train_seed and train_twin" in text and "**other bits in losses, steps; unexplained" in text
    assert "They part first in losses, loss of epoch 1, step 3, by " in text
    assert "reproducibility.fingerprint is null" in told["teammate_sentence"]
    assert theirs["hashes"]["weights"] in str(told["hash_table"][0][1])
    plant(theirs, "device")
    write_json(twins / "theirs.json", theirs)
    told = answers(tmp_path / "b", {**found, "twin": compare(twins, twins / "theirs.json")})
    assert "**the same bits, although something differs; the first is device" in told["teammate_sentence"]
