"""The built pages in a real browser: Chromium without a window, driven by selenium.

Needs the site (`SCRATCHVAE_SITE`, docs/_build/html if it is not set), selenium, chromium,
chromedriver, and axe-core in docs/node_modules. What is missing is said and the tests are skipped;
with SCRATCHVAE_REQUIRE_BROWSER=1 they fail.
"""

import importlib
import importlib.util
import json
import math
import os
import re
import sys
from pathlib import Path
from urllib.parse import quote_plus

import numpy as np
import pytest
from chromium import MODES, WIDTHS, Browser, chromiums, needed

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[2] / "docs"
SITE = Path(os.environ.get("SCRATCHVAE_SITE") or DOCS / "_build" / "html").resolve()
PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if "_static" not in path.relative_to(SITE).parts
)
# WCAG 2.2, criteria 1.4.3 and 1.4.11: contrast of text, and of lines that carry meaning.
TEXT_CONTRAST, LINE_CONTRAST = 4.5, 3.0

# The pages of the sources are made by one template and differ only in length and in the tokens that
# Pygments colours; those of the reference are made of docstrings by another. So a run looks at
# every tenth of the first and every fourth of the second; the seed says at which, so that no page
# is left out for good.
SEED = int(os.environ["SCRATCHVAE_TEST_SEED"])
LOOKED_AT = [page for page in PAGES if not page.startswith(("source/", "api/"))]
for folder, every in ("source/", 10), ("api/", 4):
    LOOKED_AT += [page for page in PAGES if page.startswith(folder)][SEED % every :: every]

every_page = pytest.mark.parametrize("page", LOOKED_AT or ["answer.html"])


@pytest.fixture(scope="module")
def chromium():
    """One Chromium for all tests."""
    needed(PAGES, f"site in {SITE}: build the documentation, or set SCRATCHVAE_SITE")
    yield from chromiums()


@pytest.fixture
def browser(chromium):
    return Browser(chromium, SITE)


@pytest.fixture(scope="module")
def answer():
    """The extension that feeds answer.md; it keeps its models beside the site."""
    needed(importlib.util.find_spec("sphinx"), "sphinx")
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        yield importlib.import_module("answer")
    finally:
        sys.path.remove(str(DOCS / "_ext"))


# ---- every page ----------------------------------------------------------------------------------


@every_page
def test_a_page_needs_no_network_and_reports_no_error(browser, page):
    browser.open(page)
    # What loads only when it is seen is to load here too.
    browser.run("window.scrollTo(0, document.body.scrollHeight)")
    browser.driver.execute_async_script("setTimeout(arguments[0], 100)")
    urls = browser.requested()
    assert (SITE / page).as_uri() in urls  # the log does see requests
    here = SITE.as_uri() + "/"
    assert [url for url in urls if not url.startswith((here, "data:", "blob:"))] == []
    assert browser.errors() == []


# Of the page and of the boxes around its text: those wider inside than outside, and what widens
# them. A table or a listing may scroll in a box of its own.
TOO_WIDE = """
const found = [];
for (let box = document.querySelector("article"); box; box = box.parentElement)
  if (box.scrollWidth > box.clientWidth) found.push(box.tagName + "." + box.className);
const cut = (e) => e !== document.body &&
  (/pre|table|math|katex/i.test(e.className + e.tagName) || cut(e.parentElement));
return found.length === 0 ? [] : found.concat([...document.body.querySelectorAll("*")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5 && !cut(e))
  .slice(0, 5).map((e) => e.outerHTML.slice(0, 150)));
"""


CUT = """return [...document.querySelectorAll(
  "article pre, article .katex-display, article :has(> table)")]
  .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.outerHTML.slice(0, 100))"""


@pytest.mark.parametrize("width", WIDTHS)
@every_page
def test_nothing_is_wider_than_the_window(browser, page, width):
    browser.open(page, width)
    assert browser.run("return innerWidth") == width
    assert browser.run("return document.scrollingElement.scrollWidth") <= width
    assert browser.run(TOO_WIDE) == []
    if (
        width == 1400
    ):  # on a desktop no listing, formula or table scrolls in a box of its own either
        assert browser.run(CUT) == []


@pytest.mark.parametrize("mode", MODES)
@every_page
def test_axe_finds_nothing_serious(browser, page, mode):
    browser.open(page, mode=mode)
    assert browser.violations() == []


def results(browser, words):
    """Return address and text of what the site's search finds, the first first."""
    browser.open("search.html", query="?q=" + quote_plus(words))
    browser.driver.execute_async_script(
        """const done = arguments[0], latest = Date.now() + 60000, wait = () =>
        (/finished/.test(document.querySelector(".search-summary")?.innerText)
         && document.querySelector("ul.search .context")) || Date.now() > latest
        ? setTimeout(done, 200) : setTimeout(wait, 50); wait()"""
    )
    found = browser.find_all("ul.search > li")
    return [(li.find_element("css selector", "a").get_attribute("href"), li.text) for li in found]


@pytest.mark.parametrize("words", ["kl-grad-mu", "# [kl-grad-mu]", "KL-grad-mu "])
def test_the_search_finds_the_equation_of_a_label_first(browser, words):
    address, _ = results(browser, words)[0]
    assert address.endswith("/derivations/kl.html#equation-kl-grad-mu")


def test_results_of_the_search_have_excerpts_without_a_network(browser):
    found = results(browser, "cancellation")
    assert found
    excerpts = [text.partition("\n")[2].lower() for _, text in found]
    # The search goes by the stem of a word.
    assert any("cancel" in text and len(text) > 60 for text in excerpts)


def luminance(rgb):
    """WCAG's relative luminance of "rgb(r, g, b)"."""
    r, g, b = (int(n) / 255 for n in re.findall(r"\d+", rgb)[:3])
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (r, g, b)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", MODES)
def test_the_figures_stand_out_in_both_modes(browser, mode):
    """axe-core looks at no text inside SVG, and at no line."""
    browser.open("answer.html", mode=mode)
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (luminance(background) > 0.5) == (mode == "light")
    browser.find("#gaussian-wrong").click()
    colours = browser.run(
        """return [["svg text", "fill", arguments[0]], ["path.prior, path.posterior, path.wrong",
        "stroke", arguments[1]], ["circle.eps, circle.z", "fill", arguments[1]], [".axis path",
        "stroke", arguments[1]], [".here, .handle, ellipse, .pull", "stroke", arguments[1]]]
        .flatMap(([which, property, least]) =>
        [...document.querySelectorAll(".answer :is(" + which + ")")]
        .map((e) => [e.outerHTML.slice(0, 80), getComputedStyle(e)[property], least]))""",
        TEXT_CONTRAST,
        LINE_CONTRAST,
    )
    assert len(colours) > 300
    assert [c for c in colours if contrast(c[1], background) < c[2]] == []


# ---- one dimension ------------------------------------------------------------------------------


def number(text):
    return float(text.replace("−", "-").rstrip("%"))


def curve(browser, name):
    """Return z and density of a drawn curve, (n,) each."""
    points = re.findall(r"(-?[\d.]+) (-?[\d.]+)", browser.find(f"path.{name}").get_attribute("d"))
    x, y = np.array(points, dtype=float).T
    return (x - 220) / 30, (190 - y) / 175


def check_gaussian(browser, mu, sigma):
    """Compare everything that the figure shows with mu and sigma."""

    def density(z, mean, deviation):
        return np.exp(-0.5 * ((z - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))

    is_wrong = browser.find("#gaussian-wrong").is_selected()
    factor = math.log(0.5 * sigma) if is_wrong else sigma
    shown = {"prior": (0, 1), "posterior": (mu, sigma)}
    if is_wrong and abs(factor) > 1e-9:
        shown["wrong"] = (mu, abs(factor))
    for name, (mean, deviation) in shown.items():
        z, drawn = curve(browser, name)
        # The path has two decimals: z is right to 0.005 / 30 and the density to 0.005 / 175;
        # the slope of a density is below 0.25 / deviation^2.
        atol = 0.006 * (1 / 175 + 0.25 / deviation**2 / 30)
        np.testing.assert_allclose(drawn, density(z, mean, deviation), rtol=0, atol=atol)
        assert np.ptp(z) == pytest.approx(10 * deviation, abs=0.001)
    eps, z = (
        (
            np.array([float(c.get_attribute("cx")) for c in browser.find_all(f"#gaussian .{k}")])
            - 220
        )
        / 30
        for k in ("eps", "z")
    )
    # Two decimals each again; eps is multiplied by sigma <= 2.5, or by the wrong factor >= -3.
    np.testing.assert_allclose(z, mu + factor * eps, rtol=0, atol=4 * 0.0051 / 30)
    peak = browser.text("#gaussian text.peak")
    assert peak == (f"↑ {density(0, 0, sigma):.2f}" if density(0, 0, sigma) > 1 else "")
    terms = [mu**2 / 2, (sigma**2 - 1) / 2, -math.log(sigma)]
    cells = [number(e.text) for e in browser.find_all("#gaussian .terms td:nth-child(2)")]
    assert cells == pytest.approx([*terms, sum(terms)], abs=0.00051)  # shown with three decimals
    said = [number(browser.text(f"#gaussian .terms .{name}")) for name in ("mu", "sigma")]
    assert said == pytest.approx([mu, sigma])
    return eps


def test_sliders_move_the_gaussian(browser, rng):
    browser.open("answer.html")
    for wrong in (False, True):
        assert browser.find("path.wrong").is_displayed() == wrong
        drawn = np.column_stack([rng.integers(-30, 31, 5) / 10, rng.integers(2, 51, 5) / 20])
        for mu, sigma in [(0, 1), (0.5, 2), (-3, 0.1), *drawn.tolist()]:
            browser.set("#gaussian-mu", mu)
            browser.set("#gaussian-sigma", sigma)
            check_gaussian(browser, mu, sigma)
        browser.find("#gaussian-wrong").click()


def test_the_wrong_formula_draws_a_spike_at_two(browser):
    browser.open("answer.html")
    browser.set("#gaussian-mu", -1)
    browser.set("#gaussian-sigma", 2)
    browser.find("#gaussian-wrong").click()
    assert browser.find("path.wrong").get_attribute("d") == "M190 190V0"


def test_what_changes_is_announced(browser):
    browser.open("answer.html")
    for selector in ("#gaussian-said", "#decoder-said", "#pulls .said"):
        spoken = browser.find(selector)
        assert spoken.get_attribute("aria-live") == "polite"
        before = spoken.get_property("textContent")
        browser.set("#gaussian-mu", 3)
        browser.set("#decoder-z1", 3)
        browser.set("#pulls-vae-mu1", 3)
        assert spoken.get_property("textContent") != before
        browser.set("#decoder-z1", -3)
        browser.set("#pulls-vae-mu1", -3)
    for control in browser.find_all(".answer :is(input, button)"):
        assert control.accessible_name, control.get_attribute("outerHTML")


def test_the_gaussian_answers_to_keyboard_and_mouse(browser):
    from selenium.webdriver import ActionChains, Keys

    browser.open("answer.html")
    eps = check_gaussian(browser, 1.5, 0.5)
    browser.find("#gaussian-mu").send_keys(Keys.ARROW_LEFT)
    browser.find("#gaussian-sigma").send_keys(Keys.ARROW_UP, Keys.ARROW_UP)
    np.testing.assert_array_equal(check_gaussian(browser, 1.4, 0.6), eps)
    assert browser.text("#gaussian-said") == "KL 1.171 nats"
    ActionChains(browser.driver).click(browser.find("#gaussian-mu")).perform()  # in its middle
    check_gaussian(browser, 0, 0.6)
    browser.find("#gaussian-draw").send_keys(Keys.SPACE)
    # The mean of 16 draws from N(0, 1) has the standard deviation 1/4, and 1.5 is six of these.
    again = check_gaussian(browser, 0, 0.6)
    assert (again != eps).all()
    assert abs(again.mean()) < 1.5


# ---- the two pulls -------------------------------------------------------------------------------


@pytest.fixture
def worlds(answer):
    """What the first figure must show: for a kind, beta, image and code the loss's two terms."""
    folder = SITE.parent / "answer"
    digits = answer.sv.datasets.load("digits")
    x = answer.sv.datasets.to_float(digits.test, digits.scale, np.dtype(float))
    data = answer.pulls_figure(folder)["data"]
    eps = np.array(json.loads(data)["eps"])  # (32, 2)

    def terms(kind, beta, label, code):
        model = answer.load_model(answer.BETAS[beta] if kind == "vae" else "ae", folder)
        mu, sigma = np.array(code[:2]), np.array(code[2:])
        z = mu + sigma * eps if kind == "vae" else mu[None]
        output, _ = model.decoder.forward(z.astype(np.float32))
        image = x[digits.test_labels == label][[0]].repeat(len(z), axis=0)
        nll = float(model.nll(image, output.astype(float))[0].mean())
        kl = 0.5 * np.sum(mu**2 + sigma**2 - 1 - 2 * np.log(sigma)) if kind == "vae" else 0.0
        return nll, beta * kl, nll + beta * kl

    return terms


def pulls_shown(browser):
    """Return what both halves of the figure say, in the order of the page."""
    return [number(e.text) for e in browser.find_all("#pulls .terms td:nth-child(2)")]


def code_shown(browser, kind):
    # The sliders have steps of 0.01; their outputs show two decimals.
    return [number(e.text) for e in browser.find_all(f"#pulls output[for^=pulls-{kind}]")]


def test_the_loss_of_a_moved_cloud_is_the_librarys(browser, worlds, rng):
    browser.open("answer.html")
    for step, beta in enumerate([0.1, 1, 4]):
        label = int(rng.integers(10))
        browser.set("#pulls-image", label)
        browser.set("#pulls-beta", step)
        mu, sigma = rng.integers(-300, 301, 2) / 100, rng.integers(2, 201, 2) / 100
        point = rng.integers(-1600, 1601, 2) / 100
        for name, value in zip(("mu1", "mu2", "sigma1", "sigma2"), (*mu, *sigma), strict=True):
            browser.set(f"#pulls-vae-{name}", value)
        for name, value in zip(("mu1", "mu2"), point, strict=True):
            browser.set(f"#pulls-ae-{name}", value)
        assert code_shown(browser, "vae") == pytest.approx([*mu, *sigma])
        expected = [*worlds("vae", beta, label, (*mu, *sigma)), *worlds("ae", 1, label, point)[::2]]
        # Shown with two decimals; a float32 decoder is right to seven digits.
        assert pulls_shown(browser) == pytest.approx(expected, abs=0.0051, rel=1e-5)
        ellipse = browser.find("#pulls ellipse.posterior")
        drawn = [float(ellipse.get_attribute(key)) / 56 for key in ("cx", "cy", "rx", "ry")]
        assert drawn == pytest.approx([mu[0], -mu[1], *sigma])


def test_a_cloud_that_is_let_go_comes_to_rest_where_the_loss_is_lowest(browser, worlds):
    browser.open("answer.html")
    motion = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.command("Emulation.setEmulatedMedia", features=motion)  # at once, without a way there
    for step, beta in enumerate([0.1, 1, 4]):
        browser.set("#pulls-beta", step)
        browser.find("#pulls .encode").click()
        encoded = code_shown(browser, "vae")
        browser.find("#pulls .release").click()
        code = code_shown(browser, "vae")
        loss = worlds("vae", beta, 3, code)[2]
        # The code is shown with two decimals, which the smallest sigma, 0.05, feels.
        assert loss < worlds("vae", beta, 3, encoded)[2] + 0.05
        for i in range(4):
            for change in (-0.2, 0.2):
                moved = list(code)
                moved[i] = code[i] + change if i < 2 else code[i] * math.exp(change)
                assert worlds("vae", beta, 3, moved)[2] > loss - 0.05
    assert code == pytest.approx([0, 0, 1, 1], abs=0.15)  # beta = 4: the prior


def test_the_cloud_follows_mouse_finger_and_keyboard(browser):
    from selenium.webdriver import ActionChains, Keys

    browser.open("answer.html", 390)
    svg = browser.find("#pulls svg")
    browser.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", svg)
    unit = browser.run("return arguments[0].getBoundingClientRect().width", svg) / 400 * 56
    before = code_shown(browser, "vae")
    drag = ActionChains(browser.driver).drag_and_drop_by_offset
    drag(browser.find("#pulls .hit.mean"), round(unit), -round(unit)).perform()
    after = code_shown(browser, "vae")
    # The mouse has whole pixels, and it took hold of the ring somewhere near its centre.
    wanted = [before[0] + 1, before[1] + 1, *before[2:]]
    assert after == pytest.approx(wanted, abs=2 / unit)

    def centre(selector):
        box = browser.run(
            "return arguments[0].getBoundingClientRect().toJSON()", browser.find(selector)
        )
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    scrolled = browser.run("return scrollY")
    browser.command("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        for name, (dx, dy) in {"width": (1, 0), "height": (0, -1)}.items():
            x, y = centre(f"#pulls .hit.{name}")
            for kind, share in [("Start", 0), *(("Move", k / 5) for k in range(1, 6))]:
                point = {"x": x + share * dx * unit / 2, "y": y + share * dy * unit / 2}
                browser.command(
                    "Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=[point]
                )
            browser.touch("End")
    finally:
        browser.command("Emulation.setTouchEmulationEnabled", enabled=False)
    wanted = [*after[:2], before[2] + 0.5, before[3] + 0.5]
    assert code_shown(browser, "vae") == pytest.approx(wanted, abs=3 / unit)
    assert browser.run("return scrollY") == scrolled  # the page stayed where it was

    browser.find("#pulls-vae-mu1").send_keys(Keys.ARROW_LEFT)
    assert code_shown(browser, "vae")[0] == pytest.approx(after[0] - 0.01)
    browser.find("#pulls .encode").send_keys(Keys.SPACE)
    assert code_shown(browser, "vae") == before


# ---- the latent plane ----------------------------------------------------------------------------


@pytest.fixture
def model(answer):
    return answer.load_model("vae", SITE.parent / "answer")


def check_decoder(browser, model, z):
    """Compare everything that the figure shows with z, (2,)."""
    p = model.decode([z])[0]
    fills = [e.get_attribute("fill") for e in browser.find_all("#decoder rect")]
    grey = np.array([re.findall(r"\d+", fill) for fill in fills], dtype=float)  # (64, 3)
    # A grey is rounded to a whole number.
    np.testing.assert_allclose(grey, 255 * (1 - np.array([p] * 3).T), rtol=0, atol=0.51)
    for ring in browser.find_all("#decoder .here, #decoder .halo, #decoder .hit"):
        place = [float(ring.get_attribute(k)) for k in ("cx", "cy")]
        assert place == pytest.approx([200 + 60 * z[0], 200 - 60 * z[1]])
    said = browser.find("#decoder-said")
    values = {k: number(browser.text(f"#decoder-said .{k}")) for k in ("z1", "z2", "log-density")}
    log_density = -math.log(2 * math.pi) - 0.5 * (z[0] ** 2 + z[1] ** 2)
    expected = {"z1": z[0], "z2": z[1], "log-density": log_density}
    assert values == pytest.approx(expected, abs=0.0051), said.text  # shown with two decimals
    share = 100 * math.exp(-0.5 * (z[0] ** 2 + z[1] ** 2))
    shown = browser.text("#decoder-said .farther")
    unit = 10.0 ** -len(shown.rstrip("%").partition(".")[2])
    assert number(shown) == pytest.approx(share, abs=0.51 * unit)
    assert share > 10 * unit  # at least one digit of it is shown


def test_the_page_decodes_as_the_model_does(browser, model, rng):
    browser.open("answer.html")
    # Far out the logits grow; float32 against float64 leaves differences below 1e-5.
    z = np.concatenate([rng.uniform(-3.3, 3.3, (20, 2)), np.zeros((1, 2)), 50 * np.eye(2)])
    found = browser.run("return arguments[0].map(window.scratchvaeDecode)", z.tolist())
    np.testing.assert_allclose(found, model.decode(z), rtol=0, atol=1e-4)


def test_the_plane_shows_the_codes_of_the_test_images(browser, model, answer):
    browser.open("answer.html")
    digits = answer.sv.datasets.load("digits")
    mu, _ = model.encode(answer.sv.datasets.to_float(digits.test, digits.scale, model.dtype))
    drawn = browser.run(
        """return [...document.querySelectorAll("#decoder .codes text")].map((e) =>
        [Number(e.getAttribute("x")), Number(e.getAttribute("y")), Number(e.textContent)])"""
    )
    x, y, labels = np.array(drawn).T
    np.testing.assert_array_equal(labels, digits.test_labels)
    # x and y have one decimal, the codes they were made of three.
    codes = np.column_stack([x - 200, 200 - y]) / 60
    np.testing.assert_allclose(codes, mu, rtol=0, atol=0.051 / 60 + 0.0006)
    i = int(np.argmax(np.hypot(*mu.T)))
    z = (
        np.clip(20.0 * mu[i].astype(float), -66, 66).round() / 20
    )  # the code farthest out, on the sliders' steps
    browser.set("#decoder-z1", z[0])
    browser.set("#decoder-z2", z[1])
    nearest = digits.test_labels[np.hypot(*(mu - z).T).argmin()]
    assert browser.text("#decoder-said .nearest") == str(nearest)


def test_the_plane_answers_to_keyboard(browser, model):
    from selenium.webdriver import Keys

    browser.open("answer.html")
    check_decoder(browser, model, (0, 0))
    browser.find("#decoder-z1").send_keys(*[Keys.ARROW_RIGHT] * 3)
    browser.find("#decoder-z2").send_keys(Keys.HOME, Keys.ARROW_UP)
    check_decoder(browser, model, (0.15, -3.25))
    browser.find("#decoder-draw").send_keys(Keys.SPACE)
    z = [number(browser.text(f"#decoder output[for=decoder-z{i}]")) for i in (1, 2)]
    assert z != [0.15, -3.25]
    check_decoder(browser, model, z)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_plane_follows_mouse_and_finger(browser, model, width):
    from selenium.webdriver import ActionChains

    browser.open("answer.html", width)
    plane = browser.find("#decoder .plane")
    browser.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plane)
    box = browser.run("return arguments[0].getBoundingClientRect().toJSON()", plane)

    def shown():
        z = [number(browser.text(f"#decoder output[for=decoder-z{i}]")) for i in (1, 2)]
        check_decoder(browser, model, z)
        return z

    # A slider's step is 0.05; the box has whole pixels for the mouse and a border of 1.
    tolerance = 0.026 + 2 * 6.7 / box["width"]
    move = ActionChains(browser.driver).move_to_element_with_offset
    right, down = round(box["width"] / 4), round(box["height"] / 8)
    move(plane, right, down).perform()
    scale = 400 / 60 / box["width"]
    assert shown() == pytest.approx([right * scale, -down * scale], abs=tolerance)

    x, y = box["left"] + 0.25 * box["width"], box["top"] + 0.25 * box["height"]
    before = browser.run("return scrollY")
    browser.command("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        # A tap moves the ring; then the finger takes hold of it.
        for kind, down in [
            ("Start", 0),
            ("End", 0),
            ("Start", 0),
            *(("Move", k / 20) for k in range(1, 11)),
        ]:
            browser.touch(kind, *([] if kind == "End" else [(x, y + down * box["height"])]))
            if down == 0:
                assert shown() == pytest.approx([-100 / 60, 100 / 60], abs=tolerance)
        browser.touch("End")
    finally:
        browser.command("Emulation.setTouchEmulationEnabled", enabled=False)
    assert shown() == pytest.approx([-100 / 60, -100 / 60], abs=tolerance)
    assert browser.run("return scrollY") == before  # the page stayed where it was
    # A finger that does not hold the ring scrolls the page.
    touch = """return [...document.querySelectorAll(arguments[0])]
        .map((e) => getComputedStyle(e).touchAction)"""
    assert set(browser.run(touch, ".answer svg, .answer svg ellipse")) == {"auto"}
    assert set(browser.run(touch, ".answer .hit")) == {"none"}


# ---- without JavaScript --------------------------------------------------------------------------


def test_without_javascript_the_figures_show_their_first_state(browser, model):
    """What Python drew is what JavaScript draws before anybody touches it."""
    browser.open("answer.html", script=False)
    try:
        moving = browser.find_all(".answer .controls, .answer .wrong, .answer .with-script")
        assert not any(e.is_displayed() for e in moving)
        assert browser.find("#gaussian path.posterior").is_displayed()
        check_gaussian(browser, 1.5, 0.5)
        check_decoder(browser, model, (0, 0))
        said = browser.text("#decoder-said").split()
        pulled = pulls_shown(browser)
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
    browser.open("answer.html")
    assert all(
        e.is_displayed() for e in browser.find_all(".answer .controls, .answer .with-script")
    )
    check_gaussian(browser, 1.5, 0.5)
    check_decoder(browser, model, (0, 0))
    assert browser.text("#decoder-said").split() == said
    assert pulls_shown(browser) == pulled


# ---- demos ---------------------------------------------------------------------------------------


def test_animations_stand_still_where_motion_is_unwanted(browser):
    browser.open("gallery/animations.html")
    for wish, suffix in (("no-preference", ".gif"), ("reduce", ".still.png")):
        features = [{"name": "prefers-reduced-motion", "value": wish}]
        browser.command("Emulation.setEmulatedMedia", features=features)
        browser.driver.refresh()
        shown = browser.run(
            "return [...document.querySelectorAll('.demo-figure img')]"
            ".map((image) => [image.currentSrc, image.naturalWidth])"
        )
        assert len(shown) == 2, "the pages were built with DEMOS=no: run make docs"
        for url, width in shown:
            assert url.endswith(suffix)
            assert width > 0  # it was loaded
