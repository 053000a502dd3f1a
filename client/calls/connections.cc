#include "client/calls/connections.h"

#include <utility>

#include "common/net/channel.h"

namespace refit {
namespace {

// What the caller's own callback refers to may be gone by now.
ChannelOptions CancelledWith(ChannelOptions options, const std::shared_ptr<ActiveCalls>& calls) {
  options.is_cancelled = [calls] { return calls->cancelled().stopped(); };
  return options;
}

}  // namespace

Connections::Connections(ChannelOptions options, std::shared_ptr<grpc::Channel> first,
                         const std::shared_ptr<ActiveCalls>& calls)
    : options_(CancelledWith(std::move(options), calls)), channels_({std::move(first)}) {}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connections::Get(size_t index) {
  {
    const std::lock_guard lock(mutex_);
    if (index < channels_.size() && channels_[index] != nullptr) return channels_[index];
  }
  absl::StatusOr<std::shared_ptr<grpc::Channel>> made = Connect(options_);
  if (!made.ok()) return made.status();
  const std::lock_guard lock(mutex_);
  if (channels_.size() <= index) channels_.resize(index + 1);
  if (channels_[index] == nullptr) channels_[index] = *std::move(made);
  return channels_[index];
}

}  // namespace refit
