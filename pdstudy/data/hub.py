"""The hub: brings named data sets and models into the mirror. The only file that opens a network.

What it takes is data, never code: Parquet tables and safetensors. A data set's layout is what `datasets` makes of its
card; its files and a model's are downloaded by `huggingface_hub` and held to the sha256 that the hub promises for them.
A fetch that was broken off goes on with the file that it was at. The first fetch of a name writes the commit it came from into the
mirror's manifest; every later one takes that commit and refuses other bytes. A manifest alone, copied into an empty
mirror, is so a list of pins.
"""

import contextlib
import json
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from pdstudy.data import mirror
from pdstudy.data.mirror import MANIFEST, MirrorError
from pdstudy.data.sources import content
from pdstudy.data.tasks import DATA
from pdstudy.storage import paths
from pdstudy.storage.files import full, is_full, sha256, whole

Say = Callable[[str], None]
MODEL_FILES = (mirror.CONFIG, mirror.WEIGHTS, *mirror.VOCABULARIES, "tokenizer_config.json")
PARTS = ".fetching-"  # a folder of what has come so far; the same command goes on from it


class HubError(ValueError):
    """Raised where the hub cannot give what was asked for; the message names the cure. `bad_input` says whose fault it was."""

    def __init__(self, message: str, bad_input: bool = True):
        super().__init__(message)
        self.bad_input = bad_input


def missing(splits: Sequence[str], models: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return those of the splits, "data/split", and models, "hub:owner/name", that are not in the mirror.

    What is there is verified by whoever reads it.
    """
    tables = [name for name in splits if not mirror.place(name).is_file()]
    lacking = []
    for name in models:
        folder = paths.whole(name)
        if not all((folder / file).is_file() for file in (mirror.CONFIG, mirror.WEIGHTS)):
            lacking.append(name)
    return tables, lacking


def supply(splits: Sequence[str], models: Sequence[str], say: Say = lambda text: None) -> None:
    """Fetch those of the splits and models that the mirror lacks, before anything is computed. Raises MirrorError, HubError.

    Without a network nothing is tried: the sentence says how to get what is missing.
    """
    tables, lacking = missing(splits, models)
    if not tables and not lacking:
        return
    from huggingface_hub import is_offline_mode

    for name in tables:
        if is_offline_mode() or DATA[name.split("/")[0]].hub is None:
            mirror.table(name)  # raises
    for name in lacking if is_offline_mode() else ():
        mirror.model(name)
    fetch(splits, models, say)


def fetch(
    splits: Sequence[str], models: Sequence[str], say: Say = lambda text: None, revisions: dict[str, str] | None = None
) -> None:
    """Bring every split and model into the mirror, those that are there verified. Raises as `supply`.

    `revisions` gives the commit to take of "owner/name"; without one it is that of the mirror's manifest, else the newest.
    """
    revisions = revisions or {}
    known = {DATA[name.split("/")[0]].hub for name in splits} | {name.removeprefix(paths.HUB) for name in models}
    if unknown := sorted(set(revisions) - known):
        raise HubError(f"--revision {unknown[0]}: the study names no such repository, but {', '.join(sorted(filter(None, known)))}")
    for data in dict.fromkeys(name.split("/")[0] for name in splits):
        mine = [name.split("/")[1] for name in splits if name.startswith(f"{data}/")]
        _fetch_data(data, mine, revisions.get(DATA[data].hub), say)
    for name in models:
        _fetch_model(name.removeprefix(paths.HUB), revisions.get(name.removeprefix(paths.HUB)), say)


def _fetch_data(name: str, splits: Iterable[str], asked: str | None, say: Say) -> None:
    """Write the splits of one data set that the mirror lacks, one after the other, each with its line of the manifest."""
    data, folder = DATA[name], paths.DATA / name
    record = mirror.manifest(folder)
    lacking = []
    for split in splits:
        if mirror.place(f"{name}/{split}").is_file():
            mirror.table(f"{name}/{split}")  # raises where it is damaged
            say(f"{name}/{split}: at hand")
        else:
            lacking.append(split)
    if not lacking:
        _same(record, asked, folder)
        return
    if data.hub is None:
        mirror.table(f"{name}/{lacking[0]}")
    revision = _same(record, asked, folder)
    with _work(folder) as work, _asking(data.hub, revision):
        if not (lacking := [split for split in lacking if not mirror.place(f"{name}/{split}").is_file()]):
            return
        import datasets
        from huggingface_hub import HfApi, hf_hub_download

        info = HfApi().dataset_info(data.hub, revision=revision, files_metadata=True)
        builder = datasets.load_dataset_builder(data.hub, data.config, revision=info.sha, cache_dir=str(work / "layout"))
        for split in lacking:
            urls = (builder.config.data_files or {}).get(split)
            if not urls:
                have = ", ".join(builder.config.data_files or {}) or "none"
                raise HubError(f"{data.hub} ({data.config}) has no split {split!r} at {info.sha[:12]}; its splits are {have}")
            inside = [url.partition(f"@{info.sha}/")[2] for url in urls]
            if odd := next((p for p in inside if not p.endswith(".parquet")), None):
                raise HubError(f"{data.hub}: {split} is kept in {odd!r}; only Parquet tables are taken from the hub")
            got = {}
            for path in inside:
                local = hf_hub_download(data.hub, path, repo_type="dataset", revision=info.sha, local_dir=work / "files")
                got[path] = _promised(Path(local), info, path, data.hub)
            table = _columns(datasets, [work / "files" / path for path in inside], name, work)
            _keep(table, name, split, info.sha, got)
            say(f"{name}/{split}: {len(table):,} rows, {data.hub} at {info.sha[:12]}")


def _columns(datasets, files: list[Path], name: str, work: Path):
    """Return a split's texts and labels as a `datasets.Dataset`; rows without a label (-1) are left out of what has labels."""
    data = DATA[name]
    table = datasets.load_dataset("parquet", data_files=[str(f) for f in files], split="train", cache_dir=str(work / "tables"))
    columns = list(data.columns)
    if lost := [c for c in columns if c not in table.column_names]:
        raise HubError(f"{data.hub}: no column {lost[0]!r}; its columns are {', '.join(table.column_names)}")
    if data.label is None:
        return table.select_columns(columns)
    names = getattr(table.features[data.label], "names", None)
    if names is not None and tuple(names) != data.labels:
        raise HubError(
            f"{data.hub} ({data.config}): its classes are {', '.join(names)}, but {', '.join(data.labels)} were expected, in this "
            "order; the labels would be swapped, so it is not taken: give an older commit with --revision"
        )
    table = table.select_columns(columns)
    labels = table.with_format("numpy")[data.label][:]
    if (labels < 0).all():  # a split without labels, such as GLUE's test
        return table
    return table.select((labels >= 0).nonzero()[0])


def _keep(table: Any, name: str, split: str, sha: str, got: dict[str, str]) -> None:
    """Write one split and its line of the manifest. Raises HubError where another text came than the manifest pins."""
    folder, data = paths.DATA / name, DATA[name]
    file = f"{split}.parquet"
    record = mirror.manifest(folder)
    files = record.get("files", {})
    with whole(folder / file) as new:
        table.to_parquet(str(new))
        held = content(new, data.columns)
        if (pinned := files.get(file, {}).get("content")) not in (None, held):
            raise HubError(
                f"{name}/{split} at {sha[:12]} holds another text than the manifest pins ({held[:12]}... for {pinned[:12]}...); if it "
                f"is to be taken, remove {file} from {paths.scrub(str(folder / MANIFEST))}"
            )
        line = mirror.listed(new) | {"rows": len(table), "content": held, "from": got}
    _write(folder, {"hub": data.hub, "config": data.config, "revision": sha, "files": files | {file: line}})


def _fetch_model(name: str, asked: str | None, say: Say) -> None:
    """Write one model's folder whole, or verify the one that is there."""
    folder = paths.MODELS / name
    record = mirror.manifest(folder)
    revision = _same(record, asked, folder)
    if all((folder / file).is_file() for file in (mirror.CONFIG, mirror.WEIGHTS)):
        mirror.model(f"{paths.HUB}{name}")
        say(f"{name}: at hand")
        return
    with _work(folder) as work, _asking(name, revision):
        if all((folder / file).is_file() for file in (mirror.CONFIG, mirror.WEIGHTS)):
            return
        from huggingface_hub import HfApi, hf_hub_download

        info = HfApi().model_info(name, revision=revision, files_metadata=True)
        there = {s.rfilename for s in info.siblings}

        def bring(file: str) -> Path:
            local = Path(hf_hub_download(name, file, revision=info.sha, local_dir=work / "files"))
            _promised(local, info, file, name)
            return local

        if mirror.CONFIG not in there:
            raise HubError(f"{name}: no {mirror.CONFIG}; it is not a model's repository")
        if "auto_map" in json.loads(bring(mirror.CONFIG).read_text()):
            raise HubError(
                f"{name}: its {mirror.CONFIG} asks for code of its own (auto_map), which is never run; take a plain BERT"
            )
        if mirror.WEIGHTS not in there:
            if not any(file.endswith(mirror.PICKLES) for file in there):
                raise HubError(f"{name}: no {mirror.WEIGHTS}; its files are {', '.join(sorted(there))[:200]}")
            raise HubError(mirror.pickled(name))
        if not there & set(mirror.VOCABULARIES):
            raise HubError(f"{name}: neither {' nor '.join(mirror.VOCABULARIES)}; without its word pieces it cannot read")
        files = {file: mirror.listed(bring(file)) for file in MODEL_FILES if file in there}
        pinned = record.get("files", {})
        if other := [f for f in files if f in pinned and pinned[f]["sha256"] != files[f]["sha256"]]:
            raise HubError(f"{name}: {other[0]} is not the file that {MANIFEST} pins; if it is to be taken, remove {MANIFEST}")
        folder.mkdir(parents=True, exist_ok=True)
        # The weights last: a folder that holds them is whole.
        for file in sorted(files, key=lambda f: f == mirror.WEIGHTS):
            if file == mirror.WEIGHTS:
                _write(folder, {"hub": name, "revision": info.sha, "files": files})
            (work / "files" / file).replace(folder / file)
        say(f"{name}: {sum(f['bytes'] for f in files.values()) / 1e6:,.1f} MB at {info.sha[:12]}")


def _same(record: dict[str, Any], asked: str | None, folder: Path) -> str | None:
    """Return the commit to take: the one asked for, else the one that the mirror has. Raises HubError where they differ."""
    held = record.get("revision")
    if asked and held and asked != held:
        raise HubError(
            f"--revision {asked}: {paths.scrub(str(folder))} holds commit {held}; remove the folder, or do without --revision"
        )
    return asked or held


def _promised(file: Path, info: Any, path: str, whose: str) -> str:
    """Return a downloaded file's sha256. Raises HubError where the hub promised another; small files are promised none."""
    found = sha256(file)
    large = next((s.lfs for s in info.siblings if s.rfilename == path), None)
    if large is not None and large.sha256 != found:
        file.unlink()
        raise HubError(
            f"{whose}: {path} came with sha256 {found[:12]}..., the hub promises {large.sha256[:12]}...; nothing was kept, run the "
            "same command again",
            bad_input=False,
        )
    return found


def _write(folder: Path, record: dict[str, Any]) -> None:
    with whole(folder / MANIFEST) as new:
        new.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def _work(folder: Path) -> Iterator[Path]:
    """Give a folder for what comes over the network, beside its place; it stays until everything has come."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid.uuid4().hex[:8]}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        cure = "set PDSTUDY_DATA and PDSTUDY_MODELS to folders that can be written"
        raise HubError(f"{paths.scrub(str(folder))} cannot be written ({error.strerror}); {cure}") from None
    work = folder.with_name(f"{PARTS}{folder.name}")
    with FileLock(folder.with_name(f".{folder.name}.lock")):  # a second run that lacks the same waits, and then finds it
        work.mkdir(exist_ok=True)
        yield work
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _asking(name: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's libraries raise into one sentence; their progress shows on a terminal only."""
    import datasets
    from huggingface_hub import constants, errors, is_offline_mode
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if is_offline_mode():
        raise HubError(f"{name} cannot be fetched: HF_HUB_OFFLINE is set; unset it, or run this on a machine with a network")
    # Of the client that the library speaks through, which has changed its name before.
    broken = next(c for c in errors.HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
    quiet = are_progress_bars_disabled()
    # `datasets` tells a third server of each load, and waits seconds where a firewall swallows that.
    counting, datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, False
    datasets.disable_progress_bars()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except (HubError, MirrorError):
        raise
    except errors.RevisionNotFoundError:
        cure = "give another with --revision, or remove the manifest that pins it"
        raise HubError(f"the hub has no commit {revision} of {name}; {cure}") from None
    except errors.GatedRepoError:
        raise HubError(f"{name} is given only to those who accepted its terms; do so on its page and set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise HubError(f"the hub has no {name}, or not for you; look at its name, and set HF_TOKEN where it is private") from None
    except (broken, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        last = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise HubError(
            f"the connection to {constants.ENDPOINT} broke while {name} was fetched ({last}); run the same command again: files that "
            "had come whole are not asked for again",
            bad_input=False,
        ) from None
    except OSError as error:
        if is_full(error):
            raise HubError(paths.scrub(full(paths.DATA, error=error)), bad_input=False) from None
        raise HubError(f"{name}: {type(error).__name__}: {error}", bad_input=False) from None
    except (ValueError, RuntimeError) as error:  # of `datasets`: no such config, a script instead of tables
        raise HubError(f"{name}: {(str(error).strip().splitlines() or [type(error).__name__])[0][:300]}") from None
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counting
        if not quiet:
            enable_progress_bars()
