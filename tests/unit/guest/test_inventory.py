"""What changed between two listings of a guest."""

from __future__ import annotations

from pytest_vmsnap.guest.inventory import MOST_OF_A_KIND, Inventory, parsed

TCP = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2488 1\0"
CONNECTED = (
    "   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 2489 1\0"
)
TCP6 = (
    "   0: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000\0"
)


def test_a_listing_has_its_kinds_and_things() -> None:
    found = parsed("\1mount\0/\tdev ext4 rw\0\1unit\0\1sysctl\0/proc/sys/vm/a\t1\0/proc/sys/vm/a\t2\0").found
    assert found == {"mount": {"/": "dev ext4 rw"}, "sysctl": {"vm.a": "1\n2"}}


def test_a_name_may_have_an_end_of_line_in_it() -> None:
    assert parsed("\1file\0/a\nb\tf 644\0").found == {"file": {"/a\nb": "f 644"}}


def test_ports_are_those_that_are_listened_on() -> None:
    found = parsed(f"\1tcp\0  sl  local_address\0{TCP}{CONNECTED}\1tcp6\0{TCP6}\1udp\0").found
    assert found == {"port": {"8080/tcp on 127.0.0.1": "listens", "22/tcp on ::1": "listens"}}


def test_each_change_is_a_line() -> None:
    before = Inventory({"file": {"/a": "1", "/b": "1", "/c": "1"}, "sysctl": {"vm.a": "0"}})
    after = Inventory(
        {"file": {"/a": "1", "/b": "2", "/d": "1"}, "sysctl": {"vm.a": "1"}, "mount": {"/mnt": ""}}
    )
    assert before.changes_to(after) == [
        "file /b: changed",
        "file /c: gone",
        "file /d: new",
        "sysctl vm.a: 0 -> 1",
        "mount /mnt: new",
    ]
    assert before.changes_to(before) == []


def test_many_changes_of_a_kind_are_counted() -> None:
    before, after = Inventory({"file": {}}), Inventory({"file": {f"/{number:03}": "" for number in range(50)}})
    lines = before.changes_to(after)
    assert len(lines) == MOST_OF_A_KIND + 1
    assert lines[-1] == "file: 30 more"
