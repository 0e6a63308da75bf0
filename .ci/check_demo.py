"""Check what the short demo left: every file is there, and the shipped model can be read. Usage: check_demo.py FOLDER.

New models are not judged: after so few steps they say nothing.
"""

import json
import sys
from pathlib import Path


FILES = ("metrics.json", "answers.png", "curves.png", "model/config.json", "model/model.safetensors")
LEAST_PARSE_RATE = 0.95


def main(folder):
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        return f"The demo did not write {missing} into {folder}."
    parse_rate = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["shipped"]["parse_rate"]
    if not parse_rate >= LEAST_PARSE_RATE:
        return f"Only {parse_rate:.1%} of the shipped model's answers could be read, not {LEAST_PARSE_RATE:.0%}."
    print(f"The demo wrote all its files; {parse_rate:.1%} of the shipped model's answers could be read.")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
