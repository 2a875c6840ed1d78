"""Our forward pass equals transformers' with the same weights; initial weights."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_bert import VOCABULARY, a_mask, config_of, some_ids, stirred
from transformers import BertForMaskedLM, BertForSequenceClassification

from pdstudy.models import encoder
from pdstudy.models.encoder import Classifier, MaskedLanguageModel


def transformers_own(ours: torch.nn.Module, kind=None) -> torch.nn.Module:
    """Return transformers' model with the weights of ours."""
    kind = kind or (BertForMaskedLM if isinstance(ours, MaskedLanguageModel) else BertForSequenceClassification)
    weight = next(ours.parameters())
    theirs = kind(ours.bert.config.for_transformers()).to(weight.dtype).eval()
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
        ours = encoder.encode(bert, ids, mask, at=at)
        theirs = own(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(ours, theirs[mask], atol=close, rtol=close)
        torch.testing.assert_close(encoder.encode(bert, ids, mask), theirs[:, 0], atol=close, rtol=close)
        assert ours.std() > 0.5


def test_hidden_states_with_segments_equal_those_of_transformers():
    model = stirred(Classifier(config_of())).double()
    bert, own = model.bert.bert, transformers_own(model).bert
    ids, segments = some_ids(3, 8), (torch.arange(8) > 4).long().expand(3, 8)
    theirs = own(input_ids=ids, token_type_ids=segments).last_hidden_state
    torch.testing.assert_close(
        encoder.encode(bert, ids, segments=segments, at=torch.arange(24)), theirs.flatten(0, 1), atol=1e-12, rtol=1e-12
    )
    torch.testing.assert_close(encoder.encode(bert, ids, segments=segments), theirs[:, 0], atol=1e-12, rtol=1e-12)
    assert (encoder.encode(bert, ids) - theirs[:, 0]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 4e-2)], ids=["float64", "float32", "bf16"]
)
@pytest.mark.parametrize(("batch", "heads", "queries", "keys"), [(3, 2, 7, 7), (1, 1, 1, 1), (4, 2, 1, 33), (2, 3, 40, 40)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_and_its_gradients_are_those_of_the_formula(batch, heads, queries, keys, masked, dtype, close):
    torch.manual_seed(batch * keys)
    inputs = [torch.randn(batch, heads, n, 64, dtype=torch.float64) for n in (queries, keys, keys)]
    mask = torch.rand(batch, 1, 1, keys) < 0.5 if masked else torch.ones(batch, 1, 1, keys, dtype=torch.bool)
    mask[..., 0] = True  # [CLS] is always real
    results = []
    for kind in (torch.float64, dtype):
        q, k, v = (t.to(kind, copy=True).requires_grad_() for t in inputs)
        if kind is torch.float64 and not results:
            y = ((q @ k.transpose(2, 3)) / 8).masked_fill(~mask, -torch.inf).softmax(-1) @ v
        else:
            y = encoder.attend(q, k, v, mask if masked else None)
        (y * torch.linspace(-1, 1, 64)).sum().backward()
        results.append([t.detach().double() for t in (y, q.grad, k.grad, v.grad)])
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, atol=close, rtol=close)


def test_without_a_mask_every_piece_is_real():
    model, ids = stirred(Classifier(config_of())), some_ids(4, 7)
    torch.testing.assert_close(model(ids, None), model(ids, torch.ones(4, 7, dtype=torch.bool)))


def test_padding_does_not_change_the_logits():
    model, ids = stirred(Classifier(config_of())), some_ids(2, 6)
    longer = torch.cat([ids, some_ids(2, 5, seed=9)], dim=1)
    mask = (torch.arange(11) < 6).expand(2, 11)
    torch.testing.assert_close(model(longer, mask), model(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "positions", [[1, 7, 8, 20], [23, 2, 0, 2], range(24)], ids=["rows of two and one", "a row of none", "all"]
)
def test_the_masked_language_model_gives_the_logits_of_bert_for_masked_lm_at_the_positions(positions):
    reader, ids = stirred(MaskedLanguageModel(config_of())), some_ids(3, 8)
    positions = torch.tensor(positions)
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
    y = encoder.drop(x, 0.1)
    keep = y != 0
    assert abs(keep.float().mean() - 0.9) < 4 * math.sqrt(0.09 / x.numel()) + 1e-5
    assert torch.equal(y[keep], torch.full_like(y[keep], 2 / 0.9)) and abs(y.mean() - 2) < 0.005
    for axis in (0, 1):  # four values share a draw: none follows its neighbour
        shifted = keep.roll(1, axis)
        assert abs((keep & shifted).float().mean() - 0.81) < 0.002
    y.sum().backward()
    assert torch.equal(x.grad, keep / 0.9)
    assert encoder.drop(x, 0.0) is x or torch.equal(encoder.drop(x, 0.0), x)
    torch.manual_seed(0)
    assert torch.equal(encoder.drop(x, 0.1), y)


def test_gradients_equal_those_of_transformers_forward():
    model, ids, mask = stirred(Classifier(config_of())).double(), some_ids(4, 7), a_mask(4, 7)
    theirs, gradients = transformers_own(model), []
    for of, logits in ((model.bert, model(ids, mask)), (theirs, theirs(input_ids=ids, attention_mask=mask.long()).logits)):
        logits.log_softmax(-1)[:, 0].sum().backward()
        gradients.append({k: p.grad for k, p in of.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("rounded", [False, True], ids=["as they are", "rounded up as in bf16"])  # the numbers of masked positions
def test_gradients_of_the_masked_language_model_equal_those_of_transformers_forward(rounded, monkeypatch):
    monkeypatch.setattr(encoder, "_kernel_per_shape", lambda x: rounded)
    reader, ids = stirred(MaskedLanguageModel(config_of())).double(), some_ids(4, 7)
    positions, pieces = torch.tensor([25, 1, 3, 4, 8]), torch.tensor([7, 11, 5, 6, 9])  # the third row is not asked
    theirs, gradients = transformers_own(reader), []
    loss_of_all = F.cross_entropy(theirs(input_ids=ids).logits.flatten(0, 1)[positions], pieces)
    for of, loss in ((reader.bert, reader(ids, positions, pieces)), (theirs, loss_of_all)):
        loss.backward()
        gradients.append({k: p.grad for k, p in of.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rows_without_masked_pieces_give_zero_loss_and_zero_gradients_for_every_weight(precision):
    reader, nothing = (
        stirred(MaskedLanguageModel(config_of())),
        torch.zeros(0, dtype=torch.long),
    )  # as a rank's part of a batch may be
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = reader(some_ids(3, 8), nothing, nothing)
    loss.backward()
    assert loss == 0 and all(p.grad is not None and not p.grad.any() for p in reader.parameters())


# Random starts


def test_initial_weights_depend_on_the_seed_only_and_do_not_change_the_global_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (encoder.new_classifier(config_of(), seed).state() for seed in (0, 0, 1))
    assert (torch.rand(3) == expected).all()
    assert all((first[k] == second[k]).all() for k in first)
    assert (first["classifier.weight"] != other["classifier.weight"]).any()


def test_random_initial_weights_have_the_requested_scale():
    state = encoder.new_masked_lm(config_of(), seed=0).state()
    for name in ("bert.embeddings.word_embeddings.weight", "bert.encoder.layer.1.intermediate.dense.weight"):
        assert state[name].std().item() == pytest.approx(0.2, rel=0.05)


def test_sinusoids_initialise_the_positions_only_and_the_positions_are_trained():
    random, waves = (encoder.new_masked_lm(config_of(), 0, positions) for positions in ("random", "sinusoid"))
    name = "bert.embeddings.position_embeddings.weight"
    assert {k for k, v in waves.state().items() if not torch.equal(random.state()[k], v)} == {name}
    table = waves.bert.bert.embeddings.position_embeddings.weight
    torch.testing.assert_close(table / table[0, 1], encoder.sinusoids(512, 64))  # cosine of zero is one
    assert table.requires_grad


def test_given_word_embeddings_are_only_rotated():
    words = np.random.default_rng(0).normal(size=(VOCABULARY, 64)).astype(np.float32)
    table = encoder.new_masked_lm(config_of(), 3, words=words).bert.bert.embeddings.word_embeddings.weight.detach()
    torch.testing.assert_close(table @ table.T, torch.from_numpy(words @ words.T), atol=1e-3, rtol=1e-4)
    assert not torch.allclose(table, torch.from_numpy(words), atol=0.1)


def test_an_untrained_cls_head_predicts_the_unigram_counts_and_is_not_saved():
    counts = np.random.default_rng(0).integers(0, 1000, VOCABULARY)
    reader = encoder.new_masked_lm(config_of(), 0, unigram=counts)
    torch.nn.init.zeros_(reader.summary.weight), torch.nn.init.zeros_(reader.summary.bias)
    logits, rows = reader(some_ids(3, 8), torch.arange(5), of_rows=True)
    assert logits.shape == (5, VOCABULARY) and rows.shape == (3, VOCABULARY)
    share = torch.from_numpy((counts + 1) / (counts + 1).sum()).float()
    torch.testing.assert_close(rows.softmax(-1), share.expand(3, -1), atol=1e-6, rtol=1e-4)
    assert set(reader.state()) == set(encoder.new_masked_lm(config_of(), 0).state())


def test_sinusoids_are_sines_in_even_and_cosines_in_odd_columns():
    table = encoder.sinusoids(4, 6)
    assert table.shape == (4, 6)
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    assert table[3, :4].tolist() == pytest.approx(
        [math.sin(3), math.cos(3), math.sin(3 / 10_000 ** (1 / 3)), math.cos(3 / 10_000 ** (1 / 3))]
    )
