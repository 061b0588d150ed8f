"""The command line of fastddpm: one verb a capability.

Verbs import what they need when they run, so that `--help` and a refused setting take a moment, not seconds.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from fastddpm.cli.table_of_verbs import VERBS, Verb


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; a mistake of the user's ends with one line and exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(given)
    except BrokenPipeError:  # its reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"fastddpm: error: {_of_rank(_in_a_line(error))}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        print("\nfastddpm: stopped; the same command goes on from what was kept", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _run(given: Sequence[str]) -> None:
    if given[:1] in (["-h"], ["--help"]):
        lines = [f"  {name:<22} {verb.summary}" for name, verb in VERBS.items()]
        print("usage: fastddpm VERB ...", "", *lines, "", "`fastddpm VERB --help` shows the options of one.", sep="\n")
        return
    begins = [" ".join(given[:count]) for count in (2, 1)]
    if not (name := next((words for words in begins if words in VERBS), "")):
        from fastddpm.config.wrong_values import near

        wanted = f"there is no verb {given[0]}: {near(given[0], VERBS, '')}" if given and given[0] else None
        raise ValueError(wanted or f"no verb is given; wanted {', '.join(VERBS)}")
    verb, words = VERBS[name], list(given[len(name.split()) :])
    kind = _named(verb.request)
    from fastddpm.cli.parser import help_of, read_words
    from fastddpm.config.early_checks import check_asked

    if "-h" in words or "--help" in words:
        shown = f"{name} NAME" if "{}" in (verb.config or "") else name
        print(help_of(shown, kind, verb.positionals, verb.config != ""))
        return
    is_dry = verb.config != "" and "--dry_run" in words
    words = [word for word in words if not (is_dry and word == "--dry_run")]
    config, words = _config_of(verb, words)
    request = read_words(kind, words, positionals=verb.positionals, config=config)
    if is_dry:
        _print_dry(request)
    else:
        check_asked(name, vars(request))
        try:
            _named(verb.function)(request)
        except OSError as error:
            if hasattr(error, "exit_code"):
                raise
            raise ValueError(_in_a_line(error, request, verb.positionals)) from error


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"fastddpm.{module}"), name)


def _config_of(verb: Verb, words: list[str]) -> tuple[str | None, list[str]]:
    """The packaged config of a verb, and the words without the one that completes its name."""
    if verb.config is None or "{}" not in verb.config:
        return verb.config, words
    from importlib.resources import files

    first, last = verb.config.split("{}")
    packaged = sorted(path.name.removesuffix(".yaml") for path in (files("fastddpm") / "configs").iterdir())
    names = [name.removeprefix(first).removesuffix(last) for name in packaged if name.startswith(first)]
    if words and not words[0].startswith("-"):
        if words[0] not in names:
            raise ValueError(f"got {words[0]!r}; wanted {', '.join(names)}, or --config FILE")
        return verb.config.format(words[0]), words[1:]
    if not any(word.partition("=")[0] == "--config" for word in words):
        raise ValueError(f"wanted one of {', '.join(names)}, or --config FILE")
    return None, words


def _print_dry(config: Any) -> None:
    from fastddpm.config import RunConfig, to_yaml

    print(to_yaml(config), end="")
    if type(config) is RunConfig:
        from fastddpm.training.microbatch import outlook

        print(outlook(config))


def _of_rank(text: str) -> str:
    """Error text, with the rank it came from where there are several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or text.startswith("rank "):
        return text
    return f"rank {os.environ.get('RANK', '0')}: {text}"


def _in_a_line(error: Exception, request: Any = None, positionals: Sequence[str] = ()) -> str:
    if not isinstance(error, OSError):
        return str(error)
    from fastddpm.cli.places import explained

    return explained(error, request, positionals)
