"""The store: all of an artifact or nothing, damage seen, locks that die with their holder."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pdstudy.storage.store import MANIFEST, Checkpoints, Store, StoreError, damage, identity, seal

DIGEST, OTHER = "0123456789abcdef", "fedcba9876543210"


def fill(folder: Path) -> dict:
    """Write an artifact of two files, one of them in a folder."""
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 10)
    (folder / "inner").mkdir()
    (folder / "inner" / "note.txt").write_text("note")
    return {"label": "a label", "seconds": 1.5}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", families=())


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


# Writing and finding


def test_a_written_artifact_is_found_opened_listed_and_described(store):
    folder = store.write("pretrain", DIGEST, fill)
    assert folder == store.root / "pretrain" / DIGEST == store.find(DIGEST) == store.open(DIGEST)
    assert names(folder) == ["inner", "manifest.json", "weights.bin"]
    assert store.here() == {DIGEST}
    manifest = store.manifest(DIGEST)
    assert {k: manifest[k] for k in ("stage", "digest", "label", "seconds")} == {
        "stage": "pretrain",
        "digest": DIGEST,
        "label": "a label",
        "seconds": 1.5,
    }
    assert {k: v["bytes"] for k, v in manifest["files"].items()} == {"inner/note.txt": 4, "weights.bin": 2560}


def test_an_artifact_that_is_not_there_is_none_to_find_and_an_error_to_open(store):
    assert store.find(DIGEST) is None
    assert store.here() == set()
    for ask in (store.open, store.manifest):
        with pytest.raises(StoreError, match=f"artifact {DIGEST} is not in the store; run the study first"):
            ask(DIGEST)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failing_fill_leaves_nothing_behind(store, error):
    def fails(folder):
        fill(folder)
        raise error("half way")

    with pytest.raises(error, match="half way"):
        store.write("pretrain", DIGEST, fails)
    assert names(store.root / "pretrain") == []
    assert store.find(DIGEST) is None


def test_a_failing_fill_leaves_the_artifact_that_stood_there(store):
    folder = store.write("pretrain", DIGEST, fill)

    def fails(_):
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        store.write("pretrain", DIGEST, fails)
    assert store.find(DIGEST) == folder
    assert names(store.root / "pretrain") == [DIGEST]


def test_a_reader_sees_nothing_before_the_artifact_is_whole(store):
    def looks(folder):
        fill(folder)
        assert store.find(DIGEST) is None
        assert store.here() == set()
        return {}

    store.write("pretrain", DIGEST, looks)
    assert store.here() == {DIGEST}


# Damage


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: flip(f / "weights.bin"), "weights.bin differs from its manifest's sha256"),
        (lambda f: os.truncate(f / "weights.bin", 100), "weights.bin is missing or has another size"),
        (lambda f: (f / "inner" / "note.txt").unlink(), "inner/note.txt is missing or has another size"),
        (lambda f: (f / "manifest.json").write_text('{"files": '), "its manifest is missing or unreadable"),
        (lambda f: (f / "manifest.json").write_text('{"files": [1]}'), "its manifest is missing or unreadable"),
    ],
    ids=["flipped", "truncated", "deleted", "half a manifest", "odd manifest"],
)
def test_a_damaged_artifact_is_named_set_aside_and_can_be_made_again(store, caplog, harm, said):
    folder = store.write("pretrain", DIGEST, fill)
    harm(folder)
    with caplog.at_level(logging.WARNING, logger="pdstudy"):
        assert store.find(DIGEST) is None
    assert said in caplog.text
    (aside,) = names(store.root / "pretrain")
    assert aside.startswith(f".damaged-{DIGEST}-")
    assert store.write("pretrain", DIGEST, fill) == folder == store.find(DIGEST)


def test_damage_is_seen_though_the_same_process_has_verified_the_file_before(store):
    folder = store.write("pretrain", DIGEST, fill)
    assert store.find(DIGEST) == folder
    flip(folder / "weights.bin")
    stat = (folder / "weights.bin").stat()
    os.utime(folder / "weights.bin", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))  # a clock as coarse as it likes
    assert store.find(DIGEST) is None


def test_a_folder_without_manifest_is_no_artifact_and_is_kept_aside_when_made_again(store):
    folder = store.write("pretrain", DIGEST, fill)
    (folder / "manifest.json").unlink()
    assert store.find(DIGEST) is None
    assert store.here() == set()
    assert damage(folder) == "its manifest is missing or unreadable"
    assert store.write("pretrain", DIGEST, fill) == folder == store.find(DIGEST)
    assert [n.rsplit("-", 1)[0] for n in names(store.root / "pretrain")] == [f".damaged-{DIGEST}", DIGEST]


# Released families


@pytest.fixture
def released(tmp_path):
    """Return a store with one artifact in a read-only family."""
    maker = Store(tmp_path / "elsewhere", families=())
    shutil.copytree(maker.write("pretrain", DIGEST, fill), tmp_path / "zoo" / "2-128")
    return Store(tmp_path / "store", families=(tmp_path / "zoo",))


def test_a_released_family_gives_its_artifacts_and_is_never_written_to(released, tmp_path):
    before = names(tmp_path / "zoo" / "2-128")
    assert released.here() == released.released() == {DIGEST}
    assert released.open(DIGEST) == tmp_path / "zoo" / "2-128"
    assert released.manifest(DIGEST)["label"] == "a label"
    released.write("pretrain", OTHER, fill)
    assert released.here() == {DIGEST, OTHER}
    assert released.released() == {DIGEST}
    assert names(tmp_path / "zoo") == ["2-128"]
    assert names(tmp_path / "zoo" / "2-128") == before


def test_what_was_computed_here_goes_before_the_released(released):
    folder = released.write("pretrain", DIGEST, fill)
    assert released.open(DIGEST) == folder


def test_a_damaged_released_artifact_is_an_error_and_stays_where_it_is(released, tmp_path):
    flip(tmp_path / "zoo" / "2-128" / "weights.bin")
    with pytest.raises(StoreError, match=r"weights.bin differs from its manifest's sha256; restore it with git"):
        released.find(DIGEST)
    assert names(tmp_path / "zoo") == ["2-128"]


# Locks

HOLDER = """
import sys
from pdstudy.storage.store import Store
with Store({root!r}, families=()).lock("{digest}") as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(store):
    """Return another living process that holds the lock of DIGEST."""
    code = HOLDER.format(root=str(store.root), digest=DIGEST)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_keeps_another_process_out_and_only_from_the_same_step(store, holder):
    with store.lock(DIGEST, wait=False) as mine:
        assert mine is False
    with store.lock(OTHER, wait=False) as mine:
        assert mine is True


def test_a_lock_is_free_once_its_holder_is_done(store, holder):
    holder.communicate("")
    with store.lock(DIGEST, wait=False) as mine:
        assert mine is True


def test_the_lock_of_a_killed_holder_is_free_at_once(store, holder):
    holder.send_signal(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    with store.lock(DIGEST, wait=False) as mine:
        assert mine is True


def test_a_lock_is_released_when_its_work_fails(store):
    with pytest.raises(RuntimeError, match="failed"), store.lock(DIGEST):
        raise RuntimeError("failed")
    with store.lock(DIGEST, wait=False) as mine:
        assert mine is True


# Checkpoints


def state(text: str):
    return lambda folder: (folder / "state.txt").write_text(text) and None


def test_the_newest_two_states_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "work")
    for step in (5, 90, 1000):
        checkpoints.save(step, state(f"after {step}"))
    assert names(tmp_path / "work") == ["000000090", "000001000"]
    step, folder = checkpoints.newest()
    assert step == 1000
    assert (folder / "state.txt").read_text() == "after 1000"


def test_a_broken_state_is_told_and_removed_and_the_one_before_is_taken(tmp_path):
    checkpoints, told = Checkpoints(tmp_path / "work"), []
    checkpoints.save(10, state("after 10"))
    checkpoints.save(20, state("after 20"))
    (tmp_path / "work" / "000000020" / "state.txt").write_text("after")
    assert checkpoints.newest(told.append) == (10, tmp_path / "work" / "000000010")
    assert told == ["checkpoint 20: state.txt is missing or has another size than its manifest says; trying the one before"]
    assert names(tmp_path / "work") == ["000000010"]


def test_a_state_that_could_not_be_written_leaves_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path / "work")
    checkpoints.save(10, state("after 10"))

    def fails(folder):
        (folder / "state.txt").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(20, fails)
    assert names(tmp_path / "work") == ["000000010"]


def test_a_step_that_never_began_or_is_finished_has_no_state(tmp_path):
    checkpoints = Checkpoints(tmp_path / "work")
    assert checkpoints.newest() is None
    checkpoints.save(10, state("after 10"))
    checkpoints.drop()
    assert checkpoints.newest() is None
    assert not (tmp_path / "work").exists()


def test_a_sealed_folder_names_every_file_it_holds_but_its_manifest(tmp_path):
    fill(tmp_path)
    seal(tmp_path, {"step": 3})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest["files"]) == {"inner/note.txt", "weights.bin"}
    assert manifest["step"] == 3
    assert damage(tmp_path) is None


def test_a_manifest_with_any_byte_changed_is_damage_or_harmless_and_never_a_crash(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    seal(tmp_path, {"stage": "texts"})
    path = tmp_path / MANIFEST
    whole = path.read_bytes()
    begin = whole.index(b'"files"')  # what follows is what is checked
    end = whole.index(b'"stage"')
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        found = damage(tmp_path)
        if begin <= i < end and chr(whole[i]).isalnum():
            assert found is not None, whole[i - 5 : i + 5]


def test_an_artifact_in_the_place_of_another_or_with_other_settings_is_damage(store):
    def made(folder):
        return fill(folder) | {"version": 2, "settings": {"seed": 1}, "parents": {}}

    digest = identity("pretrain", 2, {"seed": 1}, {})
    folder = store.write("pretrain", digest, made)
    assert store.find(digest) == folder
    shutil.copytree(folder, folder.with_name(DIGEST))
    assert damage(folder.with_name(DIGEST), DIGEST) == f"its manifest is that of artifact {digest}"
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace('"seed": 1', '"seed": 2'))
    assert damage(folder, digest) == "its manifest's stage, settings and parents do not give its digest"
    assert store.find(digest) is None


def test_what_a_killed_maker_left_is_swept_by_the_next_maker_of_that_step_alone(store):
    for digest in (DIGEST, OTHER):
        (store.root / "pretrain" / f".new-{digest}-12345678").mkdir(parents=True)
    store.write("pretrain", DIGEST, fill)
    assert names(store.root / "pretrain") == [f".new-{OTHER}-12345678", DIGEST]


def test_an_unreadable_manifest_is_an_error_with_its_cure(store):
    folder = store.write("pretrain", DIGEST, fill)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(StoreError, match="unreadable; run: python -m pdstudy doctor --repair"):
        store.manifest(DIGEST)
