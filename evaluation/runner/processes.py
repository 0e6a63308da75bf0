"""One process or many: who this process is, and how a command starts itself again in several.

accelerate does the work; a single process needs none of it. Both `--processes` and a user's own `accelerate launch`
end here.
"""

import os
import socket
import subprocess
import sys
from typing import Any


class Processes:
    """This process among those of the run.

    Args:
        on_cpu (`bool`): whether they run on the CPU.
    Raises:
        ImportError: if there are several, and accelerate is not installed.
    """

    def __init__(self, on_cpu: bool):
        self.rank, self.count, self._state = 0, 1, None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            try:
                from accelerate import PartialState
            except ImportError as error:
                raise ImportError("Several processes need accelerate: pip install gap-mllm[train]") from error
            self._state = PartialState(cpu=on_cpu)
            self.rank, self.count = self._state.process_index, self._state.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process merges and writes."""
        return self.rank == 0

    @property
    def device(self):
        """The device of this process by accelerate; None if there is one process."""
        return None if self._state is None else self._state.device

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def share(self, value: Any):
        """Return what the main process gave; others may give None."""
        if self._state is None:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value], from_process=0)[0]


def is_launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


def launch(arguments: list[str], num_processes: int, on_cpu: bool, threads: int) -> int:
    """Run `gap-mllm` with these arguments in several processes through accelerate; returns the exit code.

    Raises:
        ImportError: if accelerate is not installed.
    """
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise ImportError("--processes needs accelerate: pip install gap-mllm[train]") from error
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--num_processes", str(num_processes), "--num_machines", "1", "--mixed_precision", "no"]
    # --cpu would start one process only; --multi_gpu starts them all, and PartialState(cpu=True) keeps them off GPUs.
    command += ["--dynamo_backend", "no", "--main_process_port", str(port), "--multi_gpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)} if on_cpu else None
    return subprocess.run([*command, "-m", "gap_mllm.cli", *arguments], env=environment, check=False).returncode
