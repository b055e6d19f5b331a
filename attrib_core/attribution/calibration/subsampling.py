"""Evidence with less in it: some queries alone, without exemplars, or with a smaller pool."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from attrib_core.attribution.calibration.similarities import Evidence
from attrib_core.common import hashing


def select(evidence: Evidence, chosen: np.ndarray) -> Evidence:
    """The chosen queries alone; `chosen` is (queries,) bool."""
    kept = chosen[evidence.query]
    part = _entries(evidence, kept)
    return replace(
        part,
        queries=[name for name, keep in zip(evidence.queries, chosen, strict=True) if keep],
        kinds=[kind for kind, keep in zip(evidence.kinds, chosen, strict=True) if keep],
        sets=[name for name, keep in zip(evidence.sets, chosen, strict=True) if keep],
        query=(np.cumsum(chosen) - 1)[part.query],
    )


def hold_out(evidence: Evidence) -> Evidence:
    """The same queries with their exemplars taken away: the pool alone, which holds no source of theirs."""
    return _regapped(_entries(evidence, np.arange(len(evidence.query)) >= evidence.exemplars))


def thin(evidence: Evidence, share: float, seed: int) -> Evidence:
    """The evidence as a smaller pool would give it: about this share of the distractors, all exemplars.

    A named distractor stays or goes by a number made of the seed and its name, for all queries alike;
    of a bin, whose candidates have no names, the share counts: the expected value. So the result has
    fractional counts, and does not depend on the order or the company of the queries.
    """
    if share >= 1.0:
        return evidence
    singles = evidence.exemplars + evidence.top
    kept = np.ones(len(evidence.query), bool)
    names = evidence.ids[evidence.exemplars : singles]
    kept[evidence.exemplars : singles] = [_place(seed, name) < share for name in names]
    count = evidence.count.copy()
    count[singles:] *= share
    return _regapped(_entries(replace(evidence, count=count), kept))


@lru_cache(maxsize=1 << 20)
def _place(seed: int, name: str) -> float:
    """A number in [0, 1) of a name, the same for every pool share: smaller pools are parts of larger ones."""
    return hashing.seed(seed, "pool share", name) / 2.0**63


def _entries(evidence: Evidence, kept: np.ndarray) -> Evidence:
    """Some entries; each query keeps its number."""
    singles = evidence.exemplars + evidence.top
    own = kept[: evidence.exemplars]
    return replace(
        evidence,
        query=evidence.query[kept],
        similarity=evidence.similarity[kept],
        gap=evidence.gap[kept],
        count=evidence.count[kept],
        exemplars=int(np.count_nonzero(own)),
        top=int(np.count_nonzero(kept[evidence.exemplars : singles])),
        ids=[name for name, keep in zip(evidence.ids, kept[:singles], strict=True) if keep],
        ahead=evidence.ahead[own],
        siblings=evidence.siblings[own],
    )


def _regapped(evidence: Evidence) -> Evidence:
    highest = np.full(len(evidence.queries), -np.inf)
    np.maximum.at(highest, evidence.query, evidence.similarity)
    return replace(evidence, gap=evidence.similarity - highest[evidence.query])
