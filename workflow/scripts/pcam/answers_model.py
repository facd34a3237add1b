"""What the documents say of questions 5 to 9, and the verdicts of the report's first screen.

As in answers_data: evidence in, table rows or a sentence out, and what is missing stays missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pcam.answers_benchmark import benchmark_answers
from pcam.answers_collaboration import collaboration_answers
from pcam.answers_errors import errors_answers
from pcam.answers_handover import handover_answers
from pcam.answers_results import results_answers
from pcam.answers_silent import silent_answers
from pcam.answers_tuning import setting_rows, tuning_answers
from pcam.binding import bare, derived
from pcam.documents import Missing, merge_answers
from pcam.rendering import code

Found = Mapping[str, Any]
Runs = Sequence[tuple[str, int]]  # variant, seed
Rows = list[list[Any]] | Missing


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
    named = [*files, *(f"results/champion/{name}" for name in ("weights.pt", "weights.json", "guard.json"))]
    alike = [f"results/champion/{name}" for name in ("weights.onnx", "onnx.json")]
    listed, instead = (Markup(", ").join(code(name) for name in names) for names in (named, alike))
    return Markup(f"{listed}; with onnxruntime, {instead} instead of weights.pt")


def onnx_sentence(onnx: Any) -> Any:
    """How far the answers of the exported graph are from those of torch."""
    if isinstance(onnx, Missing):
        return onnx
    return (
        f"The ONNX graph was tried against torch on {onnx.patches:,} test patches: its logits differ by "
        f"{onnx.largest_logit_difference:.2g} at most (allowed: {onnx.tolerance:g}), its probabilities by "
        f"{onnx.largest_probability_difference:.2g}, and {onnx.decisions_that_differ:,} decisions are other ones."
    )


def checklist_rows(checklist: Any) -> Rows:
    items = checklist["items"]
    return (
        items if isinstance(items, Missing) else [[entry.item, entry.found, entry.todo or "nothing"] for entry in items]
    )


def model_answers(found: Found, config: Mapping[str, Any], runs: Runs) -> dict[str, Any]:
    """All that the journal's template needs for questions 5 to 9 and the checklist."""
    variants = list(dict.fromkeys(variant for variant, _ in runs))
    tables = [found[f"{kind} {bare(variant)} {bare(seed)}"] for variant, seed in runs for kind in ("steps", "history")]
    gone = next((table for table in tables if isinstance(table, Missing)), None)
    link = config["journal"]["repository"]
    own = {
        "logged_rows": gone if gone is not None else derived(sum(map(len, tables)), *tables),
        "ci_table": setting_rows(found["environment"].files),
        "readme_link": f"{link.rstrip('/')}#readme" if link else None,
        "readme_sentence": readme_sentence(found["environment"].readme_sections),
        "offline_files": offline_files(found["environment"].inference_files),
        "onnx_sentence": onnx_sentence(found["onnx"]),
        "checklist_table": checklist_rows(found["checklist"]),
        "checklist_lines": [{"item": entry["item"], "ok": entry.ok} for entry in found["checklist"]["items"]],
    }
    return merge_answers(
        results_answers(found, variants),
        tuning_answers(found, config, variants),
        errors_answers(found),
        silent_answers(found),
        collaboration_answers(found),
        benchmark_answers(found, config),
        handover_answers(found),
        own,
    )
