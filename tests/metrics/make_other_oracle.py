"""Makes ``other_oracle.json``: what nltk and rouge_score make of the captions of ``make_oracle.py``.

Run with nltk 3.9 and rouge_score 0.1.2: ``python tests/metrics/make_other_oracle.py``. The tests only read the result.
"""

import json
from importlib import import_module
from pathlib import Path


def main() -> None:
    bleu = import_module("nltk.translate.bleu_score")  # not installed where the tests and the type checker run
    rouge = import_module("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    folder = Path(__file__).parent
    own = json.loads((folder / "oracle.json").read_text(encoding="utf-8"))
    split = {name: text.lower().split() for name, text in own["candidates"].items()}
    split_references = {name: [text.lower().split() for text in texts] for name, texts in own["references"].items()}
    ptb = {name: text.split() for name, text in own["candidate_tokens"].items()}
    ptb_references = {name: [text.split() for text in texts] for name, texts in own["reference_tokens"].items()}
    result: dict[str, dict[str, list[float]]] = {"split": {}, "ptb": {}}
    for tokens, candidates, references in (("split", split, split_references), ("ptb", ptb, ptb_references)):
        for method in (1, 2, 3, 4):
            smooth = getattr(bleu.SmoothingFunction(), f"method{method}")
            result[tokens][f"bleu4_nltk_smooth{method}"] = [
                float(bleu.sentence_bleu(references[name], words, smoothing_function=smooth))
                for name, words in candidates.items()
            ]
    found = [rouge.score_multi(own["references"][name], text) for name, text in own["candidates"].items()]
    for kind in ("rouge1", "rouge2", "rougeL"):
        result["ptb"][f"{kind}_f1"] = [float(each[kind].fmeasure) for each in found]
    text = json.dumps(result, indent=1) + "\n"
    (folder / "other_oracle.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
