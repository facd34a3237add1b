"""Whether documents and results still say the same: every fault in a line, with what to do."""

import hashlib
import html
import os
import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pcam.evidence import ANEW, CONFIG, Absent, Origins, Results, read_evidence
from pcam.files import file_digest
from pcam.journal import Ask, document
from pcam.page import embedded_files, seal_holds

WRITE = "if the results are right, snakemake results/report.html writes the documents anew"
REMAKE = "snakemake makes it anew"
_ELEMENT = re.compile(r'<data class="cited" value="(\d+)">(.*?)</data>', re.DOTALL)

# Each start on Slurm writes their results anew; the documents rest on single words of these, which stand cited.
RENEWED = {"preflight"}


def value_faults(evidence: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """Cited values that are gone or others than when the documents were written."""
    results = Results(config)
    results.expect((entry["file"], entry["key"]) for entry in evidence["cited"])
    gone: set[str] = set()
    for entry in evidence["cited"]:
        file, key = entry["file"], entry["key"]
        place = f"{file}, key {key}" if key else file
        then, now = (Absent if entry.get("missing") else entry["value"]), results.value(file, key)
        if then is not Absent and file != CONFIG and not os.path.isfile(file):
            if file not in gone:
                yield f"{file}: is gone, and the documents cite it; {REMAKE}"
            gone.add(file)
        elif now is Absent and then is not Absent:
            yield f"{place}: {then!r} when the documents were written, now not there; {REMAKE}"
        elif then is Absent and now is not Absent:
            yield f"{place}: missing when the documents were written, now {now!r}; {WRITE}"
        elif now != then or type(now) is not type(then):
            yield f"{place}: {then!r} when the documents were written, now {now!r}; {WRITE}"


def code_faults(ask: Ask, codes: Mapping[str, str]) -> Iterator[str]:
    """Results behind the documents that other code made than the present; `codes` has the rules to ask of."""
    origins = Origins(ask.sources, ask.logs)
    stale: dict[tuple[str, str | None], list[str]] = {}
    for source in ask.sources.values():
        if source.rule in codes and Path(source.path).is_file():
            code = origins.of(source)["code"]
            if code != codes[source.rule]:
                stale.setdefault((source.rule, code), []).append(source.path)
    for (rule, code), files in stale.items():
        made = f"code {code}" if code else "code that nothing names"
        others = f" and {len(files) - 1} more of its files" if len(files) > 1 else ""
        yield f"{files[0]}{others}: made by {made}, and rule {rule} is {codes[rule]} now; {REMAKE}"


def first_difference(here: str, there: str) -> str:
    lines = zip([*here.splitlines(), None], [*there.splitlines(), None], strict=False)
    for place, (one, other) in enumerate(lines, 1):
        if one != other:
            column = next((i for i, (a, b) in enumerate(zip(one or "", other or "", strict=False)) if a != b), 0)
            cut = [None if text is None else text[max(0, column - 20) : column + 40] for text in (one, other)]
            return f"line {place} has {cut[0]!r} where the results give {cut[1]!r}"
    return "it ends otherwise than the results give"


def listed_faults(evidence: Mapping[str, Any], anew: Mapping[str, Any]) -> Iterator[str]:
    """What evidence.json lists otherwise than the results give: citations, what is missing, and the sources."""
    cites = [[(entry["file"], entry["key"]) for entry in one["cited"]] for one in (evidence, anew)]
    for place, (told, now) in enumerate(zip_longest(*cites)):
        if told != now:
            yield f"evidence.json: cited[{place}] is {told}, and the documents cite {now} there; {WRITE}"
            break
    if evidence["missing"] != anew["missing"]:
        yield f"evidence.json: what is missing is not what the results lack; {WRITE}"
    for file in sorted({*evidence["sources"], *anew["sources"]}):
        told, now = (
            {key: of for key, of in one["sources"].get(file, {}).items() if key != "written"}
            for one in (evidence, anew)
        )
        if not told or not now:
            when = "came since" if now else "is not there now, and was when"
            yield f"{file}: {when} the documents were written; {WRITE}"
            continue
        if told["rule"] == now["rule"] and now["rule"] in RENEWED:
            continue
        for key in sorted({*told, *now}):
            if told.get(key) != now.get(key):
                yield f"{file}: {key} is {told.get(key)!r} in evidence.json's sources, now {now.get(key)!r}; {WRITE}"
                break


def document_faults(ask: Ask, evidence: Mapping[str, Any]) -> Iterator[str]:
    """Documents that are not what the results give, byte for byte, or not those that evidence.json lists."""
    rendered, anew = document(ask, evidence["provenance"])
    yield from listed_faults(evidence, anew)
    for path, text in rendered.items():
        if not Path(path).is_file():
            yield f"{path}: is gone; {WRITE}"
            continue
        here, told = Path(path).read_bytes(), evidence["documents"].get(path)
        if here != text.encode():
            yield f"{path}: {first_difference(here.decode(errors='replace'), text)}; {WRITE}"
        if told is None or told["sha256"] != hashlib.sha256(here).hexdigest():
            yield f"{path}: is not the document whose numbers evidence.json lists; {WRITE}"
        elif told["numbers"] != anew["documents"][path]["numbers"]:
            yield f"{path}: its numbers in evidence.json are not those that the results give; {WRITE}"
    if evidence["verdicts"] != anew["verdicts"]:
        yield f"evidence.json: the verdicts are not those that the results give; {WRITE}"
    for path, words in {**evidence["unbound"], **anew["unbound"]}.items():
        told = ", ".join(map(repr, words))
        yield f"{path}: no result bears out the figures in {told}; bind them in pcam/answers_*.py or the template"


def numbers_of(evidence: Mapping[str, Any], journal: str, path: str) -> list[str]:
    """The text of every number that the report shows, by id: those of the journal, then those of the verdicts."""
    bound = [(journal, evidence["documents"][path]["numbers"])]
    bound += [
        (verdict[part]["text"], verdict[part]["numbers"])
        for verdict in evidence["verdicts"]
        for part in ("head", "text")
    ]
    return [text[number["start"] : number["end"]] for text, numbers in bound for number in numbers]


def plain_text(markup: str) -> str:
    """What a reader sees, as far as numbers go: without tags, entities and the backslashes that Markdown needs."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", markup)).replace("\\", "").split())


def page_faults(report_path: str) -> Iterator[str]:
    """A report that was changed, or that shows other files than those that stand there now."""
    page = Path(report_path).read_bytes().decode(errors="replace")
    if not seal_holds(page):
        yield f"{report_path}: is not as build_report wrote it, the digest at its end does not hold; {ANEW}"
        return
    files = embedded_files(page)
    if not files:
        yield f"{report_path}: does not tell which files it was made of; {ANEW}"
    for file, digest in files.items():
        if not os.path.isfile(file):
            yield f"{file}: is gone, and {report_path} shows it; {REMAKE}"
        elif file_digest(file) != digest:
            yield f"{file}: is not the file that {report_path} shows; {WRITE}"


def report_faults(evidence: Mapping[str, Any], journal_path: str, report_path: str) -> Iterator[str]:
    """Numbers of the report that are not those of evidence.json, or that it lacks."""
    numbers = numbers_of(evidence, Path(journal_path).read_text(), journal_path)
    seen: set[int] = set()
    for found in _ELEMENT.finditer(Path(report_path).read_text()):
        place = int(found[1])
        seen.add(place)
        expected = numbers[place] if place < len(numbers) else None
        if expected is None or plain_text(found[2]) != plain_text(html.escape(expected)):
            yield f"{report_path}: number {place} is {plain_text(found[2])!r}, in evidence.json {expected!r}; {WRITE}"
    for place in range(len(numbers)):
        if place not in seen:
            yield f"{report_path}: number {place} of evidence.json, {numbers[place]!r}, does not stand there; {WRITE}"


def faults(
    ask: Ask, evidence_path: str, journal_path: str, report_path: str, codes: Mapping[str, str]
) -> tuple[list[str], Mapping[str, Any]]:
    """Every fault, and the evidence that was checked. Raises: InputError when there is no evidence to check."""
    evidence = read_evidence(evidence_path)
    found = [*value_faults(evidence, ask.config), *code_faults(ask, codes), *document_faults(ask, evidence)]
    if not Path(report_path).is_file():
        found.append(f"{report_path}: is gone; {WRITE}")
        return found, evidence
    found += page_faults(report_path)
    if Path(journal_path).is_file() and journal_path in evidence["documents"]:
        found += report_faults(evidence, journal_path, report_path)
    return found, evidence
