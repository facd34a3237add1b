"""Documents and results are compared: what was changed after the documents were written is found and named."""

import copy
import csv
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_report import PROVENANCE, Run

from pcam.binding import parts_of
from pcam.checking import faults, page_faults, value_faults
from pcam.documents import Source
from pcam.evidence import Origins, preflight_words
from pcam.files import InputError, read_json, write_csv, write_json, write_text
from workflow import snakemake, succeeded

SEED = 20
MUTATED = 20


class Checked:
    """A run with its documents, and what the comparison says of it."""

    def __init__(self, run: Run, plots: dict[str, Any] | None = None) -> None:
        self.run, self.folder = run, run.folder
        self.page = run.page(plots)
        self.evidence_path = run.folder / "evidence.json"
        # Nothing tells the code of a table whose rule wrote no JSON beside it; in a run every rule does, or has a log.
        self.codes = {source.rule: "c" for source in run.sources.values() if source.path.endswith(".json")}

    def faults(self) -> list[str]:
        paths = (str(self.folder / name) for name in ("evidence.json", "journal.md", "report.html"))
        return faults(self.run.ask(), *paths, self.codes)[0]

    def cited(self) -> list[dict[str, Any]]:
        return self.run.evidence()["cited"]


@pytest.fixture
def checked(tmp_path: Path) -> Checked:
    return Checked(Run(tmp_path))


def other(value: Any) -> Any:
    if isinstance(value, str):
        return f"{value}7"
    return value * 1.5 + 0.25 if isinstance(value, float) else value + 1


def mutate(file: str, key: str) -> None:
    """Change one value of a result where it stands."""
    parts = parts_of(key)
    if file.endswith(".csv"):
        with Path(file).open(newline="") as handle:
            rows = list(csv.reader(handle))
        row, column = rows[int(parts[0]) + 1], rows[0].index(str(parts[1]))
        kind = int if re.fullmatch(r"-?\d+", row[column]) else float if re.match(r"-?[\d.]", row[column]) else str
        row[column] = str(other(kind(row[column])))
        write_csv(file, rows[0], rows[1:])
    elif file.endswith(".txt"):
        Path(file).write_text(f"{Path(file).read_text().strip()} 7\n")
    else:
        document = read_json(file)
        at: Any = document
        for part in parts[:-1]:
            at = at[part]
        at[parts[-1]] = other(at[parts[-1]])
        write_json(file, document)


def test_documents_as_they_were_written_hold(checked: Checked) -> None:
    assert checked.faults() == []
    evidence = checked.run.evidence()
    assert len(evidence["documents"]) == 3 and all(one["numbers"] for one in evidence["documents"].values())
    ids = {i for one in evidence["documents"].values() for number in one["numbers"] for i in number["cites"]}
    ids |= {
        i for one in evidence["verdicts"] for part in ("head", "text") for n in one[part]["numbers"] for i in n["cites"]
    }
    assert ids == set(range(len(evidence["cited"])))
    assert {entry["file"] for entry in evidence["cited"] if not entry.get("missing")} <= set(evidence["sources"])


def test_twenty_changed_values_are_each_found_and_named(checked: Checked) -> None:
    """Values are drawn by seed, of every kind of file; each is put back before the next."""
    single = [
        entry for entry in checked.cited()
        if entry["file"] != "config" and entry["key"] and not str(entry["value"]).startswith("sha256:")
    ]  # fmt: skip
    tables = [entry for entry in single if entry["file"].endswith(".csv")]
    draw = random.Random(SEED)
    evidence = checked.run.evidence()
    drawn = [*draw.sample(single, MUTATED - 5), *draw.sample(tables, 5)]
    for entry in drawn:
        before = Path(entry["file"]).read_bytes()
        mutate(entry["file"], entry["key"])
        named = f"{entry['file']}, key {entry['key']}: {entry['value']!r} when the documents were written, now "
        found = list(value_faults(evidence, checked.run.config))
        assert [fault for fault in found if fault.startswith(named)], entry
        Path(entry["file"]).write_bytes(before)
    assert checked.faults() == []


def test_a_changed_whole_a_changed_config_and_a_lost_file_are_found(checked: Checked) -> None:
    whole = next(entry for entry in checked.cited() if str(entry["value"]).startswith("sha256:") and not entry["key"])
    Path(whole["file"]).write_text(Path(whole["file"]).read_text() + "\n")
    assert any(fault.startswith(f"{whole['file']}: 'sha256:") for fault in checked.faults())
    checked.run.config["threshold"]["beta"] = 3.0
    assert any(
        fault.startswith("config, key threshold.beta: 2.0 when") and "now 3.0" in fault for fault in checked.faults()
    )
    Path(checked.run.sources["seeds"].path).unlink()
    gone = [fault for fault in checked.faults() if "seeds.json: is gone" in fault]
    assert len(gone) == 1 and "makes it anew" in gone[0]


@pytest.mark.parametrize("name", ["journal.md", "model_card.md", "data_card.md"])
def test_a_number_edited_by_hand_is_found(checked: Checked, name: str) -> None:
    path = checked.folder / name
    text = path.read_text()
    number = checked.run.evidence()["documents"][str(path)]["numbers"][-1]
    path.write_text(f"{text[: number['start']]}987{text[number['end'] :]}")
    found = checked.faults()
    line = text[: number["start"]].count("\n") + 1
    assert any(fault.startswith(f"{path}: line {line} has") and "987" in fault for fault in found)
    assert any(fault.startswith(f"{path}: is not the document whose numbers") for fault in found)


def test_a_number_of_the_report_that_is_another_or_away_is_found(checked: Checked) -> None:
    page = checked.folder / "report.html"
    element = re.search(r'<data class="cited" value="(\d+)">([^<]*)</data>', checked.page)
    assert element
    page.write_text(checked.page.replace(element[0], element[0].replace(f">{element[2]}<", ">0.987<")))
    assert [fault for fault in checked.faults() if f"number {element[1]} is '0.987', in evidence.json" in fault]
    page.write_text(checked.page.replace(element[0], element[2]))
    assert [fault for fault in checked.faults() if f"number {element[1]} of evidence.json" in fault]
    page.unlink()
    assert any(fault.startswith(f"{page}: is gone") for fault in checked.faults())


def test_a_result_of_other_code_is_found(checked: Checked) -> None:
    checked.codes["make_seeds"] = "d"
    path = checked.run.sources["seeds"].path
    assert checked.faults() == [f"{path}: made by code c, and rule make_seeds is d now; snakemake makes it anew"]


def test_an_edited_list_of_evidence_is_found(checked: Checked) -> None:
    evidence = checked.run.evidence()
    evidence["unbound"] = {"journal.md": ["about 24 patches"]}
    next(iter(evidence["documents"].values()))["numbers"].pop()
    evidence["verdicts"][0]["head"]["text"] = "Gate not passed"
    write_json(checked.evidence_path, evidence)
    found = " ".join(checked.faults())
    assert "no result bears out the figures in 'about 24 patches'" in found
    assert "numbers in evidence.json are not those" in found and "the verdicts are not those" in found
    checked.evidence_path.unlink()
    with pytest.raises(InputError, match="no such file, so there is nothing to check"):
        checked.faults()


def test_lists_of_evidence_that_do_not_fit_the_documents_are_found(checked: Checked) -> None:
    evidence = checked.run.evidence()
    swapped = copy.deepcopy(evidence)
    swapped["cited"][5], swapped["cited"][90] = swapped["cited"][90], swapped["cited"][5]
    write_json(checked.evidence_path, swapped)
    assert any(fault.startswith("evidence.json: cited[5] is ") for fault in checked.faults())
    write_json(checked.evidence_path, {**evidence, "missing": evidence["missing"][1:]})
    assert any("what is missing is not what the results lack" in fault for fault in checked.faults())
    checked.codes["make_seeds"] = "d"
    write_json(checked.evidence_path, {**evidence, "sources": {}})
    found = checked.faults()
    path = checked.run.sources["seeds"].path
    assert any(fault.startswith(f"{path}: came since the documents were written") for fault in found)
    assert any(fault.startswith(f"{path}: made by code c, and rule make_seeds is d now") for fault in found)


@pytest.mark.parametrize("gone", [("sources",), ("cited", 3, "value"), ("documents", "journal.md", "numbers")])
def test_evidence_of_another_version_is_refused_by_name(checked: Checked, gone: tuple[Any, ...]) -> None:
    evidence = checked.run.evidence()
    at: Any = evidence
    for part in gone[:-1]:
        at = at[str(checked.folder / part) if part == "journal.md" else part]
    del at[gone[-1]]
    write_json(checked.evidence_path, evidence)
    with pytest.raises(InputError, match=rf"evidence\.json: .*lacks {gone[-1]}; another version wrote it"):
        checked.faults()


@pytest.fixture
def drawn(tmp_path: Path) -> Checked:
    """A run whose page has a live plot of a file that no figure of the documents cites."""
    (tmp_path / "drawn.csv").write_text("slice,estimate\na,0.5\n")
    plot = {"title": "t", "help": "h", "controls": [], "head": [], "told": {}, "panels": [],
            "datasets": {"slices": [{"estimate": 0.5}]}}  # fmt: skip
    return Checked(Run(tmp_path), {"assets/slices.png": (plot, [(str(tmp_path / "drawn.csv"), "draw")])})


PLANTED = {
    "prose": ("Can this run be trusted?</h1>", "This run can be trusted</h1>"),
    "state of a verdict": ('<li class="bad">', '<li class="good">'),
    "data of a plot": ('"estimate": 0.5', '"estimate": 0.9'),
    "evidence in the page": ('"commit": "0123456789abcdef"', '"commit": "f123456789abcdef"'),
}


def test_a_change_of_the_page_beside_its_numbers_is_found(drawn: Checked) -> None:
    path = drawn.folder / "report.html"
    for name, (old, new) in PLANTED.items():
        assert old in drawn.page, name
        path.write_text(drawn.page.replace(old, new, 1))
        assert [fault for fault in page_faults(str(path)) if fault.startswith(f"{path}: is not as build_report")], name
    assert [fault for fault in drawn.faults() if fault.startswith(f"{path}: is not as build_report wrote it")]


def test_a_file_that_the_page_shows_and_that_is_another_now_is_named(drawn: Checked) -> None:
    assert drawn.faults() == []
    picture, data = Path(drawn.run.sources["picture shift"].path), drawn.folder / "drawn.csv"
    picture.write_bytes(picture.read_bytes() + b"0")
    data.write_text("slice,estimate\na,0.9\n")
    found = drawn.faults()
    for path in (picture, data):
        assert any(
            fault.startswith(f"{path}: is not the file that {drawn.folder}/report.html shows") for fault in found
        )
    data.unlink()
    assert any(fault.startswith(f"{data}: is gone, and ") for fault in drawn.faults())


def test_a_new_preflight_table_is_another_only_where_the_documents_rest_on_it(tmp_path: Path) -> None:
    path = tmp_path / "preflight.json"
    assert preflight_words(path) is None
    rows = [{"check": "disk", "result": "pass", "told": "9 GB"}, {"check": "account", "result": "fix", "told": "x"}]
    table = {"result": "fix", "checks": rows, "hours": 1, "provenance": PROVENANCE}
    write_json(path, table)
    words = preflight_words(path)
    assert words and words[:2] == ["fix", "01234567"] and words[2].startswith("1 account: fix ") and len(words) == 3
    write_json(path, {**table, "hours": 2, "checks": [{**rows[0], "told": "8 GB"}, rows[1]]})
    assert preflight_words(path) == words
    for changed in ({"result": "pass"}, {"checks": rows[:1]}, {"checks": [{**rows[0], "result": "warn"}, rows[1]]}):
        write_json(path, {**table, **changed})
        assert preflight_words(path) != words
    path.write_text("{")
    assert "not a JSON file" in (preflight_words(path) or [""])[0]


def test_marks_in_data_neither_crash_a_document_nor_forge_a_citation(tmp_path: Path) -> None:
    """Characters that marks are made of, in texts, keys, cells, captions and the config, show as U+FFFD."""
    run = Run(tmp_path)
    evil = "\ue000\U000f0030\U000f0031 7\ue001 \U000f00ff"
    run.content["twin"]["verdict"] = f"other {evil} bits"
    run.content["twin"]["compared"] = {f"w{evil}": value for value in run.content["twin"]["compared"].values()}
    run.config["journal"]["members"] = [f"Ada {evil} / 1"]
    run.journal()
    write_text(run.sources["caption shift"].path, f"What {evil} shows.\n")
    text = run.render()
    assert (
        "Ada \ufffd\ufffd\ufffd 7\ufffd \ufffd / 1" in text and "other \ufffd\ufffd\ufffd 7\ufffd \ufffd bits" in text
    )
    assert "What \ufffd\ufffd\ufffd 7\ufffd \ufffd shows" in text and not re.search(
        "[\ue000\ue001\U000f0000-\U000f00ff]", text
    )


def test_missing_evidence_is_listed_shows_as_missing_and_what_turned_up_since_is_found(tmp_path: Path) -> None:
    run = Run(tmp_path)
    folds = run.content.pop("folds")
    del run.content["recipe"]["importance"]
    run.page()
    evidence, text = run.evidence(), (tmp_path / "journal.md").read_text()
    missing = {(entry["file"], entry["key"]) for entry in evidence["missing"]}
    assert {(run.sources["folds"].path, ""), (run.sources["planned bundle"].path, "")} <= missing
    assert f"missing: {run.sources['folds'].path}" in text.replace("\\", "")
    checked = Checked(run)
    assert checked.faults() == []
    write_json(run.sources["folds"].path, {**folds, "provenance": PROVENANCE})
    assert any("folds.json: missing when the documents were written" in fault for fault in checked.faults())


def test_where_a_result_comes_from_is_told_by_itself_its_neighbour_or_its_rule_s_log(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"provenance": PROVENANCE})
    log = tmp_path / "plot.log"
    log.write_text("# plot_a | variant=mlp | commit abc123 (dirty) | code c0de | a CPU\nwords\n")
    places = {"a.json": "make_a", "a.csv": "make_a", "b.csv": "make_b", "a.png": "plot_a"}
    sources = {name: Source(str(tmp_path / name), rule) for name, rule in places.items()}
    origins = Origins(sources, {str(tmp_path / "a.png"): str(log)})
    own = {key: PROVENANCE[key] for key in ("commit", "dirty", "code", "device")}
    assert origins.of(sources["a.json"]) == origins.of(sources["a.csv"]) == own
    assert origins.of(sources["a.png"]) == {"commit": "abc123", "dirty": True, "code": "c0de", "device": "a CPU"}
    assert origins.of(sources["b.csv"]) == dict.fromkeys(own)


@pytest.mark.slow
def test_check_evidence_holds_on_a_run_and_names_what_was_changed_without_making_anything_anew(
    tmp_path: Path, copy_tiny_run: Callable[[Path], Path]
) -> None:
    folder = copy_tiny_run(tmp_path / "run")
    succeeded(snakemake(folder, "check_evidence"))
    evidence = json.loads((folder / "results/evidence.json").read_text())
    assert evidence["unbound"] == {} and all(source["code"] for source in evidence["sources"].values())
    path = folder / "results/aggregate/seeds.json"
    seeds, journal = read_json(path), (folder / "results/journal.md").read_bytes()
    seeds["baseline"]["test"]["roc_auc"]["mean"] = 0.987654
    write_json(path, seeds)
    done = snakemake(folder, "check_evidence")
    log = (folder / "results/logs/compare_evidence_now.log").read_text()
    assert done.returncode != 0 and "now 0.987654; if the results are right" in log
    assert "results/aggregate/seeds.json, key baseline.test.roc_auc.mean: " in log and "Traceback" not in log
    assert (folder / "results/journal.md").read_bytes() == journal
