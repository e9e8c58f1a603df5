# shellcheck shell=sh disable=SC2034  # preflight.sh reads the variables
# What an installer that constructor made runs when it has unpacked its packages into PREFIX and linked none of them.
# It sees PREFIX, INSTALLER_NAME and INSTALLER_VER: https://conda.github.io/constructor/construct-yaml/#pre_install
# and BAREHUB_FUNCTIONS, the text of preflight.sh, ports.sh and steps.sh, from construct.yaml.
#
# Behind header.sh, which has checked all this itself, BAREHUB_HOOKS is no.

main() {
    set -eu
    [ "${BAREHUB_HOOKS:-yes}" = yes ] || exit 0
    umask 022
    eval "$BAREHUB_FUNCTIONS"
    set_variables
    check_prefix
    check_base
    check_release
    check_space
    check_ports
    hold_lock
    clear_prefix
    # The installer has just made them, with the caller's umask; the proxy's account has to get through.
    if [ ! -e "$base/install.json" ]; then chmod a+rx "$base" "$base/releases"; fi
}

# constructor has checked that there is room for the release, and needs no -u to put one beside another.
set_variables() {
    distribution=$INSTALLER_NAME release=$INSTALLER_VER this_file=INSTALLER
    base=${PREFIX%/releases/*} unpacked=$PREFIX example="-p /opt/$INSTALLER_NAME/releases/$INSTALLER_VER"
    update=any repair=yes hooks=yes keep=no from='' needed_kb=$((64 * 1024)) needed_inodes=0
}

check_prefix() {
    case $PREFIX in
        /releases/* | *[!A-Za-z0-9/._+-]*)
            die 2 "$PREFIX cannot hold a release" "use A-Z a-z 0-9 / . _ + - only: $example" ;;
        */releases/"$release") ;;
        *) die 2 "this release cannot be in $PREFIX" "name BASE/releases/$release, like $example" ;;
    esac
    # An environment's files hold their path, and a link on the way may be changed one day.
    real=$(cd -P "$PREFIX" && pwd)
    [ "$real" = "$PREFIX" ] || die 2 "there is a link on the way to $PREFIX" "name the real place: -p $real"
    command -v flock >/dev/null || die 3 "'flock' is needed but not installed" "install util-linux"
}

# Another installer removes what it finds without a receipt, so BASE is locked from here to the end of the installer,
# the parent process. post_install.sh takes the lock over.
hold_lock() {
    open_lock
    flock -n 9 || die 6 "another installer is at work in $base" "wait until it has finished"
    (while kill -0 "$PPID" 2>/dev/null; do sleep 1 9<&-; done) </dev/null >/dev/null 2>&1 &
    echo "$!" >"$PREFIX/pkgs/lock-holder"
}

# With -f or -u there may be a release, or what is left of one: conda believes its records, whatever the files are.
clear_prefix() {
    not_unpacked "$PREFIX" | while read -r name; do rm -rf "${PREFIX:?}/$name"; done
    rm -f "$PREFIX"/conda-meta/*.json
}

# Remove what was unpacked, unless there is more in PREFIX than that. The exit status is the installer's: always 1.
die() { # exit status, what is wrong, what to do
    printf 'error: %s\n  fix: %s\n' "$2" "$3" >&2
    more=$(not_unpacked "$PREFIX")
    records=$(find "$PREFIX/conda-meta" -name '*.json' -print -quit 2>/dev/null) || :
    if [ -z "$more$records" ]; then
        rm -rf "$PREFIX"
        parent=${PREFIX%/*}
        case $parent in */releases) rmdir "$parent" "${parent%/*}" 2>/dev/null || : ;; esac
    elif [ -e "$PREFIX/share/barehub/release.json" ] && is_trusted; then
        restore_release
    fi
    exit 1
}

# Root runs nothing from a prefix that others can change, which may be why this installer refuses.
is_trusted() {
    [ "$(id -u)" -ne 0 ] || (
        # shellcheck disable=SC2317,SC2329  # check_ground calls it
        die() { exit 1; }
        elsewhere='' anchor=$PREFIX
        check_ground
    )
}

# Leave a release that was complete as it was before. Its history, which constructor has emptied, is in the tar that
# constructor would unpack last; post_install.sh writes the same.
restore_release() {
    history=$PREFIX/conda-meta/history
    "$PREFIX/bin/python" -I -c "$print_history" "$PREFIX/postconda.tar.bz2" |
        sed 's/^# cmd: .*/# cmd: constructor/' >"$history.new"
    if [ -s "$history.new" ]; then mv "$history.new" "$history"; else rm "$history.new"; fi
    (cd "$PREFIX" && rm -rf pkgs _conda micromamba _internal install_tmp .installer.info .nonadmin \
        postconda.tar.bz2 conda-meta/initial-state.explicit.txt)
}
print_history='
import sys, tarfile
sys.stdout.buffer.write(tarfile.open(sys.argv[1]).extractfile("conda-meta/history").read())
'

main
exit
