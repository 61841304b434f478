"""Texts that share a prefix and grow token by token: the keys and values of the prefix are kept once for all of them.

transformers' own caches repeat the prefix for every text, and copy everything for every token. Here a text's own keys
and values lie in room made in advance. All tokens of a pass are one sequence without padding, as on a token tree, and a
text that has ended is not computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from encyclo_capture.batch_sizes import even_size
from encyclo_capture.forward.plain_pass import forward_arguments
from encyclo_capture.forward.tree_attention import AttentionSpec, attending_to

ROOM = 16
"""Room is made for this many further tokens at once: few texts become long."""


@dataclass
class Pass:
    """The tokens of one pass. count: how many, before those that only fill it; texts, places: int64 [count].

    places: a token's place in its text, behind the prefix
    asking: int64 [texts, most], the places of each text's tokens; a shorter text repeats its last one
    """

    count: int
    texts: Tensor
    places: Tensor
    asking: Tensor
    length: int
    """How many places of the texts are in use."""
    in_order: bool
    """Whether each text has one token, in the order of the texts."""
    masks: dict[tuple[int | None, int], Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, group: int, prefix: int) -> Tensor:
        """Return the additive mask of 0 and -inf: float32 [texts, 1, most * group, prefix + length]."""
        if (window, group) not in self.masks:
            keys = torch.arange(-prefix, self.length, device=self.asking.device)
            distance = self.asking[:, :, None] - keys
            hidden = distance < 0
            if window is not None:
                hidden |= distance >= window
            mask = torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, float("-inf"))
            self.masks[window, group] = mask.repeat_interleave(group, dim=1)[:, None]
        return self.masks[window, group]


@dataclass
class KeysValues:
    """Keys and values of one layer: [texts, key heads, room, d] each."""

    keys: Tensor
    values: Tensor

    def select(self, texts: Tensor | None, room: int) -> None:
        """Keep only these texts, with more room."""
        for name, states in (("keys", self.keys), ("values", self.values)):
            states = states if texts is None else states.index_select(0, texts)
            setattr(self, name, pad(states, (0, 0, 0, room - states.shape[2])))


class GrowingTexts:
    """The state of the attention of some texts, and the passes that let them grow (see `AttentionState`)."""

    def __init__(self, network: Any, prefix: GrowingTexts | None = None) -> None:
        self._network = network
        self._prefix = prefix._layers if prefix is not None else []
        self._behind = prefix._pass.length if prefix is not None else 0
        self._layers: list[KeysValues] = []
        self._calls, self._room = 0, 0
        self._lengths: Tensor
        self._pass: Pass

    def begin(self, texts: Sequence[Tensor]) -> Tensor:
        """Read the texts' first tokens, int64 [tokens] each; return the state of each one's last: [texts, 1, H]."""
        self._lengths = torch.tensor([len(text) for text in texts], device=texts[0].device)
        most = int(self._lengths.max())
        self._room = most + ROOM
        places = torch.cat([torch.arange(len(text), device=text.device) for text in texts])
        rows = torch.arange(len(texts), device=places.device).repeat_interleave(self._lengths)
        asking = torch.arange(most, device=places.device).minimum(self._lengths[:, None] - 1)
        self._pass = Pass(len(places), rows, places, asking, most, most == 1)
        return self._read(torch.cat(list(texts)))[self._lengths.cumsum(0) - 1, None]

    def grow(self, tokens: Tensor) -> Tensor:
        """Append a token to each text, int64 [texts]; return its state: [texts, 1, H]."""
        places, self._lengths = self._lengths, self._lengths + 1
        length, rows = int(self._lengths.max()), torch.arange(len(places), device=places.device)
        if length > self._room:
            self._make(None, self._room + ROOM)
        self._pass = Pass(len(places), rows, places, places[:, None], length, True)
        return self._read(tokens)[:, None]

    def keep(self, texts: Tensor) -> None:
        """Go on with only these of the texts, int64 [kept]."""
        self._lengths = self._lengths[texts]
        self._make(texts, self._room)

    def _make(self, texts: Tensor | None, room: int) -> None:
        self._room = room
        for layer in self._layers:
            layer.select(texts, room)

    def _read(self, tokens: Tensor) -> Tensor:
        """Return the network's states of the pass's tokens: [tokens, H]."""
        more = (0, even_size(self._network, len(tokens)) - len(tokens))
        positions = pad(self._pass.places + self._behind, more)[None]
        self._calls = 0
        with attending_to(self._network, self):
            given = {"input_ids": pad(tokens, more)[None], "position_ids": positions}
            output = type(self._network).forward(
                self._network, **forward_arguments(self._network, **given, return_dict=True)
            )
        states: Tensor = output.last_hidden_state[0, : len(tokens)]
        return states

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, spec: AttentionSpec) -> Tensor:
        """Attend from the pass's tokens to the prefix and to their texts (see `AttentionState`)."""
        dtype, now = values.dtype, self._pass
        if queries.device.type == "cpu":  # as on a token tree
            queries, keys, values = queries.float(), keys.float(), values.float()
        own = self._own(keys, values)
        texts, most = now.asking.shape
        (heads, size), key_heads = queries.shape[1:], keys.shape[1]
        group = heads // key_heads
        if now.in_order:
            asked = queries[: now.count]
        else:
            asked = queries.new_zeros(texts, most, heads, size)
            asked[now.texts, now.places] = queries[: now.count]
        # Heads that share a key head become further queries of the text.
        asked = asked.view(texts, most, key_heads, group, size).transpose(1, 2)
        asked = asked.reshape(texts, key_heads, most * group, size)
        window = spec.window
        if window is not None and self._behind + now.length <= window:
            window = None  # hides nothing
        weights = _weights(self._scores(asked, own), spec, now.mask(window, group, self._behind)).to(
            values.dtype
        )
        result = self._sums(weights, own).view(texts, key_heads, most, group, size).transpose(1, 2)
        result = result.reshape(texts, most, heads, size)
        attended = result[:, 0] if now.in_order else result[now.texts, now.places]
        return pad(attended, (0, 0, 0, 0, 0, len(queries) - now.count)).to(dtype)

    def _own(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep keys and values of the next layer; return all of the texts': [texts, key heads, length, d]."""
        now = self._pass
        if self._calls == len(self._layers):
            shape = (len(now.asking), keys.shape[1], self._room)
            self._layers.append(
                KeysValues(keys.new_zeros(*shape, keys.shape[2]), values.new_zeros(*shape, values.shape[2]))
            )
        layer = self._layers[self._calls]
        self._calls += 1
        layer.keys[now.texts, :, now.places] = keys[: now.count]
        layer.values[now.texts, :, now.places] = values[: now.count]
        return layer.keys[:, :, : now.length], layer.values[:, :, : now.length]

    def _shared(self) -> tuple[Tensor, Tensor]:
        """Return the prefix's keys and values of the layer: [key heads, prefix, d]."""
        layer = self._prefix[self._calls - 1]
        return layer.keys[0, :, : self._behind], layer.values[0, :, : self._behind]

    def _scores(self, asked: Tensor, own: tuple[Tensor, Tensor]) -> Tensor:
        """Return the scores of prefix and own tokens: [texts, key heads, n, d] -> float32 [.., n, prefix + length]."""
        scores = torch.matmul(asked.float(), own[0].float().transpose(2, 3))
        if not self._behind:
            return scores
        texts, key_heads, asking, size = asked.shape
        keys, _ = self._shared()
        together = asked.float().transpose(0, 1).reshape(key_heads, texts * asking, size)
        before = torch.matmul(together, keys.float().transpose(1, 2)).view(key_heads, texts, asking, -1)
        return torch.cat([before.transpose(0, 1), scores], dim=-1)

    def _sums(self, weights: Tensor, own: tuple[Tensor, Tensor]) -> Tensor:
        """Return the weighted sums of values: [texts, key heads, n, prefix + length] -> [texts, key heads, n, d]."""
        sums = torch.matmul(weights[..., self._behind :], own[1])
        if not self._behind:
            return sums
        texts, key_heads, asking, _ = weights.shape
        _, values = self._shared()
        together = weights[..., : self._behind].transpose(0, 1).reshape(key_heads, texts * asking, -1)
        before = torch.matmul(together, values).view(key_heads, texts, asking, -1)
        return sums.add_(before.transpose(0, 1))


def _weights(scores: Tensor, spec: AttentionSpec, mask: Tensor) -> Tensor:
    """Return the softmax of the scores, scaled, capped and masked, in float32."""
    scores = scores.mul_(spec.scale)
    if spec.softcap is not None:
        scores = torch.tanh(scores / spec.softcap) * spec.softcap
    return torch.softmax(scores.add_(mask), dim=-1)
