"""Our modules against transformers' own: the same names, in the same order, from the same seed the same bits."""

import pytest
import torch
from transformers import BertForMaskedLM, BertForSequenceClassification

from pdstudy.models.bert import MaskedLM, SequenceClassifier
from pdstudy.models.encoder import bert_config
from pdstudy.sizes import Size


@pytest.mark.parametrize("size", ["1/64", "2/128", "3/192"])
@pytest.mark.parametrize(("ours", "theirs"), [(MaskedLM, BertForMaskedLM), (SequenceClassifier, BertForSequenceClassification)])
def test_a_seed_gives_the_weights_that_transformers_draws(ours, theirs, size):
    config = bert_config(Size.parse(size), 120, init_std=0.07, dropout=0.1, n_classes=3)
    made = []
    for kind in (ours, theirs):
        torch.manual_seed(11)
        made.append((kind(config), torch.rand(3)))  # and as much is left of the stream
    (one, after), (other, as_well) = made
    assert [n for n, _ in one.named_parameters()] == [n for n, _ in other.named_parameters()]
    found, wanted = one.state_dict(), other.state_dict()
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert torch.equal(after, as_well)


def test_the_output_layer_is_the_word_embeddings():
    model = MaskedLM(bert_config(Size(1, 64), 50, 0.05, 0.0))
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias


def test_a_worker_starts_without_transformers_modelling_code(fresh_python):
    code = "import sys, pdstudy.run.model_steps; print([m for m in ('transformers.modeling_utils', 'sklearn', 'scipy', 'torch._dynamo') if m in sys.modules])"
    assert fresh_python(code) == "[]"
