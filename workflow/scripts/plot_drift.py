"""Draw how often the watch raises an alarm against the size of the set: sound sets, shifted pixels, other priors.

Reads: drift.json.
Writes: results/assets/drift.png and its caption.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from pcam.figures import COLOURS, INK, MARKERS, drawing, undefined_note, write_caption
from pcam.files import read_json
from pcam.stage import run_stage

WIDE = 10  # times the stated rate: an interval that reaches further says little
SOUND = {"test": "test", "unseen": "unseen half of valid"}


def draw_lines(axes: Axes, title: str, lines: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
    """A line with intervals for each named list of points; a size without a value is left out."""
    for index, (name, points) in enumerate(lines):
        known = [(at, point) for at, point in enumerate(points) if point["alarms"] is not None]
        aside = 0.06 * (index - (len(lines) - 1) / 2)
        colour = COLOURS[index % len(COLOURS)]
        for at, point in known:
            axes.plot([at + aside] * 2, [point["low"], point["high"]], color=colour, linewidth=1, alpha=0.6)
        axes.plot([at + aside for at, _ in known], [point["alarms"] for _, point in known], f"{MARKERS[index]}-",
                  color=colour, markersize=5, label=name)  # fmt: skip
    if all(point["alarms"] is None for _, points in lines for point in points):
        undefined_note(axes, f"not measured:\n{lines[0][1][0]['note']}")
    sizes = [point["size"] for point in lines[0][1]]
    axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
    axes.set(xlim=(-0.4, len(sizes) - 0.6), ylim=(-0.02, 1.02), xlabel="patches in a set", title=title)
    axes.grid(axis="x", visible=False)


def told_of(points: Sequence[Mapping[str, Any]]) -> str:
    """Shares of alarms at each size that has one, in words."""
    known = [f"{100 * p['alarms']:.1f} % at {p['size']:,}" for p in points if p["alarms"] is not None]
    return ", ".join(known) or "not measured"


def judged(points: Sequence[Mapping[str, Any]], rate: float) -> str:
    """What the intervals say of the stated rate."""
    known = [point for point in points if point["alarms"] is not None]
    if not known:
        return ""
    excess = [f"{point['size']:,}" for point in known if point["low"] > rate]
    wide = [f"{point['size']:,}" for point in known if point["high"] > WIDE * rate]
    vague = f" (too few sets to tell at {', '.join(wide)})" if wide else ""
    return f"; more than stated at {', '.join(excess)}" if excess else f"; the intervals hold the stated rate{vague}"


def told(measured: Mapping[str, Any]) -> list[str]:
    """What the caption states."""
    rate = measured["false_alarm_rate"]
    sentences = [f"The watch allows {100 * rate:g} % of sound sets an alarm."]
    for name, sound in measured["sound"].items():
        points = sound["points"]
        sentences.append(f"Sound sets, {SOUND[name]}: {told_of(points)}{judged(points, rate)}.")
    for shift in measured["shifts"]:
        found = [p for p in shift["points"] if p["alarms"] is not None]
        by_answers = (
            f"; by the answers {100 * found[-1]['answers']:.1f} %" if found and shift["kind"] == "prior" else ""
        )
        sentences.append(f"{shift['name'][0].upper()}{shift['name'][1:]}: {told_of(shift['points'])}{by_answers}.")
    held = dict.fromkeys(sound["note"] for sound in measured["sound"].values() if sound["note"])
    sentences += [f"What the limits hold for: {note}." for note in held]
    points = [point for listed in (*measured["sound"].values(), *measured["shifts"]) for point in listed["points"]]
    reasons = dict.fromkeys(point["note"] for point in points if point["alarms"] is None)
    return [*sentences, *(f"Where a point is missing: {reason}." for reason in reasons)]


def plot_drift(drift_path: str, png: str, caption: str, *, label: str) -> None:
    """Three panels. Raises: InputError when the file is missing or damaged."""
    measured = read_json(drift_path)
    lines = {
        kind: [(shift["name"], shift["points"]) for shift in measured["shifts"] if shift["kind"] == kind]
        for kind in ("pixels", "prior")
    }
    with drawing(png, label, 11.5, 4.3) as figure:
        sound, pixels, prior = figure.subplots(1, 3, sharey=True)
        draw_lines(sound, "sound sets", [(SOUND[name], s["points"]) for name, s in measured["sound"].items()])
        draw_lines(pixels, "pixels shifted", lines["pixels"])
        draw_lines(prior, "another share of tumour", lines["prior"])
        sound.set_ylabel("share of sets with an alarm")
        for axes in (sound, pixels, prior):
            axes.axhline(measured["false_alarm_rate"], color=INK, linewidth=1, linestyle="--", label="stated rate")
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=2, columnspacing=1, handlelength=1.6)
    of_valid = f"{100 * measured['prior']['valid']:.0f} % of validation is tumour."
    intervals = f"Vertical lines: {100 * measured['level']:g} % intervals by the number of disjoint sets."
    write_caption(caption, [*told(measured), of_valid, intervals], label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_drift(
            snakemake.input.drift,
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
