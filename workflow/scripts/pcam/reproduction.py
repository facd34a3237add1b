"""A logged run, rebuilt from its logged config by a Snakemake of its own, and compared with what was logged."""

import copy
import fcntl
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pcam.files import InputError, read_json
from pcam.metrics import expected_calibration_error, score
from pcam.predictions import read_predictions
from pcam.provenance import ROOT
from pcam.settings import ThresholdSettings
from pcam.sidecar import read_sidecar
from pcam.thresholds import choose
from pcam.tracking import LoggedRun
from pcam.twin import compare_weights, differing_causes, load_weights, verdict

SPLITS = ("valid", "test")
SIDES = ("now", "in the logged run")
_PROGRESS = re.compile(r"\d+ of \d+ steps \(\d+%\) done")
# What a job told of a user's mistake, and what Snakemake told of its own.
_TOLD = [re.compile(r"^error: (.+)$", re.MULTILINE), re.compile(r"^\w+(?:Error|Exception)\b.*:\n(.+)$", re.MULTILINE)]


def run_folder(run: LoggedRun) -> str:
    """Where a workflow keeps the run, relative to its results. Raises: InputError when it is no run to rebuild."""
    match run.kind:
        case "train":
            return f"train/{run.name}"
        case "trial" if run.status != "FINISHED":
            raise InputError(
                f"run {run.run_id}: {run.name} is a failed trial, without weights; give the id of another run"
            )
        case "trial":
            return f"search/{run.name}"
        case "champion":
            return "champion"
    raise InputError(
        f"run {run.run_id}: {run.name} is of kind {run.kind}; give the id of a training, a trial or the champion"
    )


def prediction_paths(run: LoggedRun) -> dict[str, str]:
    """Predictions by split, relative to the results; a trial has none."""
    folder = {"train": f"predict/{run.name}", "champion": "champion/predict"}.get(run.kind)
    return {split: f"{folder}/{split}.csv" for split in SPLITS} if folder else {}


def rebuilt_config(config: Mapping[str, Any], data_root: Path, had: Path) -> dict[str, Any]:
    """The logged config for a run in another folder: its files are found, its data stand apart, nothing is tracked.

    `data_root`: where the data of the rebuilt run go. `had`: the folder in which this workflow keeps its PCam files,
    so that none is downloaded a second time.
    """
    changed = copy.deepcopy(dict(config))
    data, audit, twin = changed["data"], changed["audit"], changed["reproducibility"]
    for section, key in ((data, "directory"), (audit, "reference"), (twin, "fingerprint")):
        if section[key] is not None:
            section[key] = str(Path(section[key]).resolve())
    if data["source"] == "pcam" and had.is_dir():
        data["directory"] = str(had.resolve())
    data["root"] = str(data_root.resolve())
    changed["tracking"]["uri"] = changed["run"] = None
    return changed


@contextmanager
def lock_rebuild(folder: Path, report: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock of a rebuild; yields its descriptor, for the Snakemake that does the work.

    That one can outlive its parent. It then keeps the lock, and a rerun waits for it and goes on where it ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for an earlier rebuild of this run, which still goes on")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            report(f"{folder}: this file system gives no locks ({error.strerror}); never rebuild a run twice at once")
        yield handle.fileno()


def remove_rebuilt(folder: Path) -> None:
    """Raises: InputError when something of it stays, which would pass for what was rebuilt."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be removed ({error.strerror}); remove it and run again") from None


def rebuild(
    folder: Path,
    config: Path,
    targets: Sequence[str],
    log: Path,
    *,
    cores: int,
    lock: int,
    report: Callable[[str], None],
) -> None:
    """Make `targets` with this code in `folder`, by a Snakemake whose output goes to `log`.

    Raises: InputError when that fails.
    """
    # The config replaces the default one: merged into a newer default, it would gain what was added since.
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder.resolve()]
    # Our own lock stands for Snakemake's, which a killed one leaves behind.
    command += ["--nolock", "--rerun-incomplete", "--replace-workflow-config", "--configfile", config.resolve()]
    command += ["--cores", cores, *targets]
    with log.open("wb") as output:
        child = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT, pass_fds=[lock],
            env={**os.environ, "NO_COLOR": "1", "TERM": "dumb"},
        )  # fmt: skip
    try:
        with log.open(errors="replace") as lines:
            running = True
            while running:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=0.5)
                running = child.poll() is None
                for line in lines:
                    if _PROGRESS.match(line):
                        report(line.strip())
    except BaseException:
        child.terminate()  # it ends its jobs
        raise
    if child.returncode:
        raise InputError(f"the rebuild failed: {_reason(log.read_text(errors='replace'))}; its log is {log}")


def _reason(output: str) -> str:
    """The first error that a job told, else the first of Snakemake, in one line."""
    told = [found[1] for pattern in _TOLD if (found := pattern.search(output))] or output.strip().splitlines()[-1:]
    return " ".join(told[0].split())[:300] if told else "it printed nothing"


def causes_of(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """What can change the bits of a run, as twin.CAUSES orders it; commit and dirty flag stand with the code."""
    trained = sidecar.get("trained_by", sidecar["provenance"])
    return {
        **sidecar["runtime"],
        "data": {"source": sidecar["data_source"], "digest": sidecar["digests"]["data"]},
        "config": {"seed": sidecar["seed"], "settings": sidecar["settings"], "chosen": sidecar.get("name")},
        "code": {
            "digest": sidecar["digests"]["code"],
            "commit": trained.get("commit"),
            "uncommitted changes": trained.get("dirty"),
        },
    }


def compare_with_logged(logged: Mapping[str, Any], rebuilt: Path, kept: Sequence[Path]) -> dict[str, Any]:
    """Weights by digest, and by value where the logged ones are at hand.

    `logged`: the logged sidecar. `kept`: where the logged weights may lie.
    """
    digests = {"logged": logged["digests"]["weights"], "rebuilt": read_sidecar(rebuilt)["digests"]["weights"]}
    equal, state = digests["logged"] == digests["rebuilt"], load_weights(rebuilt)
    compared: dict[str, Any] = {"values": sum(tensor.numel() for tensor in state.values()), "differing": None,
                                "largest_difference": None, "first_difference": None,
                                "note": "compared by digest: the logged weights are not at hand"}  # fmt: skip
    for path in kept:
        with suppress(InputError):
            if read_sidecar(path)["digests"]["weights"] == digests["logged"]:
                compared = {**compare_weights(load_weights(path), state), "note": None}
                break
    return {**digests, **compared, "equal": equal}


def logged_metrics(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The final metrics of a logged run, by split."""
    found: dict[str, dict[str, float]] = {split: {} for split in SPLITS}
    for name, value in metrics.items():
        split, final, metric = name.partition("_final_")
        if final and split in found:
            found[split][metric] = value
    return found


def rebuilt_metrics(
    sidecar: Mapping[str, Any], predictions: Mapping[str, Path], rule: ThresholdSettings, ece_bins: int
) -> dict[str, dict[str, float | None]]:
    """The same of a rebuilt run: at the threshold in its sidecar, else at the one its own validation gives.

    Without predictions, the metrics that its training kept. Raises: InputError when validation gives no threshold.
    """
    if not predictions:
        return {"valid": {name: sidecar["valid"][name] for name in ("roc_auc", "pr_auc")}}
    tables = {split: read_predictions(path) for split, path in predictions.items()}
    threshold = sidecar["threshold"]
    if threshold is None:
        try:
            threshold = choose(tables["valid"].labels, tables["valid"].probabilities, rule)
        except ValueError as error:
            raise InputError(f"{predictions['valid']}: {error}; the logged run had both") from None
    return {
        split: {
            **score(table.labels, table.probabilities, threshold, rule.beta),
            "ece": expected_calibration_error(table.labels, table.probabilities, ece_bins),
            "threshold": threshold,
        }
        for split, table in tables.items()
    }


def _same(logged: float, rebuilt: float | None) -> bool:
    """Equal up to the last bits: the two may have summed the same counts in another order."""
    return rebuilt is not None and math.isclose(logged, rebuilt, rel_tol=1e-12, abs_tol=1e-15)


def compare_metrics(
    logged: Mapping[str, Mapping[str, float]], rebuilt: Mapping[str, Mapping[str, float | None]]
) -> dict[str, dict[str, Any]]:
    """Each metric that both have."""
    return {
        split: {
            name: {
                "logged": values[name],
                "rebuilt": rebuilt[split][name],
                "equal": _same(values[name], rebuilt[split][name]),
            }
            for name in values
            if name in rebuilt.get(split, {})
        }
        for split, values in logged.items()
    }


def not_compared(
    logged: Mapping[str, Mapping[str, float]], rebuilt: Mapping[str, Mapping[str, float | None]]
) -> list[str]:
    """Logged metrics that the rebuilt run lacks, as those that this code no longer has; by their logged names."""
    return [
        f"{split}_final_{name}"
        for split, values in logged.items()
        for name in values
        if name not in rebuilt.get(split, {})
    ]


def judge(
    weights: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
    logged: Mapping[str, Any],
    now: Mapping[str, Any],
    left_out: Sequence[str],
) -> dict[str, Any]:
    """`same_bits`, the verdict in words, which names the first difference and what else differs, and all `causes`.

    `logged`, `now`: see causes_of. `left_out`: see not_compared.
    """
    differing = [] if weights["equal"] else ["weights"]
    for split, compared in metrics.items():
        names = [name for name, found in compared.items() if not found["equal"]]
        differing += [f"metrics on {split}"] if names else []
    causes = [
        {"cause": found["cause"], "what": found["what"], "now": found["here"], "logged": found["there"]}
        for found in differing_causes(now, logged)
    ]
    words = [verdict(differing, differing_causes(now, logged), SIDES)]
    if causes[1:]:
        words.append("also different: " + ", ".join(f"{cause['cause']} ({cause['what']})" for cause in causes[1:]))
    if now["code"]["uncommitted changes"] and logged["code"]["uncommitted changes"]:
        words.append("both ran with uncommitted changes, so that the commit does not tell their code")
    if left_out:
        words.append(f"not compared, because the rebuilt run has none: {', '.join(left_out)}")
    return {"same_bits": not differing, "verdict": "; ".join(words), "causes": causes}


def read_rebuilt(path: Path) -> dict[str, Any]:
    """Sidecar of rebuilt weights. Raises: InputError when it is that of a failed trial."""
    document = read_json(path.with_suffix(".json"))
    if document.get("state") == "failed":
        raise InputError(f"{path.parent}: the logged trial finished, and the rebuilt one failed: {document['reason']}")
    return read_sidecar(path)
