"""The code digest follows content through imports, and nothing else; a stage's log catches everything."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from pcam.determinism import fix_device
from pcam.documents import Source
from pcam.evidence import Origins
from pcam.provenance import SCRIPTS, cpu_name, describe, import_closure

SCRIPT_NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))


def digest_after(tmp_path: Path, edit: str) -> str:
    """Digest of train_seed in a copy of the scripts, after a shell edit."""
    copy = tmp_path / "workflow" / "scripts"
    if not copy.exists():
        subprocess.run(["cp", "-r", SCRIPTS, copy.parent.mkdir(parents=True) or copy], check=True)
    subprocess.run(edit, shell=True, cwd=copy, check=True)
    code = "from pcam.provenance import code_digest; print(code_digest('train_seed'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_digest_follows_an_imported_modules_content_and_no_touch_comment_or_docstring(tmp_path: Path) -> None:
    before = digest_after(tmp_path, "true")
    assert digest_after(tmp_path, "touch pcam/model.py") == before
    assert digest_after(tmp_path, "echo '# a remark' >> pcam/model.py") == before
    assert (
        digest_after(tmp_path, "sed -i 's/Two 3x3 convolutions with/A pair of convolutions with/' pcam/model.py")
        == before
    )
    assert digest_after(tmp_path, "echo 'x = 1' >> audit_poison.py") == before
    assert (
        digest_after(tmp_path, "sed -i 's/functional.relu_(self.conv1/functional.silu_(self.conv1/' pcam/model.py")
        != before
    )


def test_the_closure_reaches_through_imports() -> None:
    names = {path.stem for path in import_closure(SCRIPTS / "train_seed.py")}
    assert {"train_seed", "training", "model", "checkpoint", "preprocess", "files", "metrics"} <= names
    assert not names & {"synthetic", "audits", "figures", "tuning"}


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_scripts_never_import_one_another(name: str) -> None:
    assert {path.stem for path in import_closure(SCRIPTS / f"{name}.py") if path.parent == SCRIPTS} == {name}


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_a_script_has_a_function_of_its_name_and_at_most_150_lines(name: str) -> None:
    text = (SCRIPTS / f"{name}.py").read_text()
    assert f"\ndef {name}(" in text
    assert len(text.splitlines()) <= 150
    assert "Reads:" in text and "Writes:" in text


STAGE = """
import os, subprocess, sys, types
sys.path.insert(0, {scripts!r})
from pcam.files import InputError
from pcam.stage import run_stage
params = types.SimpleNamespace(code="c0de")
job = types.SimpleNamespace(rule="demo", params=params, log=[{log!r}], wildcards={{"seed": "3"}})
with run_stage(job):
    print("from python")
    os.write(2, b"from a descriptor\\n")
    subprocess.run(["echo", "from a child"])
    {end}
"""


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("raise InputError('x.h5: bad; fetch it')", 1), ("1 / 0", 1)])
def test_the_log_catches_everything_and_a_users_mistake_is_one_line(tmp_path: Path, end: str, code: int) -> None:
    log = tmp_path / "logs" / "demo.log"
    program = STAGE.format(scripts=str(SCRIPTS), log=str(log), end=end)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    lines = log.read_text().splitlines()
    assert done.returncode == code
    assert lines[0].startswith("# demo | seed=3 | commit ")
    assert lines[1:4] == ["from python", "from a descriptor", "from a child"]
    assert any(line.startswith("# ended after ") for line in lines)
    if "InputError" in end:
        assert lines[-1] == "error: x.h5: bad; fetch it" and "Traceback" not in log.read_text()
    if "1 / 0" in end:
        assert "ZeroDivisionError" in log.read_text()


def test_a_result_names_the_gpu_that_computed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_described": [], "_named": None, "hearers": []}.items():
        monkeypatch.setattr(f"pcam.provenance.{name}", value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    told = describe("train_seed", "0")
    assert fix_device(1).type == "cpu" and told["device"] == cpu_name()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    assert fix_device(1).type == "cuda" and told["device"] == "a GPU"
    assert describe("train_seed", "0")["device"] == "a GPU"


GPU_JOB = """
import torch
from pcam.determinism import fix_device

def compute(*, dies=False):
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_name = lambda: "a GPU"
    fix_device(1)
    if dies:
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    "work", ["compute()", "run_child(compute)", "run_child(compute, dies=True)", "[run_child(compute) for _ in 'ab']"]
)
def test_a_gpu_is_named_in_the_result_and_the_log_of_a_stage_whichever_process_computes(
    tmp_path: Path, work: str
) -> None:
    """The log alone tells of results that are no JSON files."""
    log = tmp_path / "demo.log"
    (tmp_path / "gpu_job.py").write_text(f"import os\n{GPU_JOB}")
    end = f"""
    sys.path.insert(0, {str(tmp_path)!r})
    from gpu_job import compute
    from pcam.children import run_child
"""
    opening = STAGE.format(scripts=str(SCRIPTS), log=str(log), end=end).replace("run_stage(job)", "run_stage(job) as p")
    done = subprocess.run(
        [sys.executable, "-c", f"{opening}    {work}\n    print('told', p['device'])"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    lines = log.read_text().splitlines()
    assert done.returncode == 0 and "told a GPU" in lines, lines
    first, *others = (line for line in lines if line.startswith("# demo | "))
    assert lines[0] == first and first.endswith(f" | {cpu_name()}")
    assert others == [f"{first.removesuffix(cpu_name())}a GPU"]
    source = Source(str(tmp_path / "table.csv"), "demo")
    assert Origins({"table": source}, {source.path: str(log)}).of(source)["device"] == "a GPU"
