"""Models that were found, before and after their weights are in memory; and those that other packages bring.

A package names a function in its entry points ``famcli.models``. ``--model NAME:ARGUMENT,FIELD=VALUE`` calls the one of
NAME with the argument and the fields; it gives a ``Source``.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol

from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.facts import DecoderFacts
from famcli.models.shapes import weight_shapes

if TYPE_CHECKING:
    import torch

    from famcli.checkpoints.adapters import Adapter
    from famcli.checkpoints.checkpoint import Checkpoint
    from famcli.checkpoints.tokenizer import Tokenizer
    from famcli.models.decoder import Decoder
    from famcli.models.stream import StreamFacts, StreamModel

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "famcli.models"


class Named(Protocol):
    """What is known of any model that was found, see ``LoadedModel``."""

    @property
    def name(self) -> str: ...
    @property
    def spec(self) -> str: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def untrained_memory(self) -> str | None: ...


class KnownModel(Named, Protocol):
    """What the name of a run says of its model, in memory or not.

    Attributes:
        weights_sha256: see ``LoadedModel``.
        facts: of the stream.
        place, precision: names of its device and dtype, e.g. ``cuda:0``, ``float32``.
    """

    @property
    def weights_sha256(self) -> str: ...
    @property
    def facts(self) -> StreamFacts: ...
    @property
    def place(self) -> str: ...
    @property
    def precision(self) -> str: ...


@dataclass(frozen=True)
class KnownCheckpoint:
    """A ``KnownModel`` that is not in memory."""

    name: str
    spec: str
    tokenizer: Tokenizer
    weights_sha256: str
    untrained_memory: str | None
    facts: StreamFacts
    place: str
    precision: str


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to read.

    Attributes:
        name: what the user calls it; the spec, unless that says a name.
        stream: what reads, in evaluation mode. The weights of our own decoder want no gradient: a state that is read on
            and on keeps its size, in or out of ``torch.no_grad``.
        tokenizer: what its ids mean.
        weights_sha256: see ``Checkpoint.weights_sha256``.
        device, dtype: where the weights are and what they are; of a decoder on several devices the main one.
        untrained_memory: says so where weights of the memory are drawn, not learned: neither checkpoint nor adapter has
            them.
        beside: bytes that the process held for other models when this one was loaded.
        spec: the spec without a name, e.g. ``fam-tiny,memory_segments=1``; the name where it is empty.
    """

    name: str
    stream: StreamModel[Any]
    tokenizer: Tokenizer
    weights_sha256: str
    device: torch.device
    dtype: torch.dtype
    untrained_memory: str | None = None
    beside: int = 0
    spec: str = ""

    def __post_init__(self) -> None:
        if not self.spec:
            object.__setattr__(self, "spec", self.name)

    @property
    def facts(self) -> StreamFacts:
        """See ``KnownModel``."""
        return self.stream

    @property
    def place(self) -> str:
        """See ``KnownModel``."""
        return str(self.device)

    @property
    def precision(self) -> str:
        """See ``KnownModel``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def decoder(self) -> Decoder:
        """``stream``, where it is a decoder of ours.

        Raises:
            UserError: it is a model of another kind.
        """
        from famcli.models.decoder import Decoder

        if not isinstance(self.stream, Decoder):
            raise UserError(f"model '{self.name}' is no decoder of famcli", "famcli trains and adapts its own alone")
        return self.stream


class Source(Named, Protocol):
    """A model that was found and checked; its weights are not in memory yet.

    Attributes:
        half_precision: the weights are stored in 16 bits or fewer.
        longest_text: see ``StreamModel``.
    """

    @property
    def half_precision(self) -> bool: ...
    @property
    def longest_text(self) -> int | None: ...

    def load(self, device: torch.device, dtype: torch.dtype, device_map: bool = False) -> LoadedModel:
        """Reads the weights."""
        ...

    def outline(self, device: torch.device, dtype: torch.dtype) -> LoadedModel | None:
        """As ``load``, with weights that have shapes and no values, for what follows from the rest; their files are
        hashed. ``None`` where a model is not known before it is built."""
        ...

    def known(self, place: str, precision: str) -> KnownModel | None:
        """What the names of its runs say of it; its files are hashed, and PyTorch is not imported.

        ``None`` where that is not known before it is built.
        """
        ...


@dataclass(frozen=True)
class PluginSource:
    """A ``Source`` for packages that bring a model of their own.

    Attributes:
        tokenizer: what its ids mean.
        build: makes the model on a device, in a dtype.
        weights_sha256: identifies the weights: other ones must have another. It is part of the run id.
        longest_text: see ``StreamModel``.
        half_precision: see ``Source``.
        name: what the model is called where that is not its spec, of which a part changes no answer.
        spec: set by famcli.
    """

    tokenizer: Tokenizer
    build: Callable[[torch.device, torch.dtype], StreamModel[Any]]
    weights_sha256: str
    longest_text: int | None = None
    half_precision: bool = False
    name: str = ""
    spec: str = ""

    @property
    def untrained_memory(self) -> str | None:
        """A package answers for its own weights."""
        return None

    def load(self, device: torch.device, dtype: torch.dtype, device_map: bool = False) -> LoadedModel:
        """Builds the model.

        Raises:
            UserError: it is to be spread over devices.
        """
        if device_map:
            raise UserError(f"model '{self.name}' cannot be spread over devices", "leave out --device-map")
        stream = self.build(device, dtype)
        return LoadedModel(self.name, stream, self.tokenizer, self.weights_sha256, stream.device, dtype, spec=self.spec)

    def outline(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nobody knows what building it takes."""

    def known(self, place: str, precision: str) -> None:
        """Nor what it says of itself."""


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint that was found and checked: the ``Source`` of our own decoder.

    Attributes:
        name, spec: see ``Source``.
        config: with overrides.
        checkpoint: where the weights lie, those of the adapter included.
        base: the checkpoint without it.
        adapter: to be merged into the weights, if there is one.
    """

    name: str
    config: ModelConfig
    checkpoint: Checkpoint
    base: Checkpoint
    adapter: Adapter | None = None
    spec: str = ""
    _told: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def tokenizer(self) -> Tokenizer:
        """What its ids mean."""
        return self.checkpoint.tokenizer

    @property
    def half_precision(self) -> bool:
        """The weights are stored in 16 bits or fewer."""
        return self.checkpoint.half_precision

    @property
    def longest_text(self) -> int | None:
        """See ``StreamModel``."""
        return self.config.trained_context if self.config.memory.whole else None

    @property
    def untrained_memory(self) -> str | None:
        """See ``LoadedModel``."""
        return self.config.memory.untrained if self.checkpoint.lacks_memory(self.config) else None

    def load(self, device: torch.device, dtype: torch.dtype, device_map: bool = False) -> LoadedModel:
        """Reads the weights, which want no gradient.

        Args:
            device: where they go.
            dtype: what they become.
            device_map: spread the layers over all devices, see ``placement.place_layers``.

        Raises:
            UserError: a file cannot be read, or the model does not fit the devices.
        """
        from famcli.checkpoints.decoders import load_decoder
        from famcli.checkpoints.placement import place_layers

        placement = place_layers(self.config, device, dtype) if device_map else None
        with ThreadPoolExecutor(1) as beside:
            hashing = beside.submit(self.checkpoint.weights_sha256)
            decoder = load_decoder(self.checkpoint, self.config, device, dtype, placement)
            digest = hashing.result()
        # Else each read would keep the graph of all reads before it; whoever trains turns it on.
        decoder.requires_grad_(False)
        self._warn_of_base()
        return self._loaded(decoder, digest, device, dtype)

    def outline(self, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """See ``Source.outline``; ``device`` and ``dtype`` are those of the model that would be loaded."""
        from famcli.models.empty import empty_decoder

        decoder = empty_decoder(self.config).to(dtype).eval()
        return self._loaded(decoder, self.checkpoint.weights_sha256(), device, dtype)

    def known(self, place: str, precision: str) -> KnownCheckpoint | None:
        """See ``Source.known``; ``None`` where the memory does not say what weights it has."""
        if weight_shapes(self.config) is None:
            return None
        self._warn_of_base()
        about = (self.checkpoint.tokenizer, self.checkpoint.weights_sha256(), self.untrained_memory)
        return KnownCheckpoint(self.name, self.spec or self.name, *about, DecoderFacts(self.config), place, precision)

    def _warn_of_base(self) -> None:
        """Says that the adapter was trained on other weights, the first time it is called."""
        if self.adapter and not self._told and self.adapter.base_sha256 not in (None, self.base.weights_sha256()):
            self._told.append(f"warning: {self.name}: its adapter was trained on other weights of {self.adapter.base}")
            logger.warning("%s", self._told[0])

    def _loaded(self, decoder: Decoder, digest: str, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        tokenizer, untrained = self.checkpoint.tokenizer, self.untrained_memory
        return LoadedModel(self.name, decoder, tokenizer, digest, device, dtype, untrained, spec=self.spec)


def model_entry_points() -> dict[str, EntryPoint]:
    """What packages bring, by name."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def is_own(entry: EntryPoint) -> bool:
    """Whether famcli itself brings it."""
    return entry.value.partition(".")[0] == "famcli"


def open_plugin(entry: EntryPoint, argument: str, fields: Mapping[str, str], spec: str) -> PluginSource:
    """The model that a package's function gives.

    Args:
        entry: names the function.
        argument: what stands after the colon; empty where there is none.
        fields: what follows.
        spec: all of it, as the user typed it.

    Raises:
        UserError: the package cannot be imported, or its function fails.
    """
    try:
        found = entry.load()(argument, dict(fields))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"model '{spec}': {entry.value} failed: {type(error).__name__}: {error}",
            f"it comes from the package {entry.dist.name if entry.dist else entry.value}, not from famcli",
        ) from error
    if not isinstance(found, PluginSource):
        raise UserError(f"model '{spec}': {entry.value} gave a {type(found).__name__}, not a {PluginSource.__name__}")
    return dataclasses.replace(found, name=found.name or spec, spec=spec)
