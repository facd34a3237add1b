"""The workflow run for real: tiny and whole, at several --cores, without test labels, on real tissue when at hand."""

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import pytest
import yaml
from conftest import ROOT

from pcam.facts import FILE_SPLITS, pcam_filename
from pcam.files import file_digest, read_csv, read_json
from workflow import TINY, of_its_own_data, planned_jobs, snakemake, start_snakemake, succeeded

REAL = Path(os.environ.get("PCAM_SAMPLE", ROOT.parent / "shared" / "data" / "pcam-sample"))


def config_with(path: Path, change: dict[str, object]) -> Path:
    """The tiny config with other top-level sections."""
    path.write_text(yaml.safe_dump({**yaml.safe_load(TINY.read_text()), **change}))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, copy_tiny_run: Callable[[Path], Path]) -> Path:
    """A folder with the whole tiny run at --cores 4."""
    return copy_tiny_run(tmp_path_factory.mktemp("tiny") / "run")


def test_the_audit_finds_exactly_what_was_planted_at_other_amounts(tmp_path: Path) -> None:
    sample = {
        "seed": 5, "train_patches": 200, "valid_patches": 60, "test_patches": 60, "train_slides": 4, "valid_slides": 3,
        "test_slides": 3, "non_finite_rate": 0.1, "out_of_range_rate": 0.02, "blackout_rate": 0.05, "washout_rate": 0.0,
        "duplicate_pairs": 7, "cross_split_pairs": 4, "faded_slides": 0,
    }  # fmt: skip
    config = config_with(tmp_path / "mine.yaml", {"data": {"sample": sample}})
    succeeded(snakemake(tmp_path / "work", "results/audit/score.json", "results/audit/verdicts.json", config=config))
    planted = {
        (p["split"], int(p["row"]), p["kind"]) for p in read_csv(tmp_path / "work" / "data" / "sample" / "planted.csv")
    }
    kinds = {kind for _, _, kind in planted}
    assert kinds == {"non_finite", "out_of_range", "blackout", "exact_duplicate", "cross_split_duplicate"}
    found = {
        (line["split"], int(line["row"]), kind)
        for line in read_csv(tmp_path / "work" / "results" / "audit" / "patches.csv")
        for kind in line["defects"].split(";")
        if kind in kinds | {"washout"}
    }
    assert found == planted
    amounts = {kind: sum(k == kind for _, _, k in planted) for kind in kinds}
    assert (amounts["non_finite"], amounts["out_of_range"], amounts["blackout"]) == (20, 4, 10)
    for kind, score in read_json(tmp_path / "work" / "results" / "audit" / "score.json")["kinds"].items():
        assert score["recall"] in (1.0, None) and score["precision"] in (1.0, None), kind


@pytest.mark.slow
def test_the_whole_run_makes_every_contract_and_a_second_one_has_nothing_to_do(finished: Path) -> None:
    results = finished / "results"
    for name in (
        "audit/checksums.json", "audit/storage.json", "audit/leakage.json", "audit/poison.json", "audit/patches.csv",
        "audit/verdicts.json", "audit/gate.json", "splits/train.csv", "train/baseline/seed-0/weights.pt",
        "train/baseline/seed-0/history.csv", "train/mlp/seed-0/steps.csv", "predict/baseline/seed-0/test.csv",
        "aggregate/seeds.json", "aggregate/coverage.json", "search/round-1/trial-1/weights.json",
        "search/rung-1/trial-0/weights.json", "search/recipe.json", "train/tuned/seed-0/weights.pt",
        "champion/evaluation.json", "champion/prior_shift.json", "deployment/deployment.json", "champion/weights.pt",
        "champion/weights.json", "slices/slices.csv", "benchmark/throughput.csv", "journal.md", "report.html",
        "benchmark/bottleneck.json",
        "checklist.json", "tracking/runs.json", "reproducibility/twin.json", "reproducibility/fingerprint.json",
        "reproducibility/determinism.csv",
    ):  # fmt: skip
        assert (results / name).stat().st_size > 0, name
    assert "Nothing to be done" in succeeded(snakemake(finished, cores=4))
    # Where trainings report to is no part of them.
    elsewhere = snakemake(finished, "--dry-run", "--config", "tracking={uri: 'http://127.0.0.1:9'}")
    assert not {job.rule for job in planned_jobs(succeeded(elsewhere))} & {"train_seed", "train_trial", "predict_seed"}
    assert not list(results.rglob("resume.pt"))
    headers = {
        "splits/valid.csv": "row,label,slide,group",
        "audit/patches.csv": "split,row,label,keep,defects",
        "predict/mlp/seed-0/valid.csv": "row,label,logit,probability",
        "slices/slices.csv": "slice,value,n,positives,metric,estimate,low,high,gap,gap_low,gap_high,groups,p,"
        "p_corrected,status",
        "benchmark/throughput.csv": "partition,node,device,mode,batch_size,precision,images_per_s,job_id,model,low,"
        "high,memory_bytes,note",
        "benchmark/parts.csv": "partition,model,precision,batch_size,part,loop_s,loop_low_s,loop_high_s,share,apart_s",
    }
    for name, header in headers.items():
        assert (results / name).read_text().splitlines()[0] == header, name
    assert read_json(results / "aggregate/seeds.json")["baseline"]["test"]["roc_auc"]["interval"] == "undefined (n = 1)"
    sidecar = read_json(results / "champion" / "weights.json")
    assert 0 < sidecar["threshold"] < 1 and sidecar["data_source"] == "SYNTHETIC SAMPLE"


@pytest.mark.slow
def test_journal_and_report_say_what_data_they_speak_of(finished: Path) -> None:
    journal, page = ((finished / "results" / name).read_text() for name in ("journal.md", "report.html"))
    assert "SYNTHETIC SAMPLE" in journal and "SYNTHETIC SAMPLE" in page
    assert "(one seed: no sd)" in journal
    for number in range(1, 10):
        assert f"## Question {number}:" in journal


@pytest.mark.slow
def test_the_champion_classifies_an_hdf5_file_as_the_workflow_does(finished: Path) -> None:
    weights = finished / "results" / "champion" / "weights.pt"
    x_file = finished / "data" / "sample" / pcam_filename("test", "x.h5")
    done = subprocess.run(
        [sys.executable, ROOT / "inference.py", weights, x_file], capture_output=True, text=True, check=True
    )
    mine = [float(line["probability"]) for line in csv.DictReader(done.stdout.splitlines())]
    theirs = [
        float(line["probability"]) for line in read_csv(finished / "results" / "champion" / "predict" / "test.csv")
    ]
    assert mine == pytest.approx(theirs, abs=2e-5)


@pytest.mark.slow
def test_snakemakes_own_report_has_the_stages_as_categories(finished: Path) -> None:
    succeeded(snakemake(finished, "--report", finished / "snakemake-report.html"))
    page = (finished / "snakemake-report.html").read_text()
    for category in ("Audit", "Train", "Tune", "Slice", "Benchmark"):
        assert f'"{category}"' in page, category


@contextmanager
def busy_machine(processes: int) -> Iterator[None]:
    """Other processes that want all of the processor."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_weights_are_equal_bit_for_bit_at_one_core_in_another_folder_and_under_load(
    finished: Path, tmp_path: Path
) -> None:
    """From the data on. That the search finds the same champion at any --cores, tests/test_search_run.py holds."""
    target = "results/train/baseline/seed-0/weights.pt"
    with busy_machine(2):
        succeeded(snakemake(tmp_path, target, cores=1))
    assert file_digest(tmp_path / target) == file_digest(finished / target)


def wait_for_words(process: subprocess.Popen[bytes], log: Path, words: str) -> None:
    """Return when a log holds some words; the process must not end before."""
    while not (log.exists() and words in log.read_text()):
        with suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"ended with {process.wait(timeout=0.1)} before the log said {words!r}")


@pytest.mark.slow
def test_snakemake_killed_alone_and_rerun_at_once_never_has_two_writers_and_gives_the_same_bits(tmp_path: Path) -> None:
    """Snakemake dies by SIGKILL while its child trains on; the rerun waits for that child."""
    target = "results/train/baseline/seed-0/weights.pt"
    train = {**yaml.safe_load(TINY.read_text())["train"], "epochs": 30}
    config = config_with(tmp_path / "mine.yaml", {"train": train})
    work = tmp_path / "work"
    succeeded(snakemake(work, "results/splits/normalisation.json", "results/train/baseline/settings.json",
                        "data/sample/store/train.npy", "data/sample/store/valid.npy", config=config))  # fmt: skip
    shutil.copytree(work, tmp_path / "undisturbed", symlinks=True)
    succeeded(snakemake(tmp_path / "undisturbed", target, config=config))

    log = work / "results" / "logs" / "train_seed" / "baseline" / "seed-0.log"
    lock = (work / target).with_name(".lock")
    with start_snakemake(work, target, config=config) as first:
        wait_for_words(first, log, "epoch 2/")
        orphan = int(lock.read_text().split()[1])
        os.kill(orphan, signal.SIGSTOP)  # so that it is at work for as long as this test wants it to be
        first.kill()
    try:
        assert not (work / target).exists()
        assert "Directory cannot be locked" in snakemake(work, target, config=config).stdout
        succeeded(snakemake(work, "--unlock", config=config))
        with start_snakemake(work, target, config=config) as second:
            wait_for_words(second, log, f"waiting for process {orphan} on")
            os.kill(orphan, signal.SIGCONT)
            assert second.wait(timeout=300) == 0
    finally:
        with suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGKILL)
    assert "finished the same training; its results stand" in log.read_text()
    for name in ("weights.pt", "history.csv", "steps.csv", "layers.csv"):
        path = Path(target).with_name(name)
        assert file_digest(work / path) == file_digest(tmp_path / "undisturbed" / path), name


@pytest.mark.slow
def test_forcing_a_finished_training_trains_again_to_the_same_bits(finished: Path) -> None:
    target = "results/train/baseline/seed-0/weights.pt"
    before = file_digest(finished / target)
    done = succeeded(snakemake(finished, "--forcerun", "train_seed", "--", target))
    assert "train_seed" in done
    assert file_digest(finished / target) == before


def real_config(path: Path, directory: Path, **train: object) -> Path:
    path.write_text(yaml.safe_dump({"data": {"source": "directory", "directory": str(directory)}, **train}))
    return path


@pytest.mark.slow
def test_real_tissue_runs_through_and_is_learnt(tmp_path: Path) -> None:
    """A subset of real patches, one seed: enough to see that the real path works, not to quote a figure."""
    if not REAL.is_dir():
        pytest.skip(f"no real patches at {REAL}; set PCAM_SAMPLE to a folder with PCam files")
    folder = tmp_path / "files"
    folder.mkdir()
    for split, n in zip(FILE_SPLITS, (700, 300, 300), strict=True):
        for key in ("x", "y"):
            name = pcam_filename(split, f"{key}.h5")
            with (
                gzip.open(REAL / f"{name}.gz") as packed,
                h5py.File(packed) as source,
                h5py.File(folder / name, "w") as out,
            ):
                out[key] = source[key][:n]
    config = real_config(
        tmp_path / "mine.yaml",
        folder,
        seeds=[0],
        search={"rounds": 1, "trials": 2, "rungs": [{"epochs": 2}, {"epochs": 4, "trials": 1}]},
        benchmark={"images": 32, "seconds": 0.5, "batch_sizes": [1, 8]},
        train={"epochs": 20},  # few patches need more of them
        audit={"score": {"rates": [0.02], "repeats": 1}, "labels": {"rates": [0.1], "plantings": 2}},
        evaluation={"coverage_draws": 100},
    )
    succeeded(snakemake(tmp_path / "work", config=config))
    results = tmp_path / "work" / "results"
    seeds = json.loads((results / "aggregate" / "seeds.json").read_text())
    assert seeds["baseline"]["test"]["roc_auc"]["mean"] > 0.85
    assert seeds["baseline"]["test"]["roc_auc"]["standard_errors"][0] < 0.03
    evaluation = read_json(results / "champion" / "evaluation.json")
    assert evaluation["test"]["metrics"]["f_beta"]["low"] > evaluation["always_tumour"]["test"]
    assert "SYNTHETIC" not in of_its_own_data(results / "report.html")
    assert read_json(results / "audit" / "gate.json")["open"] is True
