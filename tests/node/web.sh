#!/bin/sh
# A workload that tries what it must not, from its first instruction on: reads the secret and writes down what came of it, until
# the node tells it to be quiet, before which it says that it waits.
while :; do
  if read -r _ </srv/secret; then echo permitted; else echo blocked; fi >>/data/tries 2>>/data/said
  [ ! -e /data/quiet ] || echo waits >>/data/tries
  while [ -e /data/quiet ]; do sleep 0.1; done
  sleep 0.5
done
