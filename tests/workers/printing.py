"""``python -m tests.workers.printing``: a worker that tells how it was started on descriptor 11."""

import json
import os
import sys

if __name__ == "__main__":
    facts = {"parent": os.getppid(), "arguments": sys.argv[1:], "kept": os.environ["KEPT"]}
    os.write(11, json.dumps(facts).encode() + b"\n")
