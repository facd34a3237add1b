"""Draw the champion on valid and on test: ROC, precision and recall, confusion, and calibration before and after.

Reads: evaluation.json and weights.json of the champion, its predictions on valid and test, those of every seed on test.
Writes: results/assets/evaluation.png and its caption.
"""

from collections.abc import Mapping
from typing import Any

from pcam.figures import INK, drawing, write_caption
from pcam.files import read_json
from pcam.panels import UNIT, draw_calibration, draw_confusion, draw_curves, draw_point, precision_recall, roc
from pcam.predictions import read_logits, read_predictions
from pcam.sidecar import probabilities_of
from pcam.stage import run_stage


def sentences(evaluation: Mapping[str, Any], threshold: float, name: str) -> list[str]:
    """The caption, from what evaluate_champion measured."""
    test, always = evaluation["test"]["metrics"], evaluation["always_tumour"]["test"]
    f = test["f_beta"]["value"]
    text = [f"The champion {name} on {evaluation['test']['n']:,} test patches."]
    if None in (test["roc_auc"]["value"], f, always):
        return [*text, "A class is missing, so the curves are undefined."]
    text.append(
        f"ROC-AUC {test['roc_auc']['value']:.3f}; at the threshold {threshold:.3f}, chosen on valid, sensitivity is "
        f"{test['sensitivity']['value']:.3f} and specificity {test['specificity']['value']:.3f}, and F-"
        f"{evaluation['beta']:g} {f:.3f} is {'above' if f > always else 'not above'} the {always:.3f} of always "
        "answering tumour."
    )
    text.append("Bars on the calibration are 95 % Wilson intervals, patches taken as independent.")
    before, after = (evaluation["calibration"]["test"][when]["ece"] for when in ("before", "after"))
    kept = evaluation["temperature"]
    if kept is None:
        text.append(f"Valid determines no temperature; the ECE on test is {before:.3f}.")
    else:
        text.append(f"The temperature {kept:.2f} from valid changes the ECE on test from {before:.3f} to {after:.3f}.")
    return text


def plot_evaluation(
    evaluation_path: str,
    sidecar_path: str,
    champion_paths: Mapping[str, str],
    seed_paths: Mapping[str, str],
    png: str,
    caption: str,
    *,
    bins: int,
    label: str,
) -> None:
    """Draw the panels. Of seed_paths ("variant/seed-n") it takes the champion's variant and the baseline.

    Raises: InputError when a table is missing or unlabelled.
    """
    evaluation, sidecar = read_json(evaluation_path), read_json(sidecar_path)
    champion = {split: read_predictions(path) for split, path in champion_paths.items()}
    raw = {split: probabilities_of(read_logits(path)) for split, path in champion_paths.items()}
    shown = ("baseline", sidecar["variant"])
    others = {name: read_predictions(path) for name, path in seed_paths.items() if name.partition("/")[0] in shown}
    with drawing(png, label, 11, 8.6) as figure:
        grid = figure.add_gridspec(2, 4, height_ratios=(1.5, 1))
        left, right = figure.add_subplot(grid[0, :2]), figure.add_subplot(grid[0, 2:])
        curves = ((left, roc), (right, precision_recall))
        drawn = all([draw_curves(axes, curve, champion, others) for axes, curve in curves])
        for column, (split, told) in enumerate(champion.items()):
            scores = {metric: estimate["value"] for metric, estimate in evaluation[split]["metrics"].items()}
            if drawn:
                draw_point(left, split, 1 - scores["specificity"], scores["sensitivity"], sidecar["threshold"])
                draw_point(right, split, scores["sensitivity"], scores["precision"], sidecar["threshold"])
            draw_confusion(figure.add_subplot(grid[1, column]), split, evaluation[split]["confusion"])
            after = "no temperature" if sidecar["temperature"] is None else "after temperature"
            when = {"before": raw[split], after: told.probabilities}
            draw_calibration(figure.add_subplot(grid[1, 2 + column]), split, told.labels, when, bins)
        if drawn:
            left.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="no skill")
            left.plot([1], [1], marker="s", color=INK, linestyle="none", clip_on=False, label="always tumour")
            for split, style in (("test", "--"), ("valid", ":")):
                share = champion[split].labels.mean()
                text = f"always tumour on {split}: precision {share:.3f}"
                right.axhline(share, color=INK, linestyle=style, linewidth=1, label=text)
        left.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate", **UNIT)
        right.set(title="Precision and recall", xlabel="recall", ylabel="precision", **UNIT)
        if drawn:
            left.legend(loc="lower right")
            right.legend(loc="lower left")
    write_caption(caption, sentences(evaluation, sidecar["threshold"], sidecar["name"]), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_evaluation(
            snakemake.input.evaluation,
            snakemake.input.sidecar,
            dict(zip(("valid", "test"), snakemake.input.champion, strict=True)),
            dict(zip(snakemake.params.names, snakemake.input.seeds, strict=True)),
            snakemake.output.png,
            snakemake.output.caption,
            bins=snakemake.params.bins,
            label=snakemake.params.label,
        )
