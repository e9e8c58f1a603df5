# shellcheck shell=sh disable=SC2034,SC2154  # it shares its variables with the scripts that read it
# What an installer tells of itself and of the active release before anybody decides: --diff and --audit. They write
# nothing, any account may run them, and the active release's python compares. Functions only: header.sh reads this file
# from its payload, with preflight.sh and steps.sh.

compare() { # diff or audit
    find_place
    active=$(readlink "$base/$link" 2>/dev/null) || active=
    [ -n "$active" ] || die 6 "there is no release in $base to compare with" \
        "name the right directory with -p; for a first installation there is --dry-run"
    trust_base
    python=$base/$link/bin/python
    { [ -x "$python" ] && [ -r "$base/$link/share/barehub/release.json" ]; } ||
        die 6 "${active##*/}, which is active in $base, is not complete or cannot be read" \
            "run this as root; if that changes nothing, repair it with its own installer and -f"
    if [ "$1" = diff ]; then
        check_platform
        script=$(payload | tar -xOf - comparison.py)
        payload | tar -xOf - release.json | ask_python "$base" "$this_file"
        print_room
    else
        known=$(payload | tar -xOf - advisories.json 2>/dev/null) || die 1 "$this_file knows no advisories" \
            "use one that was built with --advisories, or: release.py audit ADVISORIES $this_file"
        script=$(payload | tar -xOf - osv.py)
        printf '%s\n' "$known" | ask_python "${active##*/}" "$distribution $release"
    fi
}

# Root runs what is in BASE, so that has to be root's.
trust_base() { if [ "$(id -u)" -eq 0 ]; then check_ground; fi; }

# -B: it writes no bytecode. In a subshell, since zsh runs the end of a pipe in the script's own shell.
ask_python() (become HOME=/ "$python" -I -B -c "$script" "$base/$link" "$@")

print_room() {
    if [ -e "$prefix/share/barehub/release.json" ]; then return; fi
    free=$(df -Pk "$base" | awk 'END { print $4 }')
    say "room      $((needed_kb / 1024)) MB are needed in $base, $((free / 1024)) MB are free"
}
