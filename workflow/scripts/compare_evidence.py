"""Compare the documents with the results they cite; fail with a line for each fault.

Reads: results/evidence.json, every file it cites, the journal, the cards, results/report.html.
Writes: results/evidence_check.json.
"""

from collections.abc import Mapping
from typing import Any

from pcam.checking import faults
from pcam.evidence import CONFIG
from pcam.files import InputError, write_json
from pcam.journal import Ask, read_ask
from pcam.stage import run_stage, say


def compare_evidence(
    ask: Ask,
    evidence_path: str,
    journal_path: str,
    report_path: str,
    check_path: str,
    *,
    codes: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> None:
    """`codes`: digest of the present code of every rule. Raises: InputError when there is a fault."""
    found, evidence = faults(ask, evidence_path, journal_path, report_path, codes)
    for fault in found:
        say(fault)
    if found:
        raise InputError(f"{len(found)} faults: the documents and their sources do not agree")
    told = {
        "documents": sorted(evidence["documents"]),
        "numbers": sum(len(one["numbers"]) for one in evidence["documents"].values()),
        "cited": len(evidence["cited"]),
        "files": len({entry["file"] for entry in evidence["cited"]} - {CONFIG}),
        "missing": len(evidence["missing"]),
    }
    say(
        f"The {told['numbers']:,} numbers of {', '.join(told['documents'])} agree with {told['cited']:,} values of "
        f"{told['files']} files; {told['missing']} are missing."
    )
    write_json(check_path, {**told, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        compare_evidence(
            read_ask(snakemake.params, snakemake.config),
            *snakemake.params.checked,
            snakemake.output[0],
            codes=snakemake.params.codes,
            provenance=provenance,
        )
