"""The training loop: it learns, follows its schedule, and a resumed run ends with the same weights, bit for bit."""

import itertools

import pytest
import torch
from torch import nn

from pdstudy.models import encoder
from pdstudy.models.losses import hard_label_loss
from pdstudy.models.optimisers import clip
from pdstudy.models.train import Diverged, Loss, Schedule, Stopped, Watch, batches, fit
from pdstudy.sizes import Size
from pdstudy.storage.store import Checkpoints

STEPS = 11
ADAMW = Schedule(STEPS, warmup=0.2, rate=2e-3, weight_decay=0.01)
MUON = Schedule(STEPS, warmup=0.2, rate=2e-3, weight_decay=0.01, muon_rate=0.02)


def student(dropout: float = 0.3) -> encoder.Classifier:
    return encoder.new_classifier(encoder.bert_config(Size(1, 64), 50, init_std=0.1, dropout=dropout), seed=0)


def batch(step: int):
    """Return texts of six pieces whose class is whether the second piece is above 25."""
    ids = torch.randint(5, 50, (8, 6), generator=torch.Generator().manual_seed(step))
    return ids, (ids[:, 1] > 25).long()


def loss(model: nn.Module, data):
    ids, labels = data
    return Loss(hard_label_loss(model(ids), labels), ids.numel())


def trained(schedule: Schedule, watch: Watch | None = None, seed: int = 3):
    """Return (weights, fitted) of one run from the same start."""
    model = student()
    fitted = fit(model, batch, loss, schedule, seed, "fp32", watch)
    return {k: v.clone() for k, v in model.state().items()}, fitted


def stop_after(n: int):
    """Return a request to stop that comes after `n` steps."""
    calls = itertools.count(1)
    return lambda: next(calls) >= n


def identical(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def without_clock(curve: list[dict]) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in curve]


# The schedule


def test_the_rate_rises_to_its_peak_and_falls_linearly_without_reaching_zero():
    factors = [Schedule(10, warmup=0.2, rate=1.0, weight_decay=0).factor(step) for step in range(10)]
    assert factors == pytest.approx([1 / 2, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9])


def test_without_warm_up_the_first_step_has_the_full_rate():
    factors = [Schedule(4, warmup=0.0, rate=1.0, weight_decay=0).factor(step) for step in range(4)]
    assert factors == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])


def test_a_single_step_has_the_full_rate():
    assert Schedule(1, warmup=0.5, rate=1.0, weight_decay=0).factor(0) == 1


# Training


@pytest.mark.parametrize("muon_rate", [None, 0.02], ids=["adamw", "muon"])
def test_fit_learns_what_can_be_learned(muon_rate):
    fitted = fit(student(0.0), batch, loss, Schedule(120, 0.1, 2e-3, 0.01, muon_rate), 0, "fp32", Watch(log_every=10))
    assert fitted.curve[0]["loss"] > 0.5
    assert fitted.final_loss < 0.2
    assert fitted.final_loss == pytest.approx(fitted.curve[-1]["loss"])  # 12 records: the last tenth is one


def test_every_weight_that_the_loss_reaches_is_trained_with_either_optimiser():
    start = student().state()
    for schedule in (ADAMW, MUON):
        moved, _ = trained(schedule)
        still = {k for k in start if torch.equal(start[k], moved[k])}
        assert not still


def test_steps_pieces_and_log_records_are_counted():
    records, shares = [], []
    _, fitted = trained(ADAMW, Watch(log=records.append, progress=shares.append, log_every=4))
    assert fitted.steps == STEPS
    assert fitted.tokens == STEPS * 8 * 6
    assert [r["step"] for r in records] == [4, 8, 11]
    assert records == fitted.curve
    assert shares == pytest.approx([4 / 11, 8 / 11, 1])
    assert records[1]["rate"] == pytest.approx(2e-3 * ADAMW.factor(7))


def test_a_log_record_is_the_mean_loss_since_the_one_before():
    _, each = trained(ADAMW, Watch(log_every=1))
    _, four = trained(ADAMW, Watch(log_every=4))
    losses = [r["loss"] for r in each.curve]
    assert [r["loss"] for r in four.curve] == pytest.approx([sum(losses[:4]) / 4, sum(losses[4:8]) / 4, sum(losses[8:]) / 3])


def test_the_result_depends_on_the_seed_only_and_the_global_random_state_is_unchanged():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, _ = trained(ADAMW)
    assert torch.equal(torch.rand(3), expected)
    second, _ = trained(ADAMW, Watch(log_every=1))
    other, _ = trained(ADAMW, seed=4)  # the same start and data: only dropout can differ
    assert identical(first, second)
    assert not identical(first, other)


@pytest.mark.parametrize("norm", [0.0, 0.3, 0.9999999, 1.0, 40.0, float("nan")])
def test_gradients_are_clipped_as_torch_clips_them(norm):
    ours, theirs = ([torch.nn.Parameter(torch.zeros(n)) for n in (3, 50, 7)] for _ in "ab")
    for p, q in zip(ours[:2], theirs[:2], strict=True):  # the third has no gradient
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p))) * norm / 53**0.5
        q.grad = p.grad.clone()
    expected = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    torch.testing.assert_close(clip(ours), expected, rtol=0, atol=0, equal_nan=True)
    for p, q in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=0, equal_nan=True)


def test_a_thread_makes_the_same_batches_one_step_ahead():
    made = []

    def counted(step: int):
        made.append(step)
        return [torch.full((2,), step), None, step]

    processor = torch.device("cpu")
    plain = list(batches(counted, range(3, 7), processor))
    assert made == [3, 4, 5, 6]
    made.clear()
    for taken, (expected, batch) in enumerate(zip(plain, batches(counted, range(3, 7), processor, ahead=True), strict=True)):
        assert torch.equal(expected[0], batch[0]) and expected[1:] == batch[1:]
        assert set(made) <= set(range(3, 5 + taken))
    assert made == [3, 4, 5, 6]
    assert list(batches(counted, range(3, 3), processor, ahead=True)) == []


def test_an_error_in_a_batch_prepared_ahead_is_raised_at_its_step():
    def broken(step: int):
        if step == 2:
            raise ValueError("no third batch")
        return [step]

    coming = batches(broken, range(5), torch.device("cpu"), ahead=True)
    assert [next(coming), next(coming)] == [[0], [1]]
    with pytest.raises(ValueError, match="no third batch"):
        next(coming)


# Broken runs


@pytest.mark.parametrize("schedule", [ADAMW, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("stops", [(1,), (5,), (10,), (2, 3, 4)], ids=str)
def test_a_run_that_is_stopped_and_continued_ends_with_the_same_bits(tmp_path, schedule, stops):
    expected_weights, unbroken = trained(schedule, Watch(log_every=4))
    for n in stops:
        with pytest.raises(Stopped):
            trained(schedule, Watch(checkpoints=Checkpoints(tmp_path), stop=stop_after(n), log_every=4))
    notes = []
    weights, fitted = trained(schedule, Watch(checkpoints=Checkpoints(tmp_path), log=notes.append, log_every=4))
    assert notes[0] == {"resumed": sum(stops)}
    assert identical(weights, expected_weights)
    assert without_clock(fitted.curve) == without_clock(unbroken.curve)
    assert (fitted.tokens, fitted.final_loss) == (unbroken.tokens, unbroken.final_loss)


def test_a_run_that_saves_at_every_step_ends_with_the_same_bits(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    weights, _ = trained(MUON, Watch(checkpoints=checkpoints, save_every=0.0))
    assert identical(weights, trained(MUON)[0])
    assert checkpoints.newest()[0] == STEPS - 1  # the last step is the artifact's business


@pytest.mark.parametrize("schedule", [ADAMW, MUON], ids=["adamw", "muon"])
def test_a_truncated_newest_checkpoint_falls_back_to_the_previous_one_with_the_same_weights(tmp_path, schedule):
    for n in (3, 4):
        with pytest.raises(Stopped):
            trained(schedule, Watch(checkpoints=Checkpoints(tmp_path), stop=stop_after(n)))
    state = tmp_path / "000000007" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    notes = []
    weights, _ = trained(schedule, Watch(checkpoints=Checkpoints(tmp_path), log=notes.append))
    assert "checkpoint 7: state.safetensors is missing or has another size" in notes[0]["warning"]
    assert notes[1] == {"resumed": 3}
    assert identical(weights, trained(schedule)[0])


def test_where_every_checkpoint_is_damaged_training_restarts_with_the_same_weights(tmp_path):
    with pytest.raises(Stopped):
        trained(ADAMW, Watch(checkpoints=Checkpoints(tmp_path), stop=stop_after(3)))
    (tmp_path / "000000003" / "tally.json").write_text("{}")
    weights, fitted = trained(ADAMW, Watch(checkpoints=Checkpoints(tmp_path)))
    assert identical(weights, trained(ADAMW)[0])
    assert fitted.tokens == STEPS * 8 * 6


def test_a_stop_after_the_last_step_does_not_interrupt_a_finished_run(tmp_path):
    weights, _ = trained(ADAMW, Watch(checkpoints=Checkpoints(tmp_path), stop=stop_after(STEPS)))
    assert identical(weights, trained(ADAMW)[0])


# Divergence


def test_a_loss_that_is_not_finite_is_an_error_with_its_step_and_rate():
    def broken(model, data):
        value, n, _ = loss(model, data)
        return Loss(value * float("nan"), n)

    with pytest.raises(Diverged, match=r"loss is nan by step 5 of 11 at rate 0.002"):
        fit(student(), batch, broken, ADAMW, 0, "fp32", Watch(log_every=5))


def test_a_gradient_that_is_not_finite_is_divergence_though_the_loss_is_finite():
    def broken(model, data):
        value, n, _ = loss(model, data)
        return Loss(value + (value * 0).sqrt(), n)  # zero, of infinite slope

    with pytest.raises(Diverged, match=r"by step 1 of 11 at rate 0.002"):
        fit(student(), batch, broken, ADAMW, 0, "fp32", Watch(log_every=1))
