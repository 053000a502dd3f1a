#!/usr/bin/env bash
# Checks that intervals are measured with a steady clock: the wall clock may jump, so nothing may wait by it or subtract
# its times. Prints each violation, and fails. Exit code 0: nothing found. Part of deploy/lint.sh, and a test.
set -euo pipefail
cd "$(dirname "$0")/.."

# Abseil's waits with a timeout count too: they sleep until a wall-clock time.
wall='system_clock|high_resolution_clock|absl::Now\(|GetCurrentTimeNanos|CLOCK_REALTIME|gettimeofday|\btime\((nullptr|NULL|0)\)'
wall+='|AwaitWith(Timeout|Deadline)|WaitWith(Timeout|Deadline)|LockWhenWith|WaitForNotificationWith'
wall+='|time\.time(_ns)?\(|datetime\.(now|utcnow|today)'
# Allowed: times for people, in summaries and in each line of the log, and a number for a run that must be larger than
# those of earlier days.
allowed=(common/net/wall_clock.h server/process/event_log.cc client/python/refit/integrations/nemo_rl.py)

excluded=()
for file in "${allowed[@]}"; do excluded+=(-e "^$file:"); done
found=$(grep -rnE "$wall" common server client --include='*.cc' --include='*.h' --include='*.in' --include='*.py' \
          --exclude-dir=tests | grep -v "${excluded[@]}" || true)
if [[ -n $found ]]; then
  echo "The wall clock, where a steady one belongs (std::chrono::steady_clock, SteadyDeadline, time.monotonic):"
  echo "$found"
  exit 1
fi
