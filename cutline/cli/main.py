"""The command line. Nothing heavy is imported before a verb runs, so that help comes at once."""

from __future__ import annotations

import atexit
import gc
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cutline.cli import bootstrap as bootstrap_verb
from cutline.cli import language as language_verb
from cutline.cli import terminal
from cutline.cli.retrieve import group as retrieve_verb
from cutline.cli.terminal import bar, say
from cutline.core.errors import CutlineError
from cutline.core.verbosity import quiet_libraries

app = typer.Typer(
    name="cutline",
    help="Adapt vision-language models to your own captioned images, caption with them, and know how good they are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Set = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a value of the recipe.")]
Tiny = Annotated[bool, typer.Option("--tiny", help="Rehearse with a random miniature of the model, on few images.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="The run folder; runs/<recipe> by default.")]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1", "mps".')]
Dtype = Annotated[str, typer.Option(help='Of the weights: "auto", "float32", "bfloat16", "float16".')]
RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe: a TOML file.")]


ScoreSet = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Another key of [score] (clipscore.model=…).")
]
Images = Annotated[Path | None, typer.Option(help="Folder with the images, for metrics that look at them.")]


class Failed(Exception):
    """Rows or checks failed; the talk about it is done. Exit code 1."""


@app.command(short_help="Do all that a recipe asks for; goes on where it was stopped.")
def run(
    recipe: RecipePath,
    out: Out = None,
    set: Set = [],  # noqa: B006 - typer copies it
    tiny: Tiny = False,
    only: Annotated[str, typer.Option(help="Some stages, with commas: prepare,train,caption,score,report …")] = "",
    show_config: Annotated[bool, typer.Option("--show-config", help="Print the resolved recipe and stop.")] = False,
    debug: Debug = False,
) -> None:
    """Do everything that a recipe asks for: prepare, train, caption, score, report.

    What is finished and unchanged is passed over; what was killed goes on where it stopped.
    """
    from cutline.core import config as recipes
    from cutline.run import run as runs

    loaded = recipes.load(recipe, runs.Recipe, set)
    if show_config:
        print(recipes.to_toml(loaded), end="")
        return
    quiet_libraries()
    stages = [stage.strip() for stage in only.split(",")] if only else runs.STAGES
    folder = out or runs.default_folder(recipe, tiny)
    finish(runs.Run(loaded, folder, tiny=tiny, bars=bar)(stages), folder, captioned="caption" in stages)


@app.command(short_help="Train, caption and score on drawn pictures, in a few minutes.")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder.")] = Path("runs/demo"),
    tiny: Tiny = False,
    debug: Debug = False,
) -> None:
    """Train, caption and score a small model on drawn pictures: no download, no GPU, a few minutes."""
    from cutline.cli import demo as demonstration

    quiet_libraries()
    finish(demonstration.run(out, tiny=tiny), out)
    demonstration.show(out)


@app.command(short_help="Turn captioned images of any format into a dataset.")
def prepare(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="File or folder with the captioned images, or a recipe.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the prepared dataset.")],
    set: Set = [],  # noqa: B006
    steps: Annotated[str, typer.Option(help="Of the recipe's [data.steps], take these only; with commas.")] = "",
    retry: Annotated[str, typer.Option(metavar="failed", help="Fetch again what failed in an earlier run.")] = "",
    engine: Annotated[str, typer.Option(help='"threads" here, or "ray" on a cluster.')] = "threads",
    debug: Debug = False,
) -> None:
    """Turn captioned images of any format into a dataset that every verb reads.

    The source's format is recognised by itself; --set data.format=…, data.images=…, data.columns.caption=… and the
    other keys of a recipe's [data] section say what can't be. Sources may hold addresses instead of files: then
    --set data.steps.download={} fetches them.
    """
    from cutline.cli import prepare as prepare_verb

    prepare_verb.run(source, out, set, [name.strip() for name in steps.split(",")] if steps else None, retry, engine)


@app.command(short_help="Look into a dataset: what is in it, and what will spoil a training.")
def inspect(
    source: Annotated[Path, typer.Argument(metavar="DATASET", help="A prepared dataset, a run, a source, a recipe.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page; <name>-inspection.html by default.")
    ] = None,
    set: Set = [],  # noqa: B006
    names: Annotated[
        str, typer.Option(metavar="MODEL", help="spaCy pipeline for names; a simple rule by default.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and write a page only with --out.")] = False,
    debug: Debug = False,
) -> None:
    """Look into a dataset or a source, and write a page about it: the worst finding first.

    Repeated captions, pictures in two splits, broken images, sizes, lengths, languages, and how much of the captions
    the context gives away. Nothing but the page is written. Exit code 1 when a split or the context leaks.
    """
    from cutline.cli import inspect as inspect_verb

    if not inspect_verb.run(source, out, set, names, json):
        raise Failed


@app.command(short_help="Probe a recipe's labels, model and data before training.")
def check(
    recipe: RecipePath,
    out: Out = None,
    set: Set = [],  # noqa: B006
    tiny: Tiny = False,
    only: Annotated[str, typer.Option(help="Probes to make, with commas; all by default.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """Probe what a recipe would train: labels, leaks, end token, batches, checkpoint, data.

    Each probe says passed, failed (what, why it matters, what to do), or not applicable. Exit code 1 when one failed.
    """
    from cutline.cli import check as check_verb
    from cutline.core import config as recipes
    from cutline.run import run as runs

    quiet_libraries()
    folder = out or runs.default_folder(recipe, tiny)
    run = runs.Run(recipes.load(recipe, runs.Recipe, set), folder, tiny=tiny, bars=bar)
    if not check_verb.run(run, [name.strip() for name in only.split(",")] if only else [], json, debug):
        raise Failed


@app.command(short_help="Count what a recipe would train, without its weights.")
def plan(
    recipe: RecipePath,
    set: Set = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """Count the parameters of each part of a recipe's model, in all and trained, without its weights.

    The configurations of the checkpoints that Cutline's recipes name are built in: nothing is downloaded for them.
    """
    from cutline.cli import plan as plan_verb

    quiet_libraries()
    plan_verb.run(recipe, set, json)


@app.command(short_help="Prepare and train, without captioning and scoring.")
def train(
    recipe: RecipePath,
    out: Out = None,
    set: Set = [],  # noqa: B006
    tiny: Tiny = False,
    debug: Debug = False,
) -> None:
    """Prepare and train, without captioning and scoring."""
    from cutline.core import config as recipes
    from cutline.run import run as runs

    quiet_libraries()
    folder = out or runs.default_folder(recipe, tiny)
    runs.Run(recipes.load(recipe, runs.Recipe, set), folder, tiny=tiny, bars=bar)(("prepare", "train"))


@app.command(short_help="Caption images; an image without caption says why.")
def caption(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A run folder, a checkpoint folder, or its name on the hub.")
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES", help="Images, folders of images, a prepared dataset, or - for stdin."),
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="File to write; - for stdout.")] = "-",
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="jsonl, csv, tsv, coco, txt (a .txt for each image) or submission (a CSV of image_id, caption); by "
            "-o's ending.",
        ),
    ] = "",
    split: Annotated[str, typer.Option(help="Of a dataset: the split to caption; all by default.")] = "",
    beams: Annotated[int | None, typer.Option(min=1, help="Beams of the beam search.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest caption, in tokens.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images at a time.")] = None,
    set: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Another generation setting (do_sample=true).")
    ] = [],  # noqa: B006
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed images again.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin the file anew instead of going on.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    debug: Debug = False,
) -> None:
    """Caption images. Killed at any moment, it goes on where it stopped; an image without caption says why."""
    from cutline.cli import caption as caption_verb

    quiet_libraries()
    changes = {"num_beams": beams, "max_new_tokens": max_tokens, "batch_size": batch_size}
    failed = caption_verb.run(
        checkpoint, images, out, form, split, {k: v for k, v in changes.items() if v is not None}, set,
        retry_failed=retry_failed, overwrite=overwrite, device=device, dtype=dtype,
    )  # fmt: skip
    if failed:
        raise Failed


@app.command(short_help="Score captions: intervals, signatures, baselines.")
def score(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="predictions.jsonl, COCO results JSON, CSV or TSV.")
    ],
    references: Annotated[
        Path,
        typer.Argument(metavar="REFERENCES", help="A prepared dataset, COCO or Karpathy JSON, JSON lines, CSV."),
    ],
    split: Annotated[str, typer.Option(help="Of the references: the split to score against.")] = "",
    metrics: Annotated[str, typer.Option(help="Metrics, with commas; the usual ones by default.")] = "",
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples for the intervals.")] = 1000,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Score missing captions as empty.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for scores.json and per_image.jsonl.")] = None,
    images: Images = None,
    set: ScoreSet = [],  # noqa: B006
    debug: Debug = False,
) -> None:
    """Score captions against references, with intervals, signatures and baselines."""
    from cutline.cli import score as score_verb

    quiet_libraries(load=False)
    chosen = [name.strip() for name in metrics.split(",")] if metrics else None
    score_verb.run(
        predictions, references, split or None, chosen, resamples, allow_missing, json, out, changes=set, images=images
    )


@app.command(short_help="Compare captions of the same images by paired tests.")
def compare(
    predictions: Annotated[
        list[Path], typer.Argument(metavar="PREDICTIONS...", help="Two files or more; the first is the base.")
    ],
    references: Annotated[Path, typer.Option("--references", "-r", help="As for cutline score.")],
    split: Annotated[str, typer.Option(help="Of the references: the split to score against.")] = "",
    metrics: Annotated[str, typer.Option(help="Metrics, with commas; the usual ones by default.")] = "",
    resamples: Annotated[int, typer.Option(min=1, help="Resamples of both tests.")] = 1000,
    by: Annotated[str, typer.Option(help="The score by which the images that moved most are chosen.")] = "cider",
    most: Annotated[int, typer.Option(min=0, help="How many images that gained, and that lost, most to list.")] = 5,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Score missing captions as empty.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    images: Images = None,
    set: ScoreSet = [],  # noqa: B006
    debug: Debug = False,
) -> None:
    """Compare captions of the same images: differences with intervals, paired tests, the images that moved most."""
    from cutline.cli import compare as compare_verb

    quiet_libraries(load=False)
    chosen = [name.strip() for name in metrics.split(",")] if metrics else None
    compare_verb.run(
        predictions, references, split or None, chosen, resamples, by, json, most, allow_missing,
        changes=set, images=images,
    )  # fmt: skip


@app.command(short_help="Write a run's report as one HTML file.")
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    debug: Debug = False,
) -> None:
    """Write a run's report: one HTML file with scores, curves, examples and the recipe."""
    from cutline.report.page import write

    if not run.is_dir():
        raise CutlineError(f"There is no run folder {run}.", "Give a folder that cutline run made.")
    say(f"report: {write(run)}")


@app.command(short_help="List the model families.")
def families(debug: Debug = False) -> None:
    """List the model families that can be opened. Some only embed images and texts; docs/families.md says which."""
    from cutline import families as found

    print("\n".join(found.names()))


app.command(short_help="Caption web images, filter captions by matching, join what is left.")(bootstrap_verb.bootstrap)
app.command(short_help="Teach a small language model captions, for vision_prefix to open.")(language_verb.language)
app.add_typer(retrieve_verb.app, short_help="Find images by text and texts by image; evaluate that.")


def finish(evaluation: Any, folder: Path, captioned: bool = True) -> None:
    """Prints a run's scores on stdout; a run with failed images fails."""
    from cutline.cli import tables as run_verb

    if not run_verb.show(evaluation, folder, captioned):
        raise Failed


def version(value: bool) -> None:
    if value:
        import cutline

        print(cutline.__version__)
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Exit code 0: done; 1: images or checks failed; 2: something the user can mend; 130: interrupted."""
    # at the very end the collector would go through all that torch and transformers hold, for two seconds of CPU
    atexit.register(gc.freeze)
    debug = "--debug" in sys.argv
    terminal.install()
    try:
        app(standalone_mode=True)
    except Failed:
        sys.exit(1)
    except CutlineError as error:
        if debug:
            raise
        complain(error.problem, error.remedy)
    except OSError as error:  # no space, no permission, a folder where a file belongs
        if debug or error.errno is None:
            raise
        place = f": {error.filename}" if error.filename else ""
        complain(f"{error.strerror}{place}.", "Mend that and start the same command again; --debug shows where it was.")
    except SystemExit as stop:
        if stop.code == 130:
            print("stopped; the same command goes on from here", file=sys.stderr)
        raise


def complain(problem: str, remedy: str) -> NoReturn:
    """One line for the problem, one for the remedy, and exit code 2."""
    print(f"error: {' '.join(problem.split())}\n       {' '.join(remedy.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
