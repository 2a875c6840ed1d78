"""A released family opens without our code, tells its numbers, and spares a study the same pre-training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pdstudy import Study
from pdstudy.models import weights as modelfiles
from pdstudy.release import zoo
from pdstudy.run.run_study import pretrain_family
from pdstudy.run.scheduler import run
from pdstudy.sizes import Size
from pdstudy.storage import files, paths
from pdstudy.storage.store import Store, damage
from pdstudy.study import plan

RELEASED = sorted(p.parent for folder in (paths.ZOO, paths.ZOO / "long") for p in folder.glob("*/model.safetensors"))
MEGABYTES = 100  # three families: two without a teacher, and general distillation


@pytest.fixture(scope="module")
def family(smoke, tmp_path_factory):
    """The smoke study's starts, released into a folder."""
    folder = tmp_path_factory.mktemp("zoo")
    stuck = zoo.release(smoke, Store(), folder)
    return folder, stuck


def test_a_miniature_opens_with_transformers_alone_and_reads_as_ours_does(family):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = family[0] / "2-64-s0"
    theirs, loading = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(loading[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("a film that [MASK] ends", return_tensors="pt").input_ids
    ours = modelfiles.load_masked_lm(folder).eval()
    with torch.no_grad():
        expected = theirs.eval()(ids).logits[0]
        logits = ours(ids, torch.arange(ids.numel()))
    assert torch.allclose(logits, expected, atol=1e-4)


def test_a_card_tells_what_the_record_says(family):
    folder = family[0] / "2-128-s0"
    card = (folder / "README.md").read_text()
    record = json.loads((folder / "record.json").read_text())
    assert f"{record['reading']['mlm_loss']:.3f}" in card and f"{record['tokens']:,}" in card
    assert "sha256 `d4acac55" in card and "unigram" in card
    assert "2/64" in (family[0] / "README.md").read_text()
    assert (family[0] / "family.png").stat().st_size > 10_000


def test_a_card_shows_what_the_model_puts_in_for_each_mask(family):
    from pdstudy.data.tasks import TASKS

    folder = family[0] / "2-128-s0"
    card, cloze = (folder / "README.md").read_text(), TASKS["movies"].cloze
    predictions = zoo.fill_mask(folder, cloze)
    assert len(cloze) == len(predictions) == 10
    piece, share = predictions[0][0]
    assert 0 < predictions[0][2][1] <= predictions[0][1][1] <= share < 1 and f" {share:.0%}" in card
    assert "the acting was absolutely \\[MASK\\] ." in card.replace("\\\\", "\\") and piece in card


def test_the_table_tells_what_the_reading_is_worth_from_a_study_s_results(smoke, family):
    from pdstudy.analysis import verdicts

    text = zoo.gains(["smoke"])
    rows = verdicts.gains_by_size("smoke", zoo.PAIRS)
    assert "| size | PF over Basic | PD over Distillation, 800 transfer texts |" in text
    for row in rows.itertuples():
        interval = f"{row.low:+.1f} to {row.high:+.1f}" if np.isfinite(row.low) else "no interval"  # no answer differs
        assert f" {row.estimate:+.1f} ({interval}), 2 x 300 |" in text
    assert len(rows) == 4 and "missing" not in text
    assert zoo.gains([]) == "" and "worth" not in (family[0] / "README.md").read_text()


def test_a_sentence_without_its_mask_is_refused(family):
    with pytest.raises(ValueError, match=r"has 0 \[MASK\], expected one"):
        zoo.fill_mask(family[0] / "2-128-s0", ["no question here"])


def test_a_model_on_the_plateau_is_named(family):
    assert family[1] == ["2/64", "2/128"]  # after a second of reading
    assert "needs more pre-training" in (family[0] / "2-64-s0" / "README.md").read_text()


def test_a_study_takes_its_starts_from_a_family(smoke, family, tmp_path):
    made = plan.make(smoke)
    starts = {s.digest for s in plan.pretraining(smoke, map(Size.parse, smoke.sizes)).of_stage("pretrain")}
    assert starts < {s.digest for s in made.of_stage("pretrain")}
    store = Store(tmp_path / "store", families=(family[0],))
    assert starts <= store.digests() and starts <= store.released()
    only = plan.pretraining(smoke, [])
    only.steps = {d: s for d, s in made.steps.items() if d in starts}
    assert run(only, store, workers=0).computed == 0
    assert not (starts & Store(tmp_path / "store", families=()).digests())


def test_a_damaged_family_is_an_error_with_its_cure(smoke, family, tmp_path):
    import shutil

    from pdstudy.storage.store import StoreError

    copy = tmp_path / "zoo"
    shutil.copytree(family[0], copy)
    weights = copy / "2-64-s0" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    digest = json.loads((copy / "2-64-s0" / "manifest.json").read_text())["digest"]
    with pytest.raises(StoreError, match="restore it with git, or run with --from-scratch"):
        Store(tmp_path / "store", families=(copy,)).find(digest)


def test_the_quick_study_begins_from_the_released_family():
    study = Study.read("quick")
    starts = {Path(s.folder).relative_to(paths.ZOO).as_posix() for s in plan.make(study).of_stage("adopt")}
    assert starts == {f"long/{size.replace('/', '-')}-s0" for size in study.sizes}


@pytest.mark.parametrize("folder", RELEASED, ids=lambda p: p.relative_to(paths.ZOO).as_posix())
def test_a_released_miniature_is_whole_and_has_read(folder):
    assert damage(folder) is None
    level = json.loads((folder / "record.json").read_text())["reading"]
    assert level["mlm_loss"] < level["unigram_loss"] - 1
    assert all(np.isfinite(w.float()).all() for w in modelfiles.load_weights(folder).values())


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in (paths.ZOO / "distilled").glob("*/model.safetensors")), ids=lambda p: p.name
)
def test_an_encoder_of_general_distillation_opens_with_its_pooler_and_its_card_names_it(folder):
    config, weights, model = modelfiles.load_pretrained(folder)
    assert f"{config.num_hidden_layers}-{config.hidden_size}-s0" == folder.name and config.vocab_size == 8192
    assert "bert.pooler.dense.weight" in weights and model is not None and all(np.isfinite(w).all() for w in weights.values())
    assert files.sha256(folder / "model.safetensors") in (folder / "README.md").read_text()


def test_the_released_family_is_small_enough_to_clone():
    size = sum(p.stat().st_size for p in paths.ZOO.rglob("*") if p.is_file())
    assert 0 < size < MEGABYTES * 1e6


def test_a_family_that_is_released_gets_its_page_anew_and_is_not_read_again(smoke, family, tmp_path):
    folder, _ = family
    before = {p: p.read_bytes() for p in folder.rglob("*.safetensors")}
    store = Store(tmp_path / "store", families=(folder,))
    pretrain_family(smoke, workers=0, store=store)
    assert not list(store.root.glob("*/*/manifest.json")), "nothing was computed"
    (folder / "README.md").write_text("")
    zoo.release(smoke, store, folder)
    assert "2/64" in (folder / "README.md").read_text()
    assert {p: p.read_bytes() for p in folder.rglob("*.safetensors")} == before and len(before) > 1
    assert all(damage(p) is None for p in store.released_folders())
