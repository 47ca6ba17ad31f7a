"""Which equation stands in which lines of code, and which tests would fail were it wrong.

A comment ``# [kl-grad-mu]`` in the package opens the lines that implement the equation of that
label, and ``@pytest.mark.proves("kl-grad-mu")`` marks a test of it. Both are read from the sources
without importing them. The pages (derivations.py) and a test (tests/test_package.py) share this
file, which needs nothing but the standard library.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LABEL = re.compile(r"# \[([A-Za-z0-9]+(?:-[A-Za-z0-9]+)*)\](?:\s|$)")


@dataclass(frozen=True)
class Block:
    """The lines of code that one label opens."""

    label: str
    path: str  # from the root of the project, with slashes
    first: int  # line numbers as an editor counts them
    last: int
    owner: str  # the function they stand in: "kl_standard_normal", "Linear.backward", or ""
    code: str  # the lines, without their common indentation

    @property
    def module(self) -> str:
        """The dotted name of the module."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@dataclass(frozen=True)
class Test:
    """A test function that names labels."""

    path: str
    name: str  # "test_kl", or "TestKL::test_sum" in a class
    line: int  # of its def
    labels: tuple[str, ...]


@dataclass
class Labels:
    """All blocks and tests of a project, and what is wrong with them."""

    blocks: dict[str, Block] = field(default_factory=dict)
    tests: dict[str, list[Test]] = field(default_factory=dict)  # by label, in order of the files
    problems: list[tuple[str, str]] = field(default_factory=list)  # ("file:line", sentence)


def read(root: Path, package: str = "scratchvae", tests: str = "tests") -> Labels:
    """Read every label below the two folders of the project in `root`."""
    found = Labels()
    for path, text in sources(root, package):
        for block in blocks(path, text):
            if block.label in found.blocks:
                first = found.blocks[block.label]
                sentence = f"The label [{block.label}] stands in {first.path}:{first.first} too."
                found.problems.append((f"{path}:{block.first}", sentence))
            else:
                found.blocks[block.label] = block
    known = dict(table for _, text in sources(root, package) for table in tables(text))
    for path, text in sources(root, tests):
        for test in proofs(path, text, found.problems, known):
            for label in test.labels:
                found.tests.setdefault(label, []).append(test)
                if label not in found.blocks:
                    where = f"{path}:{test.line}"
                    sentence = f'{test.name} proves "{label}", but no comment # [{label}] exists.'
                    found.problems.append((where, sentence))
    for label, block in found.blocks.items():
        if label not in found.tests:
            sentence = f'No test proves [{label}]: none has @pytest.mark.proves("{label}").'
            found.problems.append((f"{block.path}:{block.first}", sentence))
    return found


def all_tests(root: Path, folder: str) -> Iterator[Test]:
    """Yield every test below a folder of the project in `root`, whether it names labels or not."""
    for path, text in sources(root, folder):
        for prefix, test in _tests(ast.parse(text)):
            yield Test(path, prefix + test.name, test.lineno, ())


def sources(root: Path, folder: str) -> Iterator[tuple[str, str]]:
    """Yield the path from `root` and the text of every Python file in `folder` and below."""
    for path in sorted((root / folder).rglob("*.py")):
        yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


def blocks(path: str, text: str) -> Iterator[Block]:
    """Yield the block of every label comment in a file.

    It begins with the comment and ends before the next blank line, the next label, the next comment
    of another kind that is no deeper, the next line that is less deep, or the end of the function.
    Comments directly below the label's own belong to it.
    """
    lines = text.splitlines()
    comments = {}  # line -> column, of comments that have their line to themselves
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip():
            comments[token.start[0]] = token.start[1]
    functions = list(_functions(ast.parse(text)))
    for first, depth in comments.items():
        match = LABEL.match(lines[first - 1][depth:])
        if not match:
            continue
        around = [f for f in functions if f[1] <= first <= f[2]]
        owner, _, end = max(around, key=lambda f: f[1], default=("", 1, len(lines)))
        last, in_code = first, False
        for number in range(first + 1, end + 1):
            line = lines[number - 1]
            if not line.strip() or _depth(line) < depth:
                break
            if number in comments and LABEL.match(line.lstrip()):
                if comments[number] > depth:  # in a loop's body, say: then without the loop's head
                    while _depth(lines[last - 1]) > depth:
                        last -= 1
                    last -= 1
                break
            if comments.get(number, depth + 1) > depth:
                in_code = True
            elif in_code:
                break
            last = number
        code = "\n".join(line[depth:] for line in lines[first - 1 : last])
        yield Block(match[1], path, first, last, owner, code)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """Yield qualified name, first and last line of every function, also of those in classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not isinstance(node, ast.ClassDef):
                yield prefix + node.name, node.lineno, node.end_lineno
            yield from _functions(node, f"{prefix}{node.name}.")
        else:
            yield from _functions(node, prefix)


def tables(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield name and keys of every dict of a module whose keys are strings, written out."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if all(key is not None and _is_text(key) for key in node.value.keys):
                yield ast.unparse(target), [key.value for key in node.value.keys]


def proofs(
    path: str, text: str, problems: list[tuple[str, str]], known: dict[str, list[str]]
) -> Iterator[Test]:
    """Yield the tests of a file that name labels; note marks that say nothing readable.

    A mark stands in a decorator of the test, as itself or in a ``pytest.param``, written out or by
    the name that the module gives it: ``ADAM = pytest.mark.proves("adam-step")``. The name may also
    be that of several: ``MARKS = {"a": pytest.mark.proves("a"), ...}``. Of a table of the package,
    whose keys are in `known`, it may name all: ``[pytest.param(n, marks=pytest.mark.proves(n,
    f"{n}-grad")) for n in ACTIVATIONS]``.
    """
    tree = ast.parse(text)
    marks = {node: False for node in ast.walk(tree) if _is_mark(node)}  # -> whether a test has it
    loops = {mark: loop for loop in ast.walk(tree) for mark in _marks_in_loop(loop)}

    def labels_of(mark: ast.Call) -> list[str]:
        return [label for arg in mark.args for label in _labels(arg, loops.get(mark), known)]

    named = dict(_named_marks(tree))
    for prefix, test in _tests(tree):
        labels: dict[str, None] = {}  # in order, each once
        for node in (node for decorator in test.decorator_list for node in ast.walk(decorator)):
            for mark in named.get(node.id, []) if isinstance(node, ast.Name) else [node]:
                if mark in marks:
                    marks[mark] = True
                    labels |= dict.fromkeys(labels_of(mark))
        if labels:
            yield Test(path, prefix + test.name, test.lineno, tuple(labels))
    for mark, has_test in marks.items():
        readable = all(_labels(arg, loops.get(mark), known) for arg in mark.args)
        if not mark.args or mark.keywords or not readable:
            sentence = "pytest.mark.proves needs labels, written out as strings."
            problems.append((f"{path}:{mark.lineno}", sentence))
        elif not has_test:
            sentence = "pytest.mark.proves decorates no test: nothing would list this label."
            problems.append((f"{path}:{mark.lineno}", sentence))


def _named_marks(tree: ast.Module) -> Iterator[tuple[str, list[ast.AST]]]:
    """Yield the name and the marks of ``A = mark``, ``A, B = mark, mark``, ``A = {"a": mark}``."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            pairs = [(node.targets[0], node.value)]
            if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(node.targets[0].elts, node.value.elts, strict=False)
            for target, value in pairs:
                if isinstance(target, ast.Name):
                    yield target.id, [node for node in ast.walk(value) if _is_mark(node)]


def _marks_in_loop(node: ast.AST) -> list[ast.AST]:
    """Return the marks of ``[... for n in TABLE]``."""
    if not isinstance(node, ast.ListComp) or len(node.generators) > 1:
        return []
    return [mark for mark in ast.walk(node) if _is_mark(mark)]


def _labels(arg: ast.AST, loop: ast.ListComp | None, known: dict[str, list[str]]) -> list[str]:
    """Return the labels that an argument of a mark stands for; none if that cannot be read."""
    if _is_text(arg):
        return [arg.value]
    if loop is None:
        return []
    name, table = ast.unparse(loop.generators[0].target), ast.unparse(loop.generators[0].iter)
    text = f"{{{name}}}" if isinstance(arg, ast.Name) else ast.unparse(arg)[2:-1]  # f'{n}-grad'
    if not re.fullmatch(rf"[\w-]*\{{{name}\}}[\w-]*", text):
        return []
    return [text.replace(f"{{{name}}}", key) for key in known.get(table, [])]


def _is_mark(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.proves")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _tests(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield prefix, node
        elif isinstance(node, ast.ClassDef):
            yield from _tests(node, f"{prefix}{node.name}::")
