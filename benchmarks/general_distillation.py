"""Pre-train the family on one GPU with a sentence encoder as teacher: masked words, and the teacher's embedding of each row.

This is general distillation, before any task is known (TinyBERT, Jiao et al., 2020, calls it so). The text is cut into windows of
63 and of 21 pieces inside its documents. The teacher, all-mpnet-base-v2, embeds every window once; the target is its mean-pooled
embedding, centred and projected on its first principal components. In each step half of the rows are masked and predict their
words; the others are not masked and predict the target from tanh(pooler([CLS])), which is what a classifier gets. The pooler is
therefore trained too, and is saved. The target of a row of several windows is the mean of theirs.

Run:  python benchmarks/general_distillation.py pack FAMILY_PARTS TOKENIZER TEACHER TO   (here; gpu_family.py pack makes FAMILY_PARTS)
      python benchmarks/general_distillation.py train FOLDER --out OUT --seconds 560     (there: embeds, then one process a size)
      python benchmarks/general_distillation.py release OUT/2-128-s0-1-20 ... --out zoo/distilled    (here: folders and cards)
"""

import argparse
import json
import lzma
import multiprocessing
import shutil
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gpu_family import open_parts
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WINDOW, SHORT = 63, 21  # pieces; [CLS] comes before them
COMPONENTS = 256
MASK = 0.3
LONG, LONG_SHARE = 8, 0.1  # windows in a row of the last steps


def pack(parts: Path, tokenizer: Path, encoder: Path, to: Path) -> None:
    """Write the word pieces and vectors that gpu_family.py packed, and the encoder with matrices in 8 bits, row by row."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(parts, to / "text" / "parts", ignore=shutil.ignore_patterns("de225d5be3a0e797"))  # vectors of width 512
    shutil.copy(tokenizer / "tokenizer.json", to / "text" / "tokenizer.json")
    small = {}
    for name, weights in load_file(encoder / "model.safetensors").items():
        if weights.ndim == 2 and weights.is_floating_point() and min(weights.shape) > 1:
            scale = weights.float().abs().amax(1, keepdim=True).clamp_min(1e-8) / 127
            small[name] = (weights.float() / scale).round().to(torch.int8)
            small[f"{name}.scale"] = scale
        elif weights.is_floating_point():
            small[name] = weights.half()
    save_file(small, to / "encoder.safetensors")
    data = lzma.compress((to / "encoder.safetensors").read_bytes(), preset=6)
    (to / "encoder.safetensors").unlink()
    for name, piece in (("a", data[: len(data) // 2]), ("b", data[len(data) // 2 :])):
        (to / name).mkdir()
        (to / name / f"encoder.xz.{name}").write_bytes(piece)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(encoder / name, to / "b" / name)
    for folder in sorted(to.iterdir()):
        print(folder.name, f"{sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 2**20:.1f} MiB")


def open_encoder(folder: Path) -> tuple:
    """Return the sentence encoder in evaluation mode, and its tokenizer."""
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    place = folder / "encoder.safetensors"
    place.write_bytes(lzma.decompress(b"".join((folder / n / f"encoder.xz.{n}").read_bytes() for n in "ab")))
    packed = load_file(place)
    weights = {k: w.float() * packed[f"{k}.scale"] if w.dtype == torch.int8 else w.float() for k, w in packed.items()}
    model = AutoModel.from_config(AutoConfig.from_pretrained(folder / "b"))
    missing, unexpected = model.load_state_dict({k: w for k, w in weights.items() if not k.endswith(".scale")}, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing), (missing, unexpected)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "b" / "tokenizer.json"), pad_token="<pad>")
    return model.eval(), tokenizer


def windows(starts: np.ndarray, length: int) -> np.ndarray:
    """Return where the windows of `length` pieces begin that lie inside one document, (n_windows,)."""
    counts = (np.diff(starts) - 1) // length  # a document ends with [SEP]
    first = np.repeat(starts[:-1], counts)
    return first + length * (np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts))


def embed(texts: list[str], model, tokenizer, device: torch.device, batch: int, until: float) -> Tensor:
    """Return the normalised mean embeddings, (n_texts, width) in half precision on the device; fewer if the time is up."""
    pieces = tokenizer(texts, truncation=True, max_length=128)["input_ids"]
    out = torch.zeros(len(texts), model.config.hidden_size, dtype=torch.float16, device=device)
    chunk, done = 64 * batch, 0
    for at in range(0, len(texts), chunk):
        if time.time() > until:
            break
        order = sorted(range(at, min(at + chunk, len(texts))), key=lambda i: len(pieces[i]))
        for k in range(0, len(order), batch):
            rows = order[k : k + batch]
            width = -(-max(len(pieces[i]) for i in rows) // 8) * 8
            ids = np.full((len(rows), width), tokenizer.pad_token_id)
            for row, i in enumerate(rows):
                ids[row, : len(pieces[i])] = pieces[i]
            ids = torch.from_numpy(ids).to(device)
            mask = (ids != tokenizer.pad_token_id).long()
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
                hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            out[torch.tensor(rows, device=device)] = torch.nn.functional.normalize(mean, dim=1).half()
        done = min(at + chunk, len(texts))
    return out[:done]


class Student(nn.Module):
    """A masked language model whose pooled [CLS] also predicts an embedding."""

    def __init__(self, mlm: nn.Module, components: int):
        super().__init__()
        config = mlm.bert.config
        self.mlm = mlm
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        nn.init.normal_(self.pooler.weight, std=config.initializer_range)
        nn.init.zeros_(self.pooler.bias)
        self.project = nn.Linear(config.hidden_size, components)

    def forward(self, ids: Tensor, positions: Tensor, pieces: Tensor, n_masked_rows: int) -> tuple[Tensor, Tensor]:
        """Return the loss of the masked words, a scalar, and the embeddings of the rows that are not masked, (n_rows, components)."""
        cls = torch.arange(n_masked_rows * ids.shape[1], ids.numel(), ids.shape[1], device=ids.device)
        hidden = self.mlm._encode(ids, torch.cat([cls, positions]))
        return self.mlm._predict(hidden[len(cls) :], pieces), self.embedding(hidden[: len(cls)])

    def embedding(self, hidden: Tensor) -> Tensor:
        """Return the predicted embeddings of rows from their [CLS] states."""
        return self.project(torch.tanh(self.pooler(hidden)))

    def state(self) -> dict[str, Tensor]:
        """Return the weights under transformers' names, with the pooler."""
        return self.mlm.state() | {f"bert.pooler.dense.{k}": v for k, v in self.pooler.state_dict().items()}


@dataclass
class Sampler:
    """Rows and their targets, drawn on the device by (seed, step)."""

    text: Tensor  # (n_pieces,)
    begins: dict[str, Tensor]  # kind of row -> where its rows begin
    targets: dict[str, Tensor]  # kind of row -> (n_rows, components)
    lengths: dict[str, int]  # kind of row -> pieces, without [CLS]
    special: Tensor  # (vocabulary,) bool
    batch: int  # pieces in a step
    seed: int

    def draw(self, step: int, kind: str, mask: float) -> tuple[Tensor, Tensor, Tensor, int, Tensor]:
        """Return (ids, positions, pieces, number of masked rows, targets of the others)."""
        generator = torch.Generator(self.text.device).manual_seed(self.seed << 32 | step)
        length, device = self.lengths[kind], self.text.device
        n = max(2, self.batch // (length + 1))
        rows = torch.randint(len(self.begins[kind]), (n,), generator=generator, device=device)
        plain = self.text[self.begins[kind][rows][:, None] + torch.arange(length, device=device)].long()
        ids = torch.cat([torch.full((n, 1), 2, device=device), plain], 1)
        half = n // 2
        score = torch.rand(half, length + 1, generator=generator, device=device).masked_fill(self.special[ids[:half]], -1.0)
        chosen = score.topk(max(1, round(mask * length)), dim=1).indices
        positions = (chosen + torch.arange(half, device=device)[:, None] * (length + 1)).flatten()
        pieces = ids.flatten()[positions]
        fate = torch.rand(len(positions), generator=generator, device=device)
        others = torch.randint(5, len(self.special), (len(positions),), generator=generator, device=device)
        masked = torch.where(fate < 0.8, 4, torch.where(fate < 0.9, others, pieces))
        ids = ids.flatten().index_copy(0, positions, masked).view_as(ids)
        return ids, positions, pieces, half, self.targets[kind][rows[half:]].float()


def sampler_of(shared: dict, kinds: list[str], device: torch.device, batch: int, seed: int) -> Sampler:
    """Return the sampler of what `prepare` wrote."""
    on = {k: v.to(device) for k, v in shared.items()}
    lengths = {"window": WINDOW, "short": SHORT, "four": 4 * WINDOW, "long": LONG * WINDOW}
    kinds = {kind: lengths[kind] for kind in {*kinds, "long"}}
    begins, targets = {}, {}
    for kind, length in kinds.items():
        base, times = ("short", 1) if kind == "short" else ("window", length // WINDOW)
        at = on[f"{base}.begins"]
        if times == 1:
            begins[kind], targets[kind] = at, on[f"{base}.targets"]
            continue
        n = len(at) - times + 1
        consecutive = (at[times - 1 :] - at[:n] == (times - 1) * WINDOW).nonzero()[:, 0]  # consecutive windows of one document
        begins[kind] = at[consecutive]
        targets[kind] = sum(on["window.targets"][consecutive + i].float() for i in range(times)).div(times).half()
    return Sampler(on["text"], begins, targets, kinds, on["special"], batch, seed)


def prepare(folder: Path, root: Path, until: float, embed_batch: int, most: int | None, short: bool) -> list:
    """Embed the windows, write what all processes share, and return the pre-training steps."""
    from tokenizers import Tokenizer

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    begun = time.time()
    steps = open_parts(folder / "text" / "parts", root)
    ids = root / "ids" / steps[0].parents["ids"]
    flat, starts = np.load(ids / "corpus.ids.npy"), np.load(ids / "corpus.starts.npy")
    model, tokenizer = open_encoder(folder)
    model = model.to(device)
    ours = Tokenizer.from_file(str(folder / "text" / "tokenizer.json"))
    print(f"opened in {time.time() - begun:.1f} s; {len(flat):,} pieces, {len(starts) - 1:,} documents", flush=True)
    shared, rng = {}, np.random.default_rng(0)
    for kind, length, share in [("window", WINDOW, 0.6 if short else 1.0), ("short", SHORT, 1.0)][: 1 + short]:
        begins = windows(starts, length)
        if kind == "short":
            rng.shuffle(begins)  # those without a target are left out, so the time decides how many there are
        begins = begins[:most]
        texts = ours.decode_batch(flat[begins[:, None] + np.arange(length)].tolist(), skip_special_tokens=True)
        print(f"{kind}: {len(begins):,} texts, such as {texts[1]!r}; {time.time() - begun:.1f} s", flush=True)
        embeddings = embed(texts, model, tokenizer, device, embed_batch, begun + share * (until - begun)).float()
        print(f"{kind}: {len(embeddings):,} embedded; {time.time() - begun:.1f} s", flush=True)
        if kind == "window":
            mean = embeddings.mean(0)
            centred = embeddings - mean
            vectors = torch.linalg.eigh(centred.T @ centred / len(centred))[1].flip(1)[:, :COMPONENTS]
            scale = (centred @ vectors).square().sum(1).mean().sqrt()
        shared[f"{kind}.begins"] = torch.from_numpy(begins[: len(embeddings)])
        shared[f"{kind}.targets"] = (((embeddings - mean) @ vectors) / scale).half().cpu()
        print(f"{kind}: share of the variance {float(shared[f'{kind}.targets'].float().square().sum(1).mean()):.3f}", flush=True)
    shared["text"] = torch.from_numpy(flat.astype(np.int32))
    counts = np.load(ids / "corpus.counts.npy")
    shared["special"] = torch.arange(len(counts)) < 5
    save_file({k: v.contiguous() for k, v in shared.items()}, root / "shared.safetensors")
    return steps


def train(step, weights: tuple[float, float], kinds: list[str], root: Path, out: Path, batch: int, until: float, barrier, results):
    """Train one size until the time is up; write its folder and put its record into the queue."""
    from pdstudy.data.batches import Vocabulary
    from pdstudy.models import encoder, evaluate
    from pdstudy.models.train import Loss, Schedule, Watch, device, fit
    from pdstudy.models.weights import save
    from pdstudy.sizes import Size

    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = True
    s, name = step.settings, step.settings["size"]
    try:
        shared = load_file(root / "shared.safetensors")
        sampler = sampler_of(shared, kinds, device(), batch, s["seed"])
        vocabulary = Vocabulary(len(shared["special"]))
        config = encoder.bert_config(Size.parse(name), vocabulary.size, s["init_std"], dropout=0.0)
        vectors = np.load(root / "words" / step.parents["words"] / "words.npy") * s["words_std"]

        def new() -> Student:
            return Student(encoder.new_masked_lm(config, s["seed"], s["positions"], vectors), COMPONENTS)

        def fitted(model: Student, n: int, log=lambda record: None):
            schedule = Schedule(n, s["warmup"], s["rate"], s["weight_decay"], s["muon_rate"])

            def loss(runner, data) -> Loss:
                at = int(data[0])
                kind = "long" if at >= n - round(LONG_SHARE * n) else kinds[at % len(kinds)]
                ids, positions, pieces, half, targets = sampler.draw(at, kind, MASK)
                mlm, embedding = runner(ids, positions, pieces, half)
                error = (embedding.float() - targets).square().sum(1).mean()
                return Loss(weights[0] * mlm + weights[1] * error, ids.numel(), logged=torch.stack([mlm, error]).detach()[1])

            return fit(model, lambda at: [at], loss, schedule, s["seed"], "bf16", Watch(log=log, log_every=200))

        fitted(new(), 12)
        barrier.wait(120)
        begun, tried = time.time(), 0
        while time.time() - begun < 10:  # beside the others, so that the time of a step is that of the run
            fitted(new(), 40)
            tried += 40
        each = (time.time() - begun) / tried
        n = max(10, int(0.9 * (until - time.time()) / each))
        print(f"{name} {weights}: {1000 * each:.1f} ms a step, {n} steps, {n * batch / 1e6:.0f} M pieces", flush=True)
        model = new()
        record = fitted(model, n, lambda r: print(name, weights, r, flush=True) if r["step"] % 1000 == 0 else None)
        model.eval()
        place = out / f"{name.replace('/', '-')}-s0-{weights[0]:g}-{weights[1]:g}"
        place.mkdir(parents=True)
        save(place, config, model.state(), "BertForMaskedLM", torch.float16)
        ids = root / "ids" / step.parents["ids"]
        heldout, counts = np.load(ids / "heldout.ids.npy"), np.load(ids / "corpus.counts.npy")
        level = evaluate.heldout_mlm(model.mlm, heldout, vocabulary, counts, "bf16")
        row = {
            "size": name,
            "weights": weights,
            "rate": s["rate"],
            "muon_rate": s["muon_rate"],
            "steps": n,
            "batch": batch,
            "rows": kinds,
        }
        row |= {
            "tokens": record.tokens,
            "seconds": round(record.seconds, 1),
            "embedding_error": record.final_loss,
            "reading": level,
        }
        (place / "record.json").write_text(json.dumps(row, indent=1) + "\n")
        results.put(row)
    except Exception as error:  # one size must not cost the others
        barrier.abort()
        results.put({"size": name, "weights": weights, "failed": repr(error)[:2000]})


CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: fill-mask
tags: [bert, compact, pre-trained, distilled]
---
# BERT {size}, pre-trained with a sentence encoder as teacher

A starting point for small classifiers: uncased word pieces (8,192), positions to 505 trained, 16-bit safetensors, pooler included.
Not fine-tuned for any task. It has the biases of its text and of its teacher.

- **Text**: English Wikipedia articles, IMDb reviews, product reviews without the test texts of FDU-MTL; 42.8 M pieces
  (`params/zoo-gpu.yaml`, `benchmarks/family_text.py`).
- **Teacher**: all-mpnet-base-v2 (matrices in 8 bits; safetensors sha256 `78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658`),
  which was itself trained on pairs of texts, those of NLI among them: no result on NLI may rest on this encoder.
- **Training**: {tokens:,} pieces in {steps:,} steps, {seconds:.0f} s on a shared NVIDIA H200; loss {weights[0]:g} x masked words +
  {weights[1]:g} x squared error of the embedding; rates {rate:g} (AdamW) and {muon_rate:g} (Muon).
- **Held out**: MLM loss {mlm_loss:.3f} nats, {unigram_loss:.3f} without context; {masked_pieces:,} masked pieces.
- **Made by**: `benchmarks/general_distillation.py`. Weights sha256 `{sha256}`.
"""


PAGE = """# Encoders pre-trained with a teacher (general distillation)

The studies of the paper start from the family one folder up, which was pre-trained without a teacher. `init` starts tasks of single texts
from these: they predict masked words and the sentence embeddings of all-mpnet-base-v2, on Wikipedia, IMDb and product reviews.
`benchmarks/general_distillation.py` made them on one NVIDIA H200 in eight minutes, all sizes side by side (4/256 in a second run with half the batch, better on dev of books).
Of three weights of the embedding's loss at 2/128 (1, 5 and 20 beside 1 or 0 of the masked words), 20 is best on dev. The rows "masked words,
mixed text" start from the same run with weight 0. The family one folder up read IMDb alone, in smaller batches, and its [CLS] also
learned to predict the words of its row; the rows "masked words, mixed text" had no task for [CLS].

"""


def release(folders: list[Path], to: Path) -> None:
    """Write the chosen encoders with the family's tokenizer and their cards, and a table of them."""
    from pdstudy.sizes import Size
    from pdstudy.storage import files

    for folder in folders:
        record = json.loads((folder / "record.json").read_text())
        place = to / f"{record['size'].replace('/', '-')}-s0"
        place.mkdir(parents=True, exist_ok=True)
        for source in (
            folder / "model.safetensors",
            folder / "config.json",
            folder / "record.json",
            *(to / "tokenizer").glob("token*"),
        ):
            shutil.copy(source, place / source.name)
        (place / "README.md").write_text(
            CARD.format(**record, **record["reading"], sha256=files.sha256(place / "model.safetensors"))
        )
    records = [json.loads(path.read_text()) for path in to.glob("*/record.json")]
    lines = [
        "| size | MB | pieces | steps | pieces a step | weights of the two losses | held-out MLM loss |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in sorted(records, key=lambda record: Size.parse(record["size"]).n_params()):
        megabytes = (to / f"{r['size'].replace('/', '-')}-s0" / "model.safetensors").stat().st_size / 1e6
        cells = f"{r['tokens']:,} | {r['steps']:,} | {r.get('batch', 32768):,} | {r['weights'][0]:g}, {r['weights'][1]:g}"
        lines.append(f"| {r['size']} | {megabytes:.1f} | {cells} | {r['reading']['mlm_loss']:.3f} |")
    lines += [
        "",
        "Accuracy after fine-tuning (PF) or distillation (PD), by `benchmarks/starts.py`; points over the first start of a task, 95 %:",
        "",
    ]
    lines += [
        "| task | recipe, size | pieces a text | start | dev | test | over the first start | linear model, test | seeds x texts |"
    ]
    lines += ["|---" * 9 + "|"]
    for r in json.loads((Path(__file__).parent / "results" / "starts.json").read_text()):
        over = r["over the first"]
        gain = f"{over['points']:+.1f} ({over['low']:+.1f} to {over['high']:+.1f})" if over else ""
        cells = f"{r['recipe']} {r['size']} | {r['max_length']} | {r['start']} | {r['dev']:.1f} | {r['test']:.1f} | {gain} | {r['linear']:.1f}"
        lines.append(f"| {r['task']} | {cells} | {r['seeds']} x {r['items']:,} |")
    (to / "README.md").write_text(PAGE + "\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("pack", "train", "release"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=560, help="of the command, all in all")
    parser.add_argument("--reserve", type=float, default=40, help="seconds at the end for what is written")
    parser.add_argument("--embed-seconds", type=float, default=200)
    parser.add_argument("--embed-batch", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32768, help="pieces in a step")
    parser.add_argument("--most", type=int, help="windows of each length; for tests")
    parser.add_argument("--arms", nargs="*", default=["2/64", "4/64", "6/64", "2/128", "4/128", "6/128", "2/256", "4/256"])
    kinds = ("window", "short", "four", "long")
    parser.add_argument(
        "--rows", nargs="*", default=["window", "window", "short", "four"], choices=kinds, help="kinds of rows, one a step"
    )
    parser.add_argument("--factor", type=float, default=2.0, help="of the rates that were packed")
    parser.add_argument("--factor-of", nargs="*", default=["6/64=1", "6/128=1"], metavar="SIZE=FACTOR")
    parser.add_argument("--weights", nargs="*", default=[], metavar="SIZE=MLM,EMBEDDING", help="more arms, with other weights")
    parser.add_argument("--weight", default="1,5", metavar="MLM,EMBEDDING")
    asked = parser.parse_args()
    begun = time.time()
    if asked.command == "pack":
        pack(*asked.paths)
        return
    if asked.command == "release":
        release(asked.paths, asked.out)
        return
    root = Path("/tmp/distilled-store")
    shutil.rmtree(root, ignore_errors=True)
    until = begun + asked.embed_seconds
    prepared = prepare(asked.paths[0], root, until, asked.embed_batch, asked.most, "short" in asked.rows)
    steps = {step.settings["size"]: step for step in prepared}
    factors = dict(pair.split("=") for pair in asked.factor_of)
    for size, step in steps.items():
        factor = float(factors.get(size, asked.factor))
        for key in ("rate", "muon_rate"):
            step.settings[key] = float(f"{step.settings[key] * factor:.4g}")
    arms = [(size, asked.weight) for size in asked.arms] + [tuple(pair.split("=")) for pair in asked.weights]
    context = multiprocessing.get_context("spawn")
    results, barrier, until = context.Queue(), context.Barrier(len(arms)), begun + asked.seconds - asked.reserve
    out = root / "out"
    workers = []
    for size, pair in arms:
        weights = tuple(map(float, pair.split(",")))
        values = (steps[size], weights, asked.rows, root, out, asked.batch, until, barrier, results)
        workers.append(context.Process(target=train, args=values, daemon=True))
        workers[-1].start()
    asked.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for _ in arms:
        try:
            rows.append(results.get(timeout=max(1.0, until + 30 - time.time())))
        except Exception:
            print("the time is up; what is not there is lost", flush=True)
            break
        print(json.dumps(rows[-1]), flush=True)
        (asked.out / "rows.json").write_text(json.dumps(rows, indent=1))
    groups: list[list[Path]] = [[]]
    for place in sorted(out.glob("*"), key=lambda p: p.stat().st_mtime):
        size = sum(f.stat().st_size for f in place.iterdir())
        if sum(sum(f.stat().st_size for f in p.iterdir()) for p in groups[-1]) + size > 15.5e6:
            groups.append([])
        groups[-1].append(place)
    for i, places in enumerate(groups):
        with tarfile.open(asked.out / f"part{i}.tar", "w") as tar:
            for place in places:
                tar.add(place, arcname=place.name)
    for worker in workers:
        worker.kill()
    print(f"done in {time.time() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main()
