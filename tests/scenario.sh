# shellcheck shell=dash
# Helpers with which a scenario in a guest prints its results as a Rust test does. Scenarios source this file and define
# tell_more(), which prints more when something does not hold.
passed=0
fail() {
  printf 'FAILED: %s\n' "$*"
  tell_more
  echo "test result: FAILED. $passed passed; 1 failed"
  exit 1
}
must() { "$@" >must.out 2>&1 || fail "'$*' ended with status $?: $(cat must.out)"; }
# within SECONDS COMMAND...: repeats the command until it succeeds.
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
