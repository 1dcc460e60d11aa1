"""What a state's key depends on."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("paramiko")

from pytest_vmsnap.guest import ChannelFactory
from pytest_vmsnap.guest.ssh import SshLogin
from pytest_vmsnap.states.cache_key import login_parts

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.model import ChannelName


def parts(channel: ChannelName, directory: Path, given: Path | None = None) -> list[str]:
    return login_parts(ChannelFactory(channel=channel, ssh=SshLogin(directory=directory, given=given)))


def test_a_state_of_the_ssh_channel_depends_on_the_key_that_its_guest_lets_in(tmp_path: Path) -> None:
    one, other = parts("ssh", tmp_path / "one"), parts("ssh", tmp_path / "other")
    assert one != other
    assert one == parts("ssh", tmp_path / "one")


def test_a_given_key_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    first = SshLogin(directory=tmp_path).key_file()
    second = shutil.copy(first, tmp_path / "copy")
    assert parts("ssh", tmp_path / "a", first) == parts("ssh", tmp_path / "b", second)


@pytest.mark.parametrize("channel", ["shell", "agent"])
def test_states_of_other_channels_depend_on_no_key(tmp_path: Path, channel: ChannelName) -> None:
    assert parts(channel, tmp_path / "one") == parts(channel, tmp_path / "other") == []
