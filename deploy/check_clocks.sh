#!/usr/bin/env bash
# Intervals are measured by a steady clock, for the wall clock steps: nothing of ours waits by it, or subtracts its times.
# Prints what does, and fails. Exit code 0: nothing found. Part of deploy/lint.sh, and a test.
set -euo pipefail
cd "$(dirname "$0")/.."

# Abseil's waits with a timeout count as well: they sleep until a time of day.
wall='system_clock|high_resolution_clock|absl::Now\(|GetCurrentTimeNanos|CLOCK_REALTIME|gettimeofday|\btime\((nullptr|NULL|0)\)'
wall+='|AwaitWith(Timeout|Deadline)|WaitWith(Timeout|Deadline)|LockWhenWith|WaitForNotificationWith'
wall+='|time\.time(_ns)?\(|datetime\.(now|utcnow|today)'
# What people read: a time of day in summaries, and in each line of the log. And a number for a run that is larger than
# those of runs of days before.
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
