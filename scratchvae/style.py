"""How all figures look: fonts, lines and colours, also those of the demos."""

from __future__ import annotations

import io
from typing import Any

from matplotlib import figure, style

STYLE: dict[str, Any] = {
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,  # inches
    "figure.constrained_layout.h_pad": 0.1,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "scratchvae",  # without it the identifiers are random
}
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#BBBBBB"  # Okabe and Ito's, and a grey
# Paul Tol's "muted" nine and black, not his grey: with red-green deficiency a grey is the rose.
CLASSES = (
    *("#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE"),
    *("#882255", "#44AA99", "#999933", "#AA4499", "#000000"),
)

# Matplotlib's defaults and then STYLE, whatever the user's matplotlibrc says; undone on return.
styled = style.context(["default", STYLE])

PIXELS_PER_INCH = 80  # of a notebook: text in figures is then as large as around them


class Figure(figure.Figure):
    """A figure of matplotlib that a notebook shows without pyplot and without a magic line."""

    @styled
    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        file = io.BytesIO()
        self.savefig(file, format="png")
        width, height = (round(PIXELS_PER_INCH * side) for side in self.get_size_inches())
        return file.getvalue(), {"width": width, "height": height}


def use_style() -> None:
    """Set the style of these figures for all later matplotlib figures, as the demos do."""
    style.use(["default", STYLE])
