"""Context: from article, addresses and notes; never from the caption, unless that is said aloud."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from cutline.core import config as recipe
from cutline.core.errors import CutlineError, RecipeError
from cutline.core.records import Sample
from cutline.data.context.caption_removal import without_captions
from cutline.data.context.dates import date_in, date_of
from cutline.data.context.named_entities import Named, listed_events, ranked
from cutline.data.context.news_urls import NewsAddress, parse
from cutline.data.dataset import Dataset
from cutline.data.settings import DataSettings
from cutline.data.steps import context
from cutline.images.metadata import photo_notes
from tests.data.bad_images import encode, marker
from tests.data.making import pictures, run


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A pipeline that recognises a few names by rules, where a real one is trained."""
    import spacy

    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    names = {
        "PERSON": ["Joe Biden", "Biden", "Jill Biden", "Ann Lee", "Kabul Khan"],
        "GPE": ["Kabul", "Dover", "Lake Orion"], "ORG": ["Pentagon"], "EVENT": ["Kabul airlift"],
    }  # fmt: skip
    ruler.add_patterns([{"label": label, "pattern": text} for label, texts in names.items() for text in texts])
    folder: Path = tmp_path_factory.mktemp("model")
    nlp.to_disk(folder)
    return str(folder)


ARTICLE = (
    "DOVER — President Joe Biden met the families in Dover. Jill Biden came with him; Mr. Biden said little. "
    "The Pentagon named the dead of the Kabul airlift. Dover was quiet on Aug. 29, 2021, weeks before the G-20 summit."
)


def sample(**extra: object) -> Sample:
    return Sample(id="a", image="a.jpg", captions=("Ann Lee in Lake Orion.",), extra=extra)


def line(settings: context.ContextSettings, one: Sample) -> str:
    step = context.open(settings)
    try:
        return step(one).context.get("context", "")
    finally:
        step.close()


def test_fields_and_their_sources(model: str) -> None:
    step = context.open(context.ContextSettings(model=model))
    found = step(
        sample(
            headline="A quiet day", article=ARTICLE, article_url="https://www.nytimes.com/2021/08/30/world/slug.html",
            source="https://static01.nyt.com/images/2021/08/29/multimedia/x/x-superJumbo.jpg",
        )
    )  # fmt: skip
    assert found.context["context"] == (
        "[world | Dover | 2021-08-29 | PERSON=Joe Biden | PERSON=Jill Biden | EVENT=Kabul airlift]"
    )
    sources = {name: one["source"] for name, one in found.extra["context_sources"].items()}
    assert sources == {
        "section": "article address", "date": "image address", "location": "article", "person": "article",
        "org": "article", "event": "article",
    }  # fmt: skip
    assert step.facts() == {"oracle": 0, "fields": dict.fromkeys(sources, 1)}
    step.close()


def test_dates_come_from_addresses_then_notes_then_texts(model: str) -> None:
    settings = context.ContextSettings(model="", template="{date}")
    address = "https://www.nytimes.com/2021/08/30/world/slug.html"
    notes = {"date": "2020-01-02", "city": "Paris", "country": "France"}
    assert line(settings, sample(url=address, photo_notes=notes, article=ARTICLE)) == "2021-08-30"
    assert line(settings, sample(photo_notes=notes, article=ARTICLE)) == "2020-01-02"
    assert line(settings, sample(article=ARTICLE)) == "2021-08-29"
    assert line(settings, sample(article="Nothing.")) == ""
    place = context.ContextSettings(model=model, template="{location}")
    assert line(place, sample(photo_notes=notes, article=ARTICLE)) == "Paris, France"
    dated = {"pub_date": "2021-08-30T12:00:00Z", "article": "On May 5, 2012."}
    assert line(settings, sample(photo_notes=notes, **dated)) == "2020-01-02"
    assert line(settings, sample(**dated)) == "2021-08-30"
    assert line(settings, sample(**dated | {"pub_date": "soon"})) == "2012-05-05"


@pytest.mark.parametrize(
    "text",
    ["2021-08-29", "at 2021-08-29T12:33:00Z", "2021/8/29", "2021.08.29", "29.08.2021", "29.8.2021.", "8/29/2021",
     "29/8/2021", "Aug. 29, 2021", "AUG. 29, 2021", "August 29 2021", "aug 29,2021", "Sunday, August 29th, 2021",
     "Aug. 29 , 2021", "29 August 2021", "29. August 2021", "the 29th of August, 2021", "29-Aug-2021",
     "in May 2020 and on Aug. 29, 2021",
     "2021-02-31, or rather 2021-08-29", "on 8/9/2021, or 8/29/2021"],
)  # fmt: skip
def test_dates_in_many_hands(text: str) -> None:
    assert date_in(text) == "2021-08-29"


@pytest.mark.parametrize(
    "text",
    ["May 99, 2000", "1 of 2", "Feb. 30, 2020", "Feb 29, 2021", "2021-13-01", "2021-02-31", "August 2021", "8/9/2021",
     "Marching 12 2020", "Marcus 3, 2011", "Mayor 12, 2020", "0000-00-00", "12021-08-29", "May 5, 20201", "5.1.2.2021"],
)  # fmt: skip
def test_what_is_no_whole_date(text: str) -> None:
    assert date_in(text) == ""


def test_dates_of_metadata() -> None:
    day = datetime.datetime(2021, 8, 29, 23, 59)
    values = [
        "20210829", "20210829T120000", 1630281540, 1630281540000, "1630281540", {"$date": 1630281540000},
        {"$date": {"$numberLong": "1630281540000"}}, {"$date": "2021-08-29T23:59:00Z"}, day,
        day.date(), day.isoformat(),
    ]  # fmt: skip
    assert [date_of(value) for value in values] == ["2021-08-29"] * len(values)
    undated: list[Any] = [None, True, "", "soon", 7, {}, "20211345", []]
    assert [date_of(value) for value in undated] == [""] * 8


def test_the_caption_is_no_source_unless_that_is_said(model: str) -> None:
    def parsed(**settings: object) -> context.ContextSettings:
        return recipe.parse(settings, context.ContextSettings)

    for name in ("caption", "captions", "caption_1", "Caption", "caption 2"):
        with pytest.raises(RecipeError, match="only oracle = true"):
            parsed(texts=[name])
        with pytest.raises(RecipeError, match=r"only oracle = true .*only in texts"):
            parsed(dates=[name], oracle=True)
    step = context.open(parsed(model=model, texts=["caption"], oracle=True))
    found = step(sample())
    assert found.context["context"] == "[Lake Orion | PERSON=Ann Lee]"
    assert {one["source"] for one in found.extra["context_sources"].values()} == {"oracle (caption)"}
    assert step.facts()["oracle"] == 1
    step.close()


@pytest.mark.parametrize(
    "text",
    ["Ann Lee in  Lake Orion.", "Ann Lee IN LAKE ORION", "Caption: Ann Lee in Lake Orion",
     "Ann Lee in Lake&nbsp;Orion (photo)", "<p><b>Ann&#32;Lee</b> in Lake Orion.</p>",
     "Joe said so. Ann Lee in Lake Orion. He went.", "\u201cAnn Lee\u201d in Lake Orion"],
)  # fmt: skip
def test_a_column_that_repeats_the_caption_gives_nothing_away(text: str, model: str) -> None:
    settings = context.ContextSettings(model=model, template="{person} | {location}")
    assert line(settings, sample(headline=text)) == ""
    assert line(settings, sample(headline=text, article="Kabul Khan spoke.")) == "Kabul Khan"
    assert (
        line(context.ContextSettings(model=model, template="{person}", oracle=True), sample(headline=text)) == "Ann Lee"
    )
    oracle = context.open(context.ContextSettings(model=model, oracle=True))
    assert context.is_oracle(oracle(sample(headline=text)))
    oracle.close()


def test_captions_are_cut_out_of_texts() -> None:
    caption = "Mr. Biden met the families of the dead."
    assert without_captions("Mr Biden met the families", [caption]) == ""  # a piece of it
    assert without_captions("The families", [caption]) == "The families"
    assert without_captions("Dover. Mr. Biden met the families of the dead. It rained.", [caption]).split() == [
        "Dover.", ".", "It", "rained.",
    ]  # fmt: skip
    assert without_captions("Snowfall", ["snow"]) == "Snowfall"
    assert without_captions("Snow!", ["snow"]) == ""
    assert without_captions("AT&amp;T <i>fell</i>", ["", "…"]).split() == ["AT&T", "fell"]


def test_sections_from_addresses_then_columns_and_vague_ones_last() -> None:
    settings = context.ContextSettings(model="", template="{section}")
    vague = "https://static01.nyt.com/images/2024/02/08/multimedia/ND-1-zgvf/ND-1-zgvf-superJumbo.jpg"
    assert line(settings, sample(source=vague)) == "multimedia"
    assert line(settings, sample(source=vague, section="Food")) == "Food"
    assert line(settings, sample(source=vague, section="Food", url="https://x.org/2024/02/08/us/y.html")) == "us"


def test_rendering_leaves_out_what_is_absent_and_keeps_the_budget() -> None:
    template = context.ContextSettings().template
    values = {"section": ["us"], "person": ["Ann Lee", "Bo"], "event": ["World Cup"]}
    whole = "[us | PERSON=Ann Lee | PERSON=Bo | EVENT=World Cup]"
    assert context.render(template, values, 100) == whole
    assert context.render(template, values, context.tokens(whole)) == whole
    assert context.render(template, values, context.tokens(whole) - 1) == "[us | PERSON=Ann Lee | PERSON=Bo]"
    assert context.render(template, values, 1) == ""
    assert context.render(template, {}, 100) == ""
    assert context.render("{person} ({location}) | at {date}", {"person": ["A"], "date": ["2020"]}, 99) == "at 2020"
    with pytest.raises(RecipeError, match="is no field"):
        recipe.parse({"template": "[{place}]"}, context.ContextSettings)


def test_the_budget_is_counted_by_the_tokenizer_that_is_named(tmp_path: Path) -> None:
    letters = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")  # a token a letter
    letters.save(str(tmp_path / "tokenizer.json"))
    sample = Sample(id="1", image="", extra={"headline": "The Olympics open on 27 July 2012"})
    whole = "[2012-07-27 | EVENT=Olympics]"

    def line(**how: object) -> str | None:
        settings = context.ContextSettings.model_validate({"model": "", "texts": ["headline"]} | how)
        return context.open(settings)(sample).context.get("context")

    assert line(max_tokens=len(whole) - 1) == whole  # as estimated
    assert line(max_tokens=len(whole), tokenizer=str(tmp_path)) == whole
    assert line(max_tokens=len(whole) - 1, tokenizer=str(tmp_path)) == "[2012-07-27]"
    assert line(max_tokens=11, tokenizer=str(tmp_path)) is None
    with pytest.raises(RecipeError, match=r"tokenizer = .* can't be opened"):
        line(tokenizer=str(tmp_path / "absent"))


def test_mixed_up_labels_are_settled() -> None:
    named = [
        Named("Kabul", "location", 0), Named("Kabul", "person", 9), Named("Kabul", "location", 20),
        Named("Federal Courthouse", "person", 30), Named("Mr. Biden", "person", 40), Named("Joe Biden", "person", 50),
        Named("Biden", "location", 60), Named("Dover’s", "location", 70),
    ]  # fmt: skip
    assert ranked(named) == {"location": ["Kabul", "Dover"], "org": ["Federal Courthouse"], "person": ["Joe Biden"]}


def test_events_of_the_list() -> None:
    text = "The 2016 Summer Olympics in Rio, the World Cup, the G-7 summit, the U.S. Open, Hurricane Sandy."
    assert [event.text for event in listed_events(text)] == [
        "2016 Summer Olympics in Rio", "World Cup", "G-7 summit", "U.S. Open", "Hurricane Sandy",
    ]  # fmt: skip
    text = "A 2016 presidential election, the Asian Games, the Beijing Olympics, an APEC summit, the Easter egg hunt."
    assert [event.text for event in listed_events(text)] == [
        "2016 presidential election", "Asian Games", "Beijing Olympics", "APEC summit",
    ]  # fmt: skip
    assert listed_events("He opened the summit of a mountain in the open.") == []


@pytest.mark.parametrize(
    ("address", "section", "date"),
    [
        ("https://www.nytimes.com/2012/01/01/us/politics/slug.html", "us/politics", "2012-01-01"),
        ("https://static01.nyt.com/images/2015/02/19/arts/asia/s/s-jumbo.jpg", "arts/asia", "2015-02-19"),
        ("http://graphics8.nytimes.com/images/2011/09/27/sports/golf/27a/27a-popup.jpg", "sports/golf", "2011-09-27"),
        ("https://static01.nyt.com/images/2012/01/01/arts/design/a.jpg", "arts/design", "2012-01-01"),
        ("https://static01.nyt.com/images/2012/01/01/us/a.jpg?quality=75", "us", "2012-01-01"),
        ("https://www.theguardian.com/world/2021/aug/30/slug", "world", "2021-08-30"),
        ("https://www.nytimes.com/interactive/2021/03/05/us/x.html", "us", "2021-03-05"),
        ("https://www.nytimes.com/1865/04/15/archives/slug.html", "archives", "1865-04-15"),
        ("https://www.nytimes.com/es/2016/05/10/slug/", "", "2016-05-10"),
        ("https://www.cnn.com/2021/08/30/world/slug-here/index.html", "world", "2021-08-30"),
        ("https://www.theguardian.com/us-news/live/2021/aug/30/slug", "us-news", "2021-08-30"),
        ("https://www.washingtonpost.com/sports/2021/08/30/a-slug/", "sports", "2021-08-30"),
        ("https://x.org/world-news/what-he-said-and-why/2021/08/30/1.html", "world-news", "2021-08-30"),
        ("http://nyt.com/images/2015/03/08/fashion/weddings/V/08V-popup.jpg", "fashion/weddings", "2015-03-08"),
        ("http://nyt.com/images/2013/01/20/sports/ncaafootball/20foo-popup.jpg", "sports/ncaafootball", "2013-01-20"),
        ("https://static01.nyt.com/images/2015/03/08/08VOWS/08VOWS-articleLarge.jpg", "", "2015-03-08"),
        ("https://static01.nyt.com/images/2015/02/31/us/x/x-articleLarge.jpg", "", ""),
        ("https://static01.nyt.com/images/2012/02/29/us/x/x-articleLarge.jpg", "us", "2012-02-29"),
        ("https://www.nytimes.com/2015/03/world/slug.html", "", ""),
        ("https://example.org/2012/13/01/us/a.html", "", ""),
        ("https://example.org/photos/1.jpg", "", ""),
        ("http://[broken", "", ""),
    ],
)  # fmt: skip
def test_addresses(address: str, section: str, date: str) -> None:
    assert parse(address) == NewsAddress(section, date)


def test_the_real_addresses(shared: Path) -> None:
    for row in map(json.loads, (shared / "news/nyt_urls.jsonl").read_text().splitlines()):
        assert parse(row["image_url"]) == NewsAddress(row["image_section"], row["image_date"])
        if "article_section" in row:
            assert parse(row["article_url"]).section == row["article_section"]


def iptc(**fields: bytes) -> bytes:
    """A JPEG with IPTC fields by number, as newsrooms' programs write them."""
    body = b""
    for name, text in fields.items():
        body += bytes([0x1C, 2, int(name[1:])]) + len(text).to_bytes(2, "big") + text
    resource = b"8BIM\x04\x04\0\0" + len(body).to_bytes(4, "big") + body + b"\0" * (len(body) % 2)
    block = b"Photoshop 3.0\0" + resource
    plain = encode(marker(), "JPEG")
    return plain[:2] + b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block + plain[2:]


def test_notes_of_a_photograph() -> None:
    noted = iptc(_55=b"20210829", _90=b"Dover", _101="Köln".encode(), _120=b"The caption itself", _105=b"A headline")
    assert photo_notes(noted) == {"date": "2021-08-29", "city": "Dover", "country": "Köln"}
    exif = Image.Exif()
    exif[0x0132] = "2020:05:06 07:08:09"
    file = io.BytesIO()
    marker().save(file, "JPEG", exif=exif.tobytes())
    assert photo_notes(file.getvalue()) == {"date": "2020-05-06"}
    assert photo_notes(encode(marker(), "PNG")) == {}
    assert photo_notes(b"no image") == {}


def test_without_a_model_a_word_how_to_get_it() -> None:
    with pytest.raises(CutlineError, match="python -m spacy download en_core_web_none"):
        context.open(context.ContextSettings(model="en_core_web_none"))


def test_in_a_dataset_and_remembered(tmp_path: Path, model: str, monkeypatch) -> None:
    pictures(tmp_path / "s", 1)
    (tmp_path / "s/images/a.jpg").write_bytes(iptc(_90=b"Dover"))
    rows = [{"image": "0.png", "caption": "x", "article": ARTICLE}, {"image": "a.jpg", "caption": "y", "article": "-"}]
    source = tmp_path / "s/rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = {"context": {"model": model}, "resize": {"size_px": 16}}
    report = run(source, tmp_path / "out", steps=steps)
    assert report.steps["context"]["fields"]["location"] == 2
    found = {sample.captions[0]: sample for sample in Dataset.open(tmp_path / "out")}
    assert found["x"].context["context"].startswith("[Dover | 2021-08-29 | PERSON=Joe Biden")
    assert found["y"].context == {"context": "[Dover]"}  # read before resizing took the notes away

    import spacy.language

    def never(*args: object) -> None:
        raise AssertionError("recognised again")

    monkeypatch.setattr(spacy.language.Language, "__call__", never)
    again = run(source, tmp_path / "out", steps=steps | {"context": {"model": model, "persons": 1}})
    assert again.steps["context"]["passed"] == 2


def test_settings_are_part_of_a_recipe() -> None:
    settings = recipe.parse({"steps": {"context": {}}}, DataSettings)
    assert list(settings.steps.chosen("checked")) == ["context"]
