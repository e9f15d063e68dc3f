"""Interning: texts, images and origins become the ids of their rows, each stored once.

They are found again by what they are, the most recent ones in memory. What is
new in a batch is looked up and written with a few statements for all of it.
Ids are given here, in order: only one program at a time writes a history, and
whoever prunes it leaves the newest row of each dictionary.

Who removes what nobody uses any more is ``dictionaries.py``.
"""

import hashlib
from collections.abc import Callable, Iterable

import apsw

from prochist.history.image import Image
from prochist.history.lifetime import Origin
from prochist.history.origin import find_container, find_unit

CACHED_ROWS = 8192
"""Most rows of each dictionary that are remembered; when there are more, it starts again empty."""

LONGEST_CACHED_TEXT = 1024
"""Longest text, in characters, that is worth remembering."""

MOST_ALIKE = 64
"""How many images with the same name, command line and directory are looked through for one that is
the same in all else too: whoever makes more of them stores some twice, and slows nobody down."""

_FIND_TEXT = "SELECT id, value FROM text WHERE hash = ? AND value = ?"
_FIND_IMAGE = (
    "SELECT id FROM (SELECT * FROM image INDEXED BY image_command_line WHERE command_line IS ?4"
    " AND comm IS ?1 AND cwd IS ?7 ORDER BY id DESC LIMIT ?9)"
    " WHERE (exe, exec_path, argv, argv_complete, argv_raw) IS (?2, ?3, ?5, ?6, ?8) LIMIT 1"
)
_FIND_ORIGIN = (
    "SELECT id FROM origin WHERE hash = ?1 AND (uid, euid, gid, egid, user, login_uid,"
    " login_user, session, tty, cgroup, unit, container_id)"
    " IS (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
)


class Interning:
    """Gives ids, inside the transaction of the caller. ``user_name`` is that of the writer."""

    def __init__(self, db: apsw.Connection, user_name: Callable[[int], str | None]) -> None:
        self._db = db
        self._user_name = user_name
        self.texts: dict[str | None, int | None] = {}
        """Ids of texts by their value; None is no text."""
        self.images: dict[Image | None, int | None] = {}
        """Ids of images. One that was given to :meth:`learn` is in it until :meth:`trim`."""
        self._origins: dict[Origin, int] = {}
        self._long_texts: list[str] = []
        self._long_images: list[Image] = []
        self.forget()

    def forget(self) -> None:
        """Forget which rows there are: some were deleted, or never committed."""
        self._long_texts = []
        self._long_images = []
        self.texts = {None: None}
        self.images = {None: None}
        self._origins = {}

    def forget_names(self) -> None:
        """Ask for the names of users again; they may have changed."""
        self._origins = {}

    def trim(self) -> None:
        """Keep what is remembered within its bounds, between two batches."""
        for image in self._long_images:
            self.images.pop(image, None)
        for text in self._long_texts:
            self.texts.pop(text, None)
        self._long_images = []
        self._long_texts = []
        if len(self.texts) > CACHED_ROWS:
            self.texts = {None: None}
        if len(self.images) > CACHED_ROWS:
            self.images = {None: None}
        if len(self._origins) > CACHED_ROWS:
            self._origins = {}

    def learn(self, images: Iterable[Image | None]) -> None:
        """Find or write all these images; their ids are in :attr:`images` then."""
        known = self.images
        new = {image: None for image in images if image not in known}
        if not new:
            return
        wanted: dict[str | None, None] = {}
        for image in new:
            if image is not None:
                wanted |= dict.fromkeys(image[:5])
                wanted[image.cwd] = None
        first_new_text = self._learn_texts(wanted)
        texts = self.texts
        next_id = self._next_id("image")
        rows = []
        for image in new:
            if image is None:
                continue
            comm, exe, exec_path, command_line, argv, argv_complete, cwd, argv_raw = image
            line_id = texts[command_line]
            fields = (
                texts[comm],
                texts[exe],
                texts[exec_path],
                line_id,
                texts[argv],
                argv_complete,
                texts[cwd],
                argv_raw,
            )
            # What has a text that was not there cannot be there itself.
            is_new = line_id is not None and line_id >= first_new_text
            found = None if is_new else self._db.execute(_FIND_IMAGE, (*fields, MOST_ALIKE)).get
            if found is None:
                found = next_id
                next_id += 1
                rows.append((found, *fields))
            known[image] = found
            if command_line is not None and len(command_line) > LONGEST_CACHED_TEXT:
                self._long_images.append(image)
        self._db.executemany(
            "INSERT INTO image (id, comm, exe, exec_path, command_line, argv, argv_complete, cwd,"
            " argv_raw) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    def _learn_texts(self, wanted: Iterable[str | None]) -> int:
        """Find or write texts; return the least id that is given to new ones."""
        known = self.texts
        hashed = [(_hash(text), text) for text in wanted if text is not None and text not in known]
        for id_, value in self._db.executemany(_FIND_TEXT, hashed):
            known[value] = id_
        first = next_id = self._next_id("text")
        rows = []
        for number, text in hashed:
            if text not in known:
                known[text] = next_id
                rows.append((next_id, number, text))
                next_id += 1
            if len(text) > LONGEST_CACHED_TEXT:
                self._long_texts.append(text)
        self._db.executemany("INSERT INTO text (id, hash, value) VALUES (?, ?, ?)", rows)
        return first

    def _next_id(self, table: str) -> int:
        return int(self._db.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").get)  # noqa: S608  constant text

    def text(self, value: str | None) -> int | None:
        """Return the id of a text, written when it is new."""
        if value not in self.texts:
            self._learn_texts([value])
        return self.texts[value]

    def origin(self, origin: Origin | None) -> int | None:
        """Return the id of an origin, written when it is new."""
        if origin is None:
            return None
        id_ = self._origins.get(origin)
        if id_ is not None:
            return id_
        user = None if origin.uid is None else self._user_name(origin.uid)
        login_user = None if origin.login_uid is None else self._user_name(origin.login_uid)
        cgroup = origin.cgroup
        unit = find_unit(cgroup) if cgroup else None
        container_id = find_container(cgroup) if cgroup else None
        self._learn_texts(dict.fromkeys((user, login_user, origin.tty, cgroup, unit, container_id)))
        texts = self.texts
        fields = (
            *origin[:4],
            texts[user],
            origin.login_uid,
            texts[login_user],
            origin.session,
            texts[origin.tty],
            texts[cgroup],
            texts[unit],
            texts[container_id],
        )
        values = (_hash(repr(fields)), *fields)
        id_ = self._db.execute(_FIND_ORIGIN, values).get
        if id_ is None:
            self._db.execute(
                "INSERT INTO origin (hash, uid, euid, gid, egid, user, login_uid, login_user,"
                " session, tty, cgroup, unit, container_id)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            id_ = self._db.last_insert_rowid()
        self._origins[origin] = id_
        return int(id_)


def _hash(value: str) -> int:
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


__all__ = ["Interning"]
