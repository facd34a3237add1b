"""The profile, the batch files and the workflow on a real Slurm on this machine, and what happens when jobs fail."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT
from slurm_cluster import MAX_MINUTES, Cluster, running_cluster, until, why_not

from pcam.failed_jobs import explain_failures
from workflow import TINY, succeeded

PROFILE = ROOT / "profiles" / "slurm"
SETTINGS = yaml.safe_load((PROFILE / "config.yaml").read_text())["__variables__"]
# Polls of tests on a loaded machine: each job starts Python and Snakemake twice.
PATIENCE_S = 240.0


def test_the_batch_files_are_what_make_sbatch_writes() -> None:
    made = make_sbatch()(SETTINGS)
    assert set(made) == {"head.sbatch", "preflight.sbatch"}
    for name, text in made.items():
        assert (PROFILE / name).read_text() == text, f"{name}: run make sbatch"
        assert subprocess.run(["bash", "-n", PROFILE / name], check=False).returncode == 0


def test_account_and_modules_reach_the_batch_files_only_when_they_are_set() -> None:
    made = make_sbatch()(
        {**SETTINGS, "account": "mine", "modules": "2024", "cpu_partition": "rome", "environment": "env"}
    )
    for text in made.values():
        assert "#SBATCH --account=mine\n" in text and "\nmodule load 2024 || exit 1\n" in text
        assert "#SBATCH --partition=rome\n" in text and '. "env/bin/activate"' in text
    assert not any("--account" in text or "module load" in text for text in make_sbatch()(SETTINGS).values())


def make_sbatch() -> Callable[[dict[str, object]], dict[str, str]]:
    spec = importlib.util.spec_from_file_location("make_sbatch", PROFILE / "make_sbatch.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[dict[str, object]], dict[str, str]] = module.make_sbatch
    return found


def test_every_rule_that_uses_the_gpu_asks_for_one_in_the_profile() -> None:
    import yte

    profile = yte.process_yaml((PROFILE / "config.yaml").read_text(), require_use_yte=True)
    using = {
        path.stem
        for path in (ROOT / "workflow" / "scripts").glob("*.py")
        if re.search(
            r"= fix_device\(|\b(train_recipe|train_trial|audit_determinism|reproduce_run|measure_all)\(",
            path.read_text(),
        )
    }
    aliases = [
        alias
        for path in (ROOT / "workflow" / "rules").glob("*.smk")
        for alias in re.findall(r"use rule (\w+) as (\w+) with", path.read_text())
    ]
    for _ in range(2):  # one may be of another one
        using |= {name for rule, name in aliases if rule in using}
    assert profile["set-resources"].pop("preflight") == {"probe_wait": SETTINGS["probe_wait"]}
    # The other shards have half the memory and one CPU, and no GPU.
    for name in {name for _, name in aliases if name.endswith("_shard")} - using:
        shard = profile["set-resources"].pop(name)
        assert set(shard) == {"runtime", "mem_mb", "cpus_per_task"} and shard["cpus_per_task"] == 1, name
        assert [eval(shard["mem_mb"], {"attempt": n, "min": min}) for n in (1, 2)] == [2048, 4096]
    assert set(profile["set-resources"]) == using
    # The benchmark goes to the partition that it measures, with a GPU on the GPU's.
    asked = profile["set-resources"]["measure_throughput"]
    for partition, where in (
        ("gpu_course", ("gpu_course", "gpu:1")),
        ("thin_course", ("thin_course", None)),
        ("local", ("thin_course", None)),
    ):
        names = {"wildcards": SimpleNamespace(partition=partition)}
        assert (eval(asked["slurm_partition"], names), eval(asked["gres"], names)) == where
    for rule, asked in profile["set-resources"].items():
        assert asked["cpus_per_task"] == 4, rule
        if rule != "measure_throughput":
            assert (asked["slurm_partition"], asked["gres"]) == ("gpu_course", "gpu:1"), rule
        assert [eval(asked["mem_mb"], {"attempt": n, "min": min}) for n in (1, 2, 3)] == [8192, 16384, 16384]


# In the place of Snakemake and Slurm, beside head.sbatch: each notes that it was called. squeue is away at every other
# call, tells of a head that ends at the first that it answers, and of a job until that is cancelled.
STANDING_IN = {
    "sleep": "exec /bin/sleep 0.05",
    "squeue": """
        echo squeue >> events
        here=$(pwd -P) calls=$(grep --count squeue events)
        [ $((calls % 2)) = 0 ] || exit 1
        printf '%s\\n' "5|pcam-head|RUNNING|$here" "8|other|RUNNING|$here" "9|pcam_x|RUNNING|/away"
        [ $calls != 2 ] || echo "4|pcam-head|COMPLETING|$here"
        grep --quiet scancel events || echo "7|pcam_x|RUNNING|$here" """,
    "scancel": 'echo "scancel $*" >> events',
    "snakemake": """
        case "$*" in
            *--dry-run*) echo "$PLAN" ;;
            *--unlock*) echo unlock >> events; rm -r .snakemake/locks ;;
            *) echo run >> events; eval "$RUN" ;;
        esac""",
}


def run_head(folder: Path, *arguments: str, run: str = "", plan: str = "") -> tuple[int, str, list[str]]:
    """head.sbatch with the programs of STANDING_IN: its exit code, what it prints, and which of them were called."""
    (folder / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    (folder / ".venv" / "bin" / "activate").write_text(f'PATH="{folder}:$PATH"\n')
    for name, text in STANDING_IN.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    (folder / "events").write_text("")
    environment = {**os.environ, "SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_ID": "5", "RUN": run, "PLAN": plan}
    done = subprocess.run(
        ["bash", PROFILE / "head.sbatch", *arguments], env=environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, (folder / "events").read_text().splitlines()


def test_the_head_refuses_what_only_the_login_node_can_download(tmp_path: Path) -> None:
    asked = ["--configfile", "config/pcam.yaml", "--config", 'data={"root": "my data"}']
    code, said, events = run_head(tmp_path, *asked, plan="rule download_pcam:")
    assert code == 1 and "run" not in events
    assert shlex.split(said.splitlines()[-1]) == ["snakemake", "--cores", "1", "--until", "download_pcam", *asked]


def test_a_head_replaces_one_that_died_when_no_job_is_left_and_no_other_snakemake(tmp_path: Path) -> None:
    waited = ["squeue"] * 4
    # The lock comes in two parts, and stays, as that of a Snakemake whose node failed.
    locks = "cd .snakemake && mkdir locks && touch locks/0.input.lock && /bin/sleep 0.5 && touch locks/0.output.lock"
    code, _, events = run_head(tmp_path, run=locks)
    assert (code, events) == (0, [*waited, "run"])
    code, said, events = run_head(tmp_path)
    assert code == 0 and "an earlier head died" in said
    assert events == [*waited, "squeue", "squeue", "scancel 7", "squeue", "squeue", "unlock", "run"]
    (tmp_path / ".snakemake" / "locks").mkdir()
    (tmp_path / ".snakemake" / "locks" / "0.output.lock").touch()
    code, said, events = run_head(tmp_path)
    assert (code, events) == (1, waited) and "locked by a Snakemake that is no head job" in said


def test_a_head_that_was_replaced_while_it_ran_ends_its_snakemake(tmp_path: Path) -> None:
    code, _, events = run_head(tmp_path, run="echo 6.0 > .snakemake/head_job; /bin/sleep 50; echo late >> events")
    assert (code, events[-1]) == (128 + signal.SIGKILL, "run")


# Snakemake's log of a job that failed twice, of one whose retry went through, and of a refusal.
LOG = """\
[Thu Jan  1 00:00:00 2026]
Error in rule train_seed:
    message: SLURM-job '7' failed, SLURM status is: 'FAILED'. Detailed failure reason unavailable.
    jobid: 3
    output: results/weights.pt, results/weights.json
    log: {folder}/rule.log, {folder}/7.log (check log file(s) for error details)
    external_jobid: 7
[Thu Jan  1 00:00:01 2026]
Error in rule audit:
    message: SLURM-job '8' failed, SLURM status is: 'TIMEOUT'.
    jobid: 4
    output: results/audit.json
    external_jobid: 8
[Thu Jan  1 00:00:02 2026]
Error in rule train_seed:
    message: SLURM-job '9' failed, SLURM status is: 'FAILED'.
    jobid: 3
    output: results/weights.pt, results/weights.json
    log: {folder}/rule.log, {folder}/9.log (check log file(s) for error details)
    external_jobid: 9
[Thu Jan  1 00:00:03 2026]
Finished jobid: 4 (Rule: audit)
[Thu Jan  1 00:00:04 2026]
Error in rule predict:
    message: SLURM sbatch failed. The error message was 'sbatch: error: Invalid account'.
    sbatch call:
        sbatch --wrap="python"
For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 5
    output: results/predict.csv
[Thu Jan  1 00:00:05 2026]
Error in rule gate:
    message: None
    jobid: 6
    output: results/gate.json
    log: {folder}/gate.log (check log file(s) for error details)
"""


@pytest.mark.parametrize(
    ("in_the_log", "why", "what"),
    [
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=9.0.", "too little memory", "mem_mb of train_seed"),
        ("slurmstepd: error: *** JOB 9 CANCELLED AT 2026 DUE TO TIME LIMIT ***", "walltime ran out", "saved state"),
        ("slurmstepd: error: *** JOB 9 CANCELLED AT 2026 DUE TO NODE FAILURE ***", "node", "same command again"),
        ("slurmstepd: error: *** JOB 9 CANCELLED AT 2026 ***", "cancelled", "same command again"),
        ("error: train.csv: no rows\nWorkflowError:\nAt least one job", "error: train.csv: no rows", "correct this"),
        (
            'sqlite3.OperationalError: no such table\nRuleException:\nCalledProcessError in file "a.smk", line 2:\n'
            "Error in rule train_seed:\nWorkflowError: failed",
            "sqlite3.OperationalError: no such table",
            "correct this",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory.", "too little memory: torch", "train.batch_size down"),
        ("nothing of use", "unknown", "read the log"),
    ],
)
def test_the_reason_of_a_failed_job_is_found_in_its_log_when_slurm_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_the_log: str, why: str, what: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "snakemake.log").write_text(LOG.format(folder=tmp_path))
    (tmp_path / "7.log").write_text("of the first attempt")
    (tmp_path / "9.log").write_text(in_the_log)
    (tmp_path / "gate.log").write_text("error: 3 findings block the run\n# ended after 1.0 s\n")
    said = explain_failures(tmp_path / "snakemake.log")
    text = "\n".join(said)
    assert "3 failed" in said[0] and "audit" not in text and "7.log" not in text
    assert "train_seed: results/weights.pt (Slurm job 9, 2 attempts)" in text and str(tmp_path / "9.log") in text
    assert why in said[2] and what in next(line for line in said if "do:" in line)
    assert "predict: results/predict.csv (refused)" in text and "Slurm took no such job: Invalid account" in text
    gate = text.partition("gate: results/gate.json (beside Snakemake)")[2]
    assert "why: error: 3 findings block the run" in gate and "correct this" in gate and "profiles" not in gate


def test_a_run_without_failed_jobs_has_nothing_to_explain(tmp_path: Path) -> None:
    (tmp_path / "snakemake.log").write_text("[Thu Jan  1 00:00:03 2026]\nFinished jobid: 4 (Rule: audit)\n")
    assert explain_failures(tmp_path / "snakemake.log") == explain_failures(tmp_path / "none.log") == []


def test_jobs_that_ended_because_the_run_was_ended_did_not_fail(tmp_path: Path) -> None:
    first, _, last = LOG.format(folder=tmp_path).rpartition("[Thu Jan  1 00:00:05 2026]\n")
    (tmp_path / "snakemake.log").write_text(f"{first}Terminating processes on user request\n{last}")
    said = "\n".join(explain_failures(tmp_path / "snakemake.log"))
    assert said.startswith("\nended from outside") and "run the same command again" in said
    assert "2 failed" in said and "predict" in said and "gate" not in said


# From here on: a real Slurm.


@contextmanager
def started_cluster(*, accounting: bool) -> Iterator[Cluster]:
    if (missing := why_not(accounting=accounting)) is not None:
        pytest.skip(f"no Slurm can be started here: {missing}")
    with running_cluster(accounting=accounting) as cluster:
        cluster.environment |= {"NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1"}
        cluster.environment["PATH"] = f"{cluster.environment['PATH']}:{Path(sys.executable).parent}"
        yield cluster


LONG = "results/train/long/seed-0"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, copy_tiny_run: Callable[[Path], Path]) -> Path:
    """A copy of the project with the tiny run in it, as a user's folder on a cluster, and a recipe that trains long."""
    copy = tmp_path_factory.mktemp("slurm") / "project"
    ignored = shutil.ignore_patterns(".venv", ".git", ".snakemake", "results", "data", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    finished = copy_tiny_run(copy.with_name("finished"))
    for folder in ("results", "data", ".snakemake"):
        (finished / folder).rename(copy / folder)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    # The GPU of this cluster is none, and a job that looked around would stop every run: see tests/test_preflight.py.
    profile = copy / "profiles" / "slurm" / "config.yaml"
    profile.write_text(re.sub(r"(?m)^  probe_wait: \d+", "  probe_wait: 0", profile.read_text()))
    tiny = yaml.safe_load(TINY.read_text())
    tiny["variants"]["long"] = {"width": 16, "epochs": 600}
    # In the order of tiny.yaml: Snakemake takes another order of keys for another parameter, and makes the sample anew.
    (copy / "mine.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    return copy


@contextmanager
def on_slurm(cluster: Cluster, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Snakemake with the profile in the background, killed at the end when it still runs."""
    command = [sys.executable, "-m", "snakemake", "--profile", str(folder / "profiles" / "slurm"), *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=cluster.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    output, _ = process.communicate(timeout=2 * PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def run_on_slurm(cluster: Cluster, folder: Path, *arguments: str) -> str:
    with on_slurm(cluster, folder, *arguments) as process:
        return succeeded(ended(process))


def jobs(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """State and comment of each job that the controller remembers, by its id."""
    lines = cluster.slurm("squeue", "--noheader", "--states=all", "--format=%i|%T|%k", check=False).splitlines()
    return {i: (state, comment) for i, state, comment in (line.split("|") for line in lines)}


def running(cluster: Cluster, comment: str) -> str | None:
    return next(
        (i for i, (state, said) in jobs(cluster).items() if state == "RUNNING" and said.startswith(comment)), None
    )


def wait_for(cluster: Cluster, comment: str) -> str:
    until(lambda: running(cluster, comment) is not None, f"a running job {comment}", PATIENCE_S)
    found = running(cluster, comment)
    assert found is not None
    return found


@pytest.mark.slow
def test_each_job_gets_what_the_profile_says_and_makes_the_same_bits(tmp_path: Path, project: Path) -> None:
    made = {
        name: (project / name).read_bytes()
        for name in (
            "results/train/mlp/seed-0/weights.pt",
            "results/predict/mlp/seed-0/valid.csv",
            "data/sample/store/test.npy",
            "data/sample/attributes/valid.npy",
        )
    }
    # The benchmark of the course's two partitions, where the run measured this machine alone.
    benchmark = {"partitions": ["thin_course", "gpu_course"], "batch_sizes": [1], "precisions": ["fp32"]}
    (project / "two.yaml").write_text(yaml.safe_dump({"benchmark": benchmark}))
    config = ("--configfile", "tests/config/tiny.yaml", "two.yaml", "--")
    with started_cluster(accounting=True) as cluster:
        run_on_slurm(cluster, project, *config, "results/benchmark/bottleneck.json")
        # A training's own settings are made again as well, by a local rule.
        whole = [name for name in made if "attributes" not in name]
        for name in (*whole, "results/train/mlp/settings.json"):
            (project / name).unlink()
        assert "resolve_variant" in run_on_slurm(cluster, project, *config, *whole)
        # Two passes again, in shards. By mtime alone: all others would follow, since their rules are other ones now.
        (project / "shards.yaml").write_text("shards: 2\n")
        passes = ("results/predict/mlp/seed-0/valid.csv", "data/sample/attributes/valid.npy")
        for name in passes:
            (project / name).unlink()
        sharded = ("--configfile", "tests/config/tiny.yaml", "shards.yaml", "--rerun-triggers", "mtime", "--")
        run_on_slurm(cluster, project, *sharded, *passes)
        until(
            lambda: {row[2] for row in accounts(cluster).values()} == {"COMPLETED"}, "all jobs' end in the accounts",
            PATIENCE_S,
        )  # fmt: skip
        rows = accounts(cluster)
    # The local rules are not among them.
    assert sorted([row[0].partition("_wildcards")[0], *row[1:]] for row in rows.values()) == [
        ["rule_build_store", "thin_course", "COMPLETED", "1", "4G", "01:00:00", "no GPU"],
        ["rule_gather_arrays", "thin_course", "COMPLETED", "1", "4G", "01:00:00", "no GPU"],
        ["rule_gather_tables", "thin_course", "COMPLETED", "1", "4G", "01:00:00", "no GPU"],
        *2 * [["rule_measure_attributes_shard", "thin_course", "COMPLETED", "1", "2G", "01:00:00", "no GPU"]],
        ["rule_measure_throughput", "gpu_course", "COMPLETED", "4", "8G", "01:00:00", "GPU"],
        ["rule_measure_throughput", "thin_course", "COMPLETED", "4", "8G", "01:00:00", "no GPU"],
        ["rule_predict_seed", "gpu_course", "COMPLETED", "4", "8G", "00:30:00", "GPU"],
        *2 * [["rule_predict_seed_shard", "gpu_course", "COMPLETED", "4", "8G", "00:30:00", "GPU"]],
        ["rule_train_seed", "gpu_course", "COMPLETED", "4", "8G", "04:00:00", "GPU"],
    ]
    # Each measurement names the job that made it, and what torch saw there: the GPU of this cluster is none.
    machines = json.loads((project / "results" / "benchmark" / "bottleneck.json").read_text())["machines"]
    assert [machine["partition"] for machine in machines] == ["thin_course", "gpu_course"]
    for machine in machines:
        comment, partition, *_ = rows[machine["job_id"]]
        assert comment == f"rule_measure_throughput_wildcards_{machine['partition']}"
        assert partition == machine["partition"] == machine["slurm_partition"]
        assert machine["kind"] == "cpu" and machine["device"] == machine["cpu"] and machine["cuda"] is None
    assert {name: (project / name).read_bytes() for name in made} == made
    # Slurm's own log of each job is kept where the profile says.
    assert list((project / "results" / "logs" / "slurm" / "rule_train_seed").rglob("*.log"))


def accounts(cluster: Cluster) -> dict[str, list[str]]:
    """Comment, partition, state, CPUs, memory, walltime and GPU of each job by its id, from Slurm's accounts."""
    fields = "JobID,Comment,Partition,State,AllocCPUS,ReqMem,Timelimit,AllocTRES"
    rows = [line.split("|") for line in cluster.slurm("sacct", "-X", "-n", "-P", "-o", fields).splitlines()]
    return {row[0]: [*row[1:-1], "GPU" if "gres/gpu=1," in row[-1] else "no GPU"] for row in rows}


# Jobs that cost nothing, below the same profile and with the same words at the end.
FAILING = f"""
import sys
sys.path.insert(0, "{ROOT}/workflow/scripts")
include: "{ROOT}/workflow/rules/cluster.smk"
rule all:
    input: "memory.txt", "node.txt", "full.txt", "time.txt", "cancelled.txt", "refused.txt", "wrong.txt", "beside.txt"
localrules: beside
rule memory:
    output: "memory.txt"
    resources: mem_mb=lambda wildcards, attempt: 200 if attempt == 1 else 4000
    shell: "{sys.executable} -c 'import time; kept = bytearray(600_000_000); time.sleep(3)'; touch {{output}}"
rule node:
    output: "node.txt"
    resources: slurm_partition=lambda wildcards, attempt: "gpu_course" if attempt == 1 else "thin_course"
    shell: "if [ -e again ]; then touch {{output}}; else touch again; sleep 600; fi"
rule full:
    output: "full.txt"
    retries: 0
    resources: mem_mb=200
    shell: "{sys.executable} -c 'import time; kept = bytearray(600_000_000); time.sleep(600)'"
rule time:
    output: "time.txt"
    retries: 0
    resources: runtime=1
    shell: "sleep 600"
rule cancelled:
    output: "cancelled.txt"
    retries: 0
    shell: "sleep 600"
rule refused:
    output: "refused.txt"
    retries: 0
    resources: runtime={MAX_MINUTES + 1}
    shell: "touch {{output}}"
rule wrong:
    output: "wrong.txt"
    log: "wrong.log"
    retries: 0
    shell: "echo 'error: train.csv: no rows' > {{log}}; exit 1"
rule beside:
    output: "beside.txt"
    log: "beside.log"
    retries: 0
    shell: "echo 'error: 3 findings block the run' > {{log}}; exit 1"
"""


@pytest.mark.slow
def test_jobs_that_fail_are_tried_again_or_explained(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "Snakefile").write_text(FAILING)
    shutil.copytree(PROFILE, folder / "profiles" / "slurm")
    with (
        started_cluster(accounting=False) as cluster,
        on_slurm(cluster, folder, "--keep-going") as process,
    ):
        cluster.slurm("scancel", wait_for(cluster, "rule_cancelled"))
        # The node of one job dies: slurmd is gone, and the controller is told so, which waits 300 s otherwise.
        until((folder / "again").exists, "the first attempt of rule node", PATIENCE_S)
        lost = wait_for(cluster, "rule_node")
        node = cluster.slurm("squeue", "--noheader", "--jobs", lost, "--format=%N")
        cluster.end_daemon(f"slurmd-{node}")
        cluster.slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        until(lambda: jobs(cluster)[lost][0] == "NODE_FAIL", "the lost job's state", PATIENCE_S)
        # The controller is away while jobs run, and comes back.
        cluster.end_daemon("slurmctld", signal.SIGTERM)
        cluster.start_daemon("slurmctld")
        cluster.start_daemon(f"slurmd-{node}")
        done = ended(process)
    assert done.returncode == 1, done.stdout
    # Nothing is lost: more memory at the second attempt, another node.
    assert (folder / "memory.txt").exists() and (folder / "node.txt").exists()
    said = done.stdout.partition(" failed:\n")[2]
    told = {block.split(":")[0]: block for block in re.split(r"(?:^|\n)  (?=\w)", said)[1:]}
    assert set(told) == {"full", "time", "cancelled", "refused", "wrong", "beside"}, said
    for rule, why in {
        "full": "why: too little memory: it had 200M",
        "time": "why: its walltime ran out after 00:01:00",
        "cancelled": "why: cancelled",
        "refused": "why: Slurm took no such job: Batch job submission failed: Requested time limit is invalid",
        "wrong": "why: error: train.csv: no rows",
        "beside": "why: error: 3 findings block the run",
    }.items():
        assert why in told[rule] and "do:" in told[rule], told[rule]
        assert rule in ("refused", "beside") or re.search(rf"log: \S+/rule_{rule}/\d+\.log", told[rule]), told[rule]


@pytest.mark.slow
def test_a_training_outlives_snakemake_its_walltime_and_the_head_job(tmp_path: Path, project: Path) -> None:
    state, weights = project / LONG / "resume.pt", project / LONG / "weights.pt"
    asked = ["--configfile", "mine.yaml", "--", f"{LONG}/weights.pt"]
    log = project / "results" / "logs" / "train_seed" / "long" / "seed-0.log"
    rule = "rule_train_seed_wildcards_long"

    def head() -> tuple[str, Path]:
        done = subprocess.run(
            ["sbatch", "--parsable", "profiles/slurm/head.sbatch", *asked],
            cwd=project, env=cluster.environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip(), project / f"pcam-head-{done.stdout.strip()}.log"

    with started_cluster(accounting=False) as cluster:
        # 1. Snakemake is killed; its job goes on. A head refuses to take over the lock of another run.
        with on_slurm(cluster, project, *asked):
            first = wait_for(cluster, rule)
            until(state.exists, "a state of the training", PATIENCE_S)
        refused, said = head()
        until(lambda: jobs(cluster)[refused][0] == "FAILED", "the refusal", PATIENCE_S)
        assert "locked by a Snakemake that is no head job" in said.read_text()
        # 2. Unlocked, the head's own job waits for the first, which then runs out of time.
        run_on_slurm(cluster, project, "--unlock", *asked)
        first_head, _ = head()
        until(lambda: log.exists() and "waiting for process" in log.read_text(), "the wait for the first", PATIENCE_S)
        assert jobs(cluster)[first][0] == "RUNNING" and not weights.exists()
        cluster.slurm("scontrol", "update", f"JobId={first}", "TimeLimit=00:00:01")
        until(lambda: "resumed after step" in log.read_text(), "the second job's start from the state", PATIENCE_S)
        until(lambda: jobs(cluster)[first][0] == "TIMEOUT", "the end of the first job", PATIENCE_S)
        second = wait_for(cluster, rule)
        # 3. The head dies as it does with its node. The next one ends the job it left and goes on, in a log of its own.
        log.unlink()
        cluster.kill_processes(first_head)
        until(lambda: jobs(cluster)[first_head][0] not in ("RUNNING", "COMPLETING"), "the head's end", PATIENCE_S)
        assert jobs(cluster)[second][0] == "RUNNING"
        second_head, took_over = head()
        until(lambda: jobs(cluster)[second][0] == "CANCELLED", "the end of the job it left", PATIENCE_S)
        third = wait_for(cluster, rule)
        until(lambda: log.exists() and "resumed after step" in log.read_text(), "the third job's start", PATIENCE_S)
        assert "an earlier head died" in took_over.read_text()
        # 4. Another head waits for this one to end. scancel of this one ends its job and leaves no lock.
        last_head, said = head()
        reason = ("squeue", "--noheader", "--jobs", last_head, "--format=%T %R")
        until(lambda: cluster.slurm(*reason) == "PENDING (Dependency)", "the other head's wait", PATIENCE_S)
        log.unlink()
        cluster.slurm("scancel", second_head)
        for ended_job in (second_head, third):
            until(lambda i=ended_job: jobs(cluster)[i][0] == "CANCELLED", f"the end of job {ended_job}", PATIENCE_S)
        fourth = wait_for(cluster, rule)
        until(lambda: log.exists() and "resumed after step" in log.read_text(), "the fourth job's start", PATIENCE_S)
        # 5. The walltime of the head ends: this is the signal that Slurm sends before.
        cluster.slurm("scancel", "--signal=USR1", "--batch", last_head)
        until(lambda: jobs(cluster)[last_head][0] == "PENDING", "the head back in the queue", PATIENCE_S)
        until(lambda: jobs(cluster)[fourth][0] == "CANCELLED", "the end of the head's job", PATIENCE_S)
        assert not weights.exists()
        # Slurm lets a job wait two minutes before it starts again.
        cluster.slurm("scontrol", "update", f"JobId={last_head}", "StartTime=now")
        until(lambda: jobs(cluster)[last_head][0] == "COMPLETED", "the end of the run", 2 * PATIENCE_S)
    assert weights.exists() and not state.exists()
    assert "resumed after step" in log.read_text()
    text = said.read_text()
    assert "an earlier head died" not in text and "back into the queue" in text
