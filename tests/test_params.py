import json

import bs4
import pytest
import yaml
from pydantic import ValidationError

from pdstudy.machine import best_precision
from pdstudy.sizes import Size
from pdstudy.storage import paths
from pdstudy.study.settings import ParamsError, Study, explain
from pdstudy.study.yaml_file import load


@pytest.fixture
def refusal(settings):
    """Return the sentence with which a changed study is refused."""

    def refuse(**changes) -> str:
        with pytest.raises(ValidationError) as caught:
            Study(**(settings | changes))
        return explain(caught.value, Study)

    return refuse


def trained(**changes):
    return {"rates": [1e-3]} | changes


# -- what is accepted


def test_a_study_written_to_yaml_is_read_back_the_same(settings, written):
    study = Study(**settings)
    assert Study.read(written(yaml.safe_dump(study.model_dump(mode="json")))) == study


@pytest.mark.parametrize("path", sorted(paths.PARAMS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_params_file_of_the_project_is_a_study_of_its_own_name(path):
    assert Study.read(path.stem).name == path.stem


@pytest.mark.parametrize("path", sorted(paths.PARAMS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_params_file_of_the_project_names_exactly_the_studys_keys(path):
    data, fields = load(path), Study.model_fields
    assert set(data) == set(fields)
    for group in (
        "splits",
        "corpus",
        "tokenizer",
        "pretrain",
        "teacher",
        "linear",
        "transfer",
        "curves",
        "domains",
        "compound",
        "finetune",
        "distill",
    ):
        optional = (
            {"long_row", "long_share"} - set(data[group]) if group == "pretrain" else set()
        )  # a second phase is named where it is used
        assert set(data[group]) | optional == set(fields[group].annotation.model_fields)


def test_a_study_is_frozen(settings):
    with pytest.raises(ValidationError, match="frozen"):
        Study(**settings).name = "other"


def test_sizes_are_written_one_way_however_they_are_given(settings):
    study = Study(**(settings | {"sizes": ["tiny", " 1/64 "], "pretrain_by_size": {"tiny": {"tokens": 5}}}))
    assert study.sizes == ["2/128", "1/64"]
    assert study.all_sizes == ("2/128", "1/64")  # the teacher is 2/128 too
    assert study.pretraining(Size(2, 128)).tokens == 5
    assert study.pretraining(Size(1, 64)).tokens == study.pretrain.tokens


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", '"1e-4"'])
def test_a_rate_is_a_ten_thousandth_however_yaml_reads_it(settings, written, text):
    body = yaml.safe_dump({k: v for k, v in settings.items() if k != "finetune"}) + f"finetune: {{rates: [{text}, 0.01]}}\n"
    assert Study.read(written(body)).finetune.rates == [0.0001, 0.01]


def test_an_arm_that_is_searched_less_than_another_is_refused(settings):
    settings["distill"]["rates"] = [1e-3]
    with pytest.raises(ValueError, match=r"finetune\.rates lists 2 and distill\.rates 1"):
        Study(**settings)


def test_a_byte_order_mark_does_no_harm(settings, written):
    assert Study.read(written(b"\xef\xbb\xbf" + yaml.safe_dump(settings).encode())) == Study(**settings)


@pytest.mark.parametrize(
    ("cpuinfo", "best"),
    [
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16 amx_bf16", "bf16"),
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16", "fp32"),  # at half the speed of fp32
        ("vendor_id : AuthenticAMD\nflags : avx512f avx512_bf16", "bf16"),
        ("vendor_id : AuthenticAMD\nflags : avx2", "fp32"),
    ],
)
def test_the_best_precision_is_what_the_processor_multiplies_fastest(tmp_path, cpuinfo, best):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert best_precision(tmp_path / "cpuinfo") == best
    assert best_precision(tmp_path / "none") == "fp32"


def test_auto_precision_is_one_of_the_two_and_a_given_one_stays(settings):
    assert Study(**(settings | {"precision": "auto"})).resolved_precision() in ("fp32", "bf16")
    assert Study(**(settings | {"precision": "bf16"})).resolved_precision() == "bf16"


def test_a_family_is_a_folder_for_all_sizes_or_one_a_size(settings):
    folder = "hub:google/bert_uncased_L-{layers}_H-{hidden}_A-{heads}"
    one = Study(**(settings | {"family": folder}))
    assert one.family == folder and Study(**one.model_dump()) == one
    both = Study(**(settings | {"family": {"others": folder, "tiny": "hub:owner/name"}}))
    names = [both.family_name(Size.parse(s)) for s in ("2/128", "1/64")]
    assert Study(**both.model_dump()) == both
    assert names == ["hub:owner/name", "hub:google/bert_uncased_L-1_H-64_A-1"]
    assert paths.absolute(both.family_name(Size(2, 128))) == paths.MODELS / "owner" / "name"


# -- keys and types


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sedes": [0]}, "sedes: unknown key; did you mean 'seeds'?"),
        ({"finetune": trained(epcohs=3)}, "finetune.epcohs: unknown key; did you mean 'epochs'?"),
        ({"distill": trained(temprature=1.0)}, "distill.temprature: unknown key; did you mean 'temperature'?"),
        ({"teacher": {"sise": "2/128"}}, "teacher.sise: unknown key; did you mean 'size'?"),
        ({"pretrain_by_size": {"1/64": {"rat": 1}}}, "pretrain_by_size.1/64: rat: unknown key; did you mean 'rate'?"),
        ({"pretrain_by_size": {"tiny": {"rate": -1}}}, "pretrain_by_size.2/128: rate: input should be greater than 0, got -1"),
        ({"recipes": ["PDF"]}, "unknown recipe 'PDF'; did you mean 'PD-F'? choose from 'Basic', 'Distillation'"),
        ({"family": 3}, "family: input should be a valid string, got 3"),
        ({"family": {"1/64": "zoo"}}, "family: names nothing for 2/64; add it, or others"),
        ({"rates_by_size": {"9/64": [0.1]}}, "rates_by_size: 9/64 is none of the study's sizes"),
        (
            {"rates_by_size": {"1/64": [0.1, 0.2, 0.3]}},
            "rates_by_size.1/64 lists 3 and finetune.rates 2: sizes are compared fairly",
        ),
        ({"name": "hub"}, "name 'hub' is reserved for a folder in outputs/"),
        ({"name": "published"}, "name 'published' is reserved"),
        ({"finetune": trained(batch=[8]), "distill": trained(batch=[8])}, "finetune.batch: value should have at least 2 items"),
        ({"task": "movie"}, "unknown task 'movie'; did you mean 'movies'?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(refusal, changes, sentence):
    assert sentence in refusal(**changes)


def test_a_key_like_none_is_refused_with_the_known_ones(refusal):
    assert "teacher.xyzzy: unknown key; known keys: size, folder, file, linear, mean, margin" in refusal(teacher={"xyzzy": 1})


def test_a_missing_key_is_named(settings):
    del settings["seeds"], settings["finetune"]["rates"]
    with pytest.raises(ValidationError) as caught:
        Study(**settings)
    assert set(explain(caught.value, Study).split("\n  ")) == {
        "seeds: this key is required",
        "finetune.rates: this key is required",
    }


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"name": 3}, "name: input should be a valid string, got 3"),
        ({"seeds": 0}, "seeds: input should be a valid list, got 0"),
        ({"seeds": [0.5]}, "seeds.0: input should be a valid integer"),
        ({"seeds": [True]}, "seeds.0: expected a number, got true or false"),
        ({"seeds": [-1]}, "seeds.0: input should be greater than or equal to 0, got -1"),
        ({"seeds": []}, "seeds: list should have at least 1 item"),
        ({"sizes": []}, "sizes: list should have at least 1 item"),
        ({"sizes": "2/64"}, "sizes: input should be a valid list"),
        ({"sizes": [2]}, 'sizes.0: size 2 is not "layers/hidden"'),
        ({"sizes": ["2/100"]}, "sizes.0: size 2/100: the hidden width must be a multiple of 64 (one head each); try 2/64 or 2/128"),
        ({"recipes": [["PD"]]}, "recipes.0: input should be a valid string"),
        ({"finetune": 3}, "finetune: input should be a valid dictionary"),
        ({"dropout": 1.0}, "dropout: input should be less than 1, got 1.0"),
        ({"max_length": 1000}, "max_length: input should be less than or equal to 512, got 1000"),
        ({"precision": "fp16"}, "precision: input should be 'fp32', 'bf16' or 'auto'"),
        ({"init_std": {"64": 0, "128": 0.05}}, "init_std.64: input should be greater than 0, got 0"),
        ({"corpus": {"heldout": 0.5}}, "corpus.heldout: input should be less than 0.5, got 0.5"),
        ({"distill": trained(temperature=0)}, "distill.temperature: input should be greater than 0, got 0"),
        ({"splits": {"dev": 0}}, "splits.dev: input should be greater than or equal to 1, got 0"),
        (
            {"transfer": {"texts": "many"}},
            'transfer.texts: input should be a valid integer, unable to parse string as an integer, got "many"',
        ),
    ],
)
def test_a_wrong_value_is_refused_in_a_sentence_that_begins_with_its_key(refusal, changes, start):
    assert refusal(**changes).startswith(start)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1, 0, 1.5, "fast", None, [1e-3], "nan", "-1e-4"])
def test_what_is_no_learning_rate_is_refused(refusal, rate):
    assert refusal(finetune={"rates": [1e-3, rate]}).startswith("finetune.rates")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"curves": {"labels": [100, 4000]}, "splits": {"train": 400, "dev": 100, "test": 100}}, "curves.labels: 4,000 labels are not fewer than splits.train, 400"),
        ({"curves": {"labels": [400]}, "splits": {"train": 400, "dev": 100, "test": 100}}, "curves.labels: 400 labels are not fewer than splits.train, 400"),
        ({"recipe_sizes": {"PD": ["2/64", "2/64"]}}, "recipe_sizes.PD: '2/64' is listed twice; list each once"),
        ({"compound": {"corpora": ["transfer"], "sizes": ["2/64", "2/64"]}}, "compound.sizes: '2/64' is listed twice; list each once"),
        ({"curves": {"recipes": ["PD", "PD"]}}, "curves.recipes: 'PD' is listed twice; list each once"),
        ({"recipe_sizes": {"PD": []}}, "recipe_sizes.PD: list should have at least 1 item after validation, not 0, got []"),
        ({"family": "zoo/{layers}-{hidden}-s0", "pretrain": {"starts": 2}}, "pretrain.starts: a family has one encoder of each size; set it to 1, or family to null"),
        ({"recipes": ["PD", "PD-F"], "curves": {"recipes": ["PD-F"]}}, "curves.recipes: PD-F is trained twice, and a curve is of recipes that are trained once; leave it out"),
        ({"domains": {"recipes": ["Basic"]}}, "domains.recipes: Basic is not distilled, so no transfer set changes it; leave it out"),
        ({"compound": {"recipes": ["Basic"]}}, "compound.recipes: Basic starts at random, so no D_LM changes it; leave it out"),
    ],
)  # fmt: skip
def test_what_would_be_planned_as_nothing_or_twice_is_refused(refusal, changes, sentence):
    assert refusal(**changes) == sentence


def test_a_key_of_settings_is_a_name():
    with pytest.raises(ParamsError, match=r"settings: the key 1 is no name of a setting, such as 'seeds'"):
        Study.read("smoke", {1: 2})


@pytest.mark.parametrize("rates", [[1e-3, 0.001], [1e-4, "1e-4"], [1e-4, 1.0000001e-4]])
def test_a_rate_listed_twice_is_refused(refusal, rates):
    assert "a learning rate is listed twice" in refusal(distill={"rates": rates})


@pytest.mark.parametrize(
    ("key", "values", "twice"),
    [("seeds", [1, 2, 1], "1"), ("sizes", ["2/128", "tiny"], "'2/128'"), ("recipes", ["PD", "PF", "PD"], "'PD'")],
)
def test_what_is_listed_twice_is_refused(refusal, key, values, twice):
    assert refusal(**{key: values}) == f"{key}: {twice} is listed twice; list each once"


@pytest.mark.parametrize(("width", "changes"), [("192", {"sizes": ["1/192"]}), ("256", {"teacher": {"size": "mini"}})])
def test_a_width_without_an_initial_scale_is_refused_with_the_cure(refusal, width, changes):
    assert refusal(**changes) == f'init_std has no scale for width {width}; add it, such as {{"{width}": 0.04}}'


@pytest.mark.parametrize("teacher", [{"size": "2/128", "folder": "x"}, {"folder": "x"}, {"size": None}])
def test_a_teacher_is_either_trained_or_given(refusal, teacher):
    assert refusal(teacher=teacher).startswith("teacher: give either a size (trained here), a folder (already trained), a file")


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/etc/x",
        "a\0b",
        "x" * 300,
        "x" * 65,
        "CON",
        "Quick",
        "été",
        "",
        ".hidden",
        "-x",
        "a..b",
        "a b",
        "a\n",
        "a/b",
        "store",
    ],
)
def test_a_name_that_could_leave_the_outputs_folder_is_refused(refusal, name):
    assert refusal(name=name).startswith(f"name {name!r}")


@pytest.mark.parametrize("name", ["a", "x" * 64, "my-study_2.1", "0"])
def test_a_plain_name_is_taken(settings, name):
    assert Study(**(settings | {"name": name})).name == name


def test_a_refused_study_names_its_file(settings, written):
    path = written(yaml.safe_dump(settings | {"seeds": [1, 1]}))
    with pytest.raises(ParamsError) as caught:
        Study.read(path)
    assert str(caught.value) == f"{path}: seeds: 1 is listed twice; list each once"


def test_a_value_shown_in_a_message_is_short(refusal):
    assert len(refusal(seeds="x" * 10_000)) < 200


def test_reading_a_study_loads_neither_torch_nor_pandas(fresh_python, settings, written):
    path = written(yaml.safe_dump(settings))
    code = f"import sys, json, pdstudy; pdstudy.Study.read({str(path)!r}); print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(fresh_python(code)))
    assert "pdstudy.study.settings" in loaded
    assert not loaded & {"torch", "pandas", "transformers", "scipy", "seaborn", "matplotlib", "accelerate", "datasets", "sklearn"}


def test_the_names_of_the_package_load_nothing_heavy(fresh_python):
    code = "import sys, json; from pdstudy import Study, run_study, load_results; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(fresh_python(code)))
    assert "pdstudy.run.scheduler" in loaded
    assert not loaded & {"torch", "pandas", "pyarrow", "numpy", "transformers", "datasets"}


def test_settings_replace_keys_of_a_section_and_whole_values_elsewhere():
    file = Study.read("smoke")
    study = Study.read("smoke", {"seeds": [5], "pretrain": {"tokens": 1000}, "init_std": {"64": 0.1, "128": 0.1}})
    assert study.seeds == [5] and study.init_std == {"64": 0.1, "128": 0.1}
    assert study.pretrain == file.pretrain.model_copy(update={"tokens": 1000})
    changed = {key for key in Study.model_fields if getattr(study, key) != getattr(file, key)}
    assert changed == {"seeds", "pretrain", "init_std"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seedz": [0]}, r"^settings, over .*smoke.yaml: seedz: unknown key; did you mean 'seeds'\?$"),
        ({"pretrain": {"tokns": 1}}, "pretrain.tokns: unknown key; did you mean 'tokens'"),
        ({"recipes": ["PDF"]}, "unknown recipe 'PDF'; did you mean 'PD-F'"),
        ("seeds", "settings: expected keys and values such as .*, got a str"),
    ],
)
def test_wrong_settings_are_refused_with_the_nearest_name(settings, message):
    with pytest.raises(ParamsError, match=message):
        Study.read("smoke", settings)


def test_paths_in_settings_are_relative_to_the_params_file(settings, tmp_path):
    (tmp_path / "mine.yaml").write_text(json.dumps(settings))
    study = Study.read(tmp_path / "mine.yaml", {"task": {"train": "films.csv"}})
    assert paths.absolute(study.task.train) == tmp_path / "films.csv"


def test_a_study_shows_every_value_and_marks_those_that_differ_from_its_file():
    study = Study.read("smoke", {"seeds": [0], "pretrain": {"tokens": 1000, "row": 32}, "corpus": {"documents": None}})
    rows = [
        [cell.decode_contents() for cell in row.find_all("td")]
        for row in bs4.BeautifulSoup(study._repr_html_(), "html5lib").find_all("tr")
    ]
    marked = {row[0]: (row[1], row[2]) for row in rows if row and "<mark>" in row[1]}
    assert marked == {
        "seeds": ("<mark>[0]</mark>", "[0, 1]"),
        "pretrain.tokens": ("<mark>1000</mark>", "60000"),
        "corpus.documents": ("<mark>null</mark>", "400"),
    }
    assert {row[0].split(".")[0] for row in rows if row} == set(Study.model_fields)
    assert "<mark>" not in Study.read("smoke")._repr_html_()


def test_the_table_of_values_is_folded_below_a_line_that_names_the_study():
    study = Study.read("smoke", {"seeds": [0], "pretrain": {"tokens": 1000}})
    details = bs4.BeautifulSoup(study._repr_html_(), "html5lib").body.find(recursive=False)
    assert details.name == "details" and not details.has_attr("open")  # browsers open it by Enter and space as by a click
    summary, table = details.find_all(recursive=False)
    assert (summary.name, table.name) == ("summary", "table")
    sizes, recipes = ", ".join(study.sizes), ", ".join(study.recipes)
    assert (
        summary.text
        == f"Study smoke: task {study.task}; sizes {sizes}; recipes {recipes}; seeds 0; 2 values differ from the params file"
    )
    assert Study.read("smoke")._repr_html_().count("no value differs from the params file</summary>") == 1
    assert Study.read("smoke", {"seeds": [0]})._repr_html_().count("; 1 value differs from the params file</summary>") == 1


def test_markup_in_a_value_is_shown_and_not_read(settings):
    assert "<b>" not in Study.checked(settings | {"teacher": {"folder": "<b>", "size": None}})._repr_html_()
