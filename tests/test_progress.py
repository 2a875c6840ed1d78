"""What a run says while it works: a line, one display in a notebook, errors without a traceback."""

import sys
import types

import pytest

from pdstudy.run import progress
from pdstudy.run.progress import Progress, Stage
from pdstudy.run.scheduler import RunError
from pdstudy.run.worker import Interrupted

STAGES = (
    Stage("texts", 1, 1),
    Stage("finetune", 20, 5, ("Basic 2/64 s0 finetune", "Basic 2/64 s1 finetune", "PF 2/64 s0 finetune")),
)
HALF = Progress(21, 6, STAGES[1].running, 65, 0.5, STAGES)
OVER = Progress(21, 21, share=1.0)


class Kernel:
    """A notebook's kernel as IPython shows it: what was displayed, and every text that stood there."""

    def __init__(self, monkeypatch):
        self.displays, self.texts, self.now = 0, [], 100.0
        monkeypatch.setitem(
            sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=object()))
        )
        monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=self.display))
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)

    def display(self, data, raw, display_id):
        self.displays += 1
        self.update(data, raw)
        return self

    def update(self, data, raw):
        assert raw
        self.texts.append(data["text/plain"])


@pytest.fixture
def kernel(monkeypatch) -> Kernel:
    return Kernel(monkeypatch)


def test_a_line_says_what_is_done_what_is_running_and_the_time_left():
    assert progress.line(Progress(9, 4, ("PD 2/64 s0 distill",), 65)) == "4 of 9 steps, about 1:05 left; now PD 2/64 s0 distill"
    assert progress.line(Progress(30, 0, tuple("abcdefghij"), 5)).endswith("now a, b, c, d, e, f, g, h, 2 more")
    assert progress.line(OVER) == "21 of 21 steps done"
    assert progress.line(Progress(21, 17, share=1.0)) == "17 of 21 steps done"  # four failed or wait for one that did
    assert progress.line(Progress(0, share=1.0)) == "nothing to compute: every step is in the store"


def test_a_block_has_one_line_a_stage():
    head, texts, finetune = progress.block(HALF).splitlines()
    assert head == "6 of 21 steps, about 1:05 left"
    assert texts == "texts     ████████████████████  1 of 1"
    assert finetune == "finetune  █████···············  5 of 20     Basic 2/64 s0 finetune, Basic 2/64 s1 finetune, 1 more"


def test_who_stops_a_run_is_told_what_it_waits_for_and_that_it_ended():
    asked = Progress(21, 6, ("a", "b"), 65, 0.5, STAGES, stopping=True)
    assert progress.line(asked) == "6 of 21 steps; waiting for 2 to reach a safe point"
    assert progress.block(Progress(21, 6, (), 65, 0.5, STAGES, stopping=True)) == "6 of 21 steps; stopped"


def test_a_notebook_has_one_display_updated_once_a_second_and_one_line_in_the_end(kernel):
    show = progress.in_notebook()
    for _ in range(100):
        kernel.now += 0.1
        show(HALF)
    show(OVER)
    assert kernel.displays == 1
    assert len(kernel.texts) <= 12
    assert kernel.texts[-2] == progress.block(HALF)
    assert kernel.texts[-1] == "21 of 21 steps done in 0:10"


def test_one_thing_that_takes_time_has_a_line_of_its_own(kernel):
    show = progress.of("reading")
    kernel.now += 10
    show(0.5)
    kernel.now += 10
    show(1.0)
    assert kernel.displays == 1
    assert kernel.texts[1:] == ["reading  ██████████··········  about 0:10 left", "reading: done in 0:20"]


def test_outside_a_notebook_nothing_is_displayed(capsys):
    progress.in_notebook()(HALF)
    progress.of("reading")(0.5)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("error", [Interrupted("stopped"), RunError("it failed", bad_input=False)])
def test_a_notebook_shows_the_sentence_of_an_error_and_no_traceback(error):
    assert error._render_traceback_() == [f"{type(error).__name__}: {error}"]
