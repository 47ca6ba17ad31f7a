"""What the fuzzers share: how many cases, what a case may do, and changes to bytes.

`make fuzz` draws fifty times as many cases as `make test-all`. A case ends within ten seconds and
two gigabytes, in a result or in one sentence.
"""

import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

FACTOR = int(os.environ.get("SCRATCHVAE_FUZZ", "1"))
SECONDS, BYTES = 10, 2**31


def cases(number):
    """Return hypothesis's settings for so many cases, fifty times as many in `make fuzz`."""
    return settings(
        max_examples=number * FACTOR,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def limits():
    def too_long(signum, frame):
        raise TimeoutError(f"a case took longer than {SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    memory = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, memory[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, memory)


@st.composite
def changed_bytes(draw, data):
    """Return bytes that differ from `data` in a few places."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        # Headers are short, and errors in them are the interesting ones.
        end = draw(st.sampled_from([8, 64, 256, len(data)]))
        i = draw(st.integers(0, max(0, min(end, len(data)) - 1)))
        how = draw(st.sampled_from(["flip", "set", "insert", "cut", "truncate", "repeat"]))
        if how == "flip" and data:
            data[i] ^= 1 << draw(st.integers(0, 7))
        elif how == "set":
            new = draw(st.binary(min_size=1, max_size=8))
            data[i : i + len(new)] = new
        elif how == "insert":
            data[i:i] = draw(st.binary(max_size=8))
        elif how == "cut":
            del data[i : i + draw(st.integers(1, 64))]
        elif how == "truncate":
            del data[i:]
        else:
            data[i:i] = data[i : i + 16]
    return bytes(data)
