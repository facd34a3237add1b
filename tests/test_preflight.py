"""The pre-flight: each known cause of failed jobs is planted and has to be found, in its own row, with what to do."""

import gzip
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import yaml
from conftest import ROOT
from slurm_cluster import NODES as PARTITION_OF
from slurm_cluster import Cluster, running_cluster, why_not

from pcam.checks import (
    FIX,
    NOT_APPLICABLE,
    PASS,
    UNKNOWN,
    WARN,
    Check,
    check_account,
    check_data,
    check_files,
    check_folders,
    check_git,
    check_gpu,
    check_hours,
    check_limits,
    check_memory,
    check_packages,
    check_partitions,
    check_room,
    check_walltime,
    draw_table,
    patches_told,
)
from pcam.cluster import (
    NoAnswer,
    Sent,
    ask,
    ask_cluster,
    environment,
    gpus_of,
    has_accounting,
    minutes_of,
    read_accounts,
    read_partitions,
    send,
    wait_for,
)
from pcam.facts import BYTES_GZ, PATCH_BYTES, pcam_filename
from pcam.files import write_csv, write_json, write_text
from pcam.hdf5 import write_labels, write_patches
from pcam.needs import Need, Room, estimate_hours, estimate_room, training_seconds
from pcam.planned import Job, Plan, admitted, gpus_asked
from pcam.preflight import preflight
from pcam.probe import differing_packages, needed_memory, try_file, try_folder
from pcam.probing import look_from_jobs, pins, places_of, probe_here, read_answer, remembered, rows_of_job, send_probes
from pcam.settings import read_config
from workflow import TINY, snakemake

SCRIPTS = ROOT / "workflow" / "scripts"
MIB = 2**20
# As Slurm 22.05 prints them, shortened; the second GPU node is drained.
PARTITIONS = """\
PartitionName=gpu_course AllowGroups=ALL Default=NO MaxTime=02:00:00 State=UP MaxMemPerNode=16384
PartitionName=thin_course AllowGroups=ALL Default=YES MaxTime=1-00:00:00 MaxCPUsPerNode=4 State=UP
PartitionName=old AllowGroups=ALL Default=NO MaxTime=UNLIMITED State=DOWN MaxMemPerNode=UNLIMITED
"""
NODES = """\
NodeName=gpu1 Arch=x86_64 CPUTot=8 Gres=gpu:a100:2(S:0) RealMemory=32768 State=MIXED Partitions=gpu_course BootTime=x
NodeName=gpu2 Arch=x86_64 CPUTot=64 Gres=gpu:8 RealMemory=999999 State=IDLE+DRAIN Partitions=gpu_course BootTime=x
NodeName=thin1 Arch=x86_64 CPUTot=16 Gres=(null) RealMemory=8000 State=IDLE Partitions=thin_course,old BootTime=x
"""
CLUSTER = read_partitions(PARTITIONS, NODES)
TRAINING = Job(
    "train_seed", {"variant": "baseline", "seed": "0"}, queued=True, partition="gpu_course", cpus=4, mem_mb=12000,
    minutes=60, gpus=1,
)  # fmt: skip


def settings_of(**changes):
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    for key, value in changes.items():
        config[key] = {**config[key], **value}
    return read_config(config)


def request(folder: Path, **changes) -> dict:
    asked = {"pins": {}, "files": [], "folders": [str(folder)], "imports": [], "gpu": False, "recipes": {}}
    return {**asked, **changes}


def probed(folder: Path, asked: dict, *options: str, path: str = "") -> dict:
    """The answer of a probe that runs in a Python of its own, as in a job."""
    file = folder / "request.json"
    file.write_text(json.dumps(asked))
    done = subprocess.run(
        [sys.executable, *options, "-m", "pcam.probe", str(file)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": f"{SCRIPTS}:{path}"},
    )  # fmt: skip
    answer = read_answer(f"a module greets\n{done.stdout}")
    assert answer is not None
    return answer


# Packages and the environment.


def test_a_missing_package_and_one_of_another_version_are_named(tmp_path: Path) -> None:
    pinned = {"numpy": np.__version__, "scipy": "0.0.1", "no-such-package": "1.0"}
    answer = probed(tmp_path, request(tmp_path, pins=pinned))
    assert {row["name"] for row in answer["packages"]} == {"scipy", "no-such-package"}
    lacking = check_packages(answer, ["no-such-package", "numpy"])
    assert lacking.result == FIX and "lacks no-such-package" in lacking.seen and "pip install" in lacking.todo
    differing = check_packages(answer, ["numpy"])
    assert differing.result == WARN and "0.0.1" in differing.seen
    assert check_packages({**answer, "packages": []}, ["numpy"]).result == PASS


def test_a_build_of_the_pinned_version_is_no_other_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cpu")
    assert differing_packages({"torch": "2.13.0"}) == []
    assert differing_packages({"torch": "2.13"}) == [{"name": "torch", "wanted": "2.13", "found": "2.13.0+cpu"}]


def test_a_package_that_is_there_and_cannot_be_imported_is_named_with_its_error(tmp_path: Path) -> None:
    about = tmp_path / "broken_one-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-one\nVersion: 1.0\n")
    (about / "RECORD").write_text("broken_inside/__init__.py,,\n")
    (tmp_path / "broken_inside").mkdir()
    (tmp_path / "broken_inside" / "__init__.py").write_text("raise ImportError('libcuda.so.1: cannot open')")
    asked = request(tmp_path, pins={"broken-one": "1.0"}, imports=["broken-one", "numpy", "pyyaml", "pillow"])
    answer = probed(tmp_path, asked, path=str(tmp_path))
    assert answer["packages"] == []
    row = check_packages(answer, ["broken-one"])
    assert row.result == FIX and row.seen.endswith("cannot import broken-one: ImportError: libcuda.so.1: cannot open")


def test_a_job_with_another_python_is_told_from_its_packages(tmp_path: Path) -> None:
    """-S: a Python that has nothing but its own library, as one outside the environment."""
    recipes = {"baseline": {"architecture": {}, "batch_size": 8}}
    asked = request(
        tmp_path, pins=pins(), imports=["torch"], gpu=True, recipes=recipes, files=[str(tmp_path / "a_x.h5")]
    )
    (tmp_path / "a_x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    answer = probed(tmp_path, asked, "-S")
    row = check_packages(answer, ["torch", "h5py"])
    assert row.result == FIX and "lacks " in row.seen and "torch" in row.seen and sys.executable in row.seen
    assert check_gpu(answer, asked=True).result == FIX
    unknown = check_memory(answer, 4000, gpu=False)
    assert unknown.result == UNKNOWN and "ModuleNotFoundError: No module named 'psutil'" in unknown.seen
    assert check_files(answer).result == PASS  # what lacks h5py cannot judge a file


# Files.


def data_file(folder: Path, part: str, n: int = 3, *, split: str = "train") -> Path:
    path = folder / pcam_filename(split, part.removesuffix(".gz"))
    if part.startswith("x"):
        write_patches(path, np.zeros((n, 96, 96, 3), np.uint8 if split != "train" else np.float32))
    else:
        write_labels(path, np.arange(n) % 2, n)
    if part.endswith(".gz"):
        packed = path.with_suffix(".h5.gz")
        packed.write_bytes(gzip.compress(path.read_bytes(), 1))
        return packed
    return path


@pytest.mark.parametrize("part", ["x.h5", "y.h5", "x.h5.gz", "y.h5.gz"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_sound_file_tells_its_patches(tmp_path: Path, part: str, split: str) -> None:
    path = data_file(tmp_path, part, 5, split=split)
    told = try_file(str(path))
    assert told["error"] is None and told["patches"] == 5
    assert patches_told([told]) == {split: 5}
    if part.endswith(".gz"):
        assert told["unpacked_bytes"] == path.with_suffix("").stat().st_size


@pytest.mark.parametrize("part", ["x.h5", "y.h5", "x.h5.gz", "y.h5.gz"])
def test_a_truncated_file_is_named(tmp_path: Path, part: str) -> None:
    path = data_file(tmp_path, part)
    path.write_bytes(path.read_bytes()[:-50])
    row = check_files({"host": "node", "files": [try_file(str(path))]})
    assert row.result == FIX and path.name in row.seen and "cut short" in row.seen and "fetch" in row.todo


@pytest.mark.parametrize("part", ["x.h5", "x.h5.gz"])
def test_a_web_page_under_a_data_files_name_is_named(tmp_path: Path, part: str) -> None:
    path = data_file(tmp_path, part)
    path.write_bytes(b"<!DOCTYPE html>" + b" " * 5000)
    assert path.name in check_files({"host": "node", "files": [try_file(str(path))]}).seen


def test_a_file_in_two_gzip_members_is_whole(tmp_path: Path) -> None:
    path = data_file(tmp_path, "x.h5.gz")
    plain = path.with_suffix("").read_bytes()
    path.write_bytes(gzip.compress(plain[:70_000], 1) + gzip.compress(plain[70_000:], 1))
    assert try_file(str(path))["error"] is None


@pytest.mark.parametrize("part", ["x.h5", "x.h5.gz"])
def test_bytes_after_the_end_of_a_file_are_no_fault(tmp_path: Path, part: str) -> None:
    path = data_file(tmp_path, part)
    plain = path.with_suffix("").read_bytes() if part.endswith(".gz") else path.read_bytes()
    path.write_bytes(gzip.compress(plain + b"\0" * 9, 1) if part.endswith(".gz") else plain + b"\0" * 9)
    told = try_file(str(path))
    assert told["error"] is None and told["patches"] == 3


def test_a_look_that_takes_too_long_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pcam.probing.HERE_S", 0.001)
    row = probe_here(request(tmp_path))
    assert isinstance(row, Check) and row.result == UNKNOWN and "no answer within" in row.seen
    # What it would have told is named as unknown, and the rest is checked all the same.
    assert preflight(Plan((TRAINING,), slurm=False, python="python", asked=True), settings_of(), {}) is not None
    rows = {row["check"]: row for row in json.loads(Path("results", "preflight.json").read_text())["checks"]}
    assert rows["packages"]["result"] == rows["files, folders, space"]["result"] == UNKNOWN
    assert set(rows) >= {"data", "jobs", "time", "code", "partitions", "account", "limits", "walltime"}


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "train_x.h5"
    folder.mkdir()  # root may read any file, but nobody reads a folder
    row = check_files({"host": "node", "files": [try_file(str(tmp_path / "no.h5")), try_file(str(folder))]})
    assert row.result == FIX and "no.h5: No such file" in row.seen and "train_x.h5: Is a directory" in row.seen


def test_labels_of_another_number_than_patches_are_no_pair(tmp_path: Path) -> None:
    files = [try_file(str(data_file(tmp_path, "x.h5", 4))), try_file(str(data_file(tmp_path, "y.h5", 6)))]
    row = check_files({"host": "node", "files": files})
    assert row.result == FIX and "4 and 6" in row.seen


def test_n_that_the_files_do_not_tell_is_not_known() -> None:
    assert check_data("PCam files", "folder", {"train": 5}, "").result == UNKNOWN


# Folders and room.


def test_a_folder_that_is_not_writable_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    blocked = try_folder(str(tmp_path / "file" / "results"))
    good = try_folder(str(tmp_path / "not" / "yet" / "there"))
    row = check_folders({"host": "node", "folders": [good, blocked]})
    assert row.result == FIX and str(tmp_path / "file") in row.seen and good["error"] is None
    assert not (tmp_path / "not").exists() and list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_another_user_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert check_folders({"host": "node", "folders": [try_folder(str(tmp_path))]}).result == FIX


def test_a_full_disk_is_found_by_the_sum_of_what_lies_on_it() -> None:
    def folder(path: str, device: int, free: float) -> dict:
        return {"path": path, "place": path, "error": None, "free_bytes": free, "device": device}

    rooms = [Room("data", 6 * 10**9, "store"), Room("results", 6 * 10**9, "states")]
    one_disk = {"folders": [folder("data", 1, 1e10), folder("results", 1, 1e10)]}
    two_disks = {"folders": [folder("data", 1, 1e10), folder("results", 2, 1e10)]}
    row = check_room(rooms, one_disk)
    assert row.result == FIX and "12.0 GB needed, 10.0 GB free" in row.seen
    assert check_room(rooms, two_disks).result == PASS


def test_room_follows_from_n_and_from_what_is_still_to_be_made() -> None:
    patches = {"train": 100, "valid": 10, "test": 10}
    jobs = [Job(rule, {}, True) for rule in ("import_directory", "build_store", "train_seed")]
    data, results = estimate_room(settings_of(), patches, [1000], jobs)
    assert data.needed == 120 * PATCH_BYTES + 1000 and results.needed > 0
    made = estimate_room(settings_of(), patches, [1000], [])
    assert made[0].needed == 0 and made[1].needed < results.needed
    # Of the published record, only the files that are still missing.
    missing = [Job("download_pcam", {"file": file}, False) for file in ("test_x.h5", "test_meta.csv")]
    packed = BYTES_GZ[pcam_filename("test", "x.h5.gz")]
    assert estimate_room(settings_of(), patches, [], missing)[0].needed == packed + 32768 * PATCH_BYTES


# What Slurm says.


def test_times_and_gpus_in_slurms_notation() -> None:
    told = {"60": 60, "60:30": 61, "1:30:00": 90, "2-12": 3600, "2-12:30": 3630, "1-00:00:00": 1440, "UNLIMITED": None}
    assert {text: minutes_of(text) for text in told} == told
    gpus = {"(null)": 0, "gpu:2": 2, "gpu:a100:4(S:0-1)": 4, "nvme:1,gpu:mig-1g:3": 3, "gpu": 1, "": 0,
            "gpu:1g.5gb:7": 7, "gpu:1g.5gb:7(S:0,2),gpu:a100": 8}  # fmt: skip
    assert {text: gpus_of(text) for text in gpus} == gpus
    asked = [({"gres": "gpu:1"}, 1), ({"gres": "gpu:a100:2"}, 2), ({"gpu": 3}, 3), ({"gres": "nvme:1"}, 0), ({}, 0),
             ({"gres": "gpu:1g.5gb:1"}, 1), ({"gres": "gpu:1g.5gb"}, 1)]  # fmt: skip
    assert [gpus_asked(resources) for resources, _ in asked] == [count for _, count in asked]


def test_an_unknown_or_closed_partition_is_named_and_a_drained_one_waits() -> None:
    assert check_partitions([TRAINING], CLUSTER).result == PASS
    for name, words in (("gpu_corse", "no such partition"), ("old", "takes no jobs")):
        row = check_partitions([replace(TRAINING, partition=name)], CLUSTER)
        assert row.result == FIX and f"{name}: {words}, for train_seed" in row.seen and "thin_course" in row.todo
    drained = read_partitions(PARTITIONS, NODES.replace("State=MIXED", "State=DOWN*"))
    row = check_partitions([TRAINING], drained)
    assert row.result == WARN and "down or drained, so train_seed will wait" in row.seen
    assert check_partitions([TRAINING, replace(TRAINING, partition="gpu_corse")], drained).result == FIX
    assert check_limits([TRAINING], drained).result == PASS
    assert check_limits([replace(TRAINING, gpus=99)], drained).result == FIX  # no node will ever have them


def test_an_unknown_account_is_named_where_the_cluster_keeps_any() -> None:
    ours = read_accounts("course\nlab\n")
    assert check_account([replace(TRAINING, account="Course")], ours).result == PASS
    row = check_account([replace(TRAINING, account="corse")], ours)
    assert row.result == FIX and "corse" in row.seen and "course, lab" in row.todo
    assert check_account([replace(TRAINING, account="corse")], None).result == NOT_APPLICABLE
    assert has_accounting("AccountingStorageType   = accounting_storage/slurmdbd")
    assert not has_accounting("AccountingStorageType   = accounting_storage/none")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Slurm's commands, all there are; each is to be written by the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def command(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_accounts_that_slurm_does_not_tell_leave_the_rest_known(commands: Path) -> None:
    command(commands / "scontrol", f"""case "$*" in
        *partition) cat <<'END'\n{PARTITIONS}END\n;;
        *node) cat <<'END'\n{NODES}END\n;;
        *) echo 'AccountingStorageType = accounting_storage/slurmdbd';;
    esac""")  # fmt: skip
    command(commands / "sacctmgr", "echo 'sacctmgr: error: Connection refused' >&2; exit 1")
    cluster = ask_cluster()
    assert cluster.partitions == CLUSTER and cluster.default == "thin_course"
    row = check_account([replace(TRAINING, account="course")], cluster.accounts)
    assert row.result == UNKNOWN and "Connection refused" in row.seen


def test_a_controller_that_is_away_for_a_while_loses_no_job(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcam.cluster.POLL_S", 0.0)
    command(commands / "scontrol", f"""echo look >> {tmp_path}/looks
        case $(wc -l < {tmp_path}/looks) in
        1) echo 'JobId=7 JobState=RUNNING Reason=None';;
        2) echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1;;
        *) echo 'JobId=7 JobState=COMPLETED Reason=None';;
    esac""")  # fmt: skip
    assert wait_for(["7"], 30, 0) == {"7": ("COMPLETED", "None")}
    command(commands / "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert wait_for(["7"], 30, 0) == {"7": ("GONE", "")}
    # One that never answers again: the job is cancelled, and a scancel that fails is no traceback.
    command(commands / "scontrol", "exit 1")
    command(commands / "scancel", f"echo $1 > {tmp_path}/cancelled; exec sleep 60")
    monkeypatch.setattr("pcam.cluster.ASK_S", 1)
    assert wait_for(["7"], 0, 30) == {"7": ("PENDING", "")}
    assert (tmp_path / "cancelled").read_text() == "7\n"


def test_a_job_that_started_in_time_may_run_on_and_one_that_did_not_is_cancelled(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcam.cluster.POLL_S", 0.0)
    command(commands / "scancel", f"echo $1 >> {tmp_path}/cancelled")
    command(commands / "scontrol", f"""case $4 in
        8) echo 'JobId=8 JobState=PENDING Reason=Priority';;
        *) [ -e {tmp_path}/cancelled ] && state=COMPLETED || state=RUNNING
           echo "JobId=7 JobState=$state Reason=None";;
    esac""")  # fmt: skip
    assert wait_for(["7", "8"], 0, 600) == {"7": ("COMPLETED", "None"), "8": ("PENDING", "Priority")}
    assert (tmp_path / "cancelled").read_text() == "8\n"


# sbatch, which gives ids from 7 on and keeps the names that it was given.
SBATCH = """for word; do case $word in --job-name=*) echo "${word#*=}" >> named;; esac; done
echo $(($(wc -l < named) + 6))"""


@pytest.mark.parametrize("during", ["the wait", "the second job's sbatch"])
def test_jobs_are_cancelled_when_the_look_is_interrupted(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    monkeypatch.chdir(tmp_path)
    command(commands / "sbatch", SBATCH)
    command(commands / "scontrol", "echo 'JobId=7 JobState=PENDING Reason=Priority'")
    command(commands / "scancel", "echo $1 >> cancelled")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    started = subprocess.run

    def interrupted(line, **options):
        done = started(line, **options)
        if line[0] == "sbatch" and done.stdout.strip() == "8":
            raise KeyboardInterrupt
        return done

    if during == "the wait":
        # Not time.sleep itself, which a command's timeout uses as well.
        monkeypatch.setattr("pcam.cluster.time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupt))
    else:
        monkeypatch.setattr("pcam.cluster.subprocess.run", interrupted)
    jobs = [Job("a_rule", {}, True, partition=name) for name in ("gpu_course", "thin_course")]
    with pytest.raises(KeyboardInterrupt):
        look_from_jobs(Plan((), True, "python", asked=True), jobs, request(tmp_path), None)
    names = Path("named").read_text().split()
    assert len(set(names)) == 2
    last = "8" if during == "the wait" else f"--name={names[1]}"
    assert sorted(Path("cancelled").read_text().split()) == sorted(["7", last])


def test_a_job_that_slurm_took_after_sbatch_gave_up_is_cancelled_by_its_name(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command(commands / "sbatch", f"{SBATCH}; exec sleep 60")
    command(commands / "scancel", "echo $1 >> cancelled")
    monkeypatch.setattr("pcam.cluster.ASK_S", 1)
    sent = send("", "true", tmp_path / "job.txt", 1)
    assert sent.id is None and "no answer" in str(sent.refused)
    assert Path("cancelled").read_text() == f"--name={Path('named').read_text()}"


def test_jobs_get_a_users_own_settings_of_sbatch_but_none_of_a_surrounding_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SBATCH_RESERVATION", "SLURM_CONF", "SLURM_JOB_ID", "SLURM_CPUS_PER_TASK"):
        monkeypatch.setenv(name, "1")
    assert {"SBATCH_RESERVATION", "SLURM_CONF"} == {n for n in environment() if n.startswith(("SBATCH_", "SLURM_"))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mem_mb": 20000}, "20,000 MB of memory, gpu_course gives 16,384"),  # the partition's own limit
        ({"partition": "thin_course", "gpus": 0, "mem_mb": 9000}, "9,000 MB of memory, thin_course gives 8,000"),
        ({"cpus": 9}, "9 cpus, gpu_course gives 8"),  # the node with 64 is drained
        ({"partition": "thin_course", "gpus": 0, "mem_mb": 1, "cpus": 5}, "5 cpus, thin_course gives 4"),
        ({"gpus": 4}, "4 GPUs, gpu_course gives 2"),
        ({"minutes": 121}, "121 minutes, gpu_course gives 120"),
    ],
)
def test_a_rule_that_asks_for_more_than_its_partition_has_is_named(change: dict, words: str) -> None:
    assert check_limits([TRAINING], CLUSTER).result == PASS
    row = check_limits([TRAINING, replace(TRAINING, **change)], CLUSTER)
    assert row.result == FIX and row.seen == f"train_seed asks for {words}"


def test_a_retry_that_the_partition_would_refuse_is_a_warning_and_does_not_count() -> None:
    growing = replace(TRAINING, retries=((16000, 120), (16000, 180), (20000, 120)))
    row = check_limits([growing], CLUSTER)
    assert row.result == WARN and row.seen == "a retry of train_seed asks for more than the 120 minutes of gpu_course"
    assert "most_minutes" in row.todo
    assert admitted(growing, CLUSTER).retries == ((16000, 120),)
    greedy = replace(TRAINING, retries=((20000, 60),))
    assert "16,384 MB of memory of gpu_course" in check_limits([greedy], CLUSTER).seen
    assert check_limits([admitted(greedy, CLUSTER)], CLUSTER).result == PASS


def test_a_machine_without_slurm_says_so() -> None:
    with pytest.raises(NoAnswer, match="no-such-command is not installed"):
        ask(("no-such-command",))
    with pytest.raises(NoAnswer, match="false: exit code 1"):
        ask(("false",))


# GPU and memory.


def test_a_gpu_that_torch_does_not_see_is_a_fault_where_one_was_asked_for() -> None:
    blind = {"host": "gpu1", "gpu": {"name": None, "free_bytes": None, "error": "torch 2 sees no GPU"}}
    assert check_gpu(blind, asked=True).result == FIX
    assert check_gpu(blind, asked=False).result == NOT_APPLICABLE
    seeing = {"host": "gpu1", "gpu": {"name": "NVIDIA A100", "free_bytes": 4 * 2**30, "error": None}}
    assert check_gpu(seeing, asked=True) == Check("GPU", PASS, "NVIDIA A100, 4.0 GiB free, on gpu1")


def test_a_training_too_large_for_the_gpu_slice_or_the_memory_asked_for_is_named() -> None:
    architecture = {"model": "resnet", "width": 64, "depth": 2, "hidden": 8, "dropout": 0.0, "tta": True}
    recipes = {
        name: {"architecture": architecture, "batch_size": size} for name, size in (("small", 1), ("large", 4096))
    }
    memory = needed_memory(recipes)
    assert memory["recipes"]["large"] > 4.8 * 2**30 > memory["recipes"]["small"] > 0 < memory["process"]
    answer = {"host": "gpu1", "memory": memory, "gpu": {"name": "A100 MIG 1g.5gb", "free_bytes": int(4.8 * 2**30)}}
    row = check_memory(answer, 12000, gpu=True)
    assert (
        row.result == FIX and row.seen.startswith("large needs") and "A100 MIG" in row.seen and "small" not in row.seen
    )
    host = check_memory(answer, memory["process"] // MIB + 1000, gpu=False)
    assert host.result == FIX and "MB asked for" in host.seen
    assert check_memory(answer, 10**7, gpu=False).result == PASS
    # On a GPU too Slurm counts the process, which holds what CUDA takes of the host's memory.
    answer["memory"]["recipes"].pop("large")
    assert check_memory(answer, 12000, gpu=True).result == PASS
    row = check_memory(answer, memory["process"] // MIB - 1, gpu=True)
    assert row.result == FIX and "of the host" in row.seen and "mem_mb" in row.todo


def test_a_prediction_that_fails_says_why_and_a_recipe_may_have_any_name() -> None:
    wrong = needed_memory({"process": {"architecture": {"model": "resnet"}, "batch_size": 1}})
    row = check_memory({"host": "gpu1", "memory": wrong}, 4000, gpu=False)
    assert row.result == UNKNOWN and "KeyError: " in row.seen
    architecture = {"model": "mlp", "width": 1, "depth": 1, "hidden": 2, "dropout": 0.0, "tta": False}
    told = needed_memory({"process": {"architecture": architecture, "batch_size": 1}})
    assert told["recipes"]["process"] > 0 < told["process"]


# Time.


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """Results of a run that trained 2 epochs of 1,000 patches in 50 s: 40 patches/s."""
    results = tmp_path / "results"
    write_csv(results / "splits" / "train.csv", ("row",), [(i,) for i in range(1000)])
    write_csv(results / "train" / "baseline" / "seed-0" / "history.csv", ("epoch",), [(1,), (2,)])
    write_text(results / "benchmarks" / "train_seed" / "baseline" / "seed-0.tsv", "s\th:m:s\n50.0\t0:00:50\n")
    write_text(results / "benchmarks" / "build_store" / "train.tsv", "s\th:m:s\n36.0\t0:00:36\n")
    return results


def test_no_rate_is_made_up(tmp_path: Path) -> None:
    hours = estimate_hours([TRAINING, Job("build_store", {}, True)], settings_of(), 1000, tmp_path)
    assert hours.hours is None and hours.unmeasured == ("train_seed baseline", "build_store")
    assert check_hours(hours).result == UNKNOWN
    unknown = check_walltime([(TRAINING, None)])
    assert unknown.result == UNKNOWN and unknown.seen == "no rate measured of train_seed baseline"
    assert check_walltime([]).result == NOT_APPLICABLE


def test_hours_follow_from_measured_seconds(earlier: Path) -> None:
    settings = settings_of(train={"epochs": 4})
    need = training_seconds(TRAINING, settings, 3000, earlier)
    assert need.seconds == pytest.approx(4 * 3000 / 40) and need.basis.endswith("train_seed/baseline/seed-0.tsv")
    assert not need.there
    jobs = [TRAINING, Job("build_store", {}, True), Job("build_store", {}, True), Job("slice_metrics", {}, True)]
    hours = estimate_hours(jobs, settings, 3000, earlier)
    assert hours.hours == pytest.approx((300 + 36 + 36) / 3600) and hours.unmeasured == ("slice_metrics",)
    assert training_seconds(TRAINING, settings, None, earlier) is None


def test_a_training_on_an_earlier_split_gives_no_rate(earlier: Path) -> None:
    """Its seconds and epochs belong to another N."""
    tsv = earlier / "benchmarks" / "train_seed" / "baseline" / "seed-0.tsv"
    os.utime(tsv, (1, 1))
    assert training_seconds(TRAINING, settings_of(), 3000, earlier) is None


def test_a_training_has_the_rate_of_a_model_of_its_size_or_its_own_and_no_other(earlier: Path) -> None:
    columns = ("partition", "mode", "batch_size", "precision", "images_per_s", "model")
    rows = [("gpu_course", "loop", 8, "fp32", 100.0), ("gpu_course", "loop", 512, "fp32", 9999.0),
            ("gpu_course", "loop", 32, "fp32", None), ("gpu_course", "loop", 8, "bf16", 300.0),
            ("local", "loop", 8, "fp32", 1.0), ("gpu_course", "inference", 8, "fp32", 5000.0)]  # fmt: skip
    rows = [(*row, "champion") for row in rows] + [("gpu_course", "loop", 64, "fp32", 7.0, "large")]
    write_csv(earlier / "benchmark" / "throughput.csv", columns, rows)
    settings = settings_of(train={"epochs": 1, "batch_size": 64})
    other = replace(TRAINING, wildcards={"variant": "mlp", "seed": "0"})
    sizes = {key: getattr(settings.train, key) for key in ("model", "width", "depth", "hidden")}
    measured = {"champion": sizes, "large": {**sizes, "width": 999}}
    write_json(earlier / "benchmark" / "partition-gpu_course.json", {"architectures": measured})
    need = training_seconds(TRAINING, settings, 1000, earlier)
    assert need.seconds == pytest.approx(1000 / 100) and "champion, batch size 8" in need.basis and need.there
    assert training_seconds(other, settings, 1000, earlier) is None
    assert training_seconds(replace(TRAINING, wildcards={"variant": "tuned"}), settings, 1000, earlier) is None
    row = check_walltime([(TRAINING, need), (other, None)])
    assert row.result == PASS and row.seen.endswith("; not measured: train_seed mlp")
    # A benchmark by other code, or one that is not whole: no size is known.
    for odd in ({}, {"architectures": None}, {"architectures": {"champion": {"model": sizes["model"]}, "large": None}}):
        write_json(earlier / "benchmark" / "partition-gpu_course.json", odd)
        need = training_seconds(TRAINING, settings, 1000, earlier)
        assert need.seconds == pytest.approx(1000 / 40) and not need.there
    # The benchmark measured another size: what the variant itself took before.
    write_json(earlier / "benchmark" / "partition-gpu_course.json", {"architectures": {"champion": measured["large"]}})
    need = training_seconds(TRAINING, settings, 1000, earlier)
    assert need.seconds == pytest.approx(1000 / 40) and "baseline" in need.basis and not need.there


@pytest.mark.parametrize(
    ("seconds", "retries", "there", "result"),
    [
        (40 * 60, (), True, PASS),
        (55 * 60, (), True, WARN),
        (61 * 60, (), True, FIX),
        (61 * 60, (120, 180), True, WARN),
        (361 * 60, (120, 180), True, FIX),
        (361 * 60, (120, 180), False, WARN),  # a rate of a slower device stops nothing
    ],
)
def test_a_time_limit_below_the_measured_need_is_named(
    seconds: float, retries: tuple[int, ...], there: bool, result: str
) -> None:
    job = replace(TRAINING, retries=tuple((None, minutes) for minutes in retries))
    row = check_walltime([(TRAINING, Need(10.0, "a.tsv", True)), (job, Need(seconds, "b.tsv", there))])
    assert row.result == result and f"needs {seconds // 60} of 60 minutes, by b.tsv" in row.seen
    assert ("runtime of train_seed" in row.todo) == (result != PASS)


def test_code_that_no_commit_holds_is_a_warning() -> None:
    assert check_git({"commit": None, "dirty": None}).result == WARN
    assert check_git({"commit": "0123456789", "dirty": True}).result == WARN
    assert check_git({"commit": "0123456789", "dirty": False}).result == PASS


# Jobs that look around.


def test_each_place_gets_one_job_the_one_that_asks_for_most() -> None:
    small = Job("a_rule", {}, True, partition="gpu_course", mem_mb=1)
    thin = Job("b_rule", {}, True, partition="thin_course", mem_mb=5)
    places = places_of([small, TRAINING, thin, replace(TRAINING, mem_mb=20000)])
    assert {name: jobs[0].mem_mb for name, jobs in places.items()} == {
        "gpu_course, with GPU": 20000, "gpu_course, without GPU": 1, "thin_course": 5,
    }  # fmt: skip


def test_a_job_that_gave_no_answer_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcam.probing.LAG_S", 0.0)
    output = tmp_path / "job.txt"
    sent = Sent("7", None, output)
    queued = rows_of_job("gpu_course", [TRAINING], sent, ("PENDING", "Resources"), 60)
    assert [row.result for row in queued] == [UNKNOWN] and "did not start within 60 s (Resources)" in queued[0].seen
    assert "snakemake preflight waits" in queued[0].todo
    slow = rows_of_job("gpu_course", [TRAINING], sent, ("RUNNING", ""), 60)
    assert [row.result for row in slow] == [UNKNOWN] and "still ran" in slow[0].seen
    unshared = rows_of_job("gpu_course", [TRAINING], sent, ("COMPLETED", ""), 60)
    assert unshared[0].result == FIX and "share" in unshared[0].todo
    output.write_text("/bin/sh: 1: /home/x/.venv/bin/python: not found\n")
    lost = rows_of_job("gpu_course", [TRAINING], sent, ("FAILED", ""), 60)
    assert lost[0].result == FIX and "python: not found" in lost[0].seen and "environment" in lost[0].todo
    for state in ("TIMEOUT", "PREEMPTED", "NODE_FAIL", "CANCELLED"):
        ended = rows_of_job("gpu_course", [TRAINING], sent, (state, ""), 60)
        assert [row.result for row in ended] == [UNKNOWN] and state in ended[0].seen
    refused = rows_of_job(
        "gpu_course", [TRAINING], Sent(None, "Invalid partition name specified", output), ("", ""), 60
    )
    assert refused[0].result == FIX and "Invalid partition name" in refused[0].seen


def test_what_jobs_saw_is_not_asked_again_until_something_else_is_asked(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pcam.probing.direct_packages", list)
    command(
        commands / "sbatch",
        """echo sent >> sent
        for word; do case $word in --wrap=*) job=${word#*=};; --output=*) output=${word#*=};; esac; done
        sh -c "$job" > "$output"; echo 7""",
    )
    command(commands / "scontrol", "echo 'JobId=7 JobState=COMPLETED'")
    plan = Plan((), slurm=True, python=sys.executable, asked=False, probe_wait=60)
    job, asked = Job("a_rule", {}, True, partition="thin_course"), request(tmp_path)

    def sent(plan: Plan = plan, job: Job = job, asked: dict = asked) -> tuple[int, list[Check]]:
        rows, probed = look_from_jobs(plan, [job], asked, None)
        write_json("results/preflight.json", {"probed": probed})
        return len(Path("sent").read_text().split()), rows

    count, first = sent()
    assert count == 1 and [row.result for row in first] == [PASS] * 3
    count, again = sent()
    assert count == 1 and [row.seen for row in again] == [f"{row.seen}, 0 minutes ago" for row in first]
    assert sent(job=replace(job, options="--mem 5"))[0] == 2
    assert sent(asked={**asked, "pins": {"numpy": np.__version__}})[0] == 3
    assert sent(plan=replace(plan, asked=True))[0] == 4
    (tmp_path / "file").write_text("in the way")
    faulty = {**asked, "folders": [str(tmp_path / "file" / "results")]}
    assert sent(asked=faulty)[0] == 5 and sent(asked=faulty)[0] == 6  # what was amiss may be mended
    assert sent()[0] == 7
    monkeypatch.setattr("pcam.probing.FRESH_S", -1)
    assert sent()[0] == 8
    assert [row.result for row in sent(plan=replace(plan, probe_wait=0))[1]] == [UNKNOWN]


SEEN = {"key": "abc", "asked": 100, "rows": [asdict(Check("files", PASS, "fine"))]}


@pytest.mark.parametrize(
    "table",
    [
        [], {}, {"probed": None}, {"probed": [SEEN]}, {"probed": {"thin": None}}, {"probed": {"thin": []}},
        {"probed": {"thin": {**SEEN, "asked": None}}}, {"probed": {"thin": {**SEEN, "key": None}}},
        {"probed": {"thin": {"key": "abc", "rows": []}}}, {"probed": {"thin": {**SEEN, "rows": None}}},
        {"probed": {"thin": {**SEEN, "rows": [{"check": "files"}]}}},
        {"probed": {"thin": {**SEEN, "rows": [{**SEEN["rows"][0], "seen": None}]}}},
        {"probed": {"thin": {**SEEN, "rows": [{**SEEN["rows"][0], "colour": "red"}]}}},
    ],
)  # fmt: skip
def test_an_earlier_table_of_another_shape_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: object
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json("results/preflight.json", {"probed": {"thin": SEEN}})
    assert remembered(200.0) == {"thin": SEEN}
    Path("results", "preflight.json").write_text(json.dumps(table))
    assert remembered(200.0) == {}


def test_the_table_is_aligned_and_keeps_every_word() -> None:
    rows = [Check("space", FIX, "word " * 60, "make room " * 20), Check("a longer name", PASS, "fine")]
    lines = draw_table(rows, 100).splitlines()
    assert max(map(len, lines)) <= 100
    column = lines[0].index("seen")
    assert all(line[column - 2 : column] in ("  ", "", "--") for line in lines)
    assert " ".join(lines).split().count("word") == 60 and " ".join(lines).split().count("room") == 20


# The target, as a user meets it.


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """PCam files: train packed, labels of test not handed out."""
    folder = tmp_path / "files"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        for part in ("x.h5.gz", "y.h5.gz") if split == "train" else ("x.h5", "y.h5"):
            data_file(folder, part, {"train": 8, "valid": 6, "test": 4}[split], split=split)
    for part in ("x.h5", "y.h5"):
        (folder / pcam_filename("train", part)).unlink()
    (folder / pcam_filename("test", "y.h5")).unlink()
    return folder


def test_a_run_without_a_fault_may_go_and_results_that_cannot_be_written_stop_it(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settings_of(data={"source": "directory", "directory": str(directory)})
    plan = Plan((Job("import_directory", {}, False),), slurm=False, python="python", asked=False)
    assert preflight(plan, settings, {"rule": "preflight"}) is None
    document = json.loads(Path("results", "preflight.json").read_text())
    assert document["result"] == PASS and document["provenance"] == {"rule": "preflight"}
    assert document["jobs"] == {"import_directory": 1} and document["patches"] == {"train": 8, "valid": 6, "test": 4}
    Path("results").rename("elsewhere")
    Path("results").write_text("in the way")
    fault = preflight(plan, settings, {})
    assert fault is not None and fault.startswith("pre-flight: results/preflight.json cannot be written")


@pytest.mark.slow
def test_preflight_says_what_would_run_and_stops_before_a_fault(tmp_path: Path, directory: Path) -> None:
    config = tmp_path / "mine.yaml"
    tiny = yaml.safe_load(TINY.read_text())
    config.write_text(
        yaml.safe_dump({**tiny, "data": {**tiny["data"], "source": "directory", "directory": str(directory)}})
    )
    broken = directory / pcam_filename("valid", "x.h5")
    broken.write_bytes(broken.read_bytes()[:-50])
    failed = snakemake(tmp_path / "run", "preflight", config=config)
    assert failed.returncode != 0 and "Traceback" not in failed.stdout
    assert "to fix: files (" in failed.stdout and "cut short" in failed.stdout and "what to do" in failed.stdout
    assert "N train 8, valid 6, test 4" in " ".join(failed.stdout.split())  # the labels tell of valid
    document = json.loads((tmp_path / "run" / "results" / "preflight.json").read_text())
    results = {row["check"]: row["result"] for row in document["checks"]}
    assert document["result"] == FIX and document["provenance"]["rule"] == "preflight" and not document["slurm"]
    assert document["patches"] == {"train": 8, "valid": 6, "test": 4}
    assert document["jobs"]["train_seed"] == 4 and document["hours"]["hours"] is None
    assert set(results) >= {"data", "jobs", "time", "packages", "files", "writable", "space", "memory", "GPU", "Slurm"}
    assert [name for name, result in results.items() if result == FIX] == ["files"]
    assert results["Slurm"] == NOT_APPLICABLE
    # Nothing ran.
    assert {path.name for path in (tmp_path / "run" / "results").iterdir()} == {"preflight.json", "logs"}
    assert not (tmp_path / "run" / "data").exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if reason := why_not(accounting=True):
        pytest.skip(reason)
    with running_cluster(accounting=True) as started:
        yield started


@pytest.mark.slow
def test_on_slurm_a_run_looks_from_inside_jobs_and_stops_before_anything_is_queued(
    tmp_path: Path, cluster: Cluster
) -> None:
    table = tmp_path / "run" / "results" / "preflight.json"

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--configfile", TINY]
        line += ["--directory", tmp_path / "run", "--profile", ROOT / "profiles" / "slurm", *arguments]
        return subprocess.run(
            [str(word) for word in line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            cwd=ROOT, env=cluster.environment,
        )  # fmt: skip

    # Jobs answered from both partitions; the GPU of this cluster is none, and torch says so.
    stopped = run()
    assert stopped.returncode != 0 and "Traceback" not in stopped.stdout, stopped.stdout[-3000:]
    assert "nothing was started; to fix: GPU on gpu_course" in stopped.stdout
    told = json.loads(table.read_text())
    rows = {row["check"]: row for row in told["checks"]}
    for name in ("packages", "files", "writable"):
        assert rows[f"{name} on thin_course"]["result"] in (PASS, WARN), rows
    gpu = next(row for name, row in rows.items() if name.startswith("GPU on gpu_course"))
    assert gpu["result"] == FIX and "sees no GPU" in gpu["seen"]
    assert {rows[name]["result"] for name in ("partitions", "account", "limits")} == {PASS}, rows
    assert list(told["probed"]) == ["thin_course"]  # what a next run need not ask

    faults = ("build_store:slurm_partition=nowhere", "survey_patches:slurm_account=nobody",
              "synthesize_sample:mem_mb=99999999", "train_seed:mem_mb=20000*attempt")  # fmt: skip
    stopped = run("--set-resources", *faults)
    assert stopped.returncode != 0 and "Traceback" not in stopped.stdout, stopped.stdout[-3000:]
    assert "to fix: partitions, account, limits" in stopped.stdout
    seen = {row["check"]: row["seen"] for row in json.loads(table.read_text())["checks"] if row["result"] == FIX}
    assert seen["partitions"] == "nowhere: no such partition, for build_store"
    assert seen["account"] == "nobody: not among your accounts"
    assert seen["limits"].startswith("synthesize_sample asks for 99,999,999 MB of memory, thin_course gives")
    assert seen["limits"].endswith("a retry of train_seed asks for more than the 32,768 MB of memory of thin_course")
    assert not (tmp_path / "run" / "data").exists()
    # Nothing but the two that looked around.
    names = cluster.slurm("sacct", "-nPX", "--format=JobName").split()
    assert len(set(names)) == 2 and all(name.startswith("preflight-") for name in names)


@pytest.mark.slow
def test_what_only_the_compute_nodes_lack_is_found_by_the_jobs_that_look_around(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each node sees files of its own: there a package, the data and the right to write are missing."""
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    for name in ("empty", "data", "results/logs/preflight", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    data = data_file(tmp_path / "data", "x.h5")
    (package,) = Path(sysconfig.get_path("purelib")).glob("h5py-*.dist-info")
    results = shlex.quote(str(tmp_path / "results"))
    mounts = {
        "thin1": f"mount --bind {shlex.quote(str(tmp_path / 'empty'))} {shlex.quote(str(package))}",
        "thin2": f"mount --bind {results} {results}; mount -o remount,ro,bind {results}",
        "gpu1": f"mount -t tmpfs -o ro none {shlex.quote(str(tmp_path / 'data'))}",
    }
    for node, mount in mounts.items():
        cluster.end_daemon(f"slurmd-{node}")
        cluster.start_daemon(f"slurmd-{node}", mount)
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.environment[name])
    places = {node: [Job("a_rule", {}, True, options=f"-p {PARTITION_OF[node]} -w {node}")] for node in mounts}
    asked = request(tmp_path / "data", files=[str(data)], pins={"h5py": h5py.__version__})
    monkeypatch.chdir(tmp_path)
    sent = dict(send_probes(Plan((), True, sys.executable, asked=True), places, asked))
    monkeypatch.chdir(tmp_path / "elsewhere")
    lost = Plan((), True, "/no/such/.venv/bin/python", asked=True)
    places["no environment"] = places["gpu1"]
    sent |= dict(send_probes(lost, {"no environment": places["gpu1"]}, asked))
    states = wait_for([str(job.id) for job in sent.values()], 120, 120)
    rows = {
        row.check: row
        for name, jobs in places.items()
        for row in rows_of_job(name, jobs, sent[name], states[str(sent[name].id)], 120)
    }
    for name, words in {
        "packages on thin1": "lacks h5py",
        "job on thin2": "left nothing in",
        "files on gpu1": "No such file or directory",
        "writable on gpu1": "Read-only file system",
        "job on no environment": "/no/such/.venv/bin/python: not found",
    }.items():
        assert rows[name].result == FIX and words in rows[name].seen and rows[name].todo, rows
    assert {name for name, row in rows.items() if row.result == PASS} == {
        "files on thin1", "writable on thin1", "packages on gpu1",
    }  # fmt: skip
