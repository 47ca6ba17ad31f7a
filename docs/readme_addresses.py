"""The project's addresses, all made from one: `home`, in pyproject.toml.

A package index shows the README away from the repository, so that its pictures and links must be
whole addresses there. Hatchling calls `update` whenever it builds the package. As long as `home` is
empty the package names no address, and the README stays as it is.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Addresses(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        readme = Path(self.root, "README.md").read_text("utf-8")
        if home := self.config["home"].rstrip("/"):
            files = f"{home}/raw/v{metadata['version']}"  # at the release's tag
            readme = re.sub(r'(src="|\]\()(?=docs/)', rf"\1{files}/", readme)
            metadata["urls"] = {"Source": home, "Changelog": f"{files}/CHANGELOG.md"}
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}
