"""The order of tests, as pytest collects and runs them.

Their machines are stand-ins; what runs is silent, since the header would look for a host.
"""

from __future__ import annotations

import pytest

CONFTEST = """
import pytest
from pytest_vmsnap import state

@state
def installed(vm): pass

@state(parent=installed)
def configured(vm): pass

@pytest.fixture
def vm(): pass

@pytest.fixture(scope="module")
def vm_module(): pass
"""
MIXED = """
import pytest

@pytest.mark.vm_state("configured")
def test_one(vm): pass

def test_two(vm): pass

@pytest.mark.vm_state("configured")
def test_three(vm): pass

def test_plain(): pass

@pytest.mark.vm_state("installed")
def test_four(vm): pass

def test_five(vm): pass
"""
ORDERED = ["test_two", "test_five", "test_four", "test_one", "test_three", "test_plain"]


@pytest.fixture(autouse=True)
def _stand_ins(project: pytest.Pytester) -> None:
    project.makeconftest(CONFTEST)


def names(project: pytest.Pytester, *args: str) -> list[str]:
    """The tests as they are collected, by their names."""
    result = project.runpytest_subprocess("--collect-only", "-q", *args)
    assert result.ret == pytest.ExitCode.OK
    return [line.rpartition("::")[2] for line in result.outlines if "::" in line]


def test_tests_of_one_state_come_together_parents_first(project: pytest.Pytester) -> None:
    project.makepyfile(MIXED)
    assert names(project) == ORDERED


def test_pytest_s_order_is_left_if_that_is_asked_for(project: pytest.Pytester) -> None:
    project.makepyfile(MIXED)
    as_written = ["test_one", "test_two", "test_three", "test_plain", "test_four", "test_five"]
    assert names(project, "--vmsnap-order=none") == as_written
    assert names(project, "--stepwise") == as_written


def test_what_is_selected_is_ordered(project: pytest.Pytester) -> None:
    project.makepyfile(MIXED)
    assert names(project, "-k", "one or three or four") == ["test_four", "test_one", "test_three"]


def test_tests_that_another_plugin_shuffles_are_ordered_all_the_same(project: pytest.Pytester) -> None:
    project.makepyfile(
        shuffler="import pytest\n\ndef pytest_collection_modifyitems(items): items.reverse()", test_it=MIXED
    )
    project.syspathinsert()
    shuffled = names(project, "-p", "shuffler")
    assert shuffled == ["test_five", "test_two", "test_four", "test_plain", "test_three", "test_one"]


def test_a_class_with_a_fixture_of_its_own_moves_as_one(project: pytest.Pytester) -> None:
    source = """
import pytest

@pytest.mark.vm_state("installed")
def test_one(vm): pass

class TestSetUp:
    @classmethod
    def setup_class(cls): pass
    def test_two(self, vm): pass
    @pytest.mark.vm_state("installed")
    def test_three(self, vm): pass

class TestFree:
    @pytest.mark.vm_state("installed")
    def test_four(self, vm): pass
    def test_five(self, vm): pass
"""
    project.makepyfile(source)
    assert names(project) == ["test_two", "test_three", "test_five", "test_one", "test_four"]


@pytest.mark.parametrize(
    "shared",
    [
        "def setup_module(): pass",
        "@pytest.fixture(scope='module', autouse=True)\ndef server(): pass",
        "pytestmark = pytest.mark.usefixtures('vm_module')",
    ],
)
def test_a_module_with_a_fixture_of_its_own_moves_as_one(project: pytest.Pytester, shared: str) -> None:
    source = f"""
import pytest
{shared}

@pytest.mark.vm_state("installed")
def test_one(vm): pass
def test_two(vm): pass
@pytest.mark.vm_state("installed")
def test_three(vm): pass
"""
    project.makepyfile(test_a=source, test_b="def test_base(vm): pass")
    assert names(project) == ["test_base", "test_one", "test_two", "test_three"]


def test_a_package_with_a_fixture_of_its_own_moves_as_one(project: pytest.Pytester) -> None:
    project.mkpydir("inner")
    (project.path / "inner" / "conftest.py").write_text(
        "import pytest\n@pytest.fixture(scope='package', autouse=True)\ndef server(): pass"
    )
    for name, state in (("a", "installed"), ("b", "base")):
        source = f"import pytest\n@pytest.mark.vm_state({state!r})\ndef test_{name}(vm): pass"
        (project.path / "inner" / f"test_{name}.py").write_text(source)
    project.makepyfile(test_outer="def test_base(vm): pass")
    assert names(project, "inner", "test_outer.py") == ["test_base", "test_a", "test_b"]


NOISY = """
import pytest

@pytest.fixture(scope="session", params=["pg", "my"])
def db(request):
    print(f"made {request.param}")

@pytest.fixture(scope="module")
def server():
    print("made server")

@pytest.mark.vm_state("installed")
def test_one(vm, db, server): pass
def test_two(vm, db): pass
def test_plain(): pass
def test_three(db, server): pass
"""


def test_no_fixture_is_made_more_often_than_pytest_would(project: pytest.Pytester) -> None:
    project.makeconftest(CONFTEST + NOISY.partition("@pytest.mark")[0])
    tests = "import pytest\n@pytest.mark" + NOISY.partition("@pytest.mark")[2]
    project.makepyfile(test_a=tests, test_b=tests)

    def made(*args: str) -> list[str]:
        result = project.runpytest_inprocess("-sqq", *args)
        assert result.ret == pytest.ExitCode.OK
        return [line.lstrip(".") for line in result.outlines if line.lstrip(".").startswith("made")]

    assert len(made()) <= len(made("--vmsnap-order=none"))
    assert [name for name in made() if "server" not in name] == ["made pg", "made my"]


def test_a_spec_that_is_parametrised_is_run_through_one_after_another(project: pytest.Pytester) -> None:
    project.makepyfile(
        "import pytest\n@pytest.fixture(scope='session', params=['small', 'large'])\n"
        "def vm_spec(request): return request.param\n"
        "@pytest.fixture\ndef vm(vm_spec): pass\n"
        "@pytest.mark.vm_state('installed')\ndef test_one(vm): pass\n"
        "def test_two(vm): pass\ndef test_plain(): pass"
    )
    assert names(project) == [
        "test_two[small]",
        "test_one[small]",
        "test_two[large]",
        "test_plain",
        "test_one[large]",
    ]


def test_the_tests_that_failed_last_are_ordered(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.vm_state("installed")
        def test_one(vm): assert False
        def test_two(vm): pass
        def test_three(vm): assert False
        """
    )
    assert project.runpytest_subprocess("-qq").ret == pytest.ExitCode.TESTS_FAILED
    assert names(project, "--lf") == ["test_three", "test_one"]


def test_every_worker_of_xdist_collects_the_same(project: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    project.makepyfile(test_a=MIXED, test_b="def test_b(): pass")
    result = project.runpytest_subprocess("-n2", "-qq")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["....... *"])


def test_in_random_order_those_of_one_state_stay_together_and_a_seed_gives_the_same_again(
    project: pytest.Pytester,
) -> None:
    pytest.importorskip("pytest_randomly")
    project.makepyfile(MIXED)
    states = {"test_two": "base", "test_five": "base", "test_four": "installed"}
    states |= {"test_one": "configured", "test_three": "configured"}
    seen = [names(project, "-p", "randomly", f"--randomly-seed={seed}") for seed in (1, 2, 3, 3)]
    assert seen[2] == seen[3]
    assert len({tuple(order) for order in seen}) > 1
    for order in seen:
        assert sorted(order) == sorted(ORDERED)
        found = [states[name] for name in order if name in states]
        assert found == ["base", "base", "installed", "configured", "configured"]


FAILING = """
import os, pytest

def may_pass(name): assert name in os.environ["MENDED"]

@pytest.mark.vm_state("configured")
def test_one(vm): pass

def test_two(vm): may_pass("two")

@pytest.mark.vm_state("installed")
def test_three(vm): may_pass("three")

def test_four(vm): pass
"""


def test_what_pytest_selects_of_an_earlier_run_is_run(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makepyfile(test_a=FAILING)

    def ran(mended: str, *args: str) -> str:
        monkeypatch.setenv("MENDED", mended)
        # no host: libvirt's driver would stay open in this process, with the directory of this run
        result = project.runpytest_inprocess("-v", "--vmsnap-uri=test:///none", *args)
        ends = ("PASSED", "FAILED")
        lines = [line.split() for line in result.outlines if line.split()[1:2] and line.split()[1] in ends]
        return " ".join(words[0].rpartition("::test_")[2] for words in lines)

    assert ran("", "-x") == "two"
    assert ran("", "--lf") == "two"
    assert ran("", "--ff") == "two four three one"
    assert ran("two", "--lf") == "two three"
    assert ran("two", "--ff", "-x") == "three"
    assert ran("", "--sw") == "one two"
    assert ran("", "--sw", "--sw-skip") == "two three"
    assert ran("two three", "--sw") == "three four"
    project.makepyfile(test_b="def test_new(vm): pass")
    assert ran("two three", "--nf") == "new two four three one"
