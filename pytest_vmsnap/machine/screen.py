"""A machine's screen and keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError, SpecError
from pytest_vmsnap.machine.commands import Commands

if TYPE_CHECKING:
    from os import PathLike

    from pytest_vmsnap.machine.backend import Backend

# QEMU's names of keys (QMP reference, QKeyCode) on a US keyboard
PLAIN = {
    **{letter: letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789"},
    " ": "spc",
    "\n": "ret",
    "\t": "tab",
    "\b": "backspace",
    "\x1b": "esc",
    "-": "minus",
    "=": "equal",
    "[": "bracket_left",
    "]": "bracket_right",
    "\\": "backslash",
    ";": "semicolon",
    "'": "apostrophe",
    "`": "grave_accent",
    ",": "comma",
    ".": "dot",
    "/": "slash",
}
SHIFTED = dict(zip('!@#$%^&*()_+{}|:"~<>?', "1234567890-=[]\\;'`,./", strict=True))


def screenshot(backend: Backend, target: Path) -> Path:
    """Save the screen of a machine as the PNG file `target`; raises as `Screen.screenshot` does."""
    __tracebackhide__ = True
    if not backend.has_screen:
        raise SpecError("this machine has no screen", hint="mark the test with vm(screen=True)")
    try:
        from PIL import Image  # an extra, because it is large and few need it
    except ImportError as error:
        raise HostError("a screenshot needs Pillow", hint="pip install 'pytest-vmsnap[screenshot]'") from error
    raw = backend.scratch("screen.ppm")
    try:
        backend.domain.qmp("screendump", filename=str(raw))
        with Image.open(raw) as image:
            image.save(target, format="PNG")
    finally:
        raw.unlink(missing_ok=True)
    return target


class Screen(Commands):
    """The machine's display and keyboard."""

    def screenshot(self, path: str | PathLike[str]) -> Path:
        """Save the screen as a PNG file at `path`; return the path.

        Raises `SpecError` if the machine has no screen (mark the test with ``vm(screen=True)``), and
        `HostError` if the extra ``screenshot`` is not installed.
        """
        __tracebackhide__ = True
        self._expect_usable()
        return screenshot(self._backend, Path(path))

    def send_key(self, key: str) -> None:
        """Press a key, or several at once: QEMU's key names joined with dashes, such as ``ctrl-alt-delete``.

        Raises `SpecError` for a name that QEMU does not know.
        """
        __tracebackhide__ = True
        self._expect_usable()
        codes = [PLAIN.get(name, name) for name in key.split("-")] if key != "-" else ["minus"]
        try:
            self._press(codes)
        except HostError as error:
            if "QKeyCode" in error.message or "does not accept value" in error.message:
                raise SpecError(
                    f"send_key({key!r}): QEMU does not know this key",
                    hint="use QKeyCode names from the QMP reference, e.g. ret, esc, tab, f1, up, ctrl, "
                    "alt, delete",
                ) from error
            raise

    def send_chars(self, text: str) -> None:
        """Type text on a US keyboard; raises `SpecError` for a character that the keyboard does not have."""
        __tracebackhide__ = True
        self._expect_usable()
        strokes = [_keys(character) for character in text]
        for keys in strokes:
            self._press(keys)

    def _press(self, codes: list[str]) -> None:
        keys = [{"type": "qcode", "data": code} for code in codes]
        self._backend.domain.qmp("send-key", {"hold-time": 20}, keys=keys)


def _keys(character: str) -> list[str]:
    if character in PLAIN:
        return [PLAIN[character]]
    if character in SHIFTED:
        return ["shift", PLAIN[SHIFTED[character]]]
    if character.lower() in PLAIN and character.isascii():
        return ["shift", character.lower()]
    raise SpecError(f"send_chars: {character!r} is not on a US keyboard")
