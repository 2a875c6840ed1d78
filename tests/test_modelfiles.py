"""Folders of weights: saved and loaded, used as initial weights, and refused where they do not fit."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from tiny_bert import VOCABULARY, a_mask, config_of, some_ids, stirred
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from pdstudy.models import encoder as models
from pdstudy.models import weights as modelfiles
from pdstudy.models.encoder import Classifier, MaskedLanguageModel
from pdstudy.sizes import Size


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """Return the folder of a pre-trained 2/64 encoder, as `pretrain` writes it."""
    folder = tmp_path_factory.mktemp("encoder")
    reader = stirred(MaskedLanguageModel(config_of()))
    modelfiles.save(folder, config_of(), reader.state(), "BertForMaskedLM")
    return folder


# Saved folders


def test_a_saved_masked_language_model_opens_with_auto_model_and_gives_the_same_logits(tmp_path):
    reader, ids = stirred(MaskedLanguageModel(config_of())), some_ids(2, 6)
    modelfiles.save(tmp_path, config_of(), reader.state(), "BertForMaskedLM")
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(theirs(input_ids=ids).logits.reshape(12, -1), reader(ids, torch.arange(12)), atol=1e-4, rtol=1e-5)


def test_a_saved_classifier_opens_with_auto_model_and_gives_the_same_logits(tmp_path):
    model, ids, mask = stirred(Classifier(config_of())), some_ids(4, 6), a_mask(4, 6)
    config = config_of()
    config.id2label = {0: "bad", 1: "so-so", 2: "good"}
    modelfiles.save(tmp_path, config, model.state(), "BertForSequenceClassification")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(theirs(input_ids=ids, attention_mask=mask.long()).logits, model(ids, mask), atol=1e-5, rtol=1e-5)
    assert theirs.config.id2label == {0: "bad", 1: "so-so", 2: "good"}


def test_a_classifier_is_loaded_unchanged_with_its_labels(tmp_path):
    model = stirred(Classifier(config_of()))
    modelfiles.save(tmp_path, config_of(), model.state(), "BertForSequenceClassification")
    loaded = modelfiles.load_classifier(tmp_path)
    assert all(torch.equal(v, loaded.state()[k]) for k, v in model.state().items())
    assert models.size_of(loaded.bert.config) == Size(2, 64)
    assert loaded.bert.config.num_labels == 3
    assert loaded.bert.config.initializer_range == 0.2


def test_a_masked_language_model_is_loaded_unchanged_with_its_decoder_tied(tmp_path):
    reader = stirred(MaskedLanguageModel(config_of()))
    modelfiles.save(tmp_path, config_of(), reader.state(), "BertForMaskedLM")
    loaded = modelfiles.load_masked_lm(tmp_path)
    assert all(torch.equal(v, loaded.state()[k]) for k, v in reader.state().items())
    assert loaded.bert.cls.predictions.decoder.weight is loaded.bert.bert.embeddings.word_embeddings.weight
    ids, positions = some_ids(2, 5), torch.arange(10)
    torch.testing.assert_close(loaded.eval()(ids, positions), reader(ids, positions))


def test_saving_twice_writes_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        modelfiles.save(
            tmp_path / name, config_of(), models.new_classifier(config_of(), 0).state(), "BertForSequenceClassification"
        )
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_weights_saved_in_16_bits_are_loaded_in_32(tmp_path):
    model = stirred(Classifier(config_of()))
    modelfiles.save(tmp_path, config_of(), model.state(), "BertForSequenceClassification", torch.float16)
    assert {v.dtype for v in modelfiles.load_weights(tmp_path).values()} == {torch.float16}
    loaded = modelfiles.load_classifier(tmp_path).state()
    assert {v.dtype for v in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[k], v.half().float()) for k, v in model.state().items())


# Starts from an encoder


def begun(config, seed: int, start: str, folder: Path) -> Classifier:
    """Return a student that has taken over what `start` says."""
    model = models.new_classifier(config, seed)
    modelfiles.copy_weights(model, start, folder)
    return model


def taken(model: Classifier, folder: Path, seed: int) -> set[str]:
    """Return the names that hold the encoder's values; all others must hold the random start's."""
    weights, random = modelfiles.load_weights(folder), models.new_classifier(model.bert.config, seed).state()
    names = {k for k, v in model.state().items() if k in weights and torch.equal(v, weights[k])}
    assert all(torch.equal(v, random[k]) for k, v in model.state().items() if k not in names)
    return names


def test_a_pretrained_start_takes_all_but_pooler_and_classifier(encoder):
    model = begun(config_of(), 4, "pretrained", encoder)
    rest = {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    assert taken(model, encoder, 4) == set(model.state()) - rest


def test_a_second_stage_takes_the_classifier_of_the_first_too(tmp_path):
    first = stirred(Classifier(config_of()))
    modelfiles.save(tmp_path, config_of(), first.state(), "BertForSequenceClassification")
    model = begun(config_of(), 4, "pretrained", tmp_path)
    assert taken(model, tmp_path, 4) == set(model.state())


def test_an_embeddings_start_takes_the_word_embeddings_alone(encoder):
    model = begun(config_of(), 4, "embeddings", encoder)
    assert taken(model, encoder, 4) == {"bert.embeddings.word_embeddings.weight"}


def test_a_truncated_start_takes_the_embeddings_and_the_bottom_layers(encoder):
    model = begun(config_of("1/64"), 4, "truncated", encoder)
    names = taken(model, encoder, 4)
    assert names == {k for k in model.state() if k.startswith(("bert.embeddings.", "bert.encoder.layer.0."))}


@pytest.mark.parametrize(
    ("size", "start"),
    [("3/64", "pretrained"), ("1/64", "pretrained"), ("3/64", "truncated"), ("2/128", "pretrained"), ("2/128", "embeddings")],
)
def test_an_encoder_of_another_size_is_refused_by_name(encoder, size, start):
    with pytest.raises(ValueError, match=rf"does not fit a BERT of {size}; it is the encoder of another size or kind"):
        begun(config_of(size), 0, start, encoder)


@pytest.mark.parametrize("start", ["pretrained", "embeddings"])
def test_an_encoder_with_another_vocabulary_is_refused(encoder, start):
    config = models.bert_config(Size(2, 64), VOCABULARY + 1, 0.2, 0.1)
    with pytest.raises(ValueError, match=r"word_embeddings.weight does not fit a BERT of 2/64"):
        begun(config, 0, start, encoder)


def test_an_encoder_without_word_embeddings_is_refused_for_an_embeddings_start(tmp_path, encoder):
    weights = {k: v for k, v in modelfiles.load_weights(encoder).items() if "word_embeddings" not in k}
    modelfiles.save(tmp_path, config_of(), weights, "BertForMaskedLM")
    with pytest.raises(ValueError, match="does not fit"):
        begun(config_of(), 0, "embeddings", tmp_path)


# Refused folders


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize(
    "load", [modelfiles.load_classifier, modelfiles.load_masked_lm, lambda f: begun(config_of(), 0, "pretrained", f)]
)
def test_pickled_weights_are_refused_and_never_executed(tmp_path, load):
    modelfiles.save(tmp_path, config_of(), {}, "BertForMaskedLM")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    with pytest.raises(ValueError, match=r"no model.safetensors; pickled weights are not opened, convert them to safetensors"):
        load(tmp_path)
    assert not (tmp_path / "executed").exists()
    pickle.loads((tmp_path / "pytorch_model.bin").read_bytes())  # the bomb was live
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("fields", [{"auto_map": {"AutoModel": "evil.Model"}}, {"model_type": "roberta"}, {"model_type": None}])
def test_remote_code_and_other_architectures_are_refused(tmp_path, fields):
    modelfiles.save(tmp_path, config_of(), Classifier(config_of()).state(), "BertForSequenceClassification")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(ValueError, match="not a plain BERT"):
        modelfiles.load_classifier(tmp_path)


def test_a_classifier_that_lacks_a_weight_is_refused_by_its_name(tmp_path):
    weights = Classifier(config_of()).state()
    del weights["classifier.bias"]
    modelfiles.save(tmp_path, config_of(), weights, "BertForSequenceClassification")
    with pytest.raises(ValueError, match=r"not a BERT classifier of its own config.json: classifier.bias is missing"):
        modelfiles.load_classifier(tmp_path)


@pytest.mark.parametrize("change", ["lacks", "surplus", "shape"])
def test_a_masked_language_model_that_differs_from_its_config_is_refused(tmp_path, encoder, change):
    weights = modelfiles.load_weights(encoder)
    if change == "lacks":
        del weights["bert.encoder.layer.1.output.dense.bias"]
    elif change == "surplus":
        weights["bert.encoder.layer.2.output.dense.bias"] = torch.zeros(64)
    else:
        weights["bert.encoder.layer.1.output.dense.bias"] = torch.zeros(65)
    modelfiles.save(tmp_path, config_of(), weights, "BertForMaskedLM")
    with pytest.raises(ValueError, match=r"not a BERT masked language model of its own config.json"):
        modelfiles.load_masked_lm(tmp_path)


@pytest.mark.parametrize("key", ["hidden_act", "position_embedding_type"])
def test_a_bert_that_our_forward_pass_does_not_support_is_refused(tmp_path, key):
    fields = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    (tmp_path / "config.json").write_text(json.dumps(fields | {"hidden_size": 64, "num_attention_heads": 1}))
    assert modelfiles.load_config(tmp_path).hidden_size == 64
    (tmp_path / "config.json").write_text(json.dumps(fields | {key: "other"}))
    with pytest.raises(ValueError, match=f"{key} is 'other'"):
        modelfiles.load_config(tmp_path)
