// A flag that cancels a call before its connection exists, such as connecting itself.
#pragma once

#include <atomic>
#include <utility>

#include "client/python/bindings/interruptible.h"
#include "client/python/bindings/status_error.h"
#include "common/net/channel.h"

namespace refit::python {

// Once set, it stays set. Any thread may set it.
class CancelFlag {
 public:
  void Cancel() { cancelled_ = true; }
  bool cancelled() const { return cancelled_; }

 private:
  std::atomic<bool> cancelled_{false};
};

// Returns what `connect(options)` returns. Ctrl-C or the flag cancels it.
template <typename Connect>
auto Connected(const ChannelOptions& options, CancelFlag& flag, Connect connect) {
  ChannelOptions cancellable = options;
  cancellable.is_cancelled = [&flag] { return flag.cancelled(); };
  decltype(connect(cancellable)) connection;
  RunInterruptible([&] { connection = connect(cancellable); }, [&flag] { flag.Cancel(); });
  return Value(std::move(connection));
}

}  // namespace refit::python
