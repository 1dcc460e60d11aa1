"""Wrong markers are usage errors at collection, which show the signature."""

from __future__ import annotations

import pytest

VM_SIGNATURE = (
    "vm(*, image, image_sha256, packages, kernel, initrd, cmdline, modules, memory, cpus, network, disks, "
    "screen, firmware, tpm)"
)


def collected(project: pytest.Pytester, source: str, *args: str) -> pytest.RunResult:
    project.makepyfile(test_it=f"import pytest\n\n{source}")
    return project.runpytest_subprocess("--strict-markers", "--collect-only", "-q", *args)


def refusal(project: pytest.Pytester, source: str) -> str:
    result = collected(project, source)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "Traceback" not in str(result.stdout) + str(result.stderr)
    return "\n".join(result.errlines)


@pytest.mark.parametrize(
    ("marker", "words", "signature"),
    [
        ("vm_fresh(1)", "vm_fresh(1): too many positional arguments", "vm_fresh()"),
        ("vm_readonly(why='x')", "got an unexpected keyword argument 'why'", "vm_readonly()"),
        ("vm(1024)", "vm(1024): too many positional arguments", VM_SIGNATURE),
        ("vm(memroy=1024)", "got an unexpected keyword argument 'memroy'", VM_SIGNATURE),
        ("vm(memory='2G')", "memory='2G': must be a whole number of MiB", VM_SIGNATURE),
        ("vm(network='bridge')", "must be one of user, isolated, none", VM_SIGNATURE),
        ("vm(disks=[{'bus': 'nvme'}])", "a disk has no field 'bus'", VM_SIGNATURE),
    ],
)
def test_a_wrong_argument_shows_the_test_and_the_signature(
    project: pytest.Pytester, marker: str, words: str, signature: str
) -> None:
    message = refusal(project, f"@pytest.mark.{marker}\ndef test_one(vm): pass")
    assert message.startswith("ERROR: test_it.py::test_one: ")
    assert words in message
    assert f"the signature of the marker is {signature}" in message


def test_a_wrong_argument_on_a_module_is_found(project: pytest.Pytester) -> None:
    message = refusal(project, "pytestmark = pytest.mark.vm(cpus=0)\ndef test_one(vm_module): pass")
    assert "cpus=0: must be a whole number of processors from 1 to 255" in message


def test_fresh_and_readonly_on_one_test_are_refused(project: pytest.Pytester) -> None:
    source = """
@pytest.mark.vm_readonly
class TestAll:
    @pytest.mark.vm_fresh
    def test_one(self, vm): pass
"""
    assert "test_it.py::TestAll::test_one: a test cannot have both vm_fresh and vm_readonly" in refusal(
        project, source
    )


@pytest.mark.parametrize("fixture", ["vm_class", "vm_module", "vm_session"])
def test_fresh_on_a_test_with_a_shared_machine_alone_is_refused(project: pytest.Pytester, fixture: str) -> None:
    source = f"@pytest.mark.vm_fresh\ndef test_one({fixture}): pass"
    assert f"vm_fresh applies to the fixture vm, but this test uses only {fixture}" in refusal(project, source)


def test_a_shared_machine_that_another_fixture_brings_is_seen(project: pytest.Pytester) -> None:
    source = """
@pytest.fixture
def server(vm_module): return vm_module

@pytest.mark.vm_fresh
def test_one(server): pass
"""
    assert "this test uses only vm_module" in refusal(project, source)


@pytest.mark.parametrize("parallel", [("-n1",), ("-n2",), ("-n2", "--dist=loadfile")])
def test_a_wrong_marker_is_a_usage_error_under_xdist_too(
    project: pytest.Pytester, parallel: tuple[str, ...]
) -> None:
    pytest.importorskip("xdist")
    source = "@pytest.mark.vm(memory='2G')\ndef test_one(vm): pass\ndef test_two(): pass"
    project.makepyfile(f"import pytest\n\n{source}")
    result = project.runpytest_subprocess(*parallel)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *test_one: vm(memory='2G')*", "the signature of the marker is vm(*"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_markers_that_are_right_are_collected_and_strict_markers_know_them(project: pytest.Pytester) -> None:
    source = """
pytestmark = pytest.mark.vm(memory=1024, disks=[{"size": 64}])

@pytest.mark.vm_fresh
def test_one(vm): pass

@pytest.mark.vm_readonly()
@pytest.mark.vm(cpus=4, packages=["nginx"])
def test_two(vm): pass

@pytest.mark.vm_fresh
def test_three(vm, vm_session): pass

@pytest.mark.vm_fresh
def test_four(): pass
"""
    result = collected(project, source, "-W", "error")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*4 tests collected*"])
