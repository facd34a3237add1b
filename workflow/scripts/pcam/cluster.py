"""Slurm's own account of itself: partitions, nodes, accounts; and a short job sent to look around.

The readers take the text that a command prints, so that they can be tried without a cluster.
"""

import getpass
import os
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ASK_S = 20  # a controller that is up answers in well under a second
POLL_S = 2.0
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED")
RUNNING = ("RUNNING", "COMPLETING")
# States in which a node takes no job, as scontrol prints them, alone or joined by "+".
OUT_OF_USE = {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "MAINT", "NOT_RESPONDING", "INVAL", "FUTURE"}


class NoAnswer(Exception):
    """Slurm's command is not installed, failed, or did not answer in time: one line with its own words."""


@dataclass(frozen=True)
class Node:
    name: str
    cpus: int
    mem_mb: int
    gpus: int
    usable: bool


@dataclass(frozen=True)
class Partition:
    """A partition, its nodes, and its own limits: None where it sets none."""

    name: str
    up: bool
    nodes: tuple[Node, ...]
    minutes: int | None
    mem_mb: int | None
    cpus: int | None


def ask(command: Sequence[str]) -> str:
    """What a command of Slurm's prints. Raises: NoAnswer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=False)
    except FileNotFoundError:
        raise NoAnswer(f"{command[0]} is not installed on this machine") from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{command[0]} gave no answer within {ASK_S} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NoAnswer(f"{command[0]}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout


def _records(text: str) -> list[dict[str, str]]:
    """Lines of key=value, as `scontrol --oneliner` prints them."""
    return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines() if "=" in line]


def minutes_of(text: str) -> int | None:
    """Minutes of a time in Slurm's notation, days-hours:minutes:seconds; None for no limit."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text):
        return None
    days, _, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        parts += [0] * (3 - len(parts))
    elif len(parts) < 3:
        parts = [0, *parts, *[0] * (2 - len(parts))]
    return int(days or 0) * 1440 + parts[0] * 60 + parts[1] + (parts[2] > 0)


def gpus_of(gres: str) -> int:
    """GPUs in Slurm's notation of resources, such as gpu:2, gpu:a100:4(S:0-1), gpu:1g.5gb:1 or (null)."""
    kinds = [kind.split(":") for kind in re.sub(r"\(.*?\)", "", gres).split(",")]
    return sum(int(words[-1]) if words[-1].isdigit() else 1 for words in kinds if words[0] == "gpu")


def _limit(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() and int(text) else None


def read_partitions(partitions: str, nodes: str) -> dict[str, Partition]:
    """Partitions by name, from the text of `scontrol -o show partition` and of `scontrol -o show node`."""
    members: dict[str, list[Node]] = {}
    for record in _records(nodes):
        states = set(re.split(r"[+*]", record.get("State", "")))
        node = Node(
            record["NodeName"],
            int(record.get("CPUTot", 0)),
            int(record.get("RealMemory", 0)),
            gpus_of(record.get("Gres", "")),
            not states & OUT_OF_USE and not record.get("State", "").endswith("*"),
        )
        for name in record.get("Partitions", "").split(","):
            members.setdefault(name, []).append(node)
    return {
        record["PartitionName"]: Partition(
            record["PartitionName"],
            record.get("State") == "UP",
            tuple(members.get(record["PartitionName"], ())),
            minutes_of(record.get("MaxTime", "")),
            _limit(record.get("MaxMemPerNode")),
            _limit(record.get("MaxCPUsPerNode")),
        )
        for record in _records(partitions)
    }


def default_partition(partitions: str) -> str | None:
    """Name of the partition that jobs without one go to, from the text of `scontrol -o show partition`."""
    return next((r["PartitionName"] for r in _records(partitions) if r.get("Default") == "YES"), None)


def has_accounting(config: str) -> bool:
    """From the text of `scontrol show config`."""
    return re.search(r"AccountingStorageType\s*=\s*accounting_storage/slurmdbd", config) is not None


def read_accounts(associations: str) -> set[str]:
    """Accounts of a user, from the text of `sacctmgr -nP show assoc format=account`."""
    return {line.strip().lower() for line in associations.splitlines() if line.strip()}


@dataclass(frozen=True)
class Cluster:
    """Partitions, the name of the default one, and this user's accounts: None without accounting, or why unknown."""

    partitions: dict[str, Partition]
    default: str | None
    accounts: set[str] | NoAnswer | None


def ask_cluster() -> Cluster:
    """Raises: NoAnswer where the controller gives none; what only sacctmgr knows may be unknown by itself."""
    text = ask(("scontrol", "-o", "show", "partition"))
    partitions = read_partitions(text, ask(("scontrol", "-o", "show", "node")))
    accounts: set[str] | NoAnswer | None = None
    if has_accounting(ask(("scontrol", "show", "config"))):
        try:
            of_user = f"user={getpass.getuser()}"
            accounts = read_accounts(ask(("sacctmgr", "-nP", "show", "assoc", of_user, "format=account")))
        except NoAnswer as reason:
            accounts = reason
    return Cluster(partitions, default_partition(text), accounts)


@dataclass(frozen=True)
class Sent:
    """A job that was sent: its id, or why it was refused; and the file that takes what it prints."""

    id: str | None
    refused: str | None
    output: Path


def environment() -> dict[str, str]:
    """This process's, without what a surrounding job would hand on; a user's own SBATCH_ settings hold for all jobs."""
    return {key: value for key, value in os.environ.items() if key == "SLURM_CONF" or not key.startswith("SLURM_")}


def send(options: str, command: str, output: Path, minutes: int) -> Sent:
    """Send a job with sbatch's `options`; what follows them wins over them.

    Where sbatch does not come to its end, Slurm may have taken the job all the same: it is cancelled by its name, which
    no other has.
    """
    name = f"preflight-{secrets.token_hex(6)}"
    own = [f"--job-name={name}", f"--output={output}", f"--time={minutes}", f"--wrap={command}"]
    try:
        done = subprocess.run(
            ["sbatch", *shlex.split(options), "--parsable", *own],
            capture_output=True, text=True, timeout=ASK_S, check=False, env=environment(),
        )  # fmt: skip
    except FileNotFoundError:
        return Sent(None, "sbatch is not installed here", output)
    except BaseException as error:
        cancel([f"--name={name}"])
        if isinstance(error, subprocess.TimeoutExpired):
            return Sent(None, f"sbatch gave no answer within {ASK_S} s", output)
        raise
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return Sent(None, said[-1].removeprefix("sbatch: error: ") if said else "sbatch gave no reason", output)
    return Sent(done.stdout.strip().partition(";")[0], None, output)


def state_of(job: str, before: tuple[str, str] = ("PENDING", "")) -> tuple[str, str]:
    """State of a job and its reason, as Slurm knows them; ("GONE", "") once it has forgotten the job.

    While Slurm does not answer, the state `before` stands.
    """
    try:
        record = _records(ask(("scontrol", "-o", "show", "job", job)))
    except NoAnswer as reason:
        return ("GONE", "") if "Invalid job id" in str(reason) else before
    return (record[0].get("JobState", "GONE"), record[0].get("Reason", "")) if record else ("GONE", "")


def cancel(jobs: Iterable[str]) -> None:
    """Each an id, or --name= with a name."""
    for job in jobs:
        with suppress(NoAnswer):  # its own time limit ends it then
            ask(("scancel", job))


def wait_for(jobs: Sequence[str], start_s: float, run_s: float) -> Mapping[str, tuple[str, str]]:
    """State and reason of each job once all have ended.

    One that has not started after `start_s` seconds, or not ended `run_s` seconds after that, is cancelled and keeps
    the state it was seen in.
    """
    begun, waiting = time.monotonic(), list(jobs)
    states = {job: state_of(job) for job in jobs}
    while waiting := [job for job in waiting if states[job][0] in (*WAITING, *RUNNING)]:
        gone = time.monotonic() - begun
        late = [job for job in waiting if gone > start_s + (run_s if states[job][0] in RUNNING else 0)]
        cancel(late)
        waiting = [job for job in waiting if job not in late]
        if waiting:
            time.sleep(POLL_S)
        states |= {job: state_of(job, states[job]) for job in waiting}
    return states
