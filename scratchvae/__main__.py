"""``python -m scratchvae``."""

import sys

try:
    from .cli import main
except KeyboardInterrupt:
    sys.exit(130)

code = main()
# An interrupt that came while text was executed, as an import of matplotlib does, leaves a mark in
# the interpreter although `main` has caught it: under -m Python would then end by SIGINT, whatever
# the code. Executing something, even nothing, takes the mark away.
exec("")
sys.exit(code)
