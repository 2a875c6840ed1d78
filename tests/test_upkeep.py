"""`doctor` finds and removes damaged artifacts, `clean` removes unused ones, and neither touches those of a running process."""

import pytest

from pdstudy import Study
from pdstudy.storage import paths, store_care
from pdstudy.storage.store import Store
from pdstudy.study import artifacts, plan
from pdstudy.study.yaml_file import load

DIGEST, OTHER, THIRD = "0123456789abcdef", "fedcba9876543210", "a" * 16


def fill(folder):
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 10)
    return {"label": "a label", "seconds": 1.5}


def flip(path):
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def state(folder):
    (folder / "state").write_text("x")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", families=())


def test_artifacts_and_bytes_are_counted_by_stage_and_for_unfinished_steps(store):
    for stage, digest in (("pretrain", DIGEST), ("pretrain", OTHER), ("finetune", THIRD)):
        store.write(stage, digest, fill)
    with store.lock(DIGEST):
        pass
    store.checkpoints("b" * 16).save(1, state)
    rows = store_care.count_by_stage(store)
    assert [(stage, n) for stage, n, _ in rows] == [("finetune", 1), ("pretrain", 2), ("unfinished", 1)]
    assert rows[0][2] == sum(p.stat().st_size for p in (store.root / "finetune").rglob("*") if p.is_file())


def test_damaged_artifacts_are_listed_with_the_reason_and_removed(store):
    intact, damaged = store.write("pretrain", DIGEST, fill), store.write("pretrain", OTHER, fill)
    flip(damaged / "weights.bin")
    (store.root / "pretrain" / f".new-{THIRD}-12345678").mkdir()
    findings = store_care.find_damaged(store)
    assert [(f.folder.name, f.reason) for f in findings] == [
        (f".new-{THIRD}-12345678", "left by a process that was killed"),
        (OTHER, "weights.bin differs from its manifest's sha256"),
    ]
    assert all(store_care.remove(f, store) for f in findings)
    assert [p.name for p in (store.root / "pretrain").iterdir()] == [DIGEST]
    assert store.find(DIGEST) == intact and store_care.find_damaged(store) == []


def test_files_of_a_running_process_are_not_removed(store):
    store.write("pretrain", THIRD, fill)
    being_made = store.root / "pretrain" / f".new-{DIGEST}-12345678"
    being_made.mkdir()
    (finding,) = (f for f in store_care.find_damaged(store))
    with store.lock(DIGEST):
        assert store_care.find_damaged(store) == []
        assert store_care.remove(finding, store) is False
        assert being_made not in [f.folder for f in store_care.find_unused(store, set())]
    assert being_made.is_dir()
    assert store_care.remove(finding, store) and not being_made.exists()


def test_unused_artifacts_are_listed_with_their_size(store):
    wanted, unwanted = store.write("pretrain", DIGEST, fill), store.write("finetune", OTHER, fill)
    store.checkpoints(OTHER).save(3, state)
    findings = {f.folder: f.n_bytes for f in store_care.find_unused(store, {DIGEST})}
    assert set(findings) == {unwanted, store.root / "work" / OTHER}
    assert findings[unwanted] == 2560 + (unwanted / "manifest.json").stat().st_size
    flip(wanted / "weights.bin")
    store.find(DIGEST)
    assert sum(f.folder.name.startswith(".damaged-") for f in store_care.find_unused(store, {DIGEST, OTHER})) == 1


def test_a_link_is_removed_without_its_target(store, tmp_path):
    store.write("finetune", THIRD, fill)
    (tmp_path / "precious").mkdir()
    (store.root / "finetune" / OTHER).symlink_to(tmp_path / "precious")
    assert all(store_care.remove(f, store) for f in store_care.find_unused(store, {THIRD}))
    assert (tmp_path / "precious").is_dir() and not (store.root / "finetune" / OTHER).exists()


def test_the_released_encoders_of_a_study_to_keep_are_kept():
    zoo = Study(**load(paths.PARAMS / "zoo.yaml") | {"recipes": ["Basic"]})
    starts = [s.digest for s in plan.pretraining(zoo, map(plan.Size.parse, zoo.sizes)).of_stage("pretrain")]
    assert len(starts) == len(zoo.sizes) and set(starts) <= artifacts.needed([zoo])


def test_an_unused_released_encoder_is_named_with_the_reason(tmp_path):
    store = Store(tmp_path, families=(paths.ZOO,))
    zoo = Study.read("zoo")
    longer = zoo.model_copy(update={"pretrain": zoo.pretrain.model_copy(update={"tokens": 3e6}), "sizes": ["2/128"]})
    (message,) = artifacts.unusable_encoders(plan.pretraining(longer, [plan.Size.parse("2/128")]), store)
    assert "the released 2/128" in message and "tokens 20000000.0 (this study: 3000000.0)" in message
    other = zoo.model_copy(update={"splits": zoo.splits.model_copy(update={"seed": 5})})
    (message,) = artifacts.unusable_encoders(plan.pretraining(other, [plan.Size.parse("2/128")]), store)
    assert "another corpus, split or tokenizer" in message
    assert artifacts.unusable_encoders(plan.pretraining(zoo, [plan.Size.parse("2/128")]), store) == []
