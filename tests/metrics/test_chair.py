"""CHAIR: objects named, objects shown."""

import json
from pathlib import Path

import pytest

from cutline.core.errors import ScoreError
from cutline.metrics.chair import _OWN_LIST, Vocabulary, plural
from cutline.metrics.scorer import score

COCO = {
    "images": [{"id": 9, "file_name": "COCO_val_9.jpg"}, {"id": 10, "file_name": "COCO_val_10.jpg"}],
    "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 58, "name": "hot dog"}],
    "annotations": [{"image_id": 9, "category_id": 1}, {"image_id": 9, "category_id": 18}],
}
REFERENCES = {"9": ["A man and his dog."], "10": ["A hot dog on a plate", "food beside a cup"]}


@pytest.fixture
def instances(tmp_path: Path) -> str:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(COCO))
    return str(path)


def test_what_is_neither_marked_nor_in_a_reference_is_hallucinated(instances: str) -> None:
    predictions = {"9": "Two women and a cat on a couch, women laughing.", "10": "a hotdog, cups and nothing else"}
    found = score(predictions, REFERENCES, ["chair"], options={"chair": {"instances": instances}})
    # named: person, cat, couch, person; hot dog, cup. Wrong: cat, couch.
    assert found["chair_i"].value == pytest.approx(2 / 6)
    assert found["chair_s"].value == pytest.approx(1 / 2)
    assert found["chair_i"].per_image == (0.5, 0.0)
    assert "objects:marked+references|synonyms:cutline-coco@" in found["chair_i"].signature


def test_images_go_by_their_files_names_and_objects_may_be_given_plainly(instances: str, tmp_path: Path) -> None:
    references = {"COCO_val_9.jpg": ["something"], "COCO_val_10": ["something"]}
    predictions = {"COCO_val_9.jpg": "a dog", "COCO_val_10": "a dog"}
    found = score(predictions, references, ["chair_i"], options={"chair": {"instances": instances}})
    assert found["chair_i"].value == 0.5
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps({"COCO_val_9.jpg": ["Dog"], "COCO_val_10": []}))
    same = score(predictions, references, ["chair_i"], options={"chair": {"instances": str(plain)}})
    assert same["chair_i"].per_image == found["chair_i"].per_image


def test_no_object_named_is_nothing_wrong(instances: str) -> None:
    found = score({"9": "", "10": "how nice"}, REFERENCES, ["chair"], options={"chair": {"instances": instances}})
    assert found["chair_i"].value == found["chair_s"].value == 0


def test_what_chair_needs_is_said(instances: str, tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match=r"needs the objects that the images show.*--set chair\.instances"):
        score(REFERENCES, REFERENCES, ["chair"])
    captions = {"9": ["x"], "11": ["y"]}
    with pytest.raises(ScoreError, match=r"doesn't have 1 of 2 images: 11"):
        score(captions, captions, ["chair"], options={"chair": {"instances": instances}})
    wrong = tmp_path / "wrong.json"
    for content, message in (("[1]", "neither COCO instances nor"), ("{", "can't be read as JSON")):
        wrong.write_text(content)
        with pytest.raises(ScoreError, match=message):
            score(REFERENCES, REFERENCES, ["chair"], options={"chair": {"instances": str(wrong)}})
    wrong.write_text("# nothing\n")
    options = {"chair": {"instances": instances, "synonyms": str(wrong)}}
    with pytest.raises(ScoreError, match="lists no object"):
        score(REFERENCES, REFERENCES, ["chair"], options=options)


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# landmarks\nrunway, landing strip\nship, tanker\n- ship yard\n", encoding="utf-8")
    known = Vocabulary.read(path)
    assert known.objects("two landing strips beside a runway , and a ship-yard with tankers") == [
        "runway", "runway", "ship",
    ]  # fmt: skip
    assert known.name.startswith("words.txt@")


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("a hot dog and a dog", ["hot dog", "dog"]),
        ("people near a train station", ["person"]),
        ("a baby elephant with two calves", ["elephant", "cow"]),
        ("three buses , two knives , five sheep and some wine glasses", ["bus", "knife", "sheep", "wine glass"]),
        ("a teddy bear on a dining room table", ["teddy bear", "dining table"]),
        ("a clock tower and a cell phone", ["clock", "cell phone"]),
        ("a couple of puppies", ["dog"]),
        ("the catcher 's mitt", ["baseball glove"]),
        ("men wearing bow ties on motor-bikes", ["person", "tie", "motorcycle"]),
        ("green hills", []),
    ],
)
def test_words_for_cocos_objects(caption: str, objects: list[str]) -> None:
    assert Vocabulary.read(_OWN_LIST).objects(caption) == objects


def test_the_own_list_has_every_object_of_coco_once() -> None:
    lines = [line for line in _OWN_LIST.read_text(encoding="utf-8").splitlines() if line[0] not in "#-"]
    assert len({line.split(",")[0] for line in lines}) == len(lines) == 80
    phrases = [phrase.strip() for line in lines for phrase in line.split(",")]
    assert len(set(phrases)) == len(phrases)


def test_plurals() -> None:
    assert [plural(word) for word in ("dog", "bus", "couch", "puppy", "toy", "box")] == [
        "dogs", "buses", "couches", "puppies", "toys", "boxes",
    ]  # fmt: skip
