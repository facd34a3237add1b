"""What a bundle is made of in tests: a champion, cards, a store with its predictions, wheels that hold nothing."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from build_bundle import build_bundle
from conftest import ROOT

from pcam.files import write_csv
from pcam.wheels import RUNTIME, read_pins

PINS = ROOT / "requirements.txt"
CHAMPION = ROOT / "assets" / "champion"
PARTS = ("weights.pt", "weights.json", "guard.json", "weights.onnx", "onnx.json")
PNG = b"\x89PNG not a real picture"
NEEDED = ("flatbuffers", "packaging", "protobuf")  # by onnxruntime


def registry_reached(folder: Path) -> bool:
    """Whether pip finds a small wheel where it is configured to look."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "0", "--timeout", "20"]
    pin = f"packaging=={read_pins(PINS)['packaging']}"
    done = subprocess.run([*command, "--dest", str(folder), pin], capture_output=True, check=False)
    return done.returncode == 0


def write_wheel(folder: Path, package: str, version: str, needs: tuple[str, ...] = ()) -> Path:
    """A wheel that pip takes, without any module in it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{package}-{version}-py3-none-any.whl"
    about = f"{package}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {name}\n" for name in needs)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in (
            ("METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n{requires}"),
            ("WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            ("RECORD", ""),
        ):
            wheel.writestr(zipfile.ZipInfo(f"{about}/{name}"), text)
    return path


def write_wheels(folder: Path) -> Path:
    """A folder with an empty wheel of each package that a bundle takes, as pip download fills it."""
    pins = read_pins(PINS)
    for package in (*RUNTIME, *NEEDED):
        write_wheel(folder, package, pins[package], NEEDED if package == "onnxruntime" else ())
    return folder


class Materials:
    """Files of a run that a bundle is built from; the model is that of assets/champion."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "assets").mkdir(parents=True)
        (folder / "assets" / "a.png").write_bytes(PNG)
        self.cards = [str(folder / f"{name}.md") for name in ("model_card", "data_card")]
        for path in self.cards:
            Path(path).write_text("# A card\n\n![a picture](assets/a.png)\n")
        self.store, self.predictions = str(folder / "test.npy"), str(folder / "test.csv")
        rng = np.random.default_rng(0)
        np.save(self.store, rng.integers(0, 256, (20, 96, 96, 3), dtype=np.uint8))
        rows = [(row, row % 2, 0.0, (row * 7 % 20) / 20) for row in range(20)]
        write_csv(self.predictions, ("row", "label", "logit", "probability"), rows)
        self.champion = [str(CHAMPION / name) for name in PARTS]
        self.bundle, self.manifest = folder / "bundle.tar.gz", folder / "manifest.json"

    def build(self, wheels: Path | None) -> None:
        source = None if wheels is None else str(wheels)
        build_bundle(
            self.champion, self.cards, self.store, self.predictions, str(self.bundle), str(self.manifest),
            root=str(ROOT), torch=False, wheels=source, provenance={"commit": "c0ffee"},
        )  # fmt: skip
