#include "server/program/end_request.h"

#include <csignal>
#include <cstdlib>
#include <utility>

namespace refit {

EndRequest::EndRequest(EventLog log) : log_(std::move(log)), signals_([this](int signal) { Note(signal); }) {}

int EndRequest::Await() {
  std::unique_lock lock(mutex_);
  awaited_ = true;
  noted_.wait(lock, [this] { return signal_ != 0; });
  return signal_;
}

void EndRequest::Note(int signal) {
  const std::lock_guard lock(mutex_);
  if (!awaited_) {
    log_.Info("ended before it served", {{"signal", SignalName(signal)}});
    log_.Close();
    std::_Exit(0);
  }
  signal_ = signal;
  noted_.notify_all();
}

const char* SignalName(int signal) { return signal == SIGTERM ? "SIGTERM" : "SIGINT"; }

}  // namespace refit
