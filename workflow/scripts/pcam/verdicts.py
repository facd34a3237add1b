"""The first screen of the report: what can be said of this run in six plain statements, each from the evidence."""

from collections.abc import Mapping
from typing import Any

from pcam.answers_results import beats_always
from pcam.binding import count_of, derived
from pcam.checks import FIX, UNKNOWN, WARN
from pcam.documents import Missing, commit_of, counted, estimate, is_measured, mean_sd, number, words

Found = Mapping[str, Any]


def card(title: str, at: str, head: Any, text: Any, good: bool | None) -> dict[str, Any]:
    """One statement of the first screen; `good` is None where a reader has to judge."""
    if isinstance(head, Missing):
        return {"title": title, "at": at, "head": head, "text": "", "state": "missing"}
    return {
        "title": title,
        "at": at,
        "head": head,
        "text": text,
        "state": {True: "good", False: "bad", None: "open"}[good],
    }


def data_card(gate: Any, splits: Any) -> dict[str, Any]:
    """How every kind was judged. Good only where nothing was waived and no suspicion stays."""
    kinds = [gate.kinds[kind] for kind in gate.kinds]
    told = {
        "fail": "neither repaired nor waived",
        "repaired": "found and repaired",
        "waived": "waived with a reason",
        "kept": "suspected, kept and reported",
        "unknown": "could not be looked for",
        "pass": "clean",
    }
    counts = {verdict: kinds.count(verdict) for verdict in told}
    text = ", ".join(f"{derived(n, gate.kinds)} {told[verdict]}" for verdict, n in counts.items() if n)
    head = gate.open if isinstance(gate.open, Missing) else "Gate passed" if gate.open else "Gate not passed"
    good = None if counts["waived"] or counts["kept"] or counts["unknown"] else True
    text = f"{count_of(gate.kinds)} kinds of defect judged: {text}."
    sizes = [(split, splits[split].n) for split in ("train", "valid", "test")]
    if all(isinstance(n, int) for _, n in sizes):
        text += f" Patches after repair: {', '.join(f'{split} {n:,}' for split, n in sizes)}."
    if splits.test_carved_from_valid is True:
        text += " No test labels: what is called test is a part of the validation file."
    return card("Data", "q2", head, text, False if gate.open is False else good)


def twin_card(twin: Any, audit: Any) -> dict[str, Any]:
    """Good only where the twins agree to the bit and the audit of controls, which says that this was no luck, holds."""
    same = twin.same_bits
    head = same if isinstance(same, Missing) else "Twin runs: the same bits" if same else "Twin runs: other bits"
    text = f"{twin.variant}, seed {twin.seed}, trained twice in processes of their own: {twin.verdict}."
    audited = f" Audit of the controls: {audit.sentence}." if is_measured(audit.sentence) else f" {audit.sentence}"
    return card("Reproducibility", "q1", head, text + audited, same is True and audit.audit_holds is True)


def calibration_words(evaluation: Any) -> Any:
    """Whether the probabilities that inference states fit the shares of tumour, by the band of chance."""
    told = evaluation.calibration.test.after
    if not is_measured(told.ece) or not is_measured(told.null_high):
        return ""
    fits = "no more than" if told.ece <= told.null_high else "more than"
    return (
        f" The champion's probabilities are off by {number(told.ece)} on average (ECE on test), {fits} chance gives "
        f"calibrated ones ({number(told.null_high)})."
    )


def model_card(seeds: Any, baselines: Any, evaluation: Any) -> dict[str, Any]:
    """Good only where the interval over seeds lies above always tumour."""
    area, f, always = seeds.baseline.test.roc_auc, seeds.baseline.test.f_beta, baselines.always_tumour.test
    told = beats_always(f.mean, always.f_beta, "The baseline variant", f.interval, "seeds")
    colour = baselines.colour_histogram.test.roc_auc
    patches = f"On {always.n:,} test patches; a" if isinstance(always.n, int) else "A"
    text = f"Mean and sd over seeds. {patches} colour histogram reaches {number(colour)}. {told}"
    text += calibration_words(evaluation)
    good: bool | None = None
    if is_measured(f.mean) and is_measured(always.f_beta):
        apart = isinstance(f.interval, list) and f.interval[0] > always.f_beta
        good = False if f.mean <= always.f_beta else True if apart else None
    summary = mean_sd(area)
    head = summary if isinstance(summary, Missing) else f"ROC-AUC {summary}"
    return card("Model against baselines", "q5-1", head, text, good)


def slices_card(summary: Any, discovered: Any) -> dict[str, Any]:
    """Good only where no slice is weaker than the rest beyond chance, named or found."""
    if isinstance(summary, Missing):
        return card("Slices", "q6", summary, "", None)
    weak = {(row.slice, row.value): row for row in reversed(summary.claims) if row.gap < 0}
    found = [] if isinstance(discovered, Missing) else list(discovered.confirmed)
    tested = bool(summary.tested) and not isinstance(discovered, Missing)
    n = derived(len(weak) + len(found), summary.claims, discovered)
    head = counted(n, "weak slice") if n else "None shown" if tested else "Not tested"
    text = []
    if weak:
        row = summary.claims[0]
        text.append(
            f"{words(row.slice)} {row.value}: {words(row.metric)} {number(row.estimate)}, {row.gap:+.3f} to the rest "
            f"(n = {row.n:,})."
        )
    if found:
        one = found[0]
        text.append(
            f"Found by search: {one.words}; its loss is {number(one.confirm.excess_loss)} above the rest's, errors in "
            f"{estimate(one.confirm.error_rate)} of it on the judging half."
        )
    text.append(f"{summary.tested:,} gaps were tested, corrected for their number.")
    return card("Slices", "q6", head, " ".join(text), False if weak or found else True if tested else None)


def cluster_card(bottleneck: Any, preflight: Any) -> dict[str, Any]:
    """What ran in Slurm's jobs, by their ids, and what the pre-flight table said.

    Good only where it warned of nothing and knew everything. A run without Slurm is to judge.
    """
    if isinstance(bottleneck, Missing):
        return card("Cluster", "q8", bottleneck, "", None)
    machines = list(bottleneck.machines)
    jobs = [machine for machine in machines if machine.job_id != "local"]
    looked = preflight is not None and is_measured(preflight.result)
    rows = list(preflight.checks) if looked else []
    faults = [str(row.check) for row in rows if row.result == FIX]
    unsure = {told: [row for row in rows if row.result == told] for told in (WARN, UNKNOWN)}
    text = "; ".join(
        f"{machine.partition}: {machine.device}, {f'job {machine.job_id}' if machine in jobs else 'no Slurm job'}"
        for machine in machines
    )
    text += ". "
    if not looked:
        text += "No pre-flight table lies beside this run."
    else:
        # Every run on Slurm writes the table anew: its commit tells whether it is of this one.
        text += f"Pre-flight at commit {commit_of(preflight.provenance)}: "
        text += f"to fix: {', '.join(faults)}" if faults else "nothing to fix"
        text += "".join(f"; {told}: {derived(len(some), *some)}" for told, some in unsure.items() if some) + "."
    head = (
        f"{counted(derived(len(jobs), bottleneck.machines), 'Slurm job')} measured" if jobs else "Not run on a cluster"
    )
    good = bool(jobs) and looked and not any(unsure.values())
    return card("Cluster", "q8", head, text, False if faults else good or None)


def verdicts(found: Found) -> list[dict[str, Any]]:
    """The first screen's plain statements: title, anchor, statement, figures, and state (good, bad, open, missing).

    `found` may lack "preflight": a run on one machine has no such table.
    """
    checklist = found["checklist"]
    still = checklist.open
    open_items = " ".join(str(entry.item) for entry in checklist["items"] if not entry.ok)
    return [
        data_card(found["gate"], found["splits"]),
        twin_card(found["twin"], found["determinism_runs"]),
        model_card(found["seeds"], found["baselines"], found["evaluation"]),
        slices_card(found["slices_summary"], found["discovered"]),
        cluster_card(found["bottleneck"], found.get("preflight")),
        card("Checklist", "checklist", f"{still} open" if isinstance(still, int) else still, open_items, still == 0),
    ]
