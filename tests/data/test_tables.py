"""Tables: columns, merged rows, encodings, quotes, and the names of images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cutline.core.errors import DataError, RecipeError
from cutline.core.records import Sample
from cutline.data import readers
from tests.data.reading import image, read, write


def test_a_row_per_image_with_several_caption_columns(tmp_path: Path) -> None:
    image(tmp_path / "images/a.jpg")
    text = "filename,caption_2,caption_1,split,place\na.jpg,two,one,valid,here\nb.jpg,,only,test,\n"
    samples, problems = read(write(tmp_path / "captions.csv", text))
    assert not problems
    assert samples[0] == Sample(
        id="a.jpg",
        image=str(tmp_path / "images/a.jpg"),
        captions=("one", "two"),
        split="valid",
        extra={"place": "here"},
    )
    assert samples[1].captions == ("only", "")  # the empty cell is counted later, not dropped here
    assert samples[1].image == str(tmp_path / "b.jpg")


def test_a_row_per_caption_is_merged_by_image(tmp_path: Path) -> None:
    rows = "image,id,caption,split\na.jpg,1,first,train\nb.jpg,2,other,train\na.jpg,3,second,train\n"
    samples, problems = read(write(tmp_path / "c.csv", rows))
    # the id column counts captions, so it names no sample
    assert [(sample.id, sample.captions) for sample in samples] == [
        ("b.jpg", ("other",)),
        ("a.jpg", ("first", "second")),
    ]
    assert not problems


def test_rows_of_one_image_in_different_splits_are_reported(tmp_path: Path) -> None:
    rows = "image,caption,split\na.jpg,first,train\na.jpg,second,test\n"
    samples, problems = read(write(tmp_path / "c.csv", rows))
    assert len(samples) == 1
    assert [problem.reason for problem in problems] == ["split_conflict"]


def test_chosen_columns_and_context(tmp_path: Path) -> None:
    rows = "key,pic,words,headline,article_id,rest\n7,a.jpg,text,News,art1,x\n"
    columns = {"id": "key", "image": "pic", "caption": ["words"], "context": ["headline"], "extra": []}
    samples, _ = read(write(tmp_path / "c.csv", rows), columns=columns)
    assert samples[0] == Sample(
        id="7", image=str(tmp_path / "a.jpg"), captions=("text",), group="art1", context={"headline": "News"}
    )


def test_wrong_columns_are_errors_with_the_known_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", "image,caption\na.jpg,x\n")
    with pytest.raises(RecipeError, match=r"columns\.caption.*Did you mean 'caption'\? Columns: image, caption"):
        read(path, columns={"caption": "captoin"})
    with pytest.raises(RecipeError, match="gives the answer away"):
        read(path, columns={"context": ["caption"]})
    with pytest.raises(RecipeError, match=r"file name\. Columns: a, b"):
        read(write(tmp_path / "d.csv", "a,b\n1,2\n"))
    with pytest.raises(RecipeError, match="hold captions"):
        read(write(tmp_path / "e.csv", "image,b\n1,2\n"))
    samples, _ = read(tmp_path / "e.csv", captions_required=False)
    assert samples[0].captions == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_encodings_quotes_and_line_breaks(tmp_path: Path, encoding: str) -> None:
    rows = 'image,caption\r\na.jpg,"Eine ""große"" Brücke,\r\nim Regen"\r\n\r\nb.jpg,x\r\n'
    samples, problems = read(write(tmp_path / "c.csv", rows, encoding))
    assert not problems
    assert samples[0].captions == ('Eine "große" Brücke,\r\nim Regen',)
    assert samples[1].captions == ("x",)


def test_huge_cells_and_the_limit_of_the_host(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    samples, _ = read(write(tmp_path / "c.csv", f"image,caption,article\na.jpg,x,{'word ' * 100_000}\n"))
    assert len(samples[0].extra["article"]) == 500_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(("name", "mark"), [("c.tsv", "\t"), ("c.csv", ";"), ("c.csv", "| "), ("captions.txt", ",")])
def test_delimiters(tmp_path: Path, name: str, mark: str) -> None:
    path = write(tmp_path / name, f"image_name{mark}comment_number{mark}comment\na.jpg{mark}0{mark}a caption\n")
    samples, _ = read(path, format="table")
    assert samples[0].captions == ("a caption",)
    assert samples[0].extra == {"comment_number": "0"}


def test_bad_rows_are_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = 'image,caption\na.jpg,x\nb.jpg,y,z\n,nothing\nc.jpg,"open" quote\nd.jpg,w\n'
    samples, problems = read(write(tmp_path / "c.csv", rows))
    assert [sample.id for sample in samples] == ["a.jpg", "d.jpg"]
    assert [problem.id for problem in problems] == ["c.csv, row 3", "c.csv, row 4", "c.csv, row 5"]
    assert {problem.reason for problem in problems} == {"bad_row"}
    samples, problems = read(write(tmp_path / "d.csv", 'image,caption\na.jpg,x\nb.jpg,"never closed\nc.jpg,y\n'))
    assert [sample.id for sample in samples] == ["a.jpg"]
    assert [problem.reason for problem in problems] == ["bad_row"]


def test_latin_1_and_an_empty_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not UTF-8"):
        read(write(tmp_path / "c.csv", "image,caption\na.jpg,größer\n", "latin-1"))
    with pytest.raises(DataError, match="is empty"):
        read(write(tmp_path / "d.csv", ""))


def test_json_lines_json_lists_and_parquet(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "captions": ["one", "two"], "n": 1}, {"image": "b.jpg", "captions": ["three"]}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    jsonl = write(tmp_path / "c.jsonl", "\ufeff" + lines + "{broken\n[1]\n")
    plain = write(tmp_path / "c.json", json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    for path in (jsonl, plain, tmp_path / "c.parquet"):
        samples, problems = read(path)
        assert [sample.captions for sample in samples] == [("one", "two"), ("three",)], path
        assert samples[0].extra == {"n": 1}
        assert len(problems) == (2 if path == jsonl else 0)


def test_lists_written_into_cells(tmp_path: Path) -> None:
    rows = 'filename,raw\na.jpg,"[""one"", ""two""]"\nb.jpg,"[\'three\']"\nc.jpg,[a dog]\n'
    samples, _ = read(write(tmp_path / "c.csv", rows))
    assert [sample.captions for sample in samples] == [("one", "two"), ("three",), ("[a dog]",)]


def test_image_names_without_ending_with_backslashes_or_lost_folders(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.PNG", "sub/c.webp"):
        image(tmp_path / "pictures" / name)
    rows = "image,caption\na,x\nb,x\nold\\sub\\c.webp,x\nother/sub/c.webp,x\n"
    samples, _ = read(write(tmp_path / "c.csv", rows), images=str(tmp_path / "pictures"))
    found = [str(Path(sample.image).relative_to(tmp_path / "pictures")) for sample in samples]
    # the fourth would be the third's picture: better missing than wrong
    assert found == ["a.jpg", "b.PNG", "sub/c.webp", "other/sub/c.webp"]
    with pytest.raises(DataError, match="There is no folder"):
        read(tmp_path / "c.csv", images=str(tmp_path / "nowhere"))


def test_a_folder_with_one_table(tmp_path: Path) -> None:
    image(tmp_path / "images/a.jpg")
    write(tmp_path / "captions.csv", "image,caption\na.jpg,x\n")
    assert readers.recognise(tmp_path) == "table"
    assert read(tmp_path)[0][0].image == str(tmp_path / "images/a.jpg")


# ---- the tables of the recipes in recipes/, as they come

FOOD = """,Title,Ingredients,Instructions,Image_Name,Cleaned_Ingredients
0,Miso-Butter Roast Chicken,"['1 (3½–4-lb.) whole chicken', '2¾ tsp. kosher salt']","Pat chicken dry,
season all over.",miso-butter-roast-chicken,"['1 chicken']"
1,"Ham, Brie & Apple",['ham'],Toast.,ham-brie,['ham']
2,,['x'],None.,untitled,['x']
3,Lost Name,['x'],Stir.,#NAME?,['x']
4,Another Lost Name,['x'],Stir.,#NAME?,['x']
"""


def test_food_titles_and_image_names_without_ending(tmp_path: Path) -> None:
    for name in ("miso-butter-roast-chicken", "ham-brie", "untitled"):
        image(tmp_path / f"Food Images/{name}.jpg")
    samples, problems = read(
        write(tmp_path / "food.csv", FOOD),
        images=str(tmp_path / "Food Images"),
        columns={"image": "Image_Name", "caption": "Title", "extra": []},
    )
    assert not problems
    found = {sample.id: sample for sample in samples}
    assert found["miso-butter-roast-chicken"].image == str(tmp_path / "Food Images/miso-butter-roast-chicken.jpg")
    assert found["miso-butter-roast-chicken"].captions == ("Miso-Butter Roast Chicken",)
    assert found["ham-brie"].captions == ("Ham, Brie & Apple",)
    assert found["untitled"].captions == ("",)
    # the spreadsheet's #NAME? stands for two photographs that nobody can find any more
    assert found["#NAME?"].image.endswith("#NAME?")
    assert not any(sample.extra for sample in samples)


def test_risc_has_five_captions_an_image_and_its_own_split(tmp_path: Path) -> None:
    image(tmp_path / "resized/NWPU_1.jpg")
    text = (
        "source,split,image,caption_1,caption_2,caption_3,caption_4,caption_5\n"
        "NWPU,train,NWPU_1.jpg,one .,two .,three .,four .,five .\n"
        "RSICD,val,RSICD_1.jpg,a .,b .,c .,d .,\n"
    )
    (first, second), problems = read(write(tmp_path / "captions.csv", text), images=str(tmp_path / "resized"))
    assert not problems
    assert first.captions == ("one .", "two .", "three .", "four .", "five .")
    assert (first.split, second.split) == ("train", "val")
    assert first.image == str(tmp_path / "resized/NWPU_1.jpg")


def test_challenge_names_images_by_number(tmp_path: Path) -> None:
    image(tmp_path / "train/100350.jpg")
    rows = 'image_id,caption\n100350,"A red sign, seen from below."\n'
    (sample,), problems = read(write(tmp_path / "train.csv", rows), images=str(tmp_path / "train"))
    assert not problems
    assert sample == Sample(
        id="100350", image=str(tmp_path / "train/100350.jpg"), captions=("A red sign, seen from below.",)
    )


def test_real_tables_of_the_systems_are_read_whole(shared: Path) -> None:
    food = {"image": "Image_Name", "caption": "Title"}
    for name, count, columns in (
        ("food_recipes_300.csv", 300, food),
        ("risc_val_500.csv", 500, {}),
        ("obss_submission_200.csv", 200, {}),
    ):
        samples, problems = read(shared / "tables" / name, columns=columns)
        assert len(samples) == count
        assert not problems
        assert all(sample.captions[0] for sample in samples)
