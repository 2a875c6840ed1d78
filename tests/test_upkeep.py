"""The doctor finds what does not verify and drops it; clean drops what no study needs; neither takes from a living run."""

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


def test_the_census_counts_artifacts_and_bytes_by_stage_and_what_is_unfinished(store):
    for stage, digest in (("pretrain", DIGEST), ("pretrain", OTHER), ("finetune", THIRD)):
        store.write(stage, digest, fill)
    with store.lock(DIGEST):
        pass
    store.checkpoints("b" * 16).save(1, state)
    rows = store_care.census(store)
    assert [(stage, n) for stage, n, _ in rows] == [("finetune", 1), ("pretrain", 2), ("unfinished", 1)]
    assert rows[0][2] == sum(p.stat().st_size for p in (store.root / "finetune").rglob("*") if p.is_file())


def test_what_does_not_verify_is_named_with_its_reason_and_dropped(store):
    whole, ill = store.write("pretrain", DIGEST, fill), store.write("pretrain", OTHER, fill)
    flip(ill / "weights.bin")
    (store.root / "pretrain" / f".new-{THIRD}-12345678").mkdir()
    found = store_care.examine(store)
    assert [(f.folder.name, f.reason) for f in found] == [
        (f".new-{THIRD}-12345678", "left by a maker that was killed"),
        (OTHER, "weights.bin differs from its manifest's sha256"),
    ]
    assert all(store_care.drop(f, store) for f in found)
    assert [p.name for p in (store.root / "pretrain").iterdir()] == [DIGEST]
    assert store.find(DIGEST) == whole and store_care.examine(store) == []


def test_nothing_is_taken_from_under_a_living_maker(store):
    store.write("pretrain", THIRD, fill)
    being_made = store.root / "pretrain" / f".new-{DIGEST}-12345678"
    being_made.mkdir()
    (finding,) = (f for f in store_care.examine(store))
    with store.lock(DIGEST):
        assert store_care.examine(store) == []
        assert store_care.drop(finding, store) is False
        assert being_made not in [f.folder for f in store_care.surplus(store, set())]
    assert being_made.is_dir()
    assert store_care.drop(finding, store) and not being_made.exists()


def test_surplus_is_what_nobody_wants_with_its_size(store):
    wanted, unwanted = store.write("pretrain", DIGEST, fill), store.write("finetune", OTHER, fill)
    store.checkpoints(OTHER).save(3, state)
    found = {f.folder: f.n_bytes for f in store_care.surplus(store, {DIGEST})}
    assert set(found) == {unwanted, store.root / "work" / OTHER}
    assert found[unwanted] == 2560 + (unwanted / "manifest.json").stat().st_size
    flip(wanted / "weights.bin")
    store.find(DIGEST)
    assert sum(f.folder.name.startswith(".damaged-") for f in store_care.surplus(store, {DIGEST, OTHER})) == 1


def test_a_link_is_dropped_without_what_it_leads_to(store, tmp_path):
    store.write("finetune", THIRD, fill)
    (tmp_path / "precious").mkdir()
    (store.root / "finetune" / OTHER).symlink_to(tmp_path / "precious")
    assert all(store_care.drop(f, store) for f in store_care.surplus(store, {THIRD}))
    assert (tmp_path / "precious").is_dir() and not (store.root / "finetune" / OTHER).exists()


def test_a_kept_study_keeps_its_family_too():
    zoo = Study(**load(paths.PARAMS / "zoo.yaml") | {"recipes": ["Basic"]})
    starts = [s.digest for s in plan.pretraining(zoo, map(plan.Size.parse, zoo.sizes)).of_stage("pretrain")]
    assert len(starts) == len(zoo.sizes) and set(starts) <= artifacts.needed([zoo])


def test_a_released_encoder_that_is_passed_over_is_named_with_the_reason(tmp_path):
    store = Store(tmp_path, families=(paths.ZOO,))
    zoo = Study.read("zoo")
    longer = zoo.model_copy(update={"pretrain": zoo.pretrain.model_copy(update={"tokens": 3e6}), "sizes": ["2/128"]})
    (said,) = artifacts.passed_over(plan.pretraining(longer, [plan.Size.parse("2/128")]), store)
    assert "the released 2/128" in said and "tokens 20000000.0 where this study says 3000000.0" in said
    other = zoo.model_copy(update={"splits": zoo.splits.model_copy(update={"seed": 5})})
    (said,) = artifacts.passed_over(plan.pretraining(other, [plan.Size.parse("2/128")]), store)
    assert "another corpus, split or tokenizer" in said
    assert artifacts.passed_over(plan.pretraining(zoo, [plan.Size.parse("2/128")]), store) == []
