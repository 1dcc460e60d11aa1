#!/bin/sh
# Installs or upgrades notesd. If the new release does not start, the old one continues.
#
#   install.sh [RELEASE]   install or upgrade to the release in the directory RELEASE (default: this script's)
#   install.sh uninstall   remove the service; the notes stay
#   install.sh purge       remove the notes too
#
# Each release has one directory for its program and one for its notes. An upgrade copies the notes into the new
# directory and then moves one symbolic link. So after a failure or a power cut at any moment, either the old
# release or the new one is there, with its notes. The old notes stay as a backup.
set -eu
umask 022

programs=/opt/notesd
notes=/var/lib/notesd
unit=notesd.service

main() {
    case ${1-} in
        uninstall) uninstall ;;
        purge) uninstall && rm -rf "$notes" ;;
        *) install_release "$(cd "${1:-$(dirname "$0")}" && pwd)" ;;
    esac
}

install_release() {
    source=$1
    new=$(cat "$source/VERSION")
    old=$(cat "$programs/current/VERSION" 2>/dev/null || true)
    if [ "$new" = "$old" ]; then
        echo "release $new is installed already"
        return
    fi
    id notesd >/dev/null 2>&1 || useradd --system --no-create-home --home-dir "$notes" notesd
    mkdir -p "$programs" "$notes"
    rm -rf "${programs:?}/$new" # from an interrupted upgrade
    cp -R "$source" "$programs/$new"

    trap roll_back EXIT
    if [ -n "$old" ]; then
        systemctl stop "$unit"
        rm -rf "${notes:?}/$new"
        install -d -o notesd -g notesd "$notes/$new"
        runuser -u notesd -- "$programs/$new/migrate.py" "$old" "$notes/$old" "$notes/$new"
    fi
    use "$new"
    systemctl start "$unit" # waits until the service reports that it is ready
    trap - EXIT

    if [ -n "$old" ]; then rm -rf "${programs:?}/$old"; fi
    echo "release $new runs"
}

# Makes systemd start a release. Everything is on disk before one rename moves the link.
use() {
    ln -sfn "$1" "$programs/next"
    sync
    mv -T "$programs/next" "$programs/current"
    systemctl enable --quiet "$programs/current/$unit" # also makes systemd reload the unit
    sync
}

roll_back() {
    echo "release $new does not come up" >&2
    systemctl stop "$unit" 2>/dev/null || true
    if [ -n "$old" ]; then
        use "$old"
        systemctl start "$unit"
        rm -rf "${programs:?}/$new" "${notes:?}/$new"
        echo "release $old goes on" >&2
    else
        uninstall
    fi
    exit 1
}

uninstall() {
    systemctl stop "$unit" || true
    systemctl disable --quiet "$unit" || true
    rm -rf "$programs"
}

main "$@"
