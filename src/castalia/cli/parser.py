"""Every verb and option. Plain argparse: it loads in milliseconds, and there is little to declare.

The few options of ``train`` are the ones people type; everything else in a recipe is reached by ``--set``.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from castalia.cli.edits import add_forms
from castalia.cli.values import number as _number
from castalia.cli.values import path as _path
from castalia.cli.values import positive as _positive
from castalia.core.errors import near
from castalia.training.machines import MACHINES
from castalia.version import __version__

VERBS_MEANT = {
    "generate": "sample",
    "draw": "sample",
    "fit": "train",
    "list": "runs",
    "ls": "runs",
    "show": "info",
    "measure": "evaluate",
    "eval": "evaluate",
    "test": "evaluate",
    "download": "data",
    "recipes": "models",
    "interpolate": "edit interpolate",
    "morph": "edit interpolate",
    "inpaint": "edit redraw",
    "fill": "edit redraw",
    "redraw": "edit redraw",
    "img2img": "edit redraw",
    "reconstruct": "edit reconstruct",
    "traverse": "edit traverse",
    "walk": "edit walk",
    "map": "edit map",
    "continue": "sample RUN --prompt",
    "complete": "sample RUN --prompt",
    "estimate": "plan",
    "forecast": "plan",
    "server": "serve RUN",
    "api": "serve RUN",
}
"""Words that people try, and the verb that does it."""

OPTIONS_MEANT = {
    "--model": "the system, or the run, stands without an option: castalia train vae ..., castalia sample RUN ...",
    "--run": "the run stands without an option: castalia sample RUN ...",
    "--epochs": "--steps N or --minutes M",
    "--iterations": "--steps N",
    "--output": "--out",
    "-o": "--out",
    "--num": "-n",
    "--count": "-n",
    "--class": "--label CLASS",
    "--dataset": "--data",
    "--lr": "--set training.lr=0.001",
    "--learning-rate": "--set training.lr=0.001",
    "--batch-size": "--set training.batch_size=32",
    "--batch_size": "--set training.batch_size=32",
    "--resolution": "--size",
    "--image-size": "--size",
    "--device": "the accelerator is used where there is one; CUDA_VISIBLE_DEVICES chooses",
    "--steps": "for sampling steps: --set steps=20",
}
"""The same of options."""


class Parser(argparse.ArgumentParser):
    """An argument parser that suggests near matches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        if "invalid choice: " in message:
            wrong = message.split("invalid choice: '")[-1].split("'")[0]
            for action in self._actions:
                if isinstance(action, argparse._SubParsersAction) and wrong not in action.choices:
                    meant = VERBS_MEANT.get(wrong.lower())
                    hint = f"Did you mean: castalia {meant}" if meant else near(wrong, action.choices)
                    message = f"there is no verb {wrong!r}. {hint}"
        print(f"castalia: {message}\nSee: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            parser: Parser = getattr(options, "parser", self)
            known = [s for a in parser._actions for s in a.option_strings]
            name = rest[0].split("=")[0]
            meant = OPTIONS_MEANT.get(name)
            parser.error(f"there is no option {rest[0]!r}. {f'Write: {meant}' if meant else near(name, known)}")
        return options


def make_parser() -> Parser:
    """Build the parser."""
    parser = Parser(
        prog="castalia",
        description="Every deep generative model, one workbench.",
        epilog="Start with: castalia demo\nThen:       castalia train vae --data FOLDER --out runs/mine",
    )
    parser.add_argument("--version", action="version", version=f"castalia {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, text: str, epilog: str = "") -> Parser:
        made = verbs.add_parser(name, help=text, description=text, epilog=epilog)
        made.set_defaults(parser=made)
        return made

    def prior_option(p: argparse.ArgumentParser) -> None:
        p.add_argument(
            "--prior",
            choices=["trained", "fitted"],
            default="trained",
            help="fitted: latents from a mixture fitted to the encoded training data, which avoids empty places",
        )

    def json_option(p: argparse.ArgumentParser) -> None:
        p.add_argument("--json", action="store_true", help="print JSON for programs")

    def server_options(p: argparse.ArgumentParser, port: int) -> None:
        p.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
        p.add_argument("--port", type=int, default=port, help=f"({port}); 0 takes any that is free")
        p.add_argument("--password", metavar="FILE", help="a file with the password, for hosts that others can reach")
        p.add_argument("--name", action="append", default=[], metavar="HOST", help="a further name of this machine")

    def drawn_option(p: argparse.ArgumentParser, words: str) -> None:
        p.add_argument("--drawn", type=int, metavar="N", help=f"samples to draw and measure ({words})")

    def given_options(p: argparse.ArgumentParser) -> None:
        p.add_argument(
            "--label",
            metavar="CLASS",
            help="ask a conditional model for this class",
        )
        p.add_argument(
            "--prompt", metavar="TEXT", help="the beginning, for models that continue one; @FILE reads a file"
        )
        p.add_argument(
            "--given",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="ask for anything that the model accepts; NAME=@FILE reads a file",
        )

    def sampling_options(p: argparse.ArgumentParser, *, label: bool = True) -> None:
        if label:
            given_options(p)
        p.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            dest="settings",
            help="a sampling option of the model, for example steps=20",
        )
        p.add_argument(
            "--precision",
            choices=("auto", "float32", "bfloat16"),
            default="auto",
            help="of the networks when sampling; auto is that of the run's training (auto)",
        )

    p = verb("models", "List the systems, or tell all about one.")
    p.add_argument("model", nargs="?", metavar="NAME", help="the system to tell about; without it, all are listed")
    json_option(p)

    p = verb("data", "List the named data sets, or describe a folder, file or set.")
    p.add_argument("source", nargs="?", type=_path, help="a named set or a path; without it, the named sets are listed")
    p.add_argument("--split", help="which part")
    p.add_argument("--size", type=_positive, help="scale pictures to this many pixels")
    p.add_argument("--on-bad-file", choices=["error", "skip"], help="what to do with broken files")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings", help="how to read it")
    p.add_argument("--grid", metavar="FILE.png", help="draw the first examples")
    json_option(p)

    p = verb(
        "train",
        "Train a model.",
        "Any field of a recipe can be set:\n"
        "  castalia train vae --data FOLDER --set config.latent_dims=64 --set training.lr=0.0005\n"
        "Two processes:\n"
        "  torchrun --standalone --nproc_per_node 2 -m castalia train vae --data mnist --out runs/a\n"
        "With --shard each of them keeps only its part of the model.",
    )
    p.add_argument("model", nargs="?", help="a name from `castalia models`")
    p.add_argument(
        "--data",
        help="what to train on: a path of pictures, points, texts or sound, or a named set; see: castalia data",
    )
    p.add_argument("--recipe", help="a recipe by name; without it, the model's own for this data")
    p.add_argument("--out", type=_path, help="the run folder to make (runs/MODEL-DATA)")
    p.add_argument("--size", type=_positive, help="scale pictures to this many pixels")
    p.add_argument("--steps", type=_positive, help="training steps")
    p.add_argument("--minutes", type=_number, help="training time instead of steps; own data without either: 10")
    p.add_argument(
        "--classes",
        action=argparse.BooleanOptionalAction,
        help="learn the classes of the data; without it, own data that have some and a system that can",
    )
    p.add_argument("--start", metavar="RUN", help="begin with the weights of a finished run of the same network")
    p.add_argument(
        "--parent",
        action="append",
        default=[],
        metavar="ROLE=RUN",
        dest="parents",
        help="another finished run that the model needs: a teacher, a generator",
    )
    p.add_argument("--seed", type=int, help="of weights, order and noise")
    p.add_argument("--precision", choices=["auto", "float32", "bfloat16"], help="auto measures")
    p.add_argument("--on-bad-file", choices=["error", "skip"], help="what to do with broken files")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings", help="change a field")
    p.add_argument("--resume", action="store_true", help="continue the run in --out")
    p.add_argument("--shard", action="store_true", help="under torchrun: cut the model up among the processes")
    p.add_argument("--tensor", type=_positive, default=1, help="under torchrun: processes that share each block (1)")
    p.add_argument("--quiet", action="store_true", help="print nothing")

    p = verb(
        "plan",
        "Foresee memory, operations, traffic and speed of a language model's training on many devices.",
        "  castalia plan --recipe gpt3-1.3b --replicas 8 --micro 4\n"
        "  castalia plan --recipe gpt3-175b --replicas 8 --shards 16 --tensor 8 --recompute --device h100\n"
        "Nothing is trained, and no weights are made.",
    )
    p.add_argument("model", nargs="?", help="gpt2, gpt3 or gpt-modern; may be left out with --recipe")
    p.add_argument("--data", help="what would be trained on: a path or a named set")
    p.add_argument("--recipe", help="a recipe by name; without it, the model's own for this data")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings", help="change a field")
    p.add_argument("--replicas", type=_positive, default=1, help="that have everything and average gradients (1)")
    p.add_argument("--shards", type=_positive, default=1, help="over which a replica's parameters are spread (1)")
    p.add_argument("--tensor", type=_positive, default=1, help="devices that share each block (1)")
    p.add_argument("--micro", type=_positive, default=1, help="windows that a device computes at once (1)")
    p.add_argument("--recompute", action="store_true", help="compute blocks again in the backward pass")
    p.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16", help="(bfloat16)")
    p.add_argument("--utilisation", type=_number, default=0.4, help="share of the peak that is reached (0.4)")
    p.add_argument("--device", default="h100", help=f"{', '.join(MACHINES)} (h100)")
    p.add_argument("--peak", type=_number, metavar="TFLOPS", help="another peak at this precision, in 1e12 a second")
    p.add_argument("--memory", type=_number, metavar="GB", help="another memory of a device, in 1e9 bytes")
    p.add_argument("--bandwidth", type=_number, metavar="GB/S", help="of this memory, in 1e9 bytes a second")
    p.add_argument("--link", type=_number, metavar="GB/S", help="to devices of the same node, in one direction")
    p.add_argument("--network", type=_number, metavar="GB/S", help="to those of other nodes, in one direction")
    p.add_argument("--per-node", type=_positive, help="devices of a node (8)")
    json_option(p)

    p = verb("runs", "List the runs in a folder and below it.")
    p.add_argument("folder", nargs="?", type=_path, default="runs", help="the folder (runs)")
    json_option(p)

    p = verb("info", "Tell all about a run: what, when, how long, results, a picture, and how to go on.")
    p.add_argument("run", type=_path, help="a run folder")
    json_option(p)

    p = verb("sample", "Draw samples from a run and write them as files.")
    p.add_argument("run", help="a run folder")
    p.add_argument("-n", type=_positive, help="how many (16; with --stream 1)")
    p.add_argument("--seed", type=int, default=0, help="another seed gives other samples")
    p.add_argument("--start", type=int, default=0, help="number of the first sample")
    p.add_argument("--temperature", type=_number, help="1 samples the model; less stays near its modes")
    prior_option(p)
    sampling_options(p)
    p.add_argument("--previews", metavar="FILE.gif", help="a film of the sampling, for models that sample in steps")
    p.add_argument("--stream", action="store_true", help="text: print it while it is written; --out may be left out")
    p.add_argument("--out", type=_path, help="folder for the files and grid.png")

    p = verb("edit", "Interpolate, traverse, redraw, fill in, reconstruct and calculate.")
    edits = p.add_subparsers(dest="edit", metavar="EDIT", required=True)
    add_forms(edits)

    p = verb("evaluate", "Measure a run.")
    p.add_argument("run", help="a run folder")
    p.add_argument("--data", help="a named set or a path; without it, the run's own")
    p.add_argument("--split", default="test", help="which part (test)")
    p.add_argument("--samples", type=_positive, default=100, metavar="K", help="importance samples per example (100)")
    p.add_argument(
        "--refine",
        type=int,
        default=0,
        metavar="M",
        help="K samples on M random examples, K/100 on all: an estimate",
    )
    p.add_argument("--limit", type=_positive, metavar="N", help="likelihoods of only N random examples")
    drawn_option(p, "1,000 of pictures and points, 64 of others, where there are examples enough; 0: none")
    sampling_options(p, label=False)
    network = p.add_mutually_exclusive_group()
    network.add_argument("--features", metavar="FILE.onnx", help="measure samples in the features of this network")
    network.add_argument(
        "--inception", metavar="FILE.onnx", help="the same, and it is the Inception network of the FID"
    )
    p.add_argument("--baselines", action="store_true", help="also measure trivial models of the training data")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress")
    json_option(p)

    p = verb("compare", "Measure runs side by side on the same data, and write a page.")
    p.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    p.add_argument("--data", help="a named set or a path; without it, that of the first run")
    p.add_argument("--split", default="test", help="which part (test)")
    p.add_argument("--samples", type=_positive, default=100, metavar="K", help="importance samples per example (100)")
    p.add_argument("--limit", type=_positive, metavar="N", help="likelihoods of only N random examples")
    drawn_option(p, "2,000 of pictures and points, 64 of others")
    p.add_argument("--no-plots", action="store_true", help="leave out the plots against time, which take the longest")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=_path, metavar="FILE.html", help="the page")
    p.add_argument("--quiet", action="store_true", help="no progress")
    json_option(p)

    p = verb("features", "Train the small network in whose features the samples of a data set are measured.")
    p.add_argument("source", type=_path, help="a named set or a path of pictures")
    p.add_argument("--size", type=_positive, help="scale pictures to this many pixels, as the runs did")

    p = verb("export", "Write a run for use elsewhere.")
    p.add_argument("run", help="a run folder")
    p.add_argument(
        "--format",
        choices=["folder", "torch", "onnx", "diffusers", "transformers"],
        default="folder",
        help="folder: for a model hub; diffusers, transformers: for these libraries",
    )
    p.add_argument(
        "--label", metavar="CLASS", help="diffusers: the class that its pipelines, which take none, will draw"
    )
    p.add_argument("--drop-variance", action="store_true", help="diffusers: leave a learned variance out, for DDIM")
    p.add_argument("--out", help="folder to make")
    p.add_argument("--to-hub", metavar="OWNER/NAME", help="upload a folder to the Hugging Face hub instead (private)")

    p = verb("import", "Make a run from an exported folder.")
    p.add_argument(
        "source", help="an exported folder, one of diffusers or (GPT-2) transformers, or hf://owner/name@revision"
    )
    p.add_argument(
        "--start",
        metavar="RUN",
        help="diffusers: the run to which LoRA weights, learned embeddings or a U-Net belong",
    )
    p.add_argument("--out", type=_path, required=True, help="run folder to make")

    p = verb(
        "serve",
        "Serve a run of a language model: OpenAI's completions over HTTP.",
        "  castalia serve runs/words\n"
        "  curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\\n"
        '    -d \'{"model": "words", "prompt": "It was", "max_tokens": 50}\'',
    )
    p.add_argument("run", help="a run folder")
    server_options(p, 8000)
    p.add_argument("--lsp", action="store_true", help="speak with an editor instead, over standard input and output")
    p.add_argument("--as", dest="model_name", metavar="NAME", help="name of the model (that of the run folder)")
    p.add_argument("--rows", type=_positive, default=8, help="texts that are written at once (8)")
    p.add_argument("--waiting", type=int, default=64, help="texts that may wait; more are refused with 429 (64)")
    p.add_argument("--most-tokens", type=_positive, default=1024, help="of a text (1,024)")
    p.add_argument("--seconds", type=_number, default=120.0, help="after which an answer ends with what there is (120)")
    p.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="float32", help="(float32)")
    p.add_argument("--int8", action="store_true", help="round matrices to eight bits: faster, other texts")
    guesses = p.add_mutually_exclusive_group()
    guesses.add_argument("--draft", metavar="RUN", help="a smaller run with the same vocabulary that guesses ahead")
    guesses.add_argument(
        "--look-up", action="store_true", help="guess what followed the same words before; the texts stay the same"
    )

    p = verb(
        "story",
        "Write a story with a language model: go on, try again, take back, change, branch; kept in a file.",
        "  castalia story runs/plays story.txt --set temperature=0.8 --set length=60\n"
        "  printf 'say ROMEO:\\n\n\nagain\nmap\n' | castalia story runs/plays story.txt",
    )
    p.add_argument("run", help="a run folder of a language model")
    p.add_argument("file", help="the story; it is made where there is none")
    p.add_argument(
        "--set", action="append", dest="settings", metavar="NAME=VALUE", help="a sampling option, for example top_p=0.9"
    )
    p.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="(auto)")

    p = verb("demo", "Train systems on built-in data and write a page to look at: eight, or those named.")
    p.add_argument("names", nargs="*", metavar="NAME", help="systems to show; see: castalia models")
    p.add_argument("--out", default="demo", help="folder (demo)")
    p.add_argument("--minutes", type=_number, default=5.0, help="for all systems together (5)")

    p = verb("studio", "Open a page in which runs are trained and played with.")
    p.add_argument("runs", nargs="?", default="runs", type=_path, help="the folder of the runs (runs)")
    server_options(p, 7860)
    p.add_argument("--no-browser", action="store_true", help="do not open a browser")

    p = verb("doctor", "Check this installation.")
    json_option(p)
    return parser
