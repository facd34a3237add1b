"""What a run is about to do, read from Snakemake itself: every job with what it asks of Slurm."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from pcam.cluster import Partition, gpus_of
from pcam.files import InputError

TARGET = "preflight"


@dataclass(frozen=True)
class Job:
    """A job that will run. `partition` is None where the job stays on this machine or the default partition is meant.

    mem_mb and minutes are those of the first try, None where nothing is asked for; `retries` has both for each retry.
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
    retries: tuple[tuple[int | None, int | None], ...] = ()
    gpus: int = 0
    options: str = ""


@dataclass(frozen=True)
class Plan:
    """The jobs of a run, whether Slurm runs them, and the shell words that start its Python inside a job."""

    jobs: tuple[Job, ...]
    slurm: bool
    python: str
    asked: bool  # whether the pre-flight is all that was asked for
    probe_wait: int = 0  # seconds that a run waits for a short job at each place to start; 0 sends none


def beyond(job: Job, attempt: int, partition: Partition) -> list[tuple[str, int, int]]:
    """What a try (0: the first) asks for beyond the partition: what, how much, and how much there is at most."""
    nodes = [node for node in partition.nodes if node.usable] or partition.nodes
    mem_mb, minutes = ((job.mem_mb, job.minutes), *job.retries)[attempt]
    memory = min(max((node.mem_mb for node in nodes), default=0), partition.mem_mb or ceil(1e12))
    cpus = min(max((node.cpus for node in nodes), default=0), partition.cpus or ceil(1e12))
    rows = (
        ("MB of memory", mem_mb, memory),
        ("cpus", job.cpus, cpus),
        ("GPUs", job.gpus, max((node.gpus for node in nodes), default=0)),
        ("minutes", minutes, partition.minutes),
    )
    return [
        (what, asked, most) for what, asked, most in rows if asked is not None and most is not None and asked > most
    ]


def admitted(job: Job, partitions: Mapping[str, Partition]) -> Job:
    """The job without the retries that its partition would refuse, or hold for ever."""
    if (partition := partitions.get(job.partition or "")) is None:
        return job
    kept = (retry for i, retry in enumerate(job.retries, 1) if not beyond(job, i, partition))
    return replace(job, retries=tuple(kept))


def _number(value: Any) -> int | None:
    # A resource that only a running job can know is a text of Snakemake's.
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def gpus_asked(resources: Any) -> int:
    """GPUs of a job, from `gpu` or from `gres` in Slurm's notation (gpu:1, gpu:type:1)."""
    count = _number(resources.get("gpu"))
    return gpus_of(str(resources.get("gres") or "")) if count is None else count


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


def _tries(job: Any) -> list[tuple[int | None, int | None]]:
    """Memory in MB and minutes that each try of a job asks for."""
    tries = []
    for attempt in range(1 + (job.rule.restart_times or 0), 0, -1):
        job.attempt = attempt  # evaluates its resources anew
        memory, each = (_number(job.resources.get(name)) for name in ("mem_mb", "mem_mb_per_cpu"))
        tries.append((each * _cpus(job) if each else memory, _number(job.resources.get("runtime"))))
    return tries[::-1]


def _cpus(job: Any) -> int:
    return _number(job.resources.get("cpus_per_task")) or int(job.threads)


def _job(workflow: Any, job: Any, slurm: bool) -> Job:
    named = {key: str(value) for key, value in job.wildcards_dict.items()}
    if not slurm or job.is_local:
        return Job(job.rule.name, named, queued=False, cpus=job.threads)
    (memory, minutes), *retries = _tries(job)
    resources = job.resources
    partition, account = resources.get("slurm_partition"), resources.get("slurm_account")
    return Job(
        job.rule.name,
        named,
        queued=True,
        partition=None if partition is None else str(partition),
        account=None if account is None else str(account),
        cpus=_cpus(job),
        mem_mb=memory,
        minutes=minutes,
        retries=tuple(retries),
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


def _probe_wait(workflow: Any) -> int:
    value = workflow.get_rule(TARGET).resources["probe_wait"].raw
    if (seconds := _number(value)) is None or seconds < 0:
        raise InputError(
            f"resource probe_wait of rule preflight is {value!r}; set it to a number of seconds, 0 or more"
        )
    return seconds


def read_plan(workflow: Any, python: str) -> Plan:
    """The plan of Snakemake's `workflow` once it has built its DAG. Raises: InputError for a wrong probe_wait."""
    slurm = runs_on_slurm(workflow)
    jobs = [_job(workflow, job, slurm) for job in _needed(workflow)]
    before = (workflow.remote_execution_settings.precommand or "").strip()
    return Plan(
        tuple(sorted(jobs, key=lambda job: (job.rule, sorted(job.wildcards.items())))),
        slurm,
        f"{before} && {shlex.quote(python)}" if before and slurm else shlex.quote(python),
        asks_for_preflight(workflow),
        _probe_wait(workflow),
    )
