"""Are the built pages whole, and can they be read without a network?

    python docs/_ext/links.py docs/_build/html

Follows every address in every page and style sheet. A file or an anchor that does not exist is an
error, and so is anything that a browser would load from elsewhere; links to other sites are not.
"""

from __future__ import annotations

import functools
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

CSS_ADDRESS = re.compile(r"""url\(\s*["']?([^"')]+)["']?\s*\)|@import\s+["']([^"']+)["']""")
# <link rel=...> that makes a browser load something; "canonical" or "next" only says something.
LOADING = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "manifest"}


class Page(HTMLParser):
    """The addresses and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.addresses: list[tuple[int, str, bool]] = []  # (line, address, whether it is loaded)
        self.in_style = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        line = self.getpos()[0]
        if "href" in values:
            loads = tag != "a" and (tag != "link" or bool(LOADING & set(values["rel"].split())))
            self.addresses.append((line, values["href"], loads))
        for name in ("src", "poster", "data", "xlink:href"):
            if name in values:
                self.addresses.append((line, values[name], True))
        for candidate in values.get("srcset", "").split(","):
            if candidate.strip():
                self.addresses.append((line, candidate.split()[0], True))
        self.addresses += [(line, found, True) for found in in_css(values.get("style", ""))]
        self.in_style = tag == "style"

    def handle_data(self, data: str) -> None:
        if self.in_style:
            line = self.getpos()[0]
            self.addresses += [(line, found, True) for found in in_css(data)]

    def handle_endtag(self, tag: str) -> None:
        self.in_style = False


def in_css(text: str) -> list[str]:
    return [first or second for first, second in CSS_ADDRESS.findall(text)]


@functools.cache
def page(path: Path) -> Page:
    return Page(path)


def pages(site: Path) -> list[Path]:
    """Return the pages; what the theme left among its own files is none."""
    return [path for path in sorted(site.rglob("*.html")) if site / "_static" not in path.parents]


def problems(site: Path) -> list[str]:
    """Return a sentence for every address that leads nowhere or loads something from elsewhere."""
    found = []
    for path in [*pages(site), *sorted(site.rglob("*.css"))]:
        if path.suffix == ".css":
            text = path.read_text(encoding="utf-8")
            addresses = [(1, address, True) for address in in_css(text)]
        else:
            addresses = page(path).addresses
        for line, address, loads in addresses:
            sentence = problem(site, path, address, loads)
            if sentence:
                found.append(f"{path.relative_to(site)}:{line}: {sentence}")
    return found


def problem(site: Path, path: Path, address: str, loads: bool) -> str | None:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return None
    if parts.scheme or parts.netloc:
        return f"{address} would be loaded from elsewhere." if loads else None
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if parts.path.startswith("/") or not target.is_relative_to(site):
        return f"{address} leads out of the folder of the pages."
    if not target.is_file():
        return f"{address} leads nowhere: there is no such file."
    if target.suffix != ".html" or not parts.fragment:
        return None
    if unquote(parts.fragment) in page(target).anchors:
        return None
    return f"{address} leads nowhere: that page has no such anchor."


def main() -> int:
    site = Path(sys.argv[1]).resolve()
    sentences = problems(site)
    print(*sentences, sep="\n", end="\n" if sentences else "")
    count = len(pages(site))
    if count == 0:
        print(f"There are no pages in {site}.")
        return 1
    print(f"{count} pages, {len(sentences)} broken or loaded from elsewhere")
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main())
