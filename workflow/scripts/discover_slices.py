"""Find slices nobody named on which the champion is weak: searched on one half of valid, confirmed on the other.

Reads: the champion's predictions on valid and test with its sidecar (threshold), attributes, embeddings and tables of
       both splits.
Writes: discovered.json. `candidates`: what the searches brought up, with their figures on the half that found them, on
        the half that judged them, on valid and on test; `confirmed`: those that chance does not explain, worst first.
"""

from collections.abc import Mapping
from typing import Any

from threadpoolctl import threadpool_limits

from pcam.discovery import Candidate, discover, distinct, halves_of, judge, least_groups
from pcam.files import InputError, read_json, write_json
from pcam.settings import DiscoverySettings, EvaluationSettings, from_mapping
from pcam.stage import run_stage, say
from pcam.weak_slices import Part, Slice, describe, examples, free_of_answer, hidden, looks, read_part


def look_again(test: Part, found: Slice, rules: DiscoverySettings) -> dict[str, Any]:
    """The same test on test, which decides nothing: null where it holds too few patches of the slice."""
    if test.members(found).sum() < rules.minimum_n:
        return {"z": None, "p": None, "note": f"too few (n < {rules.minimum_n})"}
    _, z, p, note = judge(test, [found], rules.seed)
    return {"z": float(z[0]), "p": float(p[0]), "note": note}


def discover_slices(
    paths: Mapping[str, Mapping[str, str]],
    sidecar_path: str,
    out_path: str,
    *,
    rules: DiscoverySettings,
    evaluation: EvaluationSettings,
    provenance: Mapping[str, Any],
) -> None:
    """Nothing is chosen on test. Raises: InputError when files do not fit each other, or no threshold was chosen."""
    threshold = read_json(sidecar_path)["threshold"]
    if threshold is None:
        raise InputError(f"{sidecar_path}: holds no threshold; choose it on valid first (rule choose_threshold)")
    valid, test = free_of_answer(*(read_part(paths[split]) for split in ("valid", "test")))
    first, second = halves_of(valid.groups, rules.seed)
    halves = valid.at(first), valid.at(second)
    candidates, looked_at = discover(halves, rules)
    confirmed = distinct(halves, candidates, rules)

    def told(found: Candidate) -> dict[str, Any]:
        one, other = halves[found.searched], halves[1 - found.searched]
        parts = {"search": one, "confirm": other, "valid": valid, "test": test}
        document = {name: describe(part, found.slice, threshold, evaluation) for name, part in parts.items()}
        document["search"]["z"] = found.search_z
        document["confirm"] |= {
            "z": found.z,
            "p": found.p,
            "p_corrected": found.p_corrected,
            "groups": found.groups,
            "note": found.note,
        }
        inside = {"valid": valid.members(found.slice), "test": test.members(found.slice)}
        document["test"] |= look_again(test, found.slice, rules)
        return {
            **found.slice.as_document(looks(valid, found.slice)),
            "confirmed": found.confirmed,
            **document,
            "global_roc_auc": {"valid": hidden(valid, inside["valid"]), "test": hidden(test, inside["test"])},
            "examples": examples(test, inside["test"]),
        }

    for found in confirmed:
        say(f"weak slice: {found.slice.words()}, corrected p {found.p_corrected:.2g}")
    write_json(
        out_path,
        {
            "confirmed": [told(found) for found in confirmed],
            "candidates": [told(found) for found in candidates],
            "searched": looked_at,
            "halves": [
                {"n": len(half.rows), "positives": int(half.labels.sum()), "groups": half.groups.count}
                for half in halves
            ],
            "group": valid.groups.noun,
            "least_groups": least_groups(rules),
            "level": rules.level,
            "minimum_n": rules.minimum_n,
            "threshold": threshold,
            "provenance": provenance,
        },
    )


if __name__ == "__main__":
    # One thread, so that no sum depends on how many there are.
    with run_stage(snakemake) as provenance, threadpool_limits(1):
        discover_slices(
            {
                split: {name: snakemake.input[f"{name}_{split}"]
                        for name in ("predictions", "rows", "attributes", "embedding")}
                for split in ("valid", "test")
            },
            snakemake.input.sidecar,
            snakemake.output[0],
            rules=from_mapping(DiscoverySettings, snakemake.params.discovery),
            evaluation=from_mapping(EvaluationSettings, snakemake.params.evaluation),
            provenance=provenance,
        )  # fmt: skip
