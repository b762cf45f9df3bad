"""The bridge to SPICE: a stand-in for java that speaks the program's protocol. The program itself is not run here."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from cutline.core.errors import ScoreError
from cutline.metrics.scorer import score

REFERENCES = {"b": ["A dog runs.", "the dog runs"], "a": ["a red bike"], "c": ["two cats"]}
PREDICTIONS = {"a": "A red bike!", "b": "a cat", "c": ""}

#: Checks how it was called, then gives each row the share of the caption's words that are in a reference.
JAVA = """\
import json, pathlib, sys, time
given = sys.argv[1:]
assert given[0] == "-Xmx2G" and given[1:3] == ["-jar", "spice-1.0.jar"], given
assert pathlib.Path("lib/stanford-corenlp-3.6.0.jar").is_file()  # started in the folder of the jars
rows = json.loads(pathlib.Path(given[3]).read_text())
options = given[4:]
if "-cache" in options:
    assert pathlib.Path(options[options.index("-cache") + 1]).is_dir()
assert options[-2:] == ["-subset", "-silent"], options
made = []
for row in rows:
    words = row["test"].split()
    known = {word for text in row["refs"] for word in text.split()}
    f = sum(word in known for word in words) / len(words) if words else None
    made.append({"image_id": row["image_id"], "scores": {"All": {"f": f}, "Object": {"f": 0}}})
pathlib.Path(options[options.index("-out") + 1]).write_text(json.dumps(made[::-1]))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with empty files in the places of the jars."""
    (tmp_path / "spice" / "lib").mkdir(parents=True)
    for name in ("spice-1.0.jar", "lib/stanford-corenlp-3.6.0.jar", "lib/stanford-corenlp-3.6.0-models.jar"):
        (tmp_path / "spice" / name).touch()
    return tmp_path


def options(place: Path, code: str = JAVA, **more: object) -> dict[str, dict[str, object]]:
    java = place / "java"
    java.write_text(f"#!{sys.executable}\n{code}")
    java.chmod(0o755)
    return {"spice": {"folder": str(place / "spice"), "java": str(java), "memory": "2G", **more}}


def test_spice_and_spider_come_from_the_programs_answer(place: Path) -> None:
    found = score(
        PREDICTIONS, REFERENCES, ["spice", "cider"], options=options(place, cache=str(place / "cache")), resamples=10
    )
    assert found["spice"].per_image == (0.5, 1.0, 0.0)  # in the order of the references; words are tokens
    expected = [(a + b) / 2 for a, b in zip(found["spice"].per_image, found["cider"].per_image, strict=True)]
    assert found["spider"].per_image == pytest.approx(expected)
    assert found["spider"].value == pytest.approx((found["spice"].value + found["cider"].value) / 2)
    assert "program:spice-1.0|corenlp:3.6.0" in found["spice"].signature
    assert set(score(PREDICTIONS, REFERENCES, ["spider"], options=options(place))) == {"spider"}


def test_a_program_that_hangs_is_ended(place: Path) -> None:
    code = f"import os, time\nopen({str(place / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    begun = time.monotonic()
    with pytest.raises(ScoreError, match=r"took longer than 1 s\. .*leave spice out"):
        score(PREDICTIONS, REFERENCES, ["spice"], options=options(place, code, timeout_s=1))
    assert time.monotonic() - begun < 20
    assert not Path(f"/proc/{(place / 'pid').read_text()}").exists()


def test_a_program_that_fails_says_why(place: Path) -> None:
    code = "import sys\nprint('java.lang.OutOfMemoryError', file=sys.stderr)\nsys.exit(3)"
    with pytest.raises(ScoreError, match=r"failed \(exit code 3\): java\.lang\.OutOfMemoryError.*Java 8 or 11"):
        score(PREDICTIONS, REFERENCES, ["spice"], options=options(place, code))
    with pytest.raises(ScoreError, match="returned no score for some images"):
        score(PREDICTIONS, REFERENCES, ["spice"], options=options(place, "pass"))
    lost = JAVA.replace("made[::-1]", "made[1:]")
    with pytest.raises(ScoreError, match="returned no score for some images"):
        score(PREDICTIONS, REFERENCES, ["spice"], options=options(place, lost))


def test_what_spice_lacks_is_one_sentence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = options(place)["spice"] | {"java": "no-such-java"}
    with pytest.raises(ScoreError, match="needs Java, and no-such-java was not found"):
        score(PREDICTIONS, REFERENCES, ["spice"], options={"spice": absent})
    (place / "spice" / "lib" / "stanford-corenlp-3.6.0-models.jar").unlink()
    with pytest.raises(
        ScoreError, match=r"needs lib/stanford-corenlp-3\.6\.0-models\.jar in .*no other score needs it"
    ):
        score(PREDICTIONS, REFERENCES, ["spice"], options=options(place))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ScoreError, match="pip install pycocoevalcap"):
        score(PREDICTIONS, REFERENCES, ["spice"])


def test_predictions_reach_the_program_as_the_reference_sends_them(place: Path) -> None:
    keep = JAVA.replace("made = []", f"pathlib.Path({str(place / 'rows')!r}).write_text(json.dumps(rows)); made = []")
    score({"1": "A dog's bone; two!"}, {"1": ["The bone."]}, ["spice"], options=options(place, keep))
    (row,) = json.loads((place / "rows").read_text())
    assert row["test"] == "a dog 's bone two"
    assert row["refs"] == ["the bone"]
