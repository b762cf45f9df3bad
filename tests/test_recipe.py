"""What a recipe may say, and what a wrong one is told."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from cutline.core import config as recipes
from cutline.core.config import parse, to_toml
from cutline.core.errors import RecipeError
from cutline.run.recipe import Recipe

GOOD = {"data": {"source": "photos"}, "model": {"checkpoint": "model"}}


def wrong(table, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse(table, Recipe, overrides, where="r.toml")
    assert "\n" not in caught.value.problem + caught.value.remedy
    assert caught.value.problem.endswith((".", "?"))
    return caught.value


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("train.lr=1e-4", "train.lr", 1e-4),
        ("train.lr=.001", "train.lr", 0.001),
        ("train.epochs=3", "train.epochs", 3.0),
        ("generate.do_sample=true", "generate.do_sample", True),
        ("data.source=/a/b c.csv", "data.source", "/a/b c.csv"),
        ('data.source="quoted"', "data.source", "quoted"),
        ("data.source=2024", "data.source", "2024"),
        ("data.source=007", "data.source", "007"),
        ("data.columns.caption=3", "data.columns.caption", "3"),
        ("data.columns.image= file", "data.columns.image", " file"),
        ("about=a = b # c", "about", "a = b # c"),
        ("about=", "about", ""),
        ('train.report_to=["wandb"]', "train.report_to", ["wandb"]),
        ("train.captions_per_image=all", "train.captions_per_image", "all"),
        ("train.captions_per_image=2", "train.captions_per_image", 2),
        ("train.parts.vision=last:2", "train.parts", {"vision": "last:2"}),
        ("data.rename_splits={}", "data.rename_splits", {}),
    ],
)
def test_set_reads_values_as_their_key_needs_them(override, key, value):
    found = parse(GOOD, Recipe, [override])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)
    assert GOOD == {"data": {"source": "photos"}, "model": {"checkpoint": "model"}}  # untouched


def test_the_last_set_counts_and_all_count_more_than_the_file(tmp_path):
    (tmp_path / "r.toml").write_text('seed = 1\n[data]\nsource = "x"\nval = 0.3\n[model]\ncheckpoint = "c"\n')
    found = recipes.load(tmp_path / "r.toml", Recipe, ["seed=2", "data.source=1", "seed=3", "data.source=2"])
    assert (found.seed, found.data.source, found.data.val) == (3, "2", 0.3)


@pytest.mark.parametrize("override", ["seed", "", "=3", ".lr=3", "train.=3", "train..lr=3"])
def test_malformed_set(override):
    assert "is not of the form section.key=value" in wrong(GOOD, override).problem


@pytest.mark.parametrize(
    ("override", "problem", "remedy"),
    [
        ("train.qqq=1", "unknown key train.qqq", "Known: parts, "),
        ("train.epoch=1", "unknown key train.epoch", "Did you mean train.epochs?"),
        ("trian.lr=1", "unknown section trian", "Did you mean train?"),
        ("data.columns.captoin=x", "unknown key data.columns.captoin", "Did you mean data.columns.caption?"),
        ("train=3", "train is a section, not a value", "Write [train]"),
        ("train.batch_size=big", 'train.batch_size = "big": must be a whole number', "examples per device and batch"),
        ("train.batch_size=1.5", "must be a whole number", "an image with captions_per_image"),
        ("train.batch_size=0", "train.batch_size = 0: must be at least 1", ""),
        ("train.lr=0", "must be above 0", "peak learning rate"),
        ("train.captions_per_image=some", 'must be a whole number or must be "all"', '"all" sees each image once'),
        (
            "train.lr_scheduler_type=cosinus",
            "must be one of 'cosine', 'linear' or 'constant'",
            'Did you mean "cosine"?',
        ),
        ("train.report_to=wandb", "must be a list, in brackets", "tensorboard"),
        ("train.parts.vision=ful", 'vision = "ful" is none of "frozen", "full", "lora", "last:N"', "train.parts: "),
        ("train.parts.vision=last:0", 'vision = "last:0" is none of', "train.parts: "),
        ('score.metrics=["cidre"]', "there is no metric cidre. Did you mean cider?", ""),
        ("model.new.encoder=x", "[model] has both checkpoint and new", "Fix [model]"),
        ("data.val=1", "must be below 1", "share of the samples"),
        ("generate.do_sample=maybe", "must be true or false", "sample from the distribution"),
        ("seed.x=3", "seed", "seed for weights, shuffling and dropout"),
    ],
)
def test_a_wrong_value_is_named_with_what_belongs_there(override, problem, remedy):
    error = wrong(GOOD, override)
    assert error.problem.startswith("r.toml: ")
    assert problem in error.problem
    assert remedy in error.remedy


def test_a_misspelt_section_is_named_rather_than_the_missing_one():
    error = wrong({"date": {"source": "x"}, "model": {"checkpoint": "c"}})
    assert "unknown section date (1 more)" in error.problem
    assert error.remedy == "Did you mean data?"
    assert "the section [data] is missing" in wrong({"model": {"checkpoint": "c"}}).problem


def test_a_long_value_is_cut_in_the_message():
    assert len(wrong(GOOD, f"train.epochs={'x' * 5000}").problem) < 200


def test_files_that_are_no_recipe(tmp_path):
    (tmp_path / "food.toml").write_text("seed == 1")
    (tmp_path / "latin.toml").write_bytes('about = "größer"'.encode("latin-1"))
    for name, problem, remedy in (
        ("fodo.toml", "There is no recipe", "Did you mean"),
        ("zzz", "There is no recipe", "Give the path of a .toml file"),
        ("food.toml", "not valid TOML", "line 1"),
        ("latin.toml", "not valid TOML", "utf-8"),
    ):
        with pytest.raises(RecipeError) as caught:
            recipes.load(tmp_path / name, Recipe)
        assert problem in caught.value.problem
        assert remedy in caught.value.problem + caught.value.remedy


def test_a_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "r.toml").write_bytes(b'\xef\xbb\xbfseed = 4\n[data]\nsource="x"\n[model]\ncheckpoint="c"\n')
    assert recipes.load(tmp_path / "r.toml", Recipe).seed == 4


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.lr=3e-5", "train.captions_per_image=all", "train.eval_steps=50", "train.parts.vision=frozen"],
        ['about="two\\nlines, \\"quotes\\" and größer"', "data.rename_splits={}", "data.columns.extra=[]"],
        ['data.columns.caption=["a", "b"]', "data.source=C:\\photos", "train.max_grad_norm=inf"],
        ["model.image.size=64", 'score.metrics=["bleu4"]', "train.betas=[0.8, 0.9]", "generate.split=val"],
    ],
)
def test_written_as_toml_and_read_again_it_is_the_same(overrides, tmp_path):
    made = parse(GOOD, Recipe, overrides)
    text = to_toml(made)
    assert parse(tomllib.loads(text), Recipe) == made
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    assert recipes.load(tmp_path / "r.toml", Recipe) == made
    assert to_toml(recipes.load(tmp_path / "r.toml", Recipe)) == text


def test_a_model_from_scratch_survives_toml():
    table = {"data": {"source": "x"}, "model": {"family": "cnn_rnn", "new": {"vgg": 11, "tied": True}}}
    made = parse(table, Recipe)
    assert parse(tomllib.loads(to_toml(made)), Recipe) == made


def test_show_config_prints_a_whole_recipe_without_torch(tmp_path):
    (tmp_path / "r.toml").write_text('[data]\nsource = "x"\n[model]\ncheckpoint = "c"\n')
    script = """
import sys
from cutline.cli.main import main
try:
    main()
finally:
    print([name for name in ("torch", "transformers") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "run", "r.toml", "--show-config", "--set", "train.epochs=2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == "[]\n"
    shown = parse(tomllib.loads(done.stdout), Recipe)
    assert shown.train is not None
    assert shown.train.epochs == 2
    assert [path.name for path in tmp_path.iterdir()] == ["r.toml"]  # nothing is begun


VARIED = """
variant = "small"
[data]
source = "photos"
[model]
checkpoint = "model"
[train]
lr = 1e-3
parts = { vision = "frozen", text = "last:1" }
[variants.small]
[variants.large.model]
checkpoint = "larger"
[variants.large.train]
parts = { text = "full" }
"""


def test_one_key_chooses_a_variant_which_is_laid_over_the_rest(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(VARIED)
    small = recipes.load(path, Recipe)
    assert small.model.checkpoint == "model"
    large = recipes.load(path, Recipe, ["train.lr=2e-3", "variant=large"])
    assert large.model.checkpoint == "larger"
    assert large.train is not None
    assert large.train.parts == {"vision": "frozen", "text": "full"}
    assert large.train.lr == 2e-3
    # what is written down of a run needs no variants any more
    assert "variant" not in to_toml(large)


@pytest.mark.parametrize(
    ("text", "override", "problem", "remedy"),
    [
        (VARIED, "variant=larger", "no variant 'larger'", "Did you mean large? Variants: small, large."),
        (VARIED.replace('variant = "small"', ""), "seed=1", "none is chosen", "Variants: small, large."),
        (VARIED.replace("source", "sourse"), "seed=1", "unknown key data.sourse", "data.source"),
        (
            "variants = 3\n" + VARIED.partition("[variants")[0],
            "seed=1",
            "[variants] holds something other than sections",
            "[variants.name]",
        ),
        (VARIED.partition("[variants")[0], "seed=1", "unknown key variant", "Known: "),
    ],
)
def test_wrong_variants_are_explained(tmp_path, text, override, problem, remedy):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        recipes.load(path, Recipe, [override])
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("prompt", "says"),
    [("Describe it. {contxt}", "did you mean {context}?"), ("{headline} a photo of", "only {context} is replaced")],
)
def test_a_misspelt_place_in_the_prompt_is_an_error(prompt, says):
    """It would stand in every prompt as it is, and the model would never see the context."""
    from cutline.families.settings import ModelSettings

    with pytest.raises(ValueError, match=re.escape(says)):
        ModelSettings(checkpoint="any", prompt=prompt)
    assert ModelSettings(checkpoint="any", prompt="{context} a photo of").prompt == "{context} a photo of"


def test_defaults_read_back_from_toml_are_the_same_numbers():
    """An int in place of a float would change the fingerprint of a finished training."""
    made = parse({"data": {"source": "x"}, "model": {"checkpoint": "c"}, "train": {"lora": {}}}, Recipe)
    again = parse(tomllib.loads(to_toml(made)), Recipe)
    assert made.model_dump_json() == again.model_dump_json()
