"""What the README and the guide tell readers to type works, and the numbers they name are right."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from scratchvae import cli, zoo
from scratchvae.gradcheck import GradientError

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = {path.name: path.read_text("utf-8") for path in sorted((ROOT / "docs/guide").glob("*.md"))}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def commands(text):
    """Yield what follows the prompt, or stands indented, in a page: "scratchvae train --beta 4"."""
    text = text.replace("\\\n", " ")  # a command may go on in the next line
    # Before the command a variable may be set: SCRATCHVAE_DATA=folder make benchmark
    command = r"^(?:\$ |    )(?:[A-Z_]+=\S+ )?(\S*(?:make|python3?|scratchvae) .*)$"
    for line in re.findall(command, text, re.MULTILINE):
        yield shlex.split(line, comments=True)


PAGES = {"README.md": README, **GUIDE}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_shows_is_understood(page):
    parser, targets = cli._parser(), re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE)
    for words in commands(PAGES[page]):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= {*targets}, words
        elif words[1:3] == ["-m", "scratchvae"]:
            parser.parse_args(words[3:])
        elif words[0].rpartition("/")[2] == "scratchvae":
            arguments = ["x" if word == "COMMAND" else word for word in words[1:]]
            if arguments != ["--version"]:  # which ends the process
                parser.parse_args(arguments)  # or it ends the test


def test_there_are_commands_to_look_at():
    found = [words for text in PAGES.values() for words in commands(text)]
    assert sum(words[0] == "make" for words in found) >= 6
    assert sum("scratchvae" in " ".join(words[:3]) for words in found) >= 30


def test_make_alone_lists_the_targets():
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    (help_text,) = re.findall(r"^help:\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    targets = set(phony.replace("\\\n", " ").split()) - {"help"}
    assert set(re.findall(r"'make ([a-z-]+)", help_text)) == targets
    assert ".DEFAULT_GOAL := help" in MAKEFILE


def test_the_tests_run_on_as_many_processes_as_workers_says():
    assert re.search(r"^WORKERS = 2$", MAKEFILE, re.MULTILINE)
    assert re.search(r"^pytest := .* -n \$\(WORKERS\)", MAKEFILE, re.MULTILINE)
    for target in "test", "test-all":
        recipe = re.search(rf"^{target}:(?:.*\\\n)*.*\n\t@(.*)$", MAKEFILE, re.MULTILINE)[1]
        assert recipe.startswith("$(pytest)")


def test_the_pythons_and_dependencies_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in README, GUIDE["install.md"]:
        first, last = re.search(r"Python (3\.\d+) to (3\.\d+)", text).groups()
        assert project["requires-python"] == f">={first}"
        of_python = "Programming Language :: Python :: 3."
        named = [c for c in project["classifiers"] if c.startswith(of_python)]
        assert {c.rpartition(" ")[2] for c in named} >= {first, last}
    sentence = re.search(r"Its own dependencies are (.*?); pip", GUIDE["install.md"], re.DOTALL)[1]
    told = {name.lower() for name in re.split(r",\s+|\s+and\s+", sentence)}
    assert told == {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}


@pytest.fixture
def blocks():
    """The blocks of Python in the README: train on the digits; check a pair of functions."""
    first, second = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return first, second


def test_ten_lines_of_the_readme_train_a_model(blocks, capsys):
    names = {}
    exec(blocks[0], names)
    assert names["mu"].shape == names["logvar"].shape == (150, 2)
    assert names["new_digits"].shape == (16, 64)
    assert names["digits"].train.shape == (1500, 64)
    assert len(names["digits"].train) + len(names["digits"].test) == 1797
    said = capsys.readouterr().out
    loss, reconstruction, kl = map(float, re.findall(r"[\d.]+", said))
    assert re.fullmatch(r"loss \S+ = reconstruction \S+ \+ KL \S+ nats\n", said)
    assert loss == pytest.approx(reconstruction + kl, abs=0.16)  # three roundings to a tenth
    assert loss < 30  # before the first step it is 46
    assert kl > 1  # so that the sum says something


def test_the_readmes_pair_is_right_and_its_wrong_one_gets_that_sentence(blocks, capsys):
    exec(blocks[1], {})
    assert "cube: backward agrees with" in capsys.readouterr().out
    text = re.sub(r"<!--.*?-->\n", "", README, flags=re.DOTALL)
    wrong, sentences = re.search(r"Return `(.*?)` and read:\n\n(.*?)\n\n", text, re.DOTALL).groups()
    with pytest.raises(GradientError) as error:
        exec(blocks[1].replace("return dy * 3 * x**2", f"return {wrong}"), {})
    message = " ".join(str(error.value).split())
    expected = " ".join(sentences.split()).partition(" ... ")[2]
    assert expected.startswith("It is 2 times the right one")
    assert expected in message
    assert message.startswith("cube: the gradient of x is wrong: for x[")


def test_the_numbers_of_wrong_models_are_those_of_the_zoo():
    wrong, found = re.search(
        r"shows why: (\d+) wrong\s+models.*?A gradient check finds (\w+) of them", README, re.DOTALL
    ).groups()
    assert int(wrong) == len(zoo.ENTRIES)
    by_gradient = sum("gradients" in entry.found_by for entry in zoo.ENTRIES)
    assert found == ["none", "one", "two", "three", "four"][by_gradient]


def test_the_rates_of_the_checker_are_those_of_the_table():
    """The table is what `make gradcheck-rates` has written."""
    table = (ROOT / "docs/benchmark/gradcheck-rates.md").read_text(encoding="utf-8")
    right, wrong = re.search(r"(\d+) right pairs and (\d+) wrong ones", README).groups()
    assert f"Corpus: {right} right pairs, " in table
    assert f", and {wrong} wrong ones" in table

    def rates(name):  # of scratchvae, PyTorch and JAX in the first of the tables
        return re.search(rf"^\| {name} \| (.*?) \| (.*?) \| (.*?) \|", table, re.MULTILINE).groups()

    _, torch, jax = rates("right pairs: called wrong")
    assert f"`torch.autograd.gradcheck` {torch}%, `jax.test_util.check_vjp` {jax}%" in README
    ours, torch, jax = rates("wrong pairs: called right")
    assert f"{ours}% of the wrong ones right ({torch}% and {jax}%)" in README
    assert rates("right pairs: called wrong")[0] == "0.0"  # it calls no right gradient wrong
