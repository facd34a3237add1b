"""Build the page to read: the journal's own answers, below a first screen with the verdicts of this run.

Reads: results/journal.md and its pictures, the result files behind the verdicts.
Writes: results/report.html, self-contained.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from pcam.documents import Source, is_measured, open_evidence, render_html
from pcam.files import InputError, write_text
from pcam.stage import run_stage
from pcam.verdicts import verdicts

HERO = "evaluation"
NAMES = {"Group Information": "Group", "Final Submission Checklist": "Checklist"}
PARAGRAPHS = {"Evidence:": "evidence", "Figure:": "caption", "Not measured": "open"}  # first words to class
BEHIND_VERDICTS = (
    "gate",
    "twin",
    "determinism_runs",
    "seeds",
    "baselines",
    "selection",
    "slices_summary",
    "discovered",
    "checklist",
    "splits",
    f"caption {HERO}",
)


def picture(path: str | Path) -> str:
    """A PNG as data URI."""
    return f"data:image/png;base64,{base64.b64encode(Path(path).read_bytes()).decode()}"


def heading_name(heading: str) -> str:
    """A second-level heading as the navigation shows it."""
    found = re.match(r"Question (\d+)(?:: Part (\d+))?", heading)
    if found:
        return f"Q{'.'.join(part for part in found.groups() if part)}"
    return NAMES.get(heading, heading)


def html_of_markdown(text: str, pictures: Mapping[str, str]) -> tuple[Markup, list[tuple[str, str]]]:
    """HTML of a Markdown document and (anchor, name) of its second-level headings; raw HTML in it stays text.

    `pictures`: path of an image in the document to its data URI. Raises: InputError when one is not among them.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    headings = []
    for token, following in pairwise([*tokens, Token("end", "", 0)]):
        if token.type == "heading_open" and token.tag == "h2":
            name = heading_name(following.content)
            anchor = re.sub(r"[^a-z0-9]+", "-", name.lower())
            token.attrSet("id", anchor)
            headings.append((anchor, name))
        elif token.type == "paragraph_open":
            for start, kind in PARAGRAPHS.items():
                if following.content.lstrip("*").startswith(start):
                    token.attrSet("class", kind)
        for child in token.children or ():
            if child.type == "image":
                source = str(child.attrs["src"])
                if source not in pictures:
                    raise InputError(f"results/journal.md: shows {source}, no picture of this run; write it again")
                child.attrSet("src", pictures[source])
            elif child.type == "text":
                child.content = re.sub(r"^\[( |x)\] ", lambda box: "☑ " if box[1] == "x" else "☐ ", child.content)
    html = parser.renderer.render(tokens, parser.options, {})
    html = html.replace("<table>", '<div class="scroll" tabindex="0"><table>').replace("</table>", "</table></div>")
    return Markup(html), headings


def build_report(
    template_path: str,
    journal_path: str,
    pictures: Sequence[str],
    sources: Mapping[str, Source],
    report_path: str,
    *,
    data_label: str,
    synthetic: bool,
    provenance: Mapping[str, object],
) -> None:
    """Raises: InputError when the journal is missing or shows a picture that does not exist."""
    try:
        text = Path(journal_path).read_text()
    except FileNotFoundError:
        raise InputError(f"{journal_path}: no such file; write_journal makes it") from None
    embedded = {Path(path).relative_to(Path(journal_path).parent).as_posix(): picture(path) for path in pictures}
    found = {name: open_evidence(sources[name]) for name in BEHIND_VERDICTS}
    body, headings = html_of_markdown(text, embedded)
    html = render_html(
        template_path,
        {
            "body": body,
            "headings": headings,
            "data_label": data_label,
            "synthetic": synthetic,
            "carved": found["splits"].test_carved_from_valid is True,
            "test_n": found["splits"].test.n,
            "test_known": is_measured(found["splits"].test.n),
            "verdicts": verdicts(found),
            "marks": {"good": "✓ good", "bad": "✗ look here", "open": "○ to judge", "missing": "missing"},
            "hero": embedded.get(f"assets/{HERO}.png"),
            "hero_caption": found[f"caption {HERO}"],
            "provenance": provenance,
        },
    )
    write_text(report_path, html)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        build_report(
            snakemake.params.template,
            snakemake.input.journal,
            list(snakemake.input.pictures),
            {name: Source(*place) for name, place in snakemake.params.sources.items()},
            snakemake.output[0],
            data_label=snakemake.params.label,
            synthetic=snakemake.params.synthetic,
            provenance=provenance,
        )
