"""Write down which images of some laboratories show the same cells, from their audits, so that no split parts them.

    python -m smears.audit pbc --out found/pbc
    python -m smears.same_cells found/pbc/audit.json found/raabin/audit.json found/chula/audit.json

writes ``smears/same_cells.csv``: ``lab`` (the audited folder's name), ``sha256`` (as in ``smears.loading``), ``group`` (the
first file of the group). Images that share their cells with no other have no line.
"""

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

from smears.laboratories import SAME_CELLS


def grouped(audit: dict) -> list[dict[str, str]]:
    """List the images of an audit that share cells with another: ``lab``, ``sha256``, ``group``."""
    lab = Path(audit["run"]["folder"]).name
    sizes = Counter(image["cells"] for image in audit["images"])
    found = {image["sha256"]: image["cells"] for image in audit["images"] if sizes[image["cells"]] > 1}
    return [
        {"lab": lab, "sha256": digest, "group": found[digest]} for digest in sorted(found, key=lambda d: (found[d], d))
    ]


def main() -> None:
    """Read the audits, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audits", type=Path, nargs="+", help="audit.json of each laboratory")
    parser.add_argument("--out", type=Path, default=SAME_CELLS)
    options = parser.parse_args()
    rows = [row for path in options.audits for row in grouped(json.loads(path.read_text("utf-8")))]
    with options.out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["lab", "sha256", "group"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
