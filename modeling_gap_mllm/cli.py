"""The `gap-mllm` command for Python code and for `python -m gap_mllm.cli`; it lives in `gap_mllm_cli`."""

import sys

from gap_mllm_cli import main


if __name__ == "__main__":
    sys.exit(main())
