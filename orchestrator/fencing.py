"""Which attempt may write into a stage's folder: the newest one, by the note that it leaves there when it begins.

A process that was cut off, or stopped for an hour, does not know that another attempt goes on in its place. It looks at
the note before it writes, and under the same lock as that writes: what it has made is then dropped. The locks are
flock's: a shared folder must have them (NFS 4, Lustre mounted with `flock`).
"""

import contextlib
import json
import shutil
from pathlib import Path

from filelock import FileLock

from orchestrator.config import Model
from orchestrator.errors import StaleClaimError

_NOTE = "attempt.json"


class Writer(Model):
    """One attempt of a run at a stage, which writes into the stage's folder as long as it is the newest."""

    folder: Path
    run: str
    fence: int
    """Number of the attempt; it only grows within a run."""

    def begin(self) -> None:
        """From now on no other may write. Raises StaleClaimError when a newer attempt of the same run has begun."""
        with self.lock():
            held = holder(self.folder)
            if held and held.run == self.run and held.fence > self.fence:
                raise self._stale(held)
            partial = self.folder / f"{_NOTE}.partial"
            partial.write_text(json.dumps({"run": self.run, "fence": self.fence}))
            partial.replace(self.folder / _NOTE)

    def relieve(self) -> None:
        """`begin`, if an older attempt of the same run may write; that of another run may do so until it has ended."""
        held = holder(self.folder)
        if held and held.run == self.run:
            self.begin()

    def check(self) -> None:
        """Raises StaleClaimError when another attempt has begun since."""
        held = holder(self.folder)
        if held != self:
            raise self._stale(held)

    def lock(self) -> FileLock:
        """For a look at the note and what follows from it."""
        return FileLock(self.folder / "attempt.lock")

    def _stale(self, held: "Writer | None") -> StaleClaimError:
        now = f"attempt {held.fence} of {held.run} has" if held else "somebody else has"
        return StaleClaimError(
            f"attempt {self.fence} of {self.run} may not write into {self.folder} any more: {now} begun",
            next_step="nothing: what it has made since is dropped, the newer one goes on",
        )


def publish(made: Path, target: Path, writer: Writer | None) -> None:
    """Give a file or folder that is complete its name, in place of what had it.

    Raises StaleClaimError when another attempt has begun; without a writer nobody else can.
    """
    with writer.lock() if writer else contextlib.nullcontext():
        if writer:
            writer.check()
        if target.is_dir():
            shutil.rmtree(target)
        made.replace(target)


def holder(folder: Path) -> Writer | None:
    """Who may write there; None before the first attempt."""
    try:
        return Writer(folder=folder, **json.loads((folder / _NOTE).read_text()))
    except FileNotFoundError:
        return None


def next_fence(folder: Path, run: str) -> int:
    """A number for the next attempt of a run, for a caller that does not count them."""
    held = holder(folder)
    return held.fence + 1 if held and held.run == run else 1
