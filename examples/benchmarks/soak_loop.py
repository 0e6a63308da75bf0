"""What the soaks of sessions, Space and vLLM share: mixed requests by several threads, a tenth of them damaged."""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Args:
        name (`str`): what is asked.
        send (`Callable`): takes who asks and a `random.Random`, returns the text that a person reads.
        told (`str`, *optional*): regular expression of what a person must be told of a damaged one.
    """

    name: str
    send: Callable[[Any, random.Random], str]
    told: str | None = None


def soak(
    kinds: Sequence[Kind], visitors: Sequence[Sequence], check: Callable[[Any], bool], count: int, seed: int, pid: int
) -> bool:
    """Send requests, and print what became of them and how large the process was.

    Args:
        kinds (list of `Kind`): sound and damaged requests.
        visitors (list of lists): those that ask, by thread.
        check (`Callable`): takes a visitor after a damaged request, asks what was asked before, and returns whether
            the answer is still the same.
        count (`int`): requests of all threads, those of `check` not counted.
        seed (`int`): seed of the choice.
        pid (`int`): process whose resident memory is told, with that of its children.
    Returns:
        `bool`: whether all went as expected.
    """
    sound, damaged = [kind for kind in kinds if not kind.told], [kind for kind in kinds if kind.told]
    done, wrong, share, start = Counter(), [], count // len(visitors), resident_megabytes(pid)
    print(f"at the start {start:.0f} MB", flush=True)

    def work(thread):
        own, chooser = visitors[thread], random.Random(f"{seed} {thread}")
        for number in range(share):
            kind = chooser.choice(damaged if number % 10 == 9 else sound)
            visitor = chooser.choice(own)
            try:
                text = kind.send(visitor, chooser)
                if kind.told and not re.search(kind.told, text):
                    wrong.append(f"{kind.name}: told {text!r}")
                if kind.told and not check(visitor):
                    wrong.append(f"{kind.name}: the scene answers otherwise afterwards")
            except Exception as error:  # whatever it is, it is counted
                wrong.append(f"{kind.name}: {type(error).__name__}: {error}")
            done[kind.name] += 1
            if done.total() % max(count // 20, 1) == 0:
                print(f"after {done.total():5} {resident_megabytes(pid):.0f} MB", flush=True)

    with ThreadPoolExecutor(len(visitors)) as pool:
        list(pool.map(work, range(len(visitors))))
    for kind in kinds:
        print(f"{done[kind.name]:5} {kind.name}{', damaged' if kind.told else ''}")
    refused = sum(done[kind.name] for kind in damaged)
    print(f"{done.total()} requests, {refused} of them damaged, in {len(visitors)} threads; {len(wrong)} went wrong")
    print(*wrong[:20], sep="\n")
    return not wrong


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process of this machine and of those that it started."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 1e6
