"""Remembers a passed self-test in the cache, by everything that its figures depend on.

The figures depend on the prompts only through their number and lengths, so a run of other such prompts is as right.
Whether the pooled tokens are the mention depends on the prompts themselves: that is checked in every run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers

from encyclo.errors import StoreError
from encyclo.storage import files
from encyclo.storage.cache import cache_folder
from encyclo.storage.safe_read import parse_json
from encyclo.types import Prompt
from encyclo.version import __version__
from encyclo_capture.capture import LONGEST_IN_TREE
from encyclo_capture.model import TransformersModel
from encyclo_capture.selftest import SelfTest, check, choose
from encyclo_capture.tokenization import TokenisedPrompt, tokenise

SWITCH = "ENCYCLO_SELF_TEST"
"""With the value `always`, this environment variable lets every run test itself again."""
MEASURED = "measured"
"""The figure that a remembered self-test has besides: when it was measured, in seconds since 1970."""


@dataclass(frozen=True)
class Dependencies:
    """Everything that the figures of a self-test depend on."""

    model: str
    quantisation: str
    device: str
    dtype: str
    fused: bool
    threads: int
    layers: tuple[int, ...]
    site: str
    pooling: str
    batch_tokens: int
    prompts: int
    short: int
    """How many of the prompts are short enough to share prefixes."""
    lengths: tuple[int, int]
    """Of the shortest and the longest text, in tokens: the powers of two below and above."""
    encyclo: str
    code: str
    torch: str
    transformers: str

    @classmethod
    def of(
        cls,
        model: TransformersModel,
        prompts: Sequence[TokenisedPrompt],
        layers: Sequence[int],
        pooling: str,
        batch_tokens: int,
    ) -> Dependencies:
        """Return those of a self-test on `prompts`."""
        lengths = [len(prompt.ids) for prompt in prompts]
        return cls(
            model=model.model_sha256,
            quantisation=model.quantisation or "none",
            device=_device(model.device),
            dtype=model.dtype,
            fused=model.fused,
            threads=torch.get_num_threads(),
            layers=tuple(layers),
            site=model.site,
            pooling=pooling,
            batch_tokens=batch_tokens,
            prompts=len(prompts),
            short=sum(len(prompt.needed) <= LONGEST_IN_TREE for prompt in prompts),
            lengths=(min(lengths).bit_length(), (max(lengths) - 1).bit_length()),
            encyclo=__version__,
            code=_code(),
            torch=str(torch.__version__),
            transformers=transformers.__version__,
        )

    @property
    def file(self) -> Path:
        """The file that remembers them."""
        key = json.dumps(asdict(self), sort_keys=True).encode()
        return cache_folder() / "selftests" / f"{hashlib.sha256(key).hexdigest()[:32]}.json"


def check_once(
    model: TransformersModel,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    pooling: str,
    batch_tokens: int,
) -> dict[str, float]:
    """Return the figures of `selftest.check`, remembered from an earlier run or measured now.

    Raises CaptureError naming the failed check.
    """
    chosen = choose(prompts)
    if not chosen:
        return {}
    tokenised = tokenise(model, chosen, pooling)
    file = Dependencies.of(model, tokenised, layers, pooling, batch_tokens).file
    if os.environ.get(SWITCH) != "always" and (remembered := _read(file)):
        test = SelfTest(model, chosen, layers, pooling)
        return {**remembered, "mentions": test.mentions(tokenised)}
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)  # should the self-test fail now, an earlier one no longer counts
    found = check(model, prompts, layers, pooling, batch_tokens)
    # What can't be remembered is measured again.
    with contextlib.suppress(OSError, StoreError):
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(file, {**found, MEASURED: round(time.time())})
    return found


def _read(file: Path) -> dict[str, float] | None:
    """Return a remembered self-test; None if there is none, or none that can be read."""
    try:
        found = parse_json(file.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or MEASURED not in found:
        return None
    return found if all(isinstance(value, int | float) for value in found.values()) else None


def _device(device: str) -> str:
    """Return what the device is: the GPU's name, or the processor's."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device} {platform.machine()} {torch.backends.cpu.get_cpu_capability()} {platform.processor()}"


def _code() -> str:
    """Return a hash of this package's code: another version of it is tested again."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
