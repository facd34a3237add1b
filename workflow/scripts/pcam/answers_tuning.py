"""What the documents say of question 5, part 2: search, champion, threshold and baselines.

Evidence in, table rows or a sentence out, and what is missing stays missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pcam.answers_results import beats_always
from pcam.binding import count_of, fixed
from pcam.documents import PERCENT_95, Missing, estimate, interval, is_measured, mean_sd, number, percent, plain, words
from pcam.search_space import read_space

Found = Mapping[str, Any]
Rows = list[list[Any]] | Missing

CHAMPION_METRICS = ("roc_auc", "pr_auc", "f_beta", "accuracy", "balanced_accuracy", "sensitivity", "specificity",
                    "precision", "brier", "log_loss", "ece")  # fmt: skip
ROLES = {"valid": "valid (chosen here)", "test": "test (carried over)"}


def space_rows(space: Mapping[str, Mapping[str, Any]]) -> list[list[Any]]:
    rows = []
    for name, parameter in space.items():
        when = "; ".join(f"{other} {plain(values)}" for other, values in parameter.get("when", {}).items())
        if parameter["type"] == "categorical":
            rows.append([name, ", ".join(map(str, parameter["choices"])), "choice", when or "always"])
        else:
            step = f", step {parameter['step']}" if "step" in parameter else ""
            scale = "logarithmic" if parameter.get("log") else "linear"
            kind = f"{parameter['type']}, {scale}"
            rows.append([name, f"{parameter['low']} to {parameter['high']}{step}", kind, when or "always"])
    return rows


def rung_rows(search: Mapping[str, Any]) -> list[list[Any]]:
    """Who trains for how long."""
    every = search["rounds"] * search["trials"]
    return [
        [fixed(str(place)), rung.get("trials", every), rung["epochs"]] for place, rung in enumerate(search["rungs"])
    ]


def search_sentence(recipe: Any, trials: Any) -> Any:
    """What the search chose, which trials failed, and which setting mattered most."""
    for needed in (recipe, trials):
        if isinstance(needed, Missing):
            return needed
    text = []
    if is_measured(recipe.chosen):
        text.append(
            f"The best of the last rung that finished any is {recipe.chosen.name} (proposed as "
            f"{recipe.chosen.origin}), with {words(recipe.metric)} {number(recipe.chosen.value)} on valid."
        )
    else:
        text.append(f"The search chose nothing: {recipe.reason}.")
    failed = [f"{row.phase}/trial-{row.trial} ({row.reason})" for row in trials if row.state == "FAIL"]
    text.append(
        f"Failed: {'; '.join(failed)}." if failed else f"All {count_of(trials)} trainings of the search finished."
    )
    if is_measured(recipe.importance):
        ranked = sorted(((recipe.importance[name], name) for name in recipe.importance), reverse=True)
        told = ", ".join(f"{name} {percent(share, 0)}" for share, name in ranked)
        text.append(f"Share of the variation between trials that each setting explains (fANOVA): {told}.")
    return " ".join(text)


def tuning_sentence(selection: Any) -> Any:
    """Whether the search found better than the untuned baseline, on validation, over seeds."""
    if isinstance(selection.candidates, Missing):
        return selection.candidates
    means = {candidate.variant: candidate.mean for candidate in selection.candidates}
    tuned, baseline = means.get("tuned"), means.get("baseline")
    if tuned is None or baseline is None:
        return ""
    told = "above" if tuned > baseline else "not above"
    return (
        f"Retrained on all seeds, the tuned recipe has {number(tuned)} on valid, {told} the {number(baseline)} of the "
        "baseline."
    )


def candidate_rows(selection: Any) -> Rows:
    candidates = selection.candidates
    if isinstance(candidates, Missing):
        return candidates
    return [[row.variant, mean_sd(row), ", ".join(number(v) for v in row["values"])] for row in candidates]


def setting_rows(settings: Any) -> Rows:
    return settings if isinstance(settings, Missing) else [[name, plain(settings[name])] for name in settings]


def champion_rows(evaluation: Any) -> Rows:
    rows: list[list[Any]] = []
    for name in CHAMPION_METRICS:
        row: list[Any] = [words(name)]
        for split in ROLES:
            value = evaluation[split].metrics[name]
            if isinstance(value, Missing):
                return value
            band = f"; null band up to {number(value.null_high)}" if "null_high" in value else ""
            row.append(f"{estimate(value)}{band}")
        rows.append(row)
    return rows


def confusion_rows(evaluation: Any) -> Rows:
    rows: list[list[Any]] = []
    for split, role in ROLES.items():
        counts = evaluation[split].confusion
        if isinstance(counts, Missing):
            return counts
        rows.append([role, counts.found, counts.missed, counts.alarms, counts.cleared])
    return rows


def calibration_rows(evaluation: Any) -> Rows:
    rows: list[list[Any]] = []
    for split, role in ROLES.items():
        for when in ("before",) if evaluation.temperature is None else ("before", "after"):
            told = evaluation.calibration[split][when]
            if isinstance(told, Missing):
                return told
            rows.append([role, f"{when} temperature", number(told.ece), number(told.null_high), number(told.brier),
                         number(told.log_loss)])  # fmt: skip
    return rows


def cost_rows(evaluation: Any) -> Rows:
    """Patches missed and false alarms per thousand patches."""
    rows: list[list[Any]] = []
    for split, role in ROLES.items():
        costs = evaluation[split].per_1000
        if isinstance(costs, Missing):
            return costs
        rows.append([role, *(estimate(costs[name], 0) for name in ("missed", "false_alarms"))])
    return rows


def rule_sentence(champion: Any) -> Any:
    """The rule that chose the threshold, in words, with its interval."""
    rule = champion.threshold_rule
    if isinstance(rule, Missing):
        return rule
    told = {
        "f_beta": f"of all thresholds the one with the highest F-beta (beta {plain(rule.beta)}) on valid",
        "sensitivity": f"the highest threshold that finds at least {percent(rule.target)} of the tumours of valid",
        "cost": f"the threshold of least cost on valid, a missed tumour counting as {plain(rule.target)} false alarms",
    }[rule.rule]
    note = f" ({rule.interval_note})" if is_measured(rule.interval_note) else ""
    return (
        f"The rule: {told}. It gave {number(champion.threshold, 4)} ({PERCENT_95} interval "
        f"{interval(rule.interval, 4)}, {rule.interval_kind}{note}) on {rule.n:,} validation patches. "
        "The threshold stands in the weights' sidecar, and inference uses that one."
    )


def comparison_rows(found: Found, variants: Sequence[str]) -> Rows:
    """Champion, variants and baselines on the same test patches."""
    champion, seeds, baselines = found["evaluation"].test.metrics, found["seeds"], found["baselines"]
    for needed in (champion, seeds, baselines):
        if isinstance(needed, Missing):
            return needed
    shown = ("roc_auc", "pr_auc", "f_beta")
    rows: list[list[Any]] = [["champion (one model)", *(estimate(champion[metric]) for metric in shown)]]
    rows += [[f"variant {v} (mean of seeds)", *(mean_sd(seeds[v].test[m]) for m in shown)] for v in variants]
    for name in baselines:
        rows.append([words(name), *(estimate(baselines[name].test.estimates[metric]) for metric in shown)])
    return rows


def tuning_answers(found: Found, config: Mapping[str, Any], variants: Sequence[str]) -> dict[str, Any]:
    """What the journal's template needs for part 2 of question 5."""
    evaluation, champion = found["evaluation"], found["champion"]
    always = found["baselines"].always_tumour.test.f_beta
    f = evaluation.test.metrics.f_beta
    spread = [f.low, f.high] if is_measured(f.low) else f.low
    return {
        "space_table": space_rows(read_space(config["search"]["space"])),
        "rung_table": rung_rows(config["search"]),
        "search_sentence": search_sentence(found["recipe"], found["trials"]),
        "tuning_sentence": tuning_sentence(found["selection"]),
        "candidate_table": candidate_rows(found["selection"]),
        "champion_settings": setting_rows(champion.settings),
        "champion_head": ["metric", *ROLES.values()],
        "champion_scores": champion_rows(evaluation),
        "confusion": confusion_rows(evaluation),
        "calibration_table": calibration_rows(evaluation),
        "cost_table": cost_rows(evaluation),
        "rule_sentence": rule_sentence(champion),
        "champion_verdict": beats_always(f.value, always, "The champion", spread, "its patches"),
        "comparison": comparison_rows(found, variants),
    }
