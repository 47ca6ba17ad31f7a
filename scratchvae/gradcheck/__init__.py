r"""Is a hand-written gradient right, and if not, how is it wrong? The forward pass knows.

Let f be the scalar in question and g the gradient that backward gives. Along a direction v the
slope of f is <g, v>, and the forward pass alone gives it too, as the central difference

    D(h) = (f(x + h v) - f(x - h v)) / 2h = f' + h^2 f'''/6 + h^4 f^(5)/120 + ...

Two of them make the h^2 term cancel:  R(h) = (4 D(h/2) - D(h)) / 3 = f' - h^4 f^(5)/480 + ...

Step. No entry of v exceeds 1 and the length of v is at most about 5, so f^(5) is of the size of f'
where inputs are of unit size, and the first error is near h^4/480. Rounding adds the second, about
eps |f| / h. With h = 1e-3 they are 2e-15 and 2e-13 |f|: both far below the tolerance 1e-7, even
where f^(5) or |f| is ten thousand times f'. That needs float64; in float32 no h serves.

Scalar. An output y of any shape becomes one number, f = sum(dy * y), with a random normal dy. With
dy of ones a wrong gradient may hide: the outputs of a softmax sum to 1 whatever happens. The
difference of the two y is taken first and summed then, so that a large common part cancels exactly.

Relative error. |<g, v> - n| over the largest of |<g, v>|, |n| and |g| |v| / sqrt(P), where n is the
numerical slope and P the number of entries. The last is the typical size of <g, v> for a random v:
now and then the terms of <g, v> cancel, and without it rounding would then look like an error.
Where even that is below what the difference can resolve, a few eps |f| / h / tolerance, this floor
takes its place; two zeros have error 0.

Where. Every named block alone: along all its coordinates if it has at most 64, else along random
directions; and all blocks together. A joint direction alone would dilute one wrong bias among
half a million right weights.

Wrong, or not to be told. Where the two disagree, the difference must show that it knows better: a
third step gives R(h/2), and |R(h/2) - R(h)| says how far R(h) can be trusted. If the disagreement
is no larger than a few times that, or if the slopes from the left and from the right differ (a
kink, as relu has at 0), the verdict is "cannot tell" and not "wrong".

What it cannot see: backward is compared with forward, so a formula that is wrong in both, such as
sigma = exp(logvar), passes.

`check` and `check_model` do this and `diagnosis` looks for the simplest explanation of what is
wrong. `adjoint` and `taylor` are two other views of the same agreement, and `suite` checks all of
this package.
"""

from .checking import check, check_model
from .comparison import TOLERANCE, GradientError, Report
from .slopes import STEP, Check
from .suite import avoid_kinks, suite
from .taylor import Taylor, adjoint, taylor

__all__ = [
    "STEP",
    "TOLERANCE",
    "Check",
    "GradientError",
    "Report",
    "Taylor",
    "adjoint",
    "avoid_kinks",
    "check",
    "check_model",
    "suite",
    "taylor",
]
