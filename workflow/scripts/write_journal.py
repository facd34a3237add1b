"""Write the course's journal and the two cards; each answer follows from the results, each number says from which.

Reads: the result files named in the rule, the sources of the functions it cites.
Writes: results/journal.md, results/model_card.md, results/data_card.md, results/evidence.json.
"""

from collections.abc import Mapping
from typing import Any

from pcam.documents import FILL_IN
from pcam.files import write_json, write_text
from pcam.journal import Ask, document, read_ask
from pcam.stage import run_stage


def write_journal(ask: Ask, evidence_path: str, provenance: Mapping[str, Any]) -> None:
    """Render every document and list what its numbers rest on. What does not exist shows as missing, with its rule.

    Raises: InputError when a file exists but cannot be read, or a cited function is gone.
    """
    documents, evidence = document(ask, provenance)
    for path, text in documents.items():
        write_text(path, text)
        print(
            f"{path}: {text.count('missing: ')} lookups are missing, {text.count(FILL_IN)} places are left to the group"
        )
    for path, words in evidence["unbound"].items():
        print(f"{path}: no result bears out the figures in {', '.join(map(repr, words))}")
    write_json(evidence_path, evidence)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        write_journal(read_ask(snakemake.params, snakemake.config), snakemake.output.evidence, provenance)
