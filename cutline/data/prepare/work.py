"""What both engines of preparing do: check images, run the steps on samples, write the rows of those that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cutline.core import jsonl
from cutline.core.progress import Progress
from cutline.core.records import Sample
from cutline.data.image_store import ImageStore
from cutline.data.prepare.decode import ImageDecoder
from cutline.data.prepare.duplicates import DuplicateImages
from cutline.data.prepare.source_rows import ProblemLog
from cutline.data.prepare.table_rows import as_checked, source_name, table_row
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.step import OpenScorer, Workspace
from cutline.data.steps import Chain
from cutline.images.open import ImageFacts

#: What the work on images is done with.
Engine = Literal["threads", "ray"]


@dataclass(frozen=True, slots=True)
class Checked:
    """A sample whose image is stored, after the steps.

    Attributes:
        sample: as :func:`as_checked` and the steps leave it.
        facts: of its image.
        source: what the image is called in the source.
    """

    sample: Sample
    facts: ImageFacts
    source: str


def checked(
    decoder: ImageDecoder, chain: Chain, settings: DataSettings, samples: Iterable[Sample], step: Callable[[], None]
) -> Iterator[Checked | Problem]:
    """What becomes of each sample, in order: its image is decoded and stored, then the steps see it.

    Args:
        chain: the steps of the phase "checked".
        step: called once for each sample that is done.
    """
    for sample, outcome in decoder.decode(samples, step):
        if isinstance(outcome, Problem):
            yield replace(outcome, id=sample.id)
            continue
        source = source_name(sample.image, settings)
        result = chain(as_checked(sample, outcome, decoder.store.path(outcome), source))
        yield result if isinstance(result, Problem) else Checked(result, outcome, source)


class Work:
    """The dataset's folder, the settings, and the counts that the marker states.

    Attributes:
        scratch: folder of what is needed only while preparing.
        counts: step → what it did.
    """

    def __init__(
        self,
        settings: DataSettings,
        source: Path,
        folder: Path,
        progress: Progress | None = None,
        workers: int | None = None,
        retry_failed: bool = False,
        engine: Engine = "threads",
        scorer: OpenScorer | None = None,
    ):
        """For the arguments see :func:`cutline.data.prepare.prepare.prepare`."""
        self.engine = engine
        self.settings, self.source, self.folder = settings, source, folder
        self.progress, self.workers, self.retry_failed = progress, workers, retry_failed
        self.scratch = folder / ".work"
        chosen = settings.steps.chosen()
        self.store = ImageStore(folder, settings.max_pixels, chosen.get("resize"), notes="context" in chosen)
        self.workspace = Workspace(folder, self.store, scorer)
        self.counts: dict[str, dict[str, Any]] = {}

    @property
    def accepted(self) -> Path:
        """Rows of the table, before the last steps."""
        return self.scratch / "accepted.jsonl"

    def write(
        self, results: Iterable[Checked | Problem], chain: Chain, log: ProblemLog, duplicates: DuplicateImages
    ) -> None:
        """Writes the rows of the samples that stay; lists the others in the log, and notes what the steps did."""
        self.accepted.unlink(missing_ok=True)
        with jsonl.Appender(self.accepted) as out:
            for result in results:
                if isinstance(result, Problem):
                    log.add(result)
                    continue
                duplicates.add(result.sample, result.facts)
                out.write([table_row(result.sample, result.facts, result.source)])
        self.note(chain, duplicates)

    def note(self, chain: Chain, duplicates: DuplicateImages | None = None) -> None:
        """Notes what steps did. Samples that a step found to be alike go to ``duplicates``."""
        self.counts |= {name: dict(counts) for name, counts in chain.counts.items()}
        for name, facts in chain.facts():
            self.counts[name] |= facts
        if duplicates is not None:
            for _, step in chain.steps:
                duplicates.join(getattr(step, "joins", ()))

    def counter(self, total: int) -> Callable[[], None]:
        """A function to call once for each of ``total`` things that are done."""
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if self.progress:
                self.progress(done, total)

        return step
