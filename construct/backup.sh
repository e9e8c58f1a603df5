# shellcheck shell=sh disable=SC2034,SC2154  # it shares its variables with the scripts that read it
# `--restore FILE`: the checks of a backup before the first write.

# What needs no Python of a backup's checks, before the first write; the hooks check all of it. Its accounts, and the
# name of its units, count as if they were given.
read_backup() {
    file=$opt_restore
    case $file in /*) ;; *) file=./$file ;; esac
    if ! [ -f "$file" ] || ! [ -r "$file" ]; then die 2 "cannot read $file" "name what 'barehub backup' has written"; fi
    others=$(find -L "$file" -prune \( -perm -002 -o -perm -020 -o ! -user 0 ! -user "$(id -u)" \))
    [ -z "$others" ] || die 2 "others can change $file: $(ls -ldL "$file")" \
        "chown root $file; chmod 600 $file, if you know where it comes from"
    backup=$(tar -xOf - barehub-backup.json install.json <"$file" 2>/dev/null) ||
        die 5 "$file is no backup of barehub, or was cut off" "copy it here again"
    newest=$(printf '%s\n' "$(told release)" "$release" | sort -V | tail -n 1)
    [ "$(told distribution)" = "$distribution" ] ||
        die 6 "the backup is of $(told distribution), not of $distribution" "use an installer of $(told distribution)"
    [ "$newest" = "$release" ] ||
        die 6 "the backup is of $newest, which is newer than $release" "use the installer of $newest, or a newer one"
    [ "${opt_name:=$(told name)}" = "$(told name)" ] ||
        die 2 "the backup's units are named $(told name)" "leave out --name"
    if [ "$(id -u)" -ne 0 ]; then return; fi # hub and proxy will run as this account
    opt_hub_user=${opt_hub_user:-$(told hub_user)} theirs=$(told proxy_user)
    if [ "$theirs" != "$opt_name-proxy" ]; then opt_proxy_user=${opt_proxy_user:-$theirs}; fi
}

# A value of the backup's manifest or record, if it is a plain word.
told() { printf '%s\n' "$backup" | sed -n "s|^ *\"$1\": \"\([A-Za-z0-9/._+-]*\)\",\{0,1\}\$|\1|p" | head -n 1; }
