from __future__ import annotations

from xml.etree import ElementTree

from pytest_vmsnap.host import permissions

CAPABILITIES = """
<capabilities><host>
  <secmodel><model>apparmor</model><doi>0</doi></secmodel>
  <secmodel><model>dac</model><doi>0</doi>
    <baselabel type='kvm'>+64055:+107</baselabel><baselabel type='qemu'>+64055:+107</baselabel>
  </secmodel>
</host></capabilities>
"""


def test_the_user_that_qemu_runs_as_is_read_from_libvirts_capabilities() -> None:
    assert permissions.qemu_user(ElementTree.fromstring(CAPABILITIES)) == (64055, 107)
    assert permissions.qemu_user(ElementTree.fromstring("<capabilities><host/></capabilities>")) is None


def test_other_security_models_are_named() -> None:
    assert permissions.other_security_models(ElementTree.fromstring(CAPABILITIES)) == ("apparmor",)
