"""Preparing under Ray Data: shards of samples on all cores of a machine or a cluster (``--engine ray``).

Every machine must see the dataset's folder, and images that aren't addresses, under the same paths. A cluster is found
by ``RAY_ADDRESS``; without it one starts on this machine for the time being. ``per_host`` and ``connections`` hold for
each worker, not for all together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutline.core import jsonl
from cutline.core.errors import CutlineError, DataError
from cutline.data import dataset, steps
from cutline.data.download.ledger import NAME as DOWNLOADS
from cutline.data.download.ledger import Downloads
from cutline.data.prepare import shards
from cutline.data.prepare.shards import Shard, work
from cutline.data.problem import Problem

if TYPE_CHECKING:
    from cutline.data.prepare.duplicates import Pictures
    from cutline.data.prepare.prepare import Preparation
    from cutline.data.prepare.source_rows import Losses, Spool

#: Samples in a shard: so much is handed out at a time.
SHARD = 500


def images(of: Preparation, spool: Spool, places: Collection[int], losses: Losses, pictures: Pictures) -> int:
    """As ``Preparation`` does it in threads: brings, stores and judges the images, and writes the rows of those that
    stay, in the source's order. Returns how many were decoded."""
    downloads = "download" in of.settings.steps.chosen()
    if downloads:
        with Downloads(of.folder / DOWNLOADS) as ledger:
            _absorb(ledger, of.folder)
            if of.retry_failed:
                ledger.retry_failed()
    made = shards.divide(spool.samples(places), SHARD, of.folder, of.settings, of.retry_failed)
    run(made, of.counter(len(made)))
    if downloads:
        with Downloads(of.folder / DOWNLOADS) as ledger:
            _absorb(ledger, of.folder)
            of.told["download"] = dict(ledger.counts())
    told, decoded = shards.counts(made)
    of.told |= told
    accepted = of.work / "accepted.jsonl"
    accepted.unlink(missing_ok=True)
    with ExitStack() as stack:
        out = stack.enter_context(jsonl.Appender(accepted))
        rest = of.settings.steps.only(shards.across())
        chain = stack.enter_context(steps.Chain(rest, "checked", of.place))
        for found in shards.results(made):
            result = found if isinstance(found, Problem) else chain(found[0])
            if isinstance(result, Problem):
                losses.add(result)
                continue
            assert not isinstance(found, Problem)
            pictures.add(result, found[1])
            out.write([dataset.table_row(result, *found[1:])])
        of.tell(chain, pictures)
    return decoded


def _absorb(ledger: Downloads, folder: Path) -> None:
    """Moves what the shards' ledgers know into the dataset's, also what a killed job left there."""
    for path in sorted((folder / ".work/shards").glob(f"*/{DOWNLOADS}")):
        ledger.absorb(path)
        for part in path.parent.glob(f"{DOWNLOADS}*"):
            part.unlink()


def run(made: Sequence[Shard], step: Callable[[], None]) -> None:
    """Works on all shards; those that are finished are left alone.

    Args:
        step: called once for each shard that is done.

    Raises:
        CutlineError: Ray isn't installed.
        DataError: what a shard's work raised.
    """
    ray = _load()
    todo = [shard for shard in made if not shard.finished]
    for _ in range(len(made) - len(todo)):
        step()
    if not todo:
        return
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items([asdict(shard) for shard in todo], override_num_blocks=len(todo)).map(_work)
    for row in rows.iter_rows():
        if row["problem"]:
            raise DataError(row["problem"], row["remedy"])
        step()


def _work(row: dict[str, Any]) -> dict[str, str]:
    """One shard, in a worker; what stops the whole job comes back as words, since Ray would wrap an exception."""
    try:
        work(Shard(**row))
    except CutlineError as error:
        return {"problem": error.problem, "remedy": error.remedy}
    return {"problem": "", "remedy": ""}


def _load() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise CutlineError(
            "--engine ray needs Ray, which is not installed.", "pip install 'cutline[ray]' brings it."
        ) from error
    return ray
