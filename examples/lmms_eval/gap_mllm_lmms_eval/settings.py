"""What a task of lmms-eval asks of generate(), read from its `generation_kwargs`."""

from dataclasses import dataclass


SAMPLING = ("temperature", "top_p", "top_k", "min_p")
KNOWN = {"max_new_tokens", "until", "do_sample", "num_beams", "repetition_penalty", *SAMPLING}
PARAGRAPH = "\n\n"


@dataclass(frozen=True)
class GenerationSettings:
    """How one request is to be answered. Requests with equal settings may share a batch.

    Args:
        max_new_tokens (`int`): length limit of the answer.
        stop_strings (`tuple[str, ...]`): texts that end an answer and do not belong to it.
        options (`tuple[tuple[str, float], ...]`): further arguments of generate(); none for greedy decoding.
    """

    max_new_tokens: int
    stop_strings: tuple[str, ...] = ()
    options: tuple = ()

    @classmethod
    def read(cls, generation_kwargs: dict, max_new_tokens: int) -> "GenerationSettings":
        """Read a task's settings.

        A temperature above 0 means sampling, 0 or none means greedy decoding, unless `do_sample` is true and no
        temperature is given. A blank line in `until` is left out: lmms-eval puts it into every task that names
        nothing, and its own Qwen wrappers leave it out as well.

        Args:
            generation_kwargs (`dict`): of the request; keys outside `KNOWN` are left to the caller.
            max_new_tokens (`int`): where the task names none.
        Returns:
            `GenerationSettings`.
        Raises:
            ValueError: on more than one beam, a negative temperature, or a length below 1.
            TypeError: if `until` is neither text nor a list of texts.
        """
        given = {key: value for key, value in generation_kwargs.items() if value is not None}
        length, temperature = int(given.get("max_new_tokens", max_new_tokens)), given.get("temperature")
        if length < 1:
            raise ValueError(f"max_new_tokens is {length}; expected at least 1.")
        if given.get("num_beams", 1) != 1:
            raise ValueError(f"num_beams is {given['num_beams']}; expected 1, as one encoding serves many questions.")
        if temperature is not None and temperature < 0:
            raise ValueError(f"temperature is {temperature}; expected 0 (greedy) or above.")
        options = {key: given[key] for key in ("repetition_penalty",) if key in given}
        if temperature or (temperature is None and given.get("do_sample")):
            options |= {"do_sample": True, **{key: given[key] for key in SAMPLING if key in given}}
        return cls(length, _stop_strings(given.get("until", ())), tuple(sorted(options.items())))

    def cut(self, text: str) -> str:
        """Return the text before the first stop string."""
        places = [text.find(stop) for stop in self.stop_strings]
        return text[: min((place for place in places if place >= 0), default=len(text))]


def _stop_strings(until):
    until = [until] if isinstance(until, str) else until
    if not isinstance(until, list | tuple) or not all(isinstance(stop, str) for stop in until):
        raise TypeError(f"until is {until!r}; expected a text or a list of texts.")
    return tuple(stop for stop in until if stop and stop != PARAGRAPH)
