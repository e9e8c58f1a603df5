# shellcheck shell=sh disable=SC2034,SC2154  # it shares its variables with the scripts that read it
# What an installer checks before its first write. Functions only: header.sh reads this file from its payload, and
# conda_constructor/pre_install.sh from a variable that constructor's installer sets. Before they call any of them, they
# define die (exit status, what is wrong, what to do) and say (lines), and set:
#   this_file              what to run for the help
#   distribution release   what is to be installed
#   base example           where, which check_base makes a real path; and what to write for another place
#   update                 -u: yes, no, or any if an upgrade needs no permission
#   repair hooks keep      -f, no for -s, -k: yes or no
#   from                   --from: the distribution that may be replaced, or nothing
#   unpacked               a prefix that is being filled already, or nothing
#   needed_kb needed_inodes installed_kb
# check_base sets prefix and unit, check_release sets active and complete.

# Options of the hooks that a check here needs. The hooks read all of them again.
opt_name='' opt_hub_user='' opt_proxy_user='' opt_bind_url='' opt_tls_cert='' opt_tls_key='' opt_acme_email=''
opt_acme_ca_server='' opt_acme_ca_bundle='' opt_wait='' opt_keep='' opt_no_start=no opt_activate='' opt_restore=''
opt_rehearse=no opt_canary=''
backup='' # what a backup says of itself: see backup.sh
link=hub # what in BASE leads to the active release

# Set opt_NAME for each option, to its value or to yes. The lines of the help (`usage`) are the list of options: a word
# in capitals after one stands for its value.
read_options() {
    while [ $# -gt 0 ]; do
        option=${1%%=*} known=''
        case $option in
            --*[!a-z-]* | --) ;;
            --*) known=$(usage | sed -n "s/^  *$option\( [A-Z][A-Z]*\)\{0,1\}  .*/yes\1/p") ;;
        esac
        case $known,$1 in
            ,*) die 2 "unknown option: $1" "sh $this_file -h" ;;
            yes,*=*) die 2 "$option has no value" "sh $this_file -h" ;;
            yes,*) given=yes ;;
            *,*=*) given=${1#*=} ;;
            *) given=${2:-}; [ $# -eq 1 ] || shift ;;
        esac
        [ -n "$given" ] || die 2 "$option needs a value" "sh $this_file -h"
        eval "opt_$(printf '%s' "${option#--}" | tr - _)=\$given"
        shift
    done
}

check_options() {
    case $opt_name in
        [!a-z]* | *[!a-z0-9-]*) die 2 "'$opt_name' cannot be a unit name" "use a-z 0-9 - and start with a letter" ;;
    esac
    if [ -n "$opt_restore" ]; then read_backup; fi
    case $opt_wait in *[!0-9]*) die 2 "'$opt_wait' is not a number of seconds" "use something like --wait 60" ;; esac
    case $opt_keep in 0* | *[!0-9]*) die 2 "'$opt_keep' is not a number of releases to keep" "use 1 or more" ;; esac
    for user in "$opt_hub_user" "$opt_proxy_user"; do
        case $user in
            '') ;;
            *[!0-9]*) id -u "$user" >/dev/null 2>&1 || die 2 "there is no account '$user'" "useradd --system $user" ;;
            *) die 2 "'$user' is a number" "use the name of an account" ;; # id accepts it, systemd and Python do not
        esac
    done
    case $opt_bind_url in
        *[!A-Za-z0-9/._:%~\[\]-]*) die 2 "'$opt_bind_url' is not a URL" "use something like http://:8000" ;;
        '' | http://* | https://*) ;;
        *) die 2 "'$opt_bind_url' is not a URL" "use something like http://:8000" ;;
    esac
    check_https
    if [ "$opt_rehearse$opt_canary" != no ]; then check_rehearsal; fi
}

check_rehearsal() {
    [ "$update" = yes ] || die 2 "--rehearse and --canary are for an upgrade" "give -u too"
    [ "$hooks" = yes ] || die 2 "-s skips the hooks, and with them a rehearsal" "leave out -s"
    [ "$opt_rehearse" = no ] || [ "$repair$keep$dry_run" = nonono ] ||
        die 2 "--rehearse leaves nothing" "leave out -f, -k, and --dry-run"
}

# Units and scripts hold the path: no character in it may mean something there.
check_path() {
    case $base in
        / | */../* | */.. | *[!A-Za-z0-9/._+-]*)
            die 2 "'$base' cannot be the base directory" "use a path of A-Z a-z 0-9 / . _ + - only" ;;
    esac
}

# A path without `//`, `/./` and a `/.` at its end.
plain_path() { printf '%s\n' "$1" | sed 's|//*|/|g; :again; s|/\./|/|; t again; s|\(.\)/\.$|\1|'; }

# Make $base a real path, which can be written into scripts; $anchor is what there is of it.
find_place() {
    elsewhere="choose another directory with -p"
    case $base in /*) ;; *) base=$PWD/$base ;; esac
    check_path
    base=$(plain_path "$base")
    if [ -L "$base" ] && [ ! -e "$base" ]; then die 6 "$base is a link that leads nowhere" "$elsewhere"; fi
    anchor=$base
    while [ ! -e "$anchor" ]; do anchor=${anchor%/*}; anchor=${anchor:-/}; done
    [ -d "$anchor" ] || die 6 "$anchor is not a directory" "$elsewhere"
    [ -x "$anchor" ] || die 6 "$anchor cannot be entered by this account" "run this as root, or $elsewhere"
    # The real path: an environment's files hold it, and a link on the way may be changed one day.
    real=$(cd -P "$anchor" && pwd)
    real=$(plain_path "$real") # bash keeps a double slash at the beginning
    base=${real%/}${base#"${anchor%/}"} anchor=$real
    base=${base%/} prefix=$base/releases/$release
    check_path
}

# Where BASE is: on a file system that can hold programs. What to do if it cannot be written is $1.
check_place() {
    find_place
    mounted=$(mount_of "$anchor")
    case ,${mounted#* }, in
        *,noexec,*) die 6 "$anchor is mounted noexec" "$elsewhere, or remount it with exec" ;;
        *,ro,*) die 6 "$anchor is mounted read-only" "$elsewhere, or remount it with rw" ;;
    esac
    [ -w "$anchor" ] || die 6 "$anchor cannot be written" "$1, or $elsewhere"
}

check_base() {
    check_place "run this as root (sudo sh $this_file)"
    if [ "$(id -u)" -eq 0 ] && systemd_runs && [ "$hooks" = yes ]; then
        # The proxy's sandbox has directories of its own there.
        for place in "$base" "$(cd -P "$base/state" 2>/dev/null && pwd)"; do
            case $place/ in /home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*)
                die 6 "$place is where services cannot see it" "$elsewhere, like $example" ;;
            esac
        done
    fi
    if [ "$(id -u)" -eq 0 ]; then check_ground; fi
    if [ -L "$base/current" ]; then die 6 "$base holds an environment for users" "$elsewhere"; fi
    state=$anchor
    if [ -d "$base/state" ]; then state=$(cd -P "$base/state" && pwd); fi
    check_way "${base%/*}"
    if [ "$state" != "$anchor" ]; then check_way "$state"; fi
    mounted=$(mount_of "$state")
    case ${mounted%% *} in
        nfs* | lustre | gpfs | beegfs* | ceph | cifs | smb* | afs | fuse.sshfs | fuse.glusterfs | 9p)
            die 6 "$state is on ${mounted%% *}, where SQLite databases get corrupted" "choose a local disk with -p" ;;
    esac
    if [ -e "$base" ] && ! is_ours; then die 6 "$base is not empty and not a barehub" "$elsewhere"; fi
    recorded=$(sed -n 's/.*"name": "\([^"]*\)".*/\1/p' "$base/install.json" 2>/dev/null) || :
    if [ -n "$opt_name" ] && [ -n "$recorded" ] && [ "$opt_name" != "$recorded" ]; then
        die 2 "the barehub in $base is named $recorded" "leave out --name, or uninstall it first"
    fi
    if [ -n "$backup" ]; then
        [ "$(told base)" = "$base" ] || die 6 "the backup is of $(told base), not of $base" "give -p $(told base)"
        [ -z "$recorded" ] || [ -e "$base/.restored" ] ||
            die 6 "$base holds an installation already, and a restore replaces nothing" \
                "leave out --restore, or uninstall it"
    fi
    unit=${recorded:-${opt_name:-$distribution}}
    place=$(units_directory)/$unit.target
    if [ -z "$recorded" ] && [ -e "$place" ]; then
        die 6 "$place belongs to another installation: $(readlink "$place" || echo a file)" \
            "uninstall that, or choose another --name"
    fi
}

# Root runs what is in BASE. So nobody else may be able to put something there, or to put another BASE in its place:
# BASE and all directories above it are root's, and only root can write them, as sshd wants it. Without systemd, as in
# a container, it is BASE alone.
check_ground() {
    directory=$anchor
    while :; do
        if [ "$directory" = "$base" ] || systemd_runs; then
            others=$(find "$directory" -maxdepth 0 \( ! -user 0 -o -perm -002 -o -perm -020 ! -group 0 \))
            # An ACL names accounts; what they may do at most are the group's bits (acl(5)), and `ls` shows a plus.
            case $(ls -ld "$directory") in ?????w????+*) others=$directory ;; esac
            [ -z "$others" ] || die 6 "others than root can change $directory: $(ls -ld "$directory")" \
                "chown root $directory; chmod go-w $directory, after a look at what is in it; or $elsewhere"
        fi
        if [ "$directory" = / ]; then return; fi
        directory=${directory%/*} directory=${directory:-/}
    done
}

# The accounts of hub, proxy and users must be able to enter each directory that leads to BASE. The installer opens BASE
# itself.
check_way() {
    if [ "$hooks" = no ] || [ "$(id -u)" -ne 0 ] || ! systemd_runs; then return; fi
    above=$1
    while [ -n "$above" ]; do
        if [ "$above" != "$base" ] && [ -d "$above" ] && [ -z "$(find "$above" -prune -perm -001)" ]; then
            die 6 "$above cannot be entered by other accounts, such as those of hub, proxy and users" \
                "chmod a+x $above, or $elsewhere"
        fi
        above=${above%/*}
    done
}

# An installation, or what an interrupted one left; a new file system's lost+found does not count.
is_ours() {
    if grep -q '"proxy_user"' "$base/install.json" 2>/dev/null; then return; fi
    set -- -name lost+found -o -path "$base/.lock" -o -path "$base/.staging" -o -path "$base/releases"
    for left in "$base"/releases/[0-9][0-9][0-9][0-9].[0-9][0-9].[0-9][0-9]*; do
        [ -d "$left" ] || continue
        if [ "$left" != "$unpacked" ]; then
            if [ -e "$left/share/barehub/release.json" ] || [ -e "$left/pkgs/lock-holder" ]; then return; fi
            # Constructor's installer writes lock-holder only once it has unpacked everything.
            [ -z "$(not_unpacked "$left")" ] || continue
        fi
        set -- "$@" -o -path "$left" -o -path "$left/*"
    done
    depth=9999
    if [ -e "$base/.staging/barehub" ]; then depth=1; fi
    [ -z "$(find "$base" -mindepth 1 -maxdepth $depth ! \( "$@" \))" ]
}

# What is in a prefix beside that which an installer of constructor's own kind unpacks.
not_unpacked() {
    find "$1" -mindepth 1 -maxdepth 1 ! -name pkgs ! -name conda-meta ! -name _conda ! -name micromamba \
        ! -name _internal ! -name install_tmp ! -name .installer.info ! -name .nonadmin ! -name preconda.tar.bz2 \
        ! -name postconda.tar.bz2 | sed 's|.*/||'
}

check_release() {
    active=$(readlink "$base/$link" 2>/dev/null) || active=
    active=${active##*/} complete=no
    there=$(distribution_of "$base/releases/$active")
    if [ -e "$prefix/share/barehub/release.json" ]; then
        complete=yes theirs=$(distribution_of "$prefix")
        [ "$theirs" = "$distribution" ] || die 6 "$prefix is a release of $theirs, not of $distribution" \
            "build this one with another label (release.py build --date), or $elsewhere"
    fi
    if [ -n "$active" ] && [ "$there" != "$distribution" ] && { [ "$update" = no ] || [ "$from" != "$there" ]; }; then
        replace=", or replace it: -u --from $there"
        if [ "$update" = any ] || [ "$link" != hub ]; then replace=", or $elsewhere"; fi
        die 6 "$base holds $there $active, which is not $distribution" "use an installer of $there$replace"
    fi
    if [ -n "$opt_activate" ]; then
        [ "$complete" = yes ] || die 6 "there is no release $release in $base" "choose one of: ls $base/releases"
        return
    fi
    if [ -z "$active" ]; then
        [ "$update" != yes ] ||
            die 6 "there is nothing to upgrade in $base" "leave out -u, or name the right directory with -p"
    elif [ "$active" != "$release" ]; then
        newest=$(printf '%s\n' "$active" "$release" | sort -V | tail -n 1)
        [ "$newest" = "$release" ] || die 6 "$base runs $active, which is newer than $release" \
            "to go back: $(way_back)"
        [ "$update" != no ] || die 6 "$base already holds $there $active" "give -u to upgrade it to $release"
    fi
}

way_back() { printf '%s\n' "$base/hub/bin/barehub rollback$([ "$complete" = no ] || echo " $release")"; }

# What a release calls itself: the name that its builder gave it.
distribution_of() {
    called=$(sed -n 's/^ "name": "\(.*\)",$/\1/p' "$1/share/barehub/release.json" 2>/dev/null) || :
    printf '%s\n' "${called:-$distribution}"
}

check_space() {
    if [ "$complete" = yes ] && [ "$repair" = no ]; then return; fi
    if [ -n "$opt_restore" ]; then needed_kb=$((needed_kb + 3 * $(du -kL "$opt_restore" | cut -f 1))); fi
    free=$(df -Pk "$anchor" | awk 'END { print $4 }')
    for database in "$base"/state/hub/*.sqlite; do # two copies and a margin
        if [ -f "$database" ]; then needed_kb=$((needed_kb + 3 * $(du -k "$database" | cut -f 1))); fi
    done
    [ "$free" -ge "$needed_kb" ] ||
        die 4 "$anchor has $((free / 1024)) MB free, $((needed_kb / 1024)) MB are needed" "make room, or $elsewhere"
    # Some file systems make inodes as they go and say 0 or -.
    inodes=$(df -Pi "$anchor" | awk 'END { if ($2 > 0) print $4 }')
    [ "${inodes:-$needed_inodes}" -ge "$needed_inodes" ] ||
        die 4 "$anchor has $inodes inodes free, $needed_inodes are needed" "make room, or $elsewhere"
}

# fstype and options of the mount that holds a path
mount_of() {
    awk -v path="$1/" '{
        point = $2 == "/" ? "/" : $2 "/"
        if (index(path, point) == 1 && length(point) >= longest) { longest = length(point); found = $3 " " $4 }
    } END { print found }' /proc/self/mounts
}

# The systemd that this account controls: the machine's, or a user's own instance.
systemd_runs() {
    if [ "$(id -u)" -eq 0 ]; then [ -d /run/systemd/system ]; return; fi
    [ -S "${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/systemd/private" ]
}

units_directory() {
    if [ "$(id -u)" -eq 0 ]; then echo /etc/systemd/system; return; fi
    echo "$(getent passwd "$(id -u)" | cut -d : -f 6)/.config/systemd/user"
}
