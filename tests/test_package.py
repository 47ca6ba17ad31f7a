"""What `import scratchvae` costs and gives, who imports whom, and that every labelled equation has
a test."""

import ast
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import scratchvae

PACKAGE = Path(scratchvae.__file__).parent
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if (path.parent / "__init__.py").exists()
}

# Lowest first: a module may import from its own floor and from those below.
FLOORS = [
    ["errors", "held", "notebook"],
    ["backend", "kernels", "shapes"],
    ["gaussian", "activations", "free_bits"],
    ["parameters", "checkpoint", "formats", "style"],
    ["likelihoods"],
    ["layers"],
    ["convolution", "mixture"],
    ["networks", "summary", "priors", "standardization"],
    ["model"],
    ["vae"],
    ["conditional"],
    ["optimizers", "schedules", "evaluation", "iwae", "gradcheck", "datasets", "zoo"],
    ["plots", "tables", "fused", "parallel", "finite"],
    ["distributed"],
    ["training"],
    ["run", "demo_tools"],
    ["exercises", "explorer"],
    ["cli"],
    ["__init__", "__main__"],
]
FLOOR = {name: height for height, floor in enumerate(FLOORS) for name in floor}

# In the order in which they are to be read, each uses only what came before.
READING_PATH = [
    *("gaussian", "activations", "parameters", "likelihoods", "layers", "model"),
    *("vae", "optimizers", "training"),
]


def imports(path):
    """Yield (level, module) of every import that a file may execute, in functions included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:  # what only a type checker reads is never imported
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module not in (None, "scratchvae"):
            yield node.level, node.module
        elif isinstance(node, ast.ImportFrom):  # from . import name, from scratchvae import name
            prefix = f"{node.module}." if node.module else ""
            yield from ((node.level, prefix + alias.name) for alias in node.names)


def test_importing_it_loads_numpy_and_nothing_heavier():
    heavy = {"scipy", "matplotlib", "cupy", "rich", "tqdm", "pooch", "safetensors", "torch", "jax"}
    program = "import sys, scratchvae; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.split())
    assert "numpy" in loaded
    assert not loaded & heavy


def test_every_public_name_exists():
    assert len(set(scratchvae.__all__)) == len(scratchvae.__all__)
    for name in scratchvae.__all__:
        assert hasattr(scratchvae, name)
        assert name in dir(scratchvae)


def test_a_backward_stands_directly_below_its_forward():
    """In the kernels a loop of Numba's may stand between."""
    pairs = 0
    for name, path in SOURCES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        scopes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef)]
        for scope in [] if name.startswith("kernels") else scopes:
            names = [node.name for node in scope.body if isinstance(node, ast.FunctionDef)]
            for forward, below in pairwise(names):
                backward = "backward" if forward == "forward" else f"{forward}_backward"
                if backward in names:
                    pairs += 1
                    assert below == backward, f"in {path.name} below {forward}"
    assert pairs >= 20


def test_the_order_of_reading_is_the_order_of_imports():
    for i, name in enumerate(READING_PATH):
        used = {module.partition(".")[0] for level, module in imports(SOURCES[name]) if level == 1}
        later = used & set(READING_PATH[i:])
        assert not later, f"{name} uses {later}, which is read after it"


def test_the_readme_names_the_files_in_the_order_of_reading():
    readme = (PACKAGE.parent / "README.md").read_text("utf-8")
    assert re.findall(r"^\| `(\w+)\.py` \|", readme, re.MULTILINE) == READING_PATH


def test_the_readme_names_every_activation():
    readme = (PACKAGE.parent / "README.md").read_text("utf-8")
    (row,) = re.findall(r"^\| `activations.py` \| (.*) \|$", readme, re.MULTILINE)
    missing = [name for name in scratchvae.activations.ACTIVATIONS if name not in row.split(", ")]
    assert not missing, f"name {', '.join(missing)} in README.md, where activations.py stands"


def test_no_module_asks_what_kind_of_model_or_layer_it_has():
    """A model says by its own methods what it is; only its home may ask."""
    homes = {
        "layers": {"Layer", "Linear", "Activation", "Sequential"},
        "likelihoods": {"Likelihood", "Bernoulli", "Gaussian"},
        "vae": {"Autoencoder", "VAE"},
        "conditional": {"ConditionalVAE"},
        "model": {"Model"},
        "priors": {"Prior", "StandardNormal"},
        "mixture": {"MixturePrior"},
    }
    for name, path in SOURCES.items():
        foreign = set().union(*(kinds for home, kinds in homes.items() if home != name))
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            if ast.unparse(call.func) not in ("isinstance", "issubclass"):
                continue
            asked = {n.id for n in ast.walk(call.args[1]) if isinstance(n, ast.Name)}
            asked |= {n.attr for n in ast.walk(call.args[1]) if isinstance(n, ast.Attribute)}
            assert not asked & foreign, f"{name}.py, line {call.lineno}: {ast.unparse(call)}"


@pytest.mark.parametrize(
    ("expression", "home"),
    [
        ("sv.Trainer", "scratchvae.training"),
        ("sv.load", "scratchvae.run"),
        ("sv.run.new", "scratchvae.run"),
        ("sv.plots.samples", "scratchvae.plots"),
        ("sv.checkpoint.save", "scratchvae.checkpoint"),
    ],
)
def test_names_that_need_more_are_there_without_an_import_of_their_own(expression, home):
    """In a process of its own: here other tests have imported them already."""
    program = (
        "import sys, scratchvae as sv\n"
        f"assert {expression.split('.')[1]!r} in dir(sv)\n"
        "assert 'scratchvae.run' not in sys.modules\n"
        f"assert {expression}.__module__ == {home!r}\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'scratchvae' has no attribute 'nothing'"):
        _ = scratchvae.nothing


@pytest.mark.parametrize("name", SOURCES)
def test_imports_go_down(name):
    own = name.partition(".")[0]  # a folder's files stand on one floor
    assert own in FLOOR, f"{own} is on no floor yet"
    for level, module in imports(SOURCES[name]):
        assert level <= 1
        if (level == 0 and module.partition(".")[0] != "scratchvae") or (level and own != name):
            continue
        other = module.removeprefix("scratchvae").lstrip(".").partition(".")[0] or "__init__"
        if other in FLOOR:  # else a name that __init__ itself defines, such as __version__
            assert FLOOR[other] <= FLOOR[own], f"{name} imports {other}, which is above it"


def test_only_backend_imports_cupy():
    importers = {
        name
        for name, path in SOURCES.items()
        if any(module.partition(".")[0] == "cupy" for _, module in imports(path))
    }
    assert importers == {"backend"}


def test_every_label_in_the_code_is_proved_by_a_test_and_no_other_is(monkeypatch):
    """That a page shows each of them is checked where the pages are built, by `make docs`."""
    monkeypatch.syspath_prepend(PACKAGE.parent / "docs" / "_ext")
    import labels

    found = labels.read(PACKAGE.parent)
    assert [f"{where}: {sentence}" for where, sentence in found.problems] == []
    text = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    comments = re.findall(r"^ *# \[([\w-]+)\]", text, re.MULTILINE)
    assert sorted(found.blocks) == sorted(comments)  # none is overlooked
    assert set(found.tests) == set(found.blocks)
