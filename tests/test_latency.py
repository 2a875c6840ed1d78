"""Latency is measured alike for every engine: the same texts, in turns, robust against a busy moment."""

import time

import numpy as np
import pytest

from pdstudy.data.batches import Ids
from pdstudy.models import inference, latency
from pdstudy.models.latency import Opening, measure

CLS, SEP, LONGEST = 2, 3, 12
CALLS = []  # (name, pieces in the question) in the order in which they were asked


def texts(*lengths: int) -> Ids:
    """Return texts of these lengths, text i made of the piece 10 + i."""
    rows = [[CLS, *[10 + i] * (n - 2), SEP] for i, n in enumerate(lengths)]
    return Ids(np.concatenate(rows).astype(np.uint16), np.concatenate([[0], np.cumsum(lengths)]))


def slow_by_length(name: str, threads: int):
    """Open a classifier that takes half a millisecond a piece."""

    def answer(ids, mask, segments):
        CALLS.append((name, ids.shape))
        time.sleep(ids.shape[1] * 5e-4)
        return np.zeros((len(ids), 2), np.float32)

    return answer


def busy_once(threads: int):
    """Open a classifier that is quick but in all of the third round."""
    asked = iter(range(10**6))

    def answer(ids, mask, segments):
        if 8 <= next(asked) < 12:
            time.sleep(0.05)
        return np.zeros((len(ids), 2), np.float32)

    return answer


def holding(megabytes: int, threads: int):
    """Open a classifier that holds so much memory."""
    block = np.ones(megabytes * 1_000_000, dtype=np.uint8)
    return lambda ids, mask, segments: block[: len(ids) * 2].reshape(-1, 2).astype(np.float32)


def broken(threads: int):
    """Open nothing."""
    raise ValueError("no such model")


def test_the_sampled_texts_cover_the_lengths_of_all():
    ids = texts(9, 4, 5, 3, 6, 7, 8)
    assert ids.lengths[latency.sample_by_length(ids.lengths, 3)].tolist() == [3, 6, 9]
    assert ids.lengths[latency.sample_by_length(ids.lengths, 100)].tolist() == [3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(ValueError, match="no text to measure on"):
        latency.sample_by_length(np.empty(0), 3)


def test_a_row_of_a_stated_length_is_cut_from_real_pieces_between_a_first_and_a_last_one():
    ids = texts(4, 5)
    assert latency.at_length(ids, 0, 3).tolist() == [[CLS, 10, SEP]]
    assert latency.at_length(ids, 0, 7).tolist() == [[CLS, 10, 10, SEP, CLS, 11, SEP]]
    assert latency.at_length(ids, 1, 8).tolist() == [[CLS, 11, 11, 11, SEP, CLS, 10, SEP]]  # goes on at the beginning


def test_any_callable_is_timed_at_its_own_lengths_and_at_stated_ones():
    result = measure(
        {"it": Opening(slow_by_length, ("it",), "none")},
        texts(*[4] * 9, LONGEST),
        0,
        [8],
        n=10,
        n_fixed=3,
        batch=5,
        rounds=3,
        memory=False,
    )["it"]
    assert 2.0 <= result.p50 < 20 and 4.0 < result.p95 < 40  # 4 pieces take 2 ms, 12 take 6; the 95th percentile is between
    assert result.lengths == (4, 4, 12) and result.n == 10
    [at] = result.fixed
    assert (at.length, at.n) == (8, 3) and 4.0 <= at.p50 <= at.p95 < 40
    assert 100 < result.throughput <= 10 / 0.008  # two batches of five, 4 and 12 pieces long: 8 ms at least
    assert (result.batch, result.threads, result.rounds, result.precision) == (5, 1, 3, "none") and result.processor


def test_classifiers_take_turns_and_the_first_round_only_warms_up():
    CALLS.clear()
    both = {name: Opening(slow_by_length, (name,), "none") for name in ("a", "b")}
    measure(both, texts(3, 3), 0, [4], n=2, n_fixed=1, batch=2, rounds=3, memory=False)
    a_round = [(1, 3), (1, 3), (1, 4), (2, 3)]  # two texts alone, one of a stated length, one batch
    assert [shape for _, shape in CALLS] == a_round * 8
    assert "".join(name for name, _ in CALLS[::4]) == "abbaabba"


def test_a_busy_moment_does_not_change_the_latency():
    result = measure({"it": Opening(busy_once, (), "none")}, texts(3, 3), 0, [4], n=2, n_fixed=1, batch=2, rounds=3, memory=False)[
        "it"
    ]
    assert result.p95 < 25 and result.fixed[0].p95 < 25 and result.throughput > 80


def test_memory_is_that_of_a_fresh_process():
    import torch  # noqa: F401  here, not there

    question = [(np.ones((4, 3), np.int64), None, None)]
    little, much = (latency.peak_memory(Opening(holding, (mb,), "none"), question, 1) for mb in (1, 300))
    assert 285 < much - little < 315
    assert little < 150 < latency.peak_of_this_process()


def test_an_error_in_the_fresh_process_is_reported():
    with pytest.raises(RuntimeError, match="measures memory failed: ValueError: no such model"):
        latency.peak_memory(Opening(broken, (), "none"), [], 1)


def test_a_classifier_of_ours_is_measured_and_torch_s_threads_are_as_before(tmp_path):
    import torch

    from pdstudy.models import encoder, weights
    from pdstudy.sizes import Size

    config = encoder.bert_config(Size(1, 64), 40, 0.05, 0.1)
    weights.save(tmp_path, config, encoder.new_classifier(config, 0).state(), "BertForSequenceClassification")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        opening = Opening(inference.open_torch, (str(tmp_path),), "fp32")
        result = measure({"ours": opening}, texts(4, 6, 9), 0, [5], n=3, n_fixed=1, batch=2, rounds=2, threads=1)["ours"]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert 0 < result.p50 <= result.p95 and result.throughput > 1
    assert (result.threads, result.precision, result.lengths) == (1, "fp32", (4, 6, 9))
    assert 100 < result.memory < 2000  # torch and transformers are in it


def test_each_size_of_a_study_is_measured_once_and_the_table_is_stored(smoke, monkeypatch):
    from pdstudy.run import study_latency
    from pdstudy.storage import results
    from pdstudy.storage.store import Store
    from pdstudy.study import plan

    result = study_latency.of_study(plan.make(smoke), Store())["sizes"]
    assert 0 < result["2/64"]["p50"] < result["2/128"]["p50"] and result["2/64"]["memory"] is None
    assert result["linear"]["p50"] > 0
    assert [at["length"] for at in result["2/128"]["fixed"]] == [16, 48] and result["2/128"]["throughput"] > 0
    table = study_latency.measure_latency(smoke)
    assert list(table.index) == list(result) and (table["peak memory, MB"].drop("linear") > 50).all()
    before = results.load_latency("smoke")
    study_latency.measure_latency(smoke)
    assert results.load_latency("smoke") == before, "measured once"
    stored, again = {"sizes": results.load_speeds("smoke")}, []
    monkeypatch.setattr(study_latency, "of_study", lambda plan, store, memory: again.append(plan.study.max_length) or stored)
    study_latency.measure_latency(smoke.model_copy(update={"max_length": 32}))
    assert again == [32], "not measured at this length"
