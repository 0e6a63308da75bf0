"""Output that never ends a command: a plain terminal gets "?" for what it cannot write, a closed pipe gets nothing.

What a command writes into files must not depend on who watches it.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO


class PatientStream:
    """A text stream that writes what it can, and goes on in silence once nobody reads.

    Args:
        stream (`TextIO`): stream of the process, as `sys.stdout`.
    """

    def __init__(self, stream: TextIO):
        self._stream, self._is_gone = stream, False

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; characters that the stream's encoding lacks are replaced."""
        try:
            self._do(self._stream.write, text)
        except UnicodeEncodeError:
            self._do(self._stream.write, plain_text(text, self._stream.encoding))
        return len(text)

    def writelines(self, lines) -> None:
        """Write texts, as `write`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered."""
        self._do(self._stream.flush)

    def _do(self, action, *values):
        if self._is_gone:
            return
        try:
            action(*values)
        except OSError as error:
            self._is_gone = True
            _point_at_nothing(self._stream)
            if not isinstance(error, BrokenPipeError):  # which is how `head` says that it has read enough
                sys.stderr.write(f"gap-mllm: note: nothing more can be printed ({error}); files are written.\n")


def plain_text(text: str, encoding: str | None) -> str:
    """Return a text with "?" for each character that an encoding lacks.

    Bytes of a command line that Python could not read are the characters again that they are in UTF-8, where the
    encoding has these.
    """
    encoding = encoding or "ascii"
    with contextlib.suppress(UnicodeEncodeError):  # halves of characters, which are no bytes
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text.encode(encoding, "replace").decode(encoding)


def _point_at_nothing(stream):
    """Let what is buffered, and all that follows, go nowhere: at its end Python writes it once more."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


@contextlib.contextmanager
def patient_output() -> Iterator[None]:
    """Write to both output streams as `PatientStream` does, within a block."""
    with contextlib.ExitStack() as stack:
        if sys.stdout is not None:
            stack.enter_context(contextlib.redirect_stdout(PatientStream(sys.stdout)))
        if sys.stderr is not None:
            stack.enter_context(contextlib.redirect_stderr(PatientStream(sys.stderr)))
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
