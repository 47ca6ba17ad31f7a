"""How often gradient checkers are wrong: on the corpus, ours and those of PyTorch, JAX and SciPy.

    python tests/gradcheck_corpus/rates.py [--seeds 20] [--held-out] [--out FILE.md]

Each checker has its own defaults. SciPy's returns a number and no verdict: it is taken to say
"wrong" above 1e-5 of the gradient's length, or above 1e-5 where that is below 1.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from held_out import HELD_OUT
from held_out_again import HELD_OUT_AGAIN
from pairs import CORPUS

CORPORA = {"corpus": CORPUS, "held out": HELD_OUT, "held out again": HELD_OUT_AGAIN}


class Result(NamedTuple):
    entry: str
    mistake: str  # "" for a right pair
    seed: int
    error: float  # of the wrong gradient
    verdict: str  # right, wrong, cannot tell, refused
    cause: str  # "", "true", "false"
    calls: int  # of forward
    seconds: float
    message: str


class Counted:
    """A forward pass that counts its calls."""

    def __init__(self, f: Any) -> None:
        self.f, self.calls, self.__name__ = f, 0, f.__name__
        self.__wrapped__ = f  # for its signature

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self.f(*args)


# ------------------------------------------------------------------------------- the checkers


def ours(case: Any, f: Any, rest: list[Any]) -> tuple[str, str, str]:
    from scratchvae import InputError
    from scratchvae.gradcheck import GradientError, check

    try:
        check(f, *rest, case.args, rng=case.seed)
        return "right", "", ""
    except GradientError as error:
        return error.report.verdict, error.report.cause, str(error)
    except InputError as error:
        return "refused", "", str(error)


def _moving(case: Any, f: Any, backward: Any) -> tuple[list[int], Any]:
    """Return which arguments have a gradient, and their vector-Jacobian product."""
    y, cache = f(*case.args)
    given = backward(np.ones_like(y), cache)
    n = len(given) if isinstance(given, tuple) else 1
    where = list(case.pair.wrt or range(n))

    def vjp(*moving: Any) -> Any:
        args = list(case.args)
        for i, a in zip(where, moving, strict=True):
            args[i] = np.array(a)
        y, cache = f(*args)

        def pull(dy: Any) -> Any:
            given = backward(np.asarray(dy), cache)
            given = given if isinstance(given, tuple) else (given,)
            return tuple(np.array(g) for g in given)

        return np.asarray(y), pull

    return where, vjp


def torchs(case: Any, f: Any, rest: list[Any]) -> tuple[str, str, str]:
    import torch
    from torch.autograd.gradcheck import GradcheckError

    where, vjp = _moving(case, f, *rest)

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            y, ctx.pull = vjp(*(a.detach().numpy().copy() for a in args))
            return torch.tensor(y)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, dy: Any) -> Any:
            return tuple(torch.tensor(g) for g in ctx.pull(dy.numpy()))

    leaves = [torch.tensor(np.array(case.args[i]), requires_grad=True) for i in where]
    try:
        torch.autograd.gradcheck(Function.apply, leaves)
    except GradcheckError as error:
        return "wrong", "", str(error)
    except RuntimeError as error:  # of the autograd engine: a gradient of another shape
        return ("wrong" if "shape" in str(error) else "refused"), "", str(error)
    return "right", "", ""


def jaxs(case: Any, f: Any, rest: list[Any]) -> tuple[str, str, str]:
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    from jax.test_util import check_vjp

    where, vjp = _moving(case, f, *rest)
    np.random.seed(case.seed)  # noqa: NPY002  (JAX draws its directions from there)
    moving = tuple(case.args[i] for i in where)
    try:
        check_vjp(lambda *args: vjp(*args)[0], vjp, moving)
    except AssertionError as error:
        return "wrong", "", str(error)
    return "right", "", ""


def scipys(case: Any, f: Any, rest: list[Any]) -> tuple[str, str, str]:
    from scipy.optimize import check_grad

    where, vjp = _moving(case, f, *rest)
    shapes = [np.shape(case.args[i]) for i in where]
    ends = np.cumsum([int(np.prod(s)) for s in shapes])
    dy = np.random.default_rng(case.seed).standard_normal(np.shape(f(*case.args)[0]))

    def split(x: Any) -> list[Any]:
        return [a.reshape(s) for a, s in zip(np.split(x, ends[:-1]), shapes, strict=True)]

    def func(x: Any) -> float:
        return float((dy * vjp(*split(x))[0]).sum())

    def grad(x: Any) -> Any:
        given = vjp(*split(x))[1](dy)
        if [g.shape for g in given] != shapes:
            raise AssertionError("shapes")
        return np.concatenate([g.ravel() for g in given])

    x = np.concatenate([np.ravel(case.args[i]) for i in where])
    try:
        error, size = check_grad(func, grad, x), np.linalg.norm(grad(x))
    except AssertionError as wrong:
        return "wrong", "", str(wrong)
    return ("right" if error <= 1e-5 * max(1, size) else "wrong"), "", f"{error}"


CHECKERS = {
    "scratchvae.gradcheck.check": ours,
    "torch.autograd.gradcheck": torchs,
    "jax.test_util.check_vjp": jaxs,
    "scipy.optimize.check_grad": scipys,
}


# ------------------------------------------------------------------------------- measuring


def measure(job: tuple[str, int, str, int, int]) -> list[Result]:
    """Run one checker on all cases of one pair."""
    corpus, n, checker, seeds, start = job
    found = []
    warnings.simplefilter("ignore")
    for case in CORPORA[corpus].cases(n, seeds, start):
        f, *rest = case.functions
        with np.errstate(all="ignore"):
            error = case.error()
        if case.mistake and not error > 1e-12:  # nothing wrong with it on these arguments
            continue
        if not rest and checker != "scratchvae.gradcheck.check":
            continue  # layers: the others take functions
        forward = Counted(f if rest else f.forward)
        if rest:
            f = forward
        else:
            f.forward = forward
        before = time.perf_counter()
        try:
            verdict, cause, message = CHECKERS[checker](case, f, rest)
        except Exception as crash:
            verdict, cause, message = "refused", "", f"{type(crash).__name__}: {crash}"
        seconds = time.perf_counter() - before
        cause = cause if verdict == "wrong" else ""
        if case.mistake and cause:
            # That it is zero, or wrong in some coordinates, explains nothing but is never false.
            plain = "" if cause in ("some coordinates", "shape", "zero") else f"false: {cause}"
            cause = "true" if cause in case.mistake.causes else plain
        mistake = case.mistake.name if case.mistake else ""
        found.append(
            Result(case.entry, mistake, case.seed, error, verdict, cause, forward.calls, seconds,
                   message)
        )  # fmt: skip
    return found


def run(
    corpus: str, checker: str, seeds: int, start: int = 0, workers: int = 2, only: Any = None
) -> list[Result]:
    """Run one checker on all pairs, or on those with the given positions."""
    numbers = range(len(CORPORA[corpus].pairs)) if only is None else only
    jobs = [(corpus, int(n), checker, seeds, start) for n in numbers]
    if workers == 1:
        return [r for job in jobs for r in measure(job)]
    with ProcessPoolExecutor(workers) as pool:
        return [r for found in pool.map(measure, jobs) for r in found]


MEASURES = (
    *("seeds", "right pairs: called wrong", "cannot tell", "refused", "called right"),
    *("wrong pairs: called right", "cannot tell", "refused", "called wrong"),
    *("... with a true cause", "... with no cause", "... with a false cause"),
    *("calls", "ms"),
)


def row(results: list[Result], seeds: int) -> list[str]:
    """Return the cells of `MEASURES` for one checker."""
    right = [r for r in results if not r.mistake]
    wrong = [r for r in results if r.mistake]

    def share(some: list[Result], all_: list[Result]) -> str:
        return f"{100 * len(some) / max(len(all_), 1):.1f}"

    def verdicts(all_: list[Result]) -> dict[str, list[Result]]:
        kinds = ("right", "wrong", "cannot tell", "refused")
        return {v: [r for r in all_ if r.verdict == v] for v in kinds}

    r, w = verdicts(right), verdicts(wrong)
    accused = w["wrong"]
    true, false = ([x for x in accused if x.cause.startswith(c)] for c in ("true", "false"))
    none = [x for x in accused if not x.cause]
    cells = [
        *(str(seeds), share(r["wrong"], right), share(r["cannot tell"], right)),
        *(share(r["refused"], right), share(r["right"], right)),
        *(share(w["right"], wrong), share(w["cannot tell"], wrong), share(w["refused"], wrong)),
        *(share(w["wrong"], wrong), share(true, wrong), share(none, wrong), share(false, wrong)),
        f"{np.median([x.calls for x in right]):.0f}",
        f"{1e3 * np.median([x.seconds for x in right]):.1f}",
    ]
    return cells


def table(columns: dict[str, list[str]]) -> str:
    """Return a table with a column for each checker."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for measure, *cells in zip(MEASURES, *columns.values(), strict=True):
        lines.append(f"| {measure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def worst(results: list[Result]) -> str:
    """Name the entries that a checker gets wrong."""
    lines = Counter[str]()
    for r in results:
        what = f"{r.entry}: {r.mistake or 'RIGHT'} -> {r.verdict} {r.cause}"
        bad = r.verdict != "right" if not r.mistake else r.verdict != "wrong" or r.cause != "true"
        lines[what] += bad
    return "\n".join(f"{n:4} {what}" for what, n in sorted(lines.items()) if n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--anchor-seeds", type=int, default=5, help="0: ours alone")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--only", choices=list(CORPORA), help="one of the corpora")
    parser.add_argument("--out", type=Path, help="write the table there")
    parser.add_argument("--list", action="store_true", help="name what ours gets wrong")
    args = parser.parse_args()
    parts = []
    for corpus in [args.only] if args.only else CORPORA:
        right, wrong, drawn_right, drawn_wrong = CORPORA[corpus].count()
        head = (
            f"{corpus.capitalize()}: {right} right pairs, {drawn_right} of them drawn over shapes "
            f"and scales, and {wrong} wrong ones, {drawn_wrong} of them drawn."
        )
        columns: dict[str, list[str]] = {}
        for checker in CHECKERS:
            mine = checker.startswith("scratchvae")
            seeds = args.seeds if mine else args.anchor_seeds
            if seeds:
                results = run(corpus, checker, seeds, args.start)
                library = checker.partition(".")[0]
                columns[library] = row(results, seeds)
                print(checker, *columns[library], flush=True)
                if mine and args.list:
                    print(worst(results))
        parts.append(f"{head}\n\n{table(columns)}")
    if args.out:
        here = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
        head = here.partition("<!-- measured -->")[0]
        args.out.write_text(head + "<!-- measured -->\n\n" + "\n\n".join(parts) + "\n")
        print(f"Wrote {args.out}")


if __name__ == "__main__":
    main()
