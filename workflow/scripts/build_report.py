"""Build the page to read: the verdicts of this run, then the journal's own answers, each number with its evidence.

Reads: results/journal.md and its pictures, results/evidence.json, and of the live plots the result files they draw.
Writes: results/report.html, self-contained.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vl_convert
from markupsafe import Markup

from pcam.binding import Number, clean_tree
from pcam.evidence import read_evidence
from pcam.files import InputError, file_digest, write_text
from pcam.page import bound, embedded_json, inline_script, page_of_journal, read_picture, sealed
from pcam.plots import Plot, slices_plot, threshold_plot
from pcam.plots_tuning import tuning_plot
from pcam.rendering import render_html
from pcam.stage import run_stage

HERO = "assets/evaluation.png"
STATES = {"good": "✓ good", "bad": "✗ look here", "open": "○ to judge", "missing": "missing"}


def journal_of(path: str, evidence: Mapping[str, Any]) -> tuple[str, list[Number]]:
    """The journal and its bound numbers. Raises: InputError when it is missing or not the one that was bound."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; write_journal makes it")
    told = evidence["documents"].get(path)
    if told is None or told["sha256"] != file_digest(path):
        raise InputError(f"{path}: is not the journal that evidence.json tells of; run write_journal again")
    return Path(path).read_text(), told["numbers"]


def verdict_cards(verdicts: Sequence[Mapping[str, Any]], numbers: list[Number]) -> list[dict[str, Any]]:
    """The first screen's statements as HTML; their numbers are added to `numbers`.

    Raises: InputError when a verdict's state is none of STATES.
    """
    cards = []
    for verdict in verdicts:
        if verdict["state"] not in STATES:
            raise InputError(f"evidence.json: a verdict's state is {verdict['state']!r}; run write_journal again")
        card = {"title": verdict["title"], "at": verdict["at"], "state": verdict["state"]}
        for part in ("head", "text"):
            card[part] = bound(verdict[part]["text"], verdict[part]["numbers"], len(numbers))
            numbers += verdict[part]["numbers"]
        cards.append(card)
    return cards


def build_report(
    template_path: str,
    journal_path: str,
    evidence_path: str,
    pictures: Sequence[str],
    plots: Mapping[str, tuple[Plot, Sequence[tuple[str, str]]]],
    report_path: str,
    *,
    data_label: str,
    provenance: Mapping[str, object],
) -> None:
    """`plots`: path of a picture in the journal to the live plot below it and (file, rule) of each file it draws.

    Raises: InputError when the journal or its evidence is missing or of another run, or it shows a picture that does
    not exist.
    """
    folder, beside = Path(template_path).parent, Path(journal_path).parent
    evidence = read_evidence(evidence_path)
    text, numbers = journal_of(journal_path, evidence)
    read = [path for _, sources in plots.values() for path, _ in sources]
    plots = {picture: (clean_tree(plot), sources) for picture, (plot, sources) in plots.items()}
    embedded = {Path(path).relative_to(beside).as_posix(): read_picture(path) for path in pictures}
    drawn = {
        path: Markup(render_html(folder / "plot.html.j2", {"name": f"plot-{i}", "plot": plot, "sources": sources}))
        for i, (path, (plot, sources)) in enumerate(plots.items())
    }
    page = page_of_journal(text, embedded, numbers, drawn, HERO)
    bound_numbers = list(numbers)
    script, script_source = inline_script((folder / "report.js").read_text())
    library, library_source = inline_script(vl_convert.javascript_bundle() if plots else "")
    html = render_html(
        template_path,
        {
            "page": page,
            "data_label": data_label,
            "verdicts": verdict_cards(evidence["verdicts"], bound_numbers),
            "states": STATES,
            "style": Markup((folder / "report.css").read_text()),
            "script": script,
            "library": library,
            "scripts": Markup(f"{script_source} {library_source}"),
            "data": embedded_json(
                {
                    "numbers": [number["cites"] for number in bound_numbers],
                    "cited": evidence["cited"],
                    "sources": evidence["sources"],
                    "files": {
                        path: file_digest(path) for path in sorted({journal_path, evidence_path, *pictures, *read})
                    },
                    "plots": {f"plot-{i}": plot for i, (plot, _) in enumerate(plots.values())},
                }
            ),
            "provenance": provenance,
        },
    )
    write_text(report_path, sealed(html))


def live_plots(
    inputs: Any, rules: Mapping[str, str], space: Mapping[str, Any], metric: str
) -> dict[str, tuple[Plot, list[tuple[str, str]]]]:
    """The plots that this run can draw, by the picture they stand below."""
    predictions = {"valid": inputs.valid, "test": inputs.test}
    made = {
        HERO: (threshold_plot(predictions, inputs.evaluation), [*predictions.values(), inputs.evaluation]),
        "assets/search-parallel.png": (tuning_plot(inputs.trials, space, metric), [inputs.trials]),
        "assets/slices.png": (slices_plot(inputs.slices), [inputs.slices]),
    }
    return {
        picture: (plot, [(path, rules[path]) for path in paths])
        for picture, (plot, paths) in made.items()
        if plot is not None
    }


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        build_report(
            snakemake.params.template,
            snakemake.input.journal,
            snakemake.input.evidence,
            list(snakemake.input.pictures),
            live_plots(snakemake.input, snakemake.params.rules, snakemake.params.space, snakemake.params.metric),
            snakemake.output[0],
            data_label=snakemake.params.label,
            provenance=provenance,
        )
