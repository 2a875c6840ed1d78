"""Our modules have transformers' names and order, and the same weights for a seed, bit for bit."""

import textwrap

import pytest
import torch
import transformers
from transformers import BertForMaskedLM, BertForSequenceClassification

from pdstudy.models.bert import MaskedLM, SequenceClassifier
from pdstudy.models.bert_config import BertConfig
from pdstudy.models.encoder import bert_config
from pdstudy.sizes import Size


@pytest.mark.parametrize("size", ["1/64", "2/128", "3/192"])
@pytest.mark.parametrize(("ours", "theirs"), [(MaskedLM, BertForMaskedLM), (SequenceClassifier, BertForSequenceClassification)])
def test_a_seed_gives_the_weights_that_transformers_draws(ours, theirs, size):
    config = bert_config(Size.parse(size), 120, init_std=0.07, dropout=0.1, n_classes=3)
    made = []
    for kind, its in ((ours, config), (theirs, config.for_transformers())):
        torch.manual_seed(11)
        made.append((kind(its), torch.rand(3)))  # and as much is left of the stream
    (one, after), (other, as_well) = made
    assert [n for n, _ in one.named_parameters()] == [n for n, _ in other.named_parameters()]
    weights, expected = one.state_dict(), other.state_dict()
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert torch.equal(after, as_well)


def test_the_output_layer_is_tied_to_the_word_embeddings():
    model = MaskedLM(bert_config(Size(1, 64), 50, 0.05, 0.0))
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512, "num_labels": 3},
        {
            "id2label": {"0": "bad", "1": "good"},
            "label2id": {"bad": 0, "good": 1},
            "classifier_pooling": "mean",
            "dtype": "float32",
        },
        {"architectures": ["BertForMaskedLM"], "hidden_dropout_prob": 0.0, "gradient_checkpointing": False, "model_type": "bert"},
    ],
    ids=["defaults", "a size", "classes", "an older file"],
)
def test_our_configuration_has_the_fields_of_transformers_own(fields):
    ours = BertConfig(**{k: v for k, v in fields.items() if k != "dtype"})
    theirs = transformers.BertConfig(**fields).to_dict() | {"dtype": None, "transformers_version": None}
    assert ours.to_dict() | {"dtype": None, "transformers_version": None} == theirs
    assert ours.for_transformers().to_dict() | {"dtype": None, "transformers_version": None} == theirs
    assert ours.num_labels == transformers.BertConfig(**fields).num_labels


@pytest.mark.parametrize("wrong", [{"hidden_size": "wide"}, {"num_hidden_layers": 0}, {"vocab_size": 1.5}])
def test_a_size_that_is_no_whole_number_is_named(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} of a BERT's config.json"):
        BertConfig(**wrong)


UNUSED = ("transformers", "sklearn", "sympy", "torch._dynamo")


def test_a_worker_starts_trains_and_evaluates_without_what_takes_seconds_to_import(fresh_python):
    code = f"import sys, pdstudy.run.execute; print([m for m in {(*UNUSED, 'scipy')} if m in sys.modules])"
    assert fresh_python(code) == "[]"
    code = """
        import sys
        import numpy as np
        import torch
        from pdstudy.models import evaluate
        from pdstudy.models.train import Loss, Schedule, fit

        model = torch.nn.Linear(3, 2)
        fit(model, lambda step: [torch.ones(4, 3)], lambda m, data: Loss(m(*data).square().mean(), 12), Schedule(2, 0, 1e-3, 0), 0, "fp32")
        evaluate.metrics(np.eye(2), np.arange(2))
    """
    assert fresh_python(f"{textwrap.dedent(code)}\nprint([m for m in {UNUSED} if m in sys.modules])") == "[]"
