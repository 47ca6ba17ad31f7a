"""Docstrings that say what the code does not: a parameter that the signature lacks, and the like.

Every object of the API pages goes through numpydoc's validation. CHECKS names what fails the build.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from derivations import source_uri
from jinja2 import FileSystemLoader
from jinja2.sandbox import SandboxedEnvironment
from numpydoc import docscrape_sphinx
from numpydoc.validate import validate
from sphinx.util.logging import getLogger

logger = getLogger(__name__)

# PR01 only where there is a section on parameters: then it is to name them all. Most docstrings
# here are a line or two that name the arguments in a sentence, with their shapes. A section for
# each would repeat these and double the length of short functions, on the reading path too, where
# backward is to be seen directly below forward.
CHECKS = {
    "GL06": "unknown section",
    "GL07": "sections in another order than everywhere else",
    "GL08": "no docstring",
    "PR01": "a section on parameters that leaves one out",
    "PR02": "a parameter that the signature lacks",
    "PR03": "parameters in another order than the signature's",
    "PR10": "no space before the colon, so that name and type are read as one name",
    "SS03": "the first line is no sentence",
}


def check(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Report what numpydoc finds in one docstring."""
    if what not in ("function", "method", "class", "property"):
        return
    home = getattr(obj, "__module__", None) or app.config.derivations_package
    if home.partition(".")[0] != app.config.derivations_package:
        return  # imported from elsewhere
    result = validate(name)
    of_parameters = re.search(r"^ *Parameters\n *-+$", result["docstring"], re.MULTILINE)
    for code, message in result["errors"]:
        if code in CHECKS and (code != "PR01" or of_parameters):
            where = f"{result['file']}:{result['file_line']}"
            sentence = "The docstring of %s: %s (%s)"
            logger.error(sentence, name, message, code, location=where, type="docstrings")


def fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Pass over the fields of named tuples: Python describes them by their number only."""
    alias = (inspect.getdoc(obj) or "").startswith("Alias for field number")
    return True if alias else None


def undocumented(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> None:
    """Check what autodoc passes over because it has no docstring."""
    target = inspect.unwrap(obj.fget if isinstance(obj, property) else obj)
    if name.startswith("_") or not (inspect.isfunction(target) or inspect.isclass(target)):
        return
    ours = target.__module__.partition(".")[0] == app.config.derivations_package
    if ours and not inspect.getdoc(obj):
        check(app, "function", f"{target.__module__}.{target.__qualname__}", obj, options, [])


def plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let |f| be read as it stands, and the indented parts of a module's head as literal blocks."""
    result: list[str] = []
    literal = None  # within a literal block: the depth of the line that opened it
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and depth <= literal:
            literal = None
        starts = depth >= 4 and not (result and result[-1].strip())
        if what == "module" and literal is None and starts:
            result += ["::", ""]
            literal = 0
        as_it_is = literal is not None or "`" in line
        result.append(line if as_it_is else line.replace("|", r"\|"))
        if literal is None and line.endswith("::"):
            literal = depth
    lines[:] = result


def check_modules(app: Any, env: Any) -> None:
    """Report modules that no API page shows."""
    package = env.labels_root / app.config.derivations_package
    for path in sorted([*package.glob("*.py"), *package.glob("*/__init__.py")]):
        module = path.parent.name if path.name == "__init__.py" else path.stem
        name = f"{package.name}.{module}"
        public = path != package / "__init__.py" and not module.startswith("_")
        if public and name not in env.domains.python_domain.modules:
            message = "No page of docs/api shows this module with automodule:: %s."
            logger.error(message, name, location=f"{path}:1", type="docstrings")


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return the address of an object's source, for sphinx.ext.linkcode; pages of API/ only."""
    module = sys.modules.get(info["module"])
    obj = module
    for part in info["fullname"].split("."):
        obj = getattr(obj, part, None)
    obj = inspect.unwrap(obj.fget if isinstance(obj, property) else obj) if obj else None
    try:
        path, (_, line) = inspect.getsourcefile(obj), inspect.getsourcelines(obj)
    except (TypeError, OSError):
        return None
    package = Path(sys.modules[info["module"].partition(".")[0]].__file__).parent
    return source_uri("api/page", Path(path).relative_to(package.parent).as_posix(), line)


def compile_template_once() -> None:
    """Spare numpydoc the compilation of its one template for each docstring, a tenth of a build."""
    folder = Path(docscrape_sphinx.__file__).with_name("templates")
    shared = SandboxedEnvironment(loader=FileSystemLoader(folder))
    docscrape_sphinx.SandboxedEnvironment = lambda loader: shared


def setup(app: Any) -> dict[str, Any]:
    compile_template_once()
    app.connect("autodoc-process-docstring", check, priority=400)  # before numpydoc rewrites it
    app.connect("autodoc-process-docstring", plain_text, priority=450)
    app.connect("autodoc-skip-member", undocumented)
    app.connect("autodoc-skip-member", fields)
    app.connect("env-check-consistency", check_modules)
    return {"parallel_read_safe": True}
