"""What the documents say of questions 5 to 9, and the verdicts of the report's first screen.

As in answers_data: evidence in, table rows or a sentence out, and what is missing stays missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from pcam.documents import Missing, code, interval, is_measured, mean_sd, number, percent, plain, words
from pcam.metrics import roc_auc_interval, score

Found = Mapping[str, Any]
Runs = Sequence[tuple[str, int]]  # variant, seed
Rows = list[list[Any]] | Missing

SURE = 0.9  # a probability above which no one would doubt the answer
METRICS = ("roc_auc", "pr_auc", "f_beta", "sensitivity", "specificity", "brier")


def seed_rows(seeds: Any, variants: Sequence[str]) -> Rows:
    if isinstance(seeds, Missing):
        return seeds
    return [[variant, *(mean_sd(seeds[variant].test[metric]) for metric in METRICS)] for variant in variants]


def baseline_rows(baselines: Any) -> Rows:
    if isinstance(baselines, Missing):
        return baselines
    return [[words(name), *(number(baselines[name].test[metric]) for metric in METRICS)] for name in baselines]


def beats_always(f: Any, always: Any, who: str, over_seeds: Any = None) -> Any:
    """Whether a model's F-beta is above that of always answering tumour, and whether the seeds bear it out."""
    for value in (f, always):
        if not is_measured(value):
            return value
    if f <= always:
        return (
            f"{who} does not beat always tumour on test: F-beta {number(f)} against {number(always)}. "
            "By this metric its threshold is worth no more than calling every patch."
        )
    text = f"{who} beats always tumour on test: F-beta {number(f)} against {number(always)}"
    if not isinstance(over_seeds, list):
        return f"{text}, {number(f - always)} above."
    if over_seeds[0] > always:
        return f"{text}, which the interval over seeds ({interval(over_seeds)}) leaves out."
    return f"{text}, but the interval over seeds ({interval(over_seeds)}) holds it: the two are not told apart."


def scored(rows: Any, threshold: Any, beta: float) -> Any:
    """Metrics, counts and interval of a table of predictions at a threshold."""
    for needed in (rows, threshold):
        if not is_measured(needed):
            return needed
    labels = np.array([row.label for row in rows], int)
    probabilities = np.array([row.probability for row in rows], float)
    called = probabilities >= threshold
    counts = [int((called == c)[labels == y].sum()) for y, c in ((1, True), (1, False), (0, True), (0, False))]
    return {
        **score(labels, probabilities, threshold, beta),
        "interval": roc_auc_interval(labels, probabilities),
        "n": len(labels),
        "confusion": counts,
        "wrong": np.where(called, probabilities, 1 - probabilities)[called != labels],
    }


def champion_rows(by_split: Mapping[str, Any]) -> Rows:
    rows = []
    for split, s in by_split.items():
        if not isinstance(s, dict):
            return s  # type: ignore[no-any-return]
        area = f"{number(s['roc_auc'])} ({interval(s['interval'])})" if s["interval"] else number(s["roc_auc"])
        rows.append([split, s["n"], area, *(number(s[metric]) for metric in METRICS[1:5])])
    return rows


def confusion_rows(by_split: Mapping[str, Any]) -> Rows:
    marks = {"valid": "valid (threshold chosen here)", "test": "test (threshold carried over)"}
    rows = []
    for split, s in by_split.items():
        if not isinstance(s, dict):
            return s  # type: ignore[no-any-return]
        rows.append([marks[split], *s["confusion"]])
    return rows


def threshold_cost(test: Any) -> Any:
    if not isinstance(test, dict):
        return test
    found, missed, alarms, cleared = test["confusion"]
    return (
        f"Its cost on test: of {found + missed:,} patches with tumour it misses {missed:,}, "
        f"and of {alarms + cleared:,} without it calls {alarms:,}."
    )


def tuning_sentence(selection: Any) -> str:
    """Whether the search found better than the untuned baseline, on validation."""
    if isinstance(selection.candidates, Missing):
        return ""
    parts: dict[bool, list[float]] = {True: [], False: []}
    for candidate in selection.candidates:
        parts[candidate.name.startswith("round-")].append(candidate.value)
    failed = "".join(f" Trial {trial.name} failed: {trial.reason}." for trial in selection.failed)
    if not all(parts.values()):
        return failed.strip()
    trial, baseline = max(parts[True]), max(parts[False])
    told = "above" if trial > baseline else "not above"
    return f"The best trial has {number(trial)}, {told} the {number(baseline)} of the baseline's best seed.{failed}"


def slice_rows(slices: Any) -> Rows:
    if isinstance(slices, Missing):
        return slices
    return [
        [row.slice, row.value, row.n, row.positives, words(row.metric), number(row.estimate),
         "undefined" if row.low is None else f"{number(row.low)} to {number(row.high)}", row.status]
        for row in slices
    ]  # fmt: skip


def slice_sentence(summary: Any) -> Any:
    if isinstance(summary, Missing):
        return summary
    text = []
    for gap in (gap for gap in summary.widest_gaps if gap.metric == "roc_auc"):
        apart = (
            "their intervals do not touch"
            if gap.intervals_apart
            else "their intervals overlap, so the gap may be chance"
        )
        low, high = gap.lowest, gap.highest
        text.append(
            f"By {words(gap.slice)} ROC-AUC goes from {number(low.estimate)} ({low.value}, n = {low.n}) to "
            f"{number(high.estimate)} ({high.value}, n = {high.n}); {apart}."
        )
    for what in ("slide", "hospital"):
        unknown = summary[f"patches_without_{what}"]
        if is_measured(unknown) and unknown:
            text.append(f"For {unknown:,} of {summary.n:,} patches the {what} is not known.")
    return " ".join(text) or "No slicing has two slices large enough to compare."


def silent_sentence(test: Any, slices: Any) -> Any:
    """How sure the wrong answers are, and what the one global figure hides."""
    if not isinstance(test, dict):
        return test
    wrong = test["wrong"]
    text = [f"Of {test['n']:,} answers on test {len(wrong):,} are wrong at the champion's threshold."]
    if len(wrong):
        sure = int((wrong >= SURE).sum())
        text.append(
            f"In {sure:,} of them the model gave its wrong answer a probability of at least {percent(SURE, 0)}: "
            "no one would be asked to look."
        )
    if not isinstance(slices, Missing):
        few = sum(str(row.status).startswith("too few") for row in slices if row.metric == "roc_auc")
        undefined = sum(str(row.status).startswith("undefined") for row in slices if row.metric == "roc_auc")
        text.append(
            f"The global figure also covers {few} slices with too few patches for a claim and {undefined} where "
            "ROC-AUC is undefined."
        )
    text.append(
        "A watch on incoming data (brightness, stain, share of calls) would have to catch this; none runs in this "
        "version."
    )
    return " ".join(text)


def run_rows(runs: Any) -> Rows:
    if isinstance(runs.runs, Missing):
        return runs.runs
    return [
        [run.name, run.kind, run.metrics, run.tags.seed, str(run.tags.commit)[:8],
         "none, it failed" if run.status == "FAILED" else str(run.tags.weights_digest)[:12]]
        for run in runs.runs
    ]  # fmt: skip


def space_rows(space: Mapping[str, Mapping[str, Any]]) -> list[list[Any]]:
    rows = []
    for name, parameter in space.items():
        if parameter["type"] == "categorical":
            rows.append([name, ", ".join(map(str, parameter["choices"])), "choice"])
        else:
            step = f", step {parameter['step']}" if "step" in parameter else ""
            scale = "logarithmic" if parameter.get("log") else "linear"
            rows.append([name, f"{parameter['low']} to {parameter['high']}{step}", f"{parameter['type']}, {scale}"])
    return rows


def setting_rows(settings: Any) -> Rows:
    return settings if isinstance(settings, Missing) else [[name, plain(settings[name])] for name in settings]


def comparison_rows(found: Found, test: Any, variants: Sequence[str]) -> Rows:
    """Champion, variants and baselines on the same test patches."""
    if not isinstance(test, dict):
        return test  # type: ignore[no-any-return]
    rows: list[list[Any]] = [
        ["champion (one model)", f"{number(test['roc_auc'])} ({interval(test['interval'])})", number(test["f_beta"])]
    ]
    for variant in variants:
        scores = found["seeds"][variant].test
        rows.append([f"variant {variant} (mean of seeds)", mean_sd(scores.roc_auc), mean_sd(scores.f_beta)])
    for name in found["baselines"]:
        scores = found["baselines"][name].test
        rows.append([words(name), number(scores.roc_auc), number(scores.f_beta)])
    return rows


def speed(value: Any) -> Any:
    return "none, see item 4" if value is None else f"{value:,.0f}"


def batch_one(throughput: Any, benchmarked: Sequence[str]) -> list[list[Any]]:
    """The template's rows, filled where the partition was measured, and a row for every other partition measured."""
    course = {"thin_course": "CPU Only", "gpu_course": "GPU ([Type])"}
    rows: list[list[Any]] = []
    for partition in dict.fromkeys([*course, *benchmarked]):
        mine = [row for row in throughput if row.partition == partition and row.batch_size == 1]
        for row in mine:
            rows.append([partition, f"{row.device} ({row.mode})", speed(row.images_per_s), str(row.job_id)])
        if not mine:
            measured = (
                throughput
                if isinstance(throughput, Missing) and partition not in course
                else "not measured in this run"
            )
            rows.append([partition, course.get(partition, ""), measured, ""])
    return rows


def throughput_rows(throughput: Any) -> Rows:
    if isinstance(throughput, Missing):
        return throughput
    return [[row.partition, row.mode, row.precision, row.batch_size, speed(row.images_per_s)] for row in throughput]


def scaling_sentence(throughput: Any) -> Any:
    """From batch size to batch size, where each mode stops gaining."""
    if isinstance(throughput, Missing):
        return throughput
    text = []
    for partition, mode in dict.fromkeys((row.partition, row.mode) for row in throughput):
        mine = [
            row for row in throughput if (row.partition, row.mode) == (partition, mode) and row.images_per_s is not None
        ]
        mine.sort(key=lambda row: row.batch_size)
        if len(mine) < 2:
            continue
        best = max(mine, key=lambda row: row.images_per_s)
        enough = next(row for row in mine if row.images_per_s >= 0.9 * best.images_per_s)
        gain = best.images_per_s / mine[0].images_per_s
        text.append(
            f"On {partition}, {mode}: {gain:.1f} times the speed of batch size {mine[0].batch_size} at batch size "
            f"{best.batch_size}; nine tenths of the highest speed are reached at batch size {enough.batch_size}."
        )
    return " ".join(text) or "A single batch size was measured, which tells nothing of scaling."


def deployment(found: Found, prior: str, test: Any, valid: Any, slices_told: Any) -> dict[str, Any]:
    """Three issues, each with what this run measured of it."""
    carried: Any = test if not isinstance(test, dict) else valid
    if isinstance(test, dict) and isinstance(valid, dict):
        carried = (
            f"Chosen on valid, where it gives F-beta {number(valid['f_beta'])} and sensitivity "
            f"{number(valid['sensitivity'])}; on test it gives {number(test['f_beta'])} and "
            f"{number(test['sensitivity'])}. "
            "The threshold stands in the sidecar, so a new one can be stored without new weights."
        )
    return {"prior": prior or found["splits"].train.positives, "threshold": carried, "brightness": slices_told}


def readme_sentence(sections: Any) -> Any:
    """Which of the sections the journal asks for the README has."""
    if isinstance(sections, Missing):
        return sections
    present, absent = ([name for name in sections if sections[name] is there] for there in (True, False))
    text = f"Found among the README's headings: {', '.join(present)}." if present else "None of them is there."
    return text + (f" Not found: {', '.join(absent)}." if absent else "")


def offline_files(files: Any) -> Any:
    """What has to lie on the stick besides the packages: code, weights, sidecar."""
    if isinstance(files, Missing):
        return files
    named = [*files, "results/champion/weights.pt", "results/champion/weights.json"]
    return Markup(", ".join(str(code(name)) for name in named))


def checklist_rows(checklist: Any) -> Rows:
    items = checklist["items"]
    return (
        items if isinstance(items, Missing) else [[entry.item, entry.found, entry.todo or "nothing"] for entry in items]
    )


def model_answers(found: Found, config: Mapping[str, Any], runs: Runs, prior: str) -> dict[str, Any]:
    """All that the journal's template needs for questions 5 to 9 and the checklist."""
    seeds, baselines, champion, throughput = (found[name] for name in ("seeds", "baselines", "champion", "throughput"))
    variants, beta = list(dict.fromkeys(variant for variant, _ in runs)), config["threshold"]["beta"]
    by_split = {split: scored(found[f"champion_{split}"], champion.threshold, beta) for split in ("valid", "test")}
    test, always = by_split["test"], baselines.always_tumour.test
    test_f = test["f_beta"] if isinstance(test, dict) else test
    told = slice_sentence(found["slices_summary"])
    tables = [found[f"{kind} {variant} {seed}"] for variant, seed in runs for kind in ("steps", "history")]
    gone = next((table for table in tables if isinstance(table, Missing)), None)
    f = seeds.baseline.test.f_beta
    link = config["journal"]["repository"]
    return {
        "always": always,
        "seed_table": seed_rows(seeds, variants),
        "baseline_table": baseline_rows(baselines),
        "beats_always": beats_always(f.mean, always.f_beta, "The baseline variant, as mean of its seeds,", f.interval),
        "logged_rows": gone if gone is not None else sum(map(len, tables)),
        "run_count": len(found["runs"].runs),
        "run_head": ["run", "kind", "metric values", "seed", "commit", "digest of weights"],
        "run_table": run_rows(found["runs"]),
        "deployment": deployment(found, prior, test, by_split["valid"], told),
        "space_table": space_rows(config["search"]["space"]),
        "tuning_sentence": tuning_sentence(found["selection"]),
        "champion_settings": setting_rows(champion.settings),
        "champion_scores": champion_rows(by_split),
        "confusion": confusion_rows(by_split),
        "test_f": test_f,
        "threshold_cost": threshold_cost(test),
        "champion_verdict": beats_always(test_f, always.f_beta, "The champion"),
        "comparison": comparison_rows(found, test, variants),
        "slice_table": slice_rows(found["slices"]),
        "slice_sentence": told,
        "silent_sentence": silent_sentence(test, found["slices"]),
        "ci_table": setting_rows(found["environment"].files),
        "precisions": ", ".join(dict.fromkeys(row.precision for row in throughput)) or throughput,
        "batch_one": batch_one(throughput, config["benchmark"]["partitions"]),
        "scaling_sentence": scaling_sentence(throughput),
        "throughput_table": throughput_rows(throughput),
        "readme_link": f"{link.rstrip('/')}#readme" if link else None,
        "readme_sentence": readme_sentence(found["environment"].readme_sections),
        "offline_files": offline_files(found["environment"].inference_files),
        "checklist_table": checklist_rows(found["checklist"]),
        "checklist_lines": [{"item": entry["item"], "ok": entry.ok} for entry in found["checklist"]["items"]],
    }
