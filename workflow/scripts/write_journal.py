"""Write the course's journal: its headings word for word, below each an answer that follows from the results.

Reads: the result files named in the rule, the sources of the functions it cites.
Writes: results/journal.md.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pcam.answers_audit import audit_answers
from pcam.answers_data import data_answers
from pcam.answers_dynamics import dynamics_answers
from pcam.answers_model import model_answers
from pcam.answers_reproducibility import reproducibility_answers
from pcam.documents import (
    FILL_IN,
    Missing,
    Node,
    Source,
    code,
    commit_of,
    cut_snippets,
    in_markdown,
    merge_answers,
    number,
    open_evidence,
    render_markdown,
)
from pcam.files import write_text
from pcam.stage import run_stage

Found = Mapping[str, Any]


def commit_at(name: str, sources: Mapping[str, Source], found: Found) -> str:
    """The commit a result was made at: as the file says, or, for a table, the JSON that its rule wrote beside it."""
    place = sources[name]
    for other, source in sources.items():
        beside = source.rule == place.rule and Path(source.path).parent == Path(place.path).parent
        if beside and isinstance(found.get(other), Node) and "provenance" in found[other]:
            return commit_of(found[other].provenance)
    return "not recorded with this file"


def evidence_line(sources: Mapping[str, Source], found: Found) -> Callable[..., Markup]:
    """The function a template calls to name where an answer comes from."""

    def evidence(*names: str) -> Markup:
        parts = []
        for name in names:
            at = in_markdown(commit_at(name, sources, found))
            place = f"{code(sources[name].path)} · rule {code(sources[name].rule)} · commit {at}"
            parts.append(str(in_markdown(found[name])) if isinstance(found[name], Missing) else place)
        return Markup(f"Evidence: {'; '.join(parts)}")

    return evidence


def figure_writer(sources: Mapping[str, Source], found: Found, journal_folder: Path) -> Callable[[str, str], Markup]:
    """The function a template calls to show a picture with the caption its rule wrote; no other image can appear."""

    def figure(name: str, text: str) -> Markup:
        caption, picture = found[f"caption {name}"], sources[f"picture {name}"]
        if isinstance(caption, Missing) or not Path(picture.path).is_file():
            return in_markdown(Missing(picture))
        relative = Path(picture.path).relative_to(journal_folder).as_posix()
        return Markup(f"![{in_markdown(text)}]({relative})\n\nFigure: {in_markdown(caption)}")

    return figure


def checklist_line(checklist: Any) -> Callable[[str], Any]:
    def line(item: str) -> Any:
        if isinstance(checklist, Missing):
            return checklist
        answer = next(entry for entry in checklist["items"] if entry["item"] == item)
        return f"Tried by this run: {answer.found}."

    return line


def write_journal(
    template_path: str,
    sources: Mapping[str, Source],
    journal_path: str,
    *,
    cuts: Mapping[str, Mapping[str, str]],
    root: str,
    config: Mapping[str, Any],
    data_label: str,
    runs: Sequence[tuple[str, int]],
    provenance: Mapping[str, Any],
) -> None:
    """Render the journal. Evidence that does not exist shows as missing, with the rule that writes it.

    Raises: InputError when a file exists but cannot be read, or a cited function is gone.
    """
    found = {name: open_evidence(source) for name, source in sources.items() if not name.startswith("picture ")}
    answers = merge_answers(
        data_answers(found, config),
        dynamics_answers(found, config, runs),
        audit_answers(found),
        reproducibility_answers(found),
        model_answers(found, config, runs),
        {name: what for name, what in found.items() if name.isidentifier()},
    )
    context = {
        **answers,
        "found": found,
        "config": config,
        "journal": config["journal"],
        "members": ", ".join(config["journal"]["members"]),
        "data_label": data_label,
        "synthetic": config["data"]["source"] == "sample",
        "fill_in": Markup(FILL_IN),
        "provenance": provenance,
        "commit": commit_of(provenance),
        "code": code,
        "triple": lambda values: ", ".join(str(number(value)) for value in values),
        "evidence": evidence_line(sources, found),
        "figure": figure_writer(sources, found, Path(journal_path).parent),
        "snippets": cut_snippets(cuts, root),
        "checklist_line": checklist_line(found["checklist"]),
        "first_steps": f"steps {runs[0][0]} {runs[0][1]}",
        "reproduction_names": [name for name in sources if name.startswith("reproduction ")],
    }
    text = render_markdown(template_path, context)
    print(f"{text.count('missing: ')} lookups are missing, {text.count(FILL_IN)} places are left to the group")
    write_text(journal_path, text)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        write_journal(
            snakemake.params.template,
            {name: Source(*place) for name, place in snakemake.params.sources.items()},
            snakemake.output[0],
            cuts=snakemake.params.cuts,
            root=snakemake.params.root,
            config=snakemake.config,
            data_label=snakemake.params.label,
            runs=[(variant, seed) for variant, seed in snakemake.params.runs],
            provenance=provenance,
        )
