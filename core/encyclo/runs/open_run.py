"""An open run: its session, directory and store, and the operations that several steps share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.echo import doubled_prompts, explained
from encyclo.plugins.values import shown
from encyclo.runs import interpreter_folder
from encyclo.runs.directory import RunDirectory
from encyclo.runs.session import Session
from encyclo.statistics.splits import Group, split_families
from encyclo.storage.ledger import Commit, Ledger
from encyclo.storage.sample_rows import CommittedRows, sample_set
from encyclo.types import CanRelease, Context, Interpreter, Prompt, SampleSet, Store


@dataclass(frozen=True)
class Captured:
    """Prompts' activations, float32 [n, L, H] in the prompts' order, and their tokens."""

    activations: NDArray[np.float32]
    tokens: int
    tokens_computed: int


@dataclass(frozen=True)
class OpenRun:
    """What every step of a run needs: session, directory and store."""

    session: Session
    directory: RunDirectory
    store: Store

    @classmethod
    def of(cls, session: Session, directory: RunDirectory) -> OpenRun:
        """Return the run of a session in a directory, with its store."""
        return cls(session, directory, session.open_store(directory.path))

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @property
    def ledger(self) -> Ledger:
        """The run's commits."""
        return self.directory.ledger

    def context(self, plugin: str, **more: Any) -> Context:
        """Return the context that `plugin` gets: its own options and folder, and `more`."""
        return self.session.context(plugin, self.path, **more)

    def capture_context(self) -> Context:
        """Return the context that the capture plugin gets: on the model's own device."""
        return self.context(self.session.config.capture, device=self.session.model.device)

    @contextmanager
    def handed(self, prompts: Sequence[Prompt]) -> Iterator[tuple[list[Prompt], str]]:
        """Give the prompts and the pooling that the capture plugin gets.

        With --echo each text is given twice, and an error of the capture in the block says so; with --chat the
        texts are messages.
        """
        config = self.session.config
        given, pooling = list(prompts), str(config.pooling)
        if config.echo:
            given, pooling = doubled_prompts(given, pooling)
        if chat := config.as_messages:
            given, pooling = chat.prompts(self.session.model, given, pooling)
        with explained() if config.echo else nullcontext():
            yield given, pooling

    def capture(self, prompts: Sequence[Prompt], advance: Callable[[int], None] | None = None) -> Captured:
        """Capture prompts with the run's capture plugin; call `advance` with the size of each batch.

        With --echo the model gets each text twice, and the second copy is captured. Raises PluginError if the
        plugin gives a faulty batch, or no activations for a prompt.
        """
        with self.handed(prompts) as (given, pooling):
            return self._capture(given, pooling, advance)

    def _capture(
        self, prompts: list[Prompt], pooling: str, advance: Callable[[int], None] | None
    ) -> Captured:
        session, name = self.session, self.session.config.capture
        schema = session.schema
        batches = session.plugins.call(
            "capture_layers",
            name,
            prompts=prompts,
            layers=schema.layer_index,
            pooling=pooling,
            context=self.capture_context(),
        )
        shape = (len(prompts), len(schema.layers), schema.hidden_size)
        activations = np.empty(shape, np.float32)
        filled = np.zeros(len(prompts), bool)
        tokens = computed = 0
        with closing(session.plugins.iterate(name, batches)) as given:
            for batch in given:
                before = int(filled.sum())
                activations[batch.positions] = batch.activations
                filled[batch.positions] = True
                if int(filled.sum()) < before + len(batch.positions):
                    raise session.plugins.fault(
                        name, "gave the activations of a prompt twice; give each position once"
                    )
                tokens += batch.tokens
                computed += batch.tokens_computed
                if advance:
                    advance(len(batch.positions))
        if not filled.all():
            lost = prompts[int(np.flatnonzero(~filled)[0])]
            raise session.plugins.fault(
                name, f"gave no activations for the prompt {shown(lost.text)}; give them for every prompt"
            )
        return Captured(activations, tokens, computed)

    def free_model(self) -> None:
        """Free the model's weights, if its handle can; it loads them again when they are next needed."""
        if isinstance(self.session.model, CanRelease):
            self.session.model.release()

    def train(self, name: str, samples: SampleSet) -> Interpreter:
        """Train the interpreter plugin `name`; check that it knows the run's concepts. Raises PluginError."""
        session = self.session
        interpreter: Interpreter = session.plugins.call(
            "train_interpreter",
            name,
            samples=samples,
            concepts=session.trainable,
            context=self.context(name),
        )
        return interpreter_folder.check_concepts(session.plugins, name, interpreter, self._ids())

    def save_interpreter(self, interpreter: Interpreter, folder: Path) -> None:
        """Write the run's interpreter into `folder`, with checksums; the folder is replaced as a whole."""
        interpreter_folder.save_interpreter(
            self.session.plugins, self.session.config.interpreter, interpreter, folder
        )

    def load_interpreter(self, folder: Path) -> Interpreter:
        """Load the run's interpreter from `folder`. Raises DamagedError if a file was changed."""
        name = self.session.config.interpreter
        return interpreter_folder.load_interpreter(
            self.session.plugins, name, folder, self.context(name), self._ids()
        )

    def load_samples(self, commits: Sequence[Commit]) -> SampleSet:
        """Open the committed parts, check them against their commits, split them by family.

        Small columns are held in memory. So are activations if they are few; else they are read by row.
        """
        session = self.session
        with session.plugins.blame(session.config.store):
            source = CommittedRows(self.store, self.ledger, [commit for commit in commits if commit.rows])
        columns = source.columns
        samplers = chain.from_iterable(repeat(commit.sampler, commit.rows) for commit in commits)
        families: dict[Group, set[str]] = {}
        for stage, sampler, family in zip(columns.stage.tolist(), samplers, columns.family, strict=True):
            families.setdefault((stage, sampler) if sampler else stage, set()).add(family)
        chosen = {
            (stage.number, stage.key) if stage.shared else stage.number
            for stage in session.stages
            if session.looks(stage)
        }
        assigned = split_families(
            {group: sorted(names) for group, names in families.items()}, session.config.seed, chosen
        )
        split = np.array([assigned[family] for family in columns.family], np.int8)
        return sample_set(source, session.schema.layers, split)

    def _ids(self) -> list[str]:
        return [concept.id for concept in self.session.concepts]
