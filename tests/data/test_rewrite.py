"""Addresses become those of the best rendition, by rules that are data."""

from __future__ import annotations

import json

import pytest

from cutline.core import config as recipe
from cutline.core.errors import RecipeError
from cutline.core.records import Sample
from cutline.data.prepare.manifest import manifest
from cutline.data.settings import DataSettings
from cutline.data.steps import rewrite
from tests.data.making import table

BEST = "https://static01.nyt.com/images/2012/01/01/arts/design/x-y/x-y-superJumbo{}.jpg"


@pytest.mark.parametrize(
    ("address", "version"),
    [
        ("http://static01.nyt.com/images/2012/01/01/arts/design/x-y/x-y-articleLarge.jpg", ""),
        ("https://static01.nyt.com/images/2012/01/01/arts/design/x-y/x-y-superJumbo.jpg?quality=75&auto=webp", ""),
        ("http://graphics8.nytimes.com/images/2012/01/01/arts/design/x-y/x-y-thumbStandard-v2.jpg", "-v2"),
        ("https://static01.nyt.com/images/2012/01/01/arts/design/x-y/x-y-facebookJumbo-v13.jpg#top", "-v13"),
        ("https://static01.nyt.com/images/2012/01/01/arts/design/x-y/x-y-master1050.jpg", ""),
        ("https://static01.nyt.com/images/2012/01/01/arts/design/x-y/x-y-popup.jpg", ""),
        ("https://static01.nyt.com/images/2012/01/01/arts/design/x-y/x-y-videoSixteenByNineJumbo1600.jpg", ""),
        ("https://static01.nyt.com/images/2012/01/01/arts/design/x-y/x-y-mobileMasterAt3x.jpg", ""),
        ("https://static01.nytimes.com/images/2012/01/01/arts/design/x-y/x-y-jumbo.jpg", ""),
        ("HTTP://Static01.NYT.com:80//images/2012/01/01/arts/design/x-y/x-y-wide.jpg", ""),
        ("https://www.nytimes.com/images/2012/01/01/arts/design/x-y/x-y-threeByTwoSmallAt2X-v2-v3.jpg", "-v2-v3"),
        ("https://cdn1.nyt.com/images/2012/01/01/arts/design/x-y/x-y-watch308.jpg", ""),
    ],
)
def test_the_times(address: str, version: str) -> None:
    assert rewrite.open(rewrite.RewriteSettings()).address(address) == BEST.format(version)


@pytest.mark.parametrize(
    ("address", "best"),
    [
        (
            "https://upload.wikimedia.org/wikipedia/commons/thumb/a/a9/Example.jpg/220px-Example.jpg",
            "https://upload.wikimedia.org/wikipedia/commons/a/a9/Example.jpg",
        ),
        (
            "https://x.org/wp-content/uploads/2020/01/a-b-1024x768.jpg?ssl=1",
            "https://x.org/wp-content/uploads/2020/01/a-b.jpg",
        ),
        (
            "https://live.staticflickr.com/65535/51234567890_abcdef0123_m.jpg",
            "https://live.staticflickr.com/65535/51234567890_abcdef0123_b.jpg",
        ),
        ("https://example.org/images/a-articleLarge.jpg", "https://example.org/images/a-articleLarge.jpg"),
        ("https://static01.nyt.com/images/2012/01/01/us/x-y.jpg", "https://static01.nyt.com/images/2012/01/01/us/x-y.jpg"),
        ("https://static01.nyt.com/images/jumbo-deBlasio.JPG", "https://static01.nyt.com/images/jumbo-deBlasio.JPG"),
        ("https://static01.nyt.com/images/an-iPhone.jpg", "https://static01.nyt.com/images/an-iPhone.jpg"),
        ("https://static01.nyt.com/images/A-popup.JPG", "https://static01.nyt.com/images/A-superJumbo.JPG"),
        ("https://static01.nyt.com.x.org/images/A-popup.jpg", "https://static01.nyt.com.x.org/images/A-popup.jpg"),
    ],
)  # fmt: skip
def test_other_sites_and_what_is_left_alone(address: str, best: str) -> None:
    assert rewrite.open(rewrite.RewriteSettings()).address(address) == best


def test_the_real_addresses(shared) -> None:
    step = rewrite.open(rewrite.RewriteSettings())
    for line in (shared / "news/nyt_urls.jsonl").read_text().splitlines():
        row = json.loads(line)
        head = row["image_url"].partition("?")[0].replace("http://", "https://")
        assert step.address(row["image_url"]) == head.replace(row["variant"].partition("-v")[0], "superJumbo")


def test_own_rules_come_first_and_the_original_is_kept() -> None:
    rule = {"match": r"https://cdn\.example\.org/(\d+)_s\.jpg", "replace": r"https://cdn.example.org/\1_l.jpg"}
    step = rewrite.open(rewrite.RewriteSettings.model_validate({"own": {"cdn": rule}}))
    address = "https://cdn.example.org/7_s.jpg"
    assert step(Sample(id="a", image=address)) == Sample(
        id="a", image="https://cdn.example.org/7_l.jpg", extra={"original_address": address}
    )
    file = Sample(id="b", image="/photos/7_s.jpg")
    assert step(file) is file


def test_wrong_rules_are_refused_with_their_reason() -> None:
    def parse(**settings: object) -> None:
        recipe.parse({"steps": {"rewrite": settings}}, DataSettings)

    with pytest.raises(RecipeError, match=r"no rule 'nyy'.*known: nyt"):
        parse(rules=["nyy"])
    with pytest.raises(RecipeError, match="don't go together"):
        parse(own={"x": {"match": "(", "replace": ""}})
    with pytest.raises(RecipeError, match="don't go together"):
        parse(own={"x": {"match": "a", "replace": r"\g<nobody>"}})
    with pytest.raises(RecipeError, match=r"Did you mean steps\.rewrite\.rules"):
        parse(rule=["nyt"])
    with pytest.raises(RecipeError, match=r"Did you mean steps\.rewrite\?"):
        recipe.parse({"steps": {"rewrit": {}}}, DataSettings)


def test_alone_it_writes_a_table_that_is_a_source(tmp_path) -> None:
    source = table(tmp_path / "s", [f"{BEST.format('').replace('superJumbo', 'jumbo')},a caption,train"])
    settings = DataSettings.model_validate({"source": str(source), "steps": {"rewrite": {}}})
    assert manifest(settings, tmp_path / "manifest.jsonl") == {"rewrite": {"passed": 1}}
    row = json.loads((tmp_path / "manifest.jsonl").read_text())
    assert row["image"] == BEST.format("")
    assert row["original_address"].endswith("-jumbo.jpg")
    again = settings.model_copy(update={"source": str(tmp_path / "manifest.jsonl")})
    assert manifest(again, tmp_path / "again.jsonl") == {"rewrite": {"passed": 1}}
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "manifest.jsonl").read_text()


def test_with_context_it_needs_no_images(tmp_path) -> None:
    """The dates and sections of addresses that nobody fetched, whether they were rewritten or not."""
    rows = [
        "HTTPS://static01.nyt.com/images/2021/08/29/world/29afghan/29afghan-superJumbo.jpg,One.,train",
        "http://static01.nyt.com/images/2013/06/06/garden/06ROOMS_SPAN/06CURR3-popup.jpg?x=1,Two.,train",
    ]
    source = table(tmp_path / "s", rows)
    steps = {"rewrite": {}, "download": {}, "context": {"model": ""}, "filter": {}}
    settings = DataSettings.model_validate({"source": str(source), "steps": steps})
    assert manifest(settings, tmp_path / "manifest.jsonl") == {"rewrite": {"passed": 2}, "context": {"passed": 2}}
    found = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [row["context"] for row in found] == ["[world | 2021-08-29]", "[garden | 2013-06-06]"]
    assert [row["context_sources"]["date"]["source"] for row in found] == ["image address"] * 2
