import pytest
import torch
from transformers import BertForMaskedLM, BertForPreTraining

from pdstudy.models.bert import MaskedLM
from pdstudy.models.encoder import bert_config
from pdstudy.sizes import BERT_VOCABULARY, NAMED, PAPER_SIZES, Size

PRINTED_MILLIONS = {  # Table 2a of the paper
    "2/128": 4.4, "4/128": 4.8, "6/128": 5.2, "8/128": 5.6, "10/128": 6.0, "12/128": 6.4,
    "2/256": 9.7, "4/256": 11.3, "6/256": 12.8, "8/256": 14.4, "10/256": 16.0, "12/256": 17.6,
    "2/512": 22.8, "4/512": 29.1, "6/512": 35.4, "8/512": 41.7, "10/512": 48.0, "12/512": 54.3,
    "2/768": 39.2, "4/768": 53.4, "6/768": 67.5, "8/768": 81.7, "10/768": 95.9, "12/768": 110.1,
}  # fmt: skip
EXACT = {"tiny": 4_433_210, "mini": 11_267_386, "small": 29_057_850, "medium": 41_667_386, "base": 110_104_890}


def test_the_papers_sizes_are_the_24_of_its_table():
    assert {str(s) for s in PAPER_SIZES} == set(PRINTED_MILLIONS)
    assert len(PAPER_SIZES) == 24


@pytest.mark.parametrize("size", PRINTED_MILLIONS)
def test_parameter_count_is_the_papers_printed_one(size):
    assert Size.parse(size).n_params() / 1e6 == pytest.approx(PRINTED_MILLIONS[size], abs=0.1)


@pytest.mark.parametrize("size", PRINTED_MILLIONS)
def test_a_real_model_of_each_size_has_the_papers_number_of_parameters(size):
    with torch.device("meta"):  # tensors have a shape but no memory
        full = BertForMaskedLM(bert_config(Size.parse(size), BERT_VOCABULARY, 0.02, 0.1).for_transformers())
        ours = MaskedLM(bert_config(Size.parse(size), BERT_VOCABULARY, 0.02, 0.1))
    pooler = Size.parse(size).hidden * (
        Size.parse(size).hidden + 1
    )  # which the paper counts and a masked language model does not have
    for model in (full, ours):
        n = sum(p.numel() for p in model.parameters()) + pooler
        assert n == Size.parse(size).n_params() and n / 1e6 == pytest.approx(PRINTED_MILLIONS[size], abs=0.1)


def test_the_five_named_counts_are_exact():
    assert {name: size.n_params() for name, size in NAMED.items()} == EXACT
    assert set(NAMED.values()) <= set(PAPER_SIZES)


@pytest.mark.parametrize("text", ["1/64", "2/128", "3/192"])
@pytest.mark.parametrize("vocabulary", [100, 997])
def test_the_formula_counts_a_real_model(text, vocabulary):
    size = Size.parse(text)
    full = BertForPreTraining(bert_config(size, vocabulary, 0.02, 0.1).for_transformers())
    next_sentence = sum(p.numel() for p in full.cls.seq_relationship.parameters())
    assert sum(p.numel() for p in full.parameters()) - next_sentence == size.n_params(vocabulary)


def test_heads_are_64_wide():
    assert [Size(2, h).heads for h in (64, 128, 768)] == [1, 2, 12]


def test_names_and_numbers_parse_to_the_same_size():
    assert Size.parse("Tiny") == Size.parse(" 2/128 ") == Size(2, 128)
    assert str(Size.parse("base")) == "12/768"


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("2/100", "try 2/64 or 2/128"),
        ("2/32", "try 2/64 or 2/128"),
        ("2/130", "try 2/128 or 2/192"),
        ("0/128", "at least one layer"),
        ("2x128", "layers/hidden"),
        ("-2/128", "layers/hidden"),
        ("huge", "medium"),
        ("", "layers/hidden"),
        (None, "layers/hidden"),
    ],
)
def test_a_bad_size_is_refused_with_a_suggestion(text, suggestion):
    with pytest.raises(ValueError, match=suggestion):
        Size.parse(text)


def test_flops_per_token_of_one_small_layer_by_hand():
    # per token and layer: 12 h^2 weights in products and 2 x length x h for scores and their sum, twice for multiply-add
    assert Size(1, 64).flops_per_token(10) == 2 * (12 * 64 * 64 + 2 * 10 * 64)
