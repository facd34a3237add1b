"""Stop the run when a verdict is fail, and say what to write in the config.

Reads:  verdicts.json.
Writes: gate.json when every kind passed, was repaired or is waived.
"""

from collections.abc import Mapping

from pcam.files import InputError, read_json, write_json
from pcam.stage import run_stage

PASSING = ("pass", "repaired", "waived", "kept", "unknown")


def way_out(kind: str) -> str:
    """What the user can write or do about a failed kind."""
    waiver = f"audit.policy.{kind}: keep with a reason in audit.waive.{kind}"
    if kind == "swapped_split":
        return "give the files back their published names, or write a reason in audit.waive.swapped_split"
    if kind == "same_content":
        return "give each split its own file, or write a reason in audit.waive.same_content"
    if kind == "emptied_class":
        return "write audit.policy.<kind>: keep with a reason in audit.waive.<kind> for a kind that drops these patches"
    if kind == "float_storage":
        return f"write audit.policy.float_storage: convert and drop the patches that do not fit, or {waiver}"
    return f"write audit.policy.{kind}: drop, or {waiver}"


def gate_audit(verdicts_path: str, gate_path: str, *, provenance: Mapping[str, object]) -> None:
    """Raises: InputError naming every failed kind, its reason and the way out."""
    verdicts = {kind: verdict for kind, verdict in read_json(verdicts_path).items() if kind != "provenance"}
    failed = {kind: verdict for kind, verdict in verdicts.items() if verdict["verdict"] not in PASSING}
    if failed:
        told = " | ".join(f"{kind}: {verdict['reason']}; {way_out(kind)}" for kind, verdict in failed.items())
        raise InputError(f"{verdicts_path}: the audit stops the run on {len(failed)} of {len(verdicts)} kinds. {told}")
    kinds = {kind: verdict["verdict"] for kind, verdict in verdicts.items()}
    write_json(gate_path, {"open": True, "kinds": kinds, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        gate_audit(snakemake.input.verdicts, snakemake.output.gate, provenance=provenance)
