# shellcheck shell=bash disable=SC2034
# Shared by the scripts of this directory. Sourced after `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Where rustup and Go's own archive install to, and where Debian keeps depmod and mke2fs: not on every user's PATH.
PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin:/usr/sbin:/sbin
target=${CARGO_TARGET_DIR:-$root/target}

# What the guest, the tests and the demo run: optimised, statically linked, in one directory, `guest_bin`.
guest_programs=(hzn-armor-agent hzn-armor hzn-armor-dev-hub armor-guest-tests)

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# need COMMAND WHAT_TO_DO
need() { command -v "$1" >/dev/null || die "$1 is missing: $2"; }

# machine_arch: what this machine is, as Debian and Open Horizon call it.
machine_arch() { uname -m | sed 's/^x86_64$/amd64/; s/^aarch64$/arm64/'; }

# build_for ARCH: what is built from here on: amd64 or arm64.
build_for() {
  case $1 in
    amd64) triple=x86_64-unknown-linux-gnu ;;
    arm64) triple=aarch64-unknown-linux-gnu ;;
    *) die "architecture '$1' is not one of amd64, arm64" ;;
  esac
  guest_bin=$target/$triple/guest
  node_program=$target/$triple/image/hzn-armor-agent
}
# Elsewhere nothing is built, but bundles can be published.
case $(machine_arch) in
  amd64 | arm64) build_for "$(machine_arch)" ;;
esac

# as_root COMMAND...
as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

rust_wanted() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml"; }
project_version() { sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml"; }

# static_cargo ARGUMENT...: cargo for static binaries, which also run in a guest that has no C library.
static_cargo() {
  (
    cd "$root" || exit
    export RUSTFLAGS="-C target-feature=+crt-static${EXTRA_RUSTFLAGS:+ $EXTRA_RUSTFLAGS}"
    local command=$1
    shift
    [[ ${triple-} ]] || die "nothing is built on $(uname -m)"
    if [[ $triple != "$(uname -m)"-* ]]; then
      [[ $triple == aarch64-* ]] || die "$triple is built on such a machine alone"
      need aarch64-linux-gnu-gcc "run: scripts/setup --arm64"
      RUSTC=$("$root/scripts/arm64-rust") || exit
      export RUSTC CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    fi
    exec cargo "$command" --target "$triple" --target-dir "$target" "$@"
  )
}

# build_guest_programs: all of `guest_programs`, rebuilt only where something changed. With one test, for Cargo to take the features
# that the tests want of dependencies: each is then built once for both.
build_guest_programs() {
  static_cargo build --quiet --profile guest --workspace --bins --test diagnostics
}

# build_for_nodes [PACKAGE PROGRAM]: the agent as it is installed on nodes, in `node_program`, or another program beside it. No
# path of this machine gets into it, so that two builds of one commit are the same bytes wherever they happen.
build_for_nodes() {
  local home=${CARGO_HOME:-$HOME/.cargo} flags=() pair
  # The last that matches a path counts.
  for pair in "$home=/cargo" "$root=/src" "$target=/src/target"; do flags+=("$pair"); done
  (
    export CFLAGS="${flags[*]/#/-ffile-prefix-map=}" EXTRA_RUSTFLAGS="${flags[*]/#/--remap-path-prefix=}"
    static_cargo build --quiet --locked --profile image --package "${1-armor-agent}" --bin "${2-hzn-armor-agent}"
  )
}

# with_docker COMMAND...: with a Docker daemon; one that had to be started for it ends after it.
with_docker() {
  local daemon='' log=$target/dockerd.log status=0 deadline=$((SECONDS + 60))
  if ! docker version >/dev/null 2>&1; then
    ((EUID == 0)) || { echo "the Docker daemon does not answer: start it, and see that you may use its socket" && return 1; }
    dockerd >"$log" 2>&1 </dev/null &
    daemon=$!
    until docker version >/dev/null 2>&1; do
      if ((SECONDS > deadline)) || ! kill -0 "$daemon" 2>/dev/null; then
        tail "$log"
        return 1
      fi
      sleep 0.2
    done
  fi
  "$@" || status=$?
  [[ ! $daemon ]] || { kill "$daemon" && wait "$daemon"; } || true
  return "$status"
}
