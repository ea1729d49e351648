"""Shared code of the widgets: images as PNG bytes, limits, static rendering, and callbacks that always end in a status.

A callback runs outside any cell: its traceback would be lost, and what it disabled would stay disabled. Therefore
every callback is a *work* of :class:`Attempts`: it ends in one sentence, and of two works that overlap only the one
that started last may change what is shown.
"""

from __future__ import annotations

import contextlib
import html
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import traitlets
from PIL import Image

from s2flib.errors import ImageError, S2FError
from s2flib.images import FORMATS, Picture, as_array, load_image, png_info

try:
    import anywidget
    import ipywidgets
except ImportError as error:
    raise S2FError("the widgets need anywidget: pip install 's2flib[course]'.") from error

STATIC = Path(__file__).parent / "static"
MAX_PNG = 4 * 2**20  # bytes; limits the size of messages to and from the browser
MAX_PIXELS = 50_000_000  # of a picture that comes from the browser, before it is decoded
MAX_STATUS = 500  # characters of a status line


class Refused(S2FError, traitlets.TraitError):
    """A value that a trait must not have. As a TraitError it makes traitlets restore the values before it."""


class RefusedImage(ImageError, Refused):
    """An image that a trait must not have."""


def _received(value: object, _widget: object) -> bytes:
    """Bytes from the browser, which sends memoryviews; bytes(10**10) would reserve 10 GB."""
    if value is None:
        return b""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise Refused(f"the browser sent a {type(value).__name__} instead of an image: reload the page.")
    if memoryview(value).nbytes > MAX_PNG:
        raise RefusedImage(f"the browser sent an image of more than {MAX_PNG // 2**20} MB: use a smaller one.")
    return bytes(value)


BYTES = {"sync": True, "from_json": _received}


def png_bytes(image: Picture, synthetic: bool = False, metadata: Mapping | None = None) -> bytes:
    """Encodes an image as PNG; ``synthetic`` adds the mark of generated images, ``metadata`` how it was made."""
    out = io.BytesIO()
    Image.fromarray(as_array(image)).save(out, "PNG", pnginfo=png_info(metadata, synthetic))
    data = out.getvalue()
    if len(data) > MAX_PNG:
        raise ImageError(
            f"the image is {len(data) / 2**20:.1f} MB as PNG and the limit is {MAX_PNG // 2**20} MB: make it smaller."
        )
    return data


def from_png(data: bytes) -> np.ndarray:
    """The inverse of :func:`png_bytes`: (H, W, 3) uint8."""
    return load_image(io.BytesIO(data), min_side=1)


def check_pixels(data: bytes, most: int = MAX_PIXELS, name: str = "the image") -> None:
    """ImageError for an encoded image of more than ``most`` pixels; reads its header, decodes nothing."""
    Image.init()
    try:
        with Image.open(io.BytesIO(data), formats=[f for f in FORMATS if f in Image.OPEN]) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError:
        pixels = most + 1
    except Exception:  # no image at all: whoever decodes it says so
        return
    if pixels > most:
        raise ImageError(f"{name} has more than {most / 1e6:.0f} million pixels: scale it down first.")


def next_serial(sent: object, last: int | None) -> int:
    """The serial of an answer: the browser's own, if it is a whole number that JavaScript can hold, or one more."""
    if isinstance(sent, int) and not isinstance(sent, bool) and 0 <= sent < 2**53:
        return sent
    return (last or 0) + 1


def one_line(text: object) -> str:
    """Text for a status line: one line, bounded, and free of what cannot be sent to a browser."""
    line = " ".join(str(text)[: 20 * MAX_STATUS].split()).encode("utf-8", "replace").decode()
    return line if len(line) <= MAX_STATUS else line[: MAX_STATUS - 2] + " …"


def sentence(error: BaseException, doing: str) -> str:
    """One sentence about an error; never raises, whatever the error's own ``__str__`` does."""
    if not isinstance(error, Exception):  # KeyboardInterrupt, SystemExit, asyncio's CancelledError
        return f"{doing} was interrupted: try again."
    try:
        said = one_line(error)
    except Exception:
        said = ""
    if isinstance(error, S2FError) and said:
        return said
    return f"{doing} failed ({type(error).__name__}{': ' if said else ''}{said})."


@dataclass
class Work:
    """One work: its number in the order of starting, and the errors of the callbacks that it called."""

    number: int
    failures: list[str] = field(default_factory=list)


class Attempts:
    """A mixin: ``attempt`` runs a callback, and ``say`` (the class's own) shows how it ended."""

    def __init__(self, *args, **kwargs):
        self._newest = 0  # number of the work that started last
        self._works = threading.RLock()
        self._here = threading.local()  # .work: this thread's
        super().__init__(*args, **kwargs)

    def say(self, text: str, ok: bool = True) -> None:
        """Shows a status; ``ok`` False marks it as an error."""
        raise NotImplementedError

    def attempt(self, work: Callable[[], object], doing: str) -> bool:
        """Calls ``work``; an error becomes one sentence in the status. Returns whether it succeeded.

        A text that ``work`` returns is the status of its success. A work within a work is a part of it: its error is
        added to the outer one's status. Raises nothing but interruptions (KeyboardInterrupt, SystemExit), so that a
        cell can be stopped; also they are shown first.
        """
        outer: Work | None = getattr(self._here, "work", None)
        mine = outer or self._begin()
        note, failed = "", None
        try:
            note = work()
        except BaseException as error:
            failed = error
            if outer is None or isinstance(error, Exception):
                mine.failures.append(sentence(error, doing))
        if outer is None:
            try:
                parts = [one_line(note)] if isinstance(note, str) and note else []
                text = " · ".join([*parts, *dict.fromkeys(mine.failures)])
                self.publish(lambda: self.say(one_line(text), not mine.failures))
            finally:
                self._here.work = None
        if failed is not None and not isinstance(failed, Exception):
            raise failed
        return failed is None

    def publish(self, change: Callable[[], None]) -> None:
        """Calls ``change``, which shows a result, unless a work that started later is there to show its own."""
        with self._works:
            if self.is_newest():
                change()

    def is_newest(self) -> bool:
        """Whether this thread's work is the one that started last; also True outside of any work."""
        mine: Work | None = getattr(self._here, "work", None)
        return mine is None or mine.number == self._newest

    def _begin(self) -> Work:
        with self._works:
            self._newest += 1
            self._here.work = Work(self._newest)
        return self._here.work

    def static(self) -> bytes:
        """The widget as PNG bytes."""
        raise NotImplementedError

    def static_bundle(self) -> dict[str, bytes]:
        """The static PNG for a notebook's stored output; {} if it fails, so that the widget itself still appears."""
        try:
            return {"image/png": self.static()}
        except Exception:
            return {}


class Background(Attempts):
    """A mixin: one work at a time in a thread of its own, because a kernel that is busy with a callback does not
    process further clicks, including Cancel. However a work ends, :meth:`busy` is called with False."""

    def __init__(self, *args, **kwargs):
        self._cancelled = threading.Event()  # of the running work
        self._worker: threading.Thread | None = None
        self._turn = threading.RLock()  # around what starts or ends a work
        super().__init__(*args, **kwargs)

    def busy(self, busy: bool) -> None:
        """What can be clicked while a work is running, and afterwards."""
        raise NotImplementedError

    def background(self, work: Callable[[threading.Event], object], doing: str) -> None:
        """Starts ``work(cancelled)`` as an attempt and returns immediately; does nothing while one is running."""
        cancelled = threading.Event()

        def run() -> None:
            try:
                with contextlib.suppress(KeyboardInterrupt, SystemExit):  # the status has named them
                    self.attempt(lambda: work(cancelled), doing)
            finally:
                self._end()

        def start() -> None:
            self.busy(True)
            worker.start()

        worker = threading.Thread(target=run, name=doing, daemon=True)
        with self._turn:
            if self._worker is not None:
                return
            self._worker, self._cancelled = worker, cancelled
            try:
                self.attempt(start, f"starting {doing}")
            finally:
                if worker.ident is None:  # it never ran, and will not end by itself
                    self._end()

    def between(self, work: Callable[[], object], doing: str) -> None:
        """:meth:`attempt` of something quick; does nothing while a work is running."""
        with self._turn:
            if self._worker is None:
                self.attempt(work, doing)

    def cancel(self) -> None:
        """Asks the running work to stop."""
        self._cancelled.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until no work is running, for at most ``seconds``. Returns whether none is running."""
        worker = self._worker
        if worker is not None:
            worker.join(seconds)
        return worker is None or not worker.is_alive()

    def _end(self) -> None:
        with self._turn:
            try:
                self.busy(False)
            finally:
                self._worker = None


class Panel(Attempts, ipywidgets.VBox):
    """A column of ipywidgets with a status line (``status``) and a static rendering."""

    def __init__(self, children):
        self.status = ipywidgets.HTML("")
        super().__init__([*children, self.status])

    def say(self, text: str, ok: bool = True) -> None:
        self.status.value = html.escape(text, quote=False)

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)  # a dict, or None if widgets cannot be displayed
        return None if bundle is None else {**bundle, **self.static_bundle()}


@contextlib.contextmanager
def from_the_browser() -> Iterator[None]:
    """Around what a message from the browser calls: no cell is there to be stopped, so an interruption ends here.
    The status has named it already."""
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        yield


class Widget(Attempts, anywidget.AnyWidget):
    """An anywidget with the shared style sheet, a status line (``message``) and a static rendering."""

    _css = STATIC / "widgets.css"
    FROM_BROWSER: frozenset[str] = frozenset()  # the traits that the front end may set; no others
    message = traitlets.Unicode("").tag(sync=True)
    message_ok = traitlets.Bool(True).tag(sync=True)
    said = traitlets.Int(0).tag(sync=True)  # counts messages: the same text twice is two messages

    def say(self, text: str, ok: bool = True) -> None:
        text = one_line(text)
        if not text and not self.message:  # nothing to clear: what the front end shows of its own stays
            self.message_ok = ok
            return
        with self._works, self.hold_sync():
            self.message, self.message_ok, self.said = text, ok, self.said + 1

    def set_state(self, sync_data: dict) -> None:
        """Called with the values that the browser changed.

        Values are checked before they are kept. If one is refused, all stay as they were, ``message`` says why, and
        the browser gets Python's values back.
        """
        own = {name: value for name, value in sync_data.items() if name in self.FROM_BROWSER | {"_view_count"}}
        foreign = [n for n, value in sync_data.items() if n not in own and n in self.keys and self._differs(n, value)]

        def work() -> None:
            super(Widget, self).set_state(own)
            if foreign:
                raise S2FError(f"the browser may not change {', '.join(foreign)}: set it in Python.")

        with from_the_browser():
            if not self.attempt(work, "reading the browser's message"):
                self.send_state([name for name in sync_data if name in self.keys])

    def _differs(self, name: str, value: object) -> bool:
        try:
            return bool(self.get_state([name])[name] != value)
        except Exception:
            return True

    def _repr_mimebundle_(self, **kwargs):
        """Adds the static PNG to the notebook's stored output, for pages without a front end."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return {**data, **self.static_bundle()}, metadata
