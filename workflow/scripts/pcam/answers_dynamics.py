"""What the journal says of question 4: tables and sentences that follow from results/dynamics.

Every function takes the evidence by name (see documents.open_evidence); where it is missing it gives the Missing, which
renders as such.
"""

from collections.abc import Mapping, Sequence
from math import comb
from statistics import median
from typing import Any

from pcam.binding import count_of, derived, distinct
from pcam.documents import PERCENT_95, Missing, counted, interval, is_measured, number, percent, words
from pcam.schedules import schedule_variants

Found = Mapping[str, Any]
Rows = list[list[Any]] | Missing

NOT_JUDGED = "not judged"
STEPS_LISTED = 12
BATCHES_LISTED = 3
RECURRING_LISTED = 5
CHANCE = 0.01  # that two groups of equal pairs would stand apart as far as is asked for


def span(values: Sequence[float], digits: int = 2) -> str:
    """Such as "0.12 to 0.34"; one number where both ends read the same."""
    return " to ".join(distinct(str(number(end, digits)) for end in (min(values), max(values))))


def median_of(values: Sequence[float]) -> Any:
    return derived(median(values), *values)


def judged(value: Any) -> Any:
    return NOT_JUDGED if value is None else value


def gradient_rows(spikes: Any) -> Rows:
    if isinstance(spikes, Missing):
        return spikes
    return [
        [
            run.variant, run.seed, run.steps, number(run.median), number(run.largest.grad_norm), run.largest.step,
            run.largest.epoch, run.spikes, judged(number(run.largest_z, 1)), judged(number(run.limit, 1)), run.below,
        ]
        for run in spikes.runs
    ]  # fmt: skip


def granularity_rows(spikes: Any) -> Rows:
    if isinstance(spikes, Missing):
        return spikes
    return [
        [
            run.variant, run.seed, number(run.spread_of_steps, 1), number(run.spread_of_medians, 1),
            number(run.largest.grad_norm), number(run.largest.epoch_median), number(run.largest.ratio, 1), run.spikes,
            judged(run.spikes_in_epoch_medians), judged(run.spikes_in_epoch_largest),
        ]
        for run in spikes.runs
    ]  # fmt: skip


def layer_rows(spikes: Any) -> Rows:
    """Every layer of every variant, from the lowest to the highest of its seeds."""
    if isinstance(spikes, Missing):
        return spikes
    rows = []
    for variant in dict.fromkeys(run.variant for run in spikes.runs):
        runs = [run for run in spikes.runs if run.variant == variant]
        for layer in runs[0].layers:
            told = [run.layers[layer] for run in runs]
            ends = [span([getattr(one, name) for one in told], 3) for name in ("first_epoch", "last_epoch")]
            rows.append([variant, layer, *ends, percent(sum(one.share for one in told) / len(told), 0)])
    return rows


def layers_sentence(spikes: Any) -> Any:
    """How far the layers of each variant lie apart in the last epoch."""
    if isinstance(spikes, Missing):
        return spikes
    told = []
    for variant in dict.fromkeys(run.variant for run in spikes.runs):
        runs = [run for run in spikes.runs if run.variant == variant]
        norms = {layer: median_of([run.layers[layer].last_epoch for run in runs]) for layer in runs[0].layers}
        least, most = (choose(norms, key=lambda layer: norms[layer]) for choose in (min, max))
        apart = f"{norms[most] / norms[least]:.1f} times" if norms[least] else "infinitely many times"
        told.append(f"{variant}, {most} {apart} that of {least}")
    return f"In the last epoch the largest median norm of a layer against the smallest: {'; '.join(told)}."


def spike_sentence(spikes: Any) -> Any:
    """How many spikes there are, and how many chance would give."""
    if isinstance(spikes, Missing):
        return spikes
    runs = list(spikes.runs)
    if not any(run.judged for run in runs):
        return f"No step of {counted(count_of(spikes.runs), 'run')} has the neighbours it takes: nothing was judged."
    n, in_all = sum(run.spikes for run in runs), counted(count_of(spikes.runs), "run")
    holding = derived(sum(run.spikes > 0 for run in runs), *(run.spikes for run in runs))
    chance = sum(run.false_alarms.rate for run in runs)
    found = f"{counted(n, 'spike')} in {holding} of {in_all}."
    if not n:
        found = f"No step of {in_all} is a spike; listed is what stands out most in each."
    return (
        f"{found} Were the norms lognormal and no spike among them, {chance:.2f} of these runs would be expected to "
        f"show one all the same (simulated: at least {min(run.false_alarms.runs for run in runs):,} runs of the same "
        "length for each); norms with heavier tails show more. Steps as far "
        f"below their neighbourhood as a spike lies above: {sum(run.below for run in runs):,}."
    )


def ranked_steps(steps: Any) -> list[Any]:
    return sorted(steps, key=lambda step: (-step.above_limit, -step.z))


def spike_rows(steps: Any) -> Rows:
    """The listed steps, the most outstanding first."""
    if isinstance(steps, Missing):
        return steps
    return [
        [
            step.variant, step.seed, step.step, step.epoch,
            "spike" if step.above_limit else "below the limit", number(step.grad_norm), number(step.ratio, 1),
            number(step.z, 1), judged(number(step.loss_z, 1)), f"{step.layer} (× {number(step.layer_ratio, 1)})",
            f"{step.learning_rate:.2g}", f"{step.hardest_row} (label {step.hardest_label}, "
            f"loss {number(step.hardest_loss, 2)})",
        ]
        for step in ranked_steps(steps)[:STEPS_LISTED]
    ]  # fmt: skip


def batch_lines(steps: Any) -> list[str]:
    """Which rows of the training file stood in the batches of the first of these steps."""
    if isinstance(steps, Missing):
        return []
    ranked = ranked_steps(steps)
    chosen = [step for step in ranked if step.above_limit][:BATCHES_LISTED] or ranked[:1]
    return [f"{step.variant} seed {step.seed}, step {step.step}: train rows {step.rows}." for step in chosen]


def cause_sentence(spikes: Any) -> Any:
    """What goes with a large norm: the loss of the batch, the batch itself, patches that come up again."""
    if isinstance(spikes, Missing):
        return spikes
    told = []
    for name, what in (
        (
            "correlation_with_loss",
            "a step's norm and its batch's loss, each against its own neighbourhood, correlate at",
        ),
        ("correlation_with_next", "the deviations of a step and of the next at"),
    ):
        if known := [run[name] for run in spikes.runs if is_measured(run[name])]:
            told.append(f"{what} {span(known)}")
    sentences = [f"Over all steps {', '.join(told)} (lowest to highest run)."] if told else []
    same, other = (
        [pair.correlation for pair in spikes.batches[kind] if is_measured(pair.correlation)]
        for kind in ("same", "other")
    )
    if same and other:
        # Were all pairs alike, every ranking would be as likely: with few of them noise alone sets groups apart.
        apart = min(same) > max(other) and 1 / comb(len(same) + len(other), len(same)) < CHANCE
        batch = "decide part of" if apart else "are not shown to decide"
        sentences.append(
            "Runs of one seed and batch size see the same batches in the same order: the deviations of two such "
            f"runs correlate at {span(same)} ({counted(count_of(same), 'pair')}), those of runs with other batches at "
            f"{span(other)} ({counted(count_of(other), 'pair')}); so the patches of a batch {batch} what looks "
            "like noise."
        )
    often = list(spikes.recurring)
    again = "; ".join(f"row {one.row}, of {count_of(one.steps)}" for one in often[:RECURRING_LISTED])
    sentences.append(
        f"Patches that are the hardest of several listed steps: {again}."
        if often
        else "No patch is the hardest of two of the listed steps."
    )
    return " ".join(sentences)


def granularity_sentence(spikes: Any) -> Any:
    """What an epoch's median hides, and what its largest keeps."""
    if isinstance(spikes, Missing):
        return spikes
    runs = list(spikes.runs)
    n = sum(run.spikes for run in runs)
    steps, medians = (
        [run[f"spread_of_{what}"] for run in runs if is_measured(run[f"spread_of_{what}"])]
        for what in ("steps", "medians")
    )
    spread = (
        f"Within a run the norms of single steps span a factor of {span(steps, 0)}, the medians of its epochs one of "
        f"{span(medians, 1)} (lowest to highest run). "
        if steps and medians
        else ""
    )
    seen = {
        name: [run[f"spikes_in_epoch_{name}"] for run in runs if run[f"spikes_in_epoch_{name}"] is not None]
        for name in ("medians", "largest")
    }
    if not seen["medians"]:
        return f"{spread}No run has epochs enough for the test of spikes to be tried on them."
    few, more = count_of(seen["medians"]), count_of(seen["largest"])
    return (
        f"{spread}The test that finds {counted(n, 'spike')} among the steps finds {sum(seen['medians'])} when an epoch "
        f"keeps its median alone, and {sum(seen['largest'])} when it keeps its largest ({few} and {more} of "
        f"{counted(count_of(spikes.runs), 'run')} can be judged, each on the few epochs that have enough neighbours; "
        "to find none there shows nothing). Neither says which step it was, and without the step there is no batch to "
        "look at."
    )


def schedule_rows(schedules: Any) -> Rows:
    if isinstance(schedules, Missing):
        return schedules
    return [
        [variant, told.schedule, mean_spread(told.roc_auc), mean_spread(told.loss)]
        for variant in schedules.variants
        for told in [schedules.variants[variant]]
    ]


def mean_spread(summary: Any) -> str:
    if summary.sd is None:
        return f"{number(summary.mean, 4)} (n = {summary.n}: no sd)"
    return f"{number(summary.mean, 4)} ± {number(summary.sd, 4)} (n = {summary.n})"


def comparison_rows(schedules: Any) -> Rows:
    if isinstance(schedules, Missing):
        return schedules
    base = schedules.variants.baseline.schedule
    return [
        [
            words(one.metric), f"{base} less {one.schedule}",
            ", ".join(f"{difference:+.4f}" for difference in one.differences), f"{one.mean:+.4f}",
            "undefined" if one.interval is None else interval(one.interval, 4), one.verdict,
        ]
        for one in schedules.comparisons
    ]  # fmt: skip


VERDICTS = {
    "better": "ranks valid better than {other}: the measurement supports the choice",
    "worse": "ranks valid worse than {other}: the measurement speaks against the choice",
    "not told apart": "is not told apart from {other} on valid: the measurement does not decide the choice",
    "undefined": "and {other} differ on valid by a figure without an interval: the measurement decides nothing",
}


def schedule_sentences(schedules: Any) -> list[Any]:
    """What each comparison of ROC-AUC says of the choice of schedule."""
    if isinstance(schedules, Missing):
        return [schedules]
    base = schedules.variants.baseline.schedule
    told = []
    for one in schedules.comparisons:
        if one.metric == "roc_auc":
            size = f"{one.mean:+.4f}, n = {one.n}, {PERCENT_95} interval "
            size += "undefined" if one.interval is None else interval(one.interval, 4)
            told.append(f"{base} {VERDICTS[one.verdict].format(other=one.schedule)} (ROC-AUC {size}).")
    return told


def dynamics_answers(found: Found, config: Mapping[str, Any], runs: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """All that the journal's template needs for question 4."""
    spikes, steps, schedules = found["spikes"], found["spike_steps"], found["schedules"]
    recipes = {name: {**config["train"], **change} for name, change in config["variants"].items()}
    return {
        "variants": list(dict.fromkeys(variant for variant, _ in runs)),
        "gradients": gradient_rows(spikes),
        "granularity": granularity_rows(spikes),
        "granularity_sentence": granularity_sentence(spikes),
        "layer_table": layer_rows(spikes),
        "layers_sentence": layers_sentence(spikes),
        "spike_sentence": spike_sentence(spikes),
        "spike_table": spike_rows(steps),
        "spike_batches": batch_lines(steps),
        "cause_sentence": cause_sentence(spikes),
        "schedule_variants": schedule_variants(recipes),
        "schedule_table": schedule_rows(schedules),
        "comparison_table": comparison_rows(schedules),
        "schedule_sentences": schedule_sentences(schedules),
    }
