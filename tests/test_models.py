"""Our forward pass against transformers' over the same weights; starts, saving and what is refused."""

import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, BertForMaskedLM, BertForSequenceClassification

from pdstudy import models
from pdstudy.models import Classifier, MaskedReader
from pdstudy.sizes import Size

VOCABULARY = 100


def config_of(size: str = "2/64", dropout: float = 0.1, n_classes: int = 3):
    return models.bert_config(Size.parse(size), VOCABULARY, init_std=0.2, dropout=dropout, n_classes=n_classes)


def stirred(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Return the model with every weight random, biases and norms too, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model.eval()


def some_ids(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def a_mask(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Return a mask with real pieces at the start of every row and nowhere else."""
    lengths = torch.randint(1, length + 1, (batch, 1), generator=torch.Generator().manual_seed(seed))
    return torch.arange(length) < lengths


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """Return the folder of a pre-trained 2/64 encoder, as `pretrain` writes it."""
    folder = tmp_path_factory.mktemp("encoder")
    reader = stirred(MaskedReader(config_of()))
    models.save(folder, config_of(), reader.state(), "BertForMaskedLM")
    return folder


def transformers_own(ours: torch.nn.Module, kind=None) -> torch.nn.Module:
    """Return transformers' model with the weights of ours."""
    kind = kind or (BertForMaskedLM if isinstance(ours, MaskedReader) else BertForSequenceClassification)
    weight = next(ours.parameters())
    theirs = kind(ours.bert.config).to(weight.dtype).eval()
    theirs.load_state_dict(ours.bert.state_dict())
    return theirs


# The forward pass


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize(("size", "batch", "length"), [("2/64", 5, 9), ("1/128", 3, 17), ("2/192", 1, 6), ("1/64", 4, 1)])
def test_hidden_states_equal_those_of_transformers_bert_on_every_real_piece(size, batch, length, dtype, close):
    model = stirred(Classifier(config_of(size))).to(dtype)
    bert, own = model.bert.bert, transformers_own(model).bert
    for seed in range(3):
        ids, mask = some_ids(batch, length, seed), a_mask(batch, length, seed)
        at = mask.flatten().nonzero()[:, 0]
        ours = models.encode(bert, ids, mask, at=at)
        theirs = own(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(ours, theirs[mask], atol=close, rtol=close)
        torch.testing.assert_close(models.encode(bert, ids, mask), theirs[:, 0], atol=close, rtol=close)
        assert ours.std() > 0.5


def test_hidden_states_with_segments_equal_those_of_transformers():
    model = stirred(Classifier(config_of())).double()
    bert, own = model.bert.bert, transformers_own(model).bert
    ids, segments = some_ids(3, 8), (torch.arange(8) > 4).long().expand(3, 8)
    theirs = own(input_ids=ids, token_type_ids=segments).last_hidden_state
    torch.testing.assert_close(
        models.encode(bert, ids, segments=segments, at=torch.arange(24)), theirs.flatten(0, 1), atol=1e-12, rtol=1e-12
    )
    torch.testing.assert_close(models.encode(bert, ids, segments=segments), theirs[:, 0], atol=1e-12, rtol=1e-12)
    assert (models.encode(bert, ids) - theirs[:, 0]).abs().max() > 0.01


def test_no_mask_means_that_every_piece_is_real():
    model, ids = stirred(Classifier(config_of())), some_ids(4, 7)
    torch.testing.assert_close(model(ids, None), model(ids, torch.ones(4, 7, dtype=torch.bool)))


def test_padding_changes_no_answer():
    model, ids = stirred(Classifier(config_of())), some_ids(2, 6)
    longer = torch.cat([ids, some_ids(2, 5, seed=9)], dim=1)
    mask = (torch.arange(11) < 6).expand(2, 11)
    torch.testing.assert_close(model(longer, mask), model(ids), atol=1e-5, rtol=1e-5)


def test_the_masked_reader_gives_the_logits_of_bert_for_masked_lm_at_the_asked_positions():
    reader, ids = stirred(MaskedReader(config_of())), some_ids(3, 8)
    positions = torch.tensor([1, 7, 8, 20])
    theirs = transformers_own(reader)(input_ids=ids).logits.reshape(-1, VOCABULARY)[positions]
    torch.testing.assert_close(reader(ids, positions), theirs, atol=1e-4, rtol=1e-5)


def test_the_classifier_gives_the_logits_of_bert_for_sequence_classification():
    model, ids, mask = stirred(Classifier(config_of())), some_ids(5, 9), a_mask(5, 9)
    theirs = transformers_own(model)(input_ids=ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(model(ids, mask), theirs, atol=1e-5, rtol=1e-5)


def test_dropout_acts_in_training_and_not_in_evaluation():
    model, ids = stirred(Classifier(config_of(dropout=0.5))), some_ids(4, 7)
    torch.testing.assert_close(model(ids), model(ids), atol=0, rtol=0)
    model.train()
    assert (model(ids) - model(ids)).abs().max() > 0.01


def test_dropout_keeps_the_share_and_the_mean_and_its_gradient_is_its_mask():
    torch.manual_seed(0)
    x = torch.full((1001, 999), 2.0, requires_grad=True)
    y = models.drop(x, 0.1)
    kept = y != 0
    assert abs(kept.float().mean() - 0.9) < 4 * math.sqrt(0.09 / x.numel()) + 1e-5
    assert torch.equal(y[kept], torch.full_like(y[kept], 2 / 0.9)) and abs(y.mean() - 2) < 0.005
    for axis in (0, 1):  # four values share a draw: none follows its neighbour
        shifted = kept.roll(1, axis)
        assert abs((kept & shifted).float().mean() - 0.81) < 0.002
    y.sum().backward()
    assert torch.equal(x.grad, kept / 0.9)
    assert models.drop(x, 0.0) is x or torch.equal(models.drop(x, 0.0), x)
    torch.manual_seed(0)
    assert torch.equal(models.drop(x, 0.1), y)


def test_gradients_equal_those_of_transformers_forward():
    model, ids, mask = stirred(Classifier(config_of())).double(), some_ids(4, 7), a_mask(4, 7)
    theirs, found = transformers_own(model), []
    for of, logits in ((model.bert, model(ids, mask)), (theirs, theirs(input_ids=ids, attention_mask=mask.long()).logits)):
        logits.log_softmax(-1)[:, 0].sum().backward()
        found.append({k: p.grad for k, p in of.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-10, rtol=1e-8)


# Random starts


def test_a_start_is_a_function_of_its_seed_and_leaves_the_ambient_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (models.new_classifier(config_of(), seed).state() for seed in (0, 0, 1))
    assert (torch.rand(3) == expected).all()
    assert all((first[k] == second[k]).all() for k in first)
    assert (first["classifier.weight"] != other["classifier.weight"]).any()


def test_a_random_start_has_the_asked_scale():
    state = models.new_reader(config_of(), seed=0).state()
    for name in ("bert.embeddings.word_embeddings.weight", "bert.encoder.layer.1.intermediate.dense.weight"):
        assert state[name].std().item() == pytest.approx(0.2, rel=0.05)


def test_a_sinusoid_start_changes_the_positions_alone_and_they_stay_learned():
    random, waves = (models.new_reader(config_of(), 0, positions) for positions in ("random", "sinusoid"))
    name = "bert.embeddings.position_embeddings.weight"
    assert {k for k, v in waves.state().items() if not torch.equal(random.state()[k], v)} == {name}
    table = waves.bert.bert.embeddings.position_embeddings.weight
    torch.testing.assert_close(table / table[0, 1], models.sinusoids(512, 64))  # cosine of zero is one
    assert table.requires_grad


def test_given_words_are_turned_and_not_changed():
    words = np.random.default_rng(0).normal(size=(VOCABULARY, 64)).astype(np.float32)
    table = models.new_reader(config_of(), 3, words=words).bert.bert.embeddings.word_embeddings.weight.detach()
    torch.testing.assert_close(table @ table.T, torch.from_numpy(words @ words.T), atol=1e-3, rtol=1e-4)
    assert not torch.allclose(table, torch.from_numpy(words), atol=0.1)


def test_a_reader_that_knows_nothing_expects_of_a_row_what_the_counts_say_and_its_scaffold_is_not_kept():
    counts = np.random.default_rng(0).integers(0, 1000, VOCABULARY)
    reader = models.new_reader(config_of(), 0, unigram=counts)
    torch.nn.init.zeros_(reader.summary.weight), torch.nn.init.zeros_(reader.summary.bias)
    logits, rows = reader(some_ids(3, 8), torch.arange(5), of_rows=True)
    assert logits.shape == (5, VOCABULARY) and rows.shape == (3, VOCABULARY)
    share = torch.from_numpy((counts + 1) / (counts + 1).sum()).float()
    torch.testing.assert_close(rows.softmax(-1), share.expand(3, -1), atol=1e-6, rtol=1e-4)
    assert set(reader.state()) == set(models.new_reader(config_of(), 0).state())


def test_sinusoids_are_sines_in_even_and_cosines_in_odd_columns():
    table = models.sinusoids(4, 6)
    assert table.shape == (4, 6)
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    assert table[3, :4].tolist() == pytest.approx(
        [math.sin(3), math.cos(3), math.sin(3 / 10_000 ** (1 / 3)), math.cos(3 / 10_000 ** (1 / 3))]
    )


# Saved folders


def test_a_saved_reader_opens_with_auto_model_and_gives_the_same_logits(tmp_path):
    reader, ids = stirred(MaskedReader(config_of())), some_ids(2, 6)
    models.save(tmp_path, config_of(), reader.state(), "BertForMaskedLM")
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(theirs(input_ids=ids).logits.reshape(12, -1), reader(ids, torch.arange(12)), atol=1e-4, rtol=1e-5)


def test_a_saved_classifier_opens_with_auto_model_and_gives_the_same_logits(tmp_path):
    model, ids, mask = stirred(Classifier(config_of())), some_ids(4, 6), a_mask(4, 6)
    config = config_of()
    config.id2label = {0: "bad", 1: "so-so", 2: "good"}
    models.save(tmp_path, config, model.state(), "BertForSequenceClassification")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(theirs(input_ids=ids, attention_mask=mask.long()).logits, model(ids, mask), atol=1e-5, rtol=1e-5)
    assert theirs.config.id2label == {0: "bad", 1: "so-so", 2: "good"}


def test_a_classifier_comes_back_from_disk_unchanged_with_its_labels(tmp_path):
    model = stirred(Classifier(config_of()))
    models.save(tmp_path, config_of(), model.state(), "BertForSequenceClassification")
    loaded = models.load_classifier(tmp_path)
    assert all(torch.equal(v, loaded.state()[k]) for k, v in model.state().items())
    assert models.size_of(loaded.bert.config) == Size(2, 64)
    assert loaded.bert.config.num_labels == 3
    assert loaded.bert.config.initializer_range == 0.2


def test_a_reader_comes_back_from_disk_unchanged_with_its_decoder_tied(tmp_path):
    reader = stirred(MaskedReader(config_of()))
    models.save(tmp_path, config_of(), reader.state(), "BertForMaskedLM")
    loaded = models.load_reader(tmp_path)
    assert all(torch.equal(v, loaded.state()[k]) for k, v in reader.state().items())
    assert loaded.bert.cls.predictions.decoder.weight is loaded.bert.bert.embeddings.word_embeddings.weight
    ids, positions = some_ids(2, 5), torch.arange(10)
    torch.testing.assert_close(loaded.eval()(ids, positions), reader(ids, positions))


def test_saving_twice_writes_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        models.save(tmp_path / name, config_of(), models.new_classifier(config_of(), 0).state(), "BertForSequenceClassification")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_weights_kept_in_16_bits_are_opened_in_32(tmp_path):
    model = stirred(Classifier(config_of()))
    models.save(tmp_path, config_of(), model.state(), "BertForSequenceClassification", torch.float16)
    assert {v.dtype for v in models.load_weights(tmp_path).values()} == {torch.float16}
    loaded = models.load_classifier(tmp_path).state()
    assert {v.dtype for v in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[k], v.half().float()) for k, v in model.state().items())


# Starts from an encoder


def taken(model: Classifier, folder: Path, seed: int) -> set[str]:
    """Return the names that hold the encoder's values; all others must hold the random start's."""
    weights, random = models.load_weights(folder), models.new_classifier(model.bert.config, seed).state()
    names = {k for k, v in model.state().items() if k in weights and torch.equal(v, weights[k])}
    assert all(torch.equal(v, random[k]) for k, v in model.state().items() if k not in names)
    return names


def test_a_pretrained_start_takes_all_but_pooler_and_classifier(encoder):
    model = models.new_classifier(config_of(), 4, "pretrained", encoder)
    rest = {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    assert taken(model, encoder, 4) == set(model.state()) - rest


def test_a_second_stage_takes_the_classifier_of_the_first_too(tmp_path):
    first = stirred(Classifier(config_of()))
    models.save(tmp_path, config_of(), first.state(), "BertForSequenceClassification")
    model = models.new_classifier(config_of(), 4, "pretrained", tmp_path)
    assert taken(model, tmp_path, 4) == set(model.state())


def test_an_embeddings_start_takes_the_word_embeddings_alone(encoder):
    model = models.new_classifier(config_of(), 4, "embeddings", encoder)
    assert taken(model, encoder, 4) == {"bert.embeddings.word_embeddings.weight"}


def test_a_truncated_start_takes_the_embeddings_and_the_bottom_layers(encoder):
    model = models.new_classifier(config_of("1/64"), 4, "truncated", encoder)
    names = taken(model, encoder, 4)
    assert names == {k for k in model.state() if k.startswith(("bert.embeddings.", "bert.encoder.layer.0."))}


@pytest.mark.parametrize(
    ("size", "start"),
    [("3/64", "pretrained"), ("1/64", "pretrained"), ("3/64", "truncated"), ("2/128", "pretrained"), ("2/128", "embeddings")],
)
def test_an_encoder_of_another_size_is_refused_by_name(encoder, size, start):
    with pytest.raises(ValueError, match=rf"does not fit a BERT of {size}; it is the encoder of another size or kind"):
        models.new_classifier(config_of(size), 0, start, encoder)


@pytest.mark.parametrize("start", ["pretrained", "embeddings"])
def test_an_encoder_with_another_vocabulary_is_refused(encoder, start):
    config = models.bert_config(Size(2, 64), VOCABULARY + 1, 0.2, 0.1)
    with pytest.raises(ValueError, match=r"word_embeddings.weight does not fit a BERT of 2/64"):
        models.new_classifier(config, 0, start, encoder)


def test_an_encoder_without_word_embeddings_is_no_embeddings_start(tmp_path, encoder):
    weights = {k: v for k, v in models.load_weights(encoder).items() if "word_embeddings" not in k}
    models.save(tmp_path, config_of(), weights, "BertForMaskedLM")
    with pytest.raises(ValueError, match="does not fit"):
        models.new_classifier(config_of(), 0, "embeddings", tmp_path)


# Refused folders


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize(
    "load", [models.load_classifier, models.load_reader, lambda f: models.new_classifier(config_of(), 0, "pretrained", f)]
)
def test_pickled_weights_are_refused_and_never_executed(tmp_path, load):
    models.save(tmp_path, config_of(), {}, "BertForMaskedLM")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    with pytest.raises(ValueError, match=r"no model.safetensors; pickled weights are not opened, convert them to safetensors"):
        load(tmp_path)
    assert not (tmp_path / "executed").exists()
    pickle.loads((tmp_path / "pytorch_model.bin").read_bytes())  # the bomb was live
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("fields", [{"auto_map": {"AutoModel": "evil.Model"}}, {"model_type": "roberta"}, {"model_type": None}])
def test_remote_code_and_other_architectures_are_refused(tmp_path, fields):
    models.save(tmp_path, config_of(), Classifier(config_of()).state(), "BertForSequenceClassification")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(ValueError, match="not a plain BERT"):
        models.load_classifier(tmp_path)


def test_a_classifier_that_lacks_a_weight_is_refused_by_its_name(tmp_path):
    weights = Classifier(config_of()).state()
    del weights["classifier.bias"]
    models.save(tmp_path, config_of(), weights, "BertForSequenceClassification")
    with pytest.raises(ValueError, match=r"not a BERT classifier of its own config.json: Missing key.*classifier.bias"):
        models.load_classifier(tmp_path)


@pytest.mark.parametrize("change", ["lacks", "surplus", "shape"])
def test_a_reader_that_differs_from_its_config_is_refused(tmp_path, encoder, change):
    weights = models.load_weights(encoder)
    if change == "lacks":
        del weights["bert.encoder.layer.1.output.dense.bias"]
    elif change == "surplus":
        weights["bert.encoder.layer.2.output.dense.bias"] = torch.zeros(64)
    else:
        weights["bert.encoder.layer.1.output.dense.bias"] = torch.zeros(65)
    models.save(tmp_path, config_of(), weights, "BertForMaskedLM")
    with pytest.raises(ValueError, match=r"not a BERT masked language model of its own config.json"):
        models.load_reader(tmp_path)


@pytest.mark.parametrize("key", ["hidden_act", "position_embedding_type"])
def test_a_bert_that_our_forward_would_compute_wrongly_is_refused(tmp_path, key):
    fields = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    (tmp_path / "config.json").write_text(json.dumps(fields | {"hidden_size": 64, "num_attention_heads": 1}))
    assert models.load_config(tmp_path).hidden_size == 64
    (tmp_path / "config.json").write_text(json.dumps(fields | {key: "other"}))
    with pytest.raises(ValueError, match=f"{key} is 'other'"):
        models.load_config(tmp_path)
