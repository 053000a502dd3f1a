// Connections that a subscriber keeps for pulls that take several.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "client/calls/stream_trial.h"
#include "refit/channel_options.h"
#include "refit/subscriber.h"

namespace refit {

// Thread-safe.
class SpareSubscribers {
 public:
  // `options` are those of the subscriber.
  explicit SpareSubscribers(ChannelOptions options) : options_(std::move(options)) {
    options_.transport = Transport::kWire;
  }

  // One that was given back, or a new one. `is_cancelled` ends the attempt to connect.
  absl::StatusOr<std::unique_ptr<Subscriber>> Take(std::function<bool()> is_cancelled) {
    {
      const std::lock_guard lock(mutex_);
      if (!spare_.empty()) {
        std::unique_ptr<Subscriber> subscriber = std::move(spare_.back());
        spare_.pop_back();
        return subscriber;
      }
    }
    ChannelOptions options = options_;
    options.is_cancelled = std::move(is_cancelled);
    return Subscriber::Connect(options);
  }

  // It must not be cancelled.
  void GiveBack(std::unique_ptr<Subscriber> subscriber) {
    const std::lock_guard lock(mutex_);
    spare_.push_back(std::move(subscriber));
  }

  // How many connections pay, as earlier pulls have shown.
  StreamTrial& trial() { return trial_; }

 private:
  ChannelOptions options_;
  StreamTrial trial_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Subscriber>> spare_;  // guarded by mutex_
};

}  // namespace refit
