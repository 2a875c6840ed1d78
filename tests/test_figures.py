"""Figures: each is drawn from a whole study, kept with its data, titled by its finding; what was not measured is empty."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from handmade import both, whole, write

from pdstudy.analysis import verdicts
from pdstudy.report import figures, style
from pdstudy.report.style import PAPER_GREY, by_width
from pdstudy.storage import paths, results


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = whole(tmp_path_factory.mktemp("whole"))
    return folder, verdicts.judge(folder)


@pytest.mark.parametrize("name", figures.NAMES)
def test_a_figure_is_drawn_with_its_data_and_words_for_those_who_cannot_see_it(measured, name):
    drawn = figures.draw(*measured[:1], name, measured[1])
    assert len(drawn.data) and len(drawn.alt) > 30
    assert drawn.axes.has_data()
    plt.close(drawn.axes.figure)


@pytest.mark.parametrize("name", figures.NAMES)
def test_a_study_that_measured_little_leaves_gaps_and_no_error(tmp_path, name):
    folder = write(tmp_path, both("PD", 0.8) | both("PF", 0.7), transfer={"texts": 9}, splits={"train": 9})
    (tmp_path / results.TEXTS).write_text('{"train": {"kept": 9}}')
    drawn = figures.draw(folder, name, verdicts.judge(folder))
    asked = {"strategies", "starts", "gains_pretraining_value", "depth_width"}
    assert (len(drawn.data) > 0) == (name in asked), "nothing is drawn that was not measured"
    plt.close(drawn.axes.figure)


def test_the_title_is_the_finding(measured):
    drawn = figures.draw(*measured[:1], "transfer_size", measured[1])
    assert "A small pre-trained student needs less transfer text than a large random one: yes" in drawn.axes.figure.get_suptitle()
    plt.close(drawn.axes.figure)


def test_a_figure_is_kept_as_picture_and_data(measured, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    drawn = figures.draw(*measured[:1], "domains", measured[1])
    figures.keep(drawn, "mine", "domains")
    kept = tmp_path / "mine" / "figures"
    assert {p.name for p in kept.iterdir()} == {"domains.png", "domains.svg", "domains.csv"}
    table = pd.read_csv(kept / "domains.csv")
    assert set(table.domain) == {"a", "b", "c"} and set(table.recipe) == {"PD", "Distillation", "PD-F"} and table.S.notna().all()
    plt.close(drawn.axes.figure)


def test_the_papers_numbers_stand_in_grey_beside_ours(measured):
    drawn = figures.draw(*measured[:1], "compound", measured[1])
    ours, theirs = drawn.axes.figure.axes
    assert "Fig 10" in theirs.get_title(loc="left")
    assert {line.get_color() for line in theirs.get_lines()} == {PAPER_GREY}
    assert sorted(len(line.get_xdata()) for line in theirs.get_lines()) == [5, 5, 5]
    plt.close(ours.figure)


def test_names_of_lines_that_end_alike_stand_apart_near_their_ends_and_none_is_left_out():
    ax = style.new()
    ax.set_ylim(0, 100)
    style.label_ends(ax, [(99, "a", "black", 2.0), (99, "b", "black", 2.0), (99, "c", "black", 1.0), (20, "d", "black", 2.0)])
    names = {text.get_text(): text for text in ax.texts}
    assert [names[n].xy for n in "abcd"] == [(2, 93.5), (2, 99), (2, 104.5), (2, 20)]
    ax.figure.canvas.draw()
    assert all(text.get_window_extent().width > 0 and not text.get_annotation_clip() for text in names.values()), (
        "above the axis too"
    )
    (lead,) = (line for line in ax.lines if line.get_linestyle() == ":")
    assert lead.get_xydata().tolist() == [[1, 99], [2, 104.5]], "c ends before the others and is led to its name"
    plt.close(ax.figure)


def test_names_are_moved_apart_as_little_as_can_be_and_not_at_all_where_there_is_room():
    assert style.apart([1, 5, 9], 2).tolist() == [1, 5, 9]
    assert style.apart([4, 4, 9], 2).tolist() == [3, 5, 9]
    assert style.apart([], 2).tolist() == []


def test_no_width_is_left_out_however_many_there_are():
    widths = [64 * k for k in range(1, 8)]
    ax = style.new()
    by_width(pd.DataFrame({"size": [f"2/{w}" for w in widths], "x": widths, "value": 0.5}), ax, "viridis")
    assert len(ax.get_lines()) == len(widths)
    plt.close(ax.figure)
