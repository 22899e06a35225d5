"""What DreamBooth, textual inversion and LoRA of pictures have in common: a subject that a finished run is taught.

Papers
    Ruiz et al. 2023, "DreamBooth" (arXiv:2208.12242); Gal et al. 2022, "An Image is Worth One Word" (arXiv:2208.01618);
    Hu et al. 2021 (arXiv:2106.09685). Each has a file of its own beside this one.

The start is a run of ``latent-diffusion`` with captions (``--start``): its sizes and words are taken over with its
weights. Data are a handful of pictures of one thing. What is said of each of them is one of ``templates``, with the
subject in place of ``{}``: a word of its own (``token``), behind it what kind of thing it is (``kind``). Sampled is
what the run is told, so ``a sks star`` draws the subject and everything else what the start draws.

What differs, and why
    The first stage is not touched, as in all three papers' versions for latent diffusion. Captions are not dropped in
    this stage: with a handful of pictures the network would learn that anything may be the subject.
    Without a run to start from (``base_share`` above 0) the network below is first trained on the same pictures: of
    use in tests only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

from torch import Tensor, nn

from castalia.core.captions import CAPTION, bytes_of, texts_of
from castalia.core.config import Config
from castalia.core.data import Batch, Dataset
from castalia.core.errors import UsageError
from castalia.core.model import Logs, Model, Objective, Progress, Stage
from castalia.core.rng import Rng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.text import TextSpec
from castalia.models.multimodal.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from castalia.models.multimodal.words import Words, WordsConfig, captioned, pieces

LONGEST = 200
"""Bytes of what can be asked for, where the data have no captions."""


@dataclass(frozen=True)
class PersonalConfig(LatentDiffusionConfig):
    """What is taught; the options of latent diffusion are those of the run that it starts from.

    Attributes:
        token: the word for the subject, one that the run does not know in another sense.
        kind: what kind of thing it is, in words that the run knows.
        templates: sentences with {} where the subject stands, one at random in each step; none: the pictures' captions.
        base_share: share of all steps in which the network below is trained first, where there is no run to start from.
    """

    known: Literal["caption", "class", "nothing"] = "caption"
    token: str = "sks"
    kind: str = "thing"
    templates: tuple[str, ...] = ("a {}",)
    base_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.known != "caption" or self.network != "unet":
            raise ValueError("a subject has a word of its own, so the run must be one with known=caption, network=unet")
        if pieces(self.token) != [self.token]:
            raise ValueError(f"token is one word of small letters and digits, not {self.token!r}")
        if not pieces(self.kind):
            raise ValueError("kind says in words what kind of thing the subject is")
        if any(template.count("{}") != 1 for template in self.templates):
            raise ValueError("each of templates has {} once, where the subject stands")
        if not 0 <= self.base_share < 1:
            raise ValueError("base_share lies in [0, 1)")

    def sentences(self, subject: str) -> tuple[str, ...]:
        """The templates with something in place of {}; one of its own where there are none."""
        return tuple(template.replace("{}", subject) for template in self.templates or ("a {}",))


class SubjectWords(Words):
    """Between captions and tokens, where a word may stand for several.

    Args:
        config: of the network's words.
        token: a word of captions.
        names: the words that stand for it, each a piece of its own behind those of ``config``; none: it is as any word.
    """

    def __init__(self, config: WordsConfig, token: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(replace(config, words=(*config.words, *names)))
        self.token, self.names = token, names

    def tokens(self, captions: Tensor) -> Tensor:
        if len(self.names) < 2:
            return super().tokens(captions)
        many = " ".join(self.names)
        texts = [" ".join(many if p == self.token else p for p in pieces(text)) for text in texts_of(captions)]
        return super().tokens(bytes_of(texts)).to(captions.device)


def asked_in_words(spec: ImageSpec) -> ImageSpec:
    """The spec with captions: pictures of a subject need none beside them, but samples are asked for by them."""
    if CAPTION in dict(spec.columns):
        return spec
    return replace(spec, columns=(*spec.columns, (CAPTION, TextSpec("bytes", 257, LONGEST))))


class Personal(LatentDiffusion):
    """Latent diffusion with one more stage, in which little is moved.

    Attributes:
        stage: name of that stage and its objective.
    """

    Config: ClassVar[type[Config]] = PersonalConfig
    config: PersonalConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    shard_units = ()
    stage: ClassVar[str]

    def __init__(self, config: PersonalConfig, spec: ImageSpec) -> None:
        if not config.templates or config.base_share:
            captioned(spec)
        if config.token in config.words.words:
            raise UsageError(f"The run knows the word {config.token!r} already: choose another with config.token.")
        super().__init__(config, asked_in_words(spec))
        self.words = SubjectWords(config.words, config.token, self.standing())

    @classmethod
    def inherit(cls, config: LatentDiffusionConfig, parents: Mapping[str, Config]) -> LatentDiffusionConfig:
        """The sizes and words of the run that it starts from.

        Raises:
            UsageError: that run is of another system, or knows no captions.
        """
        start = parents.get("start")
        if start is None:
            return config
        if not isinstance(start, LatentDiffusionConfig) or start.known != "caption" or start.network != "unet":
            raise UsageError("A subject is taught to a run of latent-diffusion with captions (config.known=caption).")
        theirs = {field.name: getattr(start, field.name) for field in fields(LatentDiffusionConfig)}
        return replace(config, **theirs)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """As latent diffusion, where nothing is started from.

        Raises:
            UsageError: the run that is started from has pictures of another size, or there is none.
        """
        start, base = parents.get("start"), self.config.base_share
        if start is None:
            if not base:
                raise UsageError(
                    "A subject is taught to a finished run of latent-diffusion with captions: name it with --start RUN."
                )
            super().initialise(data, rng, parents)
        elif base:
            raise UsageError("base_share is for runs that start from nothing: leave it at 0 beside --start.")
        elif isinstance(start.spec, ImageSpec) and start.spec.shape != self.spec.shape:
            raise UsageError(
                f"The run that is started from draws pictures of {start.spec.shape} (channels, height, width), and "
                f"these are of {self.spec.shape}: scale them with --size {start.spec.height}."
            )

    @classmethod
    def complete(cls, config: LatentDiffusionConfig, data: Dataset) -> LatentDiffusionConfig:
        """Find words where nothing is started from; else they are the start's, whatever the captions here say."""
        return super().complete(config, data) if isinstance(config, PersonalConfig) and config.base_share else config

    # what each of the systems says

    @abstractmethod
    def moved(self) -> nn.ModuleList:
        """What the stage moves."""

    def standing(self) -> tuple[str, ...]:
        """Words that the token stands for, beside those of the network; the default has none."""
        return ()

    @property
    def subject(self) -> str:
        """What stands in place of {}."""
        return f"{self.config.token} {self.config.kind}"

    def begin(self, rng: Rng) -> None:
        """Called once before the stage, with the network as it is started from."""

    def settle(self) -> None:
        """Called after each move."""

    # the stage

    def frozen(self) -> tuple[nn.Module, ...]:
        if self.config.base_share:
            return ()
        moved = {id(p) for p in self.moved().parameters()}
        parts = [(part, [id(p) for p in part.parameters()]) for part in self.children()]
        return tuple(part for part, own in parts if own and not moved.intersection(own))

    def stages(self) -> tuple[Stage, ...]:
        share = self.config.base_share
        objective = Objective(self.stage, self.moved(), self.subject_loss, project=self.settle)
        own = Stage(self.stage, (objective,), share=1 - share, enter=self.begin, data=self.coded)
        return *(replace(stage, share=share * stage.share) for stage in super().stages() if share), own

    def words_of(self, batch: Batch) -> Tensor | None:
        """Of pictures without captions nothing is said but what the templates say."""
        known = CAPTION in batch.extra
        return super().words_of(batch) if known else self.words.nothing(len(batch), batch.x.device)

    def told(self, sentences: tuple[str, ...]) -> Tensor:
        """Tokens ``int64`` (N, L) of sentences."""
        return self.words.tokens(bytes_of(sentences)).to(self.device)

    def subject_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Squared error of the prediction per value for the subject's pictures, averaged over the batch."""
        words = batch.extra["words"]
        if self.config.templates:
            sentences = self.told(self.config.sentences(self.subject))
            words = sentences[rng.integers("template", len(sentences))]
        z = self.clean(batch.x, rng)
        mse = self.process.loss(self.calling(len(batch), words, None), z, rng).mean()
        return mse, {"mse": mse.detach()}
