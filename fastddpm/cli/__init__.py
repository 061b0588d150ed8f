"""The command line of fastddpm: one verb a capability.

Verbs import what they need when they run, so that `--help` and a refused setting take a moment, not seconds.
"""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence

from fastddpm.cli.by_fields import COMMANDS
from fastddpm.cli.options import parser_of_verbs


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; a mistake of the user's ends with one line and exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = parser_of_verbs(__doc__)
    words = next((count for count in (2, 1) if " ".join(given[:count]) in COMMANDS), 0)
    takes_fields = words > 0
    try:
        if takes_fields:  # a config's: too many for argparse
            COMMANDS[" ".join(given[:words])](given[words:])
        else:
            parsed = parser.parse_args(given)
            verb: Callable[[argparse.Namespace], None] = parsed.verb
            verb(parsed)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"fastddpm: error: {_of_rank(_explained(error, takes_fields))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nfastddpm: stopped; the same command goes on from what was kept", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _of_rank(text: str) -> str:
    """What went wrong, and on which of several ranks."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or text.startswith("rank "):
        return text
    return f"rank {os.environ.get('RANK', '0')}: {text}"


def _explained(error: Exception, is_training: bool) -> str:
    """What went wrong and what to do; of the system's own errors, those that people meet."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = error.filename or "the disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        places = "--output_dir and --data.cache_dir" if is_training else "--out"
        return (
            f"{where} has no room ({error.strerror}); what was saved before is whole: free some, or put {places} "
            f"on a larger disk, and start again"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return (
            f"{where} is a file, where a folder was wanted ({error.strerror}); move it away, or choose another folder"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        others = "--output_dir, --data.cache_dir or --data.source" if is_training else "--out"
        return (
            f"{where} may not be read or written by this user ({error.strerror}); change its permissions, or choose "
            f"another {others}"
        )
    return str(error)
