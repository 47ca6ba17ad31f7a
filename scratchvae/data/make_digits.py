"""Make digits.npz from scikit-learn's copy of the digits: ``python make_digits.py [FILE]``."""

# scikit-learn has no types and is needed nowhere else, so it need not be installed.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0
N_TEST = 297


def choose_test(y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a mask (N,) of N_TEST rows, in which every class has its share to within one.

    The rows are shuffled, sorted by class, and taken at equal distances.
    """
    order = np.random.default_rng(SEED).permutation(len(y))  # (N,)
    order = order[np.argsort(y[order], kind="stable")]  # (N,)
    test = np.zeros(len(y), dtype=bool)  # (N,)
    test[order[np.arange(N_TEST) * len(y) // N_TEST]] = True
    return test


def write(path: Path, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> None:
    """Write the images (N, 64), their labels (N,) and the split; the same bytes every time."""
    np.savez_compressed(path, x=x.astype(np.uint8), y=y.astype(np.uint8), test=choose_test(y))


def main() -> None:
    """Read scikit-learn's copy and write FILE, or digits.npz beside this script."""
    from sklearn.datasets import load_digits

    here = Path(__file__).with_name("digits.npz")
    x, y = load_digits(return_X_y=True)  # (1797, 64), (1797,)
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else here, x, y)


if __name__ == "__main__":
    main()
