"""Draw images per second against batch size, and the parts of a training step at each batch size.

Reads: results/benchmark/throughput.csv, results/benchmark/bottleneck.json.
Writes: results/assets/throughput.png and its caption.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from pcam.bottleneck import PARTS, amount
from pcam.figures import COLOURS, GREY, INK, drawing, log_axis, numbers, undefined_note, write_caption
from pcam.files import read_csv, read_json
from pcam.stage import run_stage

COLUMNS = ("partition", "model", "mode", "batch_size", "precision", "images_per_s", "low", "high")
PART_COLOURS = dict(zip(PARTS, (COLOURS[1], GREY, COLOURS[5], COLOURS[0], COLOURS[2]), strict=True))
MODES = {"loop": ("-", "o", "training step"), "inference": ("--", "s", "forward pass alone"),
         "loading": (":", "^", "loading alone")}  # fmt: skip

Row = Mapping[str, str]


def draw_speeds(axes: Axes, rows: Sequence[Row], precisions: Sequence[str]) -> None:
    """A line per precision and mode, with the range of the passes; loading has one precision, its bytes."""
    drawn = [row for row in rows if row["images_per_s"]]
    if not drawn:
        undefined_note(axes, "nothing could be measured")
        return
    for mode, (line, marker, _) in MODES.items():
        for precision in precisions[: 1 if mode == "loading" else None]:
            mine = [row for row in drawn if (row["mode"], row["precision"]) == (mode, precision)]
            colour = GREY if mode == "loading" else COLOURS[precisions.index(precision)]
            sizes = numbers(mine, "batch_size")
            axes.fill_between(sizes, numbers(mine, "low"), numbers(mine, "high"), color=colour, alpha=0.15, linewidth=0)
            axes.plot(sizes, numbers(mine, "images_per_s"), line, marker=marker, color=colour, markersize=4.5)
    log_axis(axes, "y", numbers(drawn, "images_per_s"))


def draw_parts(axes: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    """Shares of a step's time, stacked, a bar per batch size with the time of a step above it; or why there is none."""
    for x, step in enumerate(steps):
        if step["parts"] is None:
            why = step["verdict"].partition("measured: ")[2].partition(":")[0].partition(" (")[0].rstrip(".")
            axes.text(x, 0.03, why, rotation=90, ha="center", va="bottom", color=GREY, fontsize=8)
            continue
        foot = 0.0
        for part in PARTS:
            axes.bar(x, step["parts"][part]["share"], 0.72, bottom=foot, color=PART_COLOURS[part])
            foot += step["parts"][part]["share"]
        seconds = sum(told["loop_s"] for told in step["parts"].values())
        text = f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
        text += "" if step["agrees"] else "*"
        axes.annotate(text, (x, 1), (0, 3), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xticks(range(len(steps)), [str(step["batch_size"]) for step in steps])
    axes.set(xlim=(-0.6, len(steps) - 0.4), ylim=(0, 1.09))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(visible=False, axis="x")


def legends(speed: Axes, part: Axes, precisions: Sequence[str]) -> None:
    """What lines and bars mean, beside the last panel of each row."""
    for mode, (line, marker, words) in MODES.items():
        speed.plot([], [], line, marker=marker, color=GREY if mode == "loading" else INK, label=words)
    for i, precision in enumerate(precisions):
        speed.plot([], [], linewidth=5, color=COLOURS[i], label=precision)
    handles = [Patch(color=PART_COLOURS[name], label=name) for name in reversed(PARTS)]
    speed.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    part.legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))


def findings(bottleneck: Mapping[str, Any]) -> list[str]:
    """Of each model the precision it trains fastest in, where that stops gaining, and what takes most of a step."""
    said = []
    loops = [found for found in bottleneck["saturation"] if found["mode"] == "loop"]
    for partition, model in dict.fromkeys((found["partition"], found["model"]) for found in loops):
        mine = [found for found in loops if (found["partition"], found["model"]) == (partition, model)]
        known = [found for found in mine if found["highest"] is not None]
        if not known:
            said.append(f"{model} on {partition}: no training step could be measured.")
            continue
        best = max(known, key=lambda found: found["highest"])
        text = f"{model} on {partition}: training reaches {amount(best['highest'])} images/s in {best['precision']}"
        if best is not known[0]:
            text += f", {best['highest'] / known[0]['highest']:.2g} times as many as in {known[0]['precision']}"
        if best["batch_size"]:
            text += f"; from batch size {best['batch_size']} on it is within 5 % of that"
        elif best["highest_at"] == best["largest"]:
            text += f"; it is highest at the largest batch size measured, {best['largest']}"
        else:
            text += f"; it is highest at batch size {best['highest_at']}, and falls at larger ones"
        step = next(s for s in bottleneck["steps"] if all(s[k] == best[k] for k in ("partition", "model", "precision"))
                    and s["batch_size"] == best["highest_at"])  # fmt: skip
        if step["parts"]:
            share = step["parts"][step["largest_part"]]["share"]
            text += f"; there {step['largest_part']} takes {share:.0%} of a step"
        said.append(f"{text}.")
    if bottleneck["disagreeing"]:
        n = sum(step["agrees"] is not None for step in bottleneck["steps"])
        said.append(
            f"*: the parts sum to 10 % more or less than the loop, as on {bottleneck['disagreeing']} of {n} points."
        )
    if any("skipped" in step["verdict"] for step in bottleneck["steps"]):
        said.append("Skipped: three passes would take longer than benchmark.seconds.")
    return said or ["Nothing was measured."]


def plot_throughput(throughput_path: str, bottleneck_path: str, png: str, caption: str, *, label: str) -> None:
    """A column of two panels for each partition and model. Raises: InputError when a file is missing or damaged."""
    rows, bottleneck = read_csv(throughput_path, COLUMNS), read_json(bottleneck_path)
    panels = list(dict.fromkeys((row["partition"], row["model"]) for row in rows))
    precisions = list(dict.fromkeys(row["precision"] for row in rows if row["images_per_s"]))
    sizes = sorted({int(row["batch_size"]) for row in rows if row["batch_size"]})
    with drawing(png, label, 2.6 + 3.6 * len(panels), 7.4) as figure:
        grid = figure.subplots(2, len(panels), squeeze=False)
        for column, (partition, model) in enumerate(panels):
            speed, part = grid[:, column]
            draw_speeds(
                speed, [row for row in rows if (row["partition"], row["model"]) == (partition, model)], precisions
            )
            speed.set_xscale("log", base=2)
            speed.set(title=f"{model} on {partition}", xlabel="batch size")
            speed.set_xticks(sizes, [str(size) for size in sizes])
            speed.minorticks_off()
            steps = [step for step in bottleneck["steps"] if (step["partition"], step["model"]) == (partition, model)]
            if not steps:
                undefined_note(part, "no precision of the config could be measured here")
                continue
            first = steps[0]["precision"]
            draw_parts(part, [step for step in steps if step["precision"] == first])
            part.set(title=f"Parts of a training step, {first}", xlabel="batch size")
        grid[0, 0].set_ylabel("images per second")
        grid[1, 0].set_ylabel("share of the step's time")
        legends(*grid[:, -1], precisions)
    write_caption(caption, findings(bottleneck), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_throughput(
            snakemake.input.throughput,
            snakemake.input.bottleneck,
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
