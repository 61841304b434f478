"""The contract of the hooks `load_model` and `capture_layers`.

    from encyclo.testing.capture import CaptureContract

    class TestMine(CaptureContract):
        plugin = "mine"

Captures are compared with `encyclo.testing.fixtures.plain_forward`: one prompt at a time, with transformers alone, on
a tiny random model that the contract writes. A plugin for models of another kind overrides `model_name` and
`expected`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from encyclo.errors import CaptureError
from encyclo.plugins.manager import Plugins
from encyclo.testing.contract import require
from encyclo.testing.fixtures.plain_forward import PlainModel, write_tiny_model
from encyclo.testing.hooked import HookContract
from encyclo.types import POOLINGS, Context, Model, Opening, Prompt, Samples, TextGenerator

FRAMES = (
    ("", "The ", "The concept of ", "Nobody had ever seen such a thing as a "),
    ("", ".", " is in the old city."),
)
MENTIONS = ("dog", "ice cream", "democracy", "café")


def prompts() -> list[Prompt]:
    """Return prompts with the mention first, in the middle or last, and some without one."""
    found = []
    for before in FRAMES[0]:
        for number, after in enumerate(FRAMES[1]):
            for mention in MENTIONS[number % 2 :: 2]:
                span = (len(before), len(before) + len(mention))
                found.append(Prompt(mention, before + mention + after, span, "planted"))
    return [*found, *(Prompt("none", text, None, "planted") for text in ("a small river", "She had a cat."))]


class CaptureContract(HookContract):
    """The contract of captures; subclass it and name the plugin."""

    hooks: ClassVar[tuple[str, ...]] = ("load_model", "capture_layers")
    layers: ClassVar[tuple[int, ...]] = (0, 1, 3, 4)
    tolerance: ClassVar[float] = 1e-5
    """The largest relative error against a plain forward pass in float32; let `options` choose float32."""

    def model_name(self, folder: Path, broken: bool = False) -> str:
        """Return the name of a model that the plugin can load; a `broken` one gives values that are not finite."""
        place = folder / ("broken" if broken else "model")
        if not place.exists():
            write_tiny_model(place, broken)
        return str(place)

    def expected(self, folder: Path, asked: Sequence[Prompt], pooling: str) -> NDArray[np.float64]:
        """Return the expected captures: float64 [n, L, H], in the order of the prompts."""
        model = PlainModel(Path(self.model_name(folder)))
        return np.stack([model.read(prompt, self.layers, pooling) for prompt in asked])

    def model(self, folder: Path, broken: bool = False) -> Model:
        """Return the plugin's handle of the model."""
        name = self.model_name(folder, broken)
        handle: Model = self.call("load_model", name=name, context=self.context(folder))
        return handle

    def batches(
        self, model: Model, folder: Path, asked: Sequence[Prompt], pooling: str, layers: Sequence[int] = ()
    ) -> list[Samples]:
        """Return the plugin's batches, in their order."""
        plugins = Plugins()
        context: Context = self.context(folder, model=model, pooling=pooling)
        given = plugins.call(
            "capture_layers",
            self.plugin,
            prompts=asked,
            layers=tuple(layers or self.layers),
            pooling=pooling,
            context=context,
        )
        return list(plugins.iterate(self.plugin, given))

    def captured(
        self, model: Model, folder: Path, asked: Sequence[Prompt], pooling: str, layers: Sequence[int] = ()
    ) -> NDArray[np.float32]:
        """Return the plugin's captures in the order of the prompts: float32 [n, L, H]."""
        found: dict[int, Any] = {}
        for batch in self.batches(model, folder, asked, pooling, layers):
            found.update(zip(batch.positions.tolist(), batch.activations, strict=True))
        return np.stack([found[place] for place in range(len(asked))])

    def check_describes_the_model(self, folder: Path) -> None:
        """The handle has name, source, depth, hidden size, compute type, device and the weights' hash."""
        model = self.model(folder)
        states = model.forward(["The dog"], range(model.depth + 1))[0]
        require(states.shape[1:] == (model.depth + 1, model.hidden_size), f"Its states are {states.shape}.")
        for name in ("name", "source", "dtype", "device"):
            text = getattr(model, name)
            require(isinstance(text, str) and text, f"The model's {name} is {text!r}.")
        first, second = model.weights_sha256, self.model(folder).weights_sha256
        require(len(first) == 64 and first == second, "weights_sha256 is not a sha256 that stays the same.")
        require(self.model(folder, broken=True).weights_sha256 != first, "Other weights have the same hash.")

    def check_equals_a_plain_forward(self, folder: Path) -> None:
        """Every prompt, layer and pooling equals a plain forward pass of that prompt alone."""
        model, asked = self.model(folder), prompts()
        for pooling in POOLINGS:
            wanted = self.expected(folder, asked, pooling)
            self._same(self.captured(model, folder, asked, pooling), wanted, asked, pooling)

    def check_forward_is_a_plain_forward(self, folder: Path) -> None:
        """The handle's `forward` gives every token, special ones included, alone and among other texts."""
        model, asked = self.model(folder), prompts()
        wanted = self.expected(folder, asked, "mean-all")
        states = model.forward([prompt.text for prompt in asked], self.layers)
        self._same(np.stack([s.mean(axis=0) for s in states]), wanted, asked, "mean-all (forward)")

    def check_every_prompt_is_answered_once(self, folder: Path) -> None:
        """Each prompt's position occurs once; activations are float32; tokens are counted."""
        asked = prompts() * 3
        found = self.batches(self.model(folder), folder, asked, "span")
        positions = np.concatenate([batch.positions for batch in found])
        require(sorted(positions.tolist()) == list(range(len(asked))), "Not every prompt is answered once.")
        for batch in found:
            require(batch.activations.dtype == np.float32, f"Activations are {batch.activations.dtype}.")
            require(batch.tokens >= len(batch.positions), "A batch has fewer tokens than prompts.")
            require(batch.tokens_computed > 0, "A batch computed no token.")

    def check_a_prompt_is_read_alike_in_any_batch(self, folder: Path) -> None:
        """A prompt gives the same alone, among others and among copies of itself, up to rounding."""
        model, asked = self.model(folder), prompts()
        together = self.captured(model, folder, asked, "span").astype(np.float64)
        alone = np.concatenate([self.captured(model, folder, [prompt], "span") for prompt in asked])
        self._same(alone, together, asked, "span, alone")
        doubled = self.captured(model, folder, [p for p in asked for _ in range(2)], "span")
        self._same(doubled[1::2], together, asked, "span, doubled")

    def check_layers_are_those_asked_for(self, folder: Path) -> None:
        """Layers come in the requested order, also if only a few are requested."""
        model, asked = self.model(folder), prompts()[:6]
        everything = self.captured(model, folder, asked, "span").astype(np.float64)
        for order in ((3, 0), (2,), (1, 3, 2, 0)):
            chosen = self.captured(model, folder, asked, "span", [self.layers[i] for i in order])
            self._same(chosen, everything[:, list(order)], asked, f"span, layers {order}")

    def check_refuses_what_is_not_finite(self, folder: Path) -> None:
        """An activation that is not finite raises CaptureError naming the prompt; nothing is replaced."""
        self._refuses(self.model(folder, broken=True), folder, (4, 7), "a value that is not finite")

    def check_refuses_a_mention_without_a_token(self, folder: Path) -> None:
        """A span that no token covers raises CaptureError naming the prompt."""
        self._refuses(self.model(folder), folder, (7, 7), "a mention that no token covers")

    def check_tokens_match_the_states(self, folder: Path) -> None:
        """`tokens` gives a range for each token of `forward`: (0, 0) for special ones; the others ascend."""
        model = self.model(folder)
        for text in ("The dog", "Nobody had ever seen such a café.", "ice cream is in the old city"):
            ranges, states = model.tokens(text), model.forward([text], self.layers[:1])[0]
            require(len(ranges) == len(states), f"{text!r}: {len(ranges)} ranges, {len(states)} states.")
            own = [(start, end) for start, end in ranges if (start, end) != (0, 0)]
            require(
                all(0 <= start <= end <= len(text) for start, end in own),
                f"{text!r}: {own} go beyond the text.",
            )
            for before, after in pairwise(own):
                rises = before[0] <= after[0] and before[1] <= after[1]
                require(rises, f"{text!r}: the range {after} comes after {before}.")
            covered = {place for start, end in own for place in range(start, end)}
            lost = [c for place, c in enumerate(text) if place not in covered and not c.isspace()]
            require(not lost, f"{text!r}: no token covers {lost[:1]}.")

    def check_generates_for_a_seed(self, folder: Path) -> None:
        """If it has `generate`: one continuation for each opening, drawn by its seed, the same in the same call."""
        model = self.model(folder)
        if not isinstance(model, TextGenerator) or not getattr(model, "can_generate", True):
            return
        texts = ["The dog", "She had ever seen a small"]

        def say(seed: int, stop: str | None = None) -> list[str]:
            openings = [Opening(text, 1.0, seed) for text in texts]
            return list(model.generate("The old city.", openings, 6, stop))

        first = say(1)
        require(
            len(first) == 2 and all(isinstance(text, str) for text in first),
            "It gives no text for an opening.",
        )
        require(say(1) == first, "One seed gives two continuations.")
        require(any(say(seed) != first for seed in range(2, 5)), "Every seed gives the same continuation.")
        for text in say(1, stop="[a-z]"):
            found = re.search("[a-z]", text)
            require(not found or found.end() == len(text), f"{text!r} continues after the match of `stop`.")

    def _refuses(self, model: Model, folder: Path, span: tuple[int, int], what: str) -> None:
        try:
            self.batches(model, folder, [Prompt("dog", "The dog", span, "planted")], "span")
        except CaptureError as error:
            require("The dog" in str(error), f"The error does not name the prompt: {error}")
            return
        require(False, f"It captured {what} and raised no error.")

    def _same(
        self, found: NDArray[Any], wanted: NDArray[np.float64], asked: Sequence[Prompt], how: str
    ) -> None:
        require(found.shape == wanted.shape, f"{how}: {found.shape} was captured, not {wanted.shape}.")
        error = np.linalg.norm(found - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
        row, layer = divmod(int(np.nanargmax(error)), error.shape[1])
        require(
            not np.isnan(error).any() and error.max() <= self.tolerance,
            f"{how}: {asked[row].text!r} differs by {error[row, layer]:.2g} at the layer with index {layer}.",
        )
