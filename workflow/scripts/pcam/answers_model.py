"""What the documents say of questions 5 to 9, and the verdicts of the report's first screen.

As in answers_data: evidence in, table rows or a sentence out, and what is missing stays missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from pcam.answers_results import results_answers
from pcam.answers_tuning import setting_rows, tuning_answers
from pcam.documents import Missing, code, is_measured, merge_answers, number, percent, words

Found = Mapping[str, Any]
Runs = Sequence[tuple[str, int]]  # variant, seed
Rows = list[list[Any]] | Missing

SURE = 0.9  # a probability above which no one would doubt the answer


def answered(rows: Any, threshold: Any) -> Any:
    """Number of answers, and how probable the model held each wrong one."""
    for needed in (rows, threshold):
        if not is_measured(needed):
            return needed
    labels = np.array([row.label for row in rows], int)
    probabilities = np.array([row.probability for row in rows], float)
    called = probabilities >= threshold
    return {"n": len(labels), "wrong": np.where(called, probabilities, 1 - probabilities)[called != labels]}


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
        "The guard of inference.py (question 5, deployment issues) looks at the pixels of incoming patches. It does "
        "not see a change that leaves colours and sharpness as they are, such as another share of tumour; no watch on "
        "the answers themselves runs in this version."
    )
    return " ".join(text)


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


def readme_sentence(sections: Any) -> Any:
    """Which of the sections the journal asks for the README has."""
    if isinstance(sections, Missing):
        return sections
    present, absent = ([name for name in sections if sections[name] is there] for there in (True, False))
    text = f"Found among the README's headings: {', '.join(present)}." if present else "None of them is there."
    return text + (f" Not found: {', '.join(absent)}." if absent else "")


def offline_files(files: Any) -> Any:
    """What has to lie on the stick besides the packages: code, weights, sidecar, guard."""
    if isinstance(files, Missing):
        return files
    named = [*files, "results/champion/weights.pt", "results/champion/weights.json", "results/champion/guard.json"]
    return Markup(", ".join(str(code(name)) for name in named))


def checklist_rows(checklist: Any) -> Rows:
    items = checklist["items"]
    return (
        items if isinstance(items, Missing) else [[entry.item, entry.found, entry.todo or "nothing"] for entry in items]
    )


def model_answers(found: Found, config: Mapping[str, Any], runs: Runs) -> dict[str, Any]:
    """All that the journal's template needs for questions 5 to 9 and the checklist."""
    champion, throughput = found["champion"], found["throughput"]
    variants = list(dict.fromkeys(variant for variant, _ in runs))
    test = answered(found["champion_test"], champion.threshold)
    tables = [found[f"{kind} {variant} {seed}"] for variant, seed in runs for kind in ("steps", "history")]
    gone = next((table for table in tables if isinstance(table, Missing)), None)
    link = config["journal"]["repository"]
    own = {
        "logged_rows": gone if gone is not None else sum(map(len, tables)),
        "slice_table": slice_rows(found["slices"]),
        "slice_sentence": slice_sentence(found["slices_summary"]),
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
    return merge_answers(results_answers(found, variants), tuning_answers(found, config, variants), own)
