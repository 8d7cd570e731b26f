"""``SentenceTransformer.encode`` behind a pipe, in whatever environment runs this file; it imports nothing of ours.

Arguments: model folder, backend, keyword arguments for the model as JSON. Every line of standard input is a JSON list
of texts; the answer to each is the path of a file with their vectors.
"""

import json
import os
import sys
import tempfile
from typing import Any


def main() -> None:
    """Load the model, say so, answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Libraries print what they like; only answers go where answers are read.
    import numpy as np
    from sentence_transformers import SentenceTransformer

    folder, backend, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    kind: Any = backend  # one of the names that the library knows
    model = SentenceTransformer(folder, device="cpu", backend=kind, local_files_only=True, model_kwargs=settings)
    with tempfile.TemporaryDirectory() as scratch:
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            vectors_nd = model.encode(json.loads(line), show_progress_bar=False)
            np.save(os.path.join(scratch, "vectors.npy"), vectors_nd)  # noqa: PTH118
            print(os.path.join(scratch, "vectors.npy"), file=answers, flush=True)  # noqa: PTH118


if __name__ == "__main__":
    main()
