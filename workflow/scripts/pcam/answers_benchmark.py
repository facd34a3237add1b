"""What the documents say of question 8: throughput, scaling, and what holds up a training step.

As in answers_data: evidence in, table rows or a sentence out, and what is missing stays missing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pcam.binding import count_of, derived, distinct, fixed
from pcam.bottleneck import AGREEMENT, PARTS, PLATEAU, amount
from pcam.documents import Missing, is_measured

Rows = list[list[Any]] | Missing
COURSE = {"thin_course": "CPU Only", "gpu_course": "GPU ([Type])"}
NOT_MEASURED = "not measured in this run"
# How pcam.bottleneck defines a plateau and agreement.
WITHIN, AGREEING = (fixed(f"{share:.0%}".replace("%", " %")) for share in (1 - PLATEAU, AGREEMENT))


def speed(value: Any) -> str:
    return "–" if value is None else amount(value)


def mebibytes(value: Any) -> str:
    return "–" if value is None else f"{value / 2**20:,.0f}"


def span(ratios: Sequence[float]) -> str:
    return " to ".join(distinct(f"{end(ratios):.0%}" for end in (min, max)))


def series_of(rows: Sequence[Any], *keys: str) -> list[tuple[Any, ...]]:
    """The distinct values of these keys, in order."""
    return list(dict.fromkeys(tuple(row[key] for key in keys) for row in rows))


def batch_one(throughput: Any, benchmarked: Sequence[str]) -> list[list[Any]]:
    """The template's rows, filled where the partition was measured, and a row for every other partition measured.

    Of each model the first precision; item 3's table has the others.
    """
    rows: list[list[Any]] = []
    for partition in dict.fromkeys([*COURSE, *benchmarked]):
        mine = [row for row in throughput if row.partition == partition and row.batch_size == 1]
        if not mine:
            gone = isinstance(throughput, Missing) and partition not in COURSE
            rows.append([partition, COURSE.get(partition, ""), throughput if gone else NOT_MEASURED, ""])
            continue
        told = []
        for model, precision in dict(reversed(series_of(mine, "model", "precision"))).items():
            own = {row.mode: row for row in mine if (row.model, row.precision) == (model, precision)}
            known = {mode: row.note or "–" if row.images_per_s is None else amount(row.images_per_s)
                     for mode, row in own.items()}  # fmt: skip
            told.append(f"{model}, {precision}: training {known['loop']}, inference {known['inference']}")
        told.reverse()
        rows.append([partition, mine[0].device, "; ".join(told), str(mine[0].job_id)])
    return rows


def scaling_rows(throughput: Any) -> Rows:
    """A row for each model, precision and batch size; one for a precision that the device lacks."""
    if isinstance(throughput, Missing):
        return throughput
    rows: list[list[Any]] = []
    for partition, model, precision, size in series_of(throughput, "partition", "model", "precision", "batch_size"):
        own = {
            row.mode: row
            for row in throughput
            if (row.partition, row.model, row.precision, row.batch_size) == (partition, model, precision, size)
        }
        loop = own["loop"]
        speeds = [speed(own[mode].images_per_s) if mode in own else "–" for mode in ("inference", "loading")]
        rows.append([partition, model, precision, "any" if size is None else size, speed(loop.images_per_s), *speeds,
                     mebibytes(loop.memory_bytes), loop.note or ""])  # fmt: skip
    return rows


def scaling_sentences(bottleneck: Any) -> Any:
    """Of each model and precision, what a larger batch gains, from where on no more, and what ended the measurement."""
    if isinstance(bottleneck.saturation, Missing):
        return bottleneck.saturation
    said = []
    for found in bottleneck.saturation:
        what = "training step" if found.mode == "loop" else "forward pass"
        where = f"{found.partition}, {found.model}, {found.precision}, {what}"
        if found.highest is None:
            said.append(f"{where}: not measured at any batch size ({found.limit.note}).")
            continue
        if found.gain == 1 and found.highest_at == found.largest:
            told = f"{where}: {amount(found.highest)} images/s at batch size {found.largest}, the only one measured"
            said.append(told + (f"; batch size {found.limit.batch_size}: {found.limit.note}." if found.limit else "."))
            continue
        text = f"{where}: highest at batch size {found.highest_at} with {amount(found.highest)} images/s"
        text += f", {found.gain:.1f} times the speed of the smallest batch; "
        text += (
            f"saturated (within {WITHIN} of it) from batch size {found.batch_size} on"
            if found.batch_size is not None
            else f"saturation not reached up to batch size {found.largest}"
            if found.highest_at == found.largest
            else f"at batch size {found.largest} no more than {amount(found.at_largest)}"
        )
        if found.limit is not None:
            text += f"; batch size {found.limit.batch_size}: {found.limit.note}"
        said.append(f"{text}.")
    return said


def agreement_sentence(bottleneck: Any) -> Any:
    """Whether the parts of a step sum to the step."""
    if isinstance(bottleneck.steps, Missing):
        return bottleneck.steps
    ratios = [step.parts_over_loop for step in bottleneck.steps if step.parts_over_loop is not None]
    if not ratios:
        return "No training step was measured, so nothing can be said of its parts."
    agreeing = derived(sum(step.agrees is True for step in bottleneck.steps), bottleneck.steps)
    text = (
        f"The parts sum to {span(ratios)} of the undisturbed loop; they agree with it within {AGREEING} on {agreeing} "
        f"of {count_of(ratios)} points. Each ratio is the median over passes side by side: on a busy machine it is not "
        "that of the medians in table and figure."
    )
    if agreeing < len(ratios):
        text += " Where they do not, other work on the machine, the marks or the passes' own spread may be why: those"
        text += " shares hold for the timed loop alone."
    return text


def interference_sentence(bottleneck: Any) -> Any:
    """What the parts cost by themselves, against the loop that holds them all."""
    if isinstance(bottleneck.steps, Missing):
        return bottleneck.steps
    said = []
    for partition in dict.fromkeys(step.partition for step in bottleneck.steps):
        ratios = [step.apart_over_loop for step in bottleneck.steps if step.partition == partition]
        if known := [ratio for ratio in ratios if ratio is not None]:
            said.append(f"On {partition} the parts apart sum to {span(known)} of the loop.")
    return " ".join(said) or "No point has its parts measured apart."


def precision_sentence(bottleneck: Any, throughput: Any) -> Any:
    if isinstance(throughput, Missing):
        return throughput
    measured = [precision for (precision,) in series_of([row for row in throughput if row.images_per_s], "precision")]
    absent = distinct(f"{found.precision} on {found.partition} ({found.note})" for found in bottleneck.absent)
    return f"Measured: {', '.join(measured) or 'none'}." + (f" Not measured: {'; '.join(absent)}." if absent else "")


def part_table(bottleneck: Any) -> Rows:
    """A row for each training step: its time, the share of each part, what it is bound by, and the check of the sum."""
    if isinstance(bottleneck.steps, Missing):
        return bottleneck.steps
    return [
        [
            step.partition, step.model, step.precision, step.batch_size, f"{1000 * step.step_s:,.3g}",
            *(f"{step.parts[part].share:.1%}" for part in PARTS), step.bottleneck,
            f"{step.parts_over_loop:.0%}{'' if step.agrees else ' (differs)'}",
        ]
        for step in bottleneck.steps
        if step.parts is not None
    ]  # fmt: skip


def verdict_sentences(bottleneck: Any) -> Any:
    """Of each partition and model what its steps are bound by, and the step of the smallest and the largest batch."""
    if isinstance(bottleneck.steps, Missing):
        return bottleneck.steps
    said = []
    for partition, model in series_of(bottleneck.steps, "partition", "model"):
        mine = [step for step in bottleneck.steps if (step.partition, step.model) == (partition, model)]
        known = [step for step in mine if step.parts is not None]
        if not known:
            said.append(mine[0].verdict)
            continue
        bounds = Counter(step.bottleneck for step in known).most_common()
        counted = ", ".join(f"{derived(n, *known)} {bound}-bound" for bound, n in bounds)
        first = [step for step in known if step.precision == known[0].precision]
        said.append(f"{partition}, {model}: of {count_of(known)} training steps measured {counted}.")
        said += dict.fromkeys([first[0].verdict, first[-1].verdict])
    return said


def machine_sentences(bottleneck: Any) -> Any:
    """What was measured on: with the memory that torch may use, which on a slice of a GPU is the slice's."""
    if isinstance(bottleneck.machines, Missing):
        return bottleneck.machines
    said = []
    for machine in bottleneck.machines:
        text = f"{machine.partition}: node {machine.node}, {machine.device}, {machine.memory_bytes / 2**30:.1f} GiB"
        if machine.kind == "cuda":
            text += " (a MIG slice)" if machine.mig else ""
            text += f", driver {machine.driver or 'unknown'}, CUDA {machine.cuda}, processor {machine.cpu}"
        text += f", torch {machine.torch}, {machine.threads} of {machine.cpus_allowed} CPUs, job {machine.job_id}"
        load = machine.load_average
        text += f"; load average {load.before:.1f} before and {load.after:.1f} after."
        if is_measured(machine.cpus_allowed) and max(load.before, load.after) > machine.cpus_allowed:
            text += " Other work ran beside: speeds are lower bounds."
        said.append(text)
    return said


def benchmark_answers(found: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    throughput, bottleneck = found["throughput"], found["bottleneck"]
    return {
        "benchmark_machines": machine_sentences(bottleneck),
        "precision_sentence": precision_sentence(bottleneck, throughput),
        "agreement_sentence": agreement_sentence(bottleneck),
        "interference_sentence": interference_sentence(bottleneck),
        "batch_one": batch_one(throughput, config["benchmark"]["partitions"]),
        "scaling_sentences": scaling_sentences(bottleneck),
        "scaling_table": scaling_rows(throughput),
        "verdict_sentences": verdict_sentences(bottleneck),
        "part_table": part_table(bottleneck),
    }
