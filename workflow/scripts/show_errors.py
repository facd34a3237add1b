"""Show the champion's errors and doubtful answers on test, and what it looked at in the surest of its errors.

Reads: results/slices/errors.json, the store of test.
Writes: results/assets/errors.png, results/assets/attention.png and their captions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.figures import BLUE, INK, RED, drawing, undefined_note, write_caption
from pcam.files import InputError, read_json
from pcam.montage import Line, draw_montage, heat, montage_size_in
from pcam.stage import run_stage
from pcam.store import open_store

COLUMNS = 6
HEADINGS = {
    "false_positives": "False positives: called tumour, none there",
    "false_negatives": "False negatives: tumour missed",
    "borderline": "Nearest to the threshold, right or wrong",
}
CENTRE_SHARE = 1 / 9  # of the area


def short(slide: str) -> str:
    """A slide's name without the part that all names share."""
    return slide.removeprefix("camelyon16_").removeprefix("train_").removeprefix("test_")


def below(shown: Mapping[str, Any], kind: str) -> str:
    """Row and probability, slide, and in which attributes the patch is furthest from the usual."""
    lines = [f"row {shown['row']}, p {shown['probability']:.3f}"]
    if kind == "borderline":
        truth = "tumour" if shown["label"] else "no tumour"
        lines.append(f"{truth}: {'right' if shown['right'] else 'wrong'}")
    lines += [short(shown["slide"])] if shown["slide"] else []
    far = [f"{name.replace('_', ' ')} {off:+.1f} sd".replace("-", "−") for name, off in shown["telling"].items()]
    return "\n".join(lines + far)


def montage(document: Mapping[str, Any], store: np.ndarray) -> list[Line]:
    """Lines of each kind, the most confident first."""
    lines = []
    for kind, title in HEADINGS.items():
        patches = document["shown"][kind]
        count = document["counts"].get(kind)
        heading = title if count is None else f"{title}; {count:,} in all"
        for start in range(0, len(patches), COLUMNS):
            part = patches[start : start + COLUMNS]
            images = [np.asarray(store[shown["place"]]) for shown in part]
            lines.append(Line(heading if start == 0 else "", images, [below(shown, kind) for shown in part]))
    return lines


def looked_at(document: Mapping[str, Any], store: np.ndarray) -> list[Line]:
    """A line of patches and below it the line of their maps, for each kind of error that has any."""
    lines = []
    for kind in ("false_positives", "false_negatives"):
        maps = [shown for shown in document["attention"]["maps"] if shown["kind"] == kind]
        if not maps:
            continue
        patches = [np.asarray(store[shown["place"]]) for shown in maps]
        effects = [np.array(shown["effects"]) for shown in maps]
        lines.append(Line(HEADINGS[kind], patches, [f"row {shown['row']}" for shown in maps]))
        texts = [f"{float(e.flat[np.abs(e).argmax()]):+.2f} logits".replace("-", "−") for e in effects]
        lines.append(Line("", [heat(*pair) for pair in zip(patches, effects, strict=True)], texts))
    return lines


def sentences(document: Mapping[str, Any]) -> list[str]:
    counts, tumours = document["counts"], document["positives"]
    return [
        f"At the threshold {document['threshold']:.3f} the champion calls tumour on {counts['false_positives']:,} of "
        f"{document['n'] - tumours:,} patches without one and misses {counts['false_negatives']:,} of {tumours:,}.",
        "Shown are the most confident of each and the answers nearest to the threshold, in the colours of the file, "
        "with row, probability, slide where known, and the two attributes furthest from the mean of valid patches.",
    ]


def sentences_attention(document: Mapping[str, Any]) -> list[str]:
    attention = document["attention"]
    shares = [shown["centre_share"] for shown in attention["maps"] if shown["centre_share"] is not None]
    said = [
        "What the champion looked at in its surest errors: orange raises the logit, blue lowers it, found by "
        f"exchanging one square of {attention['square_px']} pixels at a time for tissue of the same patch; below each "
        "map is its strongest effect.",
        "An indication, not a proof: squares that say the same hide each other.",
    ]
    if shares:
        said.append(
            f"The framed centre, which alone decides the label, holds {100 * float(np.median(shares)):.0f} % of the "
            f"effects in the median; by its area it would hold {100 * CENTRE_SHARE:.0f} %."
        )
    return said


def show_errors(
    errors_path: str,
    store_path: str,
    pngs: Mapping[str, str],
    captions: Mapping[str, str],
    *,
    label: str,
) -> None:
    """Draw both pictures; paths by picture, "errors" and "attention". Raises: InputError when the store is another."""
    document, store = read_json(errors_path), open_store(store_path)
    if len(store) != document["n"]:
        raise InputError(f"{errors_path}: of {document['n']} patches, {store_path} holds {len(store)}; measure again")
    pictures = {
        "errors": (montage(document, store), COLUMNS, sentences(document), 0.0),
        "attention": (looked_at(document, store), 4, sentences_attention(document), 0.3),
    }
    for name, (lines, columns, said, foot_in) in pictures.items():
        with drawing(pngs[name], label, *montage_size_in(lines, columns, foot_in)) as figure:
            if not lines:
                undefined_note(figure.subplots(), "no wrong answer on test")
            else:
                draw_montage(figure, lines)
                if name == "attention":
                    key = {"orange: speaks for tumour": RED, "blue: against": BLUE, "an indication, not a proof": INK}
                    for at, (text, colour) in zip((0.024, 0.35, 0.56), key.items(), strict=True):
                        figure.text(at, 0.33 / figure.get_figheight(), text, fontsize=9, color=colour)
        write_caption(captions[name], said, label)


if __name__ == "__main__":
    with run_stage(snakemake):
        show_errors(
            snakemake.input.errors,
            snakemake.input.store,
            {"errors": snakemake.output.png, "attention": snakemake.output.attention},
            {"errors": snakemake.output.caption, "attention": snakemake.output.attention_caption},
            label=snakemake.params.label,
        )
