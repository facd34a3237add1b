"""What the documents say of question 5, part 1: results beside the baselines, their intervals, tracking, deployment.

Evidence in, table rows or a sentence out, and what is missing stays missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pcam.binding import count_of, derived, distinct
from pcam.documents import Missing, estimate, interval, is_measured, mean_sd, number, percent, words
from pcam.rendering import code

Found = Mapping[str, Any]
Rows = list[list[Any]] | Missing

METRICS = ("roc_auc", "pr_auc", "f_beta", "sensitivity", "specificity", "precision", "brier")


def result_rows(seeds: Any, baselines: Any, variants: Sequence[str], split: str) -> Rows:
    """Every variant as mean of its seeds, then the baselines, on the same patches."""
    for needed in (seeds, baselines):
        if isinstance(needed, Missing):
            return needed
    rows = [[variant, *(mean_sd(seeds[variant][split][metric]) for metric in METRICS)] for variant in variants]
    for name in baselines:
        scores = baselines[name][split]
        rows.append([words(name), *(estimate(scores.estimates[metric]) for metric in METRICS)])
    return rows


def value_rows(seeds: Any, variants: Sequence[str], split: str, metrics: Sequence[str]) -> Rows:
    """Each seed's own value."""
    if isinstance(seeds, Missing):
        return seeds
    return [
        [variant, words(metric), *(number(value) for value in seeds[variant][split][metric]["values"])]
        for variant in variants
        for metric in metrics
    ]


def difference_rows(seeds: Any, variants: Sequence[str], split: str) -> Rows:
    """Each variant against the baseline variant, paired by seed."""
    if isinstance(seeds, Missing):
        return seeds
    rows = []
    for variant in variants:
        if variant == "baseline":
            continue
        row: list[Any] = [variant]
        for metric in ("roc_auc", "f_beta"):
            told = seeds.differences[variant][split][metric]
            row += [mean_sd(told), _sign(told)]
        rows.append(row)
    return rows


def _sign(difference: Any) -> Any:
    """What the interval of a paired difference says."""
    pair = difference.interval
    if not isinstance(pair, list):
        return "one seed: cannot be told" if isinstance(pair, str) else pair
    return "above" if pair[0] > 0 else "below" if pair[1] < 0 else "not told apart"


def beats_always(f: Any, always: Any, who: str, spread: Any, over: str) -> Any:
    """Whether a model's F-beta is above that of always answering tumour, and whether its interval bears it out.

    `spread`: the interval, over seeds or over patches as `over` says; anything but a list where there is none.
    """
    for value in (f, always):
        if not is_measured(value):
            return value
    if f <= always:
        return (
            f"{who} does not beat always tumour on test: F-beta {number(f)} against {number(always)}. "
            "By this metric its threshold is worth no more than calling every patch."
        )
    figures = f"always tumour on test: F-beta {number(f)} against {number(always)}"
    if not isinstance(spread, list):
        return f"{who} lies above {figures}, but there is no interval over {over} to tell whether by more than chance."
    told = f"the interval over {over} ({interval(spread)})"
    if spread[0] > always:
        return f"{who} beats {figures}, which {told} leaves out."
    return f"{who} lies above {figures}, but {told} holds it: the two are not told apart."


def interval_rows(evaluation: Any) -> Rows:
    """How each interval of the champion on test was made."""
    metrics = evaluation.test.metrics
    if isinstance(metrics, Missing):
        return metrics
    return [
        [words(name), estimate(metrics[name]), metrics[name].kind, metrics[name].n, metrics[name].note or "none"]
        for name in metrics
    ]


def coverage_head(coverage: Any) -> list[Any]:
    """The simulated cases, in the order of the columns."""
    cases = coverage.cases
    names = [] if isinstance(cases, Missing) else dict.fromkeys(row.case for row in cases)
    return ["metric", "kind of interval", *names]


def coverage_rows(coverage: Any) -> Rows:
    """How often each kind of interval held the truth in simulated data sets, by case; in bold what leaves the range."""
    cases = coverage.cases
    if isinstance(cases, Missing):
        return cases
    shares: dict[tuple[str, str], dict[str, Any]] = {}
    for row in cases:
        told = "undefined" if row.covered is None else percent(row.covered)
        kind = row.kind.removesuffix(", by slide")
        shares.setdefault((row.metric, kind), {})[row.case] = told if row.within else Markup(f"**{told}**")
    columns = coverage_head(coverage)[2:]
    return [[words(metric), kind, *(by.get(case, "") for case in columns)] for (metric, kind), by in shares.items()]


def coverage_sentence(coverage: Any) -> Any:
    cases = coverage.cases
    if isinstance(cases, Missing):
        return cases
    held, unclear = derived(sum(row.within is True for row in cases), cases), sum(row.undefined for row in cases)
    low, high = coverage.target
    return (
        f"In {coverage.draws:,} simulated data sets a case, {held} of {count_of(cases)} intervals hold the truth in "
        f"{percent(low, 0)} to {percent(high, 0)} of them, where {percent(coverage.level, 0)} is meant; {unclear:,} "
        "were undefined and do not count."
    )


def prior_rows(effect: Any) -> Rows:
    """What another share of tumour does to the champion's threshold, by Bayes' rule from valid."""
    priors = effect.priors
    if isinstance(priors, Missing):
        return priors
    return [
        [split, percent(told.prior), estimate(told.precision), estimate(told.f_beta), number(told.threshold, 4),
         number(told.on_test.f_beta), number(told.on_test.sensitivity)]
        for split in priors
        for told in [priors[split]]
    ]  # fmt: skip


def prior_sentence(effect: Any) -> Any:
    """How far the share of tumour differs between the splits."""
    priors = effect.priors
    if isinstance(priors, Missing):
        return priors
    low, high = (percent(end(priors[split].prior for split in priors)) for end in (min, max))
    return f"Between train, valid and test the share of tumour goes from {low} to {high}."


def run_rows(runs: Any) -> Rows:
    if isinstance(runs.runs, Missing):
        return runs.runs
    return [
        [run.name, run.run_id, run.kind, run.metrics, _tag(run, "seed"), _tag(run, "commit")[:8],
         "none, it failed" if run.status == "FAILED" else _tag(run, "weights_digest")[:12]]
        for run in runs.runs
    ]  # fmt: skip


def _tag(run: Any, name: str) -> Any:
    """A tag that not every kind of run has."""
    told = run.tags[name]
    return "none" if isinstance(told, Missing) else told


def registry_sentence(runs: Any) -> Any:
    registered = runs.registered
    if isinstance(registered, Missing):
        return registered
    return Markup(
        f"The champion stands in the model registry as {code(registered.name)}, version {registered.version}, under "
        f"the alias {code(registered.alias)}; {code(f'models:/{registered.name}@{registered.alias}')} loads it."
    )


def logging_sentence(runs: Any) -> Any:
    """What logging cost, measured by the run that did it."""
    if isinstance(runs.logged, Missing):
        return runs.logged
    logged = runs.logged
    if not logged["values"] or logged.runs == 0:
        return "All of them stood in the tracker already, so this run logged none and measured no speed."
    return (
        f"Logging {logged['values']:,} values of {logged.runs:,} runs took {number(logged.seconds, 1)} s, "
        f"{logged['values'] / logged.seconds:,.0f} values a second, after all trainings had ended; the database "
        f"holds {logged.database_bytes / 1e6:,.1f} MB."
    )


def reproduction_rows(found: Found) -> list[list[Any]]:
    """Verdicts of `snakemake reproduce` that stood there when the journal was written."""
    rows = []
    for name, verdict in found.items():
        if name.startswith("reproduction "):
            same = {True: "the same", False: "other"}[verdict.same_bits]
            rows.append([verdict.name, verdict.run_id, same, verdict.verdict])
    return rows


def stress_rows(stress: Any) -> Rows:
    """Each issue where it changes most decisions, and which of its steps a check catches."""
    issues = stress.issues
    if isinstance(issues, Missing):
        return issues
    rows: list[list[Any]] = []
    for issue in issues:
        points = [point for point in issue.points if point.status == "measured" and point.strength != 0]
        if not points:
            rows.append([issue.name, issue.points[-1].status, "", "", "", issue.guard])
            continue
        worst = max(points, key=lambda point: point.flipped if is_measured(point.flipped) else 1.0)
        caught = [point.label for point in points if point.guard.check is not None]
        slipped = [point.label for point in points if point.guard.check is None]
        verbs = (("Caught", caught), ("not caught", slipped))
        told = [f"{verb}: {', '.join(map(str, labels))}" for verb, labels in verbs if labels]
        notes = distinct(str(point.guard.note) for point in points if is_measured(point.guard.note))
        rows.append(
            [issue.name, worst.label, estimate(worst.roc_auc), estimate(worst.f_beta), percent(worst.flipped),
             ". ".join(["; ".join(told), *notes, str(issue.guard)])]
        )  # fmt: skip
    return rows


def results_answers(found: Found, variants: Sequence[str]) -> dict[str, Any]:
    """What the journal's template needs for part 1 of question 5."""
    seeds, baselines = found["seeds"], found["baselines"]
    f, always = seeds.baseline.test.f_beta, baselines.always_tumour.test
    many = is_measured(seeds.seeds) and len(seeds.seeds) > 1
    return {
        "always": always,
        "result_head": ["who", *(words(metric) for metric in METRICS)],
        "result_table": result_rows(seeds, baselines, variants, "test"),
        "valid_table": result_rows(seeds, baselines, variants, "valid"),
        "value_head": ["variant", "metric", *(f"seed {seed}" for seed in (seeds.seeds if is_measured(seeds) else ()))],
        "value_table": value_rows(seeds, variants, "test", ("roc_auc", "f_beta")),
        "difference_table": difference_rows(seeds, variants, "test") if many else [],
        "beats_always": beats_always(f.mean, always.f_beta, "The baseline variant", f.interval, "seeds"),
        "interval_table": interval_rows(found["evaluation"]),
        "coverage_sentence": coverage_sentence(found["coverage"]),
        "coverage_head": coverage_head(found["coverage"]),
        "coverage_table": coverage_rows(found["coverage"]),
        "prior_sentence": prior_sentence(found["prior_effect"]),
        "carried_table": prior_rows(found["prior_effect"]),
        "run_count": count_of(found["runs"].runs),
        "run_head": ["run", "id", "kind", "metric values", "seed", "commit", "digest of weights"],
        "run_table": run_rows(found["runs"]),
        "registry_sentence": registry_sentence(found["runs"]),
        "logging_sentence": logging_sentence(found["runs"]),
        "reproductions": reproduction_rows(found),
        "stress_table": stress_rows(found["stress"]),
    }
