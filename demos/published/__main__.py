"""`python demos/published` runs the scripts of this folder; published.py says how."""

import os

# One run a core: for these models that is faster than one after the other on all cores. The
# variable is read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if __name__ == "__main__":
    from published import main

    main()
