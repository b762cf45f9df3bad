"""Makes ``oracle.json``: small captions of our own and what the reference makes of them.

Run with pycocoevalcap 1.2 and Java: ``python tests/metrics/make_oracle.py``. The tests only read the result.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

CANDIDATES = {
    "dog": "a brown dog runs through the snow",
    "exact": "Two children play football on a beach.",
    "empty": "",
    "loop": "a man and a man and a man and a man and a man",
    "unknown": "zyzzyva quokka wombat",
    "short": "bike",
    "punctuation": "Wait... what's that? It's Mr. Smith's dog, isn't it!",
    "numbers": "1 1/2 cups of flour for $5.00, i.e. 50% off at 10:30 a.m.",
    "hyphens": "A T-shirt-wearing, well-known man (in red) can't swim",
    "curly": "“She’s here” — he said… the café’s façade",
    "long": " ".join(["a man in a red shirt rides his bike past the old house by the river"] * 6),
    "repeat": "the dog chases the dog by the dog near the dog",
    "capitals": "Visit to the U.S. in Jan. 1999 by Dr. K. Brown Inc.",
    "url": "see http://example.com/a?b=c and mail me@example.org #now @home",
}
REFERENCES = {
    "dog": ["A brown dog is running in the snow .", "The dog runs through deep snow.", "A dog plays outside in winter"],
    "exact": ["Two kids play soccer at the beach", "two children play football on a beach", "People by the sea."],
    "empty": ["A plane in the sky", "An airplane flies over the clouds."],
    "loop": ["A man and a woman walk", "Two people are walking down the street", "A couple strolls in town."],
    "unknown": ["A kangaroo stands in a field", "an animal on the grass"],
    "short": ["A bike", "A bicycle leans against a wall.", "A red bike is parked in front of a store", "bike"],
    "punctuation": ["It is Mr. Smith's dog!", "What's that dog doing here?", "Isn't that the neighbour's dog? Wait."],
    "numbers": ["1 1/2 cups of flour cost $5.00.", "Flour, 50% off, at 10:30 a.m.", "One and a half cups of flour"],
    "hyphens": ["A man wearing a T-shirt (red) cannot swim.", "The well-known man in red can't swim"],
    "curly": ['"She\'s here," he said...', "The cafe's facade", "“She’s here” – he says at the café"],
    "long": [
        " ".join(["a cyclist in red passes an old house by the river on his bike"] * 5),
        "A man rides a bike by the river.",
        " ".join(["a man in a red shirt rides past"] * 12),
    ],
    "repeat": ["The dog chases the dog", "dogs near the dog by the other dog", "the the the the"],
    "capitals": ["A visit to the U.S. in January 1999", "Dr. Brown of K. Brown Inc. in Jan. 1999."],
    "url": ["See example.com now", "mail me @home #now", "see http://example.com/a?b=c"],
}


def main() -> None:
    def of(module: str, name: str) -> Any:  # not installed where the tests and the type checker run
        return getattr(import_module(f"pycocoevalcap.{module}"), name)

    tokenize = of("tokenizer.ptbtokenizer", "PTBTokenizer")().tokenize
    candidates = tokenize({name: [{"caption": text}] for name, text in CANDIDATES.items()})
    references = tokenize({name: [{"caption": text} for text in texts] for name, texts in REFERENCES.items()})
    scores, per_image = {}, {}
    for metric, names in (
        (of("bleu.bleu", "Bleu")(4), ["bleu1", "bleu2", "bleu3", "bleu4"]),
        (of("rouge.rouge", "Rouge")(), ["rouge_l"]),
        (of("cider.cider", "Cider")(), ["cider"]),
        (of("meteor.meteor", "Meteor")(), ["meteor"]),
    ):
        value, values = metric.compute_score(references, candidates)
        if len(names) == 1:
            value, values = [value], [values]
        for name, one, many in zip(names, value, values, strict=True):
            scores[name], per_image[name] = float(one), [float(item) for item in many]
    result = {
        "about": "pycocoevalcap 1.2; raw captions, its tokens, its scores; per image in the order of the ids",
        "candidates": CANDIDATES,
        "references": REFERENCES,
        "candidate_tokens": {name: texts[0] for name, texts in candidates.items()},
        "reference_tokens": references,
        "scores": scores,
        "per_image": per_image,
    }
    path = Path(__file__).with_name("oracle.json")
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
