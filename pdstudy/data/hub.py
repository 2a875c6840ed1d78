"""The hub: fetches named data sets and models into the mirror. No other module opens a network connection.

Only data is fetched, never code: Parquet tables and safetensors. `datasets` finds a data set's files by its card;
`huggingface_hub` downloads the files of one commit, and each is checked against the sha256 that the hub states. After an
interruption the same command continues with the file that was incomplete. The first fetch of a repository writes its commit and
hashes into the mirror's manifest. Later fetches take that commit and refuse other contents, so a manifest copied into an empty
mirror pins the versions.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from pdstudy.data import mirror
from pdstudy.data.mirror import CONFIG, MANIFEST, WEIGHTS, MirrorError
from pdstudy.data.sources import content
from pdstudy.data.tasks import DATA
from pdstudy.storage import paths
from pdstudy.storage.files import atomic_write, full_disk_message, is_disk_full, sha256

Say = Callable[[str], None]
MODEL_FILES = (CONFIG, WEIGHTS, *mirror.VOCABULARIES, "tokenizer_config.json")


class HubError(ValueError):
    """Raised if the hub cannot give what was asked for; `bad_input` is true if the request has to change."""

    def __init__(self, message: str, bad_input: bool = True):
        super().__init__(message)
        self.bad_input = bad_input


def missing(splits: Sequence[str], models: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the splits, "data/split", and models, "hub:owner/name", that the mirror lacks. Files are verified when they are read."""
    return [s for s in splits if not mirror.split_path(s).is_file()], [m for m in models if not mirror.has_model(m)]


def fetch_missing(splits: Sequence[str], models: Sequence[str], say: Say = lambda text: None) -> None:
    """Fetch the splits and models that the mirror lacks, before anything is computed. Raises MirrorError, HubError.

    With HF_HUB_OFFLINE set nothing is tried, and the error says how to get what is missing.
    """
    missing_splits, missing_models = missing(splits, models)
    if not missing_splits and not missing_models:
        return
    from huggingface_hub import is_offline_mode

    offline = is_offline_mode()
    for split in missing_splits:
        if offline or DATA[split.split("/")[0]].hub is None:
            mirror.split_file(split)  # raises MirrorError
    if offline:
        mirror.model_folder(missing_models[0])  # raises MirrorError
    fetch(splits, models, say)


def fetch(
    splits: Sequence[str], models: Sequence[str], say: Say = lambda text: None, revisions: dict[str, str] | None = None
) -> None:
    """Fetch every split and model that the mirror lacks and verify the others. Raises MirrorError, HubError.

    `revisions` maps "owner/name" to a commit; the default is the manifest's, else the newest.
    """
    revisions, repositories = revisions or {}, [name.removeprefix(paths.HUB) for name in models]
    known = {DATA[split.split("/")[0]].hub for split in splits} | set(repositories)
    if unknown := sorted(set(revisions) - known):
        raise HubError(f"--revision {unknown[0]}: the study names no such repository, but {', '.join(sorted(filter(None, known)))}")
    for data in dict.fromkeys(split.split("/")[0] for split in splits):
        parts = [split.split("/")[1] for split in splits if split.startswith(f"{data}/")]
        _fetch_data(data, parts, revisions.get(DATA[data].hub), say)
    for repository in repositories:
        _fetch_model(repository, revisions.get(repository), say)


def _fetch_data(name: str, splits: Iterable[str], revision: str | None, say: Say) -> None:
    """Write the splits of one data set that the mirror lacks, each with its entry in the manifest."""
    data, folder = DATA[name], paths.DATA / name
    todo = [split for split in splits if not mirror.split_path(f"{name}/{split}").is_file()]
    for split in splits:
        if split not in todo or data.hub is None:
            mirror.split_file(f"{name}/{split}")  # raises if it was changed, or is missing and not on the hub
            say(f"{name}/{split}: already there")
    revision = _pinned_revision(mirror.manifest(folder), revision, folder)
    if not todo:
        return
    with _work_folder(folder) as work, _hub_errors(data.hub, revision):
        import datasets
        from huggingface_hub import HfApi

        info = HfApi().dataset_info(data.hub, revision=revision, files_metadata=True)
        builder = datasets.load_dataset_builder(data.hub, data.config, revision=info.sha, cache_dir=str(work / "layout"))
        files_of = builder.config.data_files or {}
        for split in todo:
            if mirror.split_path(f"{name}/{split}").is_file():  # another process fetched it meanwhile
                continue
            if not files_of.get(split):
                splits = ", ".join(files_of) or "none"
                raise HubError(f"{data.hub} ({data.config}) has no split {split!r} at {info.sha[:12]}; its splits are {splits}")
            files = [url.partition(f"@{info.sha}/")[2] for url in files_of[split]]
            if others := [file for file in files if not file.endswith(".parquet")]:
                raise HubError(f"{data.hub}: {split} is stored in {others[0]!r}; only Parquet tables are fetched")
            hashes = _download(data.hub, "dataset", info, files, work / "files")
            table = _texts_and_labels(datasets, [work / "files" / file for file in files], name, work)
            _write_split(table, name, split, info.sha, hashes)
            say(f"{name}/{split}: {len(table):,} rows, {data.hub} at {info.sha[:12]}")


def _texts_and_labels(datasets, files: list[Path], name: str, work: Path):
    """Return a split's texts and labels as a `datasets.Dataset`, without unlabelled rows (-1) unless all are."""
    data = DATA[name]
    table = datasets.load_dataset("parquet", data_files=[str(f) for f in files], split="train", cache_dir=str(work / "tables"))
    if absent := [column for column in data.columns if column not in table.column_names]:
        raise HubError(f"{data.hub}: no column {absent[0]!r}; its columns are {', '.join(table.column_names)}")
    table = table.select_columns(list(data.columns))
    if data.label is None:
        return table
    names = getattr(table.features[data.label], "names", None)
    if names is not None and tuple(names) != data.labels:
        raise HubError(
            f"{data.hub} ({data.config}): its classes are {', '.join(names)}, but {', '.join(data.labels)} were expected, in this "
            "order; the labels would be swapped, so it is refused: give an older commit with --revision"
        )
    labels = table.with_format("numpy")[data.label][:]
    if (labels < 0).all():  # a split without labels, such as GLUE's test
        return table
    return table.select((labels >= 0).nonzero()[0])


def _write_split(table: Any, name: str, split: str, sha: str, hashes: dict[str, str]) -> None:
    """Write one split and its entry in the manifest. Raises HubError if the manifest pins another text."""
    folder, data, file = paths.DATA / name, DATA[name], f"{split}.parquet"
    files = mirror.manifest(folder).get("files", {})
    with atomic_write(folder / file) as new:
        table.to_parquet(str(new))
        digest = content(new, data.columns)
        if (pinned := files.get(file, {}).get("content")) not in (None, digest):
            raise HubError(
                f"{name}/{split} at {sha[:12]} holds another text than the manifest pins ({digest[:12]}... for {pinned[:12]}...); to "
                f"accept it, remove {file} from {paths.scrub(str(folder / MANIFEST))}"
            )
        entry = mirror.file_record(new) | {"rows": len(table), "content": digest, "from": hashes}
    _write_manifest(folder, {"hub": data.hub, "config": data.config, "revision": sha, "files": files | {file: entry}})


def _fetch_model(name: str, revision: str | None, say: Say) -> None:
    """Write the folder of one model, or verify the one that is there."""
    folder, record = paths.MODELS / name, mirror.manifest(paths.MODELS / name)
    revision = _pinned_revision(record, revision, folder)
    if mirror.has_model(f"{paths.HUB}{name}"):
        mirror.model_folder(f"{paths.HUB}{name}")  # raises if it was changed
        say(f"{name}: already there")
        return
    with _work_folder(folder) as work, _hub_errors(name, revision):
        if mirror.has_model(f"{paths.HUB}{name}"):  # another process fetched it meanwhile
            return
        from huggingface_hub import HfApi

        info, new = HfApi().model_info(name, revision=revision, files_metadata=True), work / "files"
        in_repository = {s.rfilename for s in info.siblings}
        if CONFIG not in in_repository:
            raise HubError(f"{name}: no {CONFIG}; it is not a model's repository")
        _download(name, "model", info, [CONFIG], new)
        if "auto_map" in json.loads((new / CONFIG).read_text()):
            raise HubError(f"{name}: its {CONFIG} asks for code of its own (auto_map), which is never run; choose a plain BERT")
        if WEIGHTS not in in_repository:
            has_pickles = any(file.endswith(mirror.PICKLES) for file in in_repository)
            no_weights = f"{name}: no {WEIGHTS}; its files are {', '.join(sorted(in_repository))[:200]}"
            raise HubError(mirror.pickled_message(name) if has_pickles else no_weights)
        if not in_repository & set(mirror.VOCABULARIES):
            raise HubError(f"{name}: neither {' nor '.join(mirror.VOCABULARIES)}; a model needs its word pieces")
        names = [file for file in MODEL_FILES if file in in_repository]
        _download(name, "model", info, names, new)
        files = {file: mirror.file_record(new / file) for file in names}
        pinned = record.get("files", {})
        if others := [f for f in files if f in pinned and pinned[f]["sha256"] != files[f]["sha256"]]:
            raise HubError(f"{name}: {others[0]} is not the file that {MANIFEST} pins; to accept it, remove {MANIFEST}")
        _write_manifest(folder, {"hub": name, "revision": info.sha, "files": files})
        for file in sorted(names, key=lambda f: f == WEIGHTS):  # the weights last: a folder that holds them is complete
            (new / file).replace(folder / file)
        say(f"{name}: {sum(f['bytes'] for f in files.values()) / 1e6:,.1f} MB at {info.sha[:12]}")


def _download(name: str, kind: str, info: Any, files: list[str], to: Path) -> dict[str, str]:
    """Download files of the commit `info.sha` and return their sha256 by path.

    Raises HubError if one differs from the sha256 that the hub states; it states none for small files.
    """
    from huggingface_hub import snapshot_download

    snapshot_download(name, repo_type=kind, revision=info.sha, allow_patterns=files, local_dir=to)
    stated = {s.rfilename: s.lfs.sha256 for s in info.siblings if s.lfs is not None}
    hashes = {file: sha256(to / file) for file in files}
    for file, digest in hashes.items():
        if stated.get(file, digest) != digest:
            (to / file).unlink()
            raise HubError(
                f"{name}: {file} came with sha256 {digest[:12]}..., the hub states {stated[file][:12]}...; nothing was kept, run "
                "the same command again",
                bad_input=False,
            )
    return hashes


def _pinned_revision(record: dict[str, Any], revision: str | None, folder: Path) -> str | None:
    """Return the commit to take: `revision`, else the manifest's. Raises HubError if they differ."""
    pinned = record.get("revision")
    if revision and pinned and revision != pinned:
        raise HubError(
            f"--revision {revision}: {paths.scrub(str(folder))} holds commit {pinned}; remove the folder, or do without --revision"
        )
    return revision or pinned


def _write_manifest(folder: Path, record: dict[str, Any]) -> None:
    with atomic_write(folder / MANIFEST) as new:
        new.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder for downloads beside `folder`. After an error it stays, so that the next fetch continues with its files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        advice = "set PDSTUDY_DATA and PDSTUDY_MODELS to folders that can be written"
        raise HubError(f"{paths.scrub(str(folder))} cannot be written ({error.strerror}); {advice}") from None
    work = folder.with_name(f".fetching-{folder.name}")
    with FileLock(folder.with_name(f".{folder.name}.lock")):  # a second process waits until the files are there
        work.mkdir(exist_ok=True)
        yield work
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _hub_errors(name: str, revision: str | None) -> Iterator[None]:
    """Turn errors of the hub's libraries into a HubError of one sentence, and show their progress bars on a terminal only."""
    import datasets
    from huggingface_hub import constants, errors, is_offline_mode
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if is_offline_mode():
        raise HubError(f"{name} cannot be fetched: HF_HUB_OFFLINE is set; unset it, or run this on a machine with a network")
    # The library has changed its HTTP client, so the client's error class is looked up by name.
    http_error = next(c for c in errors.HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
    were_disabled = are_progress_bars_disabled()
    # `datasets` reports each load to another server, and waits for seconds if a firewall blocks that.
    counts_loads, datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, False
    datasets.disable_progress_bars()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except (HubError, MirrorError):  # ValueErrors with a message of ours
        raise
    except errors.RevisionNotFoundError:
        advice = "give another with --revision, or remove the manifest that pins it"
        raise HubError(f"the hub has no commit {revision} of {name}; {advice}") from None
    except errors.GatedRepoError:
        raise HubError(f"{name} requires accepting its terms; do so on its page and set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise HubError(f"the hub has no {name}, or you have no access; check its name, and set HF_TOKEN if it is private") from None
    except (http_error, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise HubError(
            f"the connection to {constants.ENDPOINT} broke while {name} was fetched ({_first_line(error, 120)}); run the same "
            "command again: complete files are not downloaded again",
            bad_input=False,
        ) from None
    except OSError as error:
        if is_disk_full(error):
            raise HubError(paths.scrub(full_disk_message(paths.DATA, error=error)), bad_input=False) from None
        raise HubError(f"{name}: {type(error).__name__}: {error}", bad_input=False) from None
    except (ValueError, RuntimeError) as error:  # of `datasets`: no such config, a script in place of tables
        raise HubError(f"{name}: {_first_line(error, 300)}") from None
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counts_loads
        if not were_disabled:
            enable_progress_bars()


def _first_line(error: Exception, length: int) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:length]
