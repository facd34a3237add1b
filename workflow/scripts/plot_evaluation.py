"""Draw the champion on test: ROC and precision-recall with the operating point, calibration, and the baseline seeds.

Reads: results/champion/predict/test.csv, results/champion/weights.json, results/predict/baseline/seed-{seed}/test.csv.
Writes: results/assets/evaluation.png and its caption.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from sklearn.metrics import precision_recall_curve, roc_curve

from pcam.figures import BLUE, FAINT, GREY, INK, ORANGE, RED, drawing, numbers, undefined_note, write_caption
from pcam.files import InputError, read_csv, read_json
from pcam.metrics import roc_auc, score, wilson_interval
from pcam.stage import run_stage

BINS = np.linspace(0, 1, 11)

Scored = tuple[np.ndarray, np.ndarray]  # labels, probabilities


def read_scored(path: str) -> Scored:
    """Labels and probabilities of a prediction table. Raises: InputError when it is missing, empty or unlabelled."""
    rows = read_csv(path, ("row", "label", "probability"))
    if not rows or any(row["label"] == "" for row in rows):
        raise InputError(f"{path}: a patch has no label; an evaluation needs labels in every row")
    return numbers(rows, "label").astype(int), numbers(rows, "probability")


def draw_roc(axes: Axes, champion: Scored, baselines: Mapping[str, Scored], point: dict[str, float | None]) -> None:
    for i, scored in enumerate(baselines.values()):
        x, y, _ = roc_curve(*scored)
        axes.plot(x, y, color=GREY, linewidth=0.8, label=f"baseline, {len(baselines)} seed(s)" if i == 0 else None)
    x, y, _ = roc_curve(*champion)
    axes.plot(x, y, color=BLUE, linewidth=2, label="champion")
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="no skill")
    axes.plot([1], [1], marker="s", color=ORANGE, linestyle="none", clip_on=False, label="always tumour")
    axes.plot([1 - (point["specificity"] or 0)], [point["sensitivity"]], **operating_point())
    axes.set(
        title="ROC", xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02)
    )
    axes.legend(loc="lower right")


def draw_pr(axes: Axes, champion: Scored, baselines: Mapping[str, Scored], threshold: float) -> None:
    for scored in baselines.values():
        precision, recall, _ = precision_recall_curve(*scored)
        axes.plot(recall, precision, color=GREY, linewidth=0.8)
    precision, recall, _ = precision_recall_curve(*champion)
    axes.plot(recall, precision, color=BLUE, linewidth=2)
    labels, probabilities = champion
    axes.axhline(labels.mean(), color=ORANGE, linestyle="--", label=f"always tumour: precision {labels.mean():.3f}")
    called = probabilities >= threshold
    if called.any():
        axes.plot(
            [called[labels == 1].mean()], [labels[called].mean()], **operating_point(f"threshold {threshold:.3f}")
        )
    axes.set(title="Precision and recall", xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(loc="lower left")


def operating_point(text: str | None = None) -> dict[str, object]:
    style = {"marker": "o", "color": RED, "markersize": 9, "markeredgecolor": "white", "linestyle": "none", "zorder": 5}
    return {**style, "label": text or "operating point"}


def draw_calibration(axes: Axes, counts: Axes, champion: Scored, threshold: float) -> None:
    labels, probabilities = champion
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    bins = np.clip(np.digitize(probabilities, BINS) - 1, 0, len(BINS) - 2)
    for b in np.unique(bins):
        inside = bins == b
        hits, n = int(labels[inside].sum()), int(inside.sum())
        low, high = wilson_interval(hits, n)
        axes.plot([probabilities[inside].mean()] * 2, [low, high], color=BLUE, linewidth=1)
        axes.plot([probabilities[inside].mean()], [hits / n], marker="o", color=BLUE)
    axes.set(
        title="Calibration, with 95 % intervals", ylabel="share that is tumour", xlim=(-0.02, 1.02), ylim=(-0.05, 1.05)
    )
    axes.tick_params(labelbottom=False)
    stacked = [probabilities[labels == 0], probabilities[labels == 1]]
    counts.hist(stacked, bins=BINS, stacked=True, color=[FAINT, BLUE], edgecolor="white", label=["no tumour", "tumour"])
    counts.axvline(threshold, color=RED, linewidth=1.4)
    counts.set(xlabel="predicted probability (red: threshold)", ylabel="patches", xlim=(-0.02, 1.02))
    counts.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


def plot_evaluation(
    champion_path: str,
    sidecar_path: str,
    baseline_paths: Mapping[str, str],
    png: str,
    caption: str,
    *,
    beta: float,
    label: str,
) -> None:
    """Draw the panels. Raises: InputError when a table is missing or unlabelled or the sidecar has no threshold."""
    champion = read_scored(champion_path)
    baselines = {seed: read_scored(path) for seed, path in baseline_paths.items()}
    threshold = read_json(sidecar_path).get("threshold")
    if threshold is None:
        raise InputError(f"{sidecar_path}: threshold is null; choose_threshold has to come first")
    labels, probabilities = champion
    at = score(labels, probabilities, threshold, beta)
    always = score(labels, np.ones(len(labels)), 0.5, beta)
    both = len(np.unique(labels)) == 2
    with drawing(png, label, 9, 8) as figure:
        grid = figure.add_gridspec(3, 2, height_ratios=(4, 2.6, 1.5))
        roc, pr = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
        calibration = figure.add_subplot(grid[1, :])
        if both:
            draw_roc(roc, champion, {k: v for k, v in baselines.items() if len(np.unique(v[0])) == 2}, at)
            draw_pr(pr, champion, baselines, threshold)
        else:
            undefined_note(roc, "undefined: test holds one class only")
            undefined_note(pr, "undefined: test holds one class only")
        draw_calibration(calibration, figure.add_subplot(grid[2, :]), champion, threshold)
    area, f, f_always = roc_auc(labels, probabilities), at["f_beta"], always["f_beta"]
    sentences = [f"Champion on {len(labels):,} test patches, {labels.mean():.1%} of them tumour:"]
    if area is None or f is None or f_always is None or at["specificity"] is None:
        sentences.append("a class is missing, so the curves are undefined.")
    else:
        verdict = "above" if f > f_always else "not above"
        sentences.append(
            f"ROC-AUC {area:.3f}; at the threshold {threshold:.3f}, chosen on validation, sensitivity is "
            f"{at['sensitivity']:.3f} and specificity {at['specificity']:.3f}, and F-{beta:g} {f:.3f} is {verdict} "
            f"the {f_always:.3f} of always answering tumour."
        )
    write_caption(caption, sentences, label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_evaluation(
            snakemake.input.champion,
            snakemake.input.sidecar,
            dict(zip(map(str, snakemake.params.seeds), snakemake.input.baselines, strict=True)),
            snakemake.output.png,
            snakemake.output.caption,
            beta=snakemake.params.beta,
            label=snakemake.params.label,
        )
