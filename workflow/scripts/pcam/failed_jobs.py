"""What a run on Slurm says of its failed jobs: which, why, where its log is, what to do. Snakemake says FAILED.

The reason stands in one of three places: in what sbatch answered, in what Slurm remembers of the job, or in the job's
own log. Needs neither sacct nor a controller that answers: then the log alone has to do.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pcam.cluster import NoAnswer, ask

# Of the job's log: the user's mistake in one line (run_stage), or the last line of a traceback. Not what Snakemake says
# of any failure: "Error in rule", "RuleException:", "CalledProcessError in file", "WorkflowError:".
_ERRORS = re.compile(r"^(?:error: .+|(?!WorkflowError|RuleException)[\w.]*(?:Error|Exception|Failed)(?:: .+)?)$")
# What Snakemake says when Ctrl-C or a signal ends it; it then ends the jobs beside it.
_INTERRUPTED = re.compile(r"^Terminating processes on user request", re.M)
AGAIN = "run the same command again; what is finished stays, and a training goes on from its saved state"


@dataclass(frozen=True)
class FailedJob:
    """The last attempt at one job, as Snakemake's log tells it; `slurm_id` is None when none was queued."""

    rule: str
    message: str
    output: str
    slurm_id: str | None
    logs: tuple[Path, ...]
    attempts: int


def read_failures(snakemake_log: str) -> list[FailedJob]:
    """The jobs that failed for good, from the text of Snakemake's log.

    One whose retry went through is none, and none that ended beside Snakemake when that was interrupted.
    """
    found: dict[str, FailedJob] = {}
    lines = snakemake_log.splitlines()
    end_of_run = next((at for at, line in enumerate(lines) if _INTERRUPTED.match(line)), len(lines))
    for at, line in enumerate(lines):
        if done := re.match(r"Finished jobid: (\d+) ", line):
            found.pop(done[1], None)
        if not (error := re.match(r"Error in (?:rule|group) (\S+):$", line)):
            continue
        # sbatch's refusal quotes its whole command, in lines that are not indented too: up to the next event.
        end = next((i for i in range(at + 1, len(lines)) if re.match(r"\[|\s*$|Error in ", lines[i])), len(lines))
        block = "\n".join(lines[at + 1 : end])
        field = {key: m[1].strip() for key in ("message", "jobid", "output", "log", "external_jobid")
                 if (m := re.search(rf"^    {key}: (.*)$", block, re.M))}  # fmt: skip
        if at > end_of_run and "external_jobid" not in field:
            continue
        job = field.get("jobid", error[1])
        logs = re.sub(r" \(check log file.*", "", field.get("log", ""))
        found[job] = FailedJob(
            error[1],
            field.get("message", ""),
            field.get("output", "").split(", ")[0],
            field.get("external_jobid"),
            tuple(Path(name) for name in logs.split(", ") if name),
            found[job].attempts + 1 if job in found else 1,
        )
    return list(found.values())


def slurm_record(slurm_id: str) -> dict[str, str]:
    """What Slurm remembers of a job: JobState, TimeLimit, NodeList, MinMemoryNode ...; empty when nobody answers."""
    try:
        return dict(re.findall(r"(\S+?)=(\S*)", ask(["scontrol", "show", "job", slurm_id, "--oneliner"])))
    except NoAnswer:
        pass  # forgotten after MinJobAge
    names = {"State": "JobState", "Timelimit": "TimeLimit", "NodeList": "NodeList", "ReqMem": "MinMemoryNode"}
    try:
        line = ask(["sacct", "-X", "-n", "-P", "-j", slurm_id, "-o", ",".join(names)]).partition("\n")[0]
    except NoAnswer:
        return {}
    return dict(zip(names.values(), line.split("|"), strict=False))


def reason(job: FailedJob, record: Mapping[str, str], log: str) -> tuple[str, str]:
    """Why a job failed, and what to do; `log` is the text of its logs, Slurm's and the rule's."""
    if "sbatch failed" in job.message:
        refused = re.search(r"error message was '(.*?)'\.?$", job.message)
        said = refused[1].removeprefix("sbatch: error: ") if refused else job.message
        return f"Slurm took no such job: {said}", "correct profiles/slurm/config.yaml; snakemake preflight checks it"
    state, node = record.get("JobState", ""), record.get("NodeList") or "its node"
    if state == "OUT_OF_MEMORY" or re.search(r"exceeded (?:job )?memory limit|oom[-_ ]kill", log, re.I):
        had = record.get("MinMemoryNode", "")
        return (
            f"too little memory{f': it had {had}' if had else ''}",
            f"raise mem_mb of {job.rule} in profiles/slurm/config.yaml, or train.batch_size down; then run again",
        )
    if state in ("TIMEOUT", "DEADLINE") or "DUE TO TIME LIMIT" in log:
        had = record.get("TimeLimit", "")
        return f"its walltime ran out{f' after {had}' if had else ''}", f"{AGAIN}, or raise runtime of {job.rule}"
    if state in ("NODE_FAIL", "BOOT_FAIL") or "DUE TO NODE FAILURE" in log:
        return f"node {node} failed", AGAIN
    if state.startswith("CANCELLED") or re.search(r"CANCELLED AT", log):
        return "cancelled: by scancel, by preemption or by an administrator", AGAIN
    errors = [line for line in log.splitlines() if _ERRORS.match(line)]
    if errors and re.search("out of memory|can't allocate memory|MemoryError", errors[-1]):
        where = f"gpu_request or mem_mb of {job.rule} in profiles/slurm/config.yaml"
        return f"too little memory: {errors[-1]}", f"train.batch_size down, or more by {where}; then run again"
    if errors:
        return errors[-1], "correct this, then run the same command again"
    said = f"Slurm says {state}" if state else "Slurm knows nothing of it"
    return f"unknown: {said}, and its log holds no error", "read the log"


def explain_failures(snakemake_log: str | Path) -> list[str]:
    """Lines for the user: every job of this run that failed, why, its log, what to do. Empty when none did."""
    path = Path(snakemake_log)
    told = path.read_text(errors="replace") if path.is_file() else ""
    failures = read_failures(told)
    lines = [f"\n{len(failures)} failed:"] if failures else []
    if _INTERRUPTED.search(told):
        lines = [f"\nended from outside, by Ctrl-C, scancel or the walltime of the head job; {AGAIN}", *lines]
    for job in failures:
        logs = [log for log in job.logs if log.is_file()]
        text = "\n".join(log.read_text(errors="replace") for log in reversed(logs))
        why, remedy = reason(job, slurm_record(job.slurm_id) if job.slurm_id else {}, text)
        tries = f", {job.attempts} attempts" if job.attempts > 1 else ""
        unqueued = "refused" if "sbatch failed" in job.message else "beside Snakemake"
        lines += [f"  {job.rule}: {job.output} ({f'Slurm job {job.slurm_id}' if job.slurm_id else unqueued}{tries})"]
        lines += [f"    why: {why}", *(f"    log: {log}" for log in logs), f"    do:  {remedy}"]
    return lines
