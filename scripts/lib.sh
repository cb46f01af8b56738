# shellcheck shell=bash disable=SC2034
# Shared by the scripts of this folder. Sourced after `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Where rustup and Go's own archive install to, and where Debian keeps depmod and mke2fs: not on every user's PATH.
PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin:/usr/sbin:/sbin
target=${CARGO_TARGET_DIR:-$root/target}
triple=x86_64-unknown-linux-gnu

# What the guest, the tests and the demo run: optimised, statically linked, in one folder.
guest_bin=$target/$triple/guest
guest_packages=(armor-agent armor-hub-client armor-dev-hub armor-guest-tests)
guest_programs=(hzn-armor-agent hzn-armor hzn-armor-dev-hub armor-guest-tests)

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# static_cargo ARGUMENT...: cargo for static binaries, which also run in a guest that has no C library.
static_cargo() {
  (
    cd "$root" || exit
    export RUSTFLAGS="-C target-feature=+crt-static"
    local command=$1
    shift
    exec cargo "$command" --target "$triple" --target-dir "$target" "$@"
  )
}

# build_guest_programs: all of `guest_programs`, rebuilt only where something changed.
build_guest_programs() {
  static_cargo build --quiet --profile guest "${guest_packages[@]/#/--package=}" --bins
}
