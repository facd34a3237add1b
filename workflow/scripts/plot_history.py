"""Draw a repository's history: commits over time by contributor, and the graph of the newest commits with conflicts.

Reads: results/collaboration.json.
Writes: results/assets/history.png and its caption.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pcam.figures import COLOURS, FAINT, GREY, INK, drawing, undefined_note, write_caption
from pcam.files import InputError, read_json
from pcam.stage import run_stage

NAMED = len(COLOURS) - 1  # contributors with a colour of their own; the last colour is for all others
OTHERS = "others"
LANE_IN = 0.35
LANES = 12  # drawn; a wider history is cut, said in the caption

Commit = Mapping[str, Any]


def colours_of(history: Mapping[str, Any]) -> dict[str, str]:
    """A colour for each contributor, those of the most commits first."""
    names = [person["name"] for person in history["contributors"]]
    return {name: COLOURS[min(i, NAMED)] for i, name in enumerate(names)}


def lanes_of(graph: Sequence[Commit]) -> list[int]:
    """The lane of each commit, newest first: a first parent goes on in its child's lane, others take a free one."""
    waiting: list[str | None] = []  # by lane, the commit that comes next in it
    lanes = []
    for commit in graph:
        if commit["commit"] not in waiting:
            waiting.append(commit["commit"])
        lane = waiting.index(commit["commit"])
        waiting = [None if name == commit["commit"] else name for name in waiting]
        for i, parent in enumerate(commit["parents"]):
            if parent not in waiting or i == 0:
                free = lane if i == 0 else waiting.index(None) if None in waiting else len(waiting)
                waiting[free : free + 1] = [parent]
        lanes.append(lane)
    return lanes


def draw_activity(axes: Axes, history: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """Cumulative commits of each contributor, by the hour they were authored."""
    for colour in dict.fromkeys(colours.values()):
        hours = [hour for hour in history["hours"] if colours[hour["contributor"]] == colour]
        times = [datetime.strptime(hour["hour"], "%Y-%m-%d %H:%M").replace(tzinfo=UTC) for hour in hours]
        totals = list(accumulate(hour["commits"] for hour in hours))
        axes.step(times, totals, where="post", color=colour, marker="o", markersize=3)  # type: ignore[arg-type]
    locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("commits so far")
    axes.set_title("Commits by contributor (UTC)")


def draw_graph(axes: Axes, graph: Sequence[Commit], colours: Mapping[str, str], conflicts: set[str]) -> None:
    """Newest commit right; a line to each parent, a frame around merges that conflicted."""
    lanes, last = lanes_of(graph), len(graph) - 1
    places = {commit["commit"]: (last - i, lanes[i]) for i, commit in enumerate(graph)}
    for commit in graph:
        x, y = places[commit["commit"]]
        for parent in commit["parents"]:
            if parent in places:
                to_x, to_y = places[parent]
                # A branch leaves its parent at once and runs in its own lane; a merge comes in at the end.
                bend = to_x + 1 if y >= to_y else x - 1
                axes.plot([to_x, bend, x], [to_y, max(y, to_y), y], color=GREY, linewidth=1.1, zorder=1)
    for commit in graph:
        x, y = places[commit["commit"]]
        merge, conflict = len(commit["parents"]) > 1, commit["commit"] in conflicts
        axes.plot(x, y, marker="D" if merge else "o", markersize=5.5, color=colours[commit["contributor"]], zorder=2)
        if conflict:
            axes.plot(x, y, marker="s", markersize=12, markerfacecolor="none", color=INK, zorder=2)
    axes.set_ylim(min(max(lanes), LANES) + 0.7, -0.7)
    axes.set_xlim(-1, last + 1)
    axes.set_yticks([])
    axes.set_xticks([0, last] if last else [0], ["oldest shown", "newest"][-(last > 0) - 1 :], color=GREY)
    axes.grid(visible=False)
    axes.spines["bottom"].set_color(FAINT)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"Graph of the newest {len(graph)} commits" if last else "Graph")


def add_legend(figure: Figure, colours: Mapping[str, str], merges: Mapping[str, Any]) -> None:
    names = list(colours)[:NAMED] + ([OTHERS] if len(colours) > NAMED else [])
    handles = [Line2D([], [], color=COLOURS[i], marker="o", linewidth=0) for i in range(len(names))]
    marks = [("merge", "D", GREY, 5.5)] * (merges["found"] > 0)
    marks += [("merge with conflicts", "s", "none", 10)] * (merges["conflicting"] > 0)
    for _, mark, face, size in marks:
        line = Line2D([], [], color=GREY, marker=mark, linewidth=0, markerfacecolor=face, markersize=size)
        handles.append(line)
    legend = figure.legend(handles, [*names, *(mark[0] for mark in marks)], loc="outside upper left", ncols=4)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may hold a dollar sign


def findings(history: Mapping[str, Any], note: str | None) -> list[str]:
    merges, main, shown = history["merges"], history["main_line"], len(history["graph"])
    told = [
        f"Commits {history['commits']:,}, contributors {history['people']:,}, from {history['first']} to "
        f"{history['last']} UTC, counted by author; merges looked at {merges['looked_at']:,}, with conflicts "
        f"{merges['conflicting']:,}. On the main line: merges {main['merges']:,}, squashed pull requests "
        f"{main['squashed']:,}, direct commits {main['direct']:,}.",
        f"The graph shows the newest {shown} commits; its lowest lanes are cut beyond {LANES}."
        if max(lanes_of(history["graph"])) > LANES
        else f"The graph shows the newest {shown} commits.",
    ]
    return [*told, f"Mind that {note}."] if note else told


def plot_history(collaboration_path: str, png: str, caption: str, *, label: str) -> None:
    """Draw both panels, or why there is no history. Raises: InputError when the file is missing or of another form."""
    told = read_json(collaboration_path)
    try:
        history, note = told["history"], told["note"]
        sentences = findings(history, note) if history else [f"No history to draw: {note}."]
        lanes = min(max(lanes_of(history["graph"])), LANES) if history else 0
        graph_in = 1 + LANE_IN * lanes
        with drawing(png, label, 11, 3.9 + graph_in if history else 2) as figure:
            if history:
                colours = colours_of(history)
                conflicts = {merge["commit"] for merge in history["merges"]["newest"] if merge["conflicts"]}
                upper, lower = figure.subplots(2, 1, height_ratios=[3, graph_in])
                draw_activity(upper, history, colours)
                draw_graph(lower, history["graph"], colours, conflicts)
                add_legend(figure, colours, history["merges"])
            else:
                axes = figure.subplots()
                axes.set_axis_off()
                undefined_note(axes, sentences[0])
    except (KeyError, TypeError) as error:
        raise InputError(f"{collaboration_path}: no description of a history ({error}); rebuild it") from None
    write_caption(caption, sentences, label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_history(snakemake.input[0], snakemake.output.png, snakemake.output.caption, label=snakemake.params.label)
