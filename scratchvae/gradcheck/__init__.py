"""Is a hand-written gradient right, and if not, how is it wrong? The forward pass knows."""

from .checking import assert_gradient, check, check_model
from .comparison import TOLERANCE, GradientError, Report
from .slopes import STEP, Check
from .suite import suite
from .taylor import Taylor, taylor

__all__ = [
    "STEP",
    "TOLERANCE",
    "Check",
    "GradientError",
    "Report",
    "Taylor",
    "assert_gradient",
    "check",
    "check_model",
    "suite",
    "taylor",
]
