"""Texts of any script are read whole: a class that only a mark, a sign or an emoji tells apart is learned like any other."""

import csv
import random

import pytest
import yaml
from reviews import TRAIN

from pdstudy import Study, run_study
from pdstudy.advice import init_params
from pdstudy.data import own_pieces, scripts, similarity
from pdstudy.data import tokenizer as wordpieces
from pdstudy.storage.results import accuracies

# Neutral words; two cues that differ by a mark alone; two that differ altogether; what stands between the words.
SCRIPTS = {
    "hindi": ("आज घर पानी शाम लड़का किताब बाज़ार मौसम", ("दिन", "दीन"), ("दिन", "फल"), " "),
    "thai": ("วันนี้ ร้าน สินค้า โรงแรม พนักงาน ของเรา อาหาร", ("ไกล", "ไกล้"), ("ไกล", "สวย"), ""),
    "chinese": ("今天 城市 图书 天气 房间 音乐 价格 电影", ("未到", "末到"), ("未到", "好吃"), ""),
    "arabic": ("البيت المدينة الكتاب اليوم الماء الطريق السوق", ("مَلك", "مُلك"), ("مَلك", "شجر"), " "),
    "vietnamese": ("hôm nay nhà sách trời phố người bạn", ("mà", "má"), ("mà", "vui"), " "),
    "korean": ("오늘 집에 학교 도시 음악 영화 날씨 가격", ("달", "딸"), ("달", "꽃"), " "),
    "emoji": ("the lamp arrived today and our radio works outside", ("😀", "😡"), ("good", "bad"), " "),
}


def texts(language: str, control: bool, n: int = 300) -> list[tuple[str, str]]:
    """Return texts of neutral words with a cue, and the class that the cue gives."""
    neutral, marked, plain, between = SCRIPTS[language]
    rng, cues, rows = random.Random(0), plain if control else marked, []
    for i in range(n):
        words = rng.choices(neutral.split(), k=5)
        words.insert(rng.randrange(6), cues[i % 2])
        rows.append((between.join(words) + between + str(i), "ab"[i % 2]))
    return rows


def accuracy(language: str, control: bool, folder) -> float:
    """Return the test accuracy of a 2/64 student of the study that `init` writes, made small."""
    path = folder / f"{language}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *texts(language, control)])
    values = yaml.safe_load(
        init_params.params_file(path, folder / "own.yaml", name=f"{language}-{'control' if control else 'marks'}").text
    )
    values["task"]["train"] = str(path)
    values |= {
        "sizes": ["2/64"],
        "recipes": ["Basic"],
        "seeds": [0],
        "init_std": {"64": 0.06},
        "pretrain_by_size": {},
        "precision": "fp32",
    }
    values |= {
        "finetune": TRAIN | {"epochs": 8, "rates": [0.003]},
        "distill": TRAIN,
        "teacher": {"size": None, "linear": True, "margin": -1},
        "family": None,
        "corpus": {"heldout": 0.3},
    }
    values["pretrain"] = {"tokens": 500, "row": 16, "batch": 16}
    values["tokenizer"]["vocabulary"] = min(150, values["tokenizer"]["vocabulary"])
    metrics = run_study(Study.checked(values), workers=0)
    return accuracies(metrics[metrics.recipe == "Basic"]).value.item()


@pytest.mark.parametrize("language", SCRIPTS)
def test_a_cue_that_a_mark_alone_carries_is_learned_as_well_as_another_word(language, tmp_path):
    assert accuracy(language, False, tmp_path) >= accuracy(language, True, tmp_path) - 0.02 > 0.9


def test_texts_of_scripts_without_spaces_are_near_when_their_clauses_stand_in_another_order():
    rng = random.Random(1)
    clauses = [rng.choices(SCRIPTS["chinese"][0].split(), k=20) for _ in range(120)]
    (row,) = similarity.compare(["".join(c) for c in clauses], {"turned": ["".join(reversed(c)) for c in clauses]})
    assert row["S"] == pytest.approx(1.0) and row["unseen"] == 0.0 and row["words a text"] >= 40


def test_a_vowel_sign_ends_no_word_and_each_emoji_is_one():
    assert list(scripts.units("मेल गाड़ी")) == ["मेल", "गाड़ी"]
    assert list(scripts.units("so fine 😀👍 don't")) == ["so", "fine", "😀", "👍", "don", "t"]
    assert list(scripts.units("ไม่ดี")) == ["ไ", "ม่", "ดี"] and list(scripts.units("好吃 ok")) == ["好", "吃", "ok"]


def test_a_long_run_of_letters_is_no_unknown_piece():
    tokenizer = own_pieces.train(["ab " * 50, "abab " * 50, "ไม่ดี" * 60], 16)
    for text in ("ab" * 200, "ไม่ดี" * 100):
        assert tokenizer.token_to_id("[UNK]") not in tokenizer.encode(text).ids


def test_an_own_vocabulary_is_the_same_every_time_and_drops_the_rarest_letters_that_have_no_room():
    texts = ["".join(chr(0x4E00 + i) for i in range(n)) for n in range(1, 60)]
    pieces = own_pieces.supported(texts, 25)
    assert pieces == own_pieces.supported(texts, 25) and len(pieces) == 25
    assert chr(0x4E00) in pieces and chr(0x4E00 + 58) not in pieces
    with pytest.raises(ValueError, match=r"D_LM supports only 64 word pieces, fewer than tokenizer.vocabulary 300"):
        own_pieces.train(texts, 300)


def test_an_own_tokenizer_opens_without_this_package_and_gives_the_same_ids(tmp_path):
    from transformers import AutoTokenizer

    texts = ["मेल गाड़ी", "ไม่ดี 😀", "Má và mà", "C++ or C#"]
    own_pieces.save(own_pieces.train(texts * 3, 50), tmp_path)
    tokenizer, vocabulary = wordpieces.open_tokenizer(tmp_path)
    ids, _ = wordpieces.encode_texts(tokenizer, vocabulary, texts, None)
    theirs = AutoTokenizer.from_pretrained(tmp_path)(texts, add_special_tokens=False)["input_ids"]
    assert [ids.flat[a : b - 1].tolist() for a, b in zip(ids.starts, ids.starts[1:], strict=False)] == theirs
    assert own_pieces.is_own(tokenizer)
