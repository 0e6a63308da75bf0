"""What differs between releases of transformers: which are tested, and what the older of them lack.

No torch in here.
"""

from contextlib import contextmanager

import transformers
from transformers.utils import logging


TESTED_TRANSFORMERS = ("5.19.0", "5.21.1", "5.23.0")  # lowest, one between, newest: `make test-versions` runs them


def _release(version):
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in version.split(".")[:3])


_INSTALLED = _release(transformers.__version__)
_INSTALL_TESTED = f"Run: pip install 'transformers>={TESTED_TRANSFORMERS[0]},<={TESTED_TRANSFORMERS[-1]}'"

# Before, generate() hands the features of all images to the first chunk of the prompt, or loses them: read and run.
CHUNKS_TAKE_IMAGES = _INSTALLED >= (5, 23, 0)

if _INSTALLED < _release(TESTED_TRANSFORMERS[0]):
    raise ImportError(
        f"GAP-MLLM needs transformers >= {TESTED_TRANSFORMERS[0]}, but {transformers.__version__} is installed. "
        f"{_INSTALL_TESTED}"
    )
if _INSTALLED > _release(TESTED_TRANSFORMERS[-1]):
    # By one name wherever this file was copied to, so that it is said once.
    logging.get_logger("gap_mllm").warning_once(
        f"transformers {transformers.__version__} is newer than all that GAP-MLLM was tested with "
        f"({', '.join(TESTED_TRANSFORMERS)}). If something fails or differs, go back. {_INSTALL_TESTED}"
    )


@contextmanager
def needed_from_transformers():
    """Import inside a `with` block what is not part of transformers' documented interface, and may go.

    Raises:
        ImportError: names the symbol that is missing, the installed release, and what to install.
    """
    try:
        yield
    except ImportError as error:
        if not (error.name or "").startswith("transformers"):
            raise  # something that transformers itself needs
        raise ImportError(
            f"{error}. GAP-MLLM needs it, and transformers {transformers.__version__} does not have it. "
            f"{_INSTALL_TESTED}"
        ) from error


def sub_config_specs(classes: dict):
    """Return the value of a config's `sub_configs_defaults`, from its `sub_configs` (name -> class).

    5.19 reads `sub_configs` alone, 5.20 asks for specs in the other, later releases make these of classes themselves.
    """
    spec = getattr(transformers.configuration_utils, "SubConfigSpec", None)
    return classes if spec is None else {name: spec(config_class=kind) for name, kind in classes.items()}


__all__ = ["CHUNKS_TAKE_IMAGES", "TESTED_TRANSFORMERS", "needed_from_transformers", "sub_config_specs"]
