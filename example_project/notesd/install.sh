#!/bin/sh
# Installs notesd, and upgrades it; where the new release does not come up, the old one goes on.
#
#   install.sh [RELEASE]   install or upgrade to the release in the directory RELEASE (this script's)
#   install.sh uninstall   remove the service; the notes stay
#   install.sh purge       remove the notes too
#
# Each release has a directory of its own for its program and one for its notes. An upgrade copies the notes
# into the new one, and then moves one symbolic link; so a failure or a power cut at any moment leaves the old
# release with its notes, or the new one. The old notes stay as a backup.
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
    rm -rf "${programs:?}/$new" # from an upgrade that did not end
    cp -R "$source" "$programs/$new"

    trap roll_back EXIT
    if [ -n "$old" ]; then
        systemctl stop "$unit"
        rm -rf "${notes:?}/$new"
        install -d -o notesd -g notesd "$notes/$new"
        runuser -u notesd -- "$programs/$new/migrate.py" "$old" "$notes/$old" "$notes/$new"
    fi
    use "$new"
    systemctl start "$unit" # waits until the service says that it is ready
    trap - EXIT

    if [ -n "$old" ]; then rm -rf "${programs:?}/$old"; fi
    echo "release $new runs"
}

# Makes a release the one that systemd starts. All is on disk before the link moves, and by one rename.
use() {
    ln -sfn "$1" "$programs/next"
    sync
    mv -T "$programs/next" "$programs/current"
    systemctl enable --quiet "$programs/current/$unit" # and systemd reads the unit anew
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
