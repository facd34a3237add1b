"""The pre-flight: before anything is queued, what will run and whether it can, in one table."""

import sys
from collections.abc import Mapping
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
from pcam.cluster import NoAnswer, ask_cluster
from pcam.facts import FILE_SPLITS, PATCHES, pcam_filename
from pcam.files import write_json
from pcam.needs import estimate_hours, estimate_room, training_seconds
from pcam.planned import Plan, admitted
from pcam.probing import RESULTS, TABLE, TRAININGS, direct_packages, look_from_jobs, probe_here, request_for
from pcam.provenance import git_state
from pcam.settings import Settings


def data_files(settings: Settings) -> list[str]:
    """Files that the run starts from, as far as it does not make or download them itself."""
    if settings.data.source == "directory" and settings.data.directory is not None:
        return list(files_at_hand(settings.data.directory).values())
    folder = Path(settings.data.root) / settings.data.source
    names = (pcam_filename(split, part) for split in FILE_SPLITS for part in ("x.h5", "y.h5", "meta.csv"))
    return [str(folder / name) for name in names if (folder / name).exists()]


def known_patches(settings: Settings, answer: Mapping[str, Any] | None) -> tuple[dict[str, int], str]:
    """N of each split and where it comes from; `answer`: what was seen on this machine."""
    if answer is not None and (told := patches_told(answer["files"])):
        return told, "as the files say"
    sample = settings.data.sample
    if settings.data.source == "sample":
        return {
            "train": sample.train_patches, "valid": sample.valid_patches, "test": sample.test_patches,
        }, "as the config says"  # fmt: skip
    return (dict(PATCHES), "as published") if settings.data.source == "pcam" else ({}, "")


def rows_of_here(
    plan: Plan, settings: Settings, answer: Mapping[str, Any] | Check, patches: Mapping[str, int]
) -> list[Check]:
    """What was seen on this machine, or the row that says why nothing was, and what is unknown for that."""
    if isinstance(answer, Check):
        seen = f"this machine gave no answer, see {answer.check}"
        return [answer, Check("files, folders, space", UNKNOWN, f"not looked at: {seen}", answer.todo)]
    rows = [check_packages(answer, direct_packages()), check_files(answer), check_folders(answer)]
    if set(patches) == set(FILE_SPLITS):
        unpacked = [f["unpacked_bytes"] for f in answer["files"] if f["unpacked_bytes"]]
        rows.append(check_room(estimate_room(settings, patches, unpacked, plan.jobs), answer))
    else:
        rows.append(Check("space", UNKNOWN, "N is not known"))
    if "gpu" in answer:
        rows += [check_gpu(answer, asked=False), check_memory(answer, None, gpu=answer["gpu"]["name"] is not None)]
    return rows


def run_checks(plan: Plan, settings: Settings) -> tuple[list[Check], dict[str, Any]]:
    """All rows, and what stands behind them: jobs by rule, N of each split, hours, what short jobs saw."""
    queued = [job for job in plan.jobs if job.queued]
    request = request_for(settings, data_files(settings), imports=plan.asked, gpu=plan.asked and not plan.slurm)
    found = probe_here(request)
    answer = None if isinstance(found, Check) else found
    patches, basis = known_patches(settings, answer)
    hours = estimate_hours(plan.jobs, settings, patches.get("train"), RESULTS)
    place = settings.data.directory or f"{settings.data.root}/{settings.data.source}"
    rows = [check_data(settings.data.label, place, patches, basis), check_jobs(plan), check_hours(hours)]
    rows += [check_git(git_state()), *rows_of_here(plan, settings, found, patches)]
    probed: dict[str, Any] = {}
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
        rows.append(check_walltime(needs))
        # A run that cannot go as it is need not wait for the queue to hear more of it.
        if plan.asked or not any(row.result == FIX for row in rows):
            inside, probed = look_from_jobs(plan, queued, request, answer)
            rows += inside
    else:
        rows.append(Check("Slurm", NOT_APPLICABLE, "this run queues nothing: no partitions, account, limits, walltime"))
    counts = {rule: sum(job.rule == rule for job in plan.jobs) for rule in dict.fromkeys(job.rule for job in plan.jobs)}
    return rows, {"jobs": counts, "patches": patches, "hours": asdict(hours), "probed": probed}


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
