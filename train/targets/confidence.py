"""Whether a teacher is confident of anything: otherwise the terms that ask are zero for a whole training."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mmengine.logging import print_log

from cache_schema.detections import DETECTION_SCORES
from cache_schema.reader import TargetReader
from cache_schema.spec import StoreSpec
from train.targets.checks import TargetsUnfit

LOOKED_AT = 64
# Looked at when hardly any of these is confident, to tell a rare one from none.
LOOKED_AT_IN_DOUBT = 512
FEW = 0.01


def check_confidence(
    reader: TargetReader,
    sample_tokens: Sequence[str],
    terms: Sequence[str],
    *,
    min_score: float,
) -> None:
    """Look at the detections of samples spread over those that are trained on; warn when few are sure.

    Args:
        terms: those that ask how sure the teacher is, see `DistillerConfig.reading_confidence`.
        min_score: see AreaOptions.

    Raises TargetsUnfit, with the best score found, when none is.
    """
    for count in (LOOKED_AT, LOOKED_AT_IN_DOUBT):
        best = best_scores(reader, spread(sample_tokens, count))
        confident = sum(score >= min_score for score in best)
        if confident > 1:
            break
    found = f"the best score is {max(best):.3g} in {len(best)} samples spread over {reader.path}"
    if not confident:
        raise TargetsUnfit(
            f"no detection of the teacher reaches areas.min_score {min_score:g}: {found}.\n"
            f"{', '.join(terms)} would get nothing from the teacher in the whole training."
            f" {way_down(reader.spec, max(best))}, look at the teacher's own score with train/evaluate.py, or"
            " leave these terms out."
        )
    if confident < FEW * len(best):
        print_log(
            f"only {confident} of {len(best)} samples have a detection that reaches areas.min_score"
            f" {min_score:g} ({found}): {', '.join(terms)} get next to nothing from the teacher. A lower"
            " distiller.areas.min_score would let more of them count.",
            "current",
            level=logging.WARNING,
        )


def best_scores(reader: TargetReader, sample_tokens: Sequence[str]) -> list[float]:
    """The score of each sample's best detection; 0 where the teacher detected nothing."""
    scores = (reader.read(token, [DETECTION_SCORES])[DETECTION_SCORES] for token in sample_tokens)
    return [float(found.max(initial=0.0)) for found in scores]


def spread(sample_tokens: Sequence[str], count: int) -> list[str]:
    """`count` of the tokens at even distances, or all of them."""
    n = min(count, len(sample_tokens))
    return [sample_tokens[number * len(sample_tokens) // n] for number in range(n)]


def way_down(spec: StoreSpec, best: float) -> str:
    """How to let more count: half the best score, with one digit, unless the store kept less."""
    kept_from = 0.0 if spec.focal is None else spec.focal.min_score
    if spec.layer is not None and (best < kept_from or best == 0):
        return "Train the head longer, or make another layer with a lower --min-score"
    if best < kept_from or best == 0:
        return "Dump again with a lower --focal-min-score: this store kept nothing"
    lower = max(float(f"{best / 2:.0e}"), kept_from)
    return f"Lower it, such as --cfg-options distiller.areas.min_score={lower:g}"
