"""The checker on its corpus: no right gradient is called wrong, no wrong one right.

`make gradcheck-rates` runs it on 20 seeds and beside other libraries' checkers. Here the seeds are
new in every run, and fewer.
"""

from __future__ import annotations

import pytest
from rates import CORPORA, row, run, worst

OURS = "scratchvae.gradcheck.check"


def judge(results):
    right = [r for r in results if not r.mistake]
    wrong = [r for r in results if r.mistake]
    print(row("ours", results, 0))
    print(worst(results))
    assert [r for r in right if r.verdict in ("wrong", "refused")] == []
    assert sum(r.verdict == "right" for r in right) >= 0.85 * len(right)
    passed = [r for r in wrong if r.verdict == "right"]
    assert len(passed) <= 0.005 * len(wrong)
    assert all(r.error <= 1e-5 for r in passed), passed
    # Of one or two numbers, or of one row, another explanation may be as true as what was written.
    assert sum(r.cause.startswith("false") for r in wrong) <= 0.005 * len(wrong)
    return sum(r.cause == "true" for r in wrong) / len(wrong)


def test_the_corpus_is_large_and_half_of_it_drawn():
    right, wrong, drawn_right, drawn_wrong = CORPORA["corpus"].count()
    assert min(right, wrong) >= 100
    assert drawn_right >= 0.45 * right
    assert drawn_wrong >= 0.45 * wrong


def test_one_seed_of_some_pairs(rng):
    some = rng.permutation(len(CORPORA["corpus"].pairs))[::3]
    results = run("corpus", OURS, 1, start=int(rng.integers(2**31)), workers=1, only=some)
    print(worst(results))
    assert [r for r in results if not r.mistake and r.verdict in ("wrong", "refused")] == []
    assert [r for r in results if r.mistake and r.verdict == "right" and r.error > 1e-5] == []


@pytest.mark.slow
@pytest.mark.parametrize("corpus", CORPORA)
def test_five_seeds_of_each_pair(rng, corpus):
    named = judge(run(corpus, OURS, seeds=5, start=int(rng.integers(2**31)), workers=1))
    assert named >= 0.75 or corpus != "corpus"
