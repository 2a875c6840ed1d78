"""The settings of a study as a form: every value is there, a change gives the line to paste, a wrong one a sentence."""

import ast

import ipywidgets
import pytest

from pdstudy import Study
from pdstudy.study import form, sections


@pytest.fixture
def filled():
    return Study.form("smoke")


def settings_of(line: str) -> dict:
    name, _, value = line.partition(" = ")
    assert name == "settings"
    return ast.literal_eval(value)


def test_every_setting_has_a_widget_and_unchanged_values_give_an_empty_line(filled):
    flat = {
        f"{key}.{inner}" if isinstance(inner, str) else key
        for key, field in Study.model_fields.items()
        for inner in (
            field.annotation.model_fields
            if isinstance(field.annotation, type) and issubclass(field.annotation, sections.Settings)
            else [None]
        )
    }
    assert set(filled.fields) == flat and {"pretrain.rate", "seeds", "distill.temperature"} <= flat
    assert settings_of(filled.line) == {} and filled.message == ""


def test_a_change_gives_the_line_that_a_notebook_reads(filled):
    filled.fields["pretrain.tokens"].value = "2e6"
    filled.fields["distill.loss"].value = "logits"
    filled.fields["seeds"].value = "[0, 1, 2]"
    filled.fields["name"].value = "mine"
    settings = settings_of(filled.line)
    assert settings == {"name": "mine", "seeds": [0, 1, 2], "pretrain": {"tokens": 2e6}, "distill": {"loss": "logits"}}
    study = Study.read("smoke", settings)
    assert (study.name, study.seeds, study.pretrain.tokens, study.distill.loss) == ("mine", [0, 1, 2], 2e6, "logits")
    assert filled.settings == settings


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [
        ("sizes", "[2/65]", "2/65"),
        ("recipes", "[PDD]", "unknown recipe 'PDD'; did you mean 'PD'?"),
        ("pretrain.mask", "1.5", "pretrain.mask: input should be less than 1, got 1.5"),
        ("seeds", "[0,", "seeds: '[0,' is not YAML; write a value such as ["),
        ("name", "Mine and yours", "such as 'mine-and-yours'"),
    ],
)
def test_a_wrong_value_is_named_with_its_cure_until_it_is_right(filled, key, text, sentence):
    before = filled.fields[key].value
    filled.fields[key].value = text
    assert sentence in filled.message and filled.line == ""
    filled.fields[key].value = before
    assert filled.message == "" and settings_of(filled.line) == {}


def test_comments_beside_and_above_a_field_are_its_documentation(filled):
    notes = form.documentation(sections.Pretrain)
    assert notes["row"] == "pieces in a row" and notes["long_row"].startswith("BERT's second phase: the last `long_share`")
    descriptions = [w.value for box in filled.box.children[0].children for w in box.children if isinstance(w, ipywidgets.HTML)]
    assert "<small>pieces in a row</small>" in descriptions and any("Masked language modelling" in text for text in descriptions)


def test_what_is_typed_is_not_markup(filled):
    filled.fields["recipes"].value = "['<img src=x>']"
    assert "<img" in filled.message and "<img" not in filled.box.children[1].value
