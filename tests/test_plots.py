"""What is drawn is what was given: positions, sizes, order, orientation, words."""

import io
import subprocess
import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Circle, Ellipse
from scipy.stats import norm

from scratchvae import VAE, Autoencoder, InputError, plots
from scratchvae.datasets import Dataset

TERMS = ("loss", "reconstruction", "kl")


def metrics(epochs, kl=True):
    names = [f"{part}_{term}" for part in ("train", "test") for term in TERMS]
    lines = []
    for epoch in range(1, epochs + 1):
        line = {name: 1 + np.sin(epoch + i) for i, name in enumerate(names)}
        if not kl:
            line |= {"train_kl": 0.0, "test_kl": 0.0}
        lines.append({"epoch": epoch, "active_units": epoch % 3, "seconds": 0.1} | line)
    return lines


def gaussians(rng, n):
    labels = rng.permutation(n) % 10
    centre = 2 * np.column_stack([np.cos(labels), np.sin(labels)])
    mu = centre + 0.3 * rng.standard_normal((n, 2))
    return mu, rng.uniform(-4, 0, (n, 2)), labels


def texts(ax):
    return [t.get_text() for t in ax.texts]


def patches(ax, kind):
    return [p for p in ax.patches if type(p) is kind]


def picture(ax):
    (image,) = ax.get_images()
    return np.asarray(image.get_array())


# --- training_curves


def test_every_term_is_drawn_for_train_and_test():
    lines = metrics(12)
    axes = plots.training_curves(lines).axes
    assert len(axes) == 4
    for ax, term in zip(axes, TERMS, strict=False):
        for line, part in zip(ax.lines, ("train", "test"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), range(1, 13))
            np.testing.assert_array_equal(line.get_ydata(), [m[f"{part}_{term}"] for m in lines])
        assert ax.get_ylabel() == "nats per example"
    legend = [t.get_text() for t in axes[0].get_legend().get_texts()]
    assert legend == ["train", "test"]
    train, test = axes[0].lines
    assert train.get_linestyle() != test.get_linestyle()  # colour is not the only code
    np.testing.assert_array_equal(axes[3].lines[0].get_ydata(), [m["active_units"] for m in lines])


def test_one_epoch_is_visible():
    for ax in plots.training_curves(metrics(1)).axes:
        assert all(line.get_marker() == "o" for line in ax.lines)
        assert list(ax.get_xticks()) == [1]


def test_a_long_run_has_a_log_axis_that_says_so():
    long, short = plots.training_curves(metrics(500)).axes, plots.training_curves(metrics(50)).axes
    assert (long[0].get_xscale(), short[0].get_xscale()) == ("log", "linear")
    assert (long[3].get_xlabel(), short[3].get_xlabel()) == ("epoch, log scale", "epoch")


def test_epochs_of_the_beginning_do_not_set_the_range():
    lines = metrics(30)
    for line in lines:
        line["train_loss"] = 1000.0 if line["epoch"] == 1 else 30 - line["epoch"] / 10
        line["test_loss"] = line["train_loss"] - 1
    ax = plots.training_curves(lines).axes[0]
    low, high = ax.get_ylim()
    assert 25 < low < 26  # the last test loss is 26
    assert 29.8 < high < 32  # the second train loss is 29.8
    assert ax.lines[0].get_ydata()[0] == 1000  # it is drawn, and leaves the panel


def test_a_range_without_outliers_holds_every_epoch():
    ax = plots.training_curves(metrics(30)).axes[0]
    low, high = ax.get_ylim()
    values = [line.get_ydata() for line in ax.lines]
    assert low < np.min(values) < np.max(values) < high


def test_active_units_that_do_not_change_are_a_word_of_a_title():
    lines = [line | {"active_units": 2} for line in metrics(12)]
    axes = plots.training_curves(lines).axes
    assert len(axes) == 3
    assert "active dimensions: 2 throughout" in axes[2].get_title(loc="left")
    assert [ax.get_xlabel() for ax in axes] == ["epoch"] * 3


def test_an_autoencoder_has_one_panel():
    (ax,) = plots.training_curves(metrics(3, kl=False)).axes
    assert ax.get_title(loc="left").startswith("Loss")


def test_a_missing_test_value_leaves_a_gap():
    lines = metrics(3)
    lines[1]["test_loss"] = None
    test = plots.training_curves(lines).axes[0].lines[1].get_ydata()
    assert np.isnan(test).tolist() == [False, True, False]


def test_no_epoch_is_refused():
    with pytest.raises(InputError, match="expected one per epoch"):
        plots.training_curves([])


# --- reconstructions and samples


@pytest.mark.parametrize("shape", [(28, 28), (8, 8), (12, 16, 3), (6, 5, 1)])
def test_each_original_stands_above_its_reconstruction(shape, rng):
    n, d = 5, int(np.prod(shape))
    above, below = rng.random((n, d)), rng.random((n, d))
    (ax,) = plots.reconstructions(above, below, shape).axes
    whole = picture(ax)
    gap = max(1, shape[1] // 14)
    h, w = shape[0] + gap, shape[1] + gap
    for row, images in enumerate((above, below)):
        for column, image in enumerate(images):
            cell = whole[row * h : row * h + shape[0], column * w : column * w + shape[1]]
            np.testing.assert_array_equal(cell.ravel(), image)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["original", "reconstruction"]
    assert ax.get_yticks()[0] < ax.get_yticks()[1]
    assert ax.yaxis_inverted()  # so that the first row is the upper one


def test_grey_is_on_a_fixed_scale_with_dark_ink():
    (ax,) = plots.samples(np.array([[0.2, 0.3, -1.0, 7.0]]), (2, 2)).axes
    (image,) = ax.get_images()
    assert image.get_clim() == (0, 1)
    assert image.get_cmap()(1.0)[:3] == (0, 0, 0)
    np.testing.assert_array_equal(picture(ax), [[0.2, 0.3], [0, 1]])


def test_the_paper_between_images_is_white():
    (grey,) = plots.samples(np.full((3, 4), 0.5), (2, 2)).axes
    (colour,) = plots.samples(np.full((3, 12), 0.5), (2, 2, 3)).axes
    assert np.isnan(picture(grey)[2, 0])  # not drawn at all
    assert np.isnan(picture(grey)[4, 4])  # the fourth cell is empty
    assert np.isfinite(picture(grey)).sum() == 3 * 4
    assert (picture(colour)[2, 0] == 1).all()


def test_images_are_drawn_row_by_row_between_the_limits_that_are_asked_for(rng):
    images = rng.uniform(-2, 2, (5, 6))
    ax = Figure().subplots()
    plots.draw_images(ax, images, (2, 3), columns=3, cmap="RdBu", vmin=-1, vmax=1.5)
    whole = picture(ax)
    assert whole.shape == (2 * 3 - 1, 3 * 4 - 1)  # a gap of one pixel between them
    for k, image in enumerate(images):
        row, column = 3 * (k // 3), 4 * (k % 3)
        cell = whole[row : row + 2, column : column + 3]
        np.testing.assert_array_equal(cell.ravel(), image.clip(-1, 1.5))
    (drawn,) = ax.images
    assert (drawn.get_cmap().name, drawn.get_clim()) == ("RdBu", (-1, 1.5))
    assert drawn.get_extent() == [0, 3, 2, 0]  # so that a row's middle is at k + 0.5


def test_codes_are_named_at_the_median_of_their_class(rng):
    z, labels = rng.standard_normal((9, 2)), np.repeat([0, 3, 17], 3)
    ax = Figure().subplots()
    plots.draw_codes(ax, z, labels, s=3)
    (dots,) = ax.collections
    np.testing.assert_array_equal(dots.get_offsets(), z)
    colours = [to_hex(c).upper() for c in dots.get_facecolors()]
    assert colours == [plots.CLASSES[k % 10].upper() for k in labels]
    # The places of three codes' names: of three numbers the median is the second.
    places = {text.get_text(): text.get_position() for text in ax.texts}
    assert places == {str(k): tuple(np.sort(z[labels == k], axis=0)[1]) for k in (0, 3, 17)}
    bare = Figure().subplots()
    plots.draw_codes(bare, z, labels, names=False)
    assert not bare.texts


def test_channels_that_are_no_colours_stand_side_by_side():
    x = np.array([[0.1, 0.9, 0.2, 0.8]])  # (1, 2, 2): pixels (0.1, 0.9) and (0.2, 0.8)
    (ax,) = plots.samples(x, (1, 2, 2)).axes
    np.testing.assert_array_equal(picture(ax), [[0.1, 0.2, 0.9, 0.8]])


def test_samples_say_where_they_come_from():
    (ax,) = plots.samples(np.zeros((64, 4)), (2, 2)).axes
    assert ax.get_title(loc="left") == "64 samples: z ~ p(z), decoded"
    (ax,) = plots.samples(np.zeros((64, 4)), (2, 2), "my title").axes
    assert ax.get_title(loc="left") == "my title"


@pytest.mark.parametrize(
    ("x", "shape", "message"),
    [
        (np.zeros((2, 5)), (2, 2), r"\(2, 5\): expected \(n, 4\)"),
        (np.zeros((0, 4)), (2, 2), r"\(0, 4\)"),
        (np.zeros(4), (2, 2), r"\(4,\)"),
        (np.zeros((2, 4)), (4,), "image_shape"),
    ],
)
def test_images_of_another_shape_are_refused(x, shape, message):
    with pytest.raises(InputError, match=message):
        plots.samples(x, shape)


def test_reconstructions_come_in_pairs():
    with pytest.raises(InputError, match="3 reconstructions of 2 originals"):
        plots.reconstructions(np.zeros((2, 4)), np.zeros((3, 4)), (2, 2))


# --- latent_plane


def test_an_ellipse_is_one_posterior_at_one_sigma(rng):
    mu, logvar, labels = gaussians(rng, 300)
    (ax,) = plots.latent_plane(mu, logvar, labels).axes
    ellipses = patches(ax, Ellipse)
    assert len(ellipses) == 20
    of = {tuple(m): (v, k) for m, v, k in zip(mu, logvar, labels, strict=True)}
    seen = []
    for ellipse in ellipses:
        v, k = of[tuple(ellipse.center)]
        np.testing.assert_allclose([ellipse.width, ellipse.height], 2 * np.exp(v / 2))
        assert ellipse.angle == 0
        np.testing.assert_allclose(
            ellipse.get_edgecolor(), matplotlib.colors.to_rgba(plots.CLASSES[k])
        )
        seen.append(k)
    assert (np.bincount(seen) == 2).all()


def test_the_priors_circles_are_labelled(rng):
    mu, logvar, _ = gaussians(rng, 50)
    (ax,) = plots.latent_plane(mu, logvar).axes
    circles = patches(ax, Circle)
    assert [(c.center, c.radius) for c in circles] == [((0, 0), 1), ((0, 0), 2), ((0, 0), 3)]
    for circle, text in zip(circles, ax.texts, strict=True):
        assert text.get_text() == f"{circle.radius:.0f}σ"
        assert np.hypot(*text.get_position()) == circle.radius
        assert circle.zorder < ax.collections[0].zorder
    assert ax.get_aspect() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z₁", "z₂")


def test_a_class_has_a_colour_and_its_name_in_its_midst():
    mu = np.array([[-5.0, 0], [-5, 1], [-5, 9], [4, 4], [4, 5], [4, 7]])
    (ax,) = plots.latent_plane(mu, None, np.array([7, 7, 7, 3, 3, 3])).axes
    assert {t.get_text(): t.get_position() for t in ax.texts} == {"3": (4, 5), "7": (-5, 1)}
    first, second = ax.collections
    np.testing.assert_array_equal(first.get_offsets(), mu[3:])
    assert (first.get_facecolor() != second.get_facecolor()).any()


def test_a_dollar_in_the_name_of_a_class_is_no_formula(rng, tmp_path):
    labels = np.array(["in_$_out_$", "b"] * 3)
    plots.save(plots.latent_plane(rng.standard_normal((6, 2)), None, labels), tmp_path / "f.png")


def test_names_do_not_cover_each_other(rng):
    mu, labels = rng.standard_normal((1000, 2)), rng.integers(10, size=1000)  # all means near 0
    figure = plots.latent_plane(mu, np.zeros_like(mu), labels)
    figure.draw_without_rendering()
    boxes = [t.get_bbox_patch().get_window_extent() for t in figure.axes[0].texts[3:]]
    assert len(boxes) == 10
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            width = min(a.x1, b.x1) - max(a.x0, b.x0)
            height = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(width, height) < 4  # pixels: the white borders may touch


def test_without_labels_there_is_one_colour_and_no_name(rng):
    mu, logvar, _ = gaussians(rng, 50)
    (ax,) = plots.latent_plane(mu, logvar).axes
    assert len(ax.collections) == 1
    assert texts(ax) == ["1σ", "2σ", "3σ"]
    assert ax.get_legend() is None


def test_hundreds_of_labels_are_not_classes(rng):
    mu, _, _ = gaussians(rng, 300)
    (ax,) = plots.latent_plane(mu, None, np.arange(300)).axes
    assert len(ax.collections) == 1
    assert not ax.texts


def test_an_autoencoder_has_neither_ellipses_nor_circles(rng):
    mu, logvar, labels = gaussians(rng, 50)
    (ax,), (other,) = plots.latent_plane(mu, None, labels).axes, plots.latent_plane(mu, logvar).axes
    assert not ax.patches
    assert ax.get_title(loc="left").startswith("Codes")
    assert other.get_title(loc="left").startswith("Posterior means")


def test_many_examples_are_thinned_and_a_rare_class_does_no_harm(rng):
    mu, logvar, labels = gaussians(rng, 10_000)
    labels[1] = 99  # the second of 10,000 is not drawn
    (ax,) = plots.latent_plane(mu, logvar, labels).axes
    assert sum(len(c.get_offsets()) for c in ax.collections) == plots.MAX_POINTS
    assert "10,000" in ax.get_title(loc="left")
    assert "99" in texts(ax)


def test_a_title_says_how_many_examples_are_drawn(rng):
    for n, said in ((2000, "2,000 examples\n"), (2001, "2,001 examples, 2,000 of them drawn\n")):
        mu, logvar, _ = gaussians(rng, n)
        for ax in (*plots.latent_plane(mu, logvar).axes, *plots.latent_plane(mu, None).axes):
            assert said in ax.get_title(loc="left")


def test_a_name_stands_among_its_digits_or_has_a_line_to_them(rng):
    mu, _, labels = gaussians(rng, 500)
    # Farther apart than names are wide, wherever in its cloud each stands.
    mu += 2 * np.column_stack([np.cos(labels), np.sin(labels)])
    mu[labels == 3] = rng.choice([[3.0, 1.0], [3.0, -1.0], [3.2, 1.0]], sum(labels == 3))
    (ax,) = plots.latent_plane(mu, None, labels).axes
    places = {text.get_text(): text.get_position() for text in ax.texts}
    for k in range(10):  # not at the mean of two heaps, where there is nothing
        distance = np.linalg.norm(mu[labels == k] - places[str(k)], axis=1)
        assert distance.min() < 1e-9
    assert not ax.lines
    mu = 0.1 * rng.standard_normal((500, 2))
    (ax,) = plots.latent_plane(mu, None, labels).axes
    places = np.array([text.get_position() for text in ax.texts])
    lines = {tuple(line.get_xydata()[1]): line.get_xydata()[0] for line in ax.lines}
    assert len(lines) > 2
    for k, place in enumerate(places):
        home = lines.get(tuple(place), place)
        assert np.linalg.norm(mu[labels == k] - home, axis=1).min() < 0.05


def test_classes_of_one_colour_have_other_markers(rng):
    labels = rng.permutation(600) % 30
    mu = 3 * np.column_stack([np.cos(labels), np.sin(labels)]) + rng.normal(0, 0.1, (600, 2))
    (ax,) = plots.latent_plane(mu, None, labels).axes
    looks = {
        (to_hex(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes())
        for dots in ax.collections
    }
    assert len(ax.collections) == len(looks) == 30


def test_one_example_is_enough():
    plots.latent_plane(np.zeros((1, 2)), np.zeros((1, 2)), np.array([4]))


@pytest.mark.parametrize("shape", [(5, 3), (5,), (0, 2)])
def test_a_plane_has_two_dimensions(shape):
    with pytest.raises(InputError, match="expected"):
        plots.latent_plane(np.zeros(shape))


# --- manifold


def test_the_manifold_lies_on_the_priors_quantiles_the_right_way_up():
    def decode(z):  # the image of z holds Phi(z1) on the left and Phi(z2) on the right
        return np.column_stack([norm.cdf(z[:, 0]), norm.cdf(z[:, 1])])

    n = 20
    (ax,) = plots.manifold(decode, (1, 2), n=n).axes
    whole = picture(ax)
    assert whole.shape == (2 * n - 1, 3 * n - 1)  # a white pixel between cells
    whole = whole[::2]
    share = (np.arange(n) + 0.5) / n  # equally probable cells, each at its middle
    np.testing.assert_allclose(whole[:, 0::3], np.tile(share, (n, 1)))  # z1 grows to the right
    np.testing.assert_allclose(whole[:, 1::3], np.tile(share[::-1, None], (1, n)))  # z2 upwards
    (image,) = ax.get_images()
    assert image.origin == "upper"
    assert not ax.yaxis_inverted()
    assert not ax.xaxis_inverted()
    assert list(image.get_extent()) == [0, n, 0, n]


def test_ticks_of_the_manifold_stand_at_their_cells():
    n = 20
    (ax,) = plots.manifold(lambda z: np.zeros((len(z), 4)), (2, 2), n=n).axes
    for axis in (ax.xaxis, ax.yaxis):
        ticks, labels = axis.get_ticklocs(), [t.get_text() for t in axis.get_ticklabels()]
        z = [float(t.replace("−", "-")) for t in labels]
        np.testing.assert_allclose(norm.cdf(z), ticks / n, atol=0.002)
        assert 4 <= len(ticks) <= 8
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z₁", "z₂")


@pytest.mark.parametrize("shape", [(28, 28), (3, 4, 3)])
def test_one_pixel_keeps_the_cells_of_the_mosaic_apart(shape):
    d = int(np.prod(shape))
    (ax,) = plots.manifold(lambda z: np.full((len(z), d), 0.5), shape, n=3).axes
    h, w, *channels = shape
    assert picture(ax).shape == (3 * h + 2, 3 * w + 2, *channels)
    white = 1.0 if channels else np.nan  # where nothing is drawn
    np.testing.assert_array_equal(picture(ax)[h], np.full_like(picture(ax)[h], white))
    np.testing.assert_array_equal(picture(ax)[:, w], np.full_like(picture(ax)[:, w], white))
    assert (picture(ax)[:h, :w] == 0.5).all()


# --- kl_per_dimension


@pytest.mark.parametrize("z", [1, 2, 20, 31, 200])
def test_bars_are_sorted_and_named(z, rng):
    kl = rng.gamma(0.3, size=z)
    figure = plots.kl_per_dimension(kl, threshold=0.1)
    (ax,) = figure.axes
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_array_equal(heights, np.sort(kl)[::-1])
    for tick, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True):
        assert kl[int(label.get_text())] == heights[int(tick)]
    for bar in ax.patches:
        used = matplotlib.colors.to_rgba(plots.BLUE if bar.get_height() > 0.1 else plots.GREY)
        assert bar.get_facecolor() == used
    title = ax.get_title(loc="left")
    assert f"{kl.sum():.1f} nats" in title
    assert f"{(kl > 0.1).sum()} of {z} " in title
    whole = figure.get_size_inches()[0]
    assert 0.5 < whole / max(3, z) < 2 or z > 8  # inches for a bar: neither a wall nor a hair
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.get_xticklabels()]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))  # none overlaps


def test_a_dimension_of_more_than_a_hundredth_of_a_nat_counts():
    (ax,) = plots.kl_per_dimension(np.array([0.009, 0.011])).axes
    assert "1 of 2 " in ax.get_title(loc="left")


# --- all figures


FIGURES = {
    "curves": lambda: plots.training_curves(metrics(3)),
    "reconstructions": lambda: plots.reconstructions(np.eye(4), np.eye(4), (2, 2)),
    "samples": lambda: plots.samples(np.eye(4), (2, 2)),
    "plane": lambda: plots.latent_plane(*gaussians(np.random.default_rng(0), 60)),
    "manifold": lambda: plots.manifold(lambda z: np.ones((len(z), 4)), (2, 2)),
    "kl": lambda: plots.kl_per_dimension(np.arange(5.0)),
}


@pytest.mark.parametrize("build", FIGURES.values(), ids=FIGURES.keys())
def test_nothing_lies_outside_the_figure(build):
    figure = build()
    figure.draw_without_rendering()
    tight, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(tight.x0, tight.y0) >= 0
    assert tight.x1 <= width
    assert tight.y1 <= height


@pytest.mark.parametrize(
    ("name", "suffix"),
    [(name, ".png") for name in FIGURES]
    + [(name, suffix) for name in ("samples", "plane") for suffix in (".svg", ".pdf")],
)
def test_the_same_input_gives_the_same_bytes(name, suffix, tmp_path, monkeypatch):
    build = FIGURES[name]
    paths = [tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"]
    plots.save(build(), paths[0])
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")  # another day
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "x"}):
        plots.save(build(), paths[1])  # whatever the user's own settings are
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_no_setting_is_left_changed(tmp_path):
    before = dict(matplotlib.rcParams)
    for i, build in enumerate(FIGURES.values()):
        plots.save(build(), tmp_path / f"{i}.png")
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_not_loaded_and_the_package_alone_loads_no_matplotlib():
    code = (
        "import sys, scratchvae; assert 'matplotlib' not in sys.modules;"
        "import scratchvae.plots; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- in a notebook


@pytest.mark.parametrize("build", FIGURES.values(), ids=FIGURES.keys())
def test_a_notebook_gets_a_picture_as_large_as_its_text(build):
    figure = build()
    data, size = figure._repr_png_()
    height, width, _ = imread(io.BytesIO(data)).shape
    np.testing.assert_allclose([width, height], 150 * figure.get_size_inches(), atol=1)
    assert size == {"width": round(width * 80 / 150), "height": round(height * 80 / 150)}


# --- save


def test_the_suffix_chooses_the_format(tmp_path):
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")):
        path = tmp_path / f"figure{suffix}"
        plots.save(FIGURES["kl"](), str(path))
        assert path.read_bytes().startswith(start)
    height, width, _ = imread(tmp_path / "figure.png").shape
    assert (width, height) == tuple(150 * FIGURES["kl"]().get_size_inches())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("figure.jpg", r"figure\.jpg: found suffix '\.jpg', expected \.png, \.svg or \.pdf"),
        ("figure", "figure: found suffix '', expected"),
        ("missing/figure.png", r"missing/figure\.png: cannot be written \(No such file"),
    ],
)
def test_an_impossible_path_is_refused_by_name(name, message, tmp_path):
    with pytest.raises(InputError, match=message):
        plots.save(Figure(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fail(self, file, **options):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(InputError, match="disk full"):
        plots.save(Figure(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# --- write_figures


def dataset(n=30, labels=True):
    rng = np.random.default_rng(0)
    test = rng.integers(17, size=(n, 64), dtype=np.uint8)
    y = np.arange(n) % 10 if labels else None
    return Dataset("small", test, test, y, y, 16.0, (8, 8))


BASE = {"training_curves.png", "reconstructions.png"}
VAE_ONLY = {"samples.png", "kl_per_dimension.png"}
PLANE = {"latent_plane.png"}


@pytest.mark.parametrize(
    ("kind", "latent_dim", "expected"),
    [
        (VAE, 2, BASE | VAE_ONLY | PLANE | {"manifold.png"}),
        (VAE, 3, BASE | VAE_ONLY),
        (Autoencoder, 2, BASE | PLANE),
        (Autoencoder, 1, BASE),
    ],
)
def test_the_fitting_figures_are_written(kind, latent_dim, expected, tmp_path):
    model = kind(64, hidden=(8,), latent_dim=latent_dim, rng=0)
    folder = tmp_path / "new" / "figures"
    paths = plots.write_figures(model, dataset(labels=kind is VAE), metrics(2), folder)
    assert {path.name for path in paths} == expected
    assert set(folder.iterdir()) == set(paths)


def test_64_samples_of_the_prior_are_drawn(tmp_path, monkeypatch):
    drawn, build = [], plots.samples
    monkeypatch.setattr(plots, "samples", lambda *args: drawn.append(args[0]) or build(*args))
    model = VAE(64, hidden=(8,), latent_dim=3, rng=0)
    plots.write_figures(model, dataset(), metrics(1), tmp_path)
    np.testing.assert_array_equal(drawn, [model.sample(64, rng=0)])


def test_what_is_drawn_is_the_test_part_in_units_of_its_scale(tmp_path, monkeypatch):
    model, data = VAE(64, hidden=(8,), latent_dim=2, rng=0), dataset(2500)
    drawn = {}
    for name in ("reconstructions", "latent_plane", "kl_per_dimension"):
        build = getattr(plots, name)
        monkeypatch.setattr(
            plots, name, lambda *args, _n=name, _b=build: drawn.update({_n: args}) or _b(*args)
        )
    plots.write_figures(model, data, [], tmp_path)
    assert not (tmp_path / "training_curves.png").exists()  # no epoch, no curve
    originals, reconstructed, _ = drawn["reconstructions"]
    np.testing.assert_allclose(originals[:10], data.test[:10] / 16)  # one of each class first
    np.testing.assert_allclose(reconstructed, model.reconstruct(originals))
    mu, logvar = model.encode(data.test / 16)
    np.testing.assert_allclose(drawn["latent_plane"][0], mu, atol=1e-5)
    np.testing.assert_allclose(drawn["latent_plane"][1], logvar, atol=1e-5)
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).mean(axis=0)
    np.testing.assert_allclose(drawn["kl_per_dimension"][0], kl, rtol=1e-4)


def test_one_of_each_class_comes_first():
    labels = np.array([5, 5, 1, 5, 9, 1])
    assert plots._one_of_each(6, labels).tolist() == [2, 0, 4, 1, 3, 5]
    assert plots._one_of_each(6, None).tolist() == list(range(6))
    assert len(plots._one_of_each(100, np.arange(100))) == 12


def test_a_models_figures_do_not_change_it(tmp_path):
    model = VAE(64, hidden=(8,), latent_dim=2, rng=0)
    state, value = model.rng.bit_generator.state, model.params.value.copy()
    plots.write_figures(model, dataset(), metrics(1), tmp_path)
    assert model.rng.bit_generator.state == state  # a resumed run draws the same noise
    np.testing.assert_array_equal(model.params.value, value)


def test_no_kl_is_drawn_that_is_not_the_models(tmp_path):
    class Half(VAE):
        def kl(self, mu, logvar):
            kl, cache = super().kl(mu, logvar)
            return kl / 2, cache

    for kind, there in (VAE, True), (Half, False):
        model = kind(64, (8,), 2, rng=0)
        figures = plots.write_figures(model, dataset(), metrics(2), tmp_path / kind.__name__)
        names = {path.stem for path in figures}
        assert ("kl_per_dimension" in names) == there
        assert "latent_plane" in names
