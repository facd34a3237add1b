"""Classify patches with a trained model: `python inference.py [WEIGHTS] INPUT …`.

WEIGHTS: a .pt or .onnx file of this pipeline with its .json beside it; without one, the model in assets/champion.
INPUT: an image (png, jpg, tif, bmp), an .h5 or .h5.gz file of patches, a folder of images, a quoted pattern such as
"slides/**/*.png", or - for paths on stdin, one a line. An image larger than 96 x 96 pixels is read window by window.

One CSV row or JSON line a patch: source, row (of an .h5 file), x, y (of a window), probability of tumour in the centre,
decision at the threshold that was stored with the model, as were temperature and normalisation. guard.json beside the
weights knows the validation patches: where the patches at hand differ by more than chance, stderr says so.
"""

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from pcam.files import InputError, printable
from pcam.guard import read_guard
from pcam.images import SIZE
from pcam.inputs import ahead, blocks_of, in_batches
from pcam.outputs import FORMATS, Answer, Maps, answers_of, counted, opened, write_answers
from pcam.predictor import DEVICES, ONNX_SUFFIX, Predictor
from pcam.watch import Watch

DEFAULT = ROOT / "assets" / "champion" / "weights.pt"
WEIGHTS_SUFFIXES = (".pt", ONNX_SUFFIX)
GUARD = "guard.json"  # beside the weights
BAD_INPUT, USAGE, REFUSED = 1, 2, 3
EXIT_CODES = f"""exit codes:
  0  every patch has an answer
  {BAD_INPUT}  weights or an input cannot be read, or an output cannot be written; one line says which and why
  {USAGE}  wrong options
  {REFUSED}  --guard refuse, and the patches differ from those of validation
"""


def predict_patches(
    patches: np.ndarray,
    weights: str | Path = DEFAULT,
    *,
    device: str = "auto",
    tta: bool | None = None,
    batch: int | None = None,
) -> np.ndarray:
    """Probability float64 (N,) of tumour in the centre of uint8 patches (N,96,96,3); no guard is asked.

    device: auto, cpu or cuda. tta: average over the eight symmetries of the square; None: as the model was chosen.
    batch: patches at a time; None: what suits the device. To call it often, keep a `pcam.predictor.Predictor`.

    Raises: InputError when the weights are missing, damaged or foreign, or the array is no array of patches.
    """
    return Predictor(weights, device=device, tta=tta, batch=batch).probabilities(patches)


def classify(
    predictor: Predictor,
    inputs: Sequence[str],
    watch: Watch | None = None,
    maps: Maps | None = None,
    *,
    stride: int = SIZE,
) -> Iterator[Answer]:
    """Answers, streamed in batches; watch and maps have seen all patches when they have ended.

    Raises: InputError when the model has no threshold, or an input is missing, damaged or no patch.
    """
    if (threshold := predictor.threshold) is None:
        raise InputError(f"{predictor.file}: no threshold was chosen for it; use results/champion/weights.pt")
    blocks_read = blocks_of(inputs, stride, note)
    for blocks in ahead(in_batches(blocks_read, predictor.batch)):
        pixels = blocks[0].pixels if len(blocks) == 1 else np.concatenate([block.pixels for block in blocks])
        probabilities = predictor.probabilities(pixels)
        if watch is not None:
            watch.see(blocks, pixels, probabilities)
        if maps is not None:
            maps.see(blocks, probabilities)
        yield from answers_of(blocks, probabilities, threshold)
    if maps is not None:
        maps.finish()


def say(line: str) -> None:
    print(printable(line), file=sys.stderr)  # a file's name may hold line breaks, or what a terminal obeys


def note(line: str) -> None:
    say(f"note: {line}")


class Refused(Exception):
    """The guard's finding, which stops the output."""


def run(arguments: argparse.Namespace, weights: Path) -> None:
    """Raises: InputError; Refused, once all patches are seen, when the guard refuses them."""
    if not weights.exists() and weights == DEFAULT:
        raise InputError(
            f"{weights}: no such file; name the weights first, or publish a run's with `snakemake publish`"
        )
    if arguments.output is not None and Path(arguments.output).is_dir():
        raise InputError(f"{arguments.output}: is a folder; name a file in it for --output")
    maps = Maps(Path(arguments.map), arguments.stride, note) if arguments.map is not None else None
    predictor = Predictor(weights, device=arguments.device, tta=arguments.tta, batch=arguments.batch)
    if predictor.file != weights:
        note(f"{predictor.file} answers, for {weights} needs a package that is not installed")
    if weights == DEFAULT:
        note(f"{predictor.file} answers, a model trained on: {predictor.sidecar['data_source']}")
    if predictor.tta != predictor.trained_tta:
        note(f"the threshold was chosen with --{'' if predictor.trained_tta else 'no-'}tta")
    path = predictor.file.with_name(GUARD)
    needed = arguments.guard == "refuse" or arguments.watch
    watch = None
    if arguments.guard != "off" and (needed or path.exists()):
        watch = Watch(read_guard(path, predictor.sidecar))
    answers = counted(classify(predictor, arguments.inputs, watch, maps, stride=arguments.stride))
    with opened(arguments.output, held_back=arguments.guard == "refuse") as handle:
        write_answers(handle, answers, arguments.format)
        warning, single = (None, None) if watch is None else watch.findings()
        if watch is not None and arguments.watch:
            for line in watch.report():
                say(f"watch: {line}")
        if warning and arguments.guard == "refuse":
            raise Refused(warning)
    if warning and not arguments.watch:  # whose report tells it
        say(f"warning: {warning}")
    if single:
        note(single)
    if watch is None and arguments.guard == "warn":
        note(f"no {GUARD} beside {predictor.file}, so the patches were compared with none")


def parsed() -> tuple[argparse.Namespace, Path]:
    """The options, with the inputs alone in `inputs`, and the weights."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options] [WEIGHTS] INPUT …",
        description=__doc__,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="the first may be weights, told by their ending: .pt or .onnx")
    add("-o", "--output", help="write answers to this file once all are there; without it, to stdout as they come")
    add("--format", choices=FORMATS, help="csv unless the output's name ends in .jsonl")
    add(
        "--stride",
        type=int,
        default=SIZE,
        help=f"pixels from window to window in a larger image, 1 to {SIZE} (%(default)s)",
    )
    add("--map", metavar="FOLDER", help="there, for each larger image, its map of probabilities as .png and .npy")
    add("--device", choices=DEVICES, default="auto", help="auto takes a GPU where torch sees one")
    add("--batch", type=int, help="patches at a time; without it, what suits the device")
    add(
        "--tta",
        action=argparse.BooleanOptionalAction,
        help="average over the square's symmetries; else as it was chosen",
    )
    unlike = "patches unlike validation patches: warn on stderr, or write nothing and end with 3, or off"
    add("--guard", choices=("warn", "refuse", "off"), default="warn", help=unlike)
    each = "tell each statistic of pixels and answers, on validation, here, and as far as chance allows"
    add("--watch", action="store_true", help=each)
    arguments = parser.parse_args()
    weights = DEFAULT
    if arguments.inputs[0].endswith(WEIGHTS_SUFFIXES):
        weights = Path(arguments.inputs.pop(0))
    for wrong, reason in (
        (not arguments.inputs, "name an input: an image, an .h5 file, a folder, a pattern, or -"),
        (not 1 <= arguments.stride <= SIZE, f"--stride {arguments.stride}: give 1 to {SIZE}"),
        (arguments.batch is not None and arguments.batch < 1, f"--batch {arguments.batch}: give 1 or more"),
        (arguments.watch and arguments.guard == "off", "--watch needs the guard; leave --guard off away"),
        (
            arguments.map and arguments.guard == "refuse",
            "--map writes before the guard has seen all; --guard warn fits it",
        ),
    ):
        if wrong:
            parser.error(reason)
    arguments.format = arguments.format or ("jsonl" if (arguments.output or "").endswith(".jsonl") else "csv")
    return arguments, weights


def forget_stdout() -> None:
    """Python would complain once more at its end of what stdout could not take."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> int:
    """The exit code."""
    arguments, weights = parsed()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # as names of files among the arguments
    try:
        run(arguments, weights)
    except InputError as error:
        say(f"error: {error}")
        return BAD_INPUT
    except Refused as finding:
        say(f"refused: {finding}; --guard warn prints the answers all the same")
        return REFUSED
    except BrokenPipeError:
        forget_stdout()
        say("error: stdout was closed before all answers were written")
        return BAD_INPUT
    except OSError as error:
        forget_stdout()
        place = error.filename or arguments.output or "stdout"
        say(f"error: {place}: {error.strerror or error}; write where there are room and the right to write")
        return BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
