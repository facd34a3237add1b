"""A small git repository with a bare one as its remote, and a checkpoint to put into it."""

import os
import subprocess
from pathlib import Path

import torch

from pcam.checkpoint import save_checkpoint
from pcam.model import Architecture, build_model

ARCHITECTURE = Architecture(model="resnet", width=4, depth=1, hidden=8, dropout=0.0, tta=False)
ENVIRONMENT = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def shell(folder: Path, command: str) -> str:
    """Run it in `folder`, with no git settings but the repository's own; what it prints."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def make_repository(folder: Path) -> Path:
    """A repository with one commit on the branch main, pushed to the remote `origin` beside it."""
    root = folder / "repository"
    root.mkdir(parents=True)
    (root / "README.md").write_text("A project\n")
    shell(folder, "git init -q --bare -b main remote.git")
    shell(root, "git init -q -b main && git add . && git commit -q -m first && git remote add origin ../remote.git")
    shell(root, "git push -q --set-upstream origin main")
    return root


def write_checkpoint(path: Path, seed: int = 0) -> Path:
    """weights.pt and weights.json of an untrained model; another seed gives other weights."""
    torch.manual_seed(seed)
    document = {
        "architecture": ARCHITECTURE,
        "preprocessing": {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.2, 0.2]},
        "threshold": 0.5,
        "digests": {},
        "data_source": "SYNTHETIC SAMPLE",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, path.with_suffix(".json"), build_model(ARCHITECTURE), document)
    return path
