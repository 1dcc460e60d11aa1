"""A machine's screen and keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError, SpecError
from pytest_vmsnap.machine.commands import Commands

if TYPE_CHECKING:
    from os import PathLike

    from pytest_vmsnap.machine.body import Body

# QEMU's names of keys (QMP reference, QKeyCode), on a keyboard of the United States
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


def screenshot(body: Body, target: Path) -> Path:
    """Write what the screen of a machine shows to `target`, as PNG; raises as `Screen.screenshot` does."""
    __tracebackhide__ = True
    if not body.has_screen:
        raise SpecError("this machine has no screen", hint="mark the test with vm(screen=True)")
    try:
        from PIL import Image  # an extra: large, and few need it
    except ImportError as error:
        raise HostError("a screenshot needs Pillow", hint="pip install 'pytest-vmsnap[screenshot]'") from error
    raw = body.scratch("screen.ppm")
    try:
        body.domain.qmp("screendump", filename=str(raw))
        with Image.open(raw) as image:
            image.save(target, format="PNG")
    finally:
        raw.unlink(missing_ok=True)
    return target


class Screen(Commands):
    """What is seen and typed at the machine itself."""

    def screenshot(self, path: str | PathLike[str]) -> Path:
        """Write what the screen shows to `path`, as PNG; returns the path.

        Needs a machine with a screen (``vm(screen=True)``, else `SpecError`) and the extra ``screenshot``
        (`HostError` says how to install it).
        """
        __tracebackhide__ = True
        self._expect_usable()
        return screenshot(self._body, Path(path))

    def send_key(self, key: str) -> None:
        """Press a key, or several at once: QEMU's names with a dash between them, as ``ctrl-alt-delete``.

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
                    hint="QMP reference, QKeyCode: e.g. ret, esc, tab, f1, up, ctrl, alt, delete",
                ) from error
            raise

    def send_chars(self, text: str) -> None:
        """Type a text on a keyboard of the United States; raises `SpecError` for what is not on it."""
        __tracebackhide__ = True
        self._expect_usable()
        strokes = [_keys(character) for character in text]
        for keys in strokes:
            self._press(keys)

    def _press(self, codes: list[str]) -> None:
        keys = [{"type": "qcode", "data": code} for code in codes]
        self._body.domain.qmp("send-key", {"hold-time": 20}, keys=keys)


def _keys(character: str) -> list[str]:
    if character in PLAIN:
        return [PLAIN[character]]
    if character in SHIFTED:
        return ["shift", PLAIN[SHIFTED[character]]]
    if character.lower() in PLAIN and character.isascii():
        return ["shift", character.lower()]
    raise SpecError(f"send_chars: {character!r} is not on the keyboard of the United States")
