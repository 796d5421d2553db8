"""The fork server's former name, until every method's tests are built on the conformance kit."""

from crosslingual_worlds.testing.fork_server import *  # noqa: F403
from crosslingual_worlds.testing.fork_server import die_in_save, serve, signal_at


def serve_verbs(prog, main, trainers):  # noqa: D103
    import signal
    import sys

    def run(request, rank):
        if "terminate" in request and request["terminate"][0] == rank:
            signal_at(signal.SIGTERM, request["terminate"][1])
        if "die" in request and rank == 0:
            if len(request["die"]) == 1:
                signal_at(signal.SIGKILL, request["die"][0])
            else:
                die_in_save(*request["die"])
        sys.argv = [prog, *request["argv"]]
        return main()

    serve(run)
