"""The table of options, and its reader."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest

from pytest_vmsnap.model import Settings
from pytest_vmsnap.options import (
    BY_NAME,
    OPTIONS,
    OptionError,
    changed,
    native_table,
    resolve,
    unknown_variables,
)
from pytest_vmsnap.options.values import sha256, size, texts

ROOT = Path("/project")
CWD = Path("/project/sub")
ADDRESS = "https://example.org/disk.qcow2"
DIGEST = "0123456789abcdef" * 4


def read(
    command_line: dict[str, object] | None = None,
    environment: dict[str, str] | None = None,
    ini: dict[str, object] | None = None,
) -> Settings:
    return resolve(command_line or {}, environment or {}, ini or {}, ROOT, cwd=CWD)


def refusal(
    command_line: dict[str, object] | None = None,
    environment: dict[str, str] | None = None,
    ini: dict[str, object] | None = None,
) -> str:
    with pytest.raises(OptionError) as caught:
        read(command_line, environment, ini)
    return str(caught.value)


def test_every_option_is_a_field_of_the_settings_with_the_same_default() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert {option.name: option.default for option in OPTIONS} == {
        name: default for name, default in fields.items() if name not in ("root", "origins")
    }


def test_without_any_source_all_is_at_its_default() -> None:
    settings = read()
    assert settings == Settings(root=ROOT, origins={option.name: "default" for option in OPTIONS})
    assert list(changed(settings)) == []


def test_the_command_line_comes_before_the_environment_and_that_before_the_configuration_file() -> None:
    line: dict[str, object] = {"vmsnap_cpus": "8"}
    environment = {"VMSNAP_CPUS": "4", "VMSNAP_MEMORY": "1024"}
    ini: dict[str, object] = {"vmsnap_cpus": "3", "vmsnap_memory": "600", "vmsnap_network": "none"}
    settings = read(line, environment, ini)
    assert (settings.cpus, settings.memory, settings.network, settings.revert) == (8, 1024, "none", "always")
    origins = [settings.origins[name] for name in ("cpus", "memory", "network", "revert")]
    assert origins == ["command line", "environment", "ini", "default"]


def test_an_empty_variable_counts_as_not_set() -> None:
    settings = read(environment={"VMSNAP_MEMORY": "", "VMSNAP_URI": ""}, ini={"vmsnap_memory": "700"})
    assert (settings.memory, settings.uri) == (700, None)


def test_an_empty_value_on_the_command_line_takes_away_what_the_file_has() -> None:
    line: dict[str, object] = {"vmsnap_packages": [""], "vmsnap_uri": "", "vmsnap_timeout_factor": ""}
    ini: dict[str, object] = {
        "vmsnap_packages": ["nginx"],
        "vmsnap_uri": "qemu:///session",
        "vmsnap_timeout_factor": "3",
    }
    settings = read(line, ini=ini)
    assert (settings.packages, settings.uri, settings.timeout_factor) == ((), None, None)


@pytest.mark.parametrize(
    ("written", "mib"),
    [
        ("512", 512),
        (512, 512),
        ("512M", 512),
        ("2G", 2048),
        ("2g", 2048),
        ("2GB", 2048),
        ("2GiB", 2048),
        (" 2 GiB ", 2048),
        ("1T", 1 << 20),
    ],
)
def test_a_size_is_a_number_of_mib_or_has_a_unit(written: object, mib: int) -> None:
    assert size(32)(written) == mib


@pytest.mark.parametrize("written", ["", "lots", "-1", "1.5G", "2K", "2 X", "31", 31, True, 1.5, None, ["1G"]])
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        size(32)(written)


@pytest.mark.parametrize(
    ("written", "items"),
    [
        ("nginx,curl", ("nginx", "curl")),
        ("nginx\ncurl\n", ("nginx", "curl")),
        ("nginx, curl,", ("nginx", "curl")),
        (["nginx", "curl,jq"], ("nginx", "curl", "jq")),
        ("", ()),
        ([], ()),
    ],
)
def test_a_list_has_commas_or_new_lines_between_its_items(written: object, items: tuple[str, ...]) -> None:
    assert texts(written) == items


@pytest.mark.parametrize("written", ["nginx curl", 5, [5], {"nginx": 1}])
def test_what_is_no_list_of_texts_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        texts(written)


def test_a_digest_may_have_its_kind_before_it_and_capitals() -> None:
    assert sha256("sha256:" + DIGEST.upper()) == DIGEST


BAD: list[tuple[str, object]] = [
    ("image", ""),
    ("image", "gentoo:23.0"),
    ("image", "debian:"),
    ("image", "ftp://example.org/disk.qcow2"),
    ("image_sha256", "abc"),
    ("image_mirror", "mirror.example.org"),
    ("packages", "nginx curl"),
    ("kernel", 5),
    ("initrd", 5),
    ("cmdline", ["quiet"]),
    ("modules", 5),
    ("memory", "lots"),
    ("memory", "8"),
    ("cpus", "0"),
    ("cpus", "256"),
    ("cpus", "two"),
    ("network", "bridge"),
    ("firmware", "coreboot"),
    ("uri", 5),
    ("accel", "hvf"),
    ("channel", "telnet"),
    ("revert", "never"),
    ("missing", "ignore"),
    ("standby", "-1"),
    ("standby", "65"),
    ("standby", "many"),
    ("entropy", "ignore"),
    ("verify", "all"),
    ("timeout", "0"),
    ("timeout", "-1"),
    ("timeout", "nan"),
    ("timeout", "inf"),
    ("timeout", "soon"),
    ("timeout_factor", "0"),
    ("order", "random"),
    ("cpu", "two words"),
    ("shard", "3/2"),
    ("registry", "https://registry.example.org/team/states"),
    ("registry", "oci://registry.example.org"),
    ("registry", "oci://registry.example.org/Team"),
    ("push", "maybe"),
    ("store", 5),
    ("output_limit", "0"),
    ("system_store", 5),
    ("store_limit", "0"),
    ("store_limit", "lots"),
    ("refresh", "maybe"),
    ("refresh_state", "two words"),
    ("console_user", 5),
    ("console_password", 5),
    ("ssh_user", 5),
    ("ssh_key", 5),
    ("artifacts", "some"),
    ("artifacts_dir", 5),
    ("keep", "all"),
    ("keep", "-1"),
    ("keep_limit", "0"),
    ("keep_days", "0"),
    ("pause", "maybe"),
    ("timings", "maybe"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_wrong_value_is_refused_with_the_name_as_written_and_what_is_allowed(name: str, value: Any) -> None:
    option = BY_NAME[name]
    text = "***" if option.secret else ",".join(value) if isinstance(value, list) else str(value)
    assert refusal({option.key: value}) == f"{option.flag}={text}: allowed: {option.allowed}"
    if option.command_line_only:
        return
    in_file = refusal(ini={option.key: value})
    assert in_file == f"{option.key} = {text} (configuration file): allowed: {option.allowed}"
    if isinstance(value, str) and value:
        in_environment = refusal(environment={option.variable: value})
        assert in_environment == f"{option.variable}={text}: allowed: {option.allowed}"


def test_every_option_has_a_wrong_value_among_those_tested() -> None:
    assert {name for name, _ in BAD} == set(BY_NAME)


def test_values_that_have_types_are_taken_as_they_are() -> None:
    settings = read(
        ini={
            "vmsnap_memory": 1024,
            "vmsnap_cpus": 4,
            "vmsnap_timeout": 90,
            "vmsnap_timeout_factor": 2.5,
            "vmsnap_packages": ["nginx"],
        }
    )
    assert (settings.memory, settings.cpus, settings.timeout, settings.timeout_factor) == (1024, 4, 90.0, 2.5)
    assert settings.packages == ("nginx",)


@pytest.mark.parametrize(
    ("key", "value"),
    [("vmsnap_cpus", True), ("vmsnap_cpus", 2.5), ("vmsnap_timeout", True), ("vmsnap_image", 5)],
)
def test_a_value_of_the_wrong_type_is_refused(key: str, value: object) -> None:
    assert refusal(ini={key: value}).startswith(f"{key} = {value} (configuration file): allowed: ")


def test_what_is_for_the_command_line_only_is_read_nowhere_else() -> None:
    environment = {"VMSNAP_REFRESH": "1", "VMSNAP_REFRESH_STATE": "installed"}
    settings = read(environment=environment, ini={"vmsnap_refresh": True, "vmsnap_refresh_state": ["base"]})
    assert (settings.refresh, settings.refresh_state) == (False, ())
    assert unknown_variables(environment) == ["VMSNAP_REFRESH", "VMSNAP_REFRESH_STATE"]


def test_a_switch_is_told_as_on() -> None:
    settings = read({"vmsnap_refresh": True, "vmsnap_refresh_state": ["one", "two,three"]})
    assert list(changed(settings)) == [
        ("refresh", "on", "command line"),
        ("refresh_state", "one,two,three", "command line"),
    ]


def test_the_help_of_what_is_for_the_command_line_only_says_so() -> None:
    assert BY_NAME["refresh"].description.endswith("the image (command line only; default: off)")


def test_a_path_is_relative_to_where_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert read({"vmsnap_image": "disk.qcow2"}).image == "/project/sub/disk.qcow2"
    assert read(environment={"VMSNAP_IMAGE": "disk.qcow2"}).image == "/project/sub/disk.qcow2"
    assert read(ini={"vmsnap_image": "disk.qcow2"}).image == "/project/disk.qcow2"
    assert read({"vmsnap_image": "~/disk.qcow2"}).image == "/home/somebody/disk.qcow2"
    assert read({"vmsnap_image": "/disk.qcow2"}).image == "/disk.qcow2"
    assert read({"vmsnap_store": "store"}).store == Path("/project/sub/store")
    boot = read(ini={"vmsnap_image": "disk.raw", "vmsnap_kernel": "vmlinuz", "vmsnap_initrd": "initrd"})
    assert (boot.kernel, boot.initrd) == ("/project/vmlinuz", "/project/initrd")


def test_a_path_with_a_colon_is_one_if_it_begins_like_one() -> None:
    assert read({"vmsnap_image": "./a:b"}).image == "/project/sub/a:b"


def test_an_address_without_its_digest_is_refused_and_says_how_to_get_it() -> None:
    message = refusal({"vmsnap_image": ADDRESS})
    assert message.startswith(
        f"--vmsnap-image={ADDRESS}: an image from a URL needs its digest: set --vmsnap-image-sha256"
    )
    assert "sha256sum" in message
    assert read({"vmsnap_image": ADDRESS, "vmsnap_image_sha256": DIGEST}).image_sha256 == DIGEST


def test_a_machine_without_a_disk_needs_a_kernel() -> None:
    assert "needs --vmsnap-kernel" in refusal({"vmsnap_image": "none"})
    settings = read({"vmsnap_image": "none", "vmsnap_kernel": "/vmlinuz"})
    assert settings.image is None
    assert settings.spec().kernel == "/vmlinuz"


@pytest.mark.parametrize(
    ("values", "first", "second"),
    [
        ({"image_sha256": DIGEST}, "--vmsnap-image-sha256", "the default image (debian:trixie)"),
        ({"image_sha256": DIGEST, "image": "a.raw"}, "--vmsnap-image-sha256", "--vmsnap-image=a.raw"),
        ({"packages": "nginx", "image": "a.raw"}, "--vmsnap-packages", "--vmsnap-image=a.raw"),
        ({"modules": "modules"}, "--vmsnap-modules", "the default kernel (none)"),
        ({"initrd": "initrd", "image": "a.raw"}, "--vmsnap-initrd", "the default kernel (none)"),
        ({"cmdline": "quiet", "image": "a.raw"}, "--vmsnap-cmdline", "the default kernel (none)"),
    ],
)
def test_options_that_do_not_go_together_are_refused_by_both_names(
    values: dict[str, object], first: str, second: str
) -> None:
    message = refusal({f"vmsnap_{name}": value for name, value in values.items()})
    assert message.startswith(first)
    assert second in message


def test_what_the_file_says_of_its_own_image_stands_aside_for_another_on_the_command_line() -> None:
    fetched: dict[str, object] = {"vmsnap_image": ADDRESS, "vmsnap_image_sha256": DIGEST}
    assert read({"vmsnap_image": "a.raw"}, ini=fetched).image_sha256 is None
    built: dict[str, object] = {"vmsnap_image": "debian:bookworm", "vmsnap_packages": ["nginx"]}
    assert read({"vmsnap_image": "a.raw"}, ini=built).packages == ()
    assert read({"vmsnap_image": "debian:trixie"}, ini=built).packages == ("nginx",)
    booted: dict[str, object] = {
        "vmsnap_image": "a.raw",
        "vmsnap_kernel": "vmlinuz",
        "vmsnap_initrd": "initrd",
        "vmsnap_cmdline": "quiet",
    }
    settings = read({"vmsnap_image": "debian:trixie"}, ini=booted)
    assert (settings.kernel, settings.initrd, settings.cmdline) == (None, None, None)


def test_a_kernel_of_ones_own_goes_with_any_image() -> None:
    own: dict[str, object] = {"vmsnap_kernel": "/vmlinuz", "vmsnap_modules": "/modules"}
    for image in (None, "debian:bookworm", "ubuntu:24.04", "a.raw"):
        settings = read({"vmsnap_image": image}, ini=own)
        assert (settings.kernel, settings.modules) == ("/vmlinuz", "/modules")
    assert read({"vmsnap_cmdline": "debug"}).cmdline == "debug"


@pytest.mark.parametrize(
    ("name", "near"), [("VMSNAP_MEMROY", "VMSNAP_MEMORY"), ("VMSNAP_KEEP_DAY", "VMSNAP_KEEP_DAYS")]
)
def test_a_variable_that_is_nearly_an_option_is_refused_with_the_near_name(name: str, near: str) -> None:
    assert (
        refusal(environment={name: "5"}) == f"{name} in the environment is not an option; did you mean {near}?"
    )


def test_a_variable_of_another_name_is_told_and_not_refused() -> None:
    environment = {"VMSNAP_MY_OWN_THING": "5", "VMSNAP_CPUS": "3", "PATH": "/bin"}
    assert read(environment=environment).cpus == 3
    assert unknown_variables(environment) == ["VMSNAP_MY_OWN_THING"]


def test_what_was_changed_is_told_with_its_origin() -> None:
    settings = read({"vmsnap_memory": "2G"}, {"VMSNAP_REVERT": "marked"}, {"vmsnap_timeout": "60"})
    assert list(changed(settings)) == [("memory", "2048", "command line"), ("revert", "marked", "environment")]


def test_paths_in_the_project_are_told_relative_to_it() -> None:
    assert list(changed(read(ini={"vmsnap_image": "disk.raw"}))) == [("image", "disk.raw", "ini")]


def test_credentials_in_an_address_are_never_told() -> None:
    address = "https://me:secret@example.org/disk.qcow2?token=secret"
    assert "secret" not in refusal({"vmsnap_image": address})
    settings = read({"vmsnap_image": address, "vmsnap_image_sha256": DIGEST})
    assert settings.image == address
    assert "secret" not in str(list(changed(settings)))


def test_a_secret_option_is_never_told() -> None:
    option = dataclasses.replace(BY_NAME["cmdline"], secret=True)
    assert "hunter2" not in option.written("command line", "hunter2")


def test_an_option_error_survives_pickling() -> None:
    error = OptionError("wrong", hint="so")
    assert str(pickle.loads(pickle.dumps(error))) == "wrong\nso"  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("name", "content", "table"),
    [
        ("pyproject.toml", "[tool.pytest]\nvmsnap_memory = 1024\n", {"vmsnap_memory": 1024}),
        ("pytest.toml", "[pytest]\nvmsnap_memory = 1024\n", {"vmsnap_memory": 1024}),
        ("pyproject.toml", "[project]\nname = 'x'\n", {}),
        ("pytest.ini", "[pytest]\nvmsnap_memory = 1024\n", {}),
    ],
)
def test_the_native_table_is_read_with_its_types(
    tmp_path: Path, name: str, content: str, table: dict[str, object]
) -> None:
    (tmp_path / name).write_text(content)
    assert native_table(tmp_path / name) == table
    assert native_table(None) == {}


def test_a_push_needs_a_registry() -> None:
    said = refusal({"vmsnap_push": True})
    assert "--vmsnap-push needs a registry to push to" in said
    assert "vmsnap_registry" in said
    address = "oci://registry.example.org/team/states"
    assert read({"vmsnap_push": True}, environment={"VMSNAP_REGISTRY": address}).push
