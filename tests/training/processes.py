"""A script in two processes that gloo joins, as a launcher would start it, and in this one."""

import os
import runpy
import socket
import subprocess
import sys


# Leaves the group behind the script: threads of gloo that still run when the interpreter ends can abort it.
LEAVING = """
import runpy, sys
from torch import distributed
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
if distributed.is_initialized():
    distributed.destroy_process_group()
"""


def run_in_two(script, *arguments, on_two_nodes=False):
    """Run a script as ranks 0 and 1, on one node or two; AssertionError with the end of a failed one's stderr."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WORLD_SIZE": "2"}
    shared |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LEAVING, str(script), *map(str, arguments)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(0 if on_two_nodes else rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, told, strict=True):
        assert process.returncode == 0, text[-3000:]


def run_here(script, *arguments, monkeypatch):
    """Run a script in this process."""
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")
