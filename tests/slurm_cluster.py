"""A real Slurm on this machine alone: munge, slurmctld and slurmds on loopback, all their files in one folder.

    python tests/slurm_cluster.py start FOLDER [--accounting]    prints what to export
    python tests/slurm_cluster.py stop FOLDER

Two partitions as the course has them: gpu_course (gpu1, two GPUs that are no GPUs) and thin_course (thin1, thin2).
`--accounting` adds slurmdbd and a MariaDB, so that sacct answers. Needs root and the packages of PACKAGES.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PACKAGES = "slurm-wlm slurm-wlm-basic-plugins munge slurmdbd mariadb-server"
ACCOUNT = "course"
NODES = {"gpu1": "gpu_course", "thin1": "thin_course", "thin2": "thin_course"}
# As much as two course jobs on a GPU node; slurmd takes these figures' word for it (config_overrides).
CPUS, MEMORY_MB, MAX_MINUTES = 8, 32768, 1440
START_S = 60.0
MOST_LETTERS = 70  # of the folder's path; unix(7) gives a socket's 108, of which slurmstepd's name takes up to 35


def why_not(*, accounting: bool = False) -> str | None:
    """What is missing for a cluster on this machine, in words; None when it can be started."""
    needed = ["munged", "mungekey", "slurmctld", "slurmd", "sbatch", *(["slurmdbd", "mariadbd"] if accounting else [])]
    # The daemons lie in /usr/sbin, which a PATH may lack.
    missing = [name for name in needed if not shutil.which(name, path=_path())]
    if missing:
        return f"{', '.join(missing)} not installed; as root: apt-get install --no-install-recommends {PACKAGES}"
    return None if os.geteuid() == 0 else "slurmd has to run as root"


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"


def until(condition: Callable[[], bool], what: str, deadline_s: float = START_S) -> None:
    """Poll `condition` until it holds. Raises: TimeoutError, which names `what`, after `deadline_s` seconds."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {deadline_s:.0f} s")
        time.sleep(0.1)


class Cluster:
    """The daemons of one folder; every method works from any process that knows the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.conf = self.folder / "slurm.conf"
        # First on the PATH lie wrappers of Slurm's commands, see _configure.
        self.environment = {**os.environ, "PATH": f"{self.folder}/bin:{_path()}", "SLURM_CONF": str(self.conf)}

    def start(self, *, accounting: bool = False) -> None:
        """Start every daemon and return when all nodes are idle. Raises: RuntimeError, TimeoutError."""
        if (reason := why_not(accounting=accounting)) is not None:
            raise RuntimeError(reason)
        if len(str(self.folder)) > MOST_LETTERS:
            raise RuntimeError(f"{self.folder}: too long a path for its sockets; {MOST_LETTERS} letters are enough")
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("bin", "munge", "state", "logs", "pids", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        try:
            self._configure(accounting)
            self.start_daemon("munged")
            until((self.folder / "munge" / "socket").exists, "munged's socket")
            if accounting:
                self._start_accounting()
            for name in ("slurmctld", *(f"slurmd-{node}" for node in NODES)):
                self.start_daemon(name)
            until(lambda: self.node_states() == dict.fromkeys(NODES, "idle"), f"idle nodes (logs in {self.folder})")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Cancel all jobs and end all daemons, newest first."""
        if self.alive("slurmctld"):
            self.slurm("scancel", "--user", "root", check=False)
            try:
                until(lambda: not self.slurm("squeue", "--noheader", check=False), "an empty queue", 15)
            except (TimeoutError, subprocess.TimeoutExpired):
                print("jobs are still there; the daemons go all the same", file=sys.stderr)
        for path in sorted((self.folder / "pids").glob("*"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
            self.end_daemon(path.name, signal.SIGTERM)
        # A slurmd that was killed leaves the processes of its jobs.
        self.kill_processes()

    def kill_processes(self, job: str | None = None) -> None:
        """SIGKILL for all processes of a job at once, or of all jobs, as when a node fails; scancel gives them time."""
        conf = f"SLURM_CONF={self.conf}"
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                marks = (folder / "environ").read_text(errors="replace").split("\0")
                ids = [mark.removeprefix("SLURM_JOB_ID=") for mark in marks if mark.startswith("SLURM_JOB_ID=")]
                if conf in marks and ids and job in (None, *ids):
                    os.kill(int(folder.name), signal.SIGKILL)

    def slurm(self, *command: str, check: bool = True) -> str:
        """What a Slurm command prints. Raises: CalledProcessError, TimeoutExpired after 60 s."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False, cwd=self.folder
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def node_states(self) -> dict[str, str]:
        """State of each node, as sinfo names it."""
        lines = self.slurm("sinfo", "--noheader", "--Node", "--format=%N %T", check=False).splitlines()
        return dict(line.split() for line in lines)

    def start_daemon(self, name: str, mounts: str = "") -> None:
        """Start munged, mariadbd, slurmdbd, slurmctld or slurmd-NODE in a session of its own.

        `mounts`: shell commands that change the files this daemon and its jobs see, and nobody else does.
        """
        munge, base, _, node = self.folder / "munge", *name.partition("-")
        command = {
            "munged": ["munged", "--foreground", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key",
                       f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", "--num-threads=2"],
            "mariadbd": ["mariadbd", "--no-defaults", "--user=root", f"--datadir={self.folder}/mysql",
                         f"--socket={self.folder}/mysql.sock", f"--pid-file={self.folder}/mysql.pid",
                         "--bind-address=127.0.0.1", f"--port={self._port('mariadbd')}",
                         f"--init-file={self.folder}/init.sql", "--innodb-log-file-size=32M"],
            "slurmdbd": ["slurmdbd", "-D"],
            "slurmctld": ["slurmctld", "-D"],
            "slurmd": ["slurmd", "-D", "-N", node],
        }[base]  # fmt: skip
        if mounts:
            command = ["unshare", "--mount", "sh", "-e", "-c", f'{mounts}; exec "$@"', "sh", *command]
        with (self.folder / "logs" / f"{name}.out").open("ab") as log:
            child = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd=self.folder,
            )  # fmt: skip
        (self.folder / "pids" / name).write_text(str(child.pid))

    def end_daemon(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End one daemon and wait until it is gone."""
        path = self.folder / "pids" / name
        if self.alive(name):
            os.kill(int(path.read_text()), how)
            try:
                until(lambda: not self.alive(name), f"the end of {name}", 10)
            except TimeoutError:
                self.end_daemon(name, signal.SIGKILL)
        path.unlink(missing_ok=True)

    def alive(self, name: str) -> bool:
        """Whether the daemon runs: its process is there, is no zombie, and is no other program under a reused id."""
        path = self.folder / "pids" / name
        try:
            stat = Path(f"/proc/{path.read_text()}/stat").read_text()
        except OSError:
            return False
        program, _, rest = stat.partition("(")[2].rpartition(")")
        return rest.split()[0] != "Z" and program.startswith(name.partition("-")[0])

    def _port(self, name: str) -> int:
        return int((self.folder / "ports" / name).read_text())

    def _configure(self, accounting: bool) -> None:
        ports = self.folder / "ports"
        ports.mkdir()
        names = ["slurmctld", "slurmdbd", "mariadbd", *NODES]
        for name, port in zip(names, _free_ports(len(names)), strict=True):
            (ports / name).write_text(str(port))
        subprocess.run(["mungekey", "--create", f"--keyfile={self.folder}/munge/key"], env=self.environment, check=True)
        storage = (
            f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self._port("slurmdbd")}
AccountingStoragePass={self.folder}/munge/socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations
AccountingStoreFlags=job_comment"""
            if accounting
            else "AccountingStorageType=accounting_storage/none"
        )
        nodes = "\n".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={self._port(node)} CPUs={CPUS} "
            f"RealMemory={MEMORY_MB}{' Gres=gpu:2' if partition == 'gpu_course' else ''}"
            for node, partition in NODES.items()
        )
        # The plugin takes every SLURM_ variable from a job's steps and, inside a job, from itself: this one too. So the
        # commands know their cluster by themselves, as those of a cluster with /etc/slurm/slurm.conf do.
        for name in ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr"):
            wrapper = self.folder / "bin" / name
            program = shutil.which(name, path=_path())
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.conf} exec {program} "$@"\n')
            wrapper.chmod(0o755)
        self.conf.write_text(
            f"""ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={self._port("slurmctld")}
SlurmUser=root
AuthInfo=socket={self.folder}/munge/socket
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool-%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd-%n.pid
SlurmctldLogFile={self.folder}/logs/slurmctld.log
SlurmdLogFile={self.folder}/logs/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
EnforcePartLimits=ALL
ReturnToService=2
GresTypes=gpu
MinJobAge=3600
KillWait=30
MpiDefault=none
JobCompType=jobcomp/filetxt
JobCompLoc={self.folder}/completed.txt
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
{storage}
{nodes}
PartitionName=gpu_course Nodes=gpu1 MaxTime={MAX_MINUTES} State=UP
PartitionName=thin_course Nodes=thin1,thin2 Default=YES MaxTime={MAX_MINUTES} State=UP
"""
        )
        # Entries with a count alone give no GPU; files do, and any two devices will do.
        (self.folder / "gres.conf").write_text(
            "".join(f"NodeName=gpu1 Name=gpu File={device}\n" for device in ("/dev/null", "/dev/zero"))
        )
        (self.folder / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n"
        )

    def _start_accounting(self) -> None:
        (self.folder / "init.sql").write_text(
            "CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';\n"
            "GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';\n"
        )
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(
            f"""DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={self._port("slurmdbd")}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={self.folder}/munge/socket
LogFile={self.folder}/logs/slurmdbd.log
PidFile={self.folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self._port("mariadbd")}
StorageUser=slurm
StoragePass=slurm
"""
        )
        conf.chmod(0o600)
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={self.folder}/mysql", "--skip-test-db",
             "--innodb-log-file-size=32M"],
            env=self.environment, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.start_daemon("mariadbd")
        until(lambda: _answers(self._port("mariadbd")), "mariadbd")
        self.start_daemon("slurmdbd")
        until(lambda: _answers(self._port("slurmdbd")), "slurmdbd")
        for what in (
            ("cluster", "loopback"),
            ("account", ACCOUNT, "Description=course", "Organization=course"),
            ("user", "root", f"Account={ACCOUNT}", f"DefaultAccount={ACCOUNT}"),
        ):
            self.slurm("sacctmgr", "--immediate", "add", *what, check=False)


def _free_ports(n: int) -> list[int]:
    """Ports that nobody listens on: below those that Linux deals out by itself, in a block of this process' own."""
    for block in range(1000):
        first = 20_000 + 10 * ((os.getpid() + block) % 1000)
        with ExitStack() as opened, suppress(OSError):
            for port in range(first, first + n):
                opened.enter_context(socket.create_server(("127.0.0.1", port)))
            return list(range(first, first + n))
    raise RuntimeError("no free ports between 20000 and 30000")


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running_cluster(*, accounting: bool = False) -> Iterator[Cluster]:
    """A cluster that goes when this block ends, and also when this process is killed: a keeper's stdin then closes.

    It has a temporary folder of its own, whose path is short: below pytest's the sockets of jobs get too long a name.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    command = [sys.executable, __file__, "keep", str(folder), *(["--accounting"] if accounting else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdin is not None and keeper.stdout is not None
        if not keeper.stdout.readline():
            raise RuntimeError(f"the cluster did not start; its logs are in {folder}/logs")
        try:
            yield Cluster(folder)
        finally:
            keeper.stdin.close()
            keeper.wait(60)
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Start or stop a cluster, or keep one until stdin closes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("start", "stop", "keep"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--accounting", action="store_true", help="with slurmdbd, so that sacct answers")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.folder)
    if arguments.what == "stop":
        cluster.stop()
        return
    if arguments.what == "keep":
        # Ctrl-C in the tests' terminal reaches this process too: its stdin tells it when to go.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    cluster.start(accounting=arguments.accounting)
    print(f"export SLURM_CONF={cluster.conf} PATH={cluster.folder}/bin:$PATH", flush=True)
    if arguments.what == "keep":
        sys.stdin.read()
        cluster.stop()


if __name__ == "__main__":
    main()
