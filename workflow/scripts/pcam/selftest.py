"""Whether inference.py answers here as it did where its bundle was built: `python -m pcam.selftest`, in the bundle."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pcam.files import InputError, read_csv
from pcam.sidecar import read_sidecar

WEIGHTS = "assets/champion/weights.pt"
EXAMPLES = "examples"
EXPECTED = f"{EXAMPLES}/expected.csv"
TOLERANCE = 1e-3  # of a probability: another runtime and processor sum float32 in another order
PLACE = ("source", "row", "x", "y")


@dataclass(frozen=True)
class Comparison:
    """n: answers; difference: the largest of a probability; changed: decisions that are others, farther than the
    tolerance from the threshold.
    """

    n: int
    difference: float
    changed: int

    @property
    def passed(self) -> bool:
        return self.difference <= TOLERANCE and self.changed == 0

    def __str__(self) -> str:
        return (
            f"{self.n} answers, probabilities differ by {self.difference:.1e} at most (allowed: {TOLERANCE:g}), "
            f"{self.changed} decisions are other ones"
        )


def compare(expected_path: Path, answers_path: Path, threshold: float) -> Comparison:
    """Answers of inference.py as CSV against those expected.

    Raises: InputError when a file is missing or damaged, or they are answers to other patches.
    """
    columns = (*PLACE, "probability", "decision")
    expected, answers = (read_csv(path, columns) for path in (expected_path, answers_path))
    places = [[tuple(row[name] for name in PLACE) for row in table] for table in (expected, answers)]
    if places[0] != places[1] or not expected:
        raise InputError(f"{answers_path}: {len(answers)} answers, not those to the {len(expected)} of {expected_path}")
    differences, changed = [], 0
    for then, now in zip(expected, answers, strict=True):
        try:
            was, here = float(then["probability"]), float(now["probability"])
        except ValueError as error:
            raise InputError(f"{expected_path} or {answers_path}: {error}; unpack the bundle again") from None
        differences.append(abs(was - here))
        changed += then["decision"] != now["decision"] and abs(was - threshold) > TOLERANCE
    # max would drop a NaN that is not first
    largest = float("nan") if any(value != value for value in differences) else max(differences)
    return Comparison(len(expected), largest, changed)


def example_inputs(root: Path) -> list[str]:
    """Paths of the examples, relative to the bundle, in order. Raises: InputError when there are none."""
    names = sorted(path.name for path in (root / EXAMPLES).glob("*") if path.suffix in (".png", ".h5"))
    if not names:
        raise InputError(f"{root / EXAMPLES}: holds no example; unpack the bundle again")
    return [f"{EXAMPLES}/{name}" for name in names]


def answer(root: Path, weights: str, output: Path, command: Sequence[str] = (sys.executable,)) -> None:
    """Let inference.py of a bundle answer its examples, on one thread of the CPU, and leave no bytecode in the bundle;
    `command` starts Python.

    Raises: InputError with what it says when it fails.
    """
    line = [*command, "inference.py", weights, *example_inputs(root), "--device", "cpu"]
    done = subprocess.run(
        [*line, "--format", "csv", "--output", str(output)],
        cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise InputError(f"inference.py ends with {done.returncode}: {(done.stderr.strip() or 'no word')[-300:]}")


def main(root: Path) -> int:
    """The exit code: 0 when it answers as expected."""
    try:
        threshold = float(read_sidecar(root / WEIGHTS)["threshold"])
        with tempfile.TemporaryDirectory() as folder:
            answers = Path(folder) / "answers.csv"
            answer(root, WEIGHTS, answers)
            told = compare(root / EXPECTED, answers, threshold)
    except InputError as error:
        print(f"selftest: FAILED: {error}")
        return 1
    print(f"selftest: {'passed' if told.passed else 'FAILED'}: {told}")
    return 0 if told.passed else 1


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[3]))
