"""The command of the hub: fetch."""

from typing import Annotated

import typer

from pdstudy.console import Params, app, fail, out
from pdstudy.storage import paths
from pdstudy.study.settings import Study


@app.command(epilog="Example: PDSTUDY_DATA=mirror/data PDSTUDY_MODELS=mirror/models python -m pdstudy fetch params/paper.yaml")
def fetch(
    params: Params,
    revision: Annotated[
        list[str] | None, typer.Option(help="OWNER/NAME=COMMIT: take this commit of a repository; may be given several times.")
    ] = None,
) -> None:
    """Bring the data sets and models that a study names into the mirror, for machines without a network. Goes on where it stopped."""
    from pdstudy.data import hub
    from pdstudy.data.mirror import MirrorError

    pairs = [text.partition("=") for text in revision or ()]
    if bad := next((text for text, (name, _, commit) in zip(revision or (), pairs, strict=True) if not (name and commit)), None):
        fail(f"--revision {bad}: expected OWNER/NAME=COMMIT", 2)
    try:
        hub.fetch(
            *Study.read(params).named_on_hub(),
            lambda text: out.print(text, markup=False, soft_wrap=True),
            {name: commit for name, _, commit in pairs},
        )
    except hub.HubError as error:
        fail(str(error), 2 if error.bad_input else 1)
    except MirrorError as error:
        fail(str(error), 2)
    out.print(
        f"data sets in {paths.scrub(str(paths.DATA))}, models in {paths.scrub(str(paths.MODELS))}", markup=False, soft_wrap=True
    )
