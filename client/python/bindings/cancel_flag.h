// Ends a call that has nothing else yet to be ended by, such as one that connects.
#pragma once

#include <atomic>
#include <utility>

#include "client/python/bindings/interruptible.h"
#include "client/python/bindings/status_error.h"
#include "common/net/channel.h"

namespace refit::python {

// For good; from any thread.
class CancelFlag {
 public:
  void Cancel() { cancelled_ = true; }
  bool cancelled() const { return cancelled_; }

 private:
  std::atomic<bool> cancelled_{false};
};

// What `connect(options)` gives; Ctrl-C and the flag end it.
template <typename Connect>
auto Connected(const ChannelOptions& options, CancelFlag& flag, Connect connect) {
  ChannelOptions cancellable = options;
  cancellable.is_cancelled = [&flag] { return flag.cancelled(); };
  decltype(connect(cancellable)) connection;
  RunInterruptible([&] { connection = connect(cancellable); }, [&flag] { flag.Cancel(); });
  return Value(std::move(connection));
}

}  // namespace refit::python
