"""Preparing under Ray Data: shards of samples on all cores of a machine or a cluster (``--engine ray``).

Every machine must see the dataset's folder, and images that aren't addresses, under the same paths. A cluster is found
by ``RAY_ADDRESS``; without it one starts on this machine for the time being. ``per_host`` and ``connections`` hold for
each worker, not for all together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutline.core.errors import CutlineError, DataError
from cutline.data import steps
from cutline.data.download.ledger import NAME as DOWNLOADS
from cutline.data.download.ledger import DownloadLedger
from cutline.data.prepare import shards
from cutline.data.prepare.shards import Shard
from cutline.data.prepare.work import Checked, Work
from cutline.data.problem import Problem
from cutline.data.step import OpenScorer

if TYPE_CHECKING:
    from cutline.data.prepare.duplicates import DuplicateImages
    from cutline.data.prepare.source_rows import ProblemLog, SourceRows

#: Samples in a shard: so much is handed out at a time.
SHARD = 500


def images(
    work: Work, source_rows: SourceRows, kept: Collection[int], log: ProblemLog, duplicates: DuplicateImages
) -> int:
    """Fetches, stores and checks the images on the cluster, and writes the rows of those that stay, in order.

    Returns:
        how many images were decoded.
    """
    downloads = "download" in work.settings.steps.chosen()
    if downloads:
        with DownloadLedger(work.folder / DOWNLOADS) as ledger:
            _absorb(ledger, work.folder)
            if work.retry_failed:
                ledger.retry_failed()
    parts = shards.divide(source_rows.samples(kept), SHARD, work.folder, work.settings, work.retry_failed)
    run(parts, work.counter(len(parts)), work.workspace.scorer)
    if downloads:
        with DownloadLedger(work.folder / DOWNLOADS) as ledger:
            _absorb(ledger, work.folder)
            work.counts["download"] = dict(ledger.counts())
    counts, decoded = shards.counts(parts)
    work.counts |= counts
    rest = work.settings.steps.only(shards.across())
    with steps.Chain(rest, "checked", work.workspace) as chain:
        work.write(_through(chain, shards.results(parts)), chain, log, duplicates)
    return decoded


def _through(chain: steps.Chain, results: Iterable[Checked | Problem]) -> Iterator[Checked | Problem]:
    """The shards' results after the steps that compare samples of different shards."""
    for result in results:
        if isinstance(result, Problem):
            yield result
            continue
        sample = chain(result.sample)
        yield sample if isinstance(sample, Problem) else replace(result, sample=sample)


def _absorb(ledger: DownloadLedger, folder: Path) -> None:
    """Moves what the shards' ledgers know into the dataset's, also what a killed job left there."""
    for path in sorted((folder / ".work/shards").glob(f"*/{DOWNLOADS}")):
        ledger.absorb(path)
        for part in path.parent.glob(f"{DOWNLOADS}*"):
            part.unlink()


def run(made: Sequence[Shard], step: Callable[[], None], scorer: OpenScorer | None = None) -> None:
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
    rows = ray.data.from_items([asdict(shard) for shard in todo], override_num_blocks=len(todo)).map(
        partial(_work, scorer=scorer)
    )
    for row in rows.iter_rows():
        if row["problem"]:
            raise DataError(row["problem"], row["remedy"])
        step()


def _work(row: dict[str, Any], scorer: OpenScorer | None = None) -> dict[str, str]:
    """One shard, in a worker; what stops the whole job comes back as words, since Ray would wrap an exception."""
    try:
        shards.work(Shard(**row), scorer)
    except CutlineError as error:
        return {"problem": error.problem, "remedy": error.remedy}
    return {"problem": "", "remedy": ""}


def _load() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise CutlineError(
            "--engine ray needs Ray, which is not installed.", "Install it: pip install 'cutline[ray]'."
        ) from error
    return ray
