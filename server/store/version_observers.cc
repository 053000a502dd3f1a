#include "server/store/version_observers.h"

namespace refit {

uint64_t VersionObservers::Add(std::optional<std::string> model, Observer on_change) {
  absl::MutexLock lock(&mutex_);
  observers_.emplace(next_, std::make_pair(std::move(model), std::move(on_change)));
  return next_++;
}

void VersionObservers::Remove(uint64_t number) {
  absl::MutexLock lock(&mutex_);
  observers_.erase(number);
}

void VersionObservers::Tell(const std::vector<std::shared_ptr<Version>>& changed) const {
  std::vector<std::pair<std::optional<std::string>, Observer>> observers;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [number, observer] : observers_) observers.push_back(observer);
  }
  for (const std::shared_ptr<Version>& version : changed) {
    for (const auto& [model, on_change] : observers) {
      if (!model.has_value() || *model == version->model()) on_change(version);
    }
  }
}

}  // namespace refit
