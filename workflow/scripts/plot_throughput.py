"""Draw images per second against batch size, a line per partition and mode.

Reads: results/benchmark/throughput.csv.
Writes: results/assets/throughput.png and its caption.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pcam.figures import COLOURS, MARKERS, drawing, log_axis, numbers, undefined_note, write_caption
from pcam.files import read_csv
from pcam.stage import run_stage

COLUMNS = ("partition", "device", "mode", "batch_size", "precision", "images_per_s")


def lines_of(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, str, str], tuple[np.ndarray, np.ndarray]]:
    """(partition, mode, precision) to batch sizes, ascending, and images per second."""
    lines = {}
    for key in dict.fromkeys((row["partition"], row["mode"], row["precision"]) for row in rows):
        mine = [row for row in rows if (row["partition"], row["mode"], row["precision"]) == key and row["images_per_s"]]
        sizes, speeds = numbers(mine, "batch_size"), numbers(mine, "images_per_s")
        order = np.argsort(sizes)
        lines[key] = sizes[order], speeds[order]
    return lines


def findings(rows: Sequence[Mapping[str, str]]) -> list[str]:
    sentences = []
    for (partition, mode, precision), (sizes, speeds) in lines_of(rows).items():
        if not len(speeds):
            sentences.append(f"{partition}, {mode}: nothing could be measured.")
            continue
        best = int(np.argmax(speeds))
        text = f"{partition}, {mode}, {precision}: {speeds[0]:,.0f} images/s at batch size {sizes[0]:.0f}"
        if len(speeds) > 1:
            text += f", highest {speeds[best]:,.0f} at {sizes[best]:.0f} ({speeds[best] / speeds[0]:.1f} times)"
        sentences.append(f"{text}.")
    return sentences or ["Nothing was measured."]


def plot_throughput(throughput_path: str, png: str, caption: str, *, label: str) -> None:
    """Draw the lines. Raises: InputError when the table is missing or lacks a column."""
    rows = read_csv(throughput_path, COLUMNS)
    lines = lines_of(rows)
    partitions = list(dict.fromkeys(key[0] for key in lines))
    modes = list(dict.fromkeys(key[1:] for key in lines))
    with drawing(png, label, 9, 4.2) as figure:
        axes = figure.subplots()
        if not lines:
            undefined_note(axes, "nothing was measured")
        for (partition, mode, precision), (sizes, speeds) in lines.items():
            style = {
                "color": COLOURS[modes.index((mode, precision)) % len(COLOURS)],
                "marker": MARKERS[partitions.index(partition) % len(MARKERS)],
                "linestyle": ("-", "--", ":", "-.")[partitions.index(partition) % 4],
            }
            axes.plot(sizes, speeds, label=f"{partition}, {mode}, {precision}", **style)
        if lines:
            ticks = sorted({size for sizes, _ in lines.values() for size in sizes})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
            axes.minorticks_off()
            log_axis(axes, "y", np.concatenate([speeds for _, speeds in lines.values()]))
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes.set(title="Throughput", xlabel="batch size", ylabel="images per second")
    write_caption(caption, findings(rows), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_throughput(
            snakemake.input.throughput, snakemake.output.png, snakemake.output.caption, label=snakemake.params.label
        )
