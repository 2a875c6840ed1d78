"""Each stage learns what it should from small artificial texts."""

from functools import partial

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from pdstudy import stages
from pdstudy.data.batches import Ids, Labelled, Rows, Vocabulary
from pdstudy.models import encoder
from pdstudy.models.encoder import bert_config, new_masked_lm
from pdstudy.models.losses import row_words_loss
from pdstudy.sizes import Size

WORDS = Vocabulary(size=45)
READING = {
    "tokens": 60_000, "row": 16, "batch": 16, "mask": 0.3, "whole_words": False, "cls_words": 0.0, "rate": 2e-3,
    "muon_rate": 0.02, "warmup": 0.1, "weight_decay": 0.01, "seed": 0, "precision": "fp32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """As in a worker: two threads on a busy machine wait for each other at every small product."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def corpus() -> stages.RunningText:
    """Texts of fifteen pieces, each about one of two subjects that share no piece."""
    rng = np.random.default_rng(0)
    subjects = rng.integers(0, 2, 2000)
    return stages.RunningText((5 + 20 * subjects[:, None] + rng.integers(0, 20, (2000, 15))).reshape(-1), np.zeros(45, dtype=bool))


def read(corpus: stages.RunningText, **changes) -> tuple[encoder.MaskedLanguageModel, stages.Fitted]:
    config = bert_config(Size(1, 64), WORDS.size, 0.05, dropout=0.0)
    reader = new_masked_lm(config, 0, "sinusoid", unigram=np.bincount(corpus.text, minlength=45))
    return reader, stages.pretrain(reader, corpus, READING | changes, WORDS)


def row_words(reader: encoder.MaskedLanguageModel, corpus: stages.RunningText) -> float:
    rows = torch.from_numpy(Rows(corpus.text, 16, 0, WORDS).batch(0, 64))
    with torch.no_grad():
        return float(row_words_loss(reader(rows, torch.arange(1), of_rows=True)[1], rows[:, 1:]))


def test_masked_pieces_are_learned_from_their_row(corpus):
    _, fitted = read(corpus)
    assert fitted.curve[0]["loss"] > np.log(40) - 0.2
    assert fitted.final_loss < np.log(20) + 0.45  # most rows touch two subjects, hence not log(20) itself


def test_longer_rows_come_last_and_train_the_positions_beyond_the_short_rows(corpus):
    start = new_masked_lm(bert_config(Size(1, 64), WORDS.size, 0.05, dropout=0.0), 0, "sinusoid")
    at_start = start.bert.bert.embeddings.position_embeddings.weight

    def trained_positions(**changes) -> int:
        """Return how many position embeddings were changed by more than weight decay, which keeps their direction."""
        reader, fitted = read(corpus, tokens=10_240, batch=8, **changes)
        assert (fitted.steps, fitted.tokens) == (80, 10_240)
        table = reader.bert.bert.embeddings.position_embeddings.weight
        return int((torch.cosine_similarity(table, at_start) < 1 - 1e-6).sum())

    assert trained_positions() == 16
    assert trained_positions(long_row=64, long_share=0.25) == 64
    assert trained_positions(long_row=64, long_share=0.25, cls_words=0.5) == 64


@pytest.mark.parametrize("changes", [{}, {"cls_words": 0.5, "whole_words": True}], ids=["pieces alone", "rows' words too"])
def test_a_compiled_encoder_is_compiled_once_for_all_batches_and_learns_the_same(corpus, monkeypatch, changes):
    model, plain = read(corpus, tokens=10_000, **changes)
    graphs = CompileCounterWithBackend("aot_eager")  # traced, with its gradients; benchmarks/ways.py makes the kernels too
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=graphs))
    compiled, fitted = read(corpus, tokens=10_000, compile=True, **changes)
    assert graphs.frame_count == 1
    assert [r["loss"] for r in fitted.curve] == pytest.approx([r["loss"] for r in plain.curve], rel=1e-4)
    ids, positions = torch.from_numpy(Rows(corpus.text, 16, 0, WORDS).batch(0, 4)), torch.arange(1, 64, 7)
    torch.testing.assert_close(compiled(ids, positions), model(ids, positions), atol=1e-3, rtol=1e-3)


def test_without_a_compiler_the_setting_compile_is_refused_before_training(corpus, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"pretrain.compile needs a C\+\+ compiler, and no-such-compiler is not installed"):
        read(corpus, tokens=10_000, compile=True)


@pytest.mark.parametrize(
    ("precision", "positions", "expected"),
    [("fp32", 24, range(4, 23, 2)), ("bf16", 24, range(4, 25, 4)), ("bf16", 22, range(4, 23, 2))],
)
def test_batches_in_bf16_have_few_lengths_and_never_more_pieces_than_the_model_has_positions(
    precision, positions, expected, monkeypatch
):
    lengths, forward = set(), encoder.Classifier.forward
    monkeypatch.setattr(
        encoder.Classifier, "forward", lambda self, ids, *more: lengths.add(ids.shape[1]) or forward(self, ids, *more)
    )
    # Only training batches are rounded.
    monkeypatch.setattr(stages.inference, "logits", lambda *given: np.zeros((20, 2), np.float32))
    texts = Ids(np.full(sum(range(3, 23)), 7, np.uint16), np.cumsum([0, *range(3, 23)]))  # of 3 to 22 pieces, in batches of two
    labelled = Labelled(texts, np.arange(20) % 2)
    config = bert_config(Size(1, 64), WORDS.size, 0.05, dropout=0.1)
    config.max_position_embeddings = positions
    settings = {"seed": 0, "batch": 2, "epochs": 1, "rate": 1e-3, "warmup": 0.1, "weight_decay": 0.01, "precision": precision}
    stages.finetune(encoder.new_classifier(config, 0), labelled, labelled, settings, WORDS)
    assert lengths == set(expected)


def test_cls_learns_the_words_of_its_row_only_with_cls_words(corpus):
    asked, fitted = read(corpus, cls_words=0.5)
    idle, _ = read(corpus)
    assert row_words(asked, corpus) < np.log(20) + 0.45 < np.log(40) - 0.1 < row_words(idle, corpus)
    assert fitted.final_loss < np.log(20) + 0.45  # the curve shows the masked pieces' loss alone
