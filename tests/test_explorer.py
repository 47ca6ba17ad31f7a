"""The page of `scratchvae explore`: what is in it, and what it shows in a real browser."""

import base64
import json
import re

import numpy as np
import pytest
from chromium import MODES, WIDTHS, Browser, chromiums
from scipy import stats

import scratchvae as sv
from scratchvae import explorer
from scratchvae.activations import ACTIVATIONS
from scratchvae.cli import main
from scratchvae.evaluation import kl_of_dimensions
from scratchvae.run import Options


def run_of(folder, rng, shape=(8, 8), n=60, spread=3.0, real=False, **options):
    """Return a run that was not trained, whose weights are as large as those of trained ones."""
    x = rng.normal(2, 5, (n, *shape)) if real else rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    np.savez(folder / "x.npz", x=x, y=rng.integers(0, 4, n))
    options = {"latent": 2, "hidden": (7,), "epochs": 1, **options}
    run = sv.run.new(Options(data=str(folder / "x.npz"), **options), folder / "run")
    run.model.params.value[...] *= spread
    return run


def data_of(html):
    """Return what Python has written into a page."""
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', html)[1]
    )


def floats(base):
    return np.frombuffer(base64.b64decode(base), "<f4")


# ---- what is in it -------------------------------------------------------------------------------


def test_it_holds_codes_and_widths_of_test_examples_and_the_kl_of_each_dimension(tmp_path, rng):
    run = run_of(tmp_path, rng, n=400, latent=5)
    data = data_of(explorer.page(run))
    x = np.concatenate(list(run.trainer.test_batches()))  # (40, D)
    mu, logvar = run.model.encode(x)
    np.testing.assert_array_equal(floats(data["mu"]), mu.ravel())
    # float64 there, float32 here
    np.testing.assert_allclose(floats(data["sigma"]), np.exp(0.5 * logvar).ravel(), rtol=1e-6)
    kl = kl_of_dimensions(run.model, [x])
    assert data["share"] == pytest.approx(kl, abs=1e-4)  # four decimals
    assert data["order"] == np.argsort(-kl).tolist()
    assert data["labels"] == run.trainer.dataset.test_labels.tolist()
    assert (data["n"], data["of"]) == (40, 40)


def test_of_many_test_examples_it_takes_some_from_all_over(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(explorer, "MAX_POINTS", 60)
    run = run_of(tmp_path, rng, n=5000)
    data = data_of(explorer.page(run))
    assert (data["n"], data["of"]) == (60, 500)
    mu, _ = run.model.encode(next(run.trainer.test_batches()))
    codes = floats(data["mu"]).reshape(-1, 2)
    np.testing.assert_array_equal(codes[[0, -1]], mu[[0, -1]])
    assert len(np.unique(codes, axis=0)) == 60


def test_large_images_are_few(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(explorer, "LARGEST", 64 * 7)
    assert data_of(explorer.page(run_of(tmp_path, rng, n=400)))["n"] == 7


@pytest.mark.parametrize(
    ("last", "beyond"),
    [
        ([0, 0, 0, 800], r"dimension 2 has the mean 0 and the logvar 800"),
        ([0, 0, -1600, 0], r"dimension 1 has the mean 0 and the logvar -1600"),
        ([0, 1e200, 0, 0], r"dimension 2 has the mean 1e\+200 and the logvar 0"),
    ],
)
def test_codes_beyond_the_pages_numbers_are_refused(tmp_path, rng, last, beyond):
    run = run_of(tmp_path, rng, spread=0.0, dtype="float64")
    run.model.params["encoder.2.b"].value[...] = last
    with pytest.raises(
        sv.InputError, match=rf"code of test example 1 cannot be drawn: its {beyond}"
    ):
        explorer.page(run)


@pytest.mark.parametrize("value", [-3.0, 1e17])
def test_images_that_are_all_alike_have_a_range(value, tmp_path):
    np.save(tmp_path / "x.npy", np.full((20, 8, 8), value))
    options = Options(
        str(tmp_path / "x.npy"), likelihood="gaussian", variance="shared", latent=2, hidden=()
    )
    run = sv.run.new(options, tmp_path / "run")
    run.model.params.value[...] = 0
    image = data_of(explorer.page(run))["image"]  # a division by 0 would warn
    assert image["high"] > image["low"] == value


def test_a_large_matrix_takes_16_bits_and_is_right_to_half_a_step(rng):
    W = rng.normal(size=(300, 200)).astype(np.float32) * rng.uniform(0.01, 9, 200)
    packed = explorer._weights(W)
    whole = np.frombuffer(base64.b64decode(packed["int16"]), "<i2").reshape(W.shape)
    step = floats(packed["step"]).astype(float)
    # Half a step, which is 1/32767 of the largest in the column; and up to 32767 times the rounding
    # of the step itself to float32, 2^-24: 0.002 steps.
    assert (abs(whole * step - W) <= 0.503 * abs(W).max(axis=0) / 32767).all()
    assert (abs(whole).max(axis=0) == 32767).all()


def test_names_in_the_data_end_no_script(tmp_path, rng):
    run = run_of(tmp_path, rng, shape=(2,), real=True, likelihood="gaussian")
    object.__setattr__(run.trainer.dataset, "name", "somewhere/<!--<script>&$data")
    object.__setattr__(run.trainer.dataset, "columns", ("</script>", "<b>"))
    html = explorer.page(run)
    data = data_of(html)
    assert data["examples"] == "<!--<script>&$data"  # not where it lies on this machine
    assert data["columns"] == ["</script>", "<b>"]
    assert html.count("<script") == html.count("</script") == 2
    assert "<!--" not in html


def test_nothing_in_it_is_loaded_from_elsewhere(tmp_path, rng):
    html = explorer.page(run_of(tmp_path, rng))
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]+"|url\(|@import|fetch\(|import\(', html)
    assert "default-src 'none'" in html


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run on the digits; not to be written into."""
    out = tmp_path_factory.mktemp("trained") / "run"
    assert (
        main(["train", "--hidden", "30", "--epochs", "20", "--device", "cpu", "--out", str(out)])
        == 0
    )
    return out


def test_the_command_writes_one_file_beside_the_run_or_where_it_is_told(trained, tmp_path, capsys):
    out = tmp_path / "page.html"
    out.write_text("an older one")
    capsys.readouterr()
    assert main(["explore", str(trained), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"Wrote {out} (0.1 MB): open it in a browser\n"
    assert out.read_text("utf-8").endswith("</html>\n")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["none"], "none: no such folder: expected the folder of a run"),
        (["RUN", "--out", "page.pdf"], "--out page.pdf: expected a name that ends in .html"),
        (["RUN", "--out", "none/page.html"], "none/page.html: cannot be written"),
        (["RUN", "--out", "folder.html"], "folder.html: cannot be written"),
        (["RUN", "--data", "none.npy"], "none.npy"),
    ],
)
def test_bad_input_gets_one_sentence(trained, tmp_path, monkeypatch, capsys, argv, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    capsys.readouterr()
    assert main(["explore", *(str(trained) if a == "RUN" else a for a in argv)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


def test_a_decoder_that_is_too_large_is_refused(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(explorer, "MAX_WEIGHTS", 532)
    run = run_of(tmp_path, rng)  # 2 x 7 + 7 + 7 x 64 + 64 = 533
    with pytest.raises(sv.InputError, match=r"the decoder has 533 weights, .* at most 532"):
        explorer.page(run)


# ---- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    """One Chromium for all tests."""
    yield from chromiums()


@pytest.fixture
def browser(chromium, tmp_path):
    return Browser(chromium, tmp_path)


def shown(browser, run, width=1400, mode="light"):
    """Open the page of a run; nothing may go wrong in it."""
    html = explorer.page(run)
    (browser.folder / "page.html").write_text(html, encoding="utf-8")
    browser.open("page.html", width, mode)
    assert browser.errors() == []
    return data_of(html)


def decoded(browser, z, label=0):
    script = "return arguments[0].map((z) => window.scratchvae.decode(z, arguments[1]))"
    return np.array(browser.run(script, z.tolist(), label))


KINDS = {
    "vae": {},
    "ae": {"model": "ae"},
    "iwae": {"objective": "iwae", "samples": 2},
    "one dimension": {"latent": 1},
    "many dimensions": {"latent": 45},
    "linear": {"hidden": ()},
    "three hidden layers": {"hidden": (9, 5, 6)},
    **{name: {"activation": name, "hidden": (6, 5)} for name in ACTIVATIONS},
    "gaussian": {"likelihood": "gaussian"},
    "a variance for each": {"likelihood": "gaussian", "variance": "per-dimension"},
    "mixture": {"prior": "mixture", "components": 4},
    "labels": {"conditional": True},
    "labels and mixture": {"conditional": True, "prior": "mixture"},
    "convolutions": {"network": "conv", "hidden": (3, 5)},
    "convolutions of oblong images": {"network": "conv", "hidden": (4,), "shape": (12, 6)},
    "convolutions, a variance for each": {
        **{"network": "conv", "hidden": (3,), "likelihood": "gaussian"},
        "variance": "per-dimension",
    },
    "colours": {"shape": (5, 4, 3)},
    "colours with a mask": {"shape": (5, 4, 4)},
    "a table": {"shape": (6,), "real": True, "likelihood": "gaussian", "standardize": True},
    "a table of an autoencoder": {
        "shape": (6,),
        "real": True,
        "likelihood": "gaussian",
        "model": "ae",
    },
    "images of real numbers": {"real": True, "likelihood": "gaussian"},
    "float64": {"dtype": "float64"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_page_decodes_as_the_model_does(browser, tmp_path, rng, kind):
    run = run_of(tmp_path, rng, **KINDS[kind])
    model = run.model
    shown(browser, run)
    z = 3 * rng.standard_normal((20, model.latent_dim))
    scale = np.abs(run.trainer.dataset.test).max() / run.trainer.dataset.scale
    for label in range(model.classes or 1):
        expected = model.decode(z, *([label] if model.classes else []))
        # float32 against float64 in JavaScript, and sums of tens of terms
        np.testing.assert_allclose(
            decoded(browser, z, label), expected, rtol=1e-5, atol=1e-4 * scale
        )
    for mode in "cloud", "walk", "prior", "look":
        radio = browser.find(f"input[value={mode}]")
        if radio.is_enabled():
            browser.run("arguments[0].click()", radio)
        elif mode == "prior":
            assert not model.has_posterior
    browser.run("document.querySelector('#show-tiles').click()")
    assert browser.run("return window.scratchvae.picture().then((p) => p.length)") > 1000
    assert browser.errors() == []
    assert [url for url in browser.requested() if not url.startswith(("data:", "file:"))] == []


@pytest.mark.slow
def test_a_page_of_mnists_size_is_below_2_mb_and_decodes_to_a_thousandth(browser, tmp_path, rng):
    """Noise where a fifth of the pixels has ink, as in MNIST, and weights as of a trained model."""
    run = run_of(tmp_path, rng, shape=(28, 28), n=10_000, latent=20, hidden=(400,), spread=1)
    test = run.trainer.dataset.test
    object.__setattr__(run.trainer.dataset, "test", test * (rng.random(test.shape) < 0.2))
    W = run.model.params["decoder.2.W"].value
    W[...] = 0.3 * rng.standard_normal(W.shape)
    data = shown(browser, run)
    assert data["n"] == 1000
    assert (tmp_path / "page.html").stat().st_size < 2_000_000
    z = 2 * rng.standard_normal((50, 20))
    np.testing.assert_allclose(decoded(browser, z), run.model.decode(z), rtol=0, atol=1e-3)


def number(text):
    return float(text.replace("−", "-"))


def drawn(browser, selector, *names):
    """Return attributes of the shapes that a selector finds, (n, names)."""
    script = """return [...document.querySelectorAll(arguments[0])].map((e) =>
        arguments[1].map((name) => Number(e.getAttribute(name))))"""
    return np.array(browser.run(script, selector, names))


def scale_of(browser):
    return browser.run("return scale")


def choose(browser, mode):
    browser.run("arguments[0].click()", browser.find(f"input[value={mode}]"))


def type_number(browser, selector, number):
    """Type a number over the one that stands in a field."""
    from selenium.webdriver import Keys

    browser.run("arguments[0].select()", field := browser.find(selector))
    field.send_keys(str(number), Keys.ENTER)


@pytest.fixture(scope="module")
def digits(trained):
    return sv.run.open(trained)


def code_of(run, i):
    x = next(run.trainer.test_batches())
    mu, logvar = run.model.encode(x)
    return mu[i].astype(float), np.exp(0.5 * logvar[i].astype(float))


@pytest.mark.slow
def test_points_and_ellipses_are_the_posteriors(browser, digits):
    data = shown(browser, digits)
    scale = scale_of(browser)
    mu, sigma = (np.array([code_of(digits, i)[k] for i in range(data["n"])]) for k in (0, 1))
    ellipses = drawn(browser, "#codes ellipse", "cx", "cy", "rx", "ry") / scale
    # The places have one decimal.
    np.testing.assert_allclose(ellipses[:, :2] * [1, -1], mu, rtol=0, atol=0.06 / scale)
    np.testing.assert_allclose(ellipses[:, 2:], sigma, rtol=0, atol=0.06 / scale)
    words = browser.run(
        "return [...document.querySelectorAll('#codes text')].map((e) => e.textContent)"
    )
    assert words == [str(label) for label in data["labels"]]
    assert "297 test examples" in browser.text("#facts")
    browser.find("#show-ellipses").click()
    assert browser.find_all("#codes ellipse") == []


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_the_picture_under_the_pointer_is_decoded(browser, digits, width, rng):
    from selenium.webdriver import ActionChains

    shown(browser, digits, width)
    plane = browser.find("#plane")
    box = browser.run("return arguments[0].getBoundingClientRect().toJSON()", plane)
    unit = scale_of(browser) * box["width"] / 400  # pixels to 1
    right, down = (int(n) for n in rng.integers(-int(box["width"] / 3), int(box["width"] / 3), 2))
    if width == 1400:
        ActionChains(browser.driver).move_to_element_with_offset(plane, right, down).perform()
    else:  # a finger taps
        x, y = box["x"] + box["width"] / 2 + right, box["y"] + box["height"] / 2 + down
        browser.command("Emulation.setTouchEmulationEnabled", enabled=True)
        try:
            browser.touch("Start", (x, y))
            browser.touch("End")
        finally:
            browser.command("Emulation.setTouchEmulationEnabled", enabled=False)
    z = np.array(browser.run("return state.z"))
    assert z == pytest.approx([right / unit, -down / unit], abs=1.5 / unit)
    pixels = browser.run("""const c = document.querySelector("#decoded");
        return Array.from(c.getContext("2d").getImageData(0, 0, c.width, c.height).data)""")
    grey = np.array(pixels).reshape(-1, 4)[:, :3]
    # A grey is rounded to a whole number.
    expected = 255 * (1 - digits.model.decode([z])[0])
    np.testing.assert_allclose(grey, np.tile(expected[:, None], 3), rtol=0, atol=0.51)


@pytest.mark.slow
def test_a_posterior_is_dragged_and_its_draws_go_with_it(browser, digits, rng):
    from selenium.webdriver import ActionChains, Keys

    data = shown(browser, digits)
    choose(browser, "cloud")
    # One in the middle, whose handles have room on their usual side.
    i = int(rng.choice(np.flatnonzero(abs(floats(data["mu"]).reshape(-1, 2)).max(axis=1) < 1)))
    type_number(browser, "#image", i + 1)
    mu, sigma = code_of(digits, i)
    scale = scale_of(browser)

    def cloud():
        ellipse = drawn(browser, "ellipse.posterior", "cx", "cy", "rx", "ry")[0] / scale
        return ellipse * [1, -1, 1, 1]

    encoded = [*mu, *sigma]
    assert cloud() == pytest.approx(encoded, abs=1e-5)  # float32
    draws = drawn(browser, "#draws circle", "cx", "cy") / scale * [1, -1]
    eps = (draws - mu) / sigma
    assert len(draws) == 32
    assert eps.mean(axis=0) == pytest.approx([0, 0], abs=1e-6)  # in pairs
    assert stats.kstest(eps[::2].ravel(), "norm").pvalue > 1e-6  # one test run in a million
    strip = "return [...document.querySelectorAll('#cloud-strip canvas')].map((c) => c.toDataURL())"
    before = browser.run(strip)
    assert len(set(before)) == 8

    box = browser.run(
        "return arguments[0].getBoundingClientRect().toJSON()", browser.find("#plane")
    )
    unit = scale * box["width"] / 400
    drag = ActionChains(browser.driver).drag_and_drop_by_offset
    drag(browser.find("#cloud .hit.mean"), 20, -30).perform()
    moved = [encoded[0] + 20 / unit, encoded[1] + 30 / unit, *encoded[2:]]
    # The mouse took hold of the handle somewhere near its centre.
    assert cloud() == pytest.approx(moved, abs=2 / unit)
    again = drawn(browser, "#draws circle", "cx", "cy") / scale * [1, -1]
    np.testing.assert_allclose((again - cloud()[:2]) / cloud()[2:], eps, rtol=0, atol=1e-4)
    assert browser.run(strip) != before
    drag(browser.find("#cloud .hit.width"), 15, 0).perform()
    assert cloud()[2] == pytest.approx(encoded[2] + 15 / unit, abs=2 / unit)

    browser.set("#z-1", 10)  # at the right edge, where the handle stands on the left
    x, handle = (drawn(browser, f"#cloud .handle.{k}", "cx")[0, 0] for k in ("mean", "width"))
    assert handle < x

    code, width = (np.array(browser.run(f"return state.{name}")) for name in ("z", "width"))
    kl, _ = sv.gaussian.kl_standard_normal(code[None], 2 * np.log(width)[None])
    assert f"KL {kl[0]:.2f} nats" in browser.text("#said")
    x = browser.run("return state.z[state.axes[0]]")
    browser.find("#plane").send_keys(Keys.ARROW_LEFT)
    assert browser.run("return state.z[state.axes[0]]") == pytest.approx(x - 0.01 * 200 / scale)
    browser.find("#encode").send_keys(Keys.SPACE)
    assert cloud() == pytest.approx(encoded, abs=1e-5)


@pytest.mark.slow
def test_a_zoom_keeps_what_is_pointed_at_in_its_place(browser, digits, rng):
    from selenium.webdriver import ActionChains, Keys

    data = shown(browser, digits)
    codes = floats(data["mu"]).reshape(-1, 2)
    plane, whole = browser.find("#plane"), scale_of(browser)
    box = browser.run("return arguments[0].getBoundingClientRect().toJSON()", plane)
    unit = whole * box["width"] / 400

    def middles():
        script = """return [...document.querySelectorAll("#codes text")].map((e) => {
            const at = e.getScreenCTM(), x = e.getAttribute("x"), y = e.getAttribute("y");
            return [at.a * x + at.e, at.d * y + at.f]; })"""
        return np.array(browser.run(script))

    before = middles()
    centre = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    at = np.rint(centre + rng.uniform(-200, 200, 2))  # Chromium's mouse points at whole pixels
    point = (at - centre) / [unit, -unit]
    wheel = f"""return !document.querySelector("#plane").dispatchEvent(new WheelEvent("wheel", {{
        deltaY: -100, cancelable: true, ctrlKey: arguments[0],
        clientX: {at[0]}, clientY: {at[1]} }}))"""
    assert not browser.run(wheel, False)  # that scrolls the page
    assert scale_of(browser) == whole
    assert browser.run(wheel, True)  # and the page does not grow as well
    assert scale_of(browser) == pytest.approx(2 * whole)
    # The places have one decimal: 0.05 units off, and twice as much where they are doubled.
    atol = 3 * 0.051 * box["width"] / 400
    np.testing.assert_allclose(middles() - at, 2 * (before - at), rtol=0, atol=atol)
    assert browser.run("return state.z") == [0, 0]

    # A click finds the example that is there, and its cloud stands there.
    i = int(np.argmin(np.hypot(*(codes - point).T)))
    right, down = np.rint(middles()[i] - centre)
    choose(browser, "walk")  # whose line has no handles
    move = ActionChains(browser.driver).move_to_element_with_offset
    move(plane, int(right), int(down)).click().perform()
    picked = codes[browser.run("return state.ends[1]")]
    assert np.hypot(*(picked - codes[i])) * unit < 2  # a whole pixel, twice

    plane.send_keys("0")
    assert scale_of(browser) == whole
    np.testing.assert_allclose(middles(), before, rtol=0, atol=1e-3)
    # The keys zoom about the code, and the arrows do not lose it.
    choose(browser, "look")
    browser.run("moveTo([1, -1])")
    plane.send_keys("+++")
    assert scale_of(browser) == pytest.approx(8 * whole)
    plane.send_keys(Keys.SHIFT, *[Keys.ARROW_LEFT] * 40)

    def ring():
        return np.array(
            browser.run("""const ring = document.querySelector("#ring .here");
            const at = ring.getBoundingClientRect(), box = plane.getBoundingClientRect();
            return [(at.x + at.width / 2 - box.x) / box.width,
                    (at.y + at.height / 2 - box.y) / box.height]""")
        )

    assert browser.run("return state.z[0]") == pytest.approx(1 - 40 * 0.05 * 200 / (8 * whole))
    assert ((ring() > 0) & (ring() < 1)).all()
    browser.find("#zoom-out").click()
    assert scale_of(browser) == pytest.approx(4 * whole)
    for _ in range(12):
        browser.find("#zoom-in").click()
    assert scale_of(browser) == pytest.approx(64 * whole)  # and no further
    browser.find("#zoom-whole").click()
    np.testing.assert_allclose(middles(), before, rtol=0, atol=1e-3)
    assert browser.errors() == []


@pytest.mark.slow
@pytest.mark.parametrize("corner", [-200, 0])
def test_a_plane_has_zero_in_its_middle_wherever_its_viewbox_begins(browser, digits, corner):
    """The figures of the documentation share latent.js, and one has its origin in a corner."""
    shown(browser, digits)
    found = browser.run(f"""const name = "http://www.w3.org/2000/svg";
        const svg = document.createElementNS(name, "svg");
        svg.setAttribute("viewBox", "{corner} {corner} 400 400");
        svg.style.cssText = "position: fixed; left: 10px; top: 20px; width: 200px; height: 200px;";
        document.body.append(svg);
        return [[110, 120], [140, 120], [110, 60]].map(([clientX, clientY]) =>
            pointAt(svg, 60, {{ clientX, clientY }}));""")
    # 200 pixels show 400 units, and 60 units are 1.
    np.testing.assert_allclose(found, [[0, 0], [1, 0], [0, 2]], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_cloud_is_made_wider_without_a_pointer(browser, digits):
    from selenium.webdriver import Keys

    shown(browser, digits)
    choose(browser, "cloud")
    width = browser.run("return state.width")
    for k in 0, 1:
        browser.find(f"#width-{k + 1}").send_keys(*[Keys.ARROW_RIGHT] * 5)
        # The slider has two decimals.
        assert browser.run("return state.width")[k] == pytest.approx(width[k] + 0.05, abs=0.006)
    radii = drawn(browser, "ellipse.posterior", "rx", "ry")[0] / scale_of(browser)
    assert radii == pytest.approx(browser.run("return state.width"))


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["normal", "mixture"])
def test_one_dimension_has_widths_and_no_second_axis(browser, tmp_path, rng, prior):
    components = {"components": 2} if prior == "mixture" else {}
    run = run_of(tmp_path, rng, latent=1, prior=prior, **components)
    data = shown(browser, run)
    browser.find("#show-ellipses").click()
    ellipses = drawn(browser, "#codes ellipse", "rx", "ry")
    widths = floats(data["sigma"])
    np.testing.assert_allclose(ellipses[:, 0], scale_of(browser) * widths, atol=0.06)
    assert (ellipses[:, 1] > 0).all()  # else they are not drawn
    assert (drawn(browser, "#axis ellipse", "ry") > 0).all()
    assert browser.find_all("#axis circle") == []
    heights = drawn(browser, "#names text:not(.start)", "y")
    assert len(np.unique(heights)) == 2  # the numbers below the axis, and its name above
    choose(browser, "cloud")
    assert drawn(browser, "ellipse.posterior", "ry")[0, 0] > 0
    assert "higher" not in browser.text("#hint")
    assert len(browser.find_all("#widths input")) == 1


@pytest.mark.slow
def test_a_walk_goes_straight_from_one_code_to_another(browser, digits, rng):
    from selenium.webdriver import Keys

    data = shown(browser, digits)
    choose(browser, "walk")
    ends = [int(i) for i in rng.choice(data["n"], 2, replace=False)]
    for name, i in zip(("from", "to"), ends, strict=True):
        type_number(browser, f"#{name}", i + 1)
    a, b = (code_of(digits, i)[0] for i in ends)
    for t in 0, 0.25, 1:
        browser.set("#step", t)
        assert browser.run("return state.z") == pytest.approx(a + t * (b - a), abs=1e-5)
    browser.command(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-reduced-motion", "value": "reduce"}],
    )
    browser.find("#play").click()  # a step, and no motion
    assert browser.run("return state.z") == pytest.approx(a, abs=1e-5)
    browser.find_all("#walk-strip button")[-1].send_keys(Keys.SPACE)
    assert browser.run("return state.z") == pytest.approx(b, abs=1e-5)


@pytest.mark.slow
def test_a_walk_of_one_example_stays_there(browser, tmp_path, rng):
    data = shown(browser, run_of(tmp_path, rng, n=10))
    assert data["n"] == 1
    choose(browser, "walk")
    assert browser.errors() == []
    assert browser.run("return state.ends") == [0, 0]


@pytest.mark.slow
def test_a_walk_is_decoded_as_the_label_of_its_first_end(browser, tmp_path, rng):
    data = shown(browser, run_of(tmp_path, rng, n=400, conditional=True))
    choose(browser, "walk")
    for i in rng.choice(data["n"], 3, replace=False):
        type_number(browser, "#from", int(i) + 1)
        assert browser.run("return state.label") == data["labels"][i]
        assert browser.find("#label").get_attribute("value") == str(data["labels"][i])


@pytest.mark.slow
def test_a_click_in_the_plane_picks_the_example_that_is_there(browser, digits, rng):
    from selenium.webdriver import ActionChains

    data = shown(browser, digits)
    choose(browser, "cloud")
    codes = floats(data["mu"]).reshape(-1, 2)
    box = browser.run(
        "return arguments[0].getBoundingClientRect().toJSON()", browser.find("#plane")
    )
    unit = scale_of(browser) * box["width"] / 400
    current = browser.run("return state.image")
    # Not on a handle, which stands two sigma and a thumb's width from the centre at most.
    far = np.hypot(*(codes - codes[current]).T) * unit > 180
    i = int(rng.choice(np.flatnonzero(far)))
    x, y = (int(n) for n in np.rint(codes[i] * [unit, -unit]))
    move = ActionChains(browser.driver).move_to_element_with_offset
    move(browser.find("#plane"), x, y).click().perform()
    picked = codes[browser.run("return state.image")]
    assert np.hypot(*(picked - codes[i])) * unit < 3  # a whole pixel, twice


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["normal", "mixture"])
def test_samples_come_from_the_prior(browser, tmp_path, rng, prior):
    components = {"components": 2} if prior == "mixture" else {}
    run = run_of(tmp_path, rng, latent=3, prior=prior, **components)
    if prior == "mixture":
        run.model.prior.logits.value[...] = np.log([0.2, 0.8])
        run.model.prior.mean.value[...] = [[-2, 0, 1], [3, 1, 1]]
        run.model.prior.logvar.value[...] = 2 * np.log([[0.1, 1, 1], [0.2, 1, 2]])
    shown(browser, run)
    z = np.array(browser.run("return Array.from({length: 4000}, drawPrior)"))
    # 5 standard errors each; of a variance's, sqrt(2 / n)
    if prior == "normal":
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=5 / 4000**0.5)
        np.testing.assert_allclose(z.var(axis=0), 1, atol=5 * (2 / 4000) ** 0.5)
        density = stats.norm.logpdf(z[:5]).sum(axis=1)
    else:
        first = z[:, 0] < 0  # ten standard deviations from both means
        assert first.mean() == pytest.approx(0.2, abs=5 * 0.4 / 4000**0.5)
        for which, mean, std in (
            (first, [-2, 0, 1], [0.1, 1, 1]),
            (~first, [3, 1, 1], [0.2, 1, 2]),
        ):
            n = which.sum()
            unit = (z[which] - mean) / std
            np.testing.assert_allclose(unit.mean(axis=0), 0, atol=5 / n**0.5)
            np.testing.assert_allclose(unit.var(axis=0), 1, atol=5 * (2 / n) ** 0.5)
        density = run.model.log_prior(z[:5])
        assert len(browser.find_all("#axis ellipse")) == 2
    found = browser.run("return arguments[0].map(logPrior)", z[:5].tolist())
    np.testing.assert_allclose(found, density, rtol=1e-5, atol=1e-5)  # float32 parameters
    choose(browser, "prior")
    assert (
        len(browser.find_all("#prior-strip canvas"))
        == len(browser.find_all("#samples circle"))
        == 24
    )
    browser.find_all("#prior-strip button")[3].click()
    assert browser.run("return state.z") == browser.run("return state.samples[3]")


@pytest.mark.slow
def test_two_dimensions_are_chosen_and_sliders_move_the_others(browser, tmp_path, rng):
    run = run_of(tmp_path, rng, latent=6, n=300)
    data = shown(browser, run)
    order = data["order"]
    sliders = [int(e.get_attribute("data-dimension")) for e in browser.find_all("#sliders input")]
    assert sliders == order  # by their KL
    codes = floats(data["mu"]).reshape(-1, 6)
    for across, up in (order[:2], (order[2], order[5]), (order[5], order[2])):
        for k, j in (1, across), (2, up):
            browser.run(
                f"byId('axis-{k}').value = {j}; byId('axis-{k}').dispatchEvent(new Event('change'))"
            )
        places = drawn(browser, "#codes text", "x", "y") / scale_of(browser) * [1, -1]
        np.testing.assert_allclose(
            places, codes[:, [across, up]], rtol=0, atol=0.06 / scale_of(browser)
        )
    j = order[3]
    browser.set(f"#z-{j + 1}", 1.25)
    z = np.zeros(6)
    z[j] = 1.25
    assert browser.run("return state.z") == z.tolist()
    np.testing.assert_allclose(
        browser.run("return Array.from(meanAt(state.z))"), run.model.decode([z])[0], atol=1e-5
    )


@pytest.mark.slow
def test_a_label_is_chosen(browser, tmp_path, rng):
    run = run_of(tmp_path, rng, conditional=True)
    data = shown(browser, run)
    browser.run("byId('label').value = 2; byId('label').dispatchEvent(new Event('change'))")
    found = browser.run("return Array.from(meanAt(state.z))")
    np.testing.assert_allclose(found, run.model.decode([[0, 0]], 2)[0], atol=1e-5)
    choose(browser, "cloud")  # and an example has its own
    assert browser.run("return state.label") == data["labels"][browser.run("return state.image")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conditional", "six dimensions"])
def test_the_pictures_all_over_the_plane_are_of_the_present_code(browser, tmp_path, rng, kind):
    options = {"conditional": {"conditional": True}, "six dimensions": {"latent": 6}}[kind]
    shown(browser, run_of(tmp_path, rng, n=400, **options))
    browser.find("#show-tiles").click()
    seen = set()
    for what in (
        "setMode('cloud')",
        "choose(labels.findIndex((label) => label !== state.label))",
        "walk(3, 30)",
        "stepTo(1)",
        "moveTo(Array(latent).fill(0.7))",
        "byId('centre').click()",
    ):
        found = browser.driver.execute_async_script(
            f"const done = arguments[0]; {what};"
            "const address = () => byId('tiles').getAttribute('href');"
            "setTimeout(() => { const shown = address(); drawTiles();"
            " setTimeout(() => done([shown, address()]), 400); }, 400);"
        )
        assert found[0] == found[1], what
        seen.add(found[0])
    assert len(seen) > 1


@pytest.mark.slow
def test_a_saved_picture_is_as_high_as_what_is_seen(browser, tmp_path, rng):
    """Of images that are higher than wide the strip of draws is long."""
    from io import BytesIO

    from PIL import Image

    shown(browser, run_of(tmp_path, rng, shape=(12, 4)))
    choose(browser, "prior")
    address = browser.driver.execute_async_script("picture().then(arguments[0])")
    image = Image.open(BytesIO(base64.b64decode(address.partition(",")[2])))
    # 24 samples in rows of four, each 112 wide and three times as high, below the decoded one.
    assert image.height > 40 + 260 * 3 + 70 + 6 * 112 * 3


@pytest.mark.slow
def test_an_autoencoder_has_points_and_says_why_there_are_no_ellipses(browser, tmp_path, rng):
    run = run_of(tmp_path, rng, model="ae")
    shown(browser, run)
    assert len(browser.find_all("#codes text")) == 6
    assert browser.find_all("ellipse") == []
    assert not browser.find("input[value=prior]").is_enabled()
    choose(browser, "cloud")
    assert "there is no σ, so there is no ellipse" in browser.text("#hint")
    assert "log p(z)" not in browser.text("#said")


@pytest.mark.slow
def test_a_picture_of_what_is_seen_is_saved(browser, digits):
    from io import BytesIO

    from PIL import Image

    for mode, paper in zip(MODES, ((255, 255, 255), (20, 24, 29)), strict=True):
        shown(browser, digits, mode=mode)
        browser.run(
            "HTMLAnchorElement.prototype.click = function () {"
            " window.saved = [this.download, this.href]; }"
        )
        browser.find("#save").click()
        browser.driver.execute_async_script(
            "const done = arguments[0];"
            "(function wait() { window.saved ? done() : setTimeout(wait, 20); })()"
        )
        name, address = browser.run("return window.saved")
        assert name == "latent-plane.png"
        image = Image.open(BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB")
        assert image.getpixel((5, 5)) == paper
        colours = {image.getpixel((x, y)) for x in range(40, 1040, 3) for y in range(40, 1040, 3)}
        assert len(colours) > 50  # the points, in the colours of their labels
        assert len({image.getpixel((x, 100)) for x in range(1080, 1340)}) > 5  # the decoded digit


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("mode", MODES)
def test_it_can_be_used_by_all(browser, digits, mode, width):
    shown(browser, digits, width, mode)
    assert browser.run("return document.documentElement.dataset.theme") == mode
    for what in "cloud", "walk", "prior", "look":
        choose(browser, what)
        assert browser.run("return document.scrollingElement.scrollWidth") <= width
        assert browser.violations() == []
    for control in browser.find_all("button, input, select"):
        if control.is_displayed():
            assert control.accessible_name, control.get_attribute("outerHTML")
    browser.find("#theme").click()
    assert browser.run("return document.documentElement.dataset.theme") != mode
