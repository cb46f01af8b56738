# shellcheck shell=dash
# What a scenario that is told in a guest says as a Rust test does. Sourced by scenarios, which define tell_more(): what is to be
# printed where something did not hold.
passed=0
fail() {
  printf 'FAILED: %s\n' "$*"
  tell_more
  echo "test result: FAILED. $passed passed; 1 failed"
  exit 1
}
must() { "$@" >must.out 2>&1 || fail "'$*' ended with status $?: $(cat must.out)"; }
# within SECONDS COMMAND...: until it succeeds.
within() {
  limit=$1 until=$(($(date +%s) + $1))
  shift
  until "$@"; do
    [ "$(date +%s)" -lt "$until" ] || fail "not within $limit s: $*"
    sleep 0.2
  done
}
held() { passed=$((passed + 1)) && echo "test $* ... ok"; }
finished() { echo "test result: ok. $passed passed; 0 failed"; }
