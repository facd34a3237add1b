"""The documents say what the results say: nothing typed, nothing invented, nothing loaded from elsewhere."""

import copy
import json
import random
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from audit_evidence import audit_evidence
from benchmark_evidence import SHOWN as SHOWN_OF_BENCHMARK
from benchmark_evidence import benchmark_results
from build_report import build_report
from check_submission import ITEMS, check_members
from collaboration_evidence import SHOWN as SHOWN_OF_COLLABORATION
from collaboration_evidence import collaboration_results
from dynamics_evidence import dynamics_evidence
from errors_evidence import SHOWN as SHOWN_OF_ERRORS
from errors_evidence import errors_results
from plot_patches import groups_of, spread
from results_evidence import over_seeds, results_evidence
from write_journal import write_journal

from pcam.answers_collaboration import listed
from pcam.answers_tuning import rung_rows
from pcam.binding import cited_tree, take_marks, unmarked
from pcam.documents import Missing, Source, cell, mean_sd, merge_answers, open_evidence
from pcam.figures import drawing
from pcam.files import InputError, read_json, write_csv, write_json, write_text
from pcam.journal import Ask, triple
from pcam.provenance import ROOT
from pcam.rendering import escape_markdown

# The course's template: every heading, in its order.
HEADINGS = """\
# Assignment 2: MLOps & PCAM Pipeline Journal
**MLOps & ML Programming (2026)**
## Group Information
* **Group Number:**
* **Team Members:**
* **GitHub Repository:**
* **Base Setup Chosen from Assignment 1:**
## Question 1: Reproducibility Audit
1. **Sources of Non-Determinism:**
2. **Control Measures:**
3. **Code Snippets for Reproducibility:**
4. **Twin Run Results:**
## Question 2: Data, Partitioning, and Leakage Audit
1. **Partitioning Strategy:**
2. **Leakage Prevention:**
3. **Cross-Validation Reflection:**
4. **The Dataset Size Mystery:**
5. **Poisoning Analysis:**
## Question 3: Configuration Management
1. **Centralized Parameters:**
2. **Loading Mechanism:**
3. **Impact Analysis:**
4. **Remaining Risks:**
## Question 4: Gradients & LR Scheduler
1. **Internal Dynamics:**
2. **Learning Rate Scheduling:**
## Question 5: Part 1 - Experiment Tracking
1. **Metrics Choice:**
2. **Results (Average of 3 Seeds):**
3. **Logging Scalability:**
4. **Tracker Initialization:**
5. **Evidence of Logging:**
6. **Reproduction & Checkpoint Usage:**
7. **Deployment Issues:**
## Question 5: Part 2 - Hyperparameter Optimization
1. **Search Space:**
2. **Visualization:**
3. **The "Champion" Model:**
4. **Thresholding Logic:**
5. **Baseline Comparison:**
## Question 6: Model Slicing & Error Analysis
1. **Visual Error Patterns:**
2. **The "Slice":**
3. **Risks of Silent Failure:**
## Question 7: Team Collaboration and CI/CD
1. **Consolidation Strategy:**
2. **Collaborative Flow:**
3. **CI Audit:**
4. **Merge Conflict Resolution:**
5. **Branching Discipline:**
## Question 8: Benchmarking Infrastructure
1. **Throughput Logic:**
2. **Throughput Table (Batch Size 1):**
3. **Scaling Analysis:**
4. **Bottleneck Identification:**
## Question 9: Documentation & README
1. **README Link:**
2. **README Sections:**
3. **Offline Handover:**
## Final Submission Checklist
- [ ] Group repository link provided?
- [ ] Best model checkpoint pushed to GitHub?
- [ ] inference.py script included and functional?
- [ ] All Slurm scripts included in the repository?
- [ ] All images use relative paths (assets/)?
- [ ] Names and IDs of all members on the first page?""".splitlines()
TEMPLATE_LINE = re.compile(r"#{1,2} .*|\*\*MLOps.*|[*] \*\*[^*]+:\*\*|\d\. \*\*[^*]+:\*\*|- \[[ x]\] .*")

PROVENANCE = {
    "rule": "r",
    "commit": "0123456789abcdef",
    "dirty": False,
    "code": "c",
    "device": "a CPU",
    "python": "3.11",
}
CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
RUNS = [("baseline", 0), ("baseline", 1), ("tuned", 0), ("tuned", 1)]
PICTURES = (
    "shift",
    "leakage",
    "patches",
    "poison",
    "audit_score",
    "determinism",
    "training-baseline",
    "training-tuned",
    "spikes",
    "schedules",
    "evaluation",
    "search",
    "search-parallel",
    "deployment",
    "drift",
    "errors",
    "attention",
    "error-patterns",
    "slices",
    "discovered",
    "silent",
    "history",
    "throughput",
)
PLANNED = ("bundle", "verification")
TEMPLATES = ROOT / "workflow" / "report"
DOCUMENTS = ("journal", "model_card", "data_card")
CUTS = {
    "determinism": {"path": "workflow/scripts/pcam/determinism.py", "name": "fix_device"},
    "seeds": {"path": "workflow/scripts/pcam/determinism.py", "name": "seed_everything"},
    "order": {"path": "workflow/scripts/pcam/determinism.py", "name": "epoch_order"},
    "dropout": {"path": "workflow/scripts/pcam/determinism.py", "name": "seed_dropout"},
    "augmentation": {"path": "workflow/scripts/pcam/batches.py", "name": "_generator"},
    "config": {"path": "workflow/scripts/pcam/settings.py", "name": "read_config"},
    "tracker": {"path": "workflow/scripts/pcam/tracking.py", "calling": "MlflowClient"},
}
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000" "1f15c4890000000d49444154789c6360606060000000050001"
    "a5f645400000000049454e44ae426082"
)  # fmt: skip


def results() -> dict:
    """One small result of every kind, each number its own."""
    test = {"file": "test", "n": 41, "positives": 17, "slides": 0, "groups": 2}
    return {
        **audit_evidence(),
        **dynamics_evidence(),
        **results_evidence(),
        "patches": [
            ("split", "row", "label", "keep", "defects"),
            ("train", 0, 1, 1, ""),
            ("train", 1, 0, 0, "blackout"),
        ],
        "verdicts": {
            "blackout": {"verdict": "repaired", "reason": "6 dropped"},
            "overlap": {"verdict": "waived", "reason": "kept because: too many"},
            "float_storage": {"verdict": "pass", "reason": "all as uint8"},
            "prior_shift": {"verdict": "kept", "reason": "a suspicion"},
        },
        "gate": {
            "open": True,
            "kinds": {"blackout": "repaired", "overlap": "waived", "prior_shift": "kept", "float_storage": "pass"},
        },
        "splits": {
            **{name: {**test, "file": name} for name in ("train", "valid", "test")},
            "unlabelled": {**test, "n": 0},
            "test_carved_from_valid": False,
        },
        "determinism": [
            (
                *("control", "state_a", "state_b", "observable", "diverged", "first_step", "steps"),
                *("weight_difference", "loss_difference", "runs", "device"),
            ),
            ("all controls on", "on", "on", "reference", "no", "", 16, 0.0, 0.0, 2, "a CPU"),
            ("thread count", 1, 2, "yes", "yes", 5, 16, 3.3e-07, 4.6e-06, 2, "a CPU"),
            ("autotuner", "on", "on", "not observable on this device", "no", "", 16, 0.0, 0.0, 2, "a CPU"),
        ],
        "determinism_runs": {
            "audit_holds": True,
            "sentence": "six of eight controls, switched off, made two trainings part",
            "torch_device": "cpu",
            "seed": 0,
            "patches": 257,
            "recipe": {"model": "resnet", "width": 16, "epochs": 2, "dropout": 0.2},
        },
        "twin": {
            "variant": "baseline",
            "seed": 0,
            "same_bits": True,
            "verdict": "the same bits, with equal versions, device, data, config and code",
            "first_difference": None,
            "compared": {
                name: {"equal": True, "values": 5271 + i, "differing": 0, "largest_difference": 0.0}
                for i, name in enumerate(("weights", "losses", "steps", "layers", "history", "predictions"))
            },
            "jobs": {"first": "train_seed", "twin": "train_twin"},
            "weights": {"first": "feed01", "twin": "feed01"},
            "teammate": None,
        },
        "fingerprint": {
            "hashes": {"weights": "feed01", "losses": "feed02", "predictions": "feed03"},
            "versions": {"python": "3.11.7", "torch": "2.13.0+cpu", "torch_commit": "c0ffee", "cuda": None},
            "device": {
                "torch_device": "cpu",
                "accelerator": None,
                "processor": "a CPU",
                "machine": "x86_64",
                "vector_kernels": "AVX512",
                "threads": 1,
            },
            **{cause: {"digest": f"feed1{i}"} for i, cause in enumerate(("data", "config", "code"))},
        },
        "normalisation": {"mean": [0.61, 0.62, 0.63], "std": [0.2, 0.2, 0.2], "n": 77},
        "slices": [
            (
                "slice",
                "value",
                "n",
                "positives",
                "metric",
                "estimate",
                "low",
                "high",
                "gap",
                "gap_low",
                "gap_high",
                "p",
                "p_corrected",
                "status",
            ),
            ("brightness", "q1", 31, 11, "roc_auc", 0.654, 0.5, 0.8, -0.14, -0.3, 0.02, 0.02, 0.63, "ok"),
            ("slide", "<script>alert(1)</script>|x", 5, 0, "roc_auc", *[""] * 8, "undefined: no positives"),
        ],
        **errors_results(),
        **benchmark_results(),
        **collaboration_results(),
        "onnx": {
            "patches": 37,
            "largest_logit_difference": 2.9e-06,
            "largest_probability_difference": 6.1e-07,
            "decisions_that_differ": 0,
            "tolerance": 1e-03,
        },
        "environment": {
            "python": "3.11.0",
            "device": "a CPU",
            "accelerator": None,
            "git": {"commit": "01", "dirty": False},
            "packages": {"torch": {}},
            "unpinned": [],
            "differing": [],
            "variables": {"OMP_WAIT_POLICY": None},
            "files": {"README.md": True},
            "readme_sections": {"Training": True},
            "inference_files": ["inference.py"],
        },
        "checklist": {
            "items": [
                {"item": item, "ok": i == 2, "found": "seen", "todo": None if i == 2 else "do it"}
                for i, item in enumerate(ITEMS)
            ],
            "open": 5,
        },
        **{
            f"steps {variant} {seed}": [
                ("step", "epoch", "loss", "learning_rate", "grad_norm"),
                (0, 1, 0.7, 0.001, 1.5),
                (1, 1, 0.6, 0.002, 4.5),
            ]
            for variant, seed in RUNS
        },
        **{f"history {variant} {seed}": [("epoch", "train_loss"), (1, 0.65)] for variant, seed in RUNS},
    }


class Shape(HTMLParser):
    """What a page consists of: its elements with their attributes' names, in order, its addresses, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.addresses: list[str | None] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.addresses += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] not in ("script", "style"):
            self.text += data


class Run:
    """A results folder written from `results()`, and the documents of it."""

    def __init__(self, folder: Path, content: dict | None = None) -> None:
        self.folder, self.content = folder, results() if content is None else content
        self.config = copy.deepcopy(CONFIG)
        self.config["variants"] = {"baseline": {}, "constant_lr": {"schedule": "constant"}}
        self.label = "SYNTHETIC SAMPLE"
        self.sources = {}
        for name in results():
            suffix = "csv" if isinstance(results()[name], list) else "json"
            self.sources[name] = Source(str(folder / f"{name.replace(' ', '-')}.{suffix}"), f"make_{name.split()[0]}")
        for name in PICTURES:
            self.sources[f"picture {name}"] = Source(str(folder / "assets" / f"{name}.png"), "plot")
            self.sources[f"caption {name}"] = Source(str(folder / "assets" / f"{name}.txt"), "plot")
        for name in PLANNED:
            self.sources[f"planned {name}"] = Source(str(folder / f"planned-{name}.json"), f"measure_{name}")

    def write(self) -> None:
        for name, value in self.content.items():
            if isinstance(value, list):
                write_csv(self.sources[name].path, value[0], value[1:])
            else:
                write_json(self.sources[name].path, {**value, "provenance": PROVENANCE})
        for name in PICTURES if len(self.content) > 1 else ():
            (self.folder / "assets").mkdir(exist_ok=True)
            Path(self.sources[f"picture {name}"].path).write_bytes(PIXEL)
            write_text(self.sources[f"caption {name}"].path, f"What {name} shows.\n")

    def journal(self) -> str:
        self.write()
        return self.render()

    def ask(self) -> Ask:
        self.config["data"]["source"] = "sample" if self.label == "SYNTHETIC SAMPLE" else "directory"
        templates = {str(self.folder / f"{name}.md"): str(TEMPLATES / f"{name}.md.j2") for name in DOCUMENTS}
        return Ask(templates, self.sources, {}, CUTS, str(ROOT), self.config, self.label, RUNS)

    def render(self) -> str:
        write_journal(self.ask(), str(self.folder / "evidence.json"), PROVENANCE)
        loose = self.evidence()["unbound"]
        assert not loose, "\n".join(map(str, loose.items()))
        return (self.folder / "journal.md").read_text()

    def evidence(self) -> dict[str, Any]:
        return read_json(self.folder / "evidence.json")

    def page(self, plots: dict[str, Any] | None = None) -> str:
        """The report, without live plots unless some are given."""
        self.journal()
        path = self.folder / "report.html"
        build_report(
            str(TEMPLATES / "report.html.j2"), str(self.folder / "journal.md"), str(self.folder / "evidence.json"),
            [self.sources[f"picture {name}"].path for name in PICTURES], plots or {}, str(path),
            data_label=self.label, provenance=PROVENANCE,
        )  # fmt: skip
        return path.read_text()

    def screen(self, title: str) -> tuple[str, str]:
        """Head and state of a statement on the first screen."""
        self.journal()
        verdict = next(verdict for verdict in self.evidence()["verdicts"] if verdict["title"] == title)
        return verdict["head"]["text"], verdict["state"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def headings_of(text: str) -> list[str]:
    """The template's lines in a journal: code is left out, and what follows a label."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = [match[0] for line in text.splitlines() if (match := TEMPLATE_LINE.match(line))]
    return [line.replace("- [x]", "- [ ]") for line in found]


def test_the_journal_has_the_template_s_headings_word_for_word_and_in_order(run: Run) -> None:
    assert headings_of(run.journal()) == HEADINGS


def test_the_journal_s_contents_lead_to_every_section(run: Run) -> None:
    text = run.journal()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)[1:]  # the group's own table needs no way to it
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]  # as GitHub
    contents = next(line for line in text.splitlines() if line.startswith("Contents: "))
    assert re.findall(r"\]\(#([^)]+)\)", contents) == anchors


def test_the_kept_headings_are_those_of_the_template_where_it_is_at_hand() -> None:
    template = ROOT.parent / "shared" / "journal-template.md"
    if not template.is_file():
        pytest.skip("the course's template is not at hand")
    assert headings_of(template.read_text()) == HEADINGS


def test_without_any_result_the_journal_says_missing_and_gives_no_number(tmp_path: Path) -> None:
    run = Run(tmp_path, content={})
    text = run.journal()
    assert "".join(headings_of(text)).replace("[x]", "[ ]").startswith("".join(HEADINGS[:-6]))
    for name in ("checksums", "storage", "leakage", "labels", "shift", "folds", "leaking", "score"):
        assert f"missing: {escape_markdown(run.sources[name].path)}" in text
    for name in ("seeds", "splits", "poison", "champion", "throughput", "checklist", "environment"):
        assert f"missing: {escape_markdown(run.sources[name].path)}" in text
    # Of numbers there remain headings, code, file names, the config and words such as Q5 or uint8.
    own = re.sub(
        r"```.*?```|`[^`]*`|missing: \S+|^[|].*$|^#.*$|^\*\*MLOps.*$|^> .*$", "", text, flags=re.DOTALL | re.MULTILINE
    )
    own = "\n".join(re.sub(r"^\d\. \*\*.*?\*\*|^\* \*\*.*?\*\*", "", line) for line in own.splitlines())
    assert not re.findall(r"(?<![\w/.-])\d+[.,]\d+(?!\w)", own.replace(f"beta {CONFIG['threshold']['beta']:.1f}", ""))


def paths_of_numbers(value: object, at: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [path for key, below in value.items() for path in paths_of_numbers(below, (*at, key))]
    if isinstance(value, list | tuple):
        return [path for i, below in enumerate(value) for path in paths_of_numbers(below, (*at, i))]
    return [at] if isinstance(value, int | float) and not isinstance(value, bool) else []


SHOWN = [
    ("seeds", "baseline", "test", "roc_auc", "mean"), ("seeds", "baseline", "test", "f_beta", "mean"),
    ("seeds", "baseline", "test", "pr_auc", "sd"), ("seeds", "baseline", "test", "brier", "interval", 0),
    ("seeds", "tuned", "valid", "precision", "mean"), ("seeds", "baseline", "test", "f_beta", "values", 1),
    ("seeds", "differences", "tuned", "test", "roc_auc", "mean"),
    ("baselines", "always_tumour", "test", "f_beta"),
    ("baselines", "colour_histogram", "test", "estimates", "roc_auc", "value"),
    ("baselines", "train_majority", "test", "estimates", "pr_auc", "low"),
    ("evaluation", "test", "metrics", "roc_auc", "value"), ("evaluation", "valid", "metrics", "log_loss", "high"),
    ("evaluation", "test", "metrics", "ece", "null_high"), ("evaluation", "test", "confusion", "missed"),
    ("evaluation", "test", "per_1000", "missed", "value"), ("evaluation", "calibration", "test", "after", "ece"),
    ("coverage", "cases", 0, "covered"), ("coverage", "draws"), ("prior_effect", "priors", "train", "prior"),
    ("prior_effect", "priors", "test", "threshold"), ("prior_effect", "priors", "valid", "on_test", "f_beta"),
    ("recipe", "chosen", "value"), ("recipe", "importance", "width"), ("selection", "candidates", 1, "values", 0),
    ("champion", "temperature"), ("champion", "threshold_rule", "interval", 1), ("stress", "n"),
    ("stress", "issues", 0, "points", 2, "flipped"), ("stress", "issues", 0, "points", 2, "roc_auc", "low"),
    ("runs", "logged", "values"), ("runs", "registered", "version"),
    ("storage", "files", 0, "bytes_on_disk"), ("storage", "files", 0, "factor"),
    ("storage", "files", 0, "bytes_data"), ("storage", "files", 0, "bytes_structure"),
    ("storage", "files", 0, "bytes_expected"), ("storage", "files", 0, "saving_as_uint8"),
    ("storage", "files", 0, "bytes_gzip_estimate"), ("storage", "files", 0, "gzip_patches_measured"),
    ("leakage", "findings", 0, "n"), ("leakage", "pairs", "overlap", "train-train"), ("leakage", "group_sizes", "2"),
    ("leakage", "class_mix", "overlap", "mixed"), ("leakage", "clusters", 0, "size"),
    ("leakage", "coordinates", "pairs"),
    ("leakage", "coordinates", "pairs_confirmed"), ("leakage", "method", "patches_compared"),
    ("leakage", "findings", 1, "of_which_blank"),
    ("poison", "findings", 0, "n"), ("poison", "findings", 0, "rate"), ("poison", "findings", 0, "rows", 1),
    ("poison", "stamps", 0, "patches"), ("poison", "by_class", 0, "n", 0), ("poison", "by_class", 0, "p_holm"),
    ("labels", "splits", "train", "roc_auc"), ("labels", "planted", 0, "precision", "mean"),
    ("labels", "findings", 0, "n"),
    ("labels", "most_suspicious", 0, "score"), ("labels", "splits", "train", "classes", "0", "flip_rate"),
    ("shift", "prior", "splits", "train", "share"), ("shift", "pairs", 0, "two_sample", "roc_auc"),
    ("shift", "findings", 0, "effect"), ("shift", "slides", "slides", "train"),
    ("shift", "slides", "hospitals", "train", "UMCU"), ("checksums", "files", 0, "labels", 1),
    ("score", "planted", 0, "recall"), ("score", "planted", 1, "recall"), ("score", "limits", 0, "limit"),
    ("score", "kinds", "blackout", "found"),
    ("folds", "schemes", "grouped", "spread", "between_folds", "sd"), ("folds", "optimism_of_random_folds", "mean"),
    ("leaking", "variants", "baseline", "without", "roc_auc"), ("leaking", "n_leaking"),
    ("leaking", "variants", "baseline", "difference", "value"),
    ("determinism", 2, 5), ("determinism", 2, 7), ("determinism", 2, 8), ("determinism_runs", "patches"),
    ("twin", "compared", "losses", "values"), ("twin", "compared", "weights", "differing"),
    ("fingerprint", "device", "threads"),
    ("splits", "train", "n"), ("splits", "test", "positives"), ("normalisation", "n"), ("normalisation", "mean", 2),
    ("runs", "runs", 0, "metrics"), ("selection", "chosen", "value"), ("champion", "threshold"),
    ("champion", "threshold_rule", "n"), ("champion", "settings", "dropout"), *SHOWN_OF_ERRORS,
    *SHOWN_OF_BENCHMARK, *SHOWN_OF_COLLABORATION, ("spikes", "runs", 0, "steps"), ("onnx", "patches"),
    ("onnx", "largest_logit_difference"), ("onnx", "decisions_that_differ"),
    ("spikes", "runs", 0, "median"), ("spikes", "runs", 1, "largest", "grad_norm"), ("spikes", "runs", 0, "spikes"),
    ("spikes", "runs", 1, "largest", "epoch_median"), ("spikes", "runs", 0, "spikes_in_epoch_largest"),
    ("spikes", "runs", 0, "layers", "stem", "last_epoch"), ("spikes", "runs", 1, "correlation_with_loss"),
    ("spikes", "runs", 0, "false_alarms", "rate"), ("spikes", "neighbours"), ("spikes", "recurring", 0, "row"),
    ("spikes", "batches", "same", 0, "correlation"), ("spike_steps", 1, 2), ("spike_steps", 1, 7),
    ("spike_steps", 1, 14), ("spike_steps", 1, 16), ("schedules", "variants", "baseline", "roc_auc", "mean"),
    ("schedules", "variants", "constant_lr", "loss", "sd"), ("schedules", "comparisons", 0, "mean"),
    ("schedules", "comparisons", 1, "interval", 0), ("schedules", "comparisons", 0, "differences", 1),
    ("schedules", "n_valid"), ("schedules", "roc_auc_standard_error"),
]  # fmt: skip


@pytest.mark.parametrize("shown", [random.Random(4).sample(SHOWN, 16), pytest.param(SHOWN, marks=pytest.mark.slow)],
                         ids=["some", "all"])  # fmt: skip
def test_a_changed_result_changes_the_journal(run: Run, shown: list[tuple[Any, ...]]) -> None:
    before, whole, unseen = run.journal(), run.content, []
    for path in shown:
        run.content = {path[0]: copy.deepcopy(whole[path[0]])}
        at = run.content
        for key in path[:-1]:
            if isinstance(at[key], tuple):
                at[key] = list(at[key])
            at = at[key]
        at[path[-1]] = at[path[-1]] * 1.5 if isinstance(at[path[-1]], float) else at[path[-1]] + 1
        run.write()
        if run.render() == before:
            unseen.append(path)
        run.content = {path[0]: whole[path[0]]}
        run.write()
    assert unseen == []


def test_the_sample_says_so_in_journal_and_on_the_first_screen_and_real_data_do_not(run: Run) -> None:
    assert "SYNTHETIC SAMPLE" in run.journal()[:400]
    assert "SYNTHETIC SAMPLE" in run.page().partition("<nav")[0]
    run.label = "PCam files at hand"
    assert "SYNTHETIC SAMPLE" not in run.page()
    assert "PCam files at hand" in run.page().partition("<nav")[0]


def test_a_model_that_loses_to_always_tumour_is_said_to(run: Run) -> None:
    run.content["seeds"]["baseline"]["test"]["f_beta"] = over_seeds(0.701)
    assert "does not beat always tumour on test: F-beta 0.701 against 0.777" in run.journal()
    assert run.screen("Model against baselines")[1] == "bad"


def test_a_lead_within_the_interval_over_seeds_is_no_lead(run: Run) -> None:
    run.content["seeds"]["baseline"]["test"]["f_beta"] = over_seeds(0.79)
    assert "the two are not told apart" in run.journal()
    assert run.screen("Model against baselines")[1] == "open"


def test_the_first_screen_says_whether_the_probabilities_can_be_taken_at_their_word(run: Run) -> None:
    after = run.content["evaluation"]["calibration"]["test"]["after"]
    for ece, told in ((0.031, "no more than"), (0.118, "more than")):
        after |= {"ece": ece, "null_high": 0.062}
        run.journal()
        texts = [verdict["text"]["text"] for verdict in run.evidence()["verdicts"]]
        assert [text for text in texts if f"off by {ece} on average (ECE on test), {told} chance gives" in text]
    after["null_high"] = None
    run.journal()
    assert "ECE on test" not in str(run.evidence()["verdicts"])


def test_gaps_and_mixes_say_what_their_intervals_rest_on_and_their_level(run: Run) -> None:
    text = run.journal()
    assert "Patches count as independent in the interval of accuracy (too few slides (14))" in text
    assert "claimed by Fisher's exact test; the interval of their gap is Newcombe's" in text
    for column in ("in sd (93 % interval)", "gap to the rest (92 % interval)", "change (91 % interval)"):
        assert column in text
    del run.content["silent"]["interval_level"], run.content["silent"]["mix"]["metrics"]["accuracy"]["note"]
    text = run.journal()
    assert "Patches count as independent in" not in text and "change (interval (missing: " in text


def test_one_seed_reads_undefined(run: Run) -> None:
    run.content["seeds"]["seeds"] = [0]
    seeds = run.content["seeds"]
    for of_split in (seeds["baseline"], seeds["tuned"], seeds["differences"]["tuned"]):
        for split in ("valid", "test"):
            of_split[split] = {metric: over_seeds(0.9, 1) for metric in of_split[split]}
    text = run.journal()
    assert "(one seed: no sd)" in text
    assert "±" not in text.partition("Question 5: Part 1")[2].partition("3. **Logging")[0].replace(
        "mean ± standard", ""
    )
    assert "paired by seed" not in text


def test_a_carved_test_split_is_declared_at_the_top_and_where_it_counts(run: Run) -> None:
    assert "No test labels were at hand" not in run.journal()
    run.content["splits"]["test_carved_from_valid"] = True
    run.content["splits"]["unlabelled"]["n"] = 7
    text = run.journal()
    assert "No test labels were at hand" in text.partition("## Group Information")[0]
    assert "is a part of valid" in text.partition("1. **Partitioning Strategy:**")[2].partition("2. **Leakage")[0]
    assert "the part of valid that was set aside" in text.partition("Results (Average of 3 Seeds)")[2][:300]


def test_without_a_variant_at_another_schedule_the_journal_says_which_to_add_whatever_lies_about(run: Run) -> None:
    answer = run.journal().partition("2. **Learning Rate Scheduling:**")[2].partition("---\n")[0]
    assert "is not told apart from constant on valid" in answer and "not measured in this run" not in answer
    run.config["variants"] = {"baseline": {}, "longer": {"schedule": "constant", "epochs": 90}}
    answer = run.journal().partition("2. **Learning Rate Scheduling:**")[2].partition("---\n")[0]
    assert "**not measured in this run**" in answer and "`constant_lr: {schedule: constant}`" in answer
    assert "0.9449" not in answer


def test_a_waived_defect_is_named_with_its_reason(run: Run) -> None:
    text = run.journal()
    assert "**Waived by name in the config:** overlap" in text
    assert "kept because: too many" in text


def test_what_this_version_does_not_measure_is_said_with_the_rule_that_is_meant_to(run: Run) -> None:
    text = run.journal()
    assert "planned-bundle.json (rule measure\\_bundle)" in text or "(rule measure_bundle)" in text
    assert text.count("**Not measured in this run.**") == 1 and "tried elsewhere" not in text
    assert "no logged run had been rebuilt when this journal was written" in text


def test_the_offline_bundle_shows_its_manifest_and_whether_this_very_archive_was_tried_elsewhere(run: Run) -> None:
    weights = run.content["champion"]["digests"]["weights"]
    manifest = {
        "file": "results/handover/bundle.tar.gz", "bytes": 59_312_345, "sha256": "5eed" * 16, "weights": weights,
        "files": [{"file": "a", "bytes": 1, "sha256": "1"}, {"file": "b", "bytes": 2, "sha256": "2"}],
        "parts": [{"part": "wheels", "files": 9, "bytes": 57_000_001}, {"part": "code", "files": 17, "bytes": 90_007}],
        "wheels": [{"package": "numpy", "version": "2.4.6", "file": "numpy.whl"}],
        "python": "3.11", "platform": "linux-x86_64", "glibc": "2.28",
    }  # fmt: skip
    verdict = {
        "bundle": manifest["sha256"], "network": False, "writable": False, "how": "unshare --net", "tolerance": 1e-3,
        "answers": {"weights.onnx": {"n": 24, "largest_probability_difference": 2.1e-6, "decisions_that_differ": 0}},
    }  # fmt: skip

    def answer() -> str:
        text = run.journal().partition("3. **Offline Handover:**")[2].partition("Without it")[0]
        assert "Not measured" not in text
        return text

    run.content["planned bundle"] = manifest
    text = answer()
    assert "`results/handover/bundle.tar.gz` holds 2 files in 59.3 MB, sha256 5eed5eed" in text
    assert "for linux-x86_64 with glibc 2.28 or newer and Python 3.11" in text and "numpy 2.4.6" in text
    assert "| wheels | 9 | 57,000,001 |" in text and "other weights" not in text
    assert "**It was not tried elsewhere yet:**" in text
    run.content["planned verification"] = verdict
    text = answer()
    assert "where it could not be written to, it installed into a fresh environment without network (unshare" in text
    assert "24 answers of weights.onnx differ by 2.1e-06 at most" in text and "0 decisions are other ones" in text
    run.content["planned verification"] = {**verdict, "network": True, "writable": True}
    assert "could not be kept away" in answer() and "though it could have been written to" in answer()
    run.content["planned verification"] = {**verdict, "bundle": "0ther"}
    assert "**An earlier archive was tried elsewhere, and not this one:**" in answer()
    run.content["planned bundle"] = {**manifest, "weights": "0ther"}
    assert "**It holds other weights than this run's champion**" in answer()


def test_a_reproduction_shows_its_verdict(run: Run) -> None:
    name = "reproduction 0123456789abcdef0123456789abcdef"
    run.sources[name] = Source(str(run.folder / "verdict.json"), "reproduce_run")
    run.content[name] = {
        "run_id": "0123456789abcdef0123456789abcdef",
        "name": "baseline/seed-0",
        "same_bits": False,
        "verdict": "other bits in weights; the first difference is versions (torch: 2.13.0 here, 2.12.0 there)",
    }
    answer = run.journal().partition("6. **Reproduction")[2].partition("7. **Deployment")[0]
    assert "the first difference is versions (torch: 2.13.0 here, 2.12.0 there)" in answer
    assert "no logged run had been rebuilt" not in answer


def test_a_guard_that_warned_before_says_so(run: Run) -> None:
    told = "the guard already warns of the untouched patches"
    assert told not in run.journal()
    run.content["stress"]["issues"][0]["points"][1]["guard"]["note"] = told
    assert f"not caught: 1. {told}. The guard sees sharpness." in run.journal()


def test_weak_slices_stand_on_the_first_screen_and_where_there_is_none_it_says_so(run: Run) -> None:
    assert run.screen("Slices") == ("2 weak slices", "bad")
    run.content["slices_summary"]["claims"] = []
    run.content["discovered"]["confirmed"] = []
    run.content["silent"]["calibration"]["slices"][0]["claimed"] = False
    text = run.journal()
    assert run.screen("Slices") == ("None shown", "good")
    assert "corrected for their number at the level 5 %, none was shown to be more than chance." in text
    assert "at the level 5 % over all." in text and "lies in at least 8 of them. None is confirmed." in text
    assert "no slice was shown to be off, with all of them taken together" in text


def test_changes_that_the_watch_lets_through_are_named_and_where_there_is_none_it_says_so(run: Run) -> None:
    assert "Every change above raises it in at least half of the largest sets" in run.journal()
    for point in run.content["drift"]["shifts"][0]["points"]:
        point["alarms"] = 0.213
    assert "that were measured it notices haematoxylin +25 % (21.3 % of sets of 64)." in run.journal()


def test_speeds_of_a_machine_that_other_work_shared_are_lower_bounds(run: Run) -> None:
    told = "Other work ran beside: speeds are lower bounds"
    machine = run.content["bottleneck"]["machines"][0]
    machine |= {"cpus_allowed": 3, "load_average": {"before": 1.2, "after": 2.9}}
    assert told not in run.journal()
    machine["load_average"]["after"] = 3.4
    assert told in run.journal()


def test_whether_all_of_test_or_slices_alone_are_miscalibrated_is_told_apart(run: Run) -> None:
    rows = run.content["silent"]["calibration"]["slices"]
    whole = {**rows[0], "slice": "all", "value": "", "gap": -0.087, "low": -0.13, "high": -0.04}
    rows.insert(0, whole)
    text = run.journal()
    assert "On all of test the mean probability less the share of tumour is -0.087 (-0.130 to -0.040), which is" in text
    assert "it is off in 1 slice, furthest in slide tumor_003" in text
    whole["claimed"] = False
    assert "(-0.130 to -0.040), which chance can explain." in run.journal()


def test_what_was_not_tested_is_no_good_news(run: Run) -> None:
    run.content["slices_summary"] |= {"claims": [], "tested": 0}
    run.content["discovered"] |= {"confirmed": [], "candidates": [], "searched": [0, 0]}
    run.content["silent"]["calibration"] = {"tested": 0, "slices": []}
    text = run.journal()
    assert run.screen("Slices") == ("Not tested", "open")
    assert "No slice could be compared with the rest of test" in text and "Nothing was searched" in text
    assert "The probabilities of no slice could be tested." in text


def test_a_finding_that_takes_patches_as_independent_says_so_and_one_by_slide_does_not(run: Run) -> None:
    told = "slides that differ from each other can by themselves make such a finding"
    assert run.journal().count(told) == 2
    run.content["slices_summary"]["claims"][0]["note"] = run.content["discovered"]["confirmed"][0]["confirm"][
        "note"
    ] = None
    assert told not in run.journal()


def test_a_slice_that_the_global_figure_shows_is_not_said_to_be_hidden(run: Run) -> None:
    hidden = "one global figure hardly shows it"
    assert hidden in run.journal()
    run.content["discovered"]["confirmed"][0]["global_roc_auc"]["valid"] |= {"without": 0.99, "change": 0.04}
    assert hidden not in run.journal()


def test_a_slice_without_patches_of_test_and_limits_that_keep_nothing_are_told_in_words(run: Run) -> None:
    none = {"value": None, "low": None, "high": None, "note": "no patch"}
    run.content["discovered"]["confirmed"][0]["test"] |= {"n": 0, "error_rate": none}
    run.content["silent"]["selective"]["targets"][0] |= {"limit": None, "coverage": None, "error": None}
    run.content["silent"]["confidence"]["wrong_among_sure"] = none
    for point in run.content["drift"]["sound"]["test"]["points"]:
        point |= {"alarms": None, "low": None, "high": None, "note": "fewer patches than two sets need"}
    answer = run.journal().partition("Nobody")[0].partition("## Question 6")[2]
    assert "Test holds none of its patches." in answer and "no limit on valid leaves any" in answer
    assert "nothing, because fewer patches than two sets need" in answer and "held that sure" not in answer


def test_without_a_wrong_answer_no_share_of_wrong_ones_is_told(run: Run) -> None:
    run.content["silent"]["confidence"]["wrong"]["n"] = 0
    run.content["errors"]["attention"]["maps"] = []
    text = run.journal()
    assert "No answer on test is wrong." in text and "There is no wrong answer to look into." in text


def test_two_answers_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two answers are called b"):
        merge_answers({"a": 1, "b": 2}, {"b": 2})


def test_a_search_that_found_nothing_says_why(run: Run) -> None:
    run.content["recipe"] |= {"chosen": None, "reason": "no trial finished", "importance": None}
    answer = run.journal().partition("Hyperparameter Optimization")[2].partition("## Question 6")[0]
    assert "The search chose nothing: no trial finished." in answer
    assert "round-0/trial-0 (the loss is nan)" in answer


def test_an_interval_that_rests_on_too_few_slides_says_so(run: Run) -> None:
    run.content["evaluation"]["test"]["metrics"]["f_beta"]["note"] = "too few slides (7)"
    assert "too few slides (7)" in run.journal()


def test_the_first_question_is_answered_by_the_twin_run_and_the_audit_of_determinism(run: Run) -> None:
    answer = run.journal().partition("## Question 1")[2].partition("## Question 2")[0]
    assert "part at step 5 (1 against 2); losses up to 4.6e-06, weights up to 3.3e-07 apart" in answer
    assert "Six of eight controls, switched off, made two trainings part." in answer
    assert "**the same bits, with equal versions, device, data, config and code**" in answer
    assert "was not measured on this device" in answer and "missing" not in answer
    for name in ("fix_device", "seed_everything", "epoch_order", "seed_dropout", "_generator"):
        assert f"def {name}(" in answer
    run.content["determinism_runs"]["audit_holds"] = False
    assert "**The audit does not hold: six of eight" in run.journal()


def test_twins_that_differ_are_said_to_and_where_they_part(run: Run) -> None:
    run.content["twin"] |= {
        "same_bits": False,
        "verdict": "other bits in weights, with equal code",
        "first_difference": {"in": "steps", "column": "loss", "step": 3, "size": 0.0123},
    }
    run.content["twin"]["compared"]["weights"] |= {"equal": False, "differing": 7, "largest_difference": 0.021}
    answer = run.journal().partition("## Question 1")[2].partition("## Question 2")[0]
    assert "**other bits in weights, with equal code**" in answer
    assert "They part first in steps, loss of step 3, by 1.2e-02." in answer
    assert re.search(r"\| weights \| 5,271 \| 7 \| 2\.1e-02 \|", answer)
    assert run.screen("Reproducibility") == ("Twin runs: other bits", "bad")


def test_what_a_gpu_would_show_is_open_on_a_cpu_and_said_of_two_gpus_on_one(run: Run) -> None:
    assert "This run had no GPU" in run.journal()
    run.content["determinism_runs"]["torch_device"] = "cuda"
    text = run.journal()
    assert "This run had no GPU" not in text and "Between two models of GPU" in text


def test_no_figure_of_a_result_is_typed_into_a_template() -> None:
    """Headings, definitions and sources of the literature are all that has digits outside expressions."""
    allowed = {"2026", "2018", "1806.03962", "2546921", "0.97", "95", "96", "32", "100", "1,000", "10"}
    for name in DOCUMENTS:
        tokens = jinja2.Environment().lex((TEMPLATES / f"{name}.md.j2").read_text())
        text = "".join(value for _, kind, value in tokens if kind == "data")
        figures = re.findall(r"(?<![\w.,])\d[\d.,]*", re.sub(r"`[^`]*`", "", text))
        typed = {figure.rstrip(".,") for figure in figures} - allowed
        assert all(re.fullmatch(r"\d", figure) for figure in typed), (name, typed)


def test_without_its_results_the_first_question_says_what_is_missing(run: Run) -> None:
    for name in ("determinism", "determinism_runs", "twin", "fingerprint"):
        del run.content[name]
    answer = run.journal().partition("## Question 1")[2].partition("## Question 2")[0]
    for name in ("determinism", "determinism_runs", "twin", "fingerprint"):
        assert escape_markdown(f"missing: {run.sources[name].path}") in answer
    assert "the same bits" not in answer


def test_text_from_data_stays_text(run: Run) -> None:
    run.label = "<script>alert(2)</script>"
    run.config["journal"]["members"] = ["[x](javascript:alert(3)) / *1*"]
    page = re.sub(r"</?data[^>]*>", "", run.page())
    assert "<script>alert" not in page
    assert "javascript:" not in re.sub(r">[^<]*<", "><", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;|x" in page  # a slide's name, its bar no cell's end
    assert "[x](javascript:alert(3)) / *1*" in page


def named(run: Run, texts: Sequence[str]) -> Shape:
    """The page of a run whose data, group and slice call themselves so."""
    run.label, number, member, repository, base, group = texts
    run.config["journal"] = {
        "group_number": number, "members": [member], "repository": repository, "base_setup": base,
    }  # fmt: skip
    run.content["slices"] = [*run.content["slices"][:-1], ("slide", group, *run.content["slices"][-1][2:])]
    return Shape(run.page())


def test_what_people_and_data_call_themselves_is_shown_as_it_stands(tmp_path: Path) -> None:
    """No element, attribute, address or heading comes of it, and no letter of it is lost.

    Each text has a digit, the plain one too: such a text is bound like a number.
    """
    texts = [
        "<img src=x onerror=alert(6)>", "`</code><b>7`", "![x](//x2)", "javascript:alert(4)", "# a\n\n<h1>8</h1>",
        "[x](javascript:alert(5))", "<https://x.eu/3>", "a | 4 b", '" onload="alert(9)', "[x](javascript:alert(3))",
        "https://x.example/?a=1&b=<i>", "</script><script>alert(1)</script>",
    ]  # fmt: skip
    plain = named(Run(tmp_path / "plain"), ["plain 1"] * 6)
    for i, chosen in enumerate((texts[:6], texts[6:])):
        hostile = named(Run(tmp_path / str(i)), chosen)
        assert sorted(hostile.elements) == sorted(plain.elements) and hostile.addresses == plain.addresses
        for text in chosen:
            assert " ".join(text.split()) in hostile.text, text


def test_images_are_relative_and_only_those_of_the_run(run: Run) -> None:
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", run.journal())
    assert sorted(shown) == sorted(f"assets/{name}.png" for name in PICTURES)


def test_missing_group_details_are_left_to_the_group_and_given_ones_are_shown(run: Run) -> None:
    first_page = run.journal().partition("## Question 1")[0]
    assert first_page.count("[fill in]") == 4
    run.config["journal"] = {"group_number": "12", "members": ["A / 1", "B / 2"], "repository": "r", "base_setup": "A"}
    first_page = run.journal().partition("## Question 1")[0]
    assert "[fill in]" not in first_page
    assert "A / 1, B / 2" in first_page


def test_snippets_are_the_source_s_own_lines_with_their_place(run: Run) -> None:
    text = run.journal()
    found = re.findall(r"`(workflow/scripts/pcam/\w+\.py):(\d+)`:\n\n```python\n(.*?)\n```", text, re.DOTALL)
    assert len(found) == len(CUTS)
    for path, first, body in found:
        lines = (ROOT / path).read_text().splitlines()
        assert lines[int(first) - 1 :][: len(body.splitlines())] == body.splitlines()
    assert "MlflowClient(" in text


def test_the_checklist_shows_each_item_as_found(run: Run) -> None:
    text = run.journal().partition("## Final Submission Checklist")[2]
    assert re.findall(r"- \[([ x])\]", text) == [" ", " ", "x", " ", " ", " "]
    assert check_members(["Ada"])[0] is False
    assert check_members(["Ada / 1"])[0] is True
    assert check_members([])[0] is False


def test_a_lookup_never_gives_a_default(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"here": {"n": None}, "values": 3})
    found = open_evidence(Source(str(tmp_path / "a.json"), "make_a"))
    assert found["values"] == 3
    assert found.here.n is None
    assert isinstance(found.here.away.further, Missing)
    told = f"missing: {tmp_path / 'a.json'}, key here.away (rule make_a)"
    assert unmarked(str(found.here.away)) == told
    assert isinstance(mean_sd(found.here.away), Missing)
    with pytest.raises(InputError, match="not a JSON file"):
        write_text(tmp_path / "b.json", "{")
        open_evidence(Source(str(tmp_path / "b.json"), "make_b"))


def test_only_what_a_number_is_written_as_is_a_number_in_a_table() -> None:
    numbers = {
        "0": 0,
        "-12": -12,
        "0.5": 0.5,
        "1e-05": 1e-05,
        "3.0E+2": 300.0,
        "12345678901234567890": 12345678901234567890,
    }
    for text, value in numbers.items():
        assert cell(text) == value and type(cell(text)) is type(value)
    assert [cell(text) for text in ("", "nan", "-inf")] == [None] * 3
    names = ("0042", "1_000", "12e400", "+5", " 5", "5.", "\u0665", "1e5\n")
    assert [cell(text) for text in names] == list(names)


def test_a_missing_list_stays_missing(run: Run) -> None:
    gone = Missing(Source("a.json", "make_a"), "mean")
    assert triple(gone) is gone and unmarked(listed(gone)) == "missing: a.json, key mean (rule make_a)"
    items = run.content["checklist"]["items"]
    run.content["checklist"]["items"] = [one for one in items if not one["item"].startswith("inference.py")]
    del run.content["collaboration"]["history"]["contributors"]
    del run.content["collaboration"]["history"]["merges"]["newest"]
    run.journal()
    lost = {(one["file"], one["key"].partition("[")[0].partition(".")[0]) for one in run.evidence()["missing"]}
    assert (run.sources["checklist"].path, "items") in lost
    text = run.journal().replace("\\", "")
    for key in ("history.contributors", "history.merges.newest"):
        assert f"missing: {run.sources['collaboration'].path}, key {key}" in text


def test_a_rung_s_place_is_no_figure_of_the_config() -> None:
    search = cited_tree({"rounds": 1, "trials": 4, "rungs": [{"epochs": 1}, {"epochs": 3, "trials": 2}]}, "config")
    assert [take_marks(str(row[0])) for row in rung_rows(search)] == [("0", []), ("1", [])]


def test_a_picture_has_the_same_bytes_each_time_and_none_when_drawing_fails(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        with drawing(tmp_path / name, "SYNTHETIC SAMPLE", 3, 2) as figure:
            figure.subplots().plot([0, 1], [0, 1])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(ZeroDivisionError), drawing(tmp_path / "c.png", "x", 3, 2):
        _ = 1 / 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_examples_come_from_the_whole_split() -> None:
    rows = [{"split": "train", "row": str(i), "label": "0", "defects": "blackout" if i % 2 else ""} for i in range(10)]
    assert [row["row"] for row in spread(rows, 2)] == ["0", "9"]
    assert list(groups_of(rows)) == [
        "no finding, no tumour (label 0)",
        "no finding, tumour (label 1)",
        "blackout",
    ]


def test_the_results_used_here_hold_no_number_twice_that_matters() -> None:
    """A mutation is seen only when nothing else prints the same: the listed paths must exist."""
    known = {tuple(path) for path in paths_of_numbers(json.loads(json.dumps(results())))}
    assert set(SHOWN) <= known
