#!/bin/sh
# Lets @TITLE@ on this machine pull through @URL@.
#
#   sh setup.sh           shows what would change
#   sh setup.sh --apply   changes it, and checks that it works
#   sh setup.sh --undo    takes it back
#
# --root DIRECTORY before these changes the files below a directory, such as that of an image, and checks
# nothing.
set -euf

client=@CLIENT@
mirror=@URL@
mark=@MARK@
image=docker.io/library/hello-world:latest

paths() {
  cat <<'END_OF_FILE'
@PATHS@
END_OF_FILE
}

content() {
  case $1 in
@CONTENTS@
  esac
}

say() { printf '%s\n' "$*"; }
fail() { printf 'setup.sh: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

fetch() {
  if has curl; then curl -fsS -m 20 "$1"; else wget -q -T 20 -O - "$1"; fi
}

# edit_json add|remove|empty|keep FILE: FILE with or without the lists of $work/ours, and without those of
# $work/earlier; "empty" leaves a list without them. A file that holds nothing else needs no program for JSON.
edit_json() {
  if ! has_text "$2" || cmp -s "$2" "$work/ours" || cmp -s "$2" "$work/earlier"; then
    case $1 in
      add) cat "$work/ours" ;;
      empty) say '{"registry-mirrors": [], "insecure-registries": []}' ;;
      remove) say '{}' ;;
      keep) if has_text "$2"; then cat "$2"; else say '{}'; fi ;;
    esac
  elif has python3; then
    python3 -c '
import json, sys
how, (result, ours, earlier) = sys.argv[1], (json.load(open(each)) for each in sys.argv[2:])
for key in {**earlier, **ours} if how != "keep" else ():
    present, values = result.get(key, []), ours.get(key, [])
    if not isinstance(present, list):
        sys.exit(f"expected a list as {key}")
    others = [each for each in present if each not in values + earlier.get(key, [])]
    result[key] = values + others if how == "add" else others
    if how != "empty" and not result[key]:
        del result[key]
print(json.dumps(result, indent=2, ensure_ascii=False))' "$1" "$2" "$work/ours" "$work/earlier"
  elif ! has jq; then
    say "neither python3 nor jq is installed" >&2
    return 1
  elif [ "$(long_numbers <"$2")" != "$(jq . "$2" | long_numbers)" ]; then
    say "$2: this version of jq would change large numbers; install python3" >&2
    return 1
  else
    jq --slurpfile ours "$work/ours" --slurpfile earlier "$work/earlier" --arg how "$1" '
      if $how == "keep" then . else reduce ($earlier[0] + $ours[0] | keys_unsorted[]) as $key (.;
        ($ours[0][$key] // []) as $values
        | ((.[$key] // []) - $values - ($earlier[0][$key] // [])) as $others
        | .[$key] = (if $how == "add" then $values + $others else $others end)
        | if $how != "empty" and .[$key] == [] then del(.[$key]) else . end) end' "$2"
  fi
}

has_text() { grep -qs '[^[:space:]]' "$1"; }
long_numbers() { grep -oE '[0-9]{16,}' || :; }

# Writes to $work/ours what this script puts into the file at $1, and to $work/earlier what the last run put.
read_ours() {
  content "$1" >"$work/ours"
  earlier=$root$1.by-dockmirror
  [ -e "$earlier" ] || earlier=$work/ours
  cat "$earlier" >"$work/earlier"
}

# Writes to $work/next what the file at $1 is to be; fails if somebody else wrote the file.
plan() {
  read_ours "$1"
  if [ "$client" = docker ]; then
    edit_json add "$root$1" >"$work/next" && edit_json keep "$root$1" >"$work/kept" || return 1
    if cmp -s "$work/kept" "$work/next"; then cp "$root$1" "$work/next"; fi
    return 0
  fi
  cp "$work/ours" "$work/next"
  [ ! -s "$root$1" ] || cmp -s "$root$1" "$work/ours" || is_ours "$root$1"
}

is_ours() { head -n 1 "$1" | grep -qxF "$mark"; }

blocked() {
  say "$1: exists and was not written by dockmirror. Add these lines to it yourself:"
  content "$1"
  exit 1
}

# Fails if the file at $1 cannot be read, or where a link leads out of the root: this machine would follow it to a
# file of its own.
check_path() {
  top=$(readlink -f "$root/")
  part=$root$1
  until [ -e "${part:-/}" ] || [ -L "$part" ]; do part=${part%/*}; done
  [ -e "${part:-/}" ] || fail "$part: is a link to no file; nothing was changed"
  [ -r "${part:-/}" ] || { [ -d "$part" ] && [ -x "$part" ]; } || fail "$part: cannot be read; run this as root"
  case $(readlink -f "${part:-/}")/ in
    "${top%/}"/*) ;;
    *) fail "$root$1: a link leads out of $root; nothing was changed" ;;
  esac
}

show() {
  changes=
  for path in $(paths); do
    plan "$path" || blocked "$path"
    if cmp -s "$root$path" "$work/next"; then
      say "$path: stays as it is"
    elif [ -e "$root$path" ] && has diff; then
      changes=yes
      diff -u "$root$path" "$work/next" || :
    else
      changes=yes
      say "$path: new:"
      sed 's/^/+/' "$work/next"
    fi
  done
  [ -z "$changes" ] || say "Nothing was changed. To change it: sh $0 --apply"
}

# put PATH: $work/next becomes the file, with the permissions and the owner that it had.
put() {
  file=$root$1
  if [ -L "$file" ]; then file=$(readlink -f "$file"); fi
  { mkdir -p "$(dirname "$file")" && touch "$file.new"; } 2>/dev/null ||
    fail "$file: cannot be written; run this as root"
  if [ -e "$file" ]; then cp -p "$file" "$file.new"; fi
  cat "$work/next" >"$file.new"
  mv -f "$file.new" "$file"
}

apply() {
  [ -n "$root" ] || fetch "$mirror/healthz" >/dev/null ||
    fail "$mirror cannot be reached from this machine, or its certificate is not trusted here; nothing was changed"
  for path in $(paths); do
    plan "$path" || blocked "$path"
  done
  changes=
  for path in $(paths); do
    plan "$path"
    if cmp -s "$root$path" "$work/next"; then continue; fi
    changes=yes
    if [ "$client" = docker ]; then back_up "$path"; fi
    put "$path"
    if [ "$client" = docker ]; then cat "$work/ours" >"$root$path.by-dockmirror"; fi
    say "$root$path: written"
  done
  [ -n "$changes" ] || say "All files are in place already."
  if [ -z "$root" ]; then
    if [ -n "$changes" ]; then reload || fail "$client could not be reloaded; is it running?"; fi
    verify
  fi
}

# Copies the file as it is before the first run.
back_up() {
  if [ -e "$root$1" ] && [ ! -e "$root$1.before-dockmirror" ] && [ ! -e "$root$1.by-dockmirror" ]; then
    cp -p "$root$1" "$root$1.before-dockmirror" || fail "$root$1: cannot be copied; run this as root"
  fi
}

undo() {
  changes=
  for path in $(paths; marked); do
    file=$root$path
    [ -e "$file" ] || continue
    [ -w "$file" ] || fail "$file: cannot be written; run this as root"
    if [ "$client" = docker ]; then
      undo_docker "$path"
    elif is_ours "$file"; then
      rm "$file"
      say "$file: removed"
      if [ "$client" = containerd ]; then rmdir "$(dirname "$file")" 2>/dev/null || :; fi
    else
      say "$file: was not written by dockmirror, and stays"
      continue
    fi
    changes=yes
  done
  [ -n "$changes" ] || say "There is nothing to take back."
  [ -n "$root" ] || [ -z "$changes" ] || [ "$client" = docker ] || reload
}

# The files that an earlier run wrote for registries that the mirror has no more.
marked() {
  if [ "$client" = containerd ] && [ -d "$root/etc/containerd/certs.d" ]; then
    find "$root/etc/containerd/certs.d" -name hosts.toml -exec grep -lxF "$mark" {} + | sed "s|^$root||"
  fi
}

undo_docker() {
  before=$root$1.before-dockmirror
  read_ours "$1"
  { edit_json keep "$root$1" >"$work/kept" && edit_json remove "$root$1" >"$work/final"; } ||
    fail "$root$1: remove the lines that name $mirror yourself"
  if cmp -s "$work/kept" "$work/final"; then
    say "$root$1: does not name $mirror, and stays"
  else
    edit_json empty "$root$1" >"$work/next"
    forget_mirror "$1"
    put_back "$1"
  fi
  if [ -e "$before" ]; then
    mv "$before" "$before.old"
    say "$before.old: the file as it was before, whose other settings differ"
  fi
  rm -f "$root$1.by-dockmirror"
}

# put_back PATH: the file becomes $work/final, or the copy from before if that says the same.
put_back() {
  if [ -e "$before" ] && edit_json remove "$before" | cmp -s - "$work/final"; then
    cp "$before" "$work/next"
    put "$1"
    rm "$before"
    say "$root$1: is again as it was without the mirror"
  elif [ ! -e "$before" ] && [ "$(cat "$work/final")" = "{}" ]; then
    rm "$(readlink -f "$root$1")"
    say "$root$1: removed"
  else
    cp "$work/final" "$work/next"
    put "$1"
    say "$root$1: names the mirror no more, and keeps its other settings"
  fi
}

# dockerd forgets mirrors at a reload only if its file has a list without them; no list at all changes nothing.
forget_mirror() {
  if [ -n "$root" ]; then return 0; fi
  put "$1"
  reload || { say "docker could not be reloaded; is it running?"; return 0; }
  tries=30
  while has docker && uses_mirror && [ "$tries" -gt 0 ]; do
    tries=$((tries - 1))
    sleep 1
  done
}

reload() {
  case $client in
    docker)
      if has systemctl; then systemctl reload docker; else kill -HUP "$(cat /var/run/docker.pid)"; fi || return 1
      say "docker: reloaded; no container was stopped. 'docker build' follows after its next restart."
      ;;
    podman)
      if has systemctl && systemctl -q is-active crio 2>/dev/null; then systemctl reload crio; fi
      ;;
    k3s)
      say "k3s reads this file only when it starts: systemctl restart k3s (k3s-agent on agents). Pods go on."
      ;;
  esac
}

verify() {
  case $client in
    docker) has docker || { say "Not tested: there is no docker command."; return 0; } ;;
    podman) has podman || { say "Not tested: there is no podman command."; return 0; } ;;
    containerd)
      grep -qs certs.d "$root/etc/containerd/config.toml" || {
        say "Kubernetes needs these lines in /etc/containerd/config.toml, and a restart of containerd:"
        fetch "$mirror/client/containerd/config"
      }
      has ctr || { say "Not tested: there is no ctr command."; return 0; }
      ;;
    k3s) return 0 ;;
  esac
  tries=30
  until uses_mirror; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail "$client does not name the mirror. Look at its log, or take it back: sh $0 --undo"
    sleep 1
  done
  test_pull
}

uses_mirror() {
  case $client in
    docker) docker info --format '{{json .RegistryConfig.Mirrors}}' | grep -qF "\"$mirror/\"" ;;
    podman) podman info --format json | grep -qF "\"${mirror#*://}/" ;;
  esac
}

use_client() {
  case $client-$1 in
    containerd-find) ctr images ls -q "name==$image" | grep -q . ;;
    containerd-pull) ctr images pull --hosts-dir /etc/containerd/certs.d "$image" ;;
    containerd-remove) ctr images rm "$image" ;;
    *-find) "$client" image inspect "$image" ;;
    *-pull) "$client" pull -q "$image" ;;
    *-remove) "$client" image rm "$image" ;;
  esac
}

test_pull() {
  if use_client find >/dev/null 2>&1; then
    say "The mirror is set up. Pull an image that is not here yet, and look at $mirror/"
    return 0
  fi
  gone="the mirror is set up, but $mirror does not answer any more; to take it back: sh $0 --undo"
  latest=$(fetch "$mirror/pulls?latest" 2>/dev/null) || {
    fetch "$mirror/healthz" >/dev/null || fail "$gone"
    latest=unknown
  }
  use_client pull >/dev/null ||
    fail "the mirror is set up, but $image could not be pulled; to take it back: sh $0 --undo"
  use_client remove >/dev/null 2>&1 || :
  if [ "$latest" = unknown ]; then
    say "The mirror is set up, and $image was pulled; $mirror/pulls does not show whether through the mirror."
    return 0
  fi
  tries=30
  while now=$(fetch "$mirror/pulls?latest") || fail "$gone"; [ "$now" = "$latest" ]; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail "$image was pulled, but not through the mirror; its page says why: $mirror/"
    sleep 1
  done
  say "It works: $image was pulled through the mirror."
}

# Stops if another file has a table for one of our registries: podman takes each table from one file.
check_tables() {
  [ "$client" = podman ] || return 0
  own=$(paths)
  content "$own" | sed -n 's|^location = "\([^/]*\)"$|\1|p' | sed -e 's|[].[]|\\&|g' \
    -e "s|.*|^[[:space:]]*(prefix\|location)[[:space:]]*=[[:space:]]*[\"']&/*[\"']|" >"$work/tables"
  others=$(find -L "$root/etc/containers/registries.conf" "$root/etc/containers/registries.conf.d" \
    -name '*.conf' ! -name "${own##*/}" -exec grep -lEf "$work/tables" {} + 2>/dev/null) || :
  [ -n "$others" ] || return 0
  say "$others: has a table for one of these registries, and podman takes each from one file. Add the mirror yourself:"
  content "$own"
  exit 1
}

main() {
  root=
  if [ "${1-}" = --root ] && [ $# -gt 1 ]; then
    [ -d "$2" ] || fail "--root: there is no directory $2"
    root=${2%/}
    shift 2
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  for path in $(paths); do check_path "$path"; done
  case $#,${1-} in
    0,) check_tables; show ;;
    1,--apply) check_tables; apply ;;
    1,--undo) undo ;;
    *) fail "usage: sh $0 [--root DIRECTORY] [--apply | --undo]" ;;
  esac
}

main "$@"
