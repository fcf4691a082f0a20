"""`python -m tests.golden.archive` tells where the archive ends; `--write` makes it anew from its records."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.golden.archive import stored_root, write

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--write", action="store_true", help="make the archive anew; CHANGELOG.md must say why")
if parser.parse_args().write:
    before = stored_root()
    with tempfile.TemporaryDirectory() as folder:
        after = write(Path(folder))
    print(f"position {after[0]}, root {after[1]}: {'as before' if before == after else f'it was {before}'}")
else:
    print("position {}, root {}".format(*stored_root()))
