"""The recipe's section ``[retrieve]``."""

from __future__ import annotations

from pydantic import Field

from cutline.core.config import Section


class RetrieveSettings(Section):
    """How retrieval is evaluated: image → text (TR) and text → image (IR)."""

    split: str = Field("auto", description='split of the dataset; "auto": test, or val if there is no test')
    rerank: int = Field(
        128,
        ge=0,
        description="nearest candidates of each query that are ranked again by cosine + matching logit, if the model "
        "has a trained matching head; 0: embeddings alone; published: 128; if set, an untrained head is an error",
    )
    verify: bool = Field(False, description="in half precision: also compute pairs that could change a rank in float32")
    hits: int = Field(
        10, ge=0, description="best candidates of a query to list in hits.jsonl, besides the correct ones"
    )
    resamples: int = Field(1000, ge=0, description="bootstrap resamples of the images, for the confidence intervals")
    text_batch_size: int = Field(256, ge=1, description="texts to embed at a time")


class RetrieveRecipe(Section):
    """The part of a recipe that an evaluation of a checkpoint needs."""

    retrieve: RetrieveSettings
