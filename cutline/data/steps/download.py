"""Downloading images: many at a time, politely, and with a ledger that remembers the result for each URL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from cutline.core.records import Sample
from cutline.data.download.settings import DownloadSettings
from cutline.data.problem import FETCHING, Problem
from cutline.data.step import Drop, Step, Workspace

if TYPE_CHECKING:
    from cutline.data.download.downloader import Downloader

DESCRIPTION = "addresses of images → images"
PHASE: Literal["images"] = "images"
ORDER = 10
REASONS = FETCHING
SETTINGS = DownloadSettings


def open(settings: DownloadSettings, workspace: Workspace) -> Step:
    """The step by itself: one sample at a time. Preparing gives ``Downloader`` all of them at once."""
    from cutline.data.download.downloader import Downloader

    return One(Downloader(settings, workspace.store))


class One:
    """A sample with an address → the same with the path of its image."""

    def __init__(self, downloader: Downloader):
        self.downloader = downloader

    def __call__(self, sample: Sample) -> Sample | Drop:
        self.downloader.run([sample])
        found, facts = self.downloader.find(sample)
        if isinstance(facts, Problem):
            return Drop(facts.reason, facts.detail)
        return replace(found, image=str(self.downloader.store.path(facts)))

    def close(self) -> None:
        self.downloader.close()
