#!/bin/sh
# @NAME@ @RELEASE@ for Linux @MACHINE@: JupyterHub with its proxy and idle culler, run by systemd. It uses no network.
#
# usage: sh @FILE@ [options]
#
#   -b            batch: ask no questions
#   -p BASE       the directory to install into, default /opt/@NAME@
#   -u            upgrade the installation in BASE to this release
#   -f            repair: replace this release's files
#   -s            fill the release's prefix only, skip the post-install hooks
#   -k            keep the packages, as a conda channel in BASE/channel
#   -h, --help    print this text
#   --name NAME            stem of the systemd units, default @NAME@
#   --hub-user USER        account that runs the hub, default root
#   --proxy-user USER      account that runs the proxy, default a new one, NAME-proxy
#   --bind-url URL         the hub's address, default http://:8000; https://hub.example.org needs a certificate:
#   --acme-email ADDRESS     from Let's Encrypt,
#   --acme-ca-server URL     or from another ACME server, by the URL of its directory,
#   --acme-ca-bundle FILE    whose own certificate the authorities in this PEM file have signed
#   --tls-cert FILE          or from this PEM file, which holds the chain too,
#   --tls-key FILE           and its key
#   --from NAME            with -u: replace NAME, another distribution of barehub, which BASE holds
#   --restore FILE         begin with what 'barehub backup' has written to FILE, on this machine or another one
#   --no-start             install everything, start nothing
#   --wait SECONDS         upgrade: how long to wait for servers that are still starting, default 60
#   --keep N               upgrade: how many releases to keep, with the new one, default 2
#   --no-db-backup         upgrade: you have backed up your own database server
#   --require-same-packages  upgrade: refuse to lose packages that were added by hand
#   --rehearse             with -u: try the upgrade beside the hub that runs, and leave nothing
#   --canary USER          with -u: start USER's server beside the hub that runs; if it fails, refuse the upgrade
#   --log FILE             append all messages to FILE too
#   --dry-run              print every change that would be made, make none
#   --debug                print each command that changes something, keep BASE/.staging after a failure;
#                            the same as BAREHUB_DEBUG=1 in the environment
#
#   --verify               check the integrity of this file, install nothing
#   --list                 print its packages, install nothing
#   --extract DIR          add its packages to DIR, a conda channel or a new directory; install nothing
#   --diff                 print what an upgrade of BASE to this release would change, change nothing
#   --audit                print the known advisories that the release in BASE has, and whether this one has them
#
# exit status: 0 done, 1 error, 2 usage or refused, 3 platform, 4 space, 5 integrity, 6 BASE in use or not ours,
#   7 a hook failed, 8 port taken, 129, 130 and 143 interrupted
#
# What follows this script's first @HEADER_BYTES@ bytes is a plain tar: tail -c +@PAYLOAD_START@ FILE | tar -tv

# For `release.py verify`:
# file_bytes=@FILE_BYTES@ payload_sha256=@PAYLOAD_SHA256@
# header_sha256=@HEADER_SHA256@

# shellcheck disable=SC2034  # the payload's scripts read most variables
main() {
    set -eu
    umask 022
    # The system's tools, with the system's libraries. Of the caller's variables, which sudo may keep, they see only
    # those named here, and so does this script: a variable of the environment is a variable of the script.
    unset LD_LIBRARY_PATH LD_PRELOAD LD_AUDIT
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export PATH LC_ALL=C
    for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'); do
        case $name in
            PATH | LC_ALL | PWD | XDG_RUNTIME_DIR | BAREHUB_DEBUG) ;;
            *) if (unset "$name") 2>/dev/null; then unset "$name"; fi ;; # bash has some that cannot be
        esac
    done
    case $0 in */*) this_file=$0 ;; *) this_file=./$0 ;; esac
    set_defaults
    parse_args "$@"
    [ -r "$this_file" ] || die 1 "cannot read $this_file" "run it as a file: sh ./@FILE@"

    check_integrity
    functions=$(payload | tar -xOf - @FUNCTIONS@)
    eval "$functions" # no temporary file: nothing is written before all checks have passed
    if [ "$kind" = environment ]; then functions=$(payload | tar -xOf - environment.sh); eval "$functions"; fi
    eval "set -- $forwarded"
    read_options "$@"
    case $action in
        verify) say "$this_file is intact: sha256 of the payload $payload_sha256"; exit 0 ;;
        list) payload | tar -xOf - packages.txt; exit 0 ;;
        extract) extract_to "$target" ;;
        diff | audit) compare "$action"; exit 0 ;;
    esac

    check_platform
    check_options
    if [ "$batch" = no ]; then ask_base; fi
    check_base
    check_release
    check_space
    check_ports
    if [ "$dry_run" = yes ]; then print_changes; exit 0; fi
    if [ "$batch" = no ]; then ask_consent; fi

    if [ -n "$log" ] && ! (: >>"$log") 2>/dev/null; then
        unwritable=$log log=''
        die 1 "cannot write $unwritable" "name a writable file with --log"
    fi
    trap clean_up EXIT
    trap 'clean_up 129' HUP; trap 'clean_up 130' INT; trap 'clean_up 143' TERM
    lock_base
    if [ "$complete" = no ] || [ "$repair" = yes ]; then install_release; else say "release $release is in place"; fi
    if [ "$keep" = yes ]; then keep_channel; fi
    finish "$@"
}

set_defaults() {
    file_bytes=@FILE_BYTES@ payload_start=@PAYLOAD_START@ payload_sha256=@PAYLOAD_SHA256@
    header_sha256=@HEADER_SHA256@
    kind=@KIND@ distribution=@NAME@ release=@RELEASE@
    needed_kb=@NEEDED_KB@ needed_inodes=@NEEDED_INODES@ installed_kb=@INSTALLED_KB@
    needed_glibc=@GLIBC@ needed_systemd=@SYSTEMD@
    runs_on='@SYSTEMS@'
    way_out="it runs on $runs_on; a build with the portable interpreter of release.py runs on older ones"
    base=/opt/@NAME@ example="-p /opt/@NAME@" from='' log='' action=install target='' forwarded=''
    batch=no update=no repair=no hooks=yes keep=no dry_run=no
    prefix='' unit='' complete=no written=no kept=no stage='' created='' unpacked=''
    case ${BAREHUB_DEBUG:-0} in 0) debug=no ;; *) debug=yes ;; esac
}

# --- what was asked for -----------------------------------------------------------------------------------------------

# The options of this script become variables. Other long ones are for the hooks, each with the word after it that may
# be its value: `forwarded` holds them, quoted. read_options of preflight.sh checks them.
parse_args() {
    while [ $# -gt 0 ]; do
        case $1 in
            -[bufskh]?*) # -bu is -b -u
                rest=${1#-?} first=${1%"$rest"}; shift; set -- "$first" "-$rest" "$@" ;;
            -p?*) value=${1#-p}; shift; set -- -p "$value" "$@" ;;
            --from=* | --log=* | --extract=*)
                value=${1#*=} first=${1%%=*}; shift; set -- "$first" "$value" "$@" ;;
        esac
        case $1 in
            -b) batch=yes ;;
            -u) update=yes ;;
            -f) repair=yes ;;
            -s) hooks=no ;;
            -k) keep=yes ;;
            -h | --help) usage; exit 0 ;;
            --dry-run) dry_run=yes ;;
            --debug) debug=yes ;;
            --verify) action=verify ;;
            --list) action=list ;;
            --diff) action='diff' ;;
            --audit) action=audit ;;
            -p | --from | --log | --extract)
                [ -n "${2:-}" ] || die 2 "$1 needs a value" "sh $0 -h"
                case $1 in
                    -p) base=$2 ;;
                    --from) from=$2 ;;
                    --log) log=$2 ;;
                    --extract) action=extract target=$2 ;;
                esac
                shift ;;
            --*=*) forwarded="$forwarded $(quote "$1")" ;;
            --?*)
                forwarded="$forwarded $(quote "$1")"
                case ${2--} in -*) ;; *) forwarded="$forwarded $(quote "$2")"; shift ;; esac ;;
            *) die 2 "unknown option: $1" "sh $0 -h" ;;
        esac
        shift
    done
}

usage() { sed -n '1d; s/^# \{0,1\}//p; /^What follows/q' "$this_file"; }

ask_base() {
    say "@NAME@ @RELEASE@ will be installed into this directory:" "  $base" "" \
        "  - press ENTER to confirm it" "  - press CTRL-C to leave" "  - or type another one" ""
    printf '[%s] >>> ' "$base"
    read -r answer || die 2 "there is no answer on standard input" "give -b to be asked nothing"
    base=${answer:-$base}
}

ask_consent() {
    print_changes
    printf '\nproceed? [yes] >>> '
    read -r answer || die 2 "there is no answer on standard input" "give -b to be asked nothing"
    case $answer in '' | y | Y | yes | Yes | YES) ;; *) die 2 "nothing was installed" "answer yes to install" ;; esac
}

# --- checks that need nothing of the payload --------------------------------------------------------------------------

check_integrity() {
    for tool in awk df find flock id sha256sum tail tar; do
        command -v "$tool" >/dev/null ||
            die 3 "'$tool' is needed but not installed" "install it with the system's package manager"
    done
    size=$(wc -c <"$this_file")
    [ "$size" -eq "$file_bytes" ] ||
        die 5 "$this_file is damaged: it has $((size)) bytes instead of $file_bytes" "copy it here again"
    no_sha256=$(printf '%064d' 0)
    [ "$(dd if="$this_file" bs=@HEADER_BYTES@ count=1 2>/dev/null | sed "s/$header_sha256/$no_sha256/" |
        sha256sum | cut -d ' ' -f 1)" = "$header_sha256" ] ||
        die 5 "$this_file is damaged: its first part, this script, was changed" "copy it here again"
    [ "$(payload | sha256sum | cut -d ' ' -f 1)" = "$payload_sha256" ] ||
        die 5 "$this_file is damaged: its checksum is wrong" "copy it here again"
}

check_platform() {
    system=$(uname -s) machine=$(uname -m)
    [ "$system $machine" = "Linux @MACHINE@" ] ||
        die 3 "this installer is for Linux @MACHINE@, not $system $machine" "get the one for this machine"
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || glibc=
    glibc=${glibc#glibc }
    case $glibc in
        2.[0-9]*) ;;
        *) die 3 "this system has no GNU C library" "@NAME@ needs glibc >= $needed_glibc" ;;
    esac
    minor=${glibc#2.}
    [ "${minor%%.*}" -ge "${needed_glibc#2.}" ] ||
        die 3 "$(system_name) has glibc $glibc, which is too old: this release needs $needed_glibc" "$way_out"
    if [ "$hooks" = yes ] && systemd_runs; then check_systemd; fi
}

check_systemd() {
    systemd=$(systemctl --version | awk 'NR == 1 { print $2 + 0 }')
    [ "${systemd:-0}" -ge "$needed_systemd" ] ||
        die 3 "$(system_name) has systemd ${systemd:-of no version}, which is too old: $needed_systemd is needed" \
            "use a newer system ($runs_on), or -s to fill the prefix only"
}

# What this system calls itself.
system_name() {
    called=$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release 2>/dev/null | tr -d "\"'" | head -n 1) || :
    printf '%s\n' "${called:-this system}"
}

# Become the script of the payload that adds it to a channel; the payload is on its standard input.
extract_to() {
    script=$(payload | tar -xOf - add_to_channel.sh)
    exec <"$this_file"
    dd bs=@HEADER_BYTES@ count=1 >/dev/null 2>&1
    set -- sh -c "$script" add_to_channel.sh --unpack "$distribution-$release" "$1"
    if [ "$debug" = yes ]; then shift; set -- sh -x "$@"; fi
    exec "$@"
}

payload() { tail -c "+$payload_start" "$this_file"; }

# A word as a shell reads it.
quote() { printf '%s\n' "$1" | sed "s/'/'\\\\''/g; 1s/^/'/; \$s/\$/'/"; }

say() { # each argument is a line
    printf '%s\n' "$@"
    if [ -n "$log" ] && [ -n "$stage" ]; then printf '%s\n' "$@" >>"$log"; fi
}

die() { # status, what is wrong, what to do
    if [ -n "$log" ] && [ -n "$stage" ]; then printf 'error: %s\n  fix: %s\n' "$2" "$3" >>"$log"; fi
    printf 'error: %s\n  fix: %s\n' "$2" "$3" >&2
    exit "$1"
}

# zsh has its own ways with $0, word splitting and traps otherwise.
if [ -n "${ZSH_VERSION:-}" ]; then emulate sh; fi
main "$@"
exit
