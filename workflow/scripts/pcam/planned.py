"""What a run is about to do, read from Snakemake itself: every job with what it asks of Slurm."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TARGET = "preflight"


@dataclass(frozen=True)
class Job:
    """A job that will run. `partition` is None where the job stays on this machine or the default partition is meant.

    mem_mb and minutes are None where nothing is asked for; all_minutes are those of the first try and its retries.
    `options` are the words sbatch gets for it, without script.
    """

    rule: str
    wildcards: dict[str, str]
    queued: bool
    partition: str | None = None
    account: str | None = None
    cpus: int = 1
    mem_mb: int | None = None
    minutes: int | None = None
    all_minutes: int | None = None
    gpus: int = 0
    options: str = ""


@dataclass(frozen=True)
class Plan:
    """The jobs of a run, whether Slurm runs them, and the shell words that start its Python inside a job."""

    jobs: tuple[Job, ...]
    slurm: bool
    python: str
    probing: bool  # whether short jobs may be sent to look around


def _number(value: Any) -> int | None:
    # A resource that only a running job can know is a text of Snakemake's.
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def gpus_asked(resources: Any) -> int:
    """GPUs of a job, from `gpu` or from `gres` in Slurm's notation (gpu:1, gpu:type:1)."""
    if (count := _number(resources.get("gpu"))) is not None:
        return count
    found = re.match(r"gpu(?::[A-Za-z][^:]*)?(?::(\d+))?$", str(resources.get("gres") or ""))
    return int(found[1] or 1) if found else 0


def _words_for_sbatch(workflow: Any, job: Any) -> str:
    # The plugin's own words, so that what is tried is what will be asked.
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command, safe_quote
    from snakemake_executor_plugin_slurm.utils import set_gres_string

    account, partition = job.resources.get("slurm_account"), job.resources.get("slurm_partition")
    params = {
        "run_uuid": TARGET,
        "slurm_logfile": "/dev/null",
        "comment_str": f"rule_{TARGET}",
        "account": f"-A {safe_quote(account)}" if account else "",
        "partition": f"-p {safe_quote(partition)}" if partition else "",
        "workdir": workflow.workdir_init,
    }
    words = get_submit_command(job, params, settings=workflow.executor_settings) + set_gres_string(job)
    return str(words).removeprefix("sbatch ")


def _minutes_of_tries(workflow: Any, job: Any) -> list[int | None]:
    tries = 1 + (job.rule.restart_times or 0)
    minutes = []
    for attempt in range(tries, 0, -1):
        job.attempt = attempt  # evaluates its resources anew
        minutes.append(_number(job.resources.get("runtime")))
    return minutes[::-1]


def _job(workflow: Any, job: Any, slurm: bool) -> Job:
    named = {key: str(value) for key, value in job.wildcards_dict.items()}
    if not slurm or job.is_local:
        return Job(job.rule.name, named, queued=False, cpus=job.threads)
    minutes = _minutes_of_tries(workflow, job)
    resources = job.resources
    partition, account = resources.get("slurm_partition"), resources.get("slurm_account")
    cpus = _number(resources.get("cpus_per_task")) or job.threads
    memory, each = _number(resources.get("mem_mb")), _number(resources.get("mem_mb_per_cpu"))
    return Job(
        job.rule.name,
        named,
        queued=True,
        partition=None if partition is None else str(partition),
        account=None if account is None else str(account),
        cpus=cpus,
        mem_mb=each * cpus if each else memory,
        minutes=minutes[0],
        all_minutes=None if minutes[0] is None else sum(m or 0 for m in minutes),
        gpus=gpus_asked(resources),
        options=_words_for_sbatch(workflow, job),
    )


def _needed(workflow: Any) -> Iterator[Any]:
    """The jobs that the run needs; for the pre-flight alone those of the default target."""
    from snakemake.dag import DAG

    jobs = [job for job in workflow.dag.needrun_jobs() if job.rule.name != TARGET]
    if jobs:
        return iter(jobs)
    # Snakemake plans only what was asked for, which here is nothing but the question.
    whole = DAG(workflow, workflow.rules, targetfiles=set(), targetrules={workflow.get_rule(workflow.default_target)})
    workflow.async_run(whole.init())
    return iter(whole.needrun_jobs())


def asks_for_preflight(workflow: Any) -> bool:
    return any(job.rule.name == TARGET for job in workflow.dag.needrun_jobs())


def runs_on_slurm(workflow: Any) -> bool:
    return bool(workflow.executor_plugin.name == "slurm")


def read_plan(workflow: Any, python: str) -> Plan:
    """The plan of Snakemake's `workflow` once it has built its DAG."""
    slurm = runs_on_slurm(workflow)
    jobs = [_job(workflow, job, slurm) for job in _needed(workflow)]
    before = (workflow.remote_execution_settings.precommand or "").strip()
    return Plan(
        tuple(sorted(jobs, key=lambda job: (job.rule, sorted(job.wildcards.items())))),
        slurm,
        f"{before} && {shlex.quote(python)}" if before and slurm else shlex.quote(python),
        asks_for_preflight(workflow),
    )
