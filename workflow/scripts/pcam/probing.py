"""Short looks around: on this machine, and by one job at each place that the run's jobs will go to."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

from pcam.checks import (
    FIX,
    PASS,
    UNKNOWN,
    WARN,
    Check,
    check_files,
    check_folders,
    check_gpu,
    check_memory,
    check_packages,
)
from pcam.cluster import RUNNING, WAITING, Sent, cancel, send, wait_for
from pcam.files import InputError, document_digest, read_json, write_json
from pcam.planned import Job, Plan
from pcam.probe import MARK, canonical
from pcam.provenance import ROOT, SCRIPTS
from pcam.settings import Settings

RESULTS = Path("results")
TABLE = RESULTS / "preflight.json"
FOLDER = RESULTS / "logs" / "preflight"
HERE_S = 300  # importing everything takes ten seconds; a slow shared file system takes its time
PROBE_MINUTES = 5  # as long as here
START_S = 420  # `snakemake preflight` waits so long for a job to start; a longer queue is no fault
RUN_S = 60 * PROBE_MINUTES + 120  # Slurm ends a job up to a minute late
FRESH_S = 4 * 3600  # what jobs saw stands for so long: a working day's runs ask once or twice
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


def send_probes(
    plan: Plan, places: Mapping[str, Sequence[Job]], request: Mapping[str, Any]
) -> Iterator[tuple[str, Sent]]:
    """One short job at each place, with the request to Slurm of the first job there, each as it is sent."""
    for number, (name, (job, *_)) in enumerate(places.items()):
        path, output = FOLDER / f"job-{number}.json", FOLDER / f"job-{number}.txt"
        write_json(path, {**request, "gpu": job.gpus > 0})
        output.unlink(missing_ok=True)
        lines = [f"export PYTHONPATH={shlex.quote(str(SCRIPTS))}"]
        lines.append(f"{plan.python} -m pcam.probe {shlex.quote(str(path.resolve()))}")
        yield name, send(job.options, "\n".join(lines), output.resolve(), PROBE_MINUTES)


def printed(path: Path, seconds: float) -> str | None:
    """What a job printed, once its answer is there or `seconds` have passed; None without a file."""
    deadline = time.monotonic() + seconds
    while True:
        text = path.read_text(errors="replace") if path.exists() else None
        if (text is not None and read_answer(text) is not None) or time.monotonic() >= deadline:
            return text
        time.sleep(0.5)


def rows_of_job(name: str, jobs: Sequence[Job], sent: Sent, state: tuple[str, str], start_s: float) -> list[Check]:
    """What the job sent for `jobs` saw, or why it saw nothing; `start_s`: how long it was to wait in the queue."""
    job = jobs[0]
    if sent.id is None:
        todo = f"on a login node, mend what sbatch names; the profile's request was that of {job.rule}"
        return [Check(f"job on {name}", FIX, f"refused: {sent.refused}", todo)]
    where, (status, reason) = f"job {sent.id} on {name}", state
    if status in WAITING:
        seen = f"{where} did not start within {start_s:.0f} s ({reason}), so it was cancelled: nothing was tried there"
        todo = "nothing has to be done: a run waits as long as the queue takes"
        longer = f"; snakemake preflight waits {START_S} s" if start_s < START_S else ""
        return [Check(f"job on {name}", UNKNOWN, seen, todo + longer)]
    text = printed(sent.output, LAG_S if status in ("COMPLETED", "GONE") else 0.0)
    answer = None if text is None else read_answer(text)
    if answer is None and status in (*RUNNING, *NOT_ITS_FAULT):
        seen = f"{where} ended ({status}) before it could answer"
        if status in RUNNING:
            seen = f"{where} still ran {RUN_S // 60} minutes after its start, so it was cancelled"
        return [Check(f"job on {name}", UNKNOWN, seen, "ask again")]
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


def remembered(now: float) -> dict[str, dict[str, Any]]:
    """What jobs of an earlier pre-flight saw at each place, with nothing amiss, not longer than FRESH_S ago.

    A table of another shape, by other code or another hand, tells nothing.
    """
    try:
        earlier = read_json(TABLE)["probed"]
        for seen in earlier.values():
            words = [word for row in seen["rows"] for word in astuple(Check(**row))]
            if not all(isinstance(word, str) for word in (seen["key"], *words)):
                return {}
        return {place: seen for place, seen in earlier.items() if 0 <= now - seen["asked"] <= FRESH_S}
    except (InputError, AttributeError, KeyError, TypeError):
        return {}


def look_from_jobs(
    plan: Plan, queued: Sequence[Job], request: Mapping[str, Any], here: Mapping[str, Any] | None
) -> tuple[list[Check], dict[str, dict[str, Any]]]:
    """Rows of what short jobs see that are sent to each place, and what of it a later run need not ask again.

    A run asks again where something was amiss, or another thing is asked, by another Python, or it is too long ago, and
    `snakemake preflight` always. `here`: what was seen on this machine, None where it gave no answer.
    """
    places = places_of(queued)
    start_s = START_S if plan.asked else plan.probe_wait
    if not places:
        return [], {}
    if not start_s:
        return [Check("inside jobs", UNKNOWN, f"packages, files, folders, GPU on {', '.join(places)}: not tried",
                      "snakemake preflight with the same options sends a short job to each, and so does every run "
                      "where probe_wait of the profile is not 0")], {}  # fmt: skip
    now, request = time.time(), {**request, "imports": direct_packages()}
    seen_here = here and [here["packages"], here["executable"], here["python"]]
    keys = {
        name: document_digest([request, plan.python, job.options, job.gpus, seen_here])
        for name, (job, *_) in places.items()
    }
    known = {} if plan.asked else remembered(now)
    known = {name: seen for name, seen in known.items() if seen["key"] == keys.get(name)}
    sent: dict[str, Sent] = {}
    try:
        for name, job in send_probes(plan, {name: places[name] for name in places if name not in known}, request):
            sent[name] = job
        if ids := {name: job.id for name, job in sent.items() if job.id}:
            told = ", ".join(f"{job} on {name}" for name, job in ids.items())
            print(f"pre-flight: short jobs look around: {told}; at most {start_s} s for each to start",
                  file=sys.stderr, flush=True)  # fmt: skip
        states = wait_for(list(ids.values()), start_s, RUN_S)
    except BaseException:
        cancel(job.id for job in sent.values() if job.id)
        raise
    rows: list[Check] = []
    for name, jobs in places.items():
        if name in known:
            ago = f", {(now - known[name]['asked']) / 60:.0f} minutes ago"
            rows += [Check(**{**row, "seen": row["seen"] + ago}) for row in known[name]["rows"]]
            continue
        found = rows_of_job(name, jobs, sent[name], states.get(sent[name].id or "", ("", "")), start_s)
        if all(row.result in (PASS, WARN) for row in found):
            known[name] = {"key": keys[name], "asked": int(now), "rows": [asdict(row) for row in found]}
        rows += found
    return rows, known
