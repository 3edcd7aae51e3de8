"""Starts the template by path, with nothing of this checkout left on the module search path."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    server = importlib.import_module("warm_template.server")
    del sys.path[0]
    server.run(sys.argv[1:])
