"""What finished runs of the default config reached on their test patches: the README's table.

With runs given, keeps of each what the table tells: files below RUN/results give assets/results/NAME/figures.json. Of
the default run its cards and their pictures too; those of other runs may show patches that are not ours to hand on.
Reads:  assets/results/*/figures.json.
Writes: the table, between its two marks in README.md. Use: make readme-tables, or
        python bench/result_table.py [NAME=RUN ...]
"""

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "workflow" / "scripts")]

from bench.readme_part import README, write_part  # noqa: E402
from pcam.files import file_digest, read_json, write_json, write_text  # noqa: E402

KEPT = ROOT / "assets" / "results"
SHOWN = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "f_beta": "F2",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
# In the order of the table.
ABOUT = {
    "default-run": "the default run",
    "pcam-sample": "the same on a few patches of PCam, not handed on here, split at random: a check, no figure of PCam",
}
CARDS = ("model_card.md", "data_card.md")
BASELINES = {"always_tumour": "always tumour", "colour_histogram": "colour histogram"}
SOURCES = (
    "champion/evaluation.json", "champion/weights.json", "champion/selection.json", "aggregate/seeds.json",
    "aggregate/baselines.json", "splits/splits.json",
)  # fmt: skip


def keep(run: Path, kept: Path) -> None:
    """The figures of the table out of a finished run, with the digests of the files that they are from."""
    results = run / "results"
    evaluation, weights, selection, seeds, baselines, splits = (read_json(results / name) for name in SOURCES)
    variant = next(one for one in selection["candidates"] if one["variant"] == evaluation["name"].partition("/")[0])
    test = {name: {key: value for key, value in splits[name].items() if key != "file"} for name in ("train", "test")}
    by_seed = seeds[variant["variant"]]["test"]
    document = {
        "data_source": weights["data_source"],
        "splits": test,
        "champion": {"name": evaluation["name"], **{name: evaluation["test"]["metrics"][name] for name in SHOWN}},
        "seeds": {name: {key: by_seed[name][key] for key in ("mean", "interval", "kind", "n")} for name in SHOWN},
        "baselines": {one: {name: baselines[one]["test"]["estimates"][name] for name in SHOWN} for one in BASELINES},
        "sources": {name: file_digest(results / name) for name in SOURCES},
        "provenance": evaluation["provenance"],
    }
    write_json(kept, document)


def keep_cards(run: Path, folder: Path) -> None:
    """Both cards of a run and the pictures that they show."""
    for card in CARDS:
        text = (run / "results" / card).read_text()
        write_text(folder / card, text)
        for picture in re.findall(r"\]\((assets/[\w.-]+)\)", text):
            (folder / picture).parent.mkdir(exist_ok=True)
            shutil.copyfile(run / "results" / picture, folder / picture)


def cell(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "not defined"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def of_estimates(estimates: Mapping[str, Any]) -> str:
    return " | ".join(cell(estimates[name]["value"], estimates[name]["low"], estimates[name]["high"]) for name in SHOWN)


def rows(kept: Mapping[str, Any]) -> list[str]:
    champion, seeds = kept["champion"], kept["seeds"]
    n = next(iter(seeds.values()))["n"]
    variant = champion["name"].partition("/")[0]
    means = " | ".join(cell(seeds[name]["mean"], *seeds[name]["interval"]) for name in SHOWN)
    return [
        f"| champion, `{champion['name']}` | {of_estimates(champion)} |",
        f"| `{variant}`, mean of {n} seeds | {means} |",
        *(f"| {words} | {of_estimates(kept['baselines'][one])} |" for one, words in BASELINES.items()),
    ]


def heading(name: str, kept: Mapping[str, Any]) -> str:
    train, test = kept["splits"]["train"], kept["splits"]["test"]
    return (
        f"| **{kept['data_source']}**, {ABOUT[name]}; trained on {train['n']:,} patches, tested on {test['n']:,}, "
        f"{test['positives']:,} of them tumour |" + " |" * len(SHOWN)
    )


def intervals(kept: Mapping[str, Any]) -> tuple[str, str]:
    """The methods of the champion's intervals, and what they take as independent."""
    kinds = {name: kept["champion"][name]["kind"].rpartition(", ") for name in SHOWN}
    units = dict.fromkeys(unit for _, _, unit in kinds.values())
    return "; ".join(f"{SHOWN[name]}: {method}" for name, (method, _, _) in kinds.items()), " and ".join(units)


def render() -> str:
    """The table, and what its intervals are."""
    runs = {name: read_json(KEPT / name / "figures.json") for name in ABOUT}
    lines = [f"| on test | {' | '.join(SHOWN.values())} |", "|---" * (len(SHOWN) + 1) + "|"]
    for name, kept in runs.items():
        lines += [heading(name, kept), *rows(kept)]
    told = {name: intervals(kept) for name, kept in runs.items()}
    methods = " or ".join(dict.fromkeys(method for method, _ in told.values()))
    made_by = {name: kept["provenance"] for name, kept in runs.items()}
    of = ", ".join(
        f"`{name}` ({unit}; commit `{made_by[name]['commit'][:8]}`, {made_by[name]['device']})"
        for name, (_, unit) in told.items()
    )
    of_means = next(iter(runs["default-run"]["seeds"].values()))["kind"]
    basis = f"95 % intervals. Of one model: {methods}. Of a mean: {of_means}. Kept under `assets/results`: {of}."
    return "\n".join([*lines, "", textwrap.fill(basis, 120, break_on_hyphens=False), ""])


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="NAME=RUN", help="a finished run to keep figures of")
    for name, _, run in (one.partition("=") for one in parser.parse_args(arguments).runs):
        keep(Path(run), KEPT / name / "figures.json")
        if name == "default-run":
            keep_cards(Path(run), KEPT / name)
    write_part("results", render(), README)


if __name__ == "__main__":
    main(sys.argv[1:])
