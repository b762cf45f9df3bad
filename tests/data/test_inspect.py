"""Inspecting: what spoils a training is found, counted, and said with the worst first."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from cutline.cli.main import main
from cutline.core.records import Sample
from cutline.data.dataset import Dataset
from cutline.data.inspect.contexts import Contexts, names_in
from cutline.data.inspect.findings import findings
from cutline.data.inspect.inspection import Inspection, inspect_dataset, inspect_source
from cutline.data.settings import DataSettings
from tests.conftest import drawing
from tests.data.making import run, table


def source(folder: Path, rows: list[tuple[int | str, str, str, str]]) -> Path:
    """Rows of picture (a number, or text that is no picture), caption, split, headline."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for place, (number, caption, split, headline) in enumerate(rows):
        file = folder / "images" / f"{place}.png"
        if isinstance(number, int):
            drawing(number, (48, 40)).save(file)
        else:
            file.write_text(number)
        lines.append(f'{place}.png,"{caption}",{split},"{headline}"')
    return table(folder, lines, header="image,caption,split,headline")


def look(path: Path, **settings: object) -> Inspection:
    return inspect_source(DataSettings.model_validate({"source": str(path), **settings}))


def kinds(found: Inspection) -> list[str]:
    return [one.kind for one in found.findings]


ROWS: list[tuple[int | str, str, str, str]] = [
    (place, f"{word} stands alone here.", split, "")
    for place, (word, split) in enumerate(
        zip(["One", "Two", "Three", "Four", "Five", "Six"], ["train"] * 4 + ["val", "test"], strict=True)
    )
]


def test_counts_are_those_of_the_source(tmp_path):
    found = look(source(tmp_path, ROWS))
    assert found.captions.images == {"train": 4, "val": 1, "test": 1}
    assert found.captions.length_statistics() == {"min": 4, "mean": 4.0, "median": 4, "p95": 4, "max": 4}
    assert found.captions.vocabulary() == {"words": 9, "used_once": 6, "running_words": 24}
    assert found.captions.unknown_words == {"val": 0.25, "test": 0.25}
    assert found.pictures.quantiles()["aspect"]["median"] == 1.2
    assert not found.leaks


def test_a_few_guessed_languages_are_nothing_to_say(tmp_path):
    one = look(source(tmp_path, ROWS))

    def messages(languages: dict[str, int]) -> list[str]:
        found = findings(one.captions, one.pictures, one.contexts, one.divided, one.problems, languages)
        return [finding.message for finding in found if finding.kind == "several_languages"]

    assert messages({"en": 1, "la": 1}) == messages({"en": 990, "la": 10}) == messages({"en": 400, "la": 5}) == []
    assert messages({"en": 900, "de": 94, "la": 6}) == ["Captions are in several languages: en 90%, de 9%."]


def test_endless_captions_do_not_fill_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    endless = "A dog runs. " * 20_000
    path = source(tmp_path / "s", [*ROWS, (7, endless, "train", ""), (8, endless, "train", "")])
    assert command(monkeypatch, path, "-o", "page.html") == 0
    assert len(capsys.readouterr().out) < 5000
    assert (tmp_path / "page.html").stat().st_size < 200_000


def test_a_picture_in_two_splits_leaks_and_is_said_first(tmp_path):
    again = (0, "Something else is here.", "test", "")
    found = look(source(tmp_path, [*ROWS, again, ("no picture", "A broken one.", "train", "")]))
    assert found.leaks
    assert found.findings[0].kind == "exact_picture_in_two_splits"
    assert found.findings[0].examples == ("0.png", "6.png")
    assert "broken_images" in kinds(found)
    assert found.pictures.broken == {"not_an_image": 1}


def test_a_picture_saved_anew_in_another_split_leaks_too(tmp_path):
    path = source(tmp_path, ROWS)
    drawing(0, (48, 40)).resize((96, 80)).save(tmp_path / "images/5.jpg", quality=80)
    path.write_text(path.read_text().replace("5.png", "5.jpg"))
    found = look(path)
    assert found.findings[0].kind == "near_picture_in_two_splits"
    assert found.pictures.repeats == {("near", "between"): 1}


def test_a_group_in_two_splits_leaks(tmp_path):
    path = source(tmp_path, ROWS)
    found = look(path, columns={"group": "headline"})
    assert found.divided == {}  # empty cells are no group
    path.write_text(path.read_text().replace('""', '"article"'))
    found = look(path, columns={"group": "headline"})
    assert found.divided == {"article": {"test": 1, "train": 4, "val": 1}}
    assert found.findings[0].kind == "group_in_two_splits"


def test_repeated_captions_are_counted_within_and_between_images(tmp_path):
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(8):
        drawing(number).save(tmp_path / f"images/{number}.png")
        same = number < 6
        texts = ["Many trees, again."] * 2 if same else [f"Tree {number} alone.", "many trees again"]
        rows += [f'{number}.png,"{text}",{"train" if number % 2 else "test"}' for text in texts]
    found = look(table(tmp_path, rows))
    captions = found.captions
    assert (captions.several, captions.all_same, captions.some_same) == (8, 6, 6)
    assert (captions.distinct, captions.shared, captions.no_own) == (3, 8, 6)
    assert captions.known == {"test": (4, 4)}
    assert captions.frequent[0].text == "Many trees, again."
    assert captions.frequent[0].images == 8
    # the same share: in the order in which they matter
    assert kinds(found)[:2] == ["captions_repeated_between_images", "captions_repeated_within_images"]


def test_a_prepared_dataset_shows_the_same(tmp_path):
    path = source(tmp_path / "source", [*ROWS, (0, "Something else is here.", "test", "")])
    run(path, tmp_path / "dataset")
    plain, prepared = look(path), inspect_dataset(Dataset.open(tmp_path / "dataset"))
    assert prepared.prepared
    assert prepared.captions == plain.captions
    assert prepared.pictures.repeats == plain.pictures.repeats
    assert [one.message for one in prepared.findings] == [one.message for one in plain.findings]


def test_an_image_that_was_damaged_after_preparing_is_found(tmp_path):
    run(source(tmp_path / "source", ROWS), tmp_path / "dataset")
    next((tmp_path / "dataset/images").rglob("*.png")).write_bytes(b"")
    assert inspect_dataset(Dataset.open(tmp_path / "dataset")).pictures.broken == {"empty": 1}


def test_a_second_look_decodes_nothing_says_the_same_and_finds_what_changed(tmp_path, monkeypatch):
    path = source(tmp_path / "source", [*ROWS, (0, "Something else is here.", "test", "")])
    monkeypatch.setenv("CUTLINE_CACHE", str(tmp_path / "cache"))
    run(path, tmp_path / "dataset", steps={"dedup": {"exact": "group"}})  # which looks at each picture, too
    with monkeypatch.context() as patch:
        patch.setattr("cutline.images.perceptual_cache.decode", None)
        prepared, plain = inspect_dataset(Dataset.open(tmp_path / "dataset")), look(path)
    again = tmp_path / "source/images/1.png"
    state = again.stat()
    again.write_bytes(again.read_bytes()[:-20].ljust(state.st_size, b"\0"))
    os.utime(again, ns=(state.st_atime_ns, state.st_mtime_ns))  # of the same size and age
    assert plain.pictures.broken == {}
    assert sum(look(path).pictures.broken.values()) == 1
    assert look(path, max_pixels=100).pictures.broken["too_many_pixels"] == 7  # known or not
    monkeypatch.setenv("CUTLINE_CACHE", str(path))  # no folder: nothing is remembered
    assert inspect_dataset(Dataset.open(tmp_path / "dataset")).to_json() == prepared.to_json()


def test_names_by_their_capitals():
    text = 'Rescue workers in Port-au-Prince. The United Nations sent 40 doctors; "Help," said Ann Lee.'
    assert names_in(text) == ["Port-au-Prince", "United Nations", "Ann Lee", "40"]
    assert names_in("Paris is loud. We love Paris.") == ["Paris"]
    assert names_in("a red circle above a blue square") == []


PEOPLE = ["Ann Lee", "Bo Chen", "Cy Dunn", "Di Ekman", "Ed Flores", "Fay Gray", "Gus Hale", "Ida Jones"]
PLACES = ["Paris", "Oslo", "Lima", "Cairo", "Delhi", "Quito", "Accra", "Hanoi"]


def audit(context: list[str]) -> Contexts:
    made = Contexts()
    for number, (person, place, text) in enumerate(zip(PEOPLE, PLACES, context, strict=True)):
        caption = f"The mayor {person} speaks to reporters in {place} after the vote."
        made.add(Sample(id=str(number), image="", captions=(caption,), context={"context": text}))
    return made


def test_context_is_audited():
    """Where the caption's names stand in the context, that is help; where everything does, it was made from it."""
    helps = audit([f"An article about {person} and a strike in Rome and Bern" for person in PEOPLE]).facts()
    unrelated = audit([f"Filed on day {number} by the desk" for number in range(10, 18)]).facts()
    made = audit([f"[{place} | PERSON={who}]" for who, place in zip(PEOPLE, PLACES, strict=True)]).facts()
    whole = audit([f"He said: the mayor {who} speaks to reporters in {place}, after the vote!"
                   for who, place in zip(PEOPLE, PLACES, strict=True)]).facts()  # fmt: skip
    assert helps is not None
    assert unrelated is not None
    assert made is not None
    assert whole is not None
    relations = [found.whole.relation for found in (helps, unrelated, made, whole)]
    assert relations == ["related", "unrelated", "leaks", "leaks"]
    assert helps.whole.shares["names_given_away"] == 0.5
    assert helps.whole.shares["names_given_away_by_chance"] == 0
    assert made.whole.shares["names_given_away"] == made.whole.shares["own_names_in_captions"] == 1
    assert (made.whole.holds_caption, whole.whole.holds_caption) == (0, 8)


def test_what_an_oracle_gave_is_called_a_leak():
    contexts = Contexts()
    sources = {"location": {"value": "Paris", "source": "oracle (caption)"}}
    for number in range(3):
        contexts.add(Sample(id=str(number), image="", captions=("A street in Paris at night, wet and long.",),
                            context={"context": "[Paris]"}, extra={"context_sources": sources}))  # fmt: skip
    found = contexts.facts()
    assert found is not None
    assert found.fields["context"].relation == "leaks"
    assert found.step_sources == {"location": {"oracle (caption)": 3}}


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["cutline", "inspect", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_verb_says_the_worst_first_writes_a_page_and_fails_on_a_leak(tmp_path, monkeypatch, capsys):
    path = source(tmp_path / "photos", [*ROWS, (0, "<b>Something</b> [else] is here.", "test", "")])
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, path) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("leak: 1 image has the same bytes")
    assert "page: captions-inspection.html" in printed.err
    html = (tmp_path / "captions-inspection.html").read_text()
    assert "&lt;b&gt;Something&lt;/b&gt;" in html
    assert html.index("has the same bytes") < html.index("Counts")
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert sorted(path.parent.iterdir()) == [path, path.parent / "images"]  # nothing is written into the source


def test_json_for_programs(tmp_path, monkeypatch, capsys):
    path = source(tmp_path / "photos", ROWS)
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["captions"]["images"] == {"train": 4, "val": 1, "test": 1}
    assert found["leaks"] is False
    assert list(tmp_path.iterdir()) == [tmp_path / "photos"]


def test_a_run_and_a_recipe_lead_to_their_dataset(tmp_path, monkeypatch, capsys):
    path = source(tmp_path / "photos", ROWS)
    run(path, tmp_path / "runs/food/dataset")
    recipe = tmp_path / "food.toml"
    recipe.write_text(f'[data]\nsource = "{path}"\n')
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "runs/food", "--json") == 0
    assert json.loads(capsys.readouterr().out)["prepared"] is True
    assert command(monkeypatch, recipe, "--json", "--set", "data.max_samples=2") == 0
    assert json.loads(capsys.readouterr().out)["captions"]["total"] == 2
    assert command(monkeypatch, tmp_path / "photoz") == 2
    assert "Did you mean" in capsys.readouterr().err


def test_rsicd_repeats_itself(shared):
    """The real data set whose captions are known to be copies: that is the first thing said."""
    annotations = json.loads((shared / "rsicd/dataset_rsicd.json").read_text())
    annotations["images"] = annotations["images"][:200]
    folder = shared / "rsicd/images"
    place = Path(os.environ["CUTLINE_CACHE"]) / "rsicd"
    place.mkdir(parents=True)
    (place / "dataset_rsicd.json").write_text(json.dumps(annotations))
    found = look(place, images=str(folder))
    assert found.findings[0].kind == "captions_repeated_within_images"
    assert found.captions.several == 200
