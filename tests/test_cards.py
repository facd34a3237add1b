"""Model card and data card: the field's sections, figures from the evidence alone, limits in plain sight."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from test_report import PICTURES, PROVENANCE, Run, results

from pcam.journal import document
from pcam.rendering import escape_markdown

# Mitchell et al. 2019 and Gebru et al. 2021, with what a reader needs to use the model.
MODEL_SECTIONS = [
    "Model details",
    "Intended use",
    "Out of scope",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
    "How to use",
]
DATA_SECTIONS = [
    "Motivation",
    "Composition",
    "Collection",
    "Preprocessing, cleaning, labelling",
    "Uses",
    "Distribution",
    "Maintenance",
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path)
    made.content["champion"] |= {
        "name": "baseline/seed-1",
        "variant": "baseline",
        "architecture": {"model": "resnet"},
        "preprocessing": {"mean": [0.61, 0.62, 0.63], "std": [0.21, 0.22, 0.23]},
        "trained_by": {"commit": "fedcba98", "dirty": False, "device": "a CPU", "torch_device": "cpu"},
        "runtime": {"versions": {"torch": "2.0"}},
    }
    made.content["champion"]["digests"] |= {"data": "da7a"}
    return made


def cards(run: Run) -> tuple[str, str]:
    """The model card and the data card of the run's content as it is now."""
    run.write()
    ask = run.ask()
    templates = {path: template for path, template in ask.templates.items() if path.endswith("card.md")}
    documents, evidence = document(replace(ask, templates=templates), PROVENANCE)
    assert not any(evidence["unbound"].values())
    model, data = documents.values()
    return model, data


def section(card: str, name: str) -> str:
    return card.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_the_cards_have_the_field_s_sections_in_order(run: Run) -> None:
    for card, sections in zip(cards(run), (MODEL_SECTIONS, DATA_SECTIONS), strict=True):
        assert re.findall(r"^## (.+)$", card, re.MULTILINE) == sections
        assert all(len(section(card, name).split()) > 10 for name in sections)


def test_whole_evidence_leaves_nothing_missing_and_every_table_is_one(run: Run) -> None:
    for card in cards(run):
        assert "missing:" not in card
        parsed = MarkdownIt("commonmark", {"html": False}).enable("table").parse(card)
        shown = "".join(
            child.content for token in parsed for child in token.children or () if child.type == "text"
        )  # inline code may hold a bar
        assert "| ---" not in shown and "{{" not in shown and "{%" not in shown
        assert sum(token.type == "table_open" for token in parsed) >= 6


def test_limits_stand_before_everything_else(run: Run) -> None:
    model, data = cards(run)
    for card in (model, data):
        assert card.index("SYNTHETIC SAMPLE") < card.index("\n## ")
    assert model.index("Not a medical device") < model.index("\n## ")
    assert "No patient stands behind these patches" in model and "No person, no tissue" in data
    run.label = "PCam files at hand"
    model, data = cards(run)
    for card in (model, data):
        assert "SYNTHETIC" not in card and "No patient stands" not in card and "PCam files at hand" in card
    assert "Not a medical device" in model
    for named in ("Veeling", "1806.03962", "2546921", "CC0", "Camelyon16", "by their content"):
        assert named in data, named


@pytest.mark.parametrize(
    ("source", "path", "value", "shown", "card"),
    [
        ("champion", ("threshold",), 0.87654, "0.8765", 0),
        ("champion", ("temperature",), 3.21098, "3.211", 0),
        ("champion", ("digests", "weights"), "feedbeef", "feedbeef", 0),
        ("selection", ("chosen", "value"), 0.65432, "0.654", 0),
        ("evaluation", ("test", "confusion", "missed"), 8642, "8,642", 0),
        ("normalisation", ("n",), 97531, "97,531", 0),
        ("splits", ("test", "positives"), 86420, "86,420", 1),
        ("splits", ("test", "n"), 86421, "86,421", 0),
    ],
)
def test_a_figure_that_changes_in_the_results_changes_in_the_card(
    run: Run, source: str, path: tuple[str, ...], value: object, shown: str, card: int
) -> None:
    assert shown not in cards(run)[card]
    place = run.content[source]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert shown in cards(run)[card]


@pytest.mark.parametrize(
    ("name", "card"),
    [("champion", 0), ("evaluation", 0), ("stress", 0), ("splits", 1), ("checksums", 1), ("verdicts", 1)],
)
def test_evidence_that_is_missing_shows_as_missing(run: Run, name: str, card: int) -> None:
    del run.content[name]
    assert escape_markdown(f"missing: {run.sources[name].path}") in cards(run)[card]


def test_without_any_result_a_card_claims_nothing(tmp_path: Path) -> None:
    model, data = cards(Run(tmp_path, {}))
    assert model.count("missing:") > 15 and data.count("missing:") > 12
    assert not re.search(r"\d\.\d{3}", model + data)  # no metric without a result


def test_pictures_are_the_run_s_own_by_relative_path(run: Run) -> None:
    for card, least in zip(cards(run), (2, 1), strict=True):
        links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", card)
        assert len(links) >= least and {*links} <= {f"assets/{name}.png" for name in PICTURES}
        assert card.count("\nFigure: ") == len(links)


def test_prose_follows_the_run(run: Run) -> None:
    run.content["splits"]["test_carved_from_valid"] = True
    run.content["champion"] |= {"temperature": None, "temperature_note": "one class alone"}
    run.content["champion"]["trained_by"] |= {"commit": None}
    run.config["journal"] |= {"members": ["A / 1"], "repository": "https://host/a/b"}
    model, data = cards(run)
    assert "No test labels were at hand" in section(model, "Evaluation data")
    assert "Test labels were not at hand" in section(data, "Uses")
    details = section(model, "Model details")
    assert "logits are divided" not in details and "| trained at commit | none, on" in details
    assert "A / 1" in details and "https://host/a/b" in details and "[fill in]" not in details
    run.content["champion"]["trained_by"] |= {"commit": "0123456789abcdef", "dirty": True}
    assert "| 01234567 with uncommitted changes, on" in cards(run)[0]


def test_a_model_that_loses_to_always_tumour_says_so(run: Run) -> None:
    always = run.content["baselines"]["always_tumour"]["test"]["f_beta"]
    run.content["evaluation"]["test"]["metrics"]["f_beta"]["value"] = always / 2
    assert "does not beat always tumour" in section(cards(run)[0], "Quantitative analyses")


def test_what_was_waived_stands_in_the_data_card(run: Run) -> None:
    waived = [kind for kind, told in results()["verdicts"].items() if told["verdict"] == "waived"]
    cleaning = section(cards(run)[1], "Preprocessing, cleaning, labelling")
    assert waived and "Waived by name in the config" in cleaning
    for kind in waived:
        run.content["verdicts"][kind] = {"verdict": "pass", "reason": "none"}
    assert "Waived by name" not in cards(run)[1]
