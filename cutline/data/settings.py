"""The recipe's [data] section: where the captioned images come from and how they become a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from cutline.core.config import Section
from cutline.data.steps import Steps

if TYPE_CHECKING:
    KnownSteps = Steps
else:
    KnownSteps = Steps.known()


class Columns(Section):
    """[data.columns]: which column of a table means what. Only tables need it, and only where the guesses fail."""

    id: str | None = Field(
        default=None,
        description="column with a unique name for each sample; by default the image's name as the table has it",
    )
    image: str | None = Field(
        default=None,
        description='column with the image\'s file name; by default "image", "file_name", "path" or a similar name',
    )
    caption: str | list[str] | None = Field(
        default=None,
        description="column or columns with the captions (a cell holds one caption or a list of them); by default "
        '"caption", "captions", "caption_1" … "caption_5", "text", "sentence", "description", "title" and the like',
    )
    split: str | None = Field(
        default=None,
        description='column that says train, val or test; by default "split" or "partition"',
    )
    group: str | None = Field(
        default=None,
        description="column whose values must not be divided between splits (an article, a patient, a location); "
        'by default "group", "group_id" or "article_id"; where there is none, each image is its own group',
    )
    context: list[str] = Field(
        default=[],
        description="columns whose text may stand in the prompt, such as a headline; never the caption itself",
    )
    extra: list[str] | None = Field(
        default=None,
        description="other columns to keep; by default all that have no other meaning, [] for none",
    )


class DataSettings(Section):
    """[data]: the source, how it is read, and how it is divided into splits."""

    source: str | None = Field(
        default=None,
        description="file or folder with the captioned images, in any of the formats that can be read",
    )
    format: str | None = Field(
        default=None,
        description="name of the reader (coco, karpathy, table, goodnews …); by default recognised",
    )
    images: str | None = Field(
        default=None,
        description="folder in which relative image names are looked up; by default the source's own folder "
        "and its images/ folder",
    )
    columns: Columns = Field(
        default=Columns(),
        description="meaning of the columns, where they are not recognised",
    )
    steps: KnownSteps = Field(
        default=KnownSteps(),
        description="preparation steps: rewrite, download, resize …, each with a section of its own",
    )
    dataset: str | None = Field(
        default=None,
        description="folder of the prepared dataset; by default <run>/dataset",
    )
    val: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of the samples (0–1) for validation; used only when the source gives no splits",
    )
    test: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of the samples (0–1) for the test; used only when the source gives no splits",
    )
    seed: int = Field(
        default=0,
        description="seed for dividing groups between splits and for the choice of `max_samples`",
    )
    rename_splits: dict[str, str] = Field(
        default={"restval": "train"},
        description="the source's name of a split = the name that it gets; two may become one. The default adds "
        "Karpathy's restval to train, as is usual. {} renames none, except that validation, valid and dev become val",
    )
    captions_required: bool = Field(
        default=True,
        description="true leaves a sample without any caption out and counts it as no_caption; false keeps it, "
        "for captioning or searching images that nobody has captioned",
    )
    max_lost_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the source's rows (0–1) that may be lost before preparing fails",
    )
    max_pixels: int = Field(
        default=100_000_000,
        ge=1,
        description="an image with more pixels (width × height, px) is refused before it is decoded",
    )
    max_samples: int | None = Field(
        default=None,
        ge=1,
        description="largest number of samples of each split, drawn with the seed; by default all",
    )

    @model_validator(mode="after")
    def _leaves_something_for_training(self) -> DataSettings:
        if self.val + self.test >= 1:
            raise ValueError("val and test together leave nothing for training")
        return self


class PrepareRecipe(Section):
    """The part of a recipe that preparing needs."""

    data: DataSettings
