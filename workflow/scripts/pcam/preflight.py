"""The pre-flight: before anything is queued, what will run and whether it can, in one table."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pcam.acquisition import files_at_hand
from pcam.checks import (
    FIX,
    NOT_APPLICABLE,
    PASS,
    UNKNOWN,
    Check,
    check_account,
    check_data,
    check_files,
    check_folders,
    check_git,
    check_gpu,
    check_hours,
    check_jobs,
    check_limits,
    check_memory,
    check_packages,
    check_partitions,
    check_room,
    check_walltime,
    draw_table,
    patches_told,
    unknown_cluster,
)
from pcam.cluster import (
    RUNNING,
    WAITING,
    NoAnswer,
    Sent,
    ask_cluster,
    send,
    wait_for,
)
from pcam.facts import FILE_SPLITS, PATCHES, pcam_filename
from pcam.files import write_json
from pcam.needs import estimate_hours, estimate_room, training_seconds
from pcam.planned import Job, Plan, admitted
from pcam.probe import MARK, canonical
from pcam.provenance import ROOT, SCRIPTS, git_state
from pcam.settings import Settings

RESULTS = Path("results")
FOLDER = RESULTS / "logs" / "preflight"
TABLE = RESULTS / "preflight.json"
HERE_S = 300  # importing everything takes ten seconds; a slow shared file system takes its time
PROBE_MINUTES = 5  # as long as here
WAIT_S = 420  # for the jobs that look around, which Slurm ends up to a minute late; a longer queue is no fault
# Ends of a job that say nothing of its environment, the time limit of a short job included.
NOT_ITS_FAULT = ("TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "CANCELLED")
LAG_S = 30.0  # a network file system may show a file later than it was written
TRAININGS = ("train_seed", "train_trial")


def pins() -> dict[str, str]:
    """Versions of requirements.txt by package."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if re.fullmatch(r"[\w.-]+==\S+", line))


def direct_packages() -> list[str]:
    """Packages of requirements.in, which the pipeline imports itself."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.in").read_text().splitlines())
    return [canonical(re.split(r"[=<>!~]", line)[0]) for line in lines if line]


def data_files(settings: Settings) -> list[str]:
    """Files that the run starts from, as far as it does not make or download them itself."""
    if settings.data.source == "directory" and settings.data.directory is not None:
        return list(files_at_hand(settings.data.directory).values())
    folder = Path(settings.data.root) / settings.data.source
    names = (pcam_filename(split, part) for split in FILE_SPLITS for part in ("x.h5", "y.h5", "meta.csv"))
    return [str(folder / name) for name in names if (folder / name).exists()]


def request_for(settings: Settings, files: Sequence[str], *, imports: bool, gpu: bool) -> dict[str, Any]:
    """What a probe is asked."""
    architecture = ("model", "width", "depth", "hidden", "dropout", "tta")
    recipes = {name: asdict(settings.variant(name)) for name in settings.variants}
    return {
        "pins": pins(),
        "files": [os.path.abspath(path) for path in files],
        "folders": [settings.data.root, str(RESULTS)],
        "imports": direct_packages() if imports else [],
        "gpu": gpu,
        "recipes": {
            name: {"architecture": {key: recipe[key] for key in architecture}, "batch_size": recipe["batch_size"]}
            for name, recipe in recipes.items()
        },
    }


def read_answer(text: str) -> dict[str, Any] | None:
    """A probe's answer among all that its process printed; None when it gave none."""
    line = next((line for line in text.splitlines() if line.startswith(MARK)), None)
    return None if line is None else json.loads(line.removeprefix(MARK))


def probe_here(request: Mapping[str, Any]) -> dict[str, Any] | Check:
    """The probe's answer on this machine, or the row that says why there is none."""
    path = FOLDER / "here.json"
    try:
        write_json(path, request)
    except OSError as error:
        return Check("writable", FIX, f"{FOLDER}: {error.strerror}", "run in a folder that is yours (--directory)")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pcam.probe", str(path)],
            capture_output=True, text=True, check=False, timeout=HERE_S, env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Check("packages", UNKNOWN, f"{sys.executable}: no answer within {HERE_S} s, on a slow file system",
                     "ask again; unpack gzipped files of several members beforehand (gzip -dk)")  # fmt: skip
    if (answer := read_answer(done.stdout)) is None:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Check("packages", FIX, f"{sys.executable}: {last}", "set up the environment anew: make run")
    return answer


def places_of(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """The queued jobs by partition and account, those with a GPU apart; the one that asks for most comes first."""
    places: dict[str, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: (job.partition or "", -(job.mem_mb or 0), -job.cpus, job.rule)):
        name = job.partition or "the default partition"
        both = {bool(j.gpus) for j in jobs if j.partition == job.partition} == {True, False}
        name += (", with GPU" if job.gpus else ", without GPU") if both else ""
        name += f", account {job.account}" if len({j.account for j in jobs if j.partition == job.partition}) > 1 else ""
        places.setdefault(name, []).append(job)
    return places


def send_probes(plan: Plan, places: Mapping[str, Sequence[Job]], request: Mapping[str, Any]) -> dict[str, Sent]:
    """One short job at each place, with the request to Slurm of the first job there."""
    sent = {}
    for number, (name, (job, *_)) in enumerate(places.items()):
        path, output = FOLDER / f"job-{number}.json", FOLDER / f"job-{number}.txt"
        write_json(path, {**request, "gpu": job.gpus > 0})
        output.unlink(missing_ok=True)
        lines = [f"export PYTHONPATH={shlex.quote(str(SCRIPTS))}"]
        lines.append(f"{plan.python} -m pcam.probe {shlex.quote(str(path.resolve()))}")
        sent[name] = send(job.options, "\n".join(lines), output.resolve(), PROBE_MINUTES)
    return sent


def printed(path: Path, seconds: float) -> str | None:
    """What a job printed, once its answer is there or `seconds` have passed; None without a file."""
    deadline = time.monotonic() + seconds
    while True:
        text = path.read_text(errors="replace") if path.exists() else None
        if (text is not None and read_answer(text) is not None) or time.monotonic() >= deadline:
            return text
        time.sleep(0.5)


def rows_of_job(name: str, jobs: Sequence[Job], sent: Sent, state: tuple[str, str]) -> list[Check]:
    """What the job sent for `jobs` saw, or why it saw nothing."""
    job = jobs[0]
    if sent.id is None:
        return [Check(f"job on {name}", FIX, f"refused: {sent.refused}", f"mend the profile's request for {job.rule}")]
    where, (status, reason) = f"job {sent.id} on {name}", state
    if status in (*WAITING, *RUNNING):
        how = "queued" if status in WAITING else "running"
        return [
            Check(
                f"job on {name}", UNKNOWN, f"{where} still {how} after {WAIT_S} s ({reason}), so it was cancelled",
                "ask again later; the run itself waits as long as the queue takes",
            )
        ]  # fmt: skip
    text = printed(sent.output, LAG_S if status in ("COMPLETED", "GONE") else 0.0)
    answer = None if text is None else read_answer(text)
    if answer is None and status in NOT_ITS_FAULT:
        return [Check(f"job on {name}", UNKNOWN, f"{where} ended ({status}) before it could answer", "ask again")]
    if text is None:
        return [Check(f"job on {name}", FIX, f"{where} ended ({status}) and left nothing in {sent.output.parent}",
                      "run in a folder that login and compute nodes share, and that is writable on both")]  # fmt: skip
    if answer is None:
        last = (text.strip().splitlines() or ["it printed nothing"])[-1]
        return [Check(f"job on {name}", FIX, f"{where} ended ({status}): {last}",
                      "check the environment that the profile names: modules, path of the Python")]  # fmt: skip
    rows = [check_packages(answer, direct_packages()), check_files(answer), check_folders(answer)]
    if job.gpus:
        rows.append(check_gpu(answer, asked=True))
    if training := next((job for job in jobs if job.rule in TRAININGS), None):
        rows.append(check_memory(answer, training.mem_mb, gpu=training.gpus > 0))
    return [replace(row, check=f"{row.check} on {name}") for row in rows]


def known_patches(settings: Settings, answer: Mapping[str, Any]) -> tuple[dict[str, int], str]:
    """N of each split and where it comes from."""
    if told := patches_told(answer["files"]):
        return told, "as the files say"
    sample = settings.data.sample
    if settings.data.source == "sample":
        return {
            "train": sample.train_patches, "valid": sample.valid_patches, "test": sample.test_patches,
        }, "as the config says"  # fmt: skip
    return (dict(PATCHES), "as published") if settings.data.source == "pcam" else ({}, "")


def run_checks(plan: Plan, settings: Settings) -> tuple[list[Check], dict[str, Any]]:
    """All rows, and the figures behind those that count: jobs by rule, N of each split, hours.

    Short jobs are sent to look around only for `snakemake preflight`: they may wait in the queue.
    """
    queued = [job for job in plan.jobs if job.queued]
    files = data_files(settings)
    looking = plan.probing and not plan.slurm
    request = request_for(settings, files, imports=plan.probing, gpu=looking)
    answer = probe_here(request)
    if isinstance(answer, Check):
        return [check_jobs(plan), answer], {}
    patches, basis = known_patches(settings, answer)
    hours = estimate_hours(plan.jobs, settings, patches.get("train"), RESULTS)
    place = settings.data.directory or f"{settings.data.root}/{settings.data.source}"
    rows = [check_data(settings.data.label, place, patches, basis), check_jobs(plan), check_hours(hours)]
    rows += [check_git(git_state()), check_packages(answer, direct_packages()), check_files(answer)]
    rows.append(check_folders(answer))
    if set(patches) == set(FILE_SPLITS):
        unpacked = [f["unpacked_bytes"] for f in answer["files"] if f["unpacked_bytes"]]
        rows.append(check_room(estimate_room(settings, patches, unpacked, plan.jobs), answer))
    else:
        rows.append(Check("space", UNKNOWN, "N is not known"))
    if queued:
        try:
            cluster = ask_cluster()
        except NoAnswer as reason:
            rows += unknown_cluster(reason)
        else:
            queued = [replace(job, partition=job.partition or cluster.default) for job in queued]
            rows += [check_partitions(queued, cluster.partitions), check_account(queued, cluster.accounts)]
            rows.append(check_limits(queued, cluster.partitions))
            queued = [admitted(job, cluster.partitions) for job in queued]
        trainings = [job for job in queued if job.rule in TRAININGS]
        needs = [(job, training_seconds(job, settings, patches.get("train"), RESULTS)) for job in trainings]
        rows += [check_walltime(needs), *look_from_jobs(plan, queued, request)]
    else:
        rows.append(Check("Slurm", NOT_APPLICABLE, "this run queues nothing: no partitions, account, limits, walltime"))
        if looking:
            rows += [check_gpu(answer, asked=False), check_memory(answer, None, gpu=answer["gpu"]["name"] is not None)]
    counts = {rule: sum(job.rule == rule for job in plan.jobs) for rule in dict.fromkeys(job.rule for job in plan.jobs)}
    return rows, {"jobs": counts, "patches": patches, "hours": asdict(hours)}


def look_from_jobs(plan: Plan, queued: Sequence[Job], request: Mapping[str, Any]) -> list[Check]:
    """What short jobs see that are sent to each place; without them, that nothing was tried."""
    places = places_of(queued)
    if not places:
        return []
    if not plan.probing:
        return [Check("inside jobs", UNKNOWN, f"packages, files, folders, GPU on {', '.join(places)}: not tried",
                      "snakemake preflight with the same options sends a short job to each")]  # fmt: skip
    sent = send_probes(plan, places, request)
    states = wait_for([job.id for job in sent.values() if job.id], WAIT_S)
    told = ((name, jobs, sent[name], states.get(sent[name].id or "", ("", ""))) for name, jobs in places.items())
    return [row for each in told for row in rows_of_job(*each)]


def preflight(plan: Plan, settings: Settings, provenance: Mapping[str, Any]) -> str | None:
    """Print the table, keep it in results/preflight.json; None when the run can go, else one line that says why not."""
    rows, figures = run_checks(plan, settings)
    print(f"\nPre-flight\n{draw_table(rows)}\n", file=sys.stderr, flush=True)
    faults = [row.check for row in rows if row.result == FIX]
    document = {
        "result": FIX if faults else PASS,
        "slurm": plan.slurm,
        "checks": [asdict(row) for row in rows],
        **figures,
        "provenance": provenance,
    }
    try:
        write_json(TABLE, document)
    except OSError as error:
        return f"pre-flight: {TABLE} cannot be written ({error.strerror}); run in a folder that is yours (--directory)"
    if not faults:
        return None
    return (
        f"pre-flight: nothing was started; to fix: {', '.join(faults)} (table above, and {TABLE}; --no-hooks skips it)"
    )
