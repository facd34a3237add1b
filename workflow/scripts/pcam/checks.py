"""The checks of the pre-flight: facts in, rows of its table out."""

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from pcam.cluster import NoAnswer, Partition
from pcam.facts import FILE_SPLITS, pcam_filename
from pcam.needs import Hours, Need, Room, named
from pcam.planned import Job, Plan, beyond

PASS, WARN, FIX, UNKNOWN, NOT_APPLICABLE = "pass", "warn", "fix", "not known", "does not apply"
GIB, MIB = 2**30, 2**20
# A training that fills its time limit beyond this share leaves no room for a slower node.
TIGHT = 0.8
SHOWN = 6  # names listed before "and N more"


@dataclass(frozen=True)
class Check:
    """A row: what was checked, how it came out, what was seen, and what to do (empty where nothing is)."""

    check: str
    result: str
    seen: str
    todo: str = ""


def listed(names: Iterable[str]) -> str:
    found = list(dict.fromkeys(names))
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def _verdict(check: str, faults: Sequence[str], good: str, todo: str, fault: str = FIX) -> Check:
    return Check(check, fault, "; ".join(faults), todo) if faults else Check(check, PASS, good)


def check_jobs(plan: Plan) -> Check:
    """Never fails: it says how many jobs go where."""
    places: dict[str, int] = {}
    for job in plan.jobs:
        place = f"on {job.partition or 'the default partition'}" if job.queued else "on this machine"
        places[place] = places.get(place, 0) + 1
    where = ", ".join(f"{count} {place}" for place, count in sorted(places.items()))
    return Check("jobs", PASS, f"{len(plan.jobs)} in all: {where}" if plan.jobs else "nothing to be done")


def patches_told(files: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Patches of each split by its files: those of x, else the labels of y; without the splits that do not tell."""
    told: dict[str, int] = {}
    for split in FILE_SPLITS:
        for part in ("y.h5", "x.h5"):
            for file in files:
                if pcam_filename(split, part) in file["path"] and file["patches"] is not None:
                    told[split] = file["patches"]
    return told


def check_data(label: str, place: str, patches: Mapping[str, int], basis: str) -> Check:
    """`basis`: where N comes from."""
    if missing := [split for split in FILE_SPLITS if split not in patches]:
        return Check("data", UNKNOWN, f"{label}, {place}: the files do not tell N of {listed(missing)}",
                     "unpack them there (gzip -dk), or let the run find out")  # fmt: skip
    counts = ", ".join(f"{split} {patches[split]:,}" for split in FILE_SPLITS)
    return Check("data", PASS, f"{label}, {place}: N {counts} ({basis})")


def check_hours(hours: Hours) -> Check:
    if hours.hours is None:
        return Check("time", UNKNOWN, "no rate measured yet",
                     "the first finished training leaves one in results/benchmarks/train_seed")  # fmt: skip
    seen = f"{hours.hours:.1f} h of jobs one after another, by {listed(hours.bases)}"
    if hours.unmeasured:
        seen += f"; without a rate: {listed(hours.unmeasured)}"
    return Check("time", PASS, seen)


def check_packages(answer: Mapping[str, Any], direct: Iterable[str]) -> Check:
    """`direct`: packages that the pipeline imports itself. Without one nothing runs; another version is a warning."""
    needed, rows = set(direct), answer["packages"]
    missing = [row["name"] for row in rows if row["found"] is None]
    errors = answer.get("imports", {})
    python = f"Python {answer['python']} at {answer['executable']}"
    if lacking := [name for name in missing if name in needed]:
        return Check("packages", FIX, f"{python} lacks {listed(lacking)}",
                     f"{answer['executable']} -m pip install -r requirements.txt, or name the right environment "
                     "in the profile")  # fmt: skip
    if errors:
        seen = "; ".join(f"{name}: {error}" for name, error in errors.items())
        return Check("packages", FIX, f"{python} cannot import {seen}",
                     f"reinstall them: {answer['executable']} -m pip install --force-reinstall "
                     f"{' '.join(errors)}")  # fmt: skip
    if rows:
        seen = listed(f"{row['name']} {row['found'] or 'missing'}, not {row['wanted']}" for row in rows)
        todo = f"for the same bits as elsewhere {answer['executable']} -m pip install -r requirements.txt"
        return Check("packages", WARN, f"{python}: {seen}", todo)
    tried = "present and importable" if "imports" in answer else "present"
    return Check("packages", PASS, f"{python}: all of requirements.txt {tried}, as pinned")


def check_files(answer: Mapping[str, Any]) -> Check:
    faults = [file["error"] for file in answer["files"] if file["error"]]
    counts: dict[str, set[int]] = {}
    for file in answer["files"]:
        for split in FILE_SPLITS:
            if pcam_filename(split, "") in file["path"] and file["patches"] is not None:
                counts.setdefault(split, set()).add(file["patches"])
    faults += [
        f"{pcam_filename(split, 'x')} and y hold {' and '.join(f'{n:,}' for n in sorted(found))}: not a pair"
        for split, found in counts.items()
        if len(found) > 1
    ]
    if not answer["files"]:
        return Check("files", PASS, "none needed: the run makes or downloads them")
    todo = "fetch the file again, or allow your user to read it (chmod, and each folder above it)"
    return _verdict("files", faults, f"{len(answer['files'])} files readable on {answer['host']}", todo)


def check_folders(answer: Mapping[str, Any]) -> Check:
    faults = [f"{f['place']}: {f['error']}, for {f['path']}" for f in answer["folders"] if f["error"]]
    good = f"{listed(f['path'] for f in answer['folders'])} on {answer['host']}"
    return _verdict("writable", faults, good, "run in a folder that is yours (--directory), or set data.root to one")


def check_room(rooms: Sequence[Room], answer: Mapping[str, Any]) -> Check:
    """Folders of one file system share what it has free. A quota is not seen, and said so."""
    at = {folder["path"]: folder for folder in answer["folders"]}
    disks: dict[object, list[Room]] = {}
    for room in rooms:
        disks.setdefault(at[room.folder]["device"], []).append(room)
    faults: list[str] = []
    good: list[str] = []
    for device, shared in disks.items():
        free, needed = at[shared[0].folder]["free_bytes"], sum(room.needed for room in shared)
        if device is None or free is None:
            continue
        seen = f"{' and '.join(room.folder for room in shared)}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
        (faults if needed > free else good).append(f"{seen} ({'; '.join(room.basis for room in shared)})")
    if not faults and not good:
        return Check("space", UNKNOWN, "the folders cannot be looked at")
    good.append("a quota is not seen")
    return _verdict("space", faults, "; ".join(good), "make room there, or set data.root to a larger disk")


def check_git(state: Mapping[str, Any]) -> Check:
    if state["commit"] is None:
        return Check("code", WARN, "no git repository: results carry no commit", "clone it instead of copying files")
    if state["dirty"]:
        return Check("code", WARN, f"commit {state['commit'][:8]} with uncommitted changes", "commit them first")
    return Check("code", PASS, f"commit {state['commit'][:8]}, nothing uncommitted")


def check_partitions(jobs: Sequence[Job], partitions: Mapping[str, Partition]) -> Check:
    """`jobs`: those that are queued, with their partition filled in."""
    faults, waits = [], []
    for name in dict.fromkeys(job.partition or "" for job in jobs):
        rules = listed(job.rule for job in jobs if (job.partition or "") == name)
        if name not in partitions:
            faults.append(f"{name or 'no default'}: no such partition, for {rules}")
        elif not partitions[name].up:
            faults.append(f"{name}: takes no jobs, for {rules}")
        elif not any(node.usable for node in partitions[name].nodes):
            waits.append(f"{name}: every node is down or drained, so {rules} will wait")
    known = listed(sorted(partitions)) or "none"
    return _verdict("partitions", faults + waits, f"{listed(job.partition or '' for job in jobs)} known and up",
                    f"set it in the profile, and in benchmark.partitions; this cluster has {known}",
                    FIX if faults else WARN)  # fmt: skip


def check_account(jobs: Sequence[Job], accounts: set[str] | NoAnswer | None) -> Check:
    """`accounts`: this user's; None where the cluster keeps none; NoAnswer where it does not say."""
    asked = [job.account for job in jobs if job.account]
    if isinstance(accounts, NoAnswer):
        return Check("account", UNKNOWN, str(accounts), "sacctmgr show assoc on the login node lists your accounts")
    if accounts is None:
        return Check("account", NOT_APPLICABLE, "not checked: no accounting on this cluster")
    if not asked:
        return Check("account", PASS, f"none asked for, so the default of {listed(sorted(accounts)) or 'none'}")
    faults = [f"{name}: not among your accounts" for name in dict.fromkeys(asked) if name.lower() not in accounts]
    todo = f"set the profile's account: {listed(sorted(accounts)) or 'none'}"
    return _verdict("account", faults, listed(asked), todo)


def check_limits(jobs: Sequence[Job], partitions: Mapping[str, Partition]) -> Check:
    """Whether a node of its partition can take each job, by memory, cpus, GPUs and time; its retries too."""
    faults: dict[str, None] = {}
    later: dict[str, list[str]] = {}
    for job in jobs:
        if (partition := partitions.get(job.partition or "")) is None:
            continue  # is told by check_partitions
        for attempt in range(1 + len(job.retries)):
            over = beyond(job, attempt, partition)
            for what, asked, most in over:
                if attempt:
                    later.setdefault(f"more than the {most:,} {what} of {partition.name}", []).append(job.rule)
                else:
                    faults[f"{job.rule} asks for {asked:,} {what}, {partition.name} gives {most:,}"] = None
            if over:
                break
    told = [*faults, *(f"a retry of {listed(rules)} asks for {what}" for what, rules in later.items())]
    good = "memory, cpus, GPUs and time of every job and retry fit a node of its partition"
    todo = "lower mem_mb, cpus_per_task, gres or runtime of the rule in the profile, or choose a larger partition"
    if not faults:
        todo = "lower most_memory_mb or most_minutes in the profile, or choose a larger partition"
    return _verdict("limits", told, good, todo, FIX if faults else WARN)


def check_walltime(needs: Sequence[tuple[Job, Need | None]]) -> Check:
    """`needs`: each queued training, with the retries that are admitted, and its need, None without a rate.

    A training that meets its time limit goes on from its last state when it is tried again, so retries count. A rate
    that was not measured on the partition may be of a slower device, and is no reason to stop.
    """
    if not needs:
        return Check("walltime", NOT_APPLICABLE, "no training is queued")
    told = [
        (job, need, job.minutes, job.minutes + sum(minutes or 0 for _, minutes in job.retries))
        for job, need in needs
        if need is not None and job.minutes
    ]
    without = listed(named(job) for job, need in needs if need is None)
    if not told and without:
        return Check("walltime", UNKNOWN, f"no rate measured of {without}", "the first finished training leaves one")
    if not told:
        return Check("walltime", NOT_APPLICABLE, "no training asks for a walltime")
    job, need, first, most = max(told, key=lambda t: (t[1].there and t[1].seconds > 60 * t[3], t[1].seconds / t[3]))
    minutes = ceil(need.seconds / 60)
    seen = f"{job.rule} {listed(job.wildcards.values())} needs {minutes} of {first} minutes, by {need.basis}"
    seen += f"; not measured: {without}" if without else ""
    todo = f"set runtime of {job.rule} in the profile to {ceil(minutes / TIGHT)} minutes or more"
    if minutes > most and need.there:
        return Check("walltime", FIX, f"{seen}; with all retries it has {most}", todo)
    if minutes > most:
        return Check("walltime", WARN, f"{seen}, perhaps on a slower device; with all retries it has {most}", todo)
    if minutes > TIGHT * first:
        return Check("walltime", WARN, f"{seen}; a retry would have to finish it", todo)
    return Check("walltime", PASS, seen)


def check_gpu(answer: Mapping[str, Any], asked: bool) -> Check:
    """`asked`: whether the jobs asked for a GPU; without one the trainings use the CPU, which is no fault here."""
    gpu = answer["gpu"]
    if gpu["name"] and not gpu["error"]:
        return Check("GPU", PASS, f"{gpu['name']}, {gpu['free_bytes'] / GIB:.1f} GiB free, on {answer['host']}")
    if not asked:
        return Check("GPU", NOT_APPLICABLE, f"{gpu['error']}: trainings use the CPU")
    todo = "install the CUDA build of torch that fits the node's driver, and ask for a GPU (gres) in the profile"
    return Check("GPU", FIX, f"{gpu['error']}, on {answer['host']}", todo)


def check_memory(answer: Mapping[str, Any], mem_mb: int | None, gpu: bool) -> Check:
    """Whether each recipe's training fits the GPU, or the memory that the job asks for (mem_mb; None: what is free).

    On a GPU the memory asked for has to hold the process alone, with what CUDA takes of it.
    """
    memory = answer["memory"]
    if "error" in memory:
        return Check("memory", UNKNOWN, f"no prediction on {answer['host']}: {memory['error']}")
    # What is free on the host was measured beside a process as large as the training's own.
    left = memory["available"] if mem_mb is None else mem_mb * MIB - memory["process"]
    asked = answer["host"] if mem_mb is None else f"the {mem_mb:,} MB asked for"
    free, where = (answer["gpu"]["free_bytes"], answer["gpu"]["name"]) if gpu else (left, asked)
    if free is None:
        return Check("memory", UNKNOWN, "no GPU to measure against")
    faults = [f"{name} needs {need / GIB:.1f} GiB" for name, need in memory["recipes"].items() if need > free]
    todo = "set a smaller train.batch_size or width, or a larger mem_mb in the profile"
    if faults:
        return Check("memory", FIX, f"{listed(faults)}, {where} leaves {free / GIB:.1f} GiB", todo)
    if left < 0:
        seen = f"a process with CUDA holds {memory['process'] / GIB:.1f} GiB of the host, more than {asked}"
        return Check("memory", FIX, seen, "ask for more mem_mb in the profile")
    most = max(memory["recipes"].values(), default=0)
    return Check("memory", PASS, f"at most {most / GIB:.1f} GiB predicted, {where} leaves {free / GIB:.1f} GiB")


def unknown_cluster(reason: NoAnswer) -> list[Check]:
    return [Check(name, FIX if "not installed" in str(reason) else UNKNOWN, str(reason),
                  "run it on the cluster's login node") for name in ("partitions", "account", "limits")]  # fmt: skip


def draw_table(rows: Sequence[Check], width: int | None = None) -> str:
    """The rows in aligned columns that wrap to `width`, the terminal's where None."""
    width = width or max(shutil.get_terminal_size((120, 24)).columns, 100)
    first = max(len(row.check) for row in rows) + 2
    second = max(len(row.result) for row in rows) + 2
    third = (width - first - second) * 3 // 5
    sizes = (first, second, third, width - first - second - third)
    lines = []
    for cells in [("check", "result", "seen", "what to do"), *((r.check, r.result, r.seen, r.todo) for r in rows)]:
        columns = [textwrap.wrap(cell, size - 2) or [""] for cell, size in zip(cells, sizes, strict=True)]
        for i in range(max(map(len, columns))):
            texts = (
                (column[i] if i < len(column) else "").ljust(size) for column, size in zip(columns, sizes, strict=True)
            )
            lines.append("".join(texts).rstrip())
    return "\n".join([lines[0], "-" * width, *lines[1:]])
