#!/bin/sh
# A workload that makes a forbidden access from its first instruction on: it reads the secret and writes down the result, until
# the node tells it to be quiet. Before it is quiet it writes that it waits.
while :; do
  if read -r _ </srv/secret; then echo permitted; else echo blocked; fi >>/data/tries 2>>/data/said
  [ ! -e /data/quiet ] || echo waits >>/data/tries
  while [ -e /data/quiet ]; do sleep 0.1; done
  sleep 0.5
done
