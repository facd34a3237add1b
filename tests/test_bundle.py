"""The offline bundle: whole, the same bytes twice, safe to unpack, and answering elsewhere as where it was built."""

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from bundles import CHAMPION, PARTS, PINS, Materials, registry_reached, write_wheel, write_wheels
from verify_bundle import check_packages, read_manifest, unpacked, verify_bundle

from pcam.archives import MODIFIED, pack, unpack
from pcam.bundle import chosen_rows, filled_in, guide_commands, parts_of
from pcam.files import InputError, read_csv, read_json, write_csv, write_json
from pcam.provenance import program_files
from pcam.sandbox import run_bare, seal
from pcam.selftest import EXPECTED, TOLERANCE, compare, main
from pcam.wheels import RUNTIME, fetch_wheels, read_pins, read_wheel


def member(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w:gz", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


SOUND = member("bundle/a", b"sound")
PLANTED = {
    "symbolic link": (member("bundle/link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
    "link inside": (member("bundle/link", b"", type=tarfile.SYMTYPE, linkname="a"), "is a link"),
    "hard link": (member("bundle/link", b"", type=tarfile.LNKTYPE, linkname="bundle/a"), "is a link"),
    "absolute": (member("/tmp/planted"), "an absolute path"),
    "upwards": (member("../planted"), "leaves its folder"),
    "upwards inside": (member("bundle/../../planted"), "leaves its folder"),
    "twice": (member("bundle/a", b"other"), "there twice"),
    "fifo": (member("bundle/pipe", b"", type=tarfile.FIFOTYPE), "no plain file"),
    "device": (member("bundle/disk", b"", type=tarfile.BLKTYPE, devmajor=8), "no plain file"),
    "folder": (member("bundle/folder", b"", type=tarfile.DIRTYPE), "no plain file"),
    "line break": (member("bundle/a\nb"), "characters that no file"),
    "option": (member("bundle/--checkpoint-action=exec"), "characters that no file"),
    "escape": (member("bundle/\x1b[2J"), "characters that no file"),
    "bytes": (member("bundle/\udcff"), "characters that no file"),
    "backslash": (member("..\\planted"), "characters that no file"),
    "drive": (member("C:/planted"), "characters that no file"),
    "nothing": (member("bundle//planted"), "leaves its folder"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_an_archive_with_what_no_bundle_holds_is_refused_before_anything_is_written(tmp_path: Path, kind: str) -> None:
    planted, said = PLANTED[kind]
    path = archive(tmp_path / "planted.tar.gz", SOUND, planted)
    with pytest.raises(InputError, match=said) as error:
        unpack(path, tmp_path / "out", 10_000_000)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    assert [one.name for one in tmp_path.iterdir()] == ["planted.tar.gz"]


def pax_bomb(path: Path) -> Path:
    """A header whose record takes 20 MB, of zeros that compress to little."""
    info = tarfile.TarInfo("bundle/a")
    info.type, info.size = tarfile.XHDTYPE, 20_000_000
    with gzip.open(path, "wb", compresslevel=1) as packed:
        packed.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(20):
            packed.write(bytes(1_000_000))
    return path


def test_an_archive_that_unpacks_to_more_than_it_may_is_refused_unread(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "bomb.tar.gz", member("bundle/zeros", bytes(20_000_000)))
    assert bomb.stat().st_size < 50_000
    for path in (bomb, pax_bomb(tmp_path / "pax.tar.gz")):
        with pytest.raises(InputError, match="unpacks to more than 1,000,000 bytes"):
            unpack(path, tmp_path / "out", 1_000_000)
    sparse = tarfile.TarInfo("bundle/sparse")
    sparse.type = tarfile.GNUTYPE_SPARSE
    with gzip.open(tmp_path / "sparse.tar.gz", "wb") as packed:
        packed.write(sparse.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match="no plain file"):
        unpack(tmp_path / "sparse.tar.gz", tmp_path / "out", 1_000_000)
    assert not (tmp_path / "out").exists()


def test_what_is_no_archive_or_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    whole = archive(
        tmp_path / "whole.tar.gz", *(member(f"bundle/{i}", os.urandom(5000)) for i in range(9))
    ).read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 0xFF
    for content in (b"", b"<html>", whole[: len(whole) // 2], whole[:20], bytes(damaged), gzip.compress(b""),
                    gzip.compress(b"no tar at all" * 100), gzip.compress(bytes(10_240))):  # fmt: skip
        path = tmp_path / "damaged.tar.gz"
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            unpack(path, tmp_path / "out", 10_000_000)
        assert "\n" not in str(error.value) and "damaged.tar.gz: " in str(error.value)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    with pytest.raises(InputError, match="no such file"):
        unpack(tmp_path / "nowhere.tar.gz", tmp_path / "out", 1)


def test_packing_knows_no_time_owner_or_order_and_unpacks_to_the_same_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).write_text(name)
    (tmp_path / "a").chmod(0o600)
    pack(tmp_path / "one.tar.gz", {"bundle/b": tmp_path / "b", "bundle/a": tmp_path / "a"}, ["bundle/a"])
    os.utime(tmp_path / "a", (5, 5))
    (tmp_path / "a").chmod(0o644)
    pack(tmp_path / "two.tar.gz", {"bundle/a": tmp_path / "a", "bundle/b": tmp_path / "b"}, ["bundle/a"])
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "one.tar.gz") as tar:
        assert [(m.name, m.mode, m.mtime, m.uid, m.uname) for m in tar] == [
            ("bundle/a", 0o755, MODIFIED, 0, ""), ("bundle/b", 0o644, MODIFIED, 0, ""),
        ]  # fmt: skip
    assert unpack(tmp_path / "one.tar.gz", tmp_path / "out", 100_000) == ["bundle/a", "bundle/b"]
    assert (tmp_path / "out" / "bundle" / "b").read_text() == "b"
    with pytest.raises(ValueError, match="leaves its folder"):
        pack(tmp_path / "three.tar.gz", {"../a": tmp_path / "a"}, [])


def fetched(tmp_path: Path, source: Path | None, **options: object) -> list[str]:
    folder = tmp_path / "fetched"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    where = None if source is None else str(source)
    return [wheel.package for wheel in fetch_wheels(folder, PINS, **{"torch": False, "source": where, **options})]


def test_wheels_come_with_what_they_need_and_nothing_that_is_not_pinned(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_wheels(tmp_path / "source")
    (tmp_path / "link").symlink_to(source)
    assert fetched(tmp_path, tmp_path / "link") and f"handover.wheels: {source}\n" in capfd.readouterr().out
    write_wheel(source, "leftover", "1.0")
    assert fetched(tmp_path, source) == sorted((*RUNTIME, "flatbuffers", "packaging", "protobuf"))
    write_wheel(source, "onnxruntime", read_pins(PINS)["onnxruntime"], ("flatbuffers", "protobuf", "leftover"))
    with pytest.raises(InputError, match=r"leftover-1\.0-.*requirements\.txt does not pin leftover"):
        fetched(tmp_path, source)
    with pytest.raises(InputError, match=r"handover\.wheels: .*nowhere is no folder"):
        fetched(tmp_path, tmp_path / "nowhere")
    with pytest.raises(InputError, match="does not pin h5py"):
        (tmp_path / "pins.txt").write_text("numpy==1\n")
        fetch_wheels(tmp_path, tmp_path / "pins.txt", torch=False, source=None)


@pytest.mark.parametrize("source", [True, False])
def test_where_pip_finds_no_wheel_one_line_says_so_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: bool
) -> None:
    folder = write_wheels(tmp_path / "source")
    (folder / f"pillow-{read_pins(PINS)['pillow']}-py3-none-any.whl").unlink()
    with socket.socket() as closed:  # bound and not listening: whoever connects is turned away at once
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/simple")
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        with pytest.raises(InputError) as error:
            fetched(tmp_path, folder if source else None)
    said = str(error.value)
    assert said.startswith("wheels: pip download fails (") and "\n" not in said and "No matching" not in said
    assert ("fill " in said and "pillow" in said) if source else ("h5py" in said and "set handover.wheels to" in said)


def test_a_file_that_is_no_wheel_of_a_pinned_version_is_refused(tmp_path: Path) -> None:
    pins = {"numpy": "1.0", "torch": "2.0"}
    wheel = read_wheel(write_wheel(tmp_path, "torch", "2.0+cpu"), pins, torch=True)
    assert (wheel.package, wheel.version, wheel.glibc) == ("torch", "2.0+cpu", (0, 0))
    read_wheel(write_wheel(tmp_path, "nvidia_cublas", "9"), pins, torch=True)
    source = tmp_path / "numpy-1.0.tar.gz"
    source.write_bytes(b"x")
    text = tmp_path / "numpy-1.0-py3-none-any.whl"
    text.write_text("<html>")
    for path, said in (
        (tmp_path / "nvidia_cublas-9-py3-none-any.whl", "does not pin nvidia-cublas"),
        (write_wheel(tmp_path, "numpy", "1.1"), "pins numpy 1.0"),
        (source, "no wheel"),
        (text, "no wheel"),
    ):
        with pytest.raises(InputError, match=said):
            read_wheel(path, pins, torch=False)


def test_the_oldest_glibc_is_that_of_the_most_demanding_wheel(tmp_path: Path) -> None:
    from pcam.bundle import system_of

    names = {
        "h5py-1-cp311-cp311-manylinux_2_28_x86_64": (2, 28),
        "numpy-1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64": (2, 27),
        "protobuf-1-cp310-abi3-manylinux2014_x86_64": (2, 17),
    }
    wheels = []
    for name, glibc in names.items():
        path = write_wheel(tmp_path, "x", "1").rename(tmp_path / f"{name}.whl")
        wheels.append(read_wheel(path, dict.fromkeys(("h5py", "numpy", "protobuf"), "1"), torch=False))
        assert wheels[-1].glibc == glibc
    assert system_of(wheels, "linux-x86_64") == ("linux x86_64", "2.28")
    assert system_of([], "linux-x86_64") == ("linux x86_64", None)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    materials = Materials(tmp_path_factory.mktemp("bundle") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        materials.build(write_wheels(materials.folder.with_name("wheels")))
    return materials


def bundle_of(built: Materials, folder: Path) -> Path:
    return unpacked(str(built.bundle), read_manifest(str(built.manifest)), folder)


def test_the_bundle_holds_code_weights_cards_examples_and_wheels_and_the_digest_of_each(
    built: Materials, tmp_path: Path
) -> None:
    root, manifest = bundle_of(built, tmp_path / "out"), read_json(built.manifest)
    assert manifest["sha256"] == hashlib.sha256(built.bundle.read_bytes()).hexdigest()
    assert manifest["bytes"] == built.bundle.stat().st_size and manifest["provenance"] == {"commit": "c0ffee"}
    names = {entry["file"] for entry in manifest["files"]}
    assert names >= {*program_files(), *(f"assets/champion/{name}" for name in PARTS), "model_card.md", "data_card.md",
                     "assets/a.png", "install", "selftest", "README.md", "LICENSE", "SHA256SUMS", EXPECTED}  # fmt: skip
    # Bytecode names the folder that it was made in: no archive would be the same twice.
    assert not any("__pycache__" in name for name in names)
    assert {wheel["package"] for wheel in manifest["wheels"]} >= set(RUNTIME)
    assert not any("torch" in wheel["package"] for wheel in manifest["wheels"])
    assert sum(part["files"] for part in manifest["parts"]) == len(names)
    assert sum(part["bytes"] for part in manifest["parts"]) == sum(entry["bytes"] for entry in manifest["files"])
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=root, check=True, capture_output=True)
    assert len((root / "SHA256SUMS").read_text().splitlines()) == len(names) - 1
    assert (root / "install").stat().st_mode & 0o111 and not (root / "LICENSE").stat().st_mode & 0o111
    guide = (root / "README.md").read_text()
    assert "c0ffee" in guide and "SYNTHETIC SAMPLE" in guide and "$" not in guide
    answers = read_csv(root / EXPECTED)
    assert len(answers) == 16 + 4 + 4 and len({row["probability"] for row in answers}) > 8


def test_the_same_content_gives_the_same_bytes(built: Materials, tmp_path: Path) -> None:
    again = Materials(tmp_path / "elsewhere")
    again.build(write_wheels(tmp_path / "wheels"))
    assert again.bundle.read_bytes() == built.bundle.read_bytes()


def test_nothing_is_built_from_what_is_missing_or_has_no_threshold(tmp_path: Path) -> None:
    materials = Materials(tmp_path / "run")
    wheels = write_wheels(tmp_path / "wheels")
    copy = shutil.copytree(CHAMPION, tmp_path / "champion")
    materials.champion = [str(copy / name) for name in PARTS]
    (copy / "guard.json").unlink()
    with pytest.raises(InputError, match=r"guard\.json: no such file; the bundle needs it"):
        materials.build(wheels)
    write_json(copy / "weights.json", {**read_json(copy / "weights.json"), "threshold": None})
    with pytest.raises(InputError, match="no threshold was chosen"):
        materials.build(wheels)
    assert not materials.bundle.exists() and not materials.manifest.exists()


def test_a_bundle_that_is_not_its_manifests_is_not_installed(built: Materials, tmp_path: Path) -> None:
    bundle, manifest = tmp_path / "bundle.tar.gz", read_json(built.manifest)
    shutil.copy(built.bundle, bundle)
    bundle.write_bytes(bundle.read_bytes() + b"\0")
    with pytest.raises(InputError, match="is not the archive of its manifest"):
        unpacked(str(bundle), manifest, tmp_path / "a")
    shutil.copy(built.bundle, bundle)
    files = [{**manifest["files"][0], "sha256": "0" * 64}, *manifest["files"][1:]]
    with pytest.raises(InputError, match=f"differs from its manifest in {files[0]['file']}"):
        unpacked(str(bundle), {**manifest, "files": files}, tmp_path / "b")
    with pytest.raises(InputError, match="a file that it does not list"):
        unpacked(str(bundle), {**manifest, "files": manifest["files"][1:]}, tmp_path / "c")
    for key, value in (("sha256", None), ("files", {}), ("files", [{"file": "a"}]),
                       ("files", [{"file": "a", "bytes": True}]), ("torch", "no"), ("wheels", 3)):  # fmt: skip
        write_json(tmp_path / "manifest.json", {**manifest, key: value})
        with pytest.raises(InputError, match=r"manifest\.json: files holds|is .*; rule build_bundle"):
            read_manifest(str(tmp_path / "manifest.json"))


def test_what_the_guide_says_is_what_the_verification_runs(built: Materials, tmp_path: Path) -> None:
    root = unpacked(str(built.bundle), read_json(built.manifest), tmp_path / "unpacked")
    commands = guide_commands(root)
    assert [filled_in(command, "/an environment") for command in commands] == [
        "./install '/an environment'",
        "./selftest '/an environment'",
        "'/an environment'/bin/python inference.py examples",
        "'/an environment'/bin/python inference.py --help",
    ]
    (root / "README.md").write_text("# No command\n")
    with pytest.raises(InputError, match="no command installs the bundle"):
        guide_commands(root)


@pytest.mark.slow
def test_wheels_that_hold_nothing_do_not_pass_the_verification(built: Materials, tmp_path: Path) -> None:
    """They install, without network; then the selftest finds no numpy."""
    with pytest.raises(InputError, match=r"^\./selftest FOLDER ends with 1: .*numpy"):
        verify_bundle(str(built.bundle), str(built.manifest), str(tmp_path / "verify.json"), provenance={})
    assert not (tmp_path / "verify.json").exists()


def test_a_package_that_is_not_installed_as_listed_is_named() -> None:
    manifest = {"wheels": [{"package": "numpy", "version": "2"}]}
    check_packages({"numpy": "2", "pip": "1"}, manifest)
    with pytest.raises(InputError, match="numpy: 1 is installed, not 2"):
        check_packages({"numpy": "1"}, manifest)
    with pytest.raises(InputError, match="numpy: nothing is installed"):
        check_packages({}, manifest)


@pytest.mark.slow
def test_what_a_machine_has_elsewhere_counts_as_nothing_that_is_installed(built: Materials, tmp_path: Path) -> None:
    """Clusters set PYTHONPATH, and pip takes what stands there for installed."""
    about = tmp_path / "modules" / f"numpy-{read_pins(PINS)['numpy']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: numpy\nVersion: {read_pins(PINS)['numpy']}\n")
    (about / "RECORD").touch()
    root = bundle_of(built, tmp_path / "out")
    subprocess.run(
        [root / "install", tmp_path / "env"], check=True, capture_output=True,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(about.parent)},
    )  # fmt: skip
    assert list((tmp_path / "env").glob(f"lib/*/site-packages/{about.name}"))


def test_installing_refuses_a_damaged_file_another_python_and_a_folder_in_use(built: Materials, tmp_path: Path) -> None:
    root = bundle_of(built, tmp_path / "out")

    def install(**environment: str) -> str:
        done = subprocess.run(
            [root / "install", tmp_path / "env"], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHON": sys.executable, **environment},
        )  # fmt: skip
        assert done.returncode == 1 and not (tmp_path / "env" / "bin").exists()
        return done.stderr.splitlines()[-1]

    (root / "model_card.md").write_text("other\n")
    assert "a file is damaged or missing" in install()
    (tmp_path / "env").mkdir()
    assert "is there already" in install()
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 3.7\n")
    other.chmod(0o755)
    assert "is Python 3.7, the wheels are for 3." in install(PYTHON=str(other))
    done = subprocess.run([root / "selftest", tmp_path / "none"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "run install first" in done.stderr


def test_the_selftest_passes_where_nothing_changed_and_names_other_answers(
    built: Materials, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = bundle_of(built, tmp_path / "out")
    assert main(root) == 0
    assert capsys.readouterr().out.startswith("selftest: passed: 24 answers, probabilities differ by ")
    rows = read_csv(root / EXPECTED)
    answers = shutil.copy(root / EXPECTED, tmp_path / "answers.csv")
    # From here on it answers as before: loading torch each time would take most of a minute.
    monkeypatch.setattr("pcam.selftest.answer", lambda root, weights, output: shutil.copy(answers, output))

    def expect(changed: list[dict[str, str]]) -> str:
        write_csv(root / EXPECTED, list(rows[0]), [list(row.values()) for row in changed])
        assert main(root) == 1
        return capsys.readouterr().out

    first = float(rows[0]["probability"])
    off = {**rows[0], "probability": str(first + 2 * TOLERANCE)}
    assert "FAILED" in expect([off, *rows[1:]])
    other = {**rows[0], "decision": str(1 - int(rows[0]["decision"]))}
    assert "1 decisions are other ones" in expect([other, *rows[1:]])
    assert "not those to the 23" in expect(rows[1:])
    assert "unpack the bundle again" in expect([{**rows[0], "probability": "a lot"}, *rows[1:]])
    (root / EXPECTED).unlink()
    assert main(root) == 1 and "no such file" in capsys.readouterr().out


def test_a_decision_at_the_threshold_may_turn_and_a_nan_passes_nowhere(tmp_path: Path) -> None:
    columns = ("source", "row", "x", "y", "probability", "decision")
    expected, answers = tmp_path / "expected.csv", tmp_path / "answers.csv"

    def told(*pairs: tuple[float, int]) -> Path:
        path = expected if not expected.exists() else answers
        write_csv(path, columns, [("a", i, 0, 0, *pair) for i, pair in enumerate(pairs)])
        return path

    told((0.5, 1), (0.9, 1))
    assert compare(expected, told((0.4999, 0), (0.9, 1)), 0.5).passed
    assert not compare(expected, told((0.5, 1), (0.9, 0)), 0.5).passed
    for nan in ((float("nan"), 1), (0.9, 1)), ((0.5, 1), (float("nan"), 1)):
        assert not compare(expected, told(*nan), 0.5).passed


def test_examples_go_from_the_least_to_the_most_probable() -> None:
    values = np.random.default_rng(0).permutation(100) / 100
    chosen = values[chosen_rows(values)]
    assert len(chosen) == 16 and list(chosen) == sorted(chosen) and (chosen[0], chosen[-1]) == (0.0, 0.99)
    assert len(chosen_rows(values[:3])) == 3 and len(chosen_rows(values[:1])) == 1
    parts = parts_of(
        [{"file": "inference.py", "bytes": 1}, {"file": "wheels/a", "bytes": 5}, {"file": "x", "bytes": 2}]
    )
    assert [part["part"] for part in parts] == ["wheels", "documents and scripts", "code"]


def test_a_sealed_folder_cannot_be_written_and_reaches_no_network_or_the_sandbox_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, home = tmp_path / "folder", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    sealed = seal(folder)
    # Whatever this machine allows: what the sandbox claims is what a command in it finds.
    wrote = run_bare(sealed.command("sh", "-c", "touch planted"), home).returncode == 0
    assert wrote is sealed.writable is (folder / "planted").exists()
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        reached = run_bare(sealed.command(sys.executable, "-c", reach), home).returncode == 0
    assert reached is sealed.network
    assert run_bare(sealed.command("pwd"), home).stdout.strip() == str(folder)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    bare = seal(folder)
    assert (bare.how, bare.network, bare.writable) == ("no namespace", True, True)


def test_nothing_of_this_environment_but_its_path_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://planted")
    monkeypatch.setenv("PYTHONPATH", "/planted")
    told = run_bare([sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"], tmp_path).stdout
    assert "planted" not in told and json.loads(told)["HOME"] == str(tmp_path)


@pytest.mark.slow
def test_the_real_bundle_installs_and_answers_without_network_read_only(tmp_path: Path) -> None:
    if not registry_reached(tmp_path / "tried"):
        pytest.skip("pip reaches no registry, so no wheel comes and the bundle is not tried")
    materials = Materials(tmp_path / "run")
    materials.build(None)
    verify_bundle(str(materials.bundle), str(materials.manifest), str(tmp_path / "verify.json"), provenance={})
    verdict, manifest = read_json(tmp_path / "verify.json"), read_json(materials.manifest)
    told = verdict["answers"]["weights.onnx"]
    assert verdict["passed"] and verdict["bundle"] == manifest["sha256"]
    assert told["n"] == 24 and told["largest_probability_difference"] <= TOLERANCE
    assert told["decisions_that_differ"] == 0
    pins = read_pins(PINS)
    assert {name: pins[name] for name in RUNTIME}.items() <= verdict["packages"].items()
    assert "torch" not in verdict["packages"]
    if os.geteuid() == 0 and shutil.which("unshare"):
        assert verdict["how"].startswith("unshare --net") or verdict["network"]
