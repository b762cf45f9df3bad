"""The index on disk, and searching it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cutline.cli.main import main
from cutline.core.errors import CutlineError, DataError, RecipeError
from cutline.core.records import Sample
from cutline.core.run_folder import RunFolder
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
from cutline.families.blip import BlipMatcher
from cutline.families.blip_2 import Blip2Matcher
from cutline.retrieve import approximate
from cutline.retrieve.index import Condition, Index, update
from cutline.retrieve.search import search
from tests.conftest import drawing
from tests.retrieve.test_rerank import stirred

#: A command whose stderr ends with what it loaded.
SEARCH = """
import sys
from cutline.cli.main import main
sys.argv = sys.argv[1:]
try:
    main()
finally:
    print(*(name for name in ("matplotlib", "torch") if name in sys.modules), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for n in range(12):
        drawing(n).save(folder / f"{n}.png")
        about = {"section": "sports" if n % 2 else "arts", "date": f"2016-0{1 + n % 9}-01"}
        made.append(
            Sample(
                id=f"i{n}", image=str(folder / f"{n}.png"), captions=(f"a drawing number {n}", f"square {n}"),
                split="test" if n < 4 else "train", context=about, extra={"sha256": f"s{n}", "likes": n},
            )
        )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def blip():
    return stirred(BlipMatcher.tiny())


@pytest.fixture(scope="module")
def index(blip, samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("index")
    update(path, blip, "m", "checkpoint", samples)
    return Index.open(path)


def ids(found):
    return [one.hit.candidate for one in found]


@pytest.mark.parametrize("kind", [BlipMatcher, Blip2Matcher])
def test_the_nearest_are_those_of_a_plain_ranking(kind, samples, tmp_path):
    family = stirred(kind.tiny())
    if kind is Blip2Matcher:
        torch.nn.init.normal_(family.model.query_tokens)
    update(tmp_path, family, "m", "checkpoint", samples)
    index = Index.open(tmp_path)
    with torch.no_grad():
        images = torch.cat([family.embed_images(family.pixels([drawing(n)])) for n in range(12)])
        text = family.embed_texts(family.encode_texts(["a red square"]))
        captions = [caption for sample in samples for caption in sample.captions]
        texts = torch.cat([family.embed_texts(family.encode_texts([caption])) for caption in captions])
    wanted = family.similarity(images, text)[:, 0]
    found = search(index, family, text="a red square", k=5)
    assert [hit.rank for hit, *_ in found] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose([hit.itc for hit, *_ in found], wanted.topk(5).values, atol=1e-5)
    assert found[0][0].candidate == f"i{int(wanted.argmax())}"
    found = search(index, family, image=samples[7].image, k=3)
    assert found[0][0].candidate == "i7"
    assert found[0][0].itc == pytest.approx(1, abs=1e-5)
    found = search(index, family, image=samples[7].image, kind="text", k=3)
    best = family.similarity(images[7:8], texts)[0].topk(3).values
    np.testing.assert_allclose([hit.itc for hit, *_ in found], best, atol=1e-5)


def test_reranking_adds_the_matching_logit(blip, index, samples):
    found = search(index, blip, text="a red square", k=4, rerank=12)
    scores = []
    for n in range(12):
        with torch.no_grad():
            seen = blip.encode_images(blip.pixels([drawing(n)]))
            cosine = blip.similarity(blip.embed_images(seen), blip.embed_texts(blip.encode_texts(["a red square"])))
            match = blip.match_logits(seen, blip.encode_texts(["a red square"]), torch.zeros(1, dtype=torch.int64))[
                :, 1
            ]
        scores.append(float(cosine) + float(match))
    got = [hit.itc + (hit.itm or 0.0) for hit, *_ in found]
    np.testing.assert_allclose(got, sorted(scores, reverse=True)[:4], atol=1e-4)
    texts = search(index, blip, image=samples[2].image, kind="text", k=3, rerank=6)
    assert all(hit.itm is not None for hit, *_ in texts)


def test_an_images_captions_come_with_the_nearest_to_the_question_first(blip, index, samples):
    for asked in ({"text": "a drawing number 3"}, {"image": samples[3].image}):
        one = search(index, blip, **asked)[0]
        mine = next(sample for sample in samples if sample.id == one.hit.candidate)
        assert sorted(one.captions) == sorted(mine.captions)
        with torch.no_grad():
            if "text" in asked:
                query = blip.embed_texts(blip.encode_texts([asked["text"]]))
            else:
                query = blip.embed_images(blip.encode_images(blip.pixels([drawing(3)])))
            cosines = blip.embed_texts(blip.encode_texts(list(one.captions))) @ query[0]
        assert cosines[0] >= cosines[1]
    found = search(index, blip, image=samples[3].image, kind="text")
    assert all(len(one.captions) == 1 for one in found)


@pytest.mark.parametrize(
    ("conditions", "wanted"),
    [
        (["split=test"], {0, 1, 2, 3}),
        (["split=test", "section=sports"], {1, 3}),
        (["section!=arts"], {1, 3, 5, 7, 9, 11}),
        (["date>=2016-07-01"], {6, 7, 8}),
        (["likes<=3"], {0, 1, 2, 3}),
        (["likes>=10"], {10, 11}),  # as numbers
        (["text~NUMBER 1"], {1, 10, 11}),
    ],
)
def test_filters(blip, index, conditions, wanted):
    found = search(index, blip, text="a", k=20, conditions=[Condition(one) for one in conditions])
    assert set(ids(found)) == {f"i{n}" for n in wanted}


def test_a_wrong_filter_is_said():
    with pytest.raises(RecipeError, match="is not a valid condition"):
        Condition("split")


def test_adding_changing_and_removing(blip, samples, tmp_path, monkeypatch):
    embedded = []
    plain = BlipMatcher.embed_images

    def counting(self, batch):
        embedded.append(len(batch.get("pixel_values", ())))  # a search brings features
        return plain(self, batch)

    monkeypatch.setattr(BlipMatcher, "embed_images", counting)
    assert update(tmp_path, blip, "m", "c", samples[:8])[:3] == (24, 0, 0)
    assert sum(embedded) == 8
    again = update(tmp_path, blip, "m", "c", samples[:8])
    assert again[:3] == (0, 0, 24)
    assert sum(embedded) == 8
    changed = replace(samples[2], captions=("another caption",), extra={"sha256": "new"}, image=samples[11].image)
    moved = replace(samples[0], split="val")  # what is embedded stays
    change = update(tmp_path, blip, "m", "c", [moved, changed, *samples[6:10]], prune=True)
    assert sum(embedded) == 8 + 3
    assert change.added == 2 + 2 * 3  # the changed one with its caption, two new ones
    index = Index.open(tmp_path)
    assert {item["id"] for item in index.items if item["kind"] == "image"} == {"i0", "i2", "i6", "i7", "i8", "i9"}
    assert {item["text"] for item in index.items if item["id"].startswith("i2#")} == {"another caption"}
    assert set(ids(search(index, blip, text="a", conditions=[Condition("split=val")]))) == {"i0"}
    assert search(index, blip, image=samples[11].image)[0][0].candidate == "i2"
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["index.json", "items-3.parquet", "vectors-3.npy"]
    fresh = tmp_path / "fresh"
    update(fresh, blip, "m", "c", [moved, changed, *samples[6:10]])
    one, other = (search(Index.open(path), blip, text="a red square", k=20) for path in (tmp_path, fresh))
    assert sorted(ids(one)) == sorted(ids(other))
    np.testing.assert_allclose([hit.itc for hit, *_ in one], [hit.itc for hit, *_ in other], atol=1e-5)
    with pytest.raises(DataError, match="was built with c"):
        update(tmp_path, blip, "another", "d", samples)


def test_a_killed_indexing_leaves_the_old_one_and_goes_on(blip, samples, tmp_path, monkeypatch):
    update(tmp_path, blip, "m", "c", samples[:1])
    before = (tmp_path / "index.json").read_bytes()
    plain, calls = BlipMatcher.embed_images, []

    def dying(self, batch):
        calls.append(len(batch["pixel_values"]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(self, batch)

    monkeypatch.setattr(BlipMatcher, "embed_images", dying)
    with pytest.raises(KeyboardInterrupt):
        update(tmp_path, blip, "m", "c", samples)
    assert (tmp_path / "index.json").read_bytes() == before
    assert Index.open(tmp_path).facts["images"] == 1
    update(tmp_path, blip, "m", "c", samples)
    assert calls == [8, 3, 3]  # the first eight were not seen again
    assert Index.open(tmp_path).facts["images"] == 12


def test_a_search_that_opens_while_an_indexing_ends_sees_the_new_one(blip, samples, tmp_path, monkeypatch):
    update(tmp_path, blip, "m", "c", samples[:2])
    plain, reads = pq.read_table, []

    def slowly(path, **options):
        reads.append(path.name)
        if len(reads) == 1:
            monkeypatch.setattr(pq, "read_table", plain)
            update(tmp_path, blip, "m", "c", samples[:3])  # which takes the old files away
            monkeypatch.setattr(pq, "read_table", slowly)
        return plain(path, **options)

    monkeypatch.setattr(pq, "read_table", slowly)
    assert Index.open(tmp_path).facts["images"] == 3
    assert reads == ["items-1.parquet", "items-2.parquet"]


def test_two_indexings_at_once_do_not_mix(blip, samples, tmp_path):
    with RunFolder(tmp_path).locked(), pytest.raises(CutlineError, match="Another cutline"):
        update(tmp_path, blip, "m", "c", samples[:1])


def test_an_image_that_cannot_be_opened_is_named(blip, samples, tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")
    lost = Sample(id="lost", image=str(tmp_path / "broken.jpg"), captions=("a caption",))
    change = update(tmp_path / "index", blip, "m", "c", [samples[0], lost])
    assert list(change.failed) == ["lost"]
    assert Index.open(tmp_path / "index").facts["images"] == 1
    with pytest.raises(DataError, match="is not an index"):
        Index.open(tmp_path)


def test_an_unknown_field_is_said_with_those_there_are(index):
    with pytest.raises(DataError, match="has 'sektion'") as error:
        index.where("image", [Condition("sektion=arts")])
    assert "section" in str(error.value.remedy)
    assert len(index.where("image", [Condition("split=nowhere")])) == 0


@pytest.mark.parametrize("name", ["index.json", "items-1.parquet", "vectors-1.npy"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_index_is_said_to_be(blip, samples, tmp_path, name, cut):
    update(tmp_path, blip, "m", "c", samples[:2])
    if cut:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    else:
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=r"is damaged|is not an index"):
        Index.open(tmp_path)


def clustered(count, width, seed):
    chance, world = np.random.default_rng(seed), np.random.default_rng(0)
    middle = world.standard_normal((50, width), np.float32)
    made = middle[chance.integers(50, size=count)] + 0.5 * chance.standard_normal((count, width), np.float32)
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def test_an_approximate_structure_finds_what_a_scan_finds(tmp_path):
    pytest.importorskip("faiss")
    vectors = clustered(6000, 32, 1)
    rows = np.flatnonzero(np.arange(6000) % 3 > 0)  # others are captions, say
    tuned = approximate.build(tmp_path / "x.faiss", vectors, rows, {"image": rows, "text": np.arange(0, 6000, 3)})
    assert tuned.recall >= approximate.RECALL
    assert 4 < tuned.probes < tuned.lists == 63
    found = approximate.Approximate.open(tmp_path / "x.faiss", vectors, tuned.probes)
    for wanted in (rows, rows[::2], rows[rows < 900]):  # all; filtered; filtered to few
        right = 0
        for query in clustered(50, 32, 2):
            scores = vectors[wanted] @ query
            truth = wanted[np.argsort(-scores)[:10]]
            got = found.nearest(query, 10, wanted)
            assert {row for row, _ in got} <= set(wanted.tolist())
            assert [score for _, score in got] == sorted((score for _, score in got), reverse=True)
            np.testing.assert_allclose([score for _, score in got], [vectors[row] @ query for row, _ in got], atol=1e-6)
            right += len(set(truth.tolist()) & {row for row, _ in got})
        assert right / 500 >= 0.98
    assert (tmp_path / "x.faiss").stat().st_size < 0.5 * vectors.nbytes


def test_an_approximate_index_is_kept_up_to_date(blip, samples, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr("cutline.retrieve.index.FEW", 5)
    used = []
    plain = approximate.Approximate.nearest
    monkeypatch.setattr(
        approximate.Approximate, "nearest", lambda self, *given, **more: used.append(1) or plain(self, *given, **more)
    )
    update(tmp_path, blip, "m", "c", samples[:10], approximate=True)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == [
        "image-1.faiss", "index.json", "items-1.parquet", "text-1.faiss", "vectors-1.npy",
    ]  # fmt: skip
    update(tmp_path, blip, "m", "c", samples[4:], prune=True)  # asked for once is enough
    index = Index.open(tmp_path)
    assert set(index.approximations) == {"image", "text"}
    used.clear()
    for query in ({"text": "a red square"}, {"image": samples[7].image}, {"image": samples[7].image, "kind": "text"}):
        for conditions in ((), (Condition("section=sports"),)):
            asked = {**query, "conditions": conditions, "k": 5}
            found, exact = search(index, blip, **asked), search(index, blip, exact=True, **asked)
            assert ids(found) == ids(exact)
            assert not {"i0", "i1", "i2", "i3"} & {name.split("#")[0] for name in ids(found)}
    assert len(used) == 4  # four images that are in sports are few, and scanned
    update(tmp_path, blip, "m", "c", samples[4:], approximate=False)
    assert not Index.open(tmp_path).approximations
    assert not list(tmp_path.glob("*.faiss"))


def test_without_faiss_the_extra_is_named(blip, samples, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(CutlineError, match="needs FAISS"):
        update(tmp_path / "index", blip, "m", "c", samples[:2], approximate=True)
    assert not (tmp_path / "index/index.json").exists()


def test_from_the_command_line(samples, tmp_path, monkeypatch, capsys):
    stirred(BlipMatcher.tiny()).save(tmp_path / "model")
    rows = [{"image": s.image, "caption": text, "split": s.split} for s in samples for text in s.captions]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(DataSettings(source=str(tmp_path / "list.jsonl")), tmp_path / "data")

    def cutline(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cutline", "retrieve", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    place = str(tmp_path / "index")
    monkeypatch.chdir(tmp_path)
    code, _, said = cutline("index", "model", "data", "-o", "index")
    assert code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # model and images are found from anywhere
    assert "(12 images, 24 captions)" in said
    code, printed, _ = cutline("search", place, "a red square", "--json", "-k", "3", "--filter", "split=test")
    assert code == 0
    found = [json.loads(line) for line in printed.splitlines()]
    assert [row["rank"] for row in found] == [1, 2, 3]
    assert {row["split"] for row in found} == {"test"}
    assert all(row["text"] == row["captions"][0] and len(row["captions"]) == 2 for row in found)
    assert all(len(row["about"]["sha256"]) == 64 for row in found)
    loaded = subprocess.run(
        [sys.executable, "-c", SEARCH, "cutline", "retrieve", "search", place, "a red square", "-k", "3"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert loaded.stderr.split() == ["torch"]
    assert "cosine" in loaded.stdout
    code, printed, _ = cutline("search", place, "a red square", "-k", "1", "--rerank", "2")
    assert "square" in printed or "drawing" in printed
    assert "/" not in printed  # ids, not paths
    page = tmp_path / "page.html"
    code, _, _ = cutline("search", place, "--image", samples[0].image, "--for", "texts", "--html", str(page))
    assert code == 0
    written = page.read_text()
    assert written.count("data:image/jpeg;base64") == 11
    assert str(samples[0].image) not in written.split("</header>")[0]  # no path in the title
    assert 'src="http' not in written  # it needs nothing else
    assert "href=" not in written
    for given, problem in (
        ((), "needs a text or an image"),
        (("  ",), "needs a text or an image"),
        (("a square", "--image", samples[0].image), "not both"),
        (("a square", "--html", str(tmp_path)), "is a folder"),
        (("a square", "--for", "texts"), "A text can only search images"),
        (("a square", "--filter", "colour=red"), "has 'colour'"),
        (("--image", str(tmp_path / "list.jsonl")), "not an image"),
        (("--image", str(tmp_path / "lost.jpg")), "there is no such file"),
    ):
        code, printed, said = cutline("search", place, *given)
        assert (code, printed) == (2, "")
        assert problem in said
    evaluating = ["evaluate", "../model", "../data", "-o", str(tmp_path / "out"), "--resamples", "10"]
    code, printed, said = cutline(*evaluating)
    assert code == 0
    assert "recall@1, image → text %" in printed
    assert "4 images of test, 8 captions" in said
    assert json.loads((tmp_path / "out/scores.json").read_text())["counts"]["captions"] == 8
    before = (tmp_path / "out/scores.json").read_bytes()
    assert cutline(*evaluating)[0] == 0
    assert (tmp_path / "out/scores.json").read_bytes() == before
