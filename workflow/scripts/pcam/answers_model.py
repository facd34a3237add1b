"""What the documents say of questions 5 to 9, and the verdicts of the report's first screen.

As in answers_data: evidence in, table rows or a sentence out, and what is missing stays missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pcam.answers_errors import errors_answers
from pcam.answers_results import results_answers
from pcam.answers_silent import silent_answers
from pcam.answers_tuning import setting_rows, tuning_answers
from pcam.documents import Missing, code, merge_answers

Found = Mapping[str, Any]
Runs = Sequence[tuple[str, int]]  # variant, seed
Rows = list[list[Any]] | Missing


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
    throughput = found["throughput"]
    variants = list(dict.fromkeys(variant for variant, _ in runs))
    tables = [found[f"{kind} {variant} {seed}"] for variant, seed in runs for kind in ("steps", "history")]
    gone = next((table for table in tables if isinstance(table, Missing)), None)
    link = config["journal"]["repository"]
    own = {
        "logged_rows": gone if gone is not None else sum(map(len, tables)),
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
    return merge_answers(
        results_answers(found, variants),
        tuning_answers(found, config, variants),
        errors_answers(found),
        silent_answers(found),
        own,
    )
