"""The server against its own OpenAPI, by schemathesis: ``python -m campaigns.schema`` from tests/;
``make test-schema`` runs it.

A fault is a status 5xx, an answer that the document does not have, or one that is not as it says.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from densenet121.bench.serve import running_server

from helpers.commands import environment
from helpers.serving import FLAGS
from helpers.weights import write_weights


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="schemathesis")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--count", type=int, default=300, help="cases of each operation")
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        weights = write_weights(Path(folder) / "w.safetensors")
        with running_server(weights, *FLAGS, environment=environment()) as (port, process):
            where = f"http://127.0.0.1:{port}/openapi.json"
            command = [given.program, "run", where, "--seed", str(given.seed)]
            command += ["--max-examples", str(given.count), "--workers", "2", "--no-color"]
            # The document cannot say which bytes are an image, or which weights are calibrated.
            command += ["--exclude-checks", "positive_data_acceptance"]
            command += ["--continue-on-failure", "--generation-database", "none"]
            status = subprocess.run(command, check=False, cwd=folder).returncode
            assert process.poll() is None, "the server has ended"
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
