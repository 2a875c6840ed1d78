"""A task in files of one's own that a 1-layer BERT learns in seconds: reviews whose words give their class away."""

WORDS = {"praise": ["fine", "good", "great", "lovely", "superb"], "scorn": ["awful", "bad", "dull", "poor", "weak"]}
NEUTRAL = ["film", "story", "cast", "scene"]
TRAIN = {"epochs": 6, "batch": 16, "rates": [0.002]}
STUDY = {
    "sizes": ["1/64"],
    "recipes": ["Basic", "PD"],
    "seeds": [0],
    "splits": {"dev": 40, "test": 60},
    "corpus": {"heldout": 0.1},
    "tokenizer": {"vocabulary": 100},
    "max_length": 16,
    "init_std": {"64": 0.06},
    "pretrain": {"tokens": 20_000, "row": 16, "batch": 16},
    "teacher": {"size": "1/64"},
    "transfer": {"texts": 200},
    "finetune": TRAIN,
    "distill": TRAIN,
    "precision": "fp32",
}
