"""`@pytest.mark.proves("kl")` is true: with the equation [kl] wrong by 1%, each such test fails.

`make claims` runs this file. In a copy of the package it makes what a label's lines compute wrong
by 1% and runs all tests that claim the label, each case of a parametrisation by itself. One that
passes claims too much: it is too coarse, or looks at something else.

    python tests/mutation/claims.py [--rounds N] [--workers N] [LABEL ...]
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import semantic

sys.path.insert(0, str(semantic.ROOT / "docs" / "_ext"))
import labels

# By label, texts of its lines, and in «» what becomes 1% too large there, or what stands behind the
# bar. Of several texts each is planted by itself, and a test need only find one. Of a label that
# is not here the value of the first statement becomes too large, or the first of its values.
WRONG: dict[str, tuple[str, ...]] = {
    "adam-bias": ("step = «self.lr * root_c2 / (1 - beta1**self.steps)»",),
    "adam-moments": ("«(g[i] - m[i])»", "«(g[i] * g[i] - v[i])»"),
    "adam-step": ("«step» * m[i]",),
    "batch-mean": (
        "«1 / n»",
        "«term.sum(dtype=xp.float64)» / n",
        "term.sum(dtype=xp.float64) / «n|n**1.01»",
    ),
    "bernoulli": ("«(positive - x * logits).sum(axis=-1)»",),
    "bernoulli-grad": ("«(namespace(x).exp(logits - positive) - x)»",),
    "chain-rule": ("dy = «self.layers[i].backward(dy, caches[i])»",),
    "conv": ("y = «patches(x, windows) @ as_matrix(W).T»",),
    "conv-grad-b": ("«as_rows(dy).sum(axis=0)»",),
    "conv-grad-W": ("dW = «as_rows(small).T @ patches(large, windows)»",),
    "conv-grad-x": ("«convolve_transposed(dy, self.W.value, self.windows, cache.shape[2:])»",),
    "conv-size": ("// s + «1|2»",),
    "conv-transpose": ("seen = «as_rows(y) @ as_matrix(W)»",),
    "conv-transpose-grad-x": ("«convolve(dy, self.W.value, self.windows)»",),
    "conv-transpose-size": ("(n - 1) * s + k - 2 * p + «more|more + 1»",),
    "cosine": ("«0.5 * (1 + math.cos(math.pi * min(epoch / epochs, 1)))»",),
    "doubly-reparameterized": ("«weights[..., None] * dz»",),
    "finite-differences-interval": ("«(up - down) / (2 * h)»",),
    "finite-differences-verdict": ("s.distance(«self.g»)",),
    "free-bits": ("«namespace(mu).maximum(kl, free).sum(axis=-1)»",),
    "free-bits-grad": ("«dmu * charged», «dlogvar * charged»",),
    "gaussian-nll": ("return «-logp»",),
    "gaussian-nll-grad": ("return «dmean», «dlogvar»",),
    "importance-weight": ("«model.log_prior(z) - log_density(z, mu, logvar)[0] - nll»",),
    "importance-weight-grad": ("«dz_q» + dz_p",),
    "importance-weighted-bound": ("«log_sum - math.log(samples)»",),
    "importance-weighted-grad": ("dlog_w = «-dloss * weights[some]»",),
    "importance-weighted-loss": ("loss = «math.log(self.samples) - log_sum»",),
    "importance-weighted-terms": ("reconstruction = «(weights * nll).sum(axis=0)»",),
    "kl": ("«0.5 * (mu * mu + namespace(mu).expm1(logvar) - logvar)»",),
    "kl-grad-logvar": ("«(0.5 * namespace(mu).expm1(logvar))»",),
    "kl-grad-mu": ("dmu = «dkl[..., None] * mu»",),
    "kl-sum": ("«kl_per_dimension(mu, logvar).sum(axis=-1)»",),
    "linear": ("y = «x @ self.W.value»",),
    "linear-grad-b": ("«dy.sum(axis=0)»",),
    "linear-grad-W": ("add_product(«x.T», dy)",),
    "linear-grad-x": ("«dy @ self.W.value.T»",),
    "log-density": ("«(LOG_2PI + logvar + diff * diff * precision).sum(axis=-1)»",),
    "log-density-grad-logvar": ("«(0.5 * (diff * diff * precision - 1))»",),
    "log-density-grad-mu": ("«_sum_to(-dz, mu_shape)»",),
    "log-density-grad-z": ("«(-diff * precision)»",),
    "log-sum-exp": ("top + «xp.log(xp.exp(a - top).sum(axis=0))»",),
    "mixture-component": ("«log_pi - 0.5 * (LOG_2PI + logvar).sum(axis=1) - 0.5 * square»",),
    "mixture-grad-logits": ("«total - pi * total.sum()»",),
    "mixture-grad-logvar": ("«0.5 * (square - total)»",),
    "mixture-grad-mean": ("«(z1 - total * mean) * precision»",),
    "mixture-grad-z": ("dz = «weight @ (mean * precision) - z * (weight @ precision)»",),
    "mixture-kl": ("kl = «-0.5 * (LOG_2PI + 1 + logvar).sum(axis=-1) - log_p»",),
    "mixture-kl-grad": ("«dz», «0.5 * (dz * moved - dkl[..., None])»",),
    "mixture-log-density": ("log_p = «_log_sum_exp(log_each)»",),
    "mixture-responsibility": ("r = «xp.exp(log_each - log_p)»",),
    "mixture-square": ("square = «(z * z) @ precision.T - 2 * (z @ (mean * precision).T)»",),
    "negative-elbo": ("Terms(«nll + self.beta * charged», nll, kl)",),
    "conditional-decoder": ("«xp.broadcast_to(y, (*z.shape[:-1], self.classes))»",),
    "conditional-grad-z": ("«dinput[..., : self.latent_dim]»",),
    "conditional-nll": ("super().nll(«x[:, : self.data_dim]», output)",),
    "conditional-one-hot": ("«(white * y).astype(a.dtype)»",),
    "normalised-weights": ("weights = «xp.exp(log_w - log_sum)»",),
    "patches": ("«channels_last(x)[:, *pixels]»",),
    "patches-grad": ("part += «dseen[:, *places, i, j]»",),
    "reparameterize": ("mu + «sigma * eps»",),
    "reparameterize-grad-logvar": ("«(0.5 * sigma)»",),
    "reparameterize-grad-mu": ("dmu = «_sum_to(dz, sigma.shape)»",),
    "sgd": ("value -= «self.lr * velocity»",),
    "sigma": ("sigma = «namespace(mu).exp(0.5 * logvar)»",),
    "two-paths": ("«dmu_z» + dmu_kl, «dlogvar_z» + dlogvar_kl",),
    "warm-up": ("«value * min(epoch / epochs, 1)»",),
}


def texts(block: labels.Block) -> tuple[str, ...]:
    """Return what is planted at a label, from WRONG or else what its first statement computes.

    Raises
    ------
    LookupError
        If the label is not in WRONG and its first statement has no value: a loop, say.
    """
    if block.label in WRONG:
        return WRONG[block.label]
    value = getattr(ast.parse(block.code).body[0], "value", None)
    if value is None:
        raise LookupError(
            f"enter in WRONG of tests/mutation/claims.py what to make wrong at [{block.label}]"
        )
    value = value.elts[0] if isinstance(value, ast.Tuple) else value
    return (f"«{ast.get_source_segment(block.code, value)}»",)


def plant(block: labels.Block, marked: str, tree: Path) -> None:
    """Make what a text of WRONG marks in a label's lines wrong by 1%."""
    old = new = ""
    for i, part in enumerate(re.split("[«»]", marked)):
        right, _, wrong = part.partition("|")
        old += right
        new += (wrong or f"(1.01 * ({right}))") if i % 2 else right  # between the marks
    path = tree / block.path
    before, comment, rest = path.read_text("utf-8").partition(f"# [{block.label}]")
    lines, *others = re.split(r"(?=# \[[\w-]+\])", rest, maxsplit=1)  # to the next label
    if old not in lines:
        raise ValueError(f"behind the label [{block.label}] there is no {old}")
    path.write_text("".join([before, comment, lines.replace(old, new, 1), *others]), "utf-8")


class Claims:
    """A plugin of pytest: keep the tests that claim a label, note which of them pass."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.passed: set[str] = set()
        self.failed: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [
            item
            for item in items
            if any(self.label in mark.args for mark in item.iter_markers("proves"))
        ]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed.add(report.nodeid)


def judge(
    block: labels.Block, marked: str, files: tuple[str, ...], seed: int
) -> tuple[set[str], set[str]]:
    """Return the tests that pass, and those that fail, with a label's lines wrong."""
    claims = Claims(block.label)
    with tempfile.TemporaryDirectory() as folder:
        tree = semantic.copy_tree(Path(folder).resolve())
        plant(block, marked, tree)
        how = ("-m", "slow or not slow")
        code, text = semantic.run_tests(tree, files, seed, how, claims)
    if code not in (0, 1) or not claims.passed | claims.failed:
        raise RuntimeError(f"[{block.label}]: no verdict\n{text}")
    return claims.passed, claims.failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", nargs="*", metavar="LABEL", help="these only (default: all)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    start, found = time.monotonic(), labels.read(semantic.ROOT)
    blocks = [b for b in found.blocks.values() if b.label in (args.labels or found.blocks)]
    with semantic.pool(args.workers) as pool:
        rounds = []  # (block, a future for each text that is planted)
        for block in blocks:
            files = dict.fromkeys(t.path.removeprefix("tests/") for t in found.tests[block.label])
            for seed in range(1, args.rounds + 1):
                how = tuple(files), seed
                futures = [pool.submit(judge, block, m, *how) for m in texts(block)]
                rounds.append((block, futures))
        empty: set[str] = set()
        for block, futures in rounds:
            passed = set.intersection(*(future.result()[0] for future in futures))
            failed = set.union(*(future.result()[1] for future in futures))
            empty |= {f"[{block.label}] {test}" for test in passed}
            print(f"[{block.label}] found by {len(failed)}, not by {len(passed)}", flush=True)
    print(f"{(time.monotonic() - start) / 60:.1f} minutes with {args.workers} processes")
    if empty:
        sys.exit("Pass although the label's lines are wrong:\n" + "\n".join(sorted(empty)))


if __name__ == "__main__":
    main()
