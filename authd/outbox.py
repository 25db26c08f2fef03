"""The outbox: bundles that wait for a daemon that was not running when they were made."""

import os
from pathlib import Path

from authd.core.encoding import encode_base64url
from authd.errors import ConfigError, StoreError


class Outbox:
    """``outbox/*.bundle`` in a state directory, taken in the order they were made."""

    def __init__(self, state_dir: Path) -> None:
        """Use ``state_dir``."""
        self._directory = state_dir / "outbox"

    def add(self, bundle: bytes, *, now_us: int) -> Path:
        """Leave a bundle for the daemon, whole or not at all.

        Raises:
            StoreError: It cannot be written.
        """
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            name = f"{now_us:020d}-{encode_base64url(os.urandom(6))}"
            temporary = self._directory / f".{name}"
            with temporary.open("wb") as file:
                file.write(bundle)
                file.flush()
                os.fsync(file.fileno())
            return temporary.rename(self._directory / f"{name}.bundle")
        except OSError as error:
            raise StoreError(f"cannot write to `{self._directory}`: {error.strerror}") from error

    def pending(self) -> list[Path]:
        """Return what waits, oldest first."""
        return sorted(self._directory.glob("*.bundle"))

    def read(self, path: Path) -> bytes:
        """Read a bundle that waits.

        Raises:
            ConfigError: It cannot be read.
        """
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read `{path}`: {error.strerror}") from error

    def done(self, path: Path) -> None:
        """Forget a bundle that was taken in."""
        path.unlink(missing_ok=True)

    def refuse(self, path: Path) -> None:
        """Put a bundle aside that cannot be taken in; the operator finds it as ``*.refused``."""
        path.rename(path.with_suffix(".refused"))
