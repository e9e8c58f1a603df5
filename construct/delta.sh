#!/bin/sh
# @NAME@ @RELEASE@ for Linux @MACHINE@, as far as it differs from the installer of @OLD@.
#
# usage: sh @FILE@ OLD [options]
#
#   OLD           @OLD_FILE@: the file itself, not what it has installed
#   options       of the whole installer, which then runs with them, such as -b -u
#
# It writes the whole installer, ./@WHOLE@, byte for byte as it was published, and checks that.
#
# exit status: that of the installer; 0 done, 2 usage or refused, 4 space, 5 integrity

main() {
    set -eu
    umask 022
    unset LD_LIBRARY_PATH LD_PRELOAD LD_AUDIT
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export PATH LC_ALL=C
    case $0 in */*) delta=$0 ;; *) delta=./$0 ;; esac
    case ${1:--h} in -h | --help) sed -n '1d; s/^# \{0,1\}//p; /^exit status/q' "$delta"; exit 0 ;; esac
    old=$1 start=@START@ whole=./@WHOLE@ new=./.@WHOLE@.new
    shift
    case $old in -*) die 2 "the first word is not a file: $old" "sh $delta @OLD_FILE@ $old $*" ;; esac

    if ! is_file "$whole" @WHOLE_SHA256@; then
        [ ! -f "$old" ] || [ -r "$old" ] || die 2 "cannot read $old" "run this as root, or as the file's owner"
        is_file "$old" @OLD_SHA256@ || die 5 "$old is not @OLD_FILE@ as it was published" \
            "name that file; without it, get the whole @WHOLE@"
        trap 'rm -f "$new"' EXIT
        trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM # which runs the one above
        rm -f "$new"
        (set -C; join >"$new") ||
            die 4 "the installer cannot be written to $PWD" "see the message above; make room there"
        is_file "$new" @WHOLE_SHA256@ || die 5 "$delta is damaged: what it makes is not what was published" \
            "copy it here again"
        chmod 755 "$new"
        mv -f "$new" "$whole"
        trap - EXIT
    fi
    if [ $# -gt 0 ]; then exec sh "$whole" "$@"; fi
    printf '%s\n' "@WHOLE@ is as it was published: sha256 @WHOLE_SHA256@" \
        "  to upgrade: sudo sh $whole -b -u"
}

is_file() { [ -f "$1" ] && [ -r "$1" ] && [ "$(sha256sum <"$1" | cut -d ' ' -f 1)" = "$2" ]; }

# Print the whole installer.
join() {
    segments | while read -r from offset length; do
        case $from in old) file=$old ;; *) file=$delta offset=$((offset + start)) ;; esac
        tail -c "+$((offset + 1))" "$file" | head -c "$length" || exit 1
    done
}

# Of which file, from which byte, how many.
segments() {
    cat <<END
@SEGMENTS@
END
}

die() { # status, what is wrong, what to do
    printf 'error: %s\n  fix: %s\n' "$2" "$3" >&2
    exit "$1"
}

# zsh has its own ways with $0, word splitting and traps otherwise.
if [ -n "${ZSH_VERSION:-}" ]; then emulate sh; fi
main "$@"
exit
