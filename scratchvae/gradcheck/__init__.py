"""Is a hand-written gradient right, and if not, how is it wrong? The forward pass knows.

Along a coordinate, or a random direction, the forward pass gives the slope of f = sum(dy * y) as an
interval, by differences at steps that agree. `slopes` measures it, output by output: what
curvature, rounding and kinks leave open. `comparison` judges what backward gives: right, if it lies
in an interval that is small against this very slope; wrong, if it lies outside all that agree; else
it cannot tell, and says why. `diagnosis` looks for the simplest explanation of what is wrong. The
error model is derived on the page "Finite differences".

`check`, `check_model` and `assert_gradient` do this to a pair, a layer or a model, after they have
checked its contract. `taylor` is another view of the same agreement, `suite` checks all of this
package, and `files` finds what there is to check in a file.

What it cannot see: backward is compared with forward, so a formula that is wrong in both, such as
sigma = exp(logvar), passes.
"""

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
