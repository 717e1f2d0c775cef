"""Whether a teacher is confident of anything: otherwise the terms that ask are zero for a whole training."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import print_log

from cache_schema.reader import TargetReader
from cache_schema.spec import StoreSpec
from train.targets.checks import TargetsUnfit
from train.targets.layout import TargetLayout, stored_names
from train.targets.teacher_targets import TeacherTargets

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
    at_most: int,
) -> None:
    """Look at the queries of samples spread over those that are trained on; warn when few are confident.

    Args:
        terms: those that read the confidence of queries, see `DistillerConfig.reading_confidence`.
        min_score, at_most: see AreaOptions.

    Raises TargetsUnfit, with the best score found, when no query is.
    """
    for count in (LOOKED_AT, LOOKED_AT_IN_DOUBT):
        best = best_scores(reader, spread(sample_tokens, count), at_most=at_most)
        confident = sum(score >= min_score for score in best)
        if confident > 1:
            break
    found = f"the best score is {max(best):.3g} in {len(best)} samples spread over {reader.path}"
    if not confident:
        raise TargetsUnfit(
            f"no query of the teacher reaches areas.min_score {min_score:g}: {found}.\n"
            f"{', '.join(terms)} would get nothing from its queries in the whole training."
            f" {way_down(reader.spec, max(best))}, look at the teacher's own score with train/evaluate.py, or"
            " leave these terms out."
        )
    if confident < FEW * len(best):
        print_log(
            f"only {confident} of {len(best)} samples have a query that reaches areas.min_score {min_score:g}"
            f" ({found}): {', '.join(terms)} get next to nothing from the teacher's queries. A lower"
            " distiller.areas.min_score would let more of them count.",
            "current",
            level=logging.WARNING,
        )


def best_scores(reader: TargetReader, sample_tokens: Sequence[str], *, at_most: int) -> list[float]:
    """The score of each sample's best query, as a training sees it; 0 where a store kept none."""
    layout, names = TargetLayout.of_store(reader.spec), stored_names(reader.spec, ("query_logits",))
    best = []
    for token in sample_tokens:
        sample = {name: torch.from_numpy(values) for name, values in reader.read(token, names).items()}
        scores = TeacherTargets([sample], layout).confidence(min_score=0.0, at_most=at_most)
        best.append(scores.max().item())
    return best


def spread(sample_tokens: Sequence[str], count: int) -> list[str]:
    """`count` of the tokens at even distances, or all of them."""
    n = min(count, len(sample_tokens))
    return [sample_tokens[number * len(sample_tokens) // n] for number in range(n)]


def way_down(spec: StoreSpec, best: float) -> str:
    """How to let queries count: half the best score, with one digit, unless the store kept less."""
    if best == 0:
        return "Dump again with a lower --focal-confidence: this store kept no query"
    kept_from = 0.0 if spec.focal is None else spec.focal.confidence
    lower = max(float(f"{best / 2:.0e}"), kept_from)
    return f"Lower it, such as --cfg-options distiller.areas.min_score={lower:g}"
