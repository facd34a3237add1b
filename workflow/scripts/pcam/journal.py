"""The texts of the journal, the cards and the first screen, all from one look at the results, their numbers marked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pcam.answers_audit import audit_answers
from pcam.answers_data import data_answers
from pcam.answers_dynamics import dynamics_answers
from pcam.answers_model import model_answers
from pcam.answers_reproducibility import reproducibility_answers
from pcam.binding import cited_tree, clean, clean_tree, fixed, key_of
from pcam.documents import FILL_IN, Missing, Source, commit_of, merge_answers, number, open_evidence
from pcam.evidence import CONFIG, Origins, documented
from pcam.rendering import code, in_markdown, loose_digits, render_markdown, shown
from pcam.snippets import cut_snippets
from pcam.verdicts import verdicts

Found = Mapping[str, Any]


@dataclass(frozen=True)
class Ask:
    """What documents are made of: templates by document, evidence by name, logs by picture, source to show, config."""

    templates: Mapping[str, str]
    sources: Mapping[str, Source]
    logs: Mapping[str, str]
    cuts: Mapping[str, Mapping[str, str]]
    root: str
    config: Mapping[str, Any]
    label: str
    runs: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Texts:
    """Marked text of each document, the statements of the first screen, and figures that nothing bears out."""

    documents: Mapping[str, str]
    verdicts: Sequence[Mapping[str, str]]
    unbound: Mapping[str, Sequence[str]]


def read_ask(parameters: Any, config: Mapping[str, Any]) -> Ask:
    """What a rule's parameters ask for."""
    return Ask(
        templates=dict(parameters.templates),
        sources={clean(name): Source(*place) for name, place in parameters.sources.items()},
        logs=dict(parameters.logs),
        cuts=parameters.cuts,
        root=parameters.root,
        config=config,
        label=parameters.label,
        runs=[(variant, seed) for variant, seed in parameters.runs],
    )


def evidence_line(ask: Ask, found: Found) -> Callable[..., Markup]:
    """The function a template calls to name where an answer comes from."""
    origins = Origins(ask.sources, ask.logs)

    def evidence(*names: str) -> Markup:
        parts = []
        for name in names:
            source = ask.sources[name]
            told = origins.of(source)
            place = f"{code(clean(source.path))} · rule {code(source.rule)} · commit {code(commit_of(told))}"
            place += f" · code {code(told['code'] or 'not recorded')}"
            parts.append(str(in_markdown(found[name])) if isinstance(found[name], Missing) else place)
        return Markup(f"Evidence: {'; '.join(parts)}")

    return evidence


def figure_writer(ask: Ask, found: Found, folder: Path) -> Callable[[str, str], Markup]:
    """The function a template calls to show a picture with the caption its rule wrote; no other image can appear."""

    def figure(name: str, text: str) -> Markup:
        caption, picture = found[f"caption {name}"], ask.sources[f"picture {name}"]
        if isinstance(caption, Missing) or not Path(picture.path).is_file():
            return in_markdown(Missing(picture))
        relative = Path(picture.path).relative_to(folder).as_posix()
        return Markup(f"![{in_markdown(text)}]({relative})\n\nFigure: {in_markdown(caption)}")

    return figure


def triple(values: Any) -> Any:
    """A value of each colour channel; what is missing or undefined stays it."""
    return ", ".join(str(number(value)) for value in values) if isinstance(values, list) else values


def checklist_line(checklist: Any, source: Source) -> Callable[[str], Any]:
    def line(item: str) -> Any:
        if isinstance(checklist, Missing):
            return checklist
        items = checklist["items"]
        if isinstance(items, Missing):
            return items
        answer = next((entry for entry in items if entry["item"] == item), Missing(source, key_of("items", item)))
        return answer if isinstance(answer, Missing) else f"Tried by this run: {answer.found}."

    return line


def compose(ask: Ask, provenance: Mapping[str, Any]) -> Texts:
    """Every document, with `provenance` as that of the run. What does not exist shows as missing, with its rule.

    Raises: InputError when a file exists but cannot be read, or a cited function is gone.
    """
    found = {name: open_evidence(source) for name, source in ask.sources.items() if not name.startswith("picture ")}
    config = cited_tree(clean_tree(ask.config), CONFIG)
    seeds, variants = ({plain: plain for plain in config[key]} for key in ("seeds", "variants"))
    runs = [(variants.get(variant, variant), seeds.get(seed, seed)) for variant, seed in ask.runs]
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
        "members": ", ".join(map(str, config["journal"]["members"])),
        "data_label": fixed(clean(ask.label)),
        "synthetic": config["data"]["source"] == "sample",
        "fill_in": Markup(FILL_IN),
        "provenance": clean_tree(provenance),
        "commit": commit_of(provenance),
        "code": code,
        "triple": triple,
        "evidence": evidence_line(ask, found),
        "snippets": cut_snippets(ask.cuts, ask.root),
        "checklist_line": checklist_line(found["checklist"], ask.sources["checklist"]),
        "first_steps": "steps {} {}".format(*ask.runs[0]),
        "reproduction_names": [name for name in ask.sources if name.startswith("reproduction ")],
    }
    documents, unbound = {}, {}
    for path, template in ask.templates.items():
        figure = figure_writer(ask, found, Path(path).parent)
        documents[path], unbound[path] = render_markdown(template, {**context, "figure": figure})
    screen = [{key: shown(value) for key, value in verdict.items()} for verdict in verdicts(found)]
    unbound["verdicts"] = [
        word for verdict in screen for key in ("head", "text") for word in loose_digits(verdict[key])
    ]
    return Texts(documents, screen, unbound)


def document(ask: Ask, provenance: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Text of each document and the content of results/evidence.json. Raises: as `compose` does."""
    texts = compose(ask, provenance)
    return documented(texts.documents, texts.verdicts, texts.unbound, ask.sources, ask.logs, ask.config, provenance)
