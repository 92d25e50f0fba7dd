"""One script a question; each prints ratios measured in one run and writes its section of BENCHMARKS.md."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing may wait for a network while it is timed
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
