"""Figures of tables: which columns are drawn, where they stand, and how much memory that takes."""

import warnings

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import plots, tables
from scratchvae.datasets import Dataset


def test_columns_of_one_size_are_drawn_in_their_own_units(rng):
    x = rng.standard_normal((300, 6)) * 3
    table = tables.columns(x)
    assert table.alike
    np.testing.assert_array_equal(table.place(x), x)
    np.testing.assert_allclose(table.middle, np.quantile(x, [0.05, 0.95], axis=0))


def test_columns_of_other_sizes_are_drawn_over_their_range(rng):
    x = rng.standard_normal((300, 4)) * [1, 2, 3, 1e6] + [0, 5, 0, -7e6]
    table = tables.columns(x)
    assert not table.alike
    placed = table.place(x)
    np.testing.assert_allclose(placed.min(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(placed.max(axis=0), 1)
    for value in 4, -1e17:
        x[:, 1] = value  # a column without a range
        table = tables.columns(x)
        np.testing.assert_array_equal(table.place(x)[:, 1], 0)
        assert np.isfinite(table.middle).all()


def test_of_many_columns_some_are_drawn_and_the_axis_says_so(rng):
    x = rng.random((5, 20_000))
    table = tables.columns(x)
    assert (table.drawn[0], table.drawn[-1], len(table.drawn)) == (0, 19_999, tables.MAX_COLUMNS)
    (ax,) = tables.samples(x, table).axes
    assert ax.get_xlabel() == "column, 400 of 20,000 drawn"


def test_each_sample_is_a_line(rng):
    x, names = rng.standard_normal((7, 3)), ("a", "b", "c")
    (ax,) = tables.samples(x, tables.columns(x, names)).axes
    for line, row in zip(ax.lines, x, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), row)
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    assert [t.get_text() for t in ax.get_xticklabels()] == [*names]
    assert len(ax.collections) == 1  # the grey band of the data
    assert ax.get_title(loc="left").endswith("grey: where nine tenths of the data lie")


def test_a_dollar_in_a_name_is_no_formula(rng, tmp_path):
    x, names = rng.standard_normal((7, 2)), ("in_$_out_$", r"$\frac$")
    table = tables.columns(x, names)
    figures = tables.samples(x, table), tables.reconstructions(x, x, table)
    for figure in (*figures, tables.styles(x[None], table, ["red"] * 7)):
        plots.save(figure, tmp_path / "f.png")
        assert [t.get_text() for t in figure.axes[-1].get_xticklabels()] == [*names]


def test_each_row_is_drawn_with_its_reconstruction(rng):
    x, y = rng.standard_normal((2, 5, 4))
    figure = tables.reconstructions(x, y, tables.columns(x))
    for ax, above, below in zip(figure.axes, x, y, strict=False):
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), above)
        np.testing.assert_array_equal(ax.lines[1].get_ydata(), below)
        assert ax.lines[0].get_marker() == "o"
    assert [ax.get_visible() for ax in figure.axes] == [True] * 5 + [False]


def test_each_label_of_a_code_is_a_line(rng):
    x = rng.standard_normal((2, 3, 4))
    figure = tables.styles(x, tables.columns(x.reshape(6, 4)), plots.CLASSES)
    for ax, rows in zip(figure.axes, x, strict=True):
        for line, row in zip(ax.lines, rows, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), row)


def test_the_plane_has_z1_to_the_right_and_z2_upwards():
    x = np.array([[-3.0, -3.0], [3.0, 3.0]])
    (ax,) = tables.manifold(lambda z: z, tables.columns(x), n=3).axes
    heights = np.array([line.get_ydata() for line in ax.lines]).reshape(3, 3, 2)
    heights -= np.arange(3)[:, None, None]  # from each cell's bottom
    assert (np.diff(heights[:, :, 0], axis=1) > 0).all()  # the first number is z1
    assert (np.diff(heights[:, :, 1], axis=0) > 0).all()
    assert ((heights > 0) & (heights < 1)).all()


@pytest.mark.parametrize("value", [0.0, 7.5, -1e9, 1e200])
def test_a_plane_of_one_row_is_drawn_without_a_division_by_zero(value):
    table = tables.columns(np.full((5, 3), value))
    (ax,) = tables.manifold(lambda z: np.full((len(z), 3), value), table, n=2).axes
    assert {*np.concatenate([line.get_ydata() for line in ax.lines])} == {0.08, 1.08}


def test_rows_of_another_width_are_refused(rng):
    table = tables.columns(rng.random((5, 4)))
    with pytest.raises(sv.InputError, match=r"\(5, 3\): expected \(n, 4\)"):
        table.place(np.zeros((5, 3)))


@pytest.mark.parametrize(("d", "table"), [(9, False), (8, True)])
def test_what_is_a_table_is_drawn_as_one(d, table, rng, tmp_path):
    """Nine numbers from 0 to 1 may be a small image, and eight are not."""
    assert plots.is_table(Dataset.from_arrays(rng.random((9, d))).image_shape, np.zeros(1)) == table
    assert plots.is_table((3, 3), np.array([[-2.0, 3.0]]))
    (ax,) = plots.any_samples(rng.random((4, d)), (1, 8) if table else (3, 3)).axes
    assert bool(ax.lines) == table
    assert bool(ax.images) != table
    assert ax.get_title("left") == "4 samples: z ~ p(z), decoded"
    (ax,) = plots.any_samples(rng.random((4, d)), (1, 8) if table else (3, 3), "of one").axes
    assert ax.get_title("left") == "of one"


@pytest.mark.parametrize("kind", [sv.VAE, sv.Autoencoder, sv.ConditionalVAE])
def test_wide_data_are_drawn_in_bounded_memory(kind, rng, tmp_path):
    """The address space may grow by a gigabyte; (40, 20000) once took eleven."""
    import resource
    from pathlib import Path

    options = {"classes": 3} if kind is sv.ConditionalVAE else {}
    x = rng.random((40, 20_001)).astype(np.float32)
    data = Dataset.from_arrays(x, y=np.arange(40) % 3)
    model = kind(20_001, hidden=(4,), latent_dim=2, rng=0, **options)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    try:
        assert plots.write_figures(model, data, [], tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_large_images_are_thinned(rng):
    x = rng.random((16, 600 * 700)).astype(np.float32)
    for figure in (
        plots.samples(x, (600, 700)),
        plots.manifold(lambda z: x[:1].repeat(len(z), 0), (600, 700)),
    ):
        (ax,) = figure.axes
        (image,) = ax.get_images()
        assert image.get_array().size < 1.5 * plots.MAX_PIXELS


def test_the_fourth_channel_is_transparency(rng):
    (ax,) = plots.samples(rng.random((1, 24)), (2, 3, 4)).axes
    (image,) = ax.get_images()
    assert image.get_array().shape == (2, 3, 4)


def test_letters_that_the_font_lacks_are_drawn_as_boxes_without_a_warning(rng, tmp_path):
    x = rng.standard_normal((7, 2))
    figure = tables.samples(x, tables.columns(x, ("é", "日")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.save(figure, tmp_path / "a.png")
