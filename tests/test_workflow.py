"""The DAG by dry-run: it is whole, explains itself, keeps test data out of training, and names a user's mistakes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from pcam.facts import pcam_filename
from pcam.hdf5 import write_labels
from workflow import Job, planned_jobs, snakemake, succeeded

# The rules through which test data may enter (design): audits and splits come before them, evaluation after.
LEARNING = {
    "measure_normalisation",
    "train_seed",
    "train_trial",
    "train_twin",
    "audit_determinism",
    "propose_trials",
    "promote_trial",
    "select_recipe",
    "select_champion",
    "choose_threshold",
    "fit_baselines",
}
ALLOWED_TO_SEE_TEST = {"make_splits"}
VARIANTS = ("baseline", "constant_lr", "mlp", "tuned")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
    """All jobs of the default run."""
    return planned_jobs(succeeded(snakemake(tmp_path_factory.mktemp("dag"), "--dry-run", config=None)))


def holds_test_data(path: str) -> bool:
    return re.search(r"_split_test_|store/test\.npy|splits/test\.csv|/test\.csv$|unlabelled", path) is not None


def test_the_default_run_has_every_stage(jobs: list[Job]) -> None:
    rules = {job.rule for job in jobs}
    assert {
        "synthesize_sample", "audit_checksums", "audit_storage", "audit_leakage", "audit_poison", "apply_policy",
        "gate_audit", "make_splits", "build_store", "train_seed", "predict_seed", "aggregate_seeds", "track_runs",
        "propose_trials", "train_trial", "select_champion", "choose_threshold", "slice_metrics", "measure_throughput",
        "promote_trial", "select_recipe", "evaluate_champion", "measure_prior_shift", "measure_coverage",
        "measure_deployment", "plot_deployment", "plot_parallel", "find_spikes", "show_spikes",
        "compare_schedules", "plot_schedules", "write_journal", "build_report",
    } <= rules  # fmt: skip
    assert not rules & {"build_bundle", "publish_results"}  # they have targets of their own
    trained = {
        output for job in jobs if job.rule == "train_seed" for output in job.outputs if output.endswith("weights.pt")
    }
    assert trained == {f"results/train/{v}/seed-{s}/weights.pt" for v in VARIANTS for s in (0, 1, 2)}


def test_no_learning_rule_depends_on_test_data_except_through_audit_and_splits(jobs: list[Job]) -> None:
    maker = {output: job for job in jobs for output in job.outputs}
    seen = 0
    for job in jobs:
        if job.rule not in LEARNING:
            continue
        waiting, visited = [job], set()
        while waiting:
            current = waiting.pop()
            if current in visited or current.rule in ALLOWED_TO_SEE_TEST:
                continue
            visited.add(current)
            assert not [path for path in current.inputs if holds_test_data(path)], (job.rule, current)
            waiting += [maker[path] for path in current.inputs if path in maker]
            seen += 1
    assert {job.rule for job in jobs} >= LEARNING and seen > len(LEARNING)
    # The same look does find test data where it belongs.
    assert any(holds_test_data(path) for job in jobs if job.rule == "predict_seed" for path in job.inputs)


def test_only_the_audits_scoring_reads_what_was_planted(jobs: list[Job]) -> None:
    readers = {job.rule for job in jobs for path in job.inputs if path.endswith("planted.csv")}
    assert readers == {"score_audit"}


def test_every_rule_has_a_script_of_its_name_a_log_a_benchmark_and_a_docstring() -> None:
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        text = path.read_text()
        for block in re.split(r"\n(?= *rule \w+:)", text)[1:]:
            name = re.match(r"\s*rule (\w+):\n\s+\"\"\"(.+)\"\"\"", block)
            assert name, f"{path.name}: a rule without a one-line docstring:\n{block[:80]}"
            rule = name.group(1)
            if "output:" not in block:  # a target, which names files and makes none
                assert "script:" not in block and "shell:" not in block, (path.name, rule)
                continue
            assert f"scripts/{rule}.py" in block, (path.name, rule)
            assert f'code_digest("{rule}")' in block, (path.name, rule)
            assert "log:" in block and "benchmark:" in block and "environment.yml" in block, (path.name, rule)


def test_the_rules_explain_themselves(tmp_path: Path) -> None:
    listing = succeeded(snakemake(tmp_path, "--list-rules"))
    for rule in ("train_seed", "audit_leakage", "choose_threshold"):
        line = next(line for line in listing.splitlines() if line.startswith(rule))
        assert len(line.split()) > 4, line


def test_the_first_thing_the_workflow_says_is_what_data_it_is(tmp_path: Path) -> None:
    lines = succeeded(snakemake(tmp_path, "--dry-run")).splitlines()
    # Snakemake itself announces profile and config files before it reads the Snakefile on.
    own = [line for line in lines if not line.startswith(("Using workflow specific profile", "Config file"))]
    assert own[0] == "Data: SYNTHETIC SAMPLE"


@pytest.mark.parametrize(
    "target",
    [
        "results/train/mlp/seed-1/weights.pt",
        "results/audit/leakage.json",
        "results/search/round-1/trial-2/weights.json",
        "results/search/rung-1/trial-1/weights.json",
        "results/train/tuned/seed-2/weights.pt",
        "results/slices/slices.csv",
        "results/handover/verify.json",
    ],
)
def test_any_result_can_be_asked_for_by_its_name(tmp_path: Path, target: str) -> None:
    planned = planned_jobs(succeeded(snakemake(tmp_path, "--dry-run", target, config=None)))
    assert any(target in job.outputs for job in planned)
    assert "build_report" not in {job.rule for job in planned}


def mistaken(tmp_path: Path, config: dict[str, object]) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    done = snakemake(tmp_path / "work", "--dry-run", config=path)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "work" / "results").exists()
    return done.stdout


def test_a_mistake_in_the_config_stops_the_run_with_its_line(tmp_path: Path) -> None:
    assert "config: train: unknown key 'epoch', perhaps epochs is meant; known are" in mistaken(
        tmp_path, {"train": {"epoch": 3}}
    )
    assert "config: seeds: [] should be non-empty" in mistaken(tmp_path, {"seeds": []})


def test_a_missing_folder_or_file_stops_the_run_with_its_line(tmp_path: Path) -> None:
    data = {"source": "directory", "directory": str(tmp_path / "nowhere")}
    assert "nowhere: no such folder; set data.directory" in mistaken(tmp_path, {"data": data})
    (tmp_path / "nowhere").mkdir()
    assert "train_x.h5: no such file, and none with .gz" in mistaken(tmp_path, {"data": data})


def directory_of_files(folder: Path, *, test_labels: bool) -> Path:
    """Files that exist; a dry-run opens none."""
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / pcam_filename(split, "x.h5.gz")).touch()
        if split != "test" or test_labels:
            write_labels(folder / pcam_filename(split, "y.h5"), None, 1)
    return folder


@pytest.mark.parametrize("test_labels", [True, False])
def test_without_test_labels_the_test_split_is_cut_from_the_valid_file(tmp_path: Path, test_labels: bool) -> None:
    folder = directory_of_files(tmp_path / "files", test_labels=test_labels)
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"data": {"source": "directory", "directory": str(folder)}}))
    dry_run = succeeded(snakemake(tmp_path / "work", "--dry-run", config=config))
    assert "Data: PCam files at hand" in dry_run
    sources = {job.outputs[0]: job.inputs for job in planned_jobs(dry_run) if job.rule == "build_store"}
    expected = "test" if test_labels else "valid"
    assert any(pcam_filename(expected, "x.h5") in path for path in sources["data/directory/store/test.npy"])


def test_the_published_record_is_planned_file_by_file(tmp_path: Path) -> None:
    dry_run = succeeded(snakemake(tmp_path, "--dry-run", config=ROOT / "config" / "pcam.yaml"))
    assert sum(job.rule == "download_pcam" for job in planned_jobs(dry_run)) == 9


def test_the_slurm_profile_plans_the_same_jobs(tmp_path: Path) -> None:
    done = snakemake(tmp_path, "--dry-run", "--profile", ROOT / "profiles" / "slurm")
    assert "train_seed" in {job.rule for job in planned_jobs(succeeded(done))}


def planned_after(copy: Path, folder: Path) -> set[str]:
    return {job.rule for job in planned_jobs(succeeded(snakemake(folder, "--dry-run", TARGET, root=copy)))}


TARGET = "results/splits/normalisation.json"


def test_an_edited_module_reruns_what_depends_on_it_and_a_touched_one_nothing(tmp_path: Path) -> None:
    copy, folder = tmp_path / "project", tmp_path / "work"
    copy.mkdir()
    for name in ("Snakefile", "workflow", "config", "profiles", "environment.yml", "requirements.txt", "inference.py"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    succeeded(snakemake(folder, TARGET, root=copy))
    assert planned_after(copy, folder) == set()
    module = copy / "workflow" / "scripts" / "pcam" / "store.py"
    module.touch()
    assert planned_after(copy, folder) == set()
    module.write_text(module.read_text() + "\n# a remark\n")
    assert planned_after(copy, folder) == set()
    module.write_text(module.read_text() + "\nADDED = 1\n")
    rerun = planned_after(copy, folder)
    assert {"build_store", "measure_normalisation"} <= rerun and not rerun & {
        "audit_poison",
        "make_splits",
        "synthesize_sample",
    }


def test_a_failed_audit_keeps_its_evidence_and_says_what_to_write(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    tiny = yaml.safe_load((ROOT / "tests" / "config" / "tiny.yaml").read_text())
    tiny["audit"] = {"policy": {"washout": "keep"}}
    config.write_text(yaml.safe_dump(tiny))
    done = snakemake(tmp_path / "work", "results/splits/train.csv", config=config)
    assert done.returncode != 0
    assert "audit.waive.washout" in done.stdout and "Traceback" not in done.stdout.split("gate_audit")[-1]
    results = tmp_path / "work" / "results"
    assert (results / "audit" / "poison.json").exists() and (results / "audit" / "verdicts.json").exists()
    assert not (results / "audit" / "gate.json").exists() and not (results / "splits").exists()
    tiny["audit"]["waive"] = {"washout": "kept to see what they do"}
    config.write_text(yaml.safe_dump(tiny))
    again = planned_jobs(
        succeeded(snakemake(tmp_path / "work", "--dry-run", "results/splits/train.csv", config=config))
    )
    assert "apply_policy" in {job.rule for job in again} and not {"audit_poison", "audit_leakage"} & {
        job.rule for job in again
    }


def test_requirements_and_environment_hold_together() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert {"pip": ["-r requirements.txt"]} in environment["dependencies"]
    names = [line.split()[0] for line in (ROOT / "requirements.in").read_text().splitlines() if line and line[0] != "#"]
    pins = dict(
        line.split(";")[0].strip().split("==")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line and line[0] != "#"
    )
    assert pins["torch"] == "2.13.0"
    assert {name.split("==")[0] for name in names} <= set(pins)
    wanted = {
        "snakemake",
        "torch",
        "h5py",
        "numpy",
        "pyyaml",
        "mlflow",
        "scikit-learn",
        "optuna",
        "matplotlib",
        "pytest",
    }
    assert wanted <= set(pins)


def test_what_is_installed_is_what_is_pinned() -> None:
    from importlib.metadata import version

    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and line[0] != "#":
            name, _, pin = line.partition("==")
            # A local build such as 2.13.0+cpu is the pinned version.
            assert version(name).partition("+")[0] == pin, name


def test_no_generated_file_is_tracked() -> None:
    done = subprocess.run(["git", "ls-files", "results", "data"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) <= {"results/.gitkeep"}
