# shellcheck shell=sh disable=SC2034,SC2154  # it shares its variables with the scripts that read it
# What is different where a release is an environment for users: there is no hub in it, no systemd and no root, and BASE
# may be on a shared file system. header.sh reads this file after preflight.sh and the others: a function here
# replaces theirs of the same name, and all other functions are shared.

link=current scratch=''

check_systemd() { :; }
check_ports() { :; }

check_options() {
    case $opt_keep in 0* | *[!0-9]*) die 2 "'$opt_keep' is not a number of releases to keep" "use 1 or more" ;; esac
    [ -z "$from" ] || die 2 "unknown option: --from" "sh $this_file -h"
    case $opt_activate in
        '') return ;;
        *[!0-9.]*) die 2 "'$opt_activate' is not a release" "write it like --activate $release" ;;
    esac
    [ "$repair$hooks$keep" = noyesno ] || die 2 "--activate installs nothing" "leave out -f, -s and -k"
    release=$opt_activate
}

check_base() {
    check_place "run this as the account that owns it"
    check_ground
    if [ ! -e "$base" ]; then return; fi
    if [ -e "$base/install.json" ] || [ -L "$base/hub" ]; then die 6 "$base holds a hub" "$elsewhere"; fi
    if [ -e "$base/$link" ] && ! [ -L "$base/$link" ]; then die 6 "$base/$link is not a link" "$elsewhere"; fi
    check_owner
    is_ours || die 6 "$base is not empty and holds no environment" "$elsewhere"
}

# Whoever can rename BASE or a directory above it says what all its users run. A project's group may; not everyone.
check_ground() {
    directory=${base%/*}
    while :; do
        [ -z "$(find "$directory/" -maxdepth 0 -perm -002 ! -perm -1000 2>/dev/null)" ] ||
            die 6 "everyone can put something else in the place of $base: $(ls -ld "$directory/")" \
                "chmod o-w $directory/, or $elsewhere"
        if [ -z "$directory" ]; then return; fi
        directory=${directory%/*}
    done
}

# A release belongs to one account, or the next one could neither replace nor remove it.
check_owner() {
    if [ -z "$(find "$base" -maxdepth 0 ! -user "$(id -u)")" ]; then return; fi
    hint=''
    if [ "$(id -u)" -eq 0 ]; then hint=' (file servers often make root another account)'; fi
    die 6 "$base belongs to another account: $(ls -ld "$base")" "run this as its owner$hint, or $elsewhere"
}

trust_base() { if [ "$(id -u)" -eq 0 ]; then check_owner; fi; }

# An installation, or what an interrupted one left.
is_ours() {
    if [ -e "$base/.staging/barehub" ]; then return; fi
    for mark in "$base"/releases/*/share/barehub/release.json; do if [ -e "$mark" ]; then return; fi; done
    [ -z "$(find "$base" -mindepth 1 ! -name lost+found ! -path "$base/.lock" ! -path "$base/.lock/owner" \
        ! -path "$base/releases" ! -path "$base/.removed" ! -path "$base/.removed/*")" ]
}

way_back() { printf '%s\n' "sh $this_file -b -p $base --activate $release"; }

print_changes() {
    say "this is done in $base:"
    if [ "$complete" = no ] || [ "$repair" = yes ]; then say "  write    $prefix ($((installed_kb / 1024)) MB)"; fi
    if [ "$keep" = yes ]; then say "  write    $base/channel"; fi
    if [ "$hooks" = no ]; then return; fi
    if [ "$active" != "$release" ]; then say "  switch   $base/$link from ${active:-nothing} to $release"; fi
    if [ -n "$opt_keep" ]; then say "  remove   releases except the newest $opt_keep and those in use here"; fi
}

# Not flock, which some shared file systems lack and others keep to one machine: `mkdir` succeeds once on all of them.
# Nobody else can tell whether a process on another machine still runs, so a lock that was left is removed by hand.
take_lock() {
    if ! mkdir "$base/.lock" 2>/dev/null; then
        read -r host pid since 2>/dev/null <"$base/.lock/owner" || host='' pid='' since=''
        who="process ${pid:-?} on ${host:-an unknown machine}, since ${since:-an unknown time}"
        if [ "$host" = "$(uname -n)" ] && ! [ -e "/proc/$pid" ]; then who="$who, which does not run any more"; fi
        die 6 "another installer is at work in $base: $who" \
            "wait until it has finished; if it does not run any more: rm -r $base/.lock"
    fi
    locked=yes
    check_owner # of what was made just now
    printf '%s\n' "$(uname -n) $$ $(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$base/.lock/owner"
    run chmod go+rx,go-w "$base"
    rm -rf "$base/.removed" 2>/dev/null || :
}

drop_lock() {
    if [ -n "$scratch" ]; then rm -rf "$scratch"; fi
    if [ "${locked:-no}" = yes ]; then rm -rf "$base/.lock"; fi
}

# The engine unpacks all files into a cache, links them from there, and the cache is removed. A shared file system is
# slow by the number of operations, not by bytes, so the cache is on this machine's disk, if that has room.
choose_cache() {
    if [ "$(stat -c %d "$base")" = "$(stat -c %d /var/tmp)" ]; then return; fi
    if [ "$(df -Pk /var/tmp | awk 'END { print $4 }')" -lt $((installed_kb * 2)) ]; then return; fi
    if scratch=$(mktemp -d "/var/tmp/$distribution.XXXXXX"); then cache=$scratch; fi
}

# A kernel spec that says `python` means that of whoever reads it. It gets the release's own, by its real path.
finish_prefix() {
    run mkdir -p "$prefix/share/barehub"
    run "$prefix/bin/python" -I -B -c "$name_python"
}
name_python='
import json, pathlib, re, sys
for spec in pathlib.Path(sys.prefix).glob("share/jupyter/kernels/*/kernel.json"):
    content = json.loads(spec.read_text())
    if re.fullmatch(r"python[0-9.]*", content["argv"][0]):
        content["argv"][0] = sys.prefix + "/bin/python"
        new = spec.with_name(".kernel.json.new")
        new.write_text(json.dumps(content, indent=1) + "\n")
        new.replace(spec)
'

finish() {
    if [ "$hooks" = no ]; then
        say "$base/$link is still ${active:-missing}; to switch: $(way_back)"
        say_changed ""
        exit 0
    fi
    changed=''
    if [ "$active" != "$release" ]; then switch; changed=", release"; fi
    if [ -n "$opt_keep" ]; then remove_old; fi
    say "$base/$link is $release; for the hub: c.Spawner.cmd = [\"$base/$link/bin/jupyterhub-singleuser\"]"
    say_changed "$changed"
    exit 0
}

# Readers see the old release or the new one.
switch() {
    run ln -s "releases/$release" "$stage/$link"
    run mv -fT "$stage/$link" "$base/$link"
}

# A file server keeps what a process of this machine has open, as .nfs..., and the directories on the way to it. They
# are put aside, and each run tries again to remove them.
remove() {
    if run rm -rf "$1" 2>/dev/null && [ ! -e "$1" ]; then return; fi
    run mkdir -p -m 700 "$base/.removed"
    run mv "$1" "$base/.removed/$$.${1##*/}"
    say "some files of ${1##*/} are still open, and stay in $base/.removed until the next run"
}

# What the hubs on this machine say of their servers, wherever those run (barehub/in_use.py), with a slash at the end.
# Fails if one cannot be heard.
told_by_hubs() {
    missed=0
    for of_hub in /etc/systemd/system/*-hub.service; do
        hub=$(sed -n 's/^Environment=BAREHUB_BASE=//p' "$of_hub" 2>/dev/null) || continue
        told=$hub/state/environments/in-use
        if [ -z "$hub" ]; then continue; fi
        if [ -f "$told" ] && [ ! -L "$told" ] && sed 's|$|/|' "$told" 2>/dev/null; then continue; fi
        say "warning: what servers of the hub in $hub run from is not known: $told cannot be read" \
            "  fix: upgrade that hub, which writes it; or remove old releases by hand" >&2
        missed=1
    done
    return "$missed"
}

# A script of a release runs the release's python by its real path, so the paths of programs and their first words tell
# what is in use. /proc has no more than this machine's processes, and of other accounts' perhaps only the words.
remove_old() {
    used=$({
        find /proc/[0-9]*/exe /proc/[0-9]*/cwd -maxdepth 0 -printf '%l/\n'
        cat /proc/[0-9]*/cmdline | tr '\0' '\n'
    } 2>/dev/null) || :
    unknown=''
    told=$(told_by_hubs) || unknown="nobody knows what servers of a hub on this machine run from"
    newer=0
    for old in $(cd "$base/releases" && printf '%s\n' [0-9]* | sort -rV); do
        newer=$((newer + 1))
        if [ "$newer" -le "$opt_keep" ] || [ "$old" = "$release" ]; then continue; fi
        why=$unknown
        # Other machines may see a link as it was a minute ago.
        if [ "$old" = "$active" ]; then why="it was active until now"; fi
        case $used in *"$base/releases/$old/"*) why="a process on this machine uses it" ;; esac
        case $told in *"$base/releases/$old/"*) why="a server of a hub on this machine runs from it" ;; esac
        if [ -n "$why" ]; then say "release $old is kept: $why"; continue; fi
        say "removing release $old, which no process here and no server of a hub here is known to use"
        run mv "$base/releases/$old" "$stage/" # so that no half of it looks like a release
        remove "${stage:?}/$old"
        changed="${changed%, older releases}, older releases"
    done
}
