"""A logged run is rebuilt and compared: equal bits are told so, planted differences are named, mistakes are a line."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reproduce_run as script
import torch
import yaml
from conftest import ROOT
from predict_seed import predict_seed
from reproduce_run import UNFINISHED, reproduce_run
from training_files import make_inputs, outputs

from pcam.checkpoint import load_tensors, save_tensors, tensors_digest
from pcam.facts import FILE_SPLITS, pcam_filename
from pcam.files import InputError, read_json, write_csv, write_json
from pcam.recipe import train_recipe
from pcam.reproduction import lock_rebuild, logged_metrics, rebuild, rebuilt_config, rebuilt_metrics
from pcam.settings import read_config
from pcam.tracking import LoggedRun
from workflow import planned_jobs, snakemake, start_snakemake, succeeded

RUN = "0123456789abcdef0123456789abcdef"
SPLITS = ("valid", "test")
TRAINED = {"rule": "train_seed", "code": "c", "device": "a CPU", "commit": "a" * 40, "dirty": False}
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
OWN = Path("results") / "train" / "baseline" / "seed-3"
PREDICTED = Path("results") / "predict" / "baseline" / "seed-3"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workflow's folder with one training and its predictions."""
    folder = tmp_path_factory.mktemp("trained")
    inputs = make_inputs(folder / "in")
    stores, tables = ({s: str(inputs / f"{s}.{end}") for s in ("train", "valid")} for end in ("npy", "csv"))
    (folder / OWN).mkdir(parents=True)
    train_recipe(
        str(inputs / "settings.json"), stores, tables, str(inputs / "normalisation.json"), outputs(folder / OWN),
        seed=3, data_label="test", report=lambda line: None, provenance=TRAINED,
    )  # fmt: skip
    for split in SPLITS:
        out = str(folder / PREDICTED / f"{split}.csv")
        predict_seed(str(folder / OWN / "weights.pt"), stores["valid"], tables["valid"], out, threads=1)
    return folder


@pytest.fixture
def logged(trained: Path) -> LoggedRun:
    """That training as the tracker gives it."""
    sidecar = read_json(trained / OWN / "weights.json")
    paths = {split: trained / PREDICTED / f"{split}.csv" for split in SPLITS}
    scores = rebuilt_metrics(sidecar, paths, read_config(CONFIG).threshold, 10)
    metrics = {f"{split}_final_{name}": value for split in SPLITS for name, value in scores[split].items()}
    return LoggedRun(
        run_id=RUN, name="baseline/seed-3", kind="train", status="FINISHED", config=CONFIG,
        settings=sidecar["settings"], seed=3, digests=sidecar["digests"], provenance=TRAINED,
        runtime=sidecar["runtime"], metrics={name: value for name, value in metrics.items() if value is not None},
        sidecar=sidecar,
    )  # fmt: skip


Change = Callable[[Path], None]


@pytest.fixture
def reproduce(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[LoggedRun, Change], dict[str, Any]]:
    """The verdict on a run whose rebuild gives the trained files, with `change` made to them."""

    def judged(run: LoggedRun, change: Change = lambda rebuilt: None) -> dict[str, Any]:
        def fake_rebuild(folder: Path, config: Path, targets: list[str], log: Path, **_: object) -> None:
            for path in [*(trained / "results").rglob("*.*")]:
                copied = folder / path.relative_to(trained)
                copied.parent.mkdir(parents=True, exist_ok=True)
                copied.write_bytes(path.read_bytes())
            change(folder)
            assert all((folder / target).is_file() for target in targets)

        monkeypatch.setattr(script, "read_run", lambda folder, run_id: run)
        monkeypatch.setattr(script, "rebuild", fake_rebuild)
        monkeypatch.chdir(trained)
        path = tmp_path / "reproduce" / RUN / "verdict.json"
        reproduce_run(
            "results/tracking", str(path), run_id=RUN, data_root=str(tmp_path / "data"), state={"commit": None},
            cores=1, provenance=TRAINED,
        )  # fmt: skip
        return read_json(path)

    return judged


def change_sidecar(**values: Any) -> Change:
    """Change keys of the rebuilt sidecar, dots leading inwards."""

    def change(rebuilt: Path) -> None:
        path = rebuilt / OWN / "weights.json"
        write_json(path, with_values(read_json(path), values))

    return change


def with_values(document: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    for keys, value in values.items():
        *path, last = keys.split("__")
        inner = changed
        for key in path:
            inner = inner[key]
        inner[last] = value
    return changed


def test_a_run_rebuilt_with_the_same_bits_is_told_so(logged: LoggedRun, reproduce: Any, trained: Path) -> None:
    found = reproduce(logged)
    assert found["same_bits"] is True and found["causes"] == []
    assert found["verdict"] == "the same bits, with equal versions, device, data, config and code"
    weights = sum(tensor.numel() for tensor in load_tensors(trained / OWN / "weights.pt").values())
    assert (found["weights"]["values"], found["weights"]["differing"]) == (weights, 0)
    assert found["weights"]["logged"] == found["weights"]["rebuilt"] == logged.digests["weights"]
    for split in SPLITS:
        assert found["metrics"][split]["roc_auc"]["equal"] and found["metrics"][split]["f_beta"]["equal"]
    assert (found["run_id"], found["name"], found["kind"]) == (RUN, "baseline/seed-3", "train")


def test_a_logged_metric_that_the_rebuilt_run_lacks_is_told(logged: LoggedRun, reproduce: Any) -> None:
    found = reproduce(replace(logged, metrics={**logged.metrics, "test_final_gini": 0.5}))
    assert found["same_bits"] is True and found["not_compared"] == ["test_final_gini"]
    assert found["verdict"].endswith("; not compared, because the rebuilt run has none: test_final_gini")


def test_one_bit_in_one_rebuilt_weight_is_found_and_unexplained(logged: LoggedRun, reproduce: Any) -> None:
    def change(rebuilt: Path) -> None:
        path = rebuilt / OWN / "weights.pt"
        state = load_tensors(path)
        state["head.weight"].view(-1)[0] = torch.nextafter(state["head.weight"].view(-1)[0], torch.tensor(9.0))
        save_tensors(path, state)
        change_sidecar(digests__weights=tensors_digest(state))(rebuilt)

    found = reproduce(logged, change)
    assert found["same_bits"] is False
    assert found["verdict"].startswith("other bits in weights; unexplained")
    assert found["weights"]["differing"] == 1 and 0 < found["weights"]["largest_difference"] < 1e-6
    assert found["weights"]["first_difference"]["tensor"] == "head.weight"


def test_without_the_logged_weights_they_are_compared_by_digest(
    logged: LoggedRun, reproduce: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "RESULTS", tmp_path / "elsewhere")
    other = replace(logged, sidecar=with_values(logged.sidecar, {"digests__weights": "0" * 64}))
    for run, equal in ((logged, True), (other, False)):
        weights = reproduce(run)["weights"]
        assert weights["equal"] is equal and weights["differing"] is None
        assert "not at hand" in weights["note"]


def test_one_prediction_that_differs_is_found_in_the_metrics(logged: LoggedRun, reproduce: Any) -> None:
    def change(rebuilt: Path) -> None:
        path = rebuilt / PREDICTED / "test.csv"
        header, first, *lines = path.read_text().splitlines()
        cells = first.split(",")
        cells[3] = repr(float(np.nextafter(float(cells[3]), 0.5) + 1e-9))
        path.write_text("\n".join([header, ",".join(cells), *lines]) + "\n")

    found = reproduce(logged, change)
    assert found["same_bits"] is False and found["weights"]["equal"] is True
    assert found["verdict"].startswith("other bits in metrics on test; unexplained")
    assert found["metrics"]["test"]["log_loss"]["equal"] is False
    assert all(metric["equal"] for metric in found["metrics"]["valid"].values())


@pytest.mark.parametrize(
    ("planted", "cause", "what", "value"),
    [
        ({"runtime__versions__torch": "0.0.1"}, "versions", "torch", "0.0.1"),
        ({"runtime__device__threads": 64}, "device", "threads", 64),
        ({"digests__data": "0" * 64}, "data", "digest", "0" * 64),
        ({"settings__dropout": 0.75}, "config", "settings.dropout", 0.75),
        ({"digests__code": "abcd"}, "code", "digest", "abcd"),
        ({"provenance__commit": "b" * 40}, "code", "commit", "b" * 40),
        ({"provenance__dirty": True}, "code", "uncommitted changes", True),
    ],
)
def test_a_planted_cause_is_named_even_when_the_bits_are_the_same(
    logged: LoggedRun, reproduce: Any, planted: dict[str, Any], cause: str, what: str, value: Any
) -> None:
    found = reproduce(logged, change_sidecar(**planted))
    assert found["same_bits"] is True
    assert [(c["cause"], c["what"], c["now"]) for c in found["causes"]] == [(cause, what, value)]
    assert f"the first is {cause} ({what}: {str(value)[:60]} now" in found["verdict"]


def test_of_several_causes_the_first_is_told_in_full_and_the_others_by_name(logged: LoggedRun, reproduce: Any) -> None:
    found = reproduce(logged, change_sidecar(provenance__commit="b" * 40, runtime__versions__torch="0.0.1"))
    assert "the first is versions (torch: 0.0.1 now" in found["verdict"]
    assert found["verdict"].endswith("; also different: code (commit)")


def test_uncommitted_changes_on_both_sides_are_told(logged: LoggedRun, reproduce: Any) -> None:
    dirty = {"provenance__dirty": True}
    found = reproduce(replace(logged, sidecar=with_values(logged.sidecar, dirty)), change_sidecar(**dirty))
    assert found["causes"] == [] and "both ran with uncommitted changes" in found["verdict"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "search", "kind": "search"}, "is of kind search; give the id of a training, a trial or the champion"),
        ({"name": "round-0/trial-1", "kind": "trial", "status": "FAILED"}, "is a failed trial, without weights"),
    ],
)
def test_a_run_that_cannot_be_rebuilt_is_one_clear_line(
    logged: LoggedRun, reproduce: Any, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told) as raised:
        reproduce(replace(logged, **changes))
    assert RUN in str(raised.value) and "\n" not in str(raised.value)


def test_a_logged_config_that_this_code_does_not_know_names_the_commit(logged: LoggedRun, reproduce: Any) -> None:
    config = {**CONFIG, "of_another_commit": 1}
    with pytest.raises(InputError, match=f"of_another_commit.*check out commit {'a' * 40}"):
        reproduce(replace(logged, config=config))


def test_a_rebuilt_trial_that_fails_is_told_with_its_reason(logged: LoggedRun, reproduce: Any) -> None:
    def change(rebuilt: Path) -> None:
        folder = rebuilt / "results" / "search" / "round-1" / "trial-0"
        folder.mkdir(parents=True)
        (folder / "weights.pt").write_bytes(b"")
        write_json(folder / "weights.json", {"state": "failed", "reason": "diverged in epoch 1"})

    with pytest.raises(InputError, match="the rebuilt one failed: diverged in epoch 1"):
        reproduce(replace(logged, name="round-1/trial-0", kind="trial"), change)


def test_an_unfinished_rebuild_goes_on_and_one_of_another_state_or_a_finished_one_starts_anew(tmp_path: Path) -> None:
    folder, data = tmp_path / "run", tmp_path / "data"
    (folder / "rebuilt").mkdir(parents=True)
    kept = folder / "rebuilt" / "half.txt"

    def survives(state: dict[str, Any]) -> bool:
        (folder / "rebuilt").mkdir(exist_ok=True)
        kept.write_text("half")
        script.prepare(folder, data, CONFIG, state)
        return kept.exists()

    assert not survives({"commit": "a"})  # nothing says what it was begun with
    assert survives({"commit": "a"})
    assert not survives({"commit": "b"})
    (folder / UNFINISHED).unlink()  # as a finished one leaves it
    assert not survives({"commit": "b"})


def test_the_config_of_a_rebuild_finds_the_same_files_and_keeps_its_data_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_values(
        CONFIG,
        {
            "data__source": "directory", "data__directory": "files", "audit__reference": "kept.json",
            "reproducibility__fingerprint": "theirs.json", "run": RUN, "tracking__uri": "http://127.0.0.1:1",
        },
    )  # fmt: skip
    before = copy.deepcopy(config)
    changed = rebuilt_config(config, Path("data/reproduce"), Path("data/pcam"))
    assert config == before
    assert changed["data"]["directory"] == str(tmp_path / "files")
    assert changed["audit"]["reference"] == str(tmp_path / "kept.json")
    assert changed["reproducibility"]["fingerprint"] == str(tmp_path / "theirs.json")
    assert changed["data"]["root"] == str(tmp_path / "data" / "reproduce")
    assert changed["run"] is None and changed["tracking"]["uri"] is None
    read_config(changed)
    # What source pcam has downloaded is not downloaded again.
    config["data"]["source"] = "pcam"
    assert rebuilt_config(config, Path("r"), Path("data/pcam"))["data"]["directory"] == str(tmp_path / "files")
    Path("data/pcam").mkdir(parents=True)
    assert rebuilt_config(config, Path("r"), Path("data/pcam"))["data"]["directory"] == str(tmp_path / "data" / "pcam")


def test_the_threshold_of_the_rebuilt_metrics_is_the_sidecars_or_that_of_its_own_validation(tmp_path: Path) -> None:
    rule = read_config(CONFIG).threshold
    rows = [(row, row % 2, 0.0, probability) for row, probability in enumerate([0.1, 0.4, 0.3, 0.9, 0.2, 0.8])]
    paths = {split: tmp_path / f"{split}.csv" for split in SPLITS}
    for path in paths.values():
        write_csv(path, ("row", "label", "logit", "probability"), rows)
    own = rebuilt_metrics({"threshold": None}, paths, rule, 10)
    assert own["test"]["f_beta"] == 1.0 and own["test"]["threshold"] == pytest.approx(0.35)
    stored = rebuilt_metrics({"threshold": 0.85}, paths, rule, 10)
    assert stored["test"]["sensitivity"] == pytest.approx(1 / 3)


def test_final_metrics_are_told_from_those_of_epochs() -> None:
    metrics = {"valid_final_roc_auc": 0.9, "test_final_f_beta": 0.8, "valid_roc_auc": 0.1, "threshold": 0.5}
    assert logged_metrics(metrics) == {"valid": {"roc_auc": 0.9}, "test": {"f_beta": 0.8}}


@pytest.mark.parametrize("fault", ["no such folder", "not a readable HDF5 file"])
def test_a_rebuild_that_fails_is_one_line_with_its_reason_and_its_log(tmp_path: Path, fault: str) -> None:
    """Snakemake itself refuses the first, a job of it fails by the second."""
    files = tmp_path / "files"
    if fault != "no such folder":
        files.mkdir()
        for split in FILE_SPLITS:
            for part in ("x.h5", "y.h5"):
                (files / pcam_filename(split, part)).write_text("no HDF5")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(with_values(CONFIG, {"data__source": "directory", "data__directory": str(files)})))
    log = tmp_path / "snakemake.log"
    with lock_rebuild(tmp_path, print) as lock, pytest.raises(InputError) as raised:
        rebuild(tmp_path / "rebuilt", config, ["results/splits/train.csv"], log, cores=1, lock=lock, report=print)
    line = str(raised.value)
    assert line.startswith("the rebuild failed: ") and "\n" not in line and fault in line
    assert line.endswith(f"its log is {log}") and log.stat().st_size > 0


def test_a_rebuild_waits_for_one_that_outlived_its_parent(tmp_path: Path) -> None:
    holder = (
        "import sys, subprocess; sys.path[:0] = sys.argv[1:2]; from pathlib import Path; "
        "from pcam.reproduction import lock_rebuild\n"
        "with lock_rebuild(Path(sys.argv[2]), print) as lock:\n"
        "    subprocess.Popen(['cat'], pass_fds=[lock], stdout=subprocess.DEVNULL)\n"
        "print('gone', flush=True)"
    )
    command = [sys.executable, "-c", holder, str(ROOT / "workflow" / "scripts"), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout and process.stdout.readline() == "gone\n"
        process.wait()  # its child still runs, and holds the lock
        told: list[str] = []

        def report(line: str) -> None:
            told.append(line)
            process.stdin.close()  # now the child ends

        with lock_rebuild(tmp_path, report):
            assert told == ["waiting for an earlier rebuild of this run, which still goes on"]


def test_without_an_id_or_a_database_there_is_one_clear_line(tmp_path: Path) -> None:
    def reproduced(run_id: str | None) -> str:
        with pytest.raises(InputError) as raised:
            reproduce_run(
                str(tmp_path / "tracking"), str(tmp_path / "verdict.json"), run_id=run_id, data_root=str(tmp_path),
                state={}, cores=1, provenance=TRAINED,
            )  # fmt: skip
        return str(raised.value)

    assert reproduced(None).startswith("config: run is null; give the id of a logged run")
    assert "mlflow.db: no such file" in reproduced(RUN)
    assert not (tmp_path / "tracking").exists()


def test_an_id_that_is_none_is_refused_and_a_proper_one_makes_nothing_of_this_workflow_anew(tmp_path: Path) -> None:
    done = snakemake(tmp_path, "--dry-run", "reproduce", "--config", "run=abc")
    assert done.returncode != 0 and "config: run: 'abc' does not match" in done.stdout
    planned = planned_jobs(succeeded(snakemake(tmp_path, "--dry-run", "reproduce", "--config", f"run={RUN}")))
    assert [job.rule for job in planned] == ["reproduce_run", "reproduce"]
    assert planned[0].outputs == (f"results/reproduce/{RUN}/verdict.json",)


@pytest.fixture(scope="module")
def tracked(
    tmp_path_factory: pytest.TempPathFactory, copy_tiny_run: Callable[[Path], Path]
) -> tuple[Path, dict[str, str]]:
    """A folder with the whole tiny run, and the ids of the runs in its tracker by name."""
    folder = copy_tiny_run(tmp_path_factory.mktemp("tracked") / "run")
    runs = read_json(folder / "results" / "tracking" / "runs.json")["runs"]
    return folder, {run["name"]: run["run_id"] for run in runs}


def verdict_of(folder: Path, run_id: str, root: Path = ROOT) -> dict[str, Any]:
    succeeded(snakemake(folder, "reproduce", "--config", f"run={run_id}", root=root))
    return read_json(folder / "results" / "reproduce" / run_id / "verdict.json")


def assert_same_bits(found: dict[str, Any], folder: Path, name: str) -> None:
    assert found["same_bits"] is True and found["causes"] == [], found["verdict"]
    assert found["verdict"].startswith("the same bits, with equal versions, device, data, config and code")
    assert (found["name"], found["weights"]["differing"], found["weights"]["note"]) == (name, 0, None)
    assert found["not_compared"] == []
    compared = {split: set(metrics) for split, metrics in found["metrics"].items()}
    assert "roc_auc" in compared["valid"]
    if found["kind"] != "trial":
        assert {"log_loss", "f_beta", "threshold"} <= compared["valid"] & compared["test"]
    assert (folder / found["rebuilt"] / "results" / "splits" / "train.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["round-0/trial-1", "champion"])
def test_a_logged_run_is_rebuilt_to_the_same_bits(tracked: tuple[Path, dict[str, str]], name: str) -> None:
    folder, ids = tracked
    assert_same_bits(verdict_of(folder, ids[name]), folder, name)


@pytest.mark.slow
def test_a_rebuilt_training_killed_on_the_way_goes_on_to_the_same_bits(tracked: tuple[Path, dict[str, str]]) -> None:
    folder, ids = tracked
    run_id = ids["mlp/seed-0"]
    results = folder / "results" / "reproduce" / run_id / "rebuilt" / "results"
    made = results / "splits" / "splits.json"
    with start_snakemake(folder, "reproduce", "--config", f"run={run_id}") as process:
        # Snakemake makes a job's folder when it starts it: by then the splits are finished, and not only written.
        while not (results / "train" / "mlp" / "seed-0").exists():
            with suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"ended with {process.wait(timeout=0.1)} before it trained")
        os.killpg(process.pid, signal.SIGKILL)  # the rebuild and its jobs as well
    made_at = made.stat().st_mtime_ns
    succeeded(snakemake(folder, "--unlock"))
    assert_same_bits(verdict_of(folder, run_id), folder, "mlp/seed-0")
    assert made.stat().st_mtime_ns == made_at


@pytest.mark.slow
def test_a_run_rebuilt_with_another_code_differs_and_the_code_is_named(
    tracked: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, ids = tracked
    for name in ("Snakefile", "workflow", "config", "profiles", "environment.yml", "requirements.txt", "inference.py"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    module = tmp_path / "workflow" / "scripts" / "pcam" / "schedules.py"
    told = "highest = settings.learning_rate\n"
    assert told in module.read_text()
    module.write_text(module.read_text().replace(told, f"{told.strip()} * 1.01\n"))
    found = verdict_of(folder, ids["constant_lr/seed-0"], root=tmp_path)
    assert found["same_bits"] is False
    assert found["verdict"].startswith("other bits in weights, metrics on valid, metrics on test; the first difference")
    assert "first difference is code (digest: " in found["verdict"]
    assert found["weights"]["differing"] > 0 < found["weights"]["largest_difference"]


@pytest.mark.slow
def test_an_id_that_the_tracker_does_not_know_is_one_clear_line(tracked: tuple[Path, dict[str, str]]) -> None:
    done = snakemake(tracked[0], "reproduce", "--config", f"run={RUN}")
    assert done.returncode != 0 and f"error: run {RUN}: not in " in done.stdout and "Traceback" not in done.stdout
