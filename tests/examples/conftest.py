"""Scripts of examples/ find their siblings, as Python finds them when one of them is run."""

import sys
from pathlib import Path


EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path += [str(EXAMPLES / name) for name in ("experiments", "quickstart_parts", "benchmarks")]
