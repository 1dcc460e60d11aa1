"""Each option by command line, environment and configuration file, in every form that pytest has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.model import Shard
from pytest_vmsnap.options import BY_NAME, OPTIONS
from pytest_vmsnap.session import SETTINGS_KEY

if TYPE_CHECKING:
    from pytest_vmsnap.model import Settings

DIGEST = "0123456789abcdef" * 4
needs_native = pytest.mark.skipif(pytest.version_tuple < (9, 0), reason="the native table came with pytest 9")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An option as it is written, as TOML's own type where that is another, and what it comes to.

    `beside` are the options that it goes with.
    """

    name: str
    text: str
    value: object
    native: str | None = None
    beside: dict[str, str] = field(default_factory=dict)


SAMPLES = [
    Sample(name="image", text="debian:bookworm", value="debian:bookworm"),
    Sample(
        name="image_sha256",
        text=DIGEST,
        value=DIGEST,
        beside={"image": "https://example.org/disk.qcow2"},
    ),
    Sample(name="image_mirror", text="https://mirror.example.org", value="https://mirror.example.org"),
    Sample(name="packages", text="nginx,curl", value=("nginx", "curl"), native='["nginx", "curl"]'),
    Sample(name="kernel", text="/boot/vmlinuz", value="/boot/vmlinuz", beside={"image": "/disk.raw"}),
    Sample(
        name="initrd",
        text="/boot/initrd",
        value="/boot/initrd",
        beside={"image": "/disk.raw", "kernel": "/boot/vmlinuz"},
    ),
    Sample(
        name="cmdline",
        text="quiet 50%",
        value="quiet 50%",
        beside={"image": "/disk.raw", "kernel": "/boot/vmlinuz"},
    ),
    Sample(
        name="modules",
        text="/modules",
        value="/modules",
        beside={"image": "/disk.raw", "kernel": "/boot/vmlinuz"},
    ),
    Sample(name="memory", text="1024", value=1024, native="1024"),
    Sample(name="memory", text="2G", value=2048),
    Sample(name="cpus", text="4", value=4, native="4"),
    Sample(name="network", text="isolated", value="isolated"),
    Sample(name="firmware", text="uefi", value="uefi"),
    Sample(name="cpu", text="x86-64-v3", value="x86-64-v3"),
    Sample(name="registry", text="oci://registry.example.org/team", value="oci://registry.example.org/team"),
    Sample(name="system_store", text="/srv/states", value=Path("/srv/states")),
    Sample(name="push", text="", value=True, beside={"registry": "oci://registry.example.org/team"}),
    Sample(name="shard", text="2/3", value=Shard(index=2, count=3)),
    Sample(name="uri", text="qemu:///session", value="qemu:///session"),
    Sample(name="accel", text="tcg", value="tcg"),
    Sample(name="channel", text="agent", value="agent"),
    Sample(name="revert", text="on-failure", value="on-failure"),
    Sample(name="missing", text="skip", value="skip"),
    Sample(name="standby", text="3", value=3, native="3"),
    Sample(name="standby", text="auto", value=None),
    Sample(name="entropy", text="warn", value="warn"),
    Sample(name="verify", text="nonce", value="nonce"),
    Sample(name="timeout", text="90.5", value=90.5, native="90.5"),
    Sample(name="timeout", text="90", value=90.0, native="90"),
    Sample(name="timeout_factor", text="3", value=3.0, native="3"),
    Sample(name="order", text="none", value="none"),
    Sample(name="output_limit", text="1G", value=1024),
    Sample(name="store_limit", text="30G", value=30720),
    Sample(name="store_limit", text="300", value=300, native="300"),
    Sample(name="refresh", text="", value=True),
    Sample(name="refresh_state", text="base", value=("base",)),
    Sample(name="store", text="/var/cache/vmsnap", value=Path("/var/cache/vmsnap")),
    Sample(name="console_user", text="root", value="root"),
    Sample(name="console_password", text="pass word", value="pass word", beside={"console_user": "root"}),
    Sample(name="ssh_user", text="admin", value="admin"),
    Sample(name="ssh_key", text="/home/me/key", value=Path("/home/me/key")),
    Sample(name="artifacts", text="all", value="all"),
    Sample(name="artifacts_dir", text="/tmp/kept", value=Path("/tmp/kept")),
    Sample(name="keep", text="failed", value="failed"),
    Sample(name="keep", text="2", value=2),
    Sample(name="keep_limit", text="2G", value=2048),
    Sample(name="keep_days", text="3", value=3, native="3"),
    Sample(name="pause", text="", value=True),
    Sample(name="timings", text="", value=True),
]
every_option = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.name}={sample.text}")
every_option_elsewhere = pytest.mark.parametrize(
    "sample",
    [sample for sample in SAMPLES if not BY_NAME[sample.name].command_line_only],
    ids=lambda sample: f"{sample.name}={sample.text}",
)


def settings_of(project: pytest.Pytester, *args: str) -> Settings:
    return project.parseconfigure(*args).stash[SETTINGS_KEY]


def expect(settings: Settings, sample: Sample, origin: str) -> None:
    assert getattr(settings, sample.name) == sample.value
    assert settings.origins[sample.name] == origin


def lines(sample: Sample, *, quoted: bool) -> str:
    """The sample and what it goes with, as lines of a configuration file."""
    quote = '"' if quoted else ""
    written = {name: f"{quote}{text}{quote}" for name, text in sample.beside.items()}
    written[sample.name] = (quoted and sample.native) or f"{quote}{sample.text}{quote}"
    return "\n".join(f"vmsnap_{name} = {text}" for name, text in written.items())


def test_every_option_has_a_sample() -> None:
    assert {sample.name for sample in SAMPLES} == {option.name for option in OPTIONS}


@every_option
def test_an_option_is_read_from_the_command_line(project: pytest.Pytester, sample: Sample) -> None:
    written = sample.beside | {sample.name: sample.text}
    args = [
        BY_NAME[name].flag if BY_NAME[name].switch else f"{BY_NAME[name].flag}={text}"
        for name, text in written.items()
    ]
    expect(settings_of(project, *args), sample, "command line")


@every_option_elsewhere
def test_an_option_is_read_from_the_environment(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, sample: Sample
) -> None:
    for name, text in (sample.beside | {sample.name: sample.text}).items():
        monkeypatch.setenv(BY_NAME[name].variable, text)
    expect(settings_of(project), sample, "environment")


@every_option_elsewhere
def test_an_option_is_read_from_pytest_ini(project: pytest.Pytester, sample: Sample) -> None:
    project.makefile(".ini", pytest=f"[pytest]\n{lines(sample, quoted=False)}")
    expect(settings_of(project), sample, "ini")


@every_option_elsewhere
def test_an_option_is_read_from_ini_options_in_pyproject(project: pytest.Pytester, sample: Sample) -> None:
    project.makepyprojecttoml(f"[tool.pytest.ini_options]\n{lines(sample, quoted=True)}")
    expect(settings_of(project), sample, "ini")


@needs_native
@every_option_elsewhere
def test_an_option_is_read_from_the_native_table_in_pyproject(project: pytest.Pytester, sample: Sample) -> None:
    project.makepyprojecttoml(f"[tool.pytest]\n{lines(sample, quoted=True)}")
    expect(settings_of(project), sample, "ini")


@needs_native
@every_option_elsewhere
def test_an_option_is_read_from_pytest_toml(project: pytest.Pytester, sample: Sample) -> None:
    project.makefile(".toml", pytest=f"[pytest]\n{lines(sample, quoted=True)}")
    expect(settings_of(project), sample, "ini")


STRICT = """
[tool.pytest]
strict = true
filterwarnings = ["error"]
vmsnap_image = "debian:trixie"
vmsnap_packages = ["nginx", "curl"]
vmsnap_memory = "1G"
vmsnap_cpus = 2
vmsnap_standby = 0
vmsnap_timeout = 90.5
vmsnap_timeout_factor = 3
vmsnap_revert = "marked"
vmsnap_store = "store"
vmsnap_output_limit = 8
vmsnap_store_limit = 300
"""


@needs_native
def test_a_strict_project_with_the_native_table_has_no_warning(project: pytest.Pytester) -> None:
    project.makepyprojecttoml(STRICT)
    project.makepyfile(
        "import pytest\n@pytest.mark.vm_fresh\n@pytest.mark.vm(memory=256)\n@pytest.mark.skip\n"
        "def test_one(vm): ...\ndef test_two(): ..."
    )
    result = project.runpytest_subprocess("--vmsnap-uri=test:///none")
    assert result.parseoutcomes() == {"skipped": 1, "passed": 1}
    assert not result.stderr.lines


@needs_native
def test_a_list_in_the_native_table_may_be_a_text_too(project: pytest.Pytester) -> None:
    project.makepyprojecttoml('[tool.pytest]\nvmsnap_packages = "nginx, curl"')
    assert settings_of(project).packages == ("nginx", "curl")


@needs_native
def test_an_override_comes_before_the_native_table(project: pytest.Pytester) -> None:
    project.makepyprojecttoml("[tool.pytest]\nvmsnap_memory = 1024")
    assert settings_of(project, "-o", "vmsnap_memory=2G").memory == 2048


@needs_native
@pytest.mark.parametrize("value", ["true", "1.5", "[1024]", "1979-05-27", "{a = 1}"])
def test_a_value_of_another_type_in_the_native_table_is_a_usage_error(
    project: pytest.Pytester, value: str
) -> None:
    project.makepyprojecttoml(f"[tool.pytest]\nvmsnap_memory = {value}")
    with pytest.raises(pytest.UsageError, match=r"^vmsnap_memory = .* \(configuration file\): allowed: MiB"):
        settings_of(project)


def test_a_list_in_pytest_ini_has_lines(project: pytest.Pytester) -> None:
    project.makefile(".ini", pytest="[pytest]\nvmsnap_packages =\n    nginx\n    curl, jq\n")
    assert settings_of(project).packages == ("nginx", "curl", "jq")


def test_a_list_on_the_command_line_may_be_repeated(project: pytest.Pytester) -> None:
    args = ("--vmsnap-packages=nginx,curl", "--vmsnap-packages", "jq")
    assert settings_of(project, *args).packages == ("nginx", "curl", "jq")
    args = ("--vmsnap-refresh-state=installed", "--vmsnap-refresh-state", "configured")
    assert settings_of(project, *args).refresh_state == ("installed", "configured")


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makefile(".ini", pytest="[pytest]\nvmsnap_cpus = 3\nvmsnap_memory = 600\nvmsnap_timeout = 5")
    monkeypatch.setenv("VMSNAP_CPUS", "4")
    monkeypatch.setenv("VMSNAP_MEMORY", "700")
    settings = settings_of(project, "--vmsnap-cpus=5")
    assert (settings.cpus, settings.memory, settings.timeout) == (5, 700, 5.0)


def test_a_path_in_the_file_is_relative_to_the_project_and_one_on_the_command_line_to_where_it_is_said(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makefile(".ini", pytest="[pytest]\nvmsnap_image = disk.raw\nvmsnap_store = store")
    monkeypatch.chdir(project.mkdir("sub"))
    settings = settings_of(project, "--vmsnap-store=store")
    assert settings.root == project.path
    assert settings.image == str(project.path / "disk.raw")
    assert settings.store == project.path / "sub" / "store"


def test_an_option_never_swallows_the_path_after_it(project: pytest.Pytester) -> None:
    project.makepyfile(test_one="def test_one(): pass", test_two="def test_two(): pass")
    for option in OPTIONS:
        sample = next(sample for sample in SAMPLES if sample.name == option.name)
        beside = [f"{BY_NAME[name].flag}={text}" for name, text in sample.beside.items()]
        value = [] if option.switch else [sample.text]
        config = project.parseconfig(*beside, option.flag, *value, "test_one.py")
        assert config.args == ["test_one.py"]


WRONG: list[tuple[str, str]] = [
    ("image", "gentoo:23.0"),
    ("image", "https://example.org/disk.qcow2"),
    ("image", "none"),
    ("image_sha256", "abc"),
    ("image_sha256", DIGEST),
    ("packages", "nginx curl"),
    ("initrd", "initrd"),
    ("modules", "modules"),
    ("firmware", "coreboot"),
    ("image_mirror", "mirror"),
    ("memory", "lots"),
    ("memory", "16"),
    ("cpus", "0"),
    ("network", "bridge"),
    ("accel", "hvf"),
    ("revert", "never"),
    ("missing", "ignore"),
    ("standby", "many"),
    ("entropy", "ignore"),
    ("verify", "all"),
    ("order", "random"),
    ("output_limit", "0"),
    ("store_limit", "0"),
    ("timeout", "0"),
    ("timeout_factor", "-1"),
    ("console_password", "secret"),
]


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_value_is_a_usage_error_that_names_the_option_as_written(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    option = BY_NAME[name]
    with pytest.raises(pytest.UsageError) as caught:
        settings_of(project, f"{option.flag}={text}")
    text_shown = "***" if option.secret else text
    assert str(caught.value).startswith(f"{option.flag}={text_shown}")
    monkeypatch.setenv(option.variable, text)
    with pytest.raises(pytest.UsageError) as caught:
        settings_of(project)
    assert str(caught.value).startswith(f"{option.variable}={text_shown}")
    monkeypatch.delenv(option.variable)
    project.makefile(".ini", pytest=f"[pytest]\n{option.key} = {text}")
    with pytest.raises(pytest.UsageError) as caught:
        settings_of(project)
    assert str(caught.value).startswith(f"{option.key} = {text_shown} (configuration file)")


def test_a_usage_error_is_shown_without_a_traceback(project: pytest.Pytester) -> None:
    project.makepyfile("def test_one(): pass")
    result = project.runpytest_subprocess("--vmsnap-memory=lots")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --vmsnap-memory=lots: allowed: MiB, or a number with a unit*"])
    assert "Traceback" not in str(result.stderr) + str(result.stdout)


def test_a_slip_in_a_variables_name_is_a_usage_error(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMSNAP_MEMROY", "1024")
    with pytest.raises(pytest.UsageError, match=r"VMSNAP_MEMROY.*did you mean VMSNAP_MEMORY"):
        settings_of(project)


def test_help_is_given_to_who_has_a_wrong_value_too(project: pytest.Pytester) -> None:
    result = project.runpytest("--help", "--vmsnap-memory=lots")
    assert result.ret == pytest.ExitCode.OK
    for option in OPTIONS:
        result.stdout.fnmatch_lines([f"*{option.flag} *" if option.switch else f"*{option.flag}=*"])
        if not option.command_line_only:
            result.stdout.fnmatch_lines([f"*{option.key} (*"])


def test_the_options_pass_to_the_workers_of_xdist(project: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    project.makepyfile(
        """
        from pytest_vmsnap.session import SETTINGS_KEY

        def test_one(pytestconfig):
            settings = pytestconfig.stash[SETTINGS_KEY]
            assert (settings.memory, settings.packages) == (2048, ("nginx", "curl"))
        """
    )
    args = ("--vmsnap-memory=2G", "--vmsnap-packages=nginx", "--vmsnap-packages=curl", "-n1")
    project.runpytest_subprocess(*args).assert_outcomes(passed=1)
