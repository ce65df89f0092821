"""A process that works off one task after the other, and may be killed at any time: python -m videogn.preparation.worker.

Its standard input brings tasks, keyword arguments as a line of JSON each; its standard output takes the answers, a line of JSON
each, after a first line that says that it is ready. What a library prints goes elsewhere.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys

from videogn.decoder.child import die_with


def main() -> None:
    """Serve until the standard input ends. Arguments: the function, as `module:function`, and the process that started this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    die_with(int(sys.argv[2]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module, _, name = sys.argv[1].partition(":")
    work = getattr(importlib.import_module(module), name)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(work(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
