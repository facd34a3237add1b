"""What the journal says of question 1: sources of randomness, what each control is worth, the twin run.

Every function takes evidence (see documents.open_evidence); where it is missing, what it gives renders as missing.
"""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from pcam.documents import Missing, counted, is_measured, words
from pcam.rendering import code, in_markdown

Rows = list[list[Any]] | Missing

# Where randomness enters, and what it does there when nobody holds it.
SOURCES = (
    ("weight initialisation", "build_model draws from torch's global generator", "every weight from the start"),
    ("sampling order", "epoch_order deals the training patches anew for each epoch", "which patches share a batch"),
    ("augmentation", "each patch of a batch gets one of the square's eight symmetries", "the pixels of a step"),
    ("dropout", "masks come from torch's global generator", "which units a step trains"),
    ("loader workers", "threads gather batches ahead; scheduling decides which thread gets which batch",
     "draws, as soon as a thread has a generator of its own"),
    ("thread count", "sums over pixels and patches are split between threads", "the order of summation, so rounding"),
    ("kernels of a GPU", "some add up in whatever order their blocks finish", "rounding, anew in each run"),
    ("autotuner of a GPU", "cuDNN times its algorithms and takes what is fastest now", "which algorithm, so rounding"),
    ("precision", "bfloat16 and TF32 keep fewer digits", "the digits lost in each product"),
    ("interruption", "a killed run goes on from a saved state", "all later draws, if their state was not saved"),
)  # fmt: skip

# How a control is fixed, and what that costs in words: none of these costs was measured.
CONTROLS = {
    "all controls on": ("every result of the workflow is made so", "those below"),
    "global seeds": (
        "Python, numpy and torch are seeded before the model is built, torch anew before each step (seed_everything, "
        "seed_dropout)",
        "a seeding a step",
    ),
    "sampler generator": ("a function of seed and epoch alone (epoch_order)", "none"),
    "worker seeding": (
        "workers draw nothing of their own: a draw belongs to its step, not to its thread",
        "a generator a step",
    ),
    "deterministic kernels": (
        "demanded of torch and cuDNN, with a fixed cuBLAS workspace; an operation that has none stops the run "
        "(fix_device)",
        "slower kernels on a GPU; none known on a CPU",
    ),
    "thread count": (
        "train.threads from the config, whatever --cores is (fix_device)",
        "one job uses few cores; jobs run in parallel",
    ),
    "augmentation generator": ("a function of seed, epoch and step (generator_for)", "a generator a step"),
    "autotuner": ("off (fix_device)", "on a GPU, the fastest algorithm may not be the one taken"),
    "mixed precision": ("train.precision from the config; TF32 off (fix_device)", "slower products on a GPU"),
}


def source_rows(fingerprint: Any) -> Rows:
    """Every source with the place where it enters; hardware and versions as this run's training had them."""
    device, versions = fingerprint.device, fingerprint.versions
    if isinstance(device, Missing):
        return device
    chip = f"{device.accelerator}, beside " if device.accelerator else ""
    threads = counted(device.threads, "thread")
    hardware = f"{chip}{device.processor} ({device.machine}), {device.vector_kernels} kernels, {threads}"
    known = ", ".join(
        f"{words(name)} {versions[name]}" for name in versions if versions[name] and name != "torch_commit"
    )
    return [
        *(list(source) for source in SOURCES),
        ["hardware", f"this training: {hardware}", "which kernels are chosen, so rounding"],
        ["versions", f"this training: {known}", "anything; pinned in requirements.txt"],
    ]


def effect_of(row: Any) -> str:
    """What two trainings with this control off did, or, in the first row, with all on."""
    if row.diverged == "yes":
        states = f" ({row.state_a} against {row.state_b})" if row.state_a != row.state_b else ""
        return (
            f"part at step {row.first_step}{states}; losses up to {row.loss_difference:.1e}, weights up to "
            f"{row.weight_difference:.1e} apart"
        )
    same = f"the same bits in all {row.steps} steps and in the weights"
    return f"{same}: {row.observable}" if row.observable.startswith("not") else same


def control_rows(determinism: Any) -> Rows:
    """How each control is fixed, what switching it off did in two trainings, and its cost in words."""
    if isinstance(determinism, Missing):
        return determinism
    rows: list[list[Any]] = []
    for row in determinism:
        how, cost = CONTROLS[row.control]
        rows.append([row.control, how, effect_of(row), cost])
    return rows


def audit_sentence(runs: Any) -> Any:
    """The audit's finding with what it was made on; in bold when the audit does not hold."""
    if not is_measured(runs.sentence):
        return runs.sentence
    recipe = runs.recipe
    budget = (
        f"Each row of the table is two trainings in fresh processes ({recipe.model} of width {recipe.width}, "
        f"{runs.patches} patches, {counted(recipe.epochs, 'epoch')}, dropout {recipe.dropout:g}, seed {runs.seed}), "
        "compared to the bit: loss and gradient norm of every step, and the weights at the end."
    )
    if runs.audit_holds:
        return f"{budget} {runs.sentence[0].upper()}{runs.sentence[1:]}."
    return Markup(f"{in_markdown(budget)} **The audit does not hold: {in_markdown(runs.sentence)}.**")


def gpu_sentence(runs: Any) -> Any:
    """What this device cannot show, and what stays open on a GPU."""
    device = runs.torch_device
    if not is_measured(device):
        return device
    left = "Between two models of GPU, or two versions of CUDA or cuDNN, nothing controls the bits; expect others."
    if device == "cpu":
        return (
            "This run had no GPU: what is said of a GPU's kernels, autotuner, TF32 and cuBLAS workspace is set by the "
            f"same code and was not measured on this device. {left}"
        )
    return left


def twin_sentences(twin: Any) -> list[Any]:
    """The verdict on the twin, and the first difference where there is one."""
    if not is_measured(twin.verdict):
        return [twin.verdict]
    jobs = f"{twin.jobs.first} and {twin.jobs.twin}"
    told = in_markdown(f"Seed {twin.seed} of the variant {twin.variant} was trained twice, by the jobs {jobs}")
    sentences: list[Any] = [Markup(f"{told}, each a process of its own: **{in_markdown(twin.verdict)}**.")]
    first = twin.first_difference
    if first is not None:
        place = ", ".join(f"{key} {first[key]}" for key in ("epoch", "step", "row") if key in first)
        name = first.column if "column" in first else first.tensor
        size = f"by {first.size:.1e}" if first.size is not None else "in what is no finite number"
        sentences.append(f"They part first in {first['in']}, {name}{f' of {place}' if place else ''}, {size}.")
    return sentences


def twin_rows(twin: Any) -> Rows:
    """Every comparison: values, how many differ, and by how much at most."""
    if isinstance(twin.compared, Missing):
        return twin.compared
    rows = []
    for name in twin.compared:
        found = twin.compared[name]
        apart = f"{found.largest_difference:.0f}, the same bits" if found.equal else f"{found.largest_difference:.1e}"
        rows.append([name, found["values"], found.differing, apart])
    return rows


def hash_rows(twin: Any, fingerprint: Any) -> Rows:
    """What a teammate compares: hashes of the results, digests of what they came from."""
    if isinstance(fingerprint.hashes, Missing):
        return fingerprint.hashes
    rows: list[list[Any]] = [[f"{name} (sha256)", code(fingerprint.hashes[name])] for name in fingerprint.hashes]
    rows += [[f"{cause} (digest)", code(fingerprint[cause].digest)] for cause in ("data", "config", "code")]
    if isinstance(twin.weights, Missing):
        return [*rows, ["weights of the twin (sha256)", twin.weights]]
    return [rows[0], ["weights of the twin (sha256)", code(twin.weights.twin)], *rows[1:]]


def teammate_sentence(twin: Any) -> Any:
    """The verdict on a teammate's fingerprint, or that none was given."""
    if isinstance(twin.teammate, Missing):
        return twin.teammate
    if twin.teammate is None:
        return (
            "No teammate's run was compared: reproducibility.fingerprint is null. Set to the fingerprint.json of a "
            "teammate's run of the same config, the next run says whether the bits agree, and what differs first."
        )
    return Markup(f"Compared with a teammate's fingerprint.json: **{in_markdown(twin.teammate.verdict)}**.")


def reproducibility_answers(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of question 1."""
    runs, twin, fingerprint = found["determinism_runs"], found["twin"], found["fingerprint"]
    return {
        "source_table": source_rows(fingerprint),
        "control_table": control_rows(found["determinism"]),
        "controls_sentence": audit_sentence(runs),
        "gpu_sentence": gpu_sentence(runs),
        "twin_sentences": twin_sentences(twin),
        "twin_table": twin_rows(twin),
        "hash_table": hash_rows(twin, fingerprint),
        "teammate_sentence": teammate_sentence(twin),
    }
