"""A transformers model as encyclo uses it: hidden states, tokens and generated texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from encyclo.errors import UsageError
from encyclo.types import Opening, Samples
from encyclo.windows import TextTokens, TokenWindow
from encyclo_capture import windows
from encyclo_capture.batch_sizes import default_batch
from encyclo_capture.forward.long_text import check_long_text, exceeds_window
from encyclo_capture.forward.plain_pass import attention_of, returned_states
from encyclo_capture.forward.sites import added_states
from encyclo_capture.generation.continuation import continue_texts
from encyclo_capture.loading.loaded_model import LoadedModel
from encyclo_capture.loading.refusals import refusing
from encyclo_capture.tokenization import encode


class TransformersModel(LoadedModel):
    """A model loaded by transformers (see `encyclo.types.Model`)."""

    batch_tokens: int | None = None
    """Approximate tokens of a batch of windows; None: `default_batch`."""

    _long_is_right = False
    """Whether a text that exceeds the sliding window has agreed with a plain pass."""

    def forward(self, texts: Sequence[str], layers: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return each text's hidden states at every token, special ones included: float32 [tokens, L, H].

        With another site than the residual stream, what the site adds to it. Raises CaptureError if the first text that
        exceeds the sliding window differs from a plain pass.
        """
        states, places = [], self.places
        for text in texts:
            ids = torch.tensor(encode(self, [text])["input_ids"], device=self.device)
            with attention_of(self.network, self.support.whole.attention):
                added = None if places is None else added_states(self.network, places, input_ids=ids)
                check = not self._long_is_right and exceeds_window(self.config, ids.shape[1])
                residual = returned_states(self.network, input_ids=ids) if added is None or check else []
            if check:
                check_long_text(self.network, self.device, self.name, ids[0].tolist(), residual)
                self._long_is_right = True
            hidden = residual if added is None else added
            states.append(torch.stack([hidden[layer][0] for layer in layers], dim=1).float().cpu().numpy())
        return states

    def tokens(self, text: str) -> list[tuple[int, int]]:
        """Return the character range of each token of `forward`; (0, 0) for special tokens."""
        encoded = encode(self, [text], return_offsets_mapping=True)
        columns = zip(encoded["offset_mapping"][0], encoded["special_tokens_mask"][0], strict=True)
        return [(0, 0) if special else (int(a), int(b)) for (a, b), special in columns]

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the messages as the model's chat template writes them, special tokens included.

        Raises UsageError if there is no template, or it refuses the messages' roles.
        """
        if not self.tokenizer.chat_template:
            raise UsageError(
                f"The model {self.name!r} has no chat template; use a chat model, or leave --chat out."
            )
        with refusing(
            f"The chat template of the model {self.name!r} refuses the messages",
            UsageError,
            "; use other roles, or leave --chat out",
        ):
            return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False))

    def split_text(self, text: str) -> TextTokens:
        """Return a text's tokens (see `encyclo.windows.WindowModel`)."""
        return windows.split_text(self, text)

    def read_windows(self, given: Sequence[TokenWindow], layers: Sequence[int]) -> Iterator[Samples]:
        """Yield the hidden states of the windows' kept tokens, in batches."""
        return windows.read_windows(self, given, layers, self.batch_tokens or default_batch(self))

    def check_windows(self, given: Sequence[TokenWindow], layers: Sequence[int]) -> dict[str, float]:
        """Compare a few of the windows with a plain pass. Raises CaptureError if they differ."""
        return windows.check_windows(self, given, layers, self.batch_tokens or default_batch(self))

    @property
    def can_generate(self) -> bool:
        """Whether `generate` works: the model is causal, and its attention is accessible."""
        return self.shares_prefixes

    def generate(
        self, prefix: str, openings: Sequence[Opening], max_new_tokens: int, stop: str | None = None
    ) -> list[str]:
        """Continue `prefix` + each opening; return the continuations alone (see `encyclo.types.TextGenerator`)."""
        if not openings:
            return []
        return continue_texts(self, prefix, openings, max_new_tokens, stop)
